"""A psycopg connection for Python steps, with the behavior that yoyo documents."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.errors import error_from_result
from psycopg.generators import fetch
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait

from initmig.core.errors import ConfigError, InitmigError, ServerMessage
from initmig.core.records import Record
from initmig.core.signals import callback
from initmig.postgres.cursors import (
    Cursor,
    Refused,
    ServerCursor,
    close_refused,
    commit_failed,
    has_failed,
    is_commit,
    rollback_refused,
    transaction_end_refused,
)
from initmig.postgres.errors import (
    NO_COPY_DATA,
    ROWS_AT_A_TIME,
    AfterCommit,
    ClientFailed,
    StatementFailed,
    UnexpectedAnswer,
    as_number,
    client_failed,
    connection_lost,
    discard_unsent,
    disconnect_error,
    not_committed,
    one_line,
    out_of_memory,
    outcome_unknown,
    says_out_of_memory,
    shortened,
    unexpected_answer,
)
from initmig.postgres.libpq import OPEN, ConnectFailed
from initmig.postgres.memory_limit import MemoryLimit
from initmig.postgres.notices import Notices
from initmig.postgres.parameters import COMMIT_MARK, FORCED_PARAMETERS, RAW
from initmig.sql.scanner import ending_transaction, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from psycopg._queries import PostgresQuery
    from psycopg.abc import PQGen

    from initmig.postgres.connection import OnNotice
    from initmig.postgres.parameters import ResolvedSettings

    _T = TypeVar("_T")

# The error that follows contains psycopg's warning, and its log lines have another format.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# libpq calls these, and they call initmig's code.
callback(psycopg.Connection._notice_handler)  # noqa: SLF001
callback(psycopg.Connection._notify_handler)  # noqa: SLF001

_MARK = COMMIT_MARK.encode()

_CHUNKED_SINCE = 170000
"""The first libpq version with chunked mode."""

_ROWS = (pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_CHUNK)
"""Statuses of a partial result."""

_CANCEL_SECONDS = 1.0
_NOTIFICATIONS_KEPT = 10_000
"""Limit for notifications that no step reads."""

_SAMPLE = 1024
"""Number of rows shown of a result."""

_CLIENT_FAILED = (
    "sending",
    "flushing failed",
    "consuming input failed",
    "receiving",
    "setting",
)
"""psycopg's messages for failed libpq calls start with these."""


class _DeliveringNotices(Generator[Any, Any, Any]):
    """psycopg's generator *gen*, which also delivers *notices* at each step.

    This is not a generator function because psycopg continues it after an interruption, which would
    have ended a generator.
    """

    def __init__(self, gen: PQGen[Any], notices: Notices) -> None:
        self._gen = gen
        self._notices = notices

    def send(self, ready: Any) -> Any:
        self._notices.deliver()
        return self._gen.send(ready)

    def throw(self, *error: Any) -> Any:
        return self._gen.throw(*error)


