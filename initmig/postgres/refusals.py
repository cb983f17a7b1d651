"""Why an attempt to connect failed; imported when one did, since the no-op needs none of it.

psycopg gives no SQLSTATE for a failed connect, and libpq's ping calls a server that has no slot
left, or that does not speak TLS, the same as one that refuses a password or is silent. So the words
decide; if they say nothing, or are in another language, the SQLSTATEs; then the ping.
"""

from __future__ import annotations

import os
import re

from initmig.causes import CONNECTING
from initmig.errors import ConfigError, DatabaseRefused, DatabaseUnavailable
from initmig.postgres.errors import LoginRefused
from initmig.postgres.libpq import ConnectFailed, LibpqConnection, find_libpq, ping
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ctypes import CDLL
    from typing import Literal

    from initmig.errors import InitmigError

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

_NO_SOCKET = r'connection to server on socket "([^"]*)" failed: No such file or directory'
"""What libpq tries where no host is named."""

_QUOTED = re.compile(r"""(["']).*?\1|>>.*?<<|»[^«]*«|«[^»]*»|„[^“”]*[“”]""")
_PINGS: dict[int, _Verdict] = {0: "refused", 3: "not tried"}
"""By PGPing: PQPING_OK, and PQPING_NO_ATTEMPT."""


def connect_error(
    reason: str, sqlstates: Sequence[str] | None, params: Mapping[str, str]
) -> InitmigError:
    """What is to be done about an attempt to connect with *params* that failed for *reason*.

    *sqlstates* is None where they are not known; then they are asked for.
    """
    missing = re.match(_NO_SOCKET, reason)
    if missing and not _names_a_host(params):
        return ConfigError(
            "no-database",
            f"no database is configured, and none is running on this machine ({missing[1]})",
            hint="set DATABASE_URL, or PGHOST and the other PG* variables",
        )
    return _told(reason, _by_words(reason) or _by_sqlstates(sqlstates, params))


def _names_a_host(params: Mapping[str, str]) -> bool:
    """Whether the connection string, a variable or a service file names one."""
    libpq = find_libpq()
    if libpq is None:
        return bool(params.get("host") or os.environ.get("PGHOST") or params.get("service"))
    connection = LibpqConnection(libpq, params)
    options = connection.options()
    connection.close()
    return bool(options[b"host"] or options[b"hostaddr"])


def _told(reason: str, verdict: _Verdict) -> InitmigError:
    match verdict:
        case "unsupported":
            return DatabaseRefused(
                "startup-parameter-unsupported",
                reason,
                hint="take it out of the URL (for a search path there is --schema, for a role"
                " --role), or let the pooler drop it: ignore_startup_parameters in PgBouncer",
            )
        case "refused":
            return LoginRefused(
                "login-refused",
                reason,
                hint="check user, password, database and sslmode, and the server's pg_hba.conf",
            )
        case "not now":
            return DatabaseUnavailable("database-unavailable", reason)
        case "malformed":
            return ConfigError("malformed-url", f"the database URL cannot be used: {reason}")
        case "not tried":
            return ConfigError(
                "malformed-url",
                f"the database URL cannot be used: {reason}",
                hint="name the user in the URL, or in PGUSER"
                if "local user" in reason
                else "see the connection strings and PG* variables of libpq",
            )


def _by_words(reason: str) -> _Verdict | None:
    # a host may be called "authentication-db", and a database "SSL"
    unquoted = _QUOTED.sub('""', reason)
    return next((verdict for verdict, said in _WORDS.items() if re.search(said, unquoted)), None)


def _by_sqlstates(sqlstates: Sequence[str] | None, params: Mapping[str, str]) -> _Verdict:
    libpq = find_libpq()
    if libpq is None:
        return "not now"
    known = _ask_for_sqlstates(libpq, params) if sqlstates is None else sqlstates
    if known:
        return "not now" if all(each.startswith(CONNECTING) for each in known) else "refused"
    return _PINGS.get(ping(libpq, params), "not now")


def _ask_for_sqlstates(libpq: CDLL, params: Mapping[str, str]) -> Sequence[str]:
    """What the servers answer to another attempt to connect; empty if that cannot be told.

    Their words may be in any language (``lc_messages``).
    """
    connection = LibpqConnection(libpq, params)
    try:
        connection.finish_connecting()
    except ConnectFailed as failed:
        return failed.sqlstates
    finally:
        connection.close()
    return ("00000",)
