"""The only door to psycopg: connect, ask, run a script; its errors become initmig's here."""

import ctypes
import logging
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import error_from_result
from psycopg.generators import execute

from initmig.dsn import mask_secrets, parse_dsn
from initmig.errors import (
    ConfigError,
    DatabaseRefused,
    DatabaseUnavailable,
    InitmigError,
    Place,
    ServerMessage,
)

UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
INSUFFICIENT_PRIVILEGE = "42501"
QUERY_CANCELED = "57014"
"""By somebody who may, or by the statement timeout."""
RETRYABLE = {
    "55P03": "lock timeout",
    "40P01": "deadlock",
    "40001": "serialization failure",
}
"""SQLSTATEs of a transaction that failed because of others, and succeeds when tried again."""

_CONNECTION_LOST = ("08", "57P01", "57P02", "57P03")
"""Connection exceptions, and a server that shuts down, crashed, or cannot be connected to now."""

CONNECT_TIMEOUT_SECONDS = 5.0
CLIENT_CHECK_INTERVAL = "1s"

# A peer that vanishes without a word is noticed after 14 s: keepalives see the connection where
# nothing is said, tcp_user_timeout the one with unacknowledged data. What is said into the silence
# begins a new count, so it can be twice that, which is to stay below 30 s.
_KEEPALIVES = {"keepalives_idle": "5", "keepalives_interval": "3", "keepalives_count": "3"}
_USER_TIMEOUT = {"tcp_user_timeout": "14000"}

_TRANSPORT = {
    "keepalives": "1",
    **_KEEPALIVES,
    **_USER_TIMEOUT,
    # fallback_: an application_name of the user's own wins
    "fallback_application_name": "initmig",
}

# The same for the other side; over a Unix socket the server takes no notice of the tcp_ ones.
_SERVER_TRANSPORT = {
    "client_connection_check_interval": CLIENT_CHECK_INTERVAL,
    **{f"tcp_{name}": value for name, value in _KEEPALIVES.items()},
    **_USER_TIMEOUT,
}

# libpq gives no SQLSTATE for a failed connect, and its ping calls a server that has no slot left,
# or that does not speak TLS, the same as one that refuses a password or is silent.
_REFUSES = re.compile(
    r"SSL|certificate|GSSAPI|pg_hba\.conf|password|authentication|permission denied"
    r"|(role|database|user) \"[^\"]*\" (does not exist|is not)|not permitted to log in"
)
_WAITS = re.compile(
    r"too many|connection slots|no more connections allowed|is (starting up|shutting down)"
    r"|recovery|standby|read-only|not yet accepting|Connection refused|timeout expired"
    r"|resolve host|translate host name|closed the connection|query_wait_timeout"
)

_QUOTED = re.compile(r"""(["']).*?\1|>>.*?<<|»[^«]*«|«[^»]*»|„[^“”]*[“”]""")
_NOT_NOW = ("00", "53", "55000", "57P")
"""SQLSTATEs of a refused connect that pass: no resources, not yet, not any more. 00 is success."""
_SQLSTATE = re.compile(r":  ([0-9A-Z]{5})$", re.MULTILINE)
_PQERRORS_SQLSTATE = 3

# A pooler's words: what is said at start-up would be said to a connection that others use next.
_UNSUPPORTED = "unsupported startup parameter"

# What libpq finds only when it connects; it names the option, and never the password.
_MALFORMED = re.compile(r"^invalid (integer value|port number)")

# What psycopg warns of is told by the error that follows, and its lines are none of our format.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

_COPYING = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)


class LoginRefused(DatabaseRefused):
    """The server answered the attempt to connect, and said no."""


class StatementFailed(InitmigError):
    """The server, or the driver, refused a statement."""

    exit_code = 1
    position: int
    """1-based, in characters from the start of the message sent; 0 where the server named none."""

    completed: int
    """How many statements of the message had been completed before."""

    def at(self, place: Place) -> "StatementFailed":
        """This error, now with its *place* in a file."""
        self.problems = (self.problems[0]._replace(place=place),)
        return self

    @property
    def server(self) -> ServerMessage:
        """What the server said beside its message."""
        return self.problems[0].server