_INITIAL_ATTRIBUTES = {
    "_autocommit": True,
    "_isolation_level": None,
    "_read_only": None,
    "_deferrable": None,
    "_begin_statement": b"",
    "_adapters": None,
    "row_factory": tuple_row,
    "cursor_factory": Cursor,
    "server_cursor_factory": ServerCursor,
    "prepare_threshold": None,
}
"""The attributes of a connection that a migration may change, and their initial values."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that a migration can borrow.

    A borrowed connection cannot be closed, and keeps initmig's transaction open. A commit of that
    transaction has no effect, as in yoyo with psycopg2, and *on_ignored* is called with its name.
    Without *on_ignored*, the borrower controls transactions.
    """

    lent_by = 0
    """The process that lent the connection; 0 if it is not lent."""
    borrower = ""
    on_ignored: Callable[[str], None] | None = None
    notice_queue: Notices | None = None

    def wait(self, gen: PQGen[_T], *arguments: Any, **options: Any) -> _T:
        """Wait as psycopg does, and deliver notices that arrive."""
        if self.notice_queue is None:
            return super().wait(gen, *arguments, **options)
        try:
            returned: _T = super().wait(
                _DeliveringNotices(gen, self.notice_queue), *arguments, **options
            )
        except psycopg.Error:
            self.notice_queue.finish()
            raise
        self.notice_queue.finish()
        return returned

    def reset_attributes(self) -> None:
        """Reset the attributes, because yoyo opens a connection for each migration."""
        for name, value in _INITIAL_ATTRIBUTES.items():
            setattr(self, name, value)

    @property
    def encoding(self) -> str:
        """PostgreSQL's name of the client encoding, as in psycopg2."""
        return self.info.parameter_status("client_encoding") or ""

    def commit(self) -> None:
        """Commit, but ignore the call in initmig's transaction.

        :raises psycopg.errors.InFailedSqlTransaction: the transaction was rolled back instead
        """
        if self._ignores("commit()"):
            return
        failed = has_failed(self)
        super().commit()
        if failed:
            raise commit_failed()

    def rollback(self) -> None:
        """Roll back the borrower's transaction.

        :raises Refused: it is initmig's transaction
        """
        if self.on_ignored:
            raise rollback_refused("rollback()")
        super().rollback()

    def set_autocommit(self, value: bool) -> None:  # noqa: FBT001 - psycopg's signature
        """Set autocommit as psycopg does, but ignore the call in initmig's transaction."""
        if not self._ignores(f"autocommit = {value}"):
            super().set_autocommit(value)

    def set_isolation_level(self, value: psycopg.IsolationLevel | None) -> None:
        """Set the level as psycopg does; 0 means autocommit, as in psycopg2."""
        if value == 0:
            self.set_autocommit(True)
        else:
            super().set_isolation_level(value)

    def __enter__(self) -> Self:
        """Begin a block that is committed, or rolled back after an exception, as in psycopg2."""
        block = self.transaction()
        block.__enter__()
        self._blocks.append(block)
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036 - handed on as it is
        """End the block, without closing the connection."""
        self._blocks.pop().__exit__(*error)
        if error[0] is None:
            self._ignores("the commit of `with connection:`")

    @cached_property
    def _blocks(self) -> list[AbstractContextManager[object]]:
        return []

    def close(self) -> None:
        """Close the connection. A child process can always close its copy.

        :raises Refused: the connection is lent
        """
        if self.lent_by == os.getpid():
            raise close_refused()
        super().close()

    def force_close(self) -> None:
        """Close the connection, even if it is lent."""
        super().close()

    def checked_query(self, query: PostgresQuery) -> PostgresQuery:
        """Return *query*, or an empty query for a COMMIT to be ignored.

        :raises Refused: it would end initmig's transaction
        """
        if self.on_ignored is None:
            return query
        sql = query.query.decode(errors="replace")
        ends = ending_transaction(sql)
        if not ends:
            return query
        if len(split(sql)) > 1 or ends[0] not in ("COMMIT", "END"):
            raise (
                rollback_refused(ends[0])
                if ends[0] in ("ROLLBACK", "ABORT")
                else transaction_end_refused(ends[0])
            )
        self._ignores(ends[0])
        query.query = b""
        return query

    def _ignores(self, what: str) -> bool:
        if self.on_ignored is None:
            return False
        self.on_ignored(what)
        return True


