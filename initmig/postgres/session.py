"""A session: one connection, with what applies to everything sent through it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.generators import fetch, send

from initmig.errors import DatabaseUnavailable, InitmigError, ServerMessage
from initmig.postgres.connecting import Connection, OnNotice, open_connection
from initmig.postgres.errors import StatementFailed, is_lost, one_line, refused
from initmig.postgres.parameters import CONNECT_TIMEOUT_SECONDS, Settings, lasting, preamble

if TYPE_CHECKING:
    from psycopg.abc import PQGen

_T = TypeVar("_T")

_COPYING = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)


class Session:
    """One connection in autocommit; search path and role apply to everything sent through it.

    They are set anew in each transaction (SET LOCAL), because behind a pooler in transaction mode
    a plain SET would stay with a server connection that others use next.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        answer_timeout: float | None = None,
        on_notice: OnNotice | None = None,
    ) -> None:
        self.connection = connection
        self._settings = settings
        self._answer_timeout = answer_timeout
        self._on_notice = on_notice
        self._lasting = ""
        self.preamble = preamble(settings)

    def settle(self) -> None:
        """Keep what the preamble sets for the whole session, which must not be a pooled one.

        See `parameters.lasting`.
        """
        self._lasting = lasting(self._settings)
        self.query(self._lasting)
        self.preamble = ""

    @property
    def settled(self) -> bool:
        """Whether what is set for the session lasts: it is this session's alone."""
        return bool(self._lasting)

    @property
    def resetting(self) -> str:
        """The SQL that forgets what was set for the session since it was settled."""
        return f"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {self._lasting}"

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
            result, before = self._send(script)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            error = error_from_result(result, encoding="utf-8")
            raise self._translate(error, completed=before) from error
        return self._rows(result)

    def _send(self, script: str) -> tuple[pq.abc.PGresult, int]:
        """As `_last_result`.

        Not by a cursor: it does not tell how many statements had been completed before the one
        that failed, and keeps every row of every statement.
        """
        self.connection.pgconn.send_query(script.encode())
        result, before = self._wait_for(_last_result(self.connection.pgconn))
        if result.status in _COPYING:
            self.connection.close()
            raise psycopg.ProgrammingError("COPY from or to the client is not possible here")
        return result, before

    def _wait_for(self, asking: "PQGen[_T]") -> _T:
        try:
            return self.connection.wait(asking, timeout=self._answer_timeout)
        except psycopg.OperationalError as error:
            if self.connection.broken:
                raise
            self.connection.close()  # the answer may still come, when another is waited for
            raise psycopg.OperationalError(f"no answer in {self._answer_timeout:g} s") from error

    def _rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        if not result.ntuples:
            return []
        transformer = psycopg.adapt.Transformer(self.connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """What psycopg raises inside becomes StatementFailed or DatabaseUnavailable."""
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: psycopg.Error, *, completed: int = 0) -> InitmigError:
        connection = self.connection
        if connection.closed or is_lost(error.sqlstate):
            connection.last_words = connection.last_words or one_line(str(error))
            return DatabaseUnavailable(f"the connection was lost: {connection.last_words}")
        return _statement_failed(error, completed=completed)

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
        self.connection = open_connection(self._settings, CONNECT_TIMEOUT_SECONDS, self._on_notice)

    def close(self) -> None:
        """Give the connection back; whatever is open in it is rolled back by the server."""
        self.connection.close()


def connect(
    settings: Settings,
    *,
    timeout: float = CONNECT_TIMEOUT_SECONDS,
    answer_timeout: float | None = None,
    on_notice: OnNotice | None = None,
) -> Session:
    """A session; *timeout* in seconds for each host to let it in.

    *answer_timeout*, in seconds, is for the server to answer each message; None waits.

    :raises ConfigError: the connection string is malformed
    :raises DatabaseUnavailable: no answer, or the answer was: not now
    :raises LoginRefused: the server answered, and refused
    """
    connection = open_connection(settings, timeout, on_notice)
    return Session(connection, settings, answer_timeout, on_notice)


def _last_result(pgconn: pq.abc.PGconn) -> "PQGen[tuple[pq.abc.PGresult, int]]":
    """The result of the last statement, or of the one that failed, and how many came before it."""
    yield from send(pgconn)
    last, before = (yield from fetch(pgconn)), 0
    assert last is not None  # noqa: S101 - to everything sent there is an answer
    while last.status not in _COPYING:
        try:
            following = yield from fetch(pgconn)
        except psycopg.DatabaseError:
            if last.status != pq.ExecStatus.FATAL_ERROR:
                raise
            following = None  # the server has said why before it went
        if following is None:
            break
        last, before = following, before + 1
    return last, before


def _statement_failed(error: psycopg.Error, *, completed: int) -> StatementFailed:
    """*error* of a statement, *completed* ones of the same message before it."""
    said = error.diag
    beside = (error.sqlstate, said.message_detail, said.message_hint, said.context)
    failed = StatementFailed(
        said.message_primary or str(error), server=ServerMessage(*(text or "" for text in beside))
    )
    failed.position = int(said.statement_position or 0)
    failed.completed = completed
    return failed
