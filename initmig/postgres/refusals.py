"""Why an attempt to connect failed; imported when one did, since the no-op needs none of it.

libpq gives no SQLSTATE for a failed connect, and its ping calls a server that has no slot left, or
that does not speak TLS, the same as one that refuses a password or is silent. So its words decide;
if they say nothing, or are in another language, the SQLSTATEs of another attempt; then the ping.
"""

import ctypes
import re
import select
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from initmig.errors import ConfigError, DatabaseRefused, DatabaseUnavailable, InitmigError
from initmig.postgres.errors import LoginRefused, one_line

_Verdict = Literal["unsupported", "refused", "not now", "malformed", "not tried"]

_WORDS: dict[_Verdict, str] = {
    # a pooler's: what is said at start-up would be said to a connection that others use next
    "unsupported": r"unsupported startup parameter",
    "refused": r"SSL|certificate|GSSAPI|pg_hba\.conf|password|authentication|permission denied"
    r"|(role|database|user) \"[^\"]*\" (does not exist|is not)|not permitted to log in",
    "not now": r"too many|connection slots|no more connections allowed"
    r"|is (starting up|shutting down)|recovery|standby|read-only|not yet accepting"
    r"|Connection refused|timeout expired|resolve host|translate host name"
    r"|closed the connection|query_wait_timeout",
    # what libpq finds only when it connects; it names the option, and never the password
    "malformed": r"^invalid (integer value|port number)",
}
"""The first that is found counts: of several hosts, one that refuses is enough."""

_QUOTED = re.compile(r"""(["']).*?\1|>>.*?<<|»[^«]*«|«[^»]*»|„[^“”]*[“”]""")
_NOT_NOW = ("00", "53", "55000", "57P")
"""SQLSTATEs of a refused connect that pass: no resources, not yet, not any more. 00 is success."""
_SQLSTATE = re.compile(r":  ([0-9A-Z]{5})$", re.MULTILINE)
_PQERRORS_SQLSTATE = 3
_ANSWER_SECONDS = 5.0

_PINGS: dict[int, _Verdict] = {pq.Ping.OK: "refused", pq.Ping.NO_ATTEMPT: "not tried"}


def connect_error(error: psycopg.Error, params: Mapping[str, Any]) -> InitmigError:
    """*error* of an attempt to connect with *params*, as what is to be done about it."""
    reason = one_line(error)
    match _by_words(reason) or _by_asking_again(make_conninfo("", **params).encode()):
        case "unsupported":
            return DatabaseRefused(
                reason,
                hint="take it out of the URL (for a search path there is --schema, for a role"
                " --role), or let the pooler drop it: ignore_startup_parameters in PgBouncer",
            )
        case "refused":
            return LoginRefused(
                reason,
                hint="check user, password, database and sslmode, and the server's pg_hba.conf",
            )
        case "not now":
            return DatabaseUnavailable(reason)
        case "malformed":
            return ConfigError(f"the database URL cannot be used: {reason}")
        case "not tried":
            return ConfigError(
                f"the database URL cannot be used: {reason}",
                hint="name the user in the URL, or in PGUSER"
                if "local user" in reason
                else "see the connection strings and PG* variables of libpq",
            )


def _by_words(reason: str) -> _Verdict | None:
    # a host may be called "authentication-db", and a database "SSL"
    unquoted = _QUOTED.sub('""', reason)
    return next((verdict for verdict, said in _WORDS.items() if re.search(said, unquoted)), None)


def _by_asking_again(conninfo: bytes) -> _Verdict:
    if sqlstates := _ask_for_sqlstates(conninfo):
        passing = all(sqlstate.startswith(_NOT_NOW) for sqlstate in sqlstates)
        return "not now" if passing else "refused"
    return _PINGS.get(pq.PGconn.ping(conninfo), "not now")


def _ask_for_sqlstates(conninfo: bytes) -> list[str]:
    """What the servers answer to another attempt to connect; empty if that cannot be told.

    Their words may be in any language (``lc_messages``), and libpq keeps the SQLSTATE of a failed
    connect to itself, unless it is told to say nothing else, after the attempt has begun.
    """
    pgconn = pq.PGconn.connect_start(conninfo)
    try:
        _say_only_the_sqlstate(pgconn)
        if _finish_connecting(pgconn) == pq.PollingStatus.OK:
            return ["00000"]
        return _SQLSTATE.findall(pgconn.error_message.decode(errors="replace"))
    except (psycopg.Error, OSError, AttributeError):
        return []  # libpq finds fault with the parameters, or cannot be got at
    finally:
        pgconn.finish()


def _finish_connecting(pgconn: pq.abc.PGconn) -> int:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (status := pgconn.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        writing = status == pq.PollingStatus.WRITING
        socket = select.poll()
        socket.register(pgconn.socket, select.POLLOUT if writing else select.POLLIN)
        if not socket.poll(max(0.0, deadline - time.monotonic()) * 1000):
            break
    return status


def _say_only_the_sqlstate(pgconn: Any) -> None:
    # psycopg does not wrap this one; what a module is linked with is found through the module
    libpq = ctypes.CDLL(sys.modules[type(pgconn).__module__].__file__)
    set_verbosity = libpq.PQsetErrorVerbosity
    set_verbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    set_verbosity(pgconn.pgconn_ptr, _PQERRORS_SQLSTATE)