class PsycopgConnection:
    """A `connection.Connection` that uses psycopg."""

    silence_seconds = float("inf")

    def __init__(self, connection: Connection) -> None:
        self.dbapi = connection
        self.on_silence: Callable[[], None] = lambda: None
        OPEN.add(self)
        connection._notifies_backlog = deque(maxlen=_NOTIFICATIONS_KEPT)  # noqa: SLF001
        self._ended: InitmigError | None = None
        """The error that closed the connection. Later messages, such as ROLLBACK, raise it again.
        """

    @property
    def startup_pid(self) -> int:
        """As in `connection.Connection`."""
        return self.dbapi.info.backend_pid

    @property
    def server_version(self) -> int:
        """As in `connection.Connection`."""
        return self.dbapi.info.server_version

    @property
    def closed(self) -> bool:
        """As in `connection.Connection`."""
        return self.dbapi.closed

    @property
    def in_transaction(self) -> bool:
        """As in `connection.Connection`."""
        return self.dbapi.info.transaction_status != pq.TransactionStatus.IDLE

    @property
    def encoding(self) -> str:
        """As in `connection.Connection`."""
        return self.dbapi.info.parameter_status("client_encoding") or ""

    def set_notice_handler(self, on_notice: OnNotice) -> None:
        """As in `connection.Connection`."""
        notices = self.dbapi.notice_queue = Notices(on_notice)

        @callback
        def receive(diagnostic: psycopg.errors.Diagnostic) -> None:
            notices.add(diagnostic.severity_nonlocalized or "", diagnostic.message_primary or "")

        self.dbapi.add_notice_handler(receive)

    def exchange(
        self,
        message: bytes,
        timeout: float,
        copies: Iterator[Iterable[bytes]],
        *,
        commits: bool = False,
        discards: bool = False,
    ) -> list[tuple[Any, ...]]:
        """As in `connection.Connection`.

        This does not use a cursor, which does not report how many statements were completed before
        a failure, and keeps every row of every statement.
        """
        if self._ended:
            raise self._ended
        started, sent = monotonic(), False
        try:
            with self.dbapi.lock:
                self.dbapi.pgconn.send_query(message)
                sent = True
                if discards:
                    _receive_in_pieces(self.dbapi.pgconn)
                limit = None if timeout == float("inf") else timeout
                answered = _answer(self.dbapi.pgconn, copies, self._forget_prepared)
                answer = self.dbapi.wait(
                    self._with_silence_handler(_with_memory_limit(answered, MemoryLimit(timeout))),
                    timeout=limit,
                )
            return self._check_answer(answer, commits=commits)
        except UnexpectedAnswer as odd:
            self._ended = odd
            self.close()
            raise
        except ClientFailed as failed:
            raise self._give_up(failed, committing=sent and commits) from failed
        except MemoryError as error:
            memory = out_of_memory("could not use the connection to the server")
            raise self._give_up(memory, committing=sent and commits) from error
        except psycopg.Error as error:
            if not self.closed and monotonic() - started >= timeout:
                with suppress(psycopg.Error):  # otherwise the server keeps waiting for a lock
                    self.dbapi.cancel_safe(timeout=_CANCEL_SECONDS)
                self.close()  # the answer may still arrive, and be taken for the next one
                raise self._lost(f"no answer in {timeout:g} s") from error
            words = one_line(str(error))
            if self.closed and not says_out_of_memory(words):
                raise self._lost(words) from error
            ours = client_failed(words.partition(":")[0], words)
            raise self._give_up(ours, committing=sent and commits) from error

    def _forget_prepared(self, result: pq.abc.PGresult) -> None:
        """Clear psycopg's prepared statements after a *result* that deallocated them."""
        if result.command_status == b"DEALLOCATE ALL":
            prepared = self.dbapi._prepared  # noqa: SLF001 - which sees only what psycopg sends
            prepared.clear()
            prepared._to_flush.clear()  # noqa: SLF001

    def _with_silence_handler(self, answer: PQGen[_Answer]) -> PQGen[_Answer]:
        """Process *answer*, and call `on_silence` whenever the server is silent for long."""
        heard = monotonic()
        try:
            wanted = next(answer)
            while True:
                ready = yield wanted
                if ready:
                    heard = monotonic()
                elif monotonic() - heard >= self.silence_seconds:
                    self.on_silence()
                    heard = monotonic()
                wanted = answer.send(ready)
        except StopIteration as end:
            received: _Answer = end.value
            return received

    def sample(self, sql: str) -> Sample:
        """Run *sql*, and return only the first rows of its first statement.

        :raises psycopg.Error: as from a cursor, because callers expect that
        """
        first = _FirstRows()
        failed = has_failed(self.dbapi)
        with self.dbapi.lock:
            self.dbapi.pgconn.send_query(sql.encode(self.dbapi.info.encoding))
            _receive_in_pieces(self.dbapi.pgconn)
            answer = self.dbapi.wait(_answer(self.dbapi.pgconn, iter(()), first.add))
        if answer.failed:
            raise error_from_result(answer.failed, encoding=self.dbapi.info.encoding)
        if failed and is_commit(sql):
            raise commit_failed()
        rows = tuple(row for result in first.results for row in self._rows(result))
        return Sample(first.columns(self.dbapi.info.encoding), rows, first.total)

    def _check_answer(self, answer: _Answer, *, commits: bool) -> list[tuple[Any, ...]]:
        """The rows of *answer*, after checks for errors and for the COMMIT."""
        answered = answer.ended or _tag(answer.last)
        try:
            if answer.failed:
                self._raise_failed(answer, is_committed=commits and answered == "COMMIT")
            if answer.lost:
                words = one_line(str(answer.lost))
                ours = client_failed(words.partition(":")[0], words)
                raise self._lost(words) if self.closed else self._give_up(ours, committing=False)
        except InitmigError as error:
            if answer.ended == "COMMIT":
                raise AfterCommit.of(error.problems) from error
            raise
        if commits and answered != "COMMIT":
            raise not_committed(answered, completed=answer.completed - 1)
        return self._rows(answer.last)

    def _raise_failed(self, answer: _Answer, *, is_committed: bool) -> None:
        assert answer.failed  # noqa: S101 - so it was found
        error = error_from_result(answer.failed, encoding="utf-8")
        if error.sqlstate or self.closed:
            raise self._translate(error, completed=answer.completed) from error
        # the server has committed; libpq only lacked memory for the rows
        if not is_committed:
            raise client_failed("PQgetResult", one_line(str(error)))

    def _give_up(self, failed: ClientFailed, *, committing: bool) -> InitmigError:
        """Close the connection, whose state is unknown, and return the error."""
        self._ended = outcome_unknown(failed) if committing else failed
        if not self.closed:
            discard_unsent(self.dbapi.pgconn.socket)
        self.close()
        return self._ended

    def _lost(self, words: str) -> InitmigError:
        self._ended = self._ended or connection_lost(words)
        return self._ended

    def _rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        if not result.ntuples:
            return []
        transformer = psycopg.adapt.Transformer(self.dbapi)
        transformer.set_pgresult(result)
        try:
            return transformer.load_rows(0, result.ntuples, tuple)
        except (psycopg.Error, ValueError, TypeError, IndexError) as error:
            raise unexpected_answer(error) from error

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Translate psycopg's errors inside the block.

        :raises StatementFailed: or DatabaseUnavailable, or ClientFailed
        """
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: psycopg.Error, *, completed: int = 0) -> InitmigError:
        words = one_line(str(error))
        # a result without an SQLSTATE comes from libpq, because the server always sends one
        of_libpq = words.startswith(_CLIENT_FAILED) or error.pgresult is not None
        if not error.sqlstate and (says_out_of_memory(words) or (of_libpq and not self.closed)):
            call = "PQgetResult" if error.pgresult else words.partition(":")[0]
            return self._ended or self._give_up(client_failed(call, words), committing=False)
        failed = _statement_failed(error, completed=completed)
        # psycopg raises the server's error before it notices that the connection is closed
        closed = self.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC")
        if ended := disconnect_error(failed, words, closed=closed):
            self.close()
            self._ended = self._ended or ended
            return self._ended
        return failed

    @contextmanager
    def lent(self, to: str, on_ignored: Callable[[str], None] | None) -> Iterator[None]:
        """Lend the connection to the migration *to*; *on_ignored* as in `Connection`."""
        if self.dbapi.borrower != to:
            self.dbapi.reset_attributes()
        self.dbapi.borrower = to
        self.dbapi.lent_by, self.dbapi.on_ignored = os.getpid(), on_ignored
        try:
            yield
        finally:
            self.dbapi.lent_by, self.dbapi.on_ignored = 0, None

    def fileno(self) -> int:
        """The file descriptor of the socket.

        :raises psycopg.OperationalError: the connection is closed
        """
        return self.dbapi.fileno()

    def close(self) -> None:
        """As in `connection.Connection`."""
        OPEN.discard(self)
        self.dbapi.force_close()


def open_by_psycopg(
    resolved: ResolvedSettings, address: dict[str, str], seconds: float
) -> PsycopgConnection:
    """Connect in autocommit mode at *address*, within *seconds*.

    :raises ConnectFailed: no connection was made
    """
    params: dict[str, Any] = {**resolved.params, **FORCED_PARAMETERS, **address}
    params["connect_timeout"] = 0 if seconds == float("inf") else max(1, round(seconds))
    try:
        connection = Connection.connect(resolved.conninfo, **params)
    except psycopg.Error as error:
        raise _connect_failed(error) from error
    except UnicodeError as error:
        raise ConfigError(
            "malformed-url",
            "a host name is not valid",
            hint="check the host names in the connection string or in PGHOST",
        ) from error
    connection.reset_attributes()
    return PsycopgConnection(connection)


def look_up(params: Mapping[str, str], *, needs_user: bool) -> dict[str, str]:
    """Resolve *params* as `resolve` does, with psycopg's libpq.

    :raises ConnectFailed: libpq cannot parse *params*, or finds no user
    """
    try:
        conninfo = make_conninfo(params["dbname"], **{**params, "dbname": None})
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        options = {each.keyword.decode(): each.val for each in pgconn.info}
        if needs_user:
            raise ConnectFailed(pgconn.get_error_message())
    except psycopg.Error as error:
        raise _connect_failed(error) from error
    return {name: value.decode(errors=RAW) for name, value in options.items() if value is not None}


def _connect_failed(error: psycopg.Error) -> ConnectFailed:
    failed = ConnectFailed(str(error))
    failed.sqlstates = None
    return failed


class Sample(Record):
    """The first rows of a result."""

    columns: tuple[str, ...]
    """The column names; empty if the statement returns no rows."""
    rows: tuple[tuple[Any, ...], ...]
    total: int
    """The number of all rows."""


class _FirstRows:
    """Collects the first rows of the first statement in a message, and counts its rows."""

    def __init__(self) -> None:
        self.results: list[pq.abc.PGresult] = []
        self.total = 0
        self._complete = False

    def add(self, result: pq.abc.PGresult) -> None:
        """Add *result* if it belongs to the first statement. Results arrive in order."""
        if self._complete:
            return
        self.total += result.ntuples
        if len(self.results) < _SAMPLE // ROWS_AT_A_TIME:
            self.results.append(result)
        self._complete = result.status not in _ROWS

    def columns(self, encoding: str) -> tuple[str, ...]:
        """The names of the columns."""
        first = self.results[0]
        names = (first.fname(column) or b"" for column in range(first.nfields))
        return tuple(name.decode(encoding) for name in names)


class _Answer(Record):
    """The server's answer to one message."""

    last: pq.abc.PGresult
    failed: pq.abc.PGresult | None
    """The first failed result."""
    completed: int
    """Number of statements completed before the failure, without those after a COMMIT."""
    ended: str
    """The command tag after the `COMMIT_MARK`; empty without a mark."""
    lost: psycopg.Error | None
    """The error that closed the connection after a confirmed COMMIT."""