class Settings(NamedTuple):
    """How to connect, and for whom the work is done there."""

    conninfo: str = ""
    password: str = ""
    """Used where *conninfo* has none."""
    schema: str = ""
    role: str = ""


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """Refuses to end a transaction that is not its user's to end."""

    guarded = False
    last_words = ""
    """Why the connection was lost; what fails on it afterwards, a ROLLBACK, has nothing to say."""

    def commit(self) -> None:
        self._refuse("commit")
        super().commit()

    def rollback(self) -> None:
        self._refuse("rollback")
        super().rollback()

    def _refuse(self, method: str) -> None:
        if self.guarded:
            raise psycopg.ProgrammingError(
                f"{method}() would end the transaction that initmig opened for this migration"
            )


class Session:
    """One connection in autocommit; search path and role apply to everything sent through it.

    They are set anew in each transaction (SET LOCAL), because behind a pooler in transaction mode
    a plain SET would stay with a server connection that others use next.
    """

    def __init__(
        self,
        connection: _Connection,
        settings: Settings,
        answer_timeout: float | None = None,
        on_notice: Callable[[str, str], None] | None = None,
    ) -> None:
        self.connection = connection
        self._settings = settings
        self._answer_timeout = answer_timeout
        self._on_notice = on_notice
        self._lasting = ""
        self.preamble = _preamble(settings)

    def settle(self) -> None:
        """Keep what the preamble sets for the whole session, which must not be a pooled one.

        The server is made to notice a client that died, or is behind a dead link, also while its
        statement runs; without that the lock would live on to the end of the statement, or until
        the system's keepalives begin, after two hours.
        https://www.postgresql.org/docs/current/runtime-config-connection.html
        """
        lasting = self.preamble.replace("SET LOCAL", "SET")
        lasting += ";".join(f"SET {name} = '{value}'" for name, value in _SERVER_TRANSPORT.items())
        self.query(lasting)
        self._lasting = lasting
        self.preamble = ""

    @property
    def settled(self) -> bool:
        """Whether what is set for the session lasts: it is this session's alone."""
        return bool(self._lasting)

    def reset(self) -> None:
        """Forget what was set for the session since it was settled."""
        self.query(f"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {self._lasting}")

    @property
    def role(self) -> str:
        """Whom the work is done as; empty where it is the user that logged in."""
        return self._settings.role

    @property
    def usable(self) -> bool:
        """Whether a statement can still be sent, outside of any transaction."""
        return not self.connection.closed and not self.in_transaction

    @property
    def startup_pid(self) -> int:
        """The server process id given at start-up: behind a pooler, not the one that works."""
        return self.connection.info.backend_pid

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it failed or not."""
        return self.connection.info.transaction_status != pq.TransactionStatus.IDLE

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *sql*, which is sent as one message.

        :raises DatabaseRefused: the server refused it
        :raises DatabaseUnavailable: the connection was lost
        """
        try:
            return self.run(self.preamble + sql)
        except StatementFailed as error:
            raise refused(error) from error

    def run(self, script: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *script*, which is sent as it is, in one message.

        :raises StatementFailed: the server refused it
        :raises DatabaseUnavailable: the connection was lost
        """
        with self.translating_errors(), self.connection.lock:
            results = self._send(script)
        if results[-1].status == pq.ExecStatus.FATAL_ERROR:
            error = error_from_result(results[-1], encoding="utf-8")
            raise _translate(error, self.connection, completed=len(results) - 1) from error
        return self._rows(results[-1])

    def _send(self, script: str) -> list[pq.abc.PGresult]:
        """The result of each statement, the last one of the one that failed.

        Not by a cursor: it does not tell how many statements had been completed before the one
        that failed, and keeps every row of every statement.
        """
        self.connection.pgconn.send_query(script.encode())
        results = self._wait_for(execute(self.connection.pgconn))
        if results[-1].status in _COPYING:
            self.connection.close()
            raise psycopg.ProgrammingError("COPY from or to the client is not possible here")
        return results

    def _wait_for(self, asking: Any) -> list[pq.abc.PGresult]:
        try:
            return list(self.connection.wait(asking, timeout=self._answer_timeout))
        except psycopg.OperationalError as error:
            if self.connection.broken:
                raise
            self.connection.close()  # the answer may still come, when another is waited for
            raise psycopg.OperationalError(f"no answer in {self._answer_timeout:g} s") from error

    def _rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        if not result.ntuples:
            return []
        with self.connection.cursor() as cursor:
            transformer = psycopg.adapt.Transformer.from_context(cursor)
            transformer.set_pgresult(result)
            return transformer.load_rows(0, result.ntuples, tuple)

    def render(self, sql: str, params: Mapping[str, Any]) -> str:
        """*sql* with *params* as literals."""
        return psycopg.ClientCursor(self.connection).mogrify(sql, params)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """What psycopg raises inside becomes StatementFailed or DatabaseUnavailable."""
        try:
            yield
        except psycopg.Error as error:
            raise _translate(error, self.connection) from error

    @contextmanager
    def answered_within(self, seconds: float) -> Iterator[None]:
        """Inside, DatabaseUnavailable is raised where an answer takes longer than *seconds*."""
        before, self._answer_timeout = self._answer_timeout, seconds
        try:
            yield
        finally:
            self._answer_timeout = before

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, a migration that gets the connection can neither commit nor roll back."""
        self.connection.guarded = True
        try:
            yield
        finally:
            self.connection.guarded = False

    @contextmanager
    def sibling(self) -> Iterator["Session"]:
        """A second connection to the same database, closed at the end.

        :raises InitmigError: it cannot be made
        """
        other = connect(self._settings)
        try:
            if self.settled:
                other.settle()
            yield other
        finally:
            other.close()

    def hand_over(self) -> "Session":
        """This connection as a session of its own; `reconnect` before anything is sent here."""
        return Session(self.connection, self._settings)

    def reconnect(self) -> None:
        """Go on with a new connection; the one so far is left as it is.

        :raises InitmigError: it cannot be made
        """
        self.connection = connect(self._settings, on_notice=self._on_notice).connection

    def close(self) -> None:
        """Give the connection back; whatever is open in it is rolled back by the server."""
        self.connection.close()


def connect(
    settings: Settings,
    *,
    timeout: float = CONNECT_TIMEOUT_SECONDS,
    answer_timeout: float | None = None,
    on_notice: Callable[[str, str], None] | None = None,
) -> Session:
    """A session; *timeout* in seconds for each host, *on_notice* gets severity and text.

    *answer_timeout*, in seconds, is for the server to answer each message; None waits.

    :raises ConfigError: the connection string is malformed
    :raises DatabaseUnavailable: no answer, or the answer was: not now
    :raises LoginRefused: the server answered, and refused
    """
    params = _parameters(settings, timeout)
    try:
        connection = _Connection.connect(**params, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise _connect_error(error, params) from error
    if on_notice:
        connection.add_notice_handler(
            lambda notice: on_notice(
                notice.severity_nonlocalized or "", notice.message_primary or ""
            )
        )
    return Session(connection, settings, answer_timeout, on_notice)


def _parameters(settings: Settings, timeout: float) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(parse_dsn(settings.conninfo).conninfo)
    except (psycopg.Error, ValueError) as error:
        reason = str(error)
        if isinstance(error, psycopg.Error) and not _quotes_a_parameter(reason, settings.conninfo):
            # libpq quotes the part that it did not understand, and that may be of the password
            reason = re.sub(r'"[^"]*"', '"***"', reason)
        raise ConfigError(
            f"the database URL is malformed: {reason.strip()}",
            hint="give only parameters that libpq knows; in user name and password, write"
            " @ : / ? # % as %40 %3A %2F %3F %23 %25",
        ) from None
    defaults: dict[str, Any] = {**_TRANSPORT, "connect_timeout": max(2, round(timeout))}
    if settings.password:
        defaults["password"] = settings.password
    return {**defaults, **given, "client_encoding": "UTF8"}


def _quotes_a_parameter(reason: str, conninfo: str) -> bool:
    """Whether libpq names an unknown parameter of a URL, and not what is behind a `?` in it."""
    return (
        reason.startswith("invalid URI query parameter") and "@" not in conninfo.partition("?")[2]
    )


def _preamble(settings: Settings) -> str:
    """The SET LOCALs that open every transaction; empty where there is nothing to set."""
    preamble = ""
    if settings.role:
        preamble += f"SET LOCAL ROLE {quote_identifier(settings.role)};"
    if settings.schema:
        schemas = (name.strip() for name in settings.schema.split(","))
        preamble += f"SET LOCAL search_path = {', '.join(map(quote_identifier, schemas))};"
    return preamble


def quote_identifier(name: str) -> str:
    """*name* as an SQL identifier, whatever characters are in it."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """*text* as an SQL string, whatever ``standard_conforming_strings`` is."""
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def _connect_error(error: psycopg.Error, params: Mapping[str, Any]) -> InitmigError:
    reason = _reason(error)
    # a host may be called "authentication-db", and a database "SSL"
    words = _QUOTED.sub('""', reason)
    if _UNSUPPORTED in words:
        return DatabaseRefused(
            reason,
            hint="take it out of the URL (for a search path there is --schema, for a role --role),"
            " or let the pooler drop it: ignore_startup_parameters in PgBouncer",
        )
    if _REFUSES.search(words):
        return _login_refused(reason)
    if _WAITS.search(words):
        return DatabaseUnavailable(reason)
    if _MALFORMED.search(words):
        return ConfigError(f"the database URL cannot be used: {reason}")
    return _connect_error_in_other_words(reason, make_conninfo("", **params).encode())


def _connect_error_in_other_words(reason: str, conninfo: bytes) -> InitmigError:
    if sqlstates := _ask_for_sqlstates(conninfo):
        passing = all(sqlstate.startswith(_NOT_NOW) for sqlstate in sqlstates)
        return DatabaseUnavailable(reason) if passing else _login_refused(reason)
    match pq.PGconn.ping(conninfo):
        case pq.Ping.OK:
            return _login_refused(reason)
        case pq.Ping.NO_ATTEMPT:
            return ConfigError(
                f"the database URL cannot be used: {reason}",
                hint="name the user in the URL, or in PGUSER"
                if "local user" in reason
                else "see the connection strings and PG* variables of libpq",
            )
        case _:
            return DatabaseUnavailable(reason)


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
    deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
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


def _login_refused(reason: str) -> LoginRefused:
    return LoginRefused(
        reason, hint="check user, password, database and sslmode, and the server's pg_hba.conf"
    )


def _reason(error: psycopg.Error) -> str:
    """libpq's words on one line, each attempt's failure once."""
    lines = [line.strip() for line in str(error).splitlines()]
    own = [
        line for line in lines if line and not line.startswith(("Multiple connection", "- host:"))
    ]
    others = [
        line.partition(", hostaddr: ")[2].partition(": ")[2]
        for line in lines
        if line.startswith("- host:")
    ]
    cleaned = [
        line.removeprefix("connection failed: ").removeprefix("connection is bad: ")
        for line in own + others
    ]
    return mask_secrets("; ".join(dict.fromkeys(filter(None, cleaned))))


def _translate(
    error: psycopg.Error, connection: _Connection, *, completed: int = 0
) -> InitmigError:
    sqlstate = error.sqlstate or ""
    if connection.closed or sqlstate.startswith(_CONNECTION_LOST):
        connection.last_words = connection.last_words or _reason(error)
        return DatabaseUnavailable(f"the connection was lost: {connection.last_words}")
    said = error.diag
    failed = StatementFailed(
        said.message_primary or str(error),
        server=ServerMessage(
            sqlstate,
            said.message_detail or "",
            said.message_hint or "",
            said.context or "",
        ),
    )
    failed.position = int(said.statement_position or 0)
    failed.completed = completed
    return failed


def refused(error: StatementFailed) -> DatabaseRefused:
    """*error* of a statement of initmig's own, as the refusal that it is."""
    problem = error.problems[0]
    hint = ""
    if problem.server.sqlstate == INSUFFICIENT_PRIVILEGE:
        hint = "grant the right to the role that initmig uses, or name another one with --role"
    return DatabaseRefused(problem.message, hint=hint, server=problem.server)