def _with_memory_limit(answer: PQGen[_Answer], memory_limit: MemoryLimit) -> PQGen[_Answer]:
    """Process *answer*, and check its size.

    :raises UnexpectedAnswer: the answer is too large
    """
    try:
        wanted = next(answer)
        while True:
            ready = yield wanted
            if ready:
                memory_limit.check()
            wanted = answer.send(ready)
    except StopIteration as end:
        received: _Answer = end.value
        return received


def _receive_in_pieces(pgconn: pq.abc.PGconn) -> None:
    """Receive the rows of the sent message in small chunks, to save memory."""
    if pq.version() >= _CHUNKED_SINCE:
        pgconn.set_chunked_rows_mode(ROWS_AT_A_TIME)
    else:
        pgconn.set_single_row_mode()


def _answer(
    pgconn: pq.abc.PGconn,
    copies: Iterator[Iterable[bytes]],
    on_result: Callable[[pq.abc.PGresult], None] = lambda _: None,
) -> PQGen[_Answer]:
    """Receive the complete answer to the sent message. *on_result* is called with each result.

    :raises psycopg.Error: libpq failed, or a result is missing
    """
    yield from _flush(pgconn)
    last, failed, completed = None, None, 0
    marked, ended, lost = False, "", None
    while True:
        try:
            result = yield from _next_result(pgconn, copies)
        except psycopg.DatabaseError as error:
            if failed is None and ended != "COMMIT":
                raise
            lost = error
            break  # the server sent its reason before it closed the connection
        if result is None:
            break
        last = result
        on_result(result)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            failed = failed or result
        elif failed is None and result.status not in _ROWS:
            completed += not ended
            ended = ended or (_tag(result) if marked else "")
            # for a missing column, libpq would print a notice
            marked = result.nfields == 1 and result.fname(0) == _MARK
    if last is None or (pgconn.transaction_status == pq.TransactionStatus.ACTIVE and not lost):
        raise psycopg.OperationalError("receiving a result failed: libpq has none where one is due")
    return _Answer(last, failed, completed, ended, lost)


def _tag(result: pq.abc.PGresult) -> str:
    return (result.command_status or b"").decode(errors="replace")


def _next_result(
    pgconn: pq.abc.PGconn, copies: Iterator[Iterable[bytes]]
) -> PQGen[pq.abc.PGresult | None]:
    """Return the next result, or None at the end. A COPY is served first."""
    while True:
        result: pq.abc.PGresult | None = yield from fetch(pgconn)
        match result and result.status:
            case pq.ExecStatus.COPY_IN:
                transfer = _copy(pgconn, next(copies, None))
            case pq.ExecStatus.COPY_OUT:
                transfer = _discard(pgconn)
            case pq.ExecStatus.COPY_BOTH:  # libpq would return it forever
                raise psycopg.OperationalError(
                    "receiving a result failed: the server started a replication"
                )
            case _:
                return result
        try:
            yield from transfer
        except psycopg.OperationalError:
            if pgconn.status != pq.ConnStatus.BAD:
                raise
            # the next result has the server's reason


def _copy(pgconn: pq.abc.PGconn, pieces: Iterable[bytes] | None) -> PQGen[None]:
    """Send the data for a COPY FROM STDIN, or an error message without *pieces*."""
    for piece in pieces or ():
        _check_queued(pgconn.put_copy_data(piece))
        yield from _flush(pgconn)
    _check_queued(pgconn.put_copy_end(NO_COPY_DATA if pieces is None else None))
    yield from _flush(pgconn)


def _check_queued(returned: int) -> None:
    """Check that libpq queued the data.

    :raises psycopg.OperationalError: libpq is out of memory, because everything was sent before
    """
    if not returned:
        raise psycopg.OperationalError("sending copy data failed: out of memory")


def _discard(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Read and discard the data of a COPY TO STDOUT."""
    while (length := pgconn.get_copy_data(1)[0]) >= 0:
        if not length:
            yield Wait.R
            pgconn.consume_input()


def _flush(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Send the queued data. Also read, because the server may wait for that.

    psycopg's own generator does not survive an interruption: after one, it would need a value to
    continue.
    """
    while pgconn.flush():
        ready = yield Wait.RW
        if ready and ready & Ready.R:
            pgconn.consume_input()


def _statement_failed(error: psycopg.Error, *, completed: int) -> StatementFailed:
    """The error for a failed statement, after *completed* statements of the same message."""
    diagnostic = error.diag
    fields = (
        *(error.sqlstate, diagnostic.message_detail, diagnostic.message_hint, diagnostic.context),
        *(diagnostic.schema_name, diagnostic.table_name, diagnostic.constraint_name),
    )
    refused = error if isinstance(error, Refused) else None
    failed = StatementFailed(
        refused.id if refused else "migration-failed",
        shortened(diagnostic.message_primary or str(error)),
        hint=refused.hint if refused else "",
        server=ServerMessage(*(shortened(text or "") for text in fields)),
    )
    failed.position = as_number(diagnostic.statement_position or "")
    failed.routine = diagnostic.source_function or ""
    failed.completed = completed
    return failed
