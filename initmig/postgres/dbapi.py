"""A connection of psycopg's, which steps in Python are given, as yoyo promises them."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import error_from_result
from psycopg.generators import fetch
from psycopg.waiting import Ready, Wait

from initmig.dsn import parse_dsn
from initmig.errors import ConfigError, InitmigError, ServerMessage
from initmig.postgres.errors import (
    NO_COPY_DATA,
    ROWS_AT_A_TIME,
    AfterCommit,
    ClientFailed,
    StatementFailed,
    client_failed,
    connection_lost,
    cut_off,
    ended_by,
    in_doubt,
    no_memory,
    not_committed,
    one_line,
    out_of_memory,
)
from initmig.postgres.libpq import OPEN
from initmig.postgres.notices import Notices
from initmig.postgres.parameters import IMPOSED, MARK, Settings, defaults
from initmig.signals import callback
from initmig.sql.scanner import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from psycopg.abc import PQGen

    from initmig.postgres.connection import OnNotice

    _T = TypeVar("_T")

# What psycopg warns of is told by the error that follows, and its lines are none of our format.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# libpq calls these, and they call what is ours.
callback(psycopg.Connection._notice_handler)  # noqa: SLF001
callback(psycopg.Connection._notify_handler)  # noqa: SLF001

_MARK = MARK.encode()

_CHUNKED_SINCE = 170000
"""The version of libpq that has a chunked mode."""

_ROWS = (pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_CHUNK)
"""A part of a result."""

_SAMPLE = 1024
"""So many rows of a result are shown."""

_CLIENT_FAILED = (
    "sending",
    "flushing failed",
    "consuming input failed",
    "receiving",
    "setting",
)
"""How psycopg's words begin for a call of libpq that failed."""


class _Cursor(psycopg.Cursor[Any]):
    """Raises an error where the server answers a COMMIT with ROLLBACK."""

    def execute(self, *arguments: Any, **options: Any) -> Self:
        """As psycopg's.

        :raises psycopg.errors.InFailedSqlTransaction: it was a COMMIT, and rolled back
        """
        failed = _has_failed(self.connection)
        super().execute(*arguments, **options)
        if failed and self._query and _commits(self._query.query.decode(errors="replace")):
            raise _rolled_back()
        return self


def _has_failed(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.transaction_status == pq.TransactionStatus.INERROR


def _commits(sql: str) -> bool:
    """Whether *sql* begins with a COMMIT, under any of its names."""
    return any(re.match(r"(?i)(COMMIT|END|PREPARE)\b", each.text) for each in split(sql)[:1])


def _rolled_back() -> psycopg.Error:
    return psycopg.errors.InFailedSqlTransaction(
        not_committed("ROLLBACK", completed=0).problems[0].message
    )


class _Telling(Generator[Any, Any, Any]):
    """What psycopg waits for in *gen*, with the *notices* told at each step of it.

    A generator function's would not outlive an interruption, after which psycopg goes on with it.
    """

    def __init__(self, gen: PQGen[Any], notices: Notices) -> None:
        self._gen = gen
        self._notices = notices

    def send(self, ready: Any) -> Any:
        self._notices.tell()
        return self._gen.send(ready)

    def throw(self, *error: Any) -> Any:
        return self._gen.throw(*error)


class _Guarded(psycopg.Connection[tuple[Any, ...]]):
    """Refuses to end a transaction that is not its user's to end."""

    guarded = False
    notices: Notices | None = None

    def wait(self, gen: PQGen[_T], *arguments: Any, **options: Any) -> _T:
        """As psycopg's, and tell the notices that come meanwhile."""
        if self.notices is None:
            return super().wait(gen, *arguments, **options)
        try:
            returned: _T = super().wait(_Telling(gen, self.notices), *arguments, **options)
        except psycopg.Error:
            self.notices.tell()
            raise
        self.notices.tell()
        return returned

    def commit(self) -> None:
        """Commit, unless that is initmig's to do.

        :raises psycopg.errors.InFailedSqlTransaction: the transaction was rolled back instead
        """
        self._refuse("commit")
        failed = _has_failed(self)
        super().commit()
        if failed:
            raise _rolled_back()

    def rollback(self) -> None:
        """Roll back, unless that is initmig's to do."""
        self._refuse("rollback")
        super().rollback()

    def _refuse(self, method: str) -> None:
        if self.guarded:
            raise psycopg.ProgrammingError(
                f"{method}() would end the transaction that initmig opened for this migration"
            )


class PsycopgConnection:
    """A `connection.Connection` that is psycopg's."""

    silence_seconds = float("inf")

    def __init__(self, connection: _Guarded) -> None:
        self.dbapi = connection
        self.on_silence: Callable[[], None] = lambda: None
        OPEN.add(self)
        self._ended: InitmigError | None = None
        """Why it ended; what is sent on it afterwards, a ROLLBACK, fails for the same reason."""

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

    def tell_notices(self, on_notice: OnNotice) -> None:
        """As in `connection.Connection`."""
        notices = self.dbapi.notices = Notices(on_notice)

        @callback
        def receive(said: psycopg.errors.Diagnostic) -> None:
            notices.keep(said.severity_nonlocalized or "", said.message_primary or "")

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

        Not by a cursor: it does not tell how many statements had been completed before the one
        that failed, and keeps every row of every statement.
        """
        if self._ended:
            raise self._ended
        begun, sent = monotonic(), False
        try:
            with self.dbapi.lock:
                self.dbapi.pgconn.send_query(message)
                sent = True
                if discards:
                    _receive_in_pieces(self.dbapi.pgconn)
                limit = None if timeout == float("inf") else timeout
                answer = self.dbapi.wait(
                    self._observed(_answer(self.dbapi.pgconn, copies, self._forget_prepared)),
                    timeout=limit,
                )
            return self._checked(answer, commits=commits)
        except ClientFailed as failed:
            raise self._give_up(failed, committing=sent and commits) from failed
        except MemoryError as error:
            memory = out_of_memory("could not use the connection to the server")
            raise self._give_up(memory, committing=sent and commits) from error
        except psycopg.Error as error:
            if not self.closed and monotonic() - begun >= timeout:
                self.close()  # the answer may still come, when another is waited for
                raise self._lost(f"no answer in {timeout:g} s") from error
            words = one_line(str(error))
            if self.closed and not no_memory(words):
                raise self._lost(words) from error
            ours = client_failed(words.partition(":")[0], words)
            raise self._give_up(ours, committing=sent and commits) from error

    def _forget_prepared(self, result: pq.abc.PGresult) -> None:
        """Let psycopg not use a statement again that it has prepared, once *result* ended them."""
        if result.command_status == b"DEALLOCATE ALL":
            prepared = self.dbapi._prepared  # noqa: SLF001 - which sees only what psycopg sends
            prepared.clear()
            prepared._to_flush.clear()  # noqa: SLF001

    def _observed(self, answer: PQGen[_Answer]) -> PQGen[_Answer]:
        """*answer*, with `on_silence` called where the server says nothing for long."""
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
        """Run *sql*, of which only the first rows of its first statement are wanted.

        :raises psycopg.Error: as from a cursor, whose users expect that
        """
        first = _FirstRows()
        failed = _has_failed(self.dbapi)
        with self.dbapi.lock:
            self.dbapi.pgconn.send_query(sql.encode(self.dbapi.info.encoding))
            _receive_in_pieces(self.dbapi.pgconn)
            answer = self.dbapi.wait(_answer(self.dbapi.pgconn, iter(()), first.look))
        if answer.failed:
            raise error_from_result(answer.failed, encoding=self.dbapi.info.encoding)
        if failed and _commits(sql):
            raise _rolled_back()
        rows = tuple(row for result in first.results for row in self._rows(result))
        return Sample(first.columns(self.dbapi.info.encoding), rows, first.total)

    def _checked(self, answer: _Answer, *, commits: bool) -> list[tuple[Any, ...]]:
        """The rows of *answer*, which is what was asked for."""
        answered = answer.ended or (answer.last.command_status or b"").decode()
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
        # what the server has committed, it has done; libpq had only no room for its rows
        if not is_committed:
            raise client_failed("PQgetResult", one_line(str(error)))

    def _give_up(self, failed: ClientFailed, *, committing: bool) -> InitmigError:
        """Close the connection, whose state is not known any more; why."""
        self._ended = in_doubt(failed) if committing else failed
        if not self.closed:
            cut_off(self.dbapi.pgconn.socket)
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
        return transformer.load_rows(0, result.ntuples, tuple)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """What psycopg raises inside becomes an error of initmig's.

        :raises StatementFailed: or DatabaseUnavailable, or ClientFailed
        """
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: psycopg.Error, *, completed: int = 0) -> InitmigError:
        words = one_line(str(error))
        # a result that says nothing is libpq's own: what the server refuses has an SQLSTATE
        of_libpq = words.startswith(_CLIENT_FAILED) or error.pgresult is not None
        if not error.sqlstate and (no_memory(words) or (of_libpq and not self.closed)):
            call = "PQgetResult" if error.pgresult else words.partition(":")[0]
            return self._ended or self._give_up(client_failed(call, words), committing=False)
        failed = _statement_failed(error, completed=completed)
        # psycopg raises what the server said before it has seen that the connection is closed
        closed = self.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC")
        if ended := ended_by(failed, words, closed=closed):
            self.close()
            self._ended = self._ended or ended
            return self._ended
        return failed

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, a migration that gets the connection can neither commit nor roll back."""
        self.dbapi.guarded = True
        try:
            yield
        finally:
            self.dbapi.guarded = False

    def fileno(self) -> int:
        """The socket; :raises psycopg.OperationalError: there is none."""
        return self.dbapi.fileno()

    def close(self) -> None:
        """As in `connection.Connection`."""
        OPEN.discard(self)
        self.dbapi.close()


def open_by_psycopg(settings: Settings, timeout: float) -> PsycopgConnection:
    """A connection in autocommit; *timeout* and what is raised are those of `session.connect`."""
    params = _parameters(settings, timeout)
    try:
        connection = _Guarded.connect(
            **params, autocommit=True, prepare_threshold=None, cursor_factory=_Cursor
        )
    except psycopg.Error as error:
        from initmig.postgres.refusals import connect_error

        raise connect_error(one_line(str(error)), None, params) from error
    except UnicodeError as error:
        raise ConfigError(
            "malformed-url",
            "a host name is not one that can be looked up",
            hint="check the host names in the connection string or in PGHOST",
        ) from error
    return PsycopgConnection(connection)


def _parameters(settings: Settings, timeout: float) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(parse_dsn(settings.conninfo).conninfo)
    except (psycopg.Error, ValueError) as error:
        reason = str(error)
        if isinstance(error, psycopg.Error) and not _quotes_a_parameter(reason, settings.conninfo):
            # libpq quotes the part that it did not understand, and that may be of the password
            reason = re.sub(r'"[^"]*"', '"***"', reason)
        raise ConfigError(
            "malformed-url",
            f"the database URL is malformed: {reason.strip()}",
            hint="give only parameters that libpq knows; in user name and password, write"
            " @ : / ? # % as %40 %3A %2F %3F %23 %25",
        ) from None
    return {**defaults(settings, timeout), **given, **IMPOSED}


def _quotes_a_parameter(reason: str, conninfo: str) -> bool:
    """Whether libpq names an unknown parameter of a URL, and not what is behind a `?` in it."""
    return (
        reason.startswith("invalid URI query parameter") and "@" not in conninfo.partition("?")[2]
    )


class Sample(NamedTuple):
    """The first rows of a result."""

    columns: tuple[str, ...]
    """Their names; empty where the statement returns no rows."""
    rows: tuple[tuple[Any, ...], ...]
    total: int
    """How many rows there were."""


class _FirstRows:
    """What the first statement of a message returns: its first rows, and their number."""

    def __init__(self) -> None:
        self.results: list[pq.abc.PGresult] = []
        self.total = 0
        self._complete = False

    def look(self, result: pq.abc.PGresult) -> None:
        """Keep *result*, if it is wanted; they come in order."""
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


class _Answer(NamedTuple):
    """What the server answered to one message."""

    last: pq.abc.PGresult
    failed: pq.abc.PGresult | None
    """The first one that reports a failure."""
    completed: int
    """How many statements were completed before that, and before what is sent behind a COMMIT."""
    ended: str
    """The command tag behind the `MARK`; empty where there was none."""
    lost: psycopg.Error | None
    """What ended the connection behind a COMMIT that was confirmed."""


def _receive_in_pieces(pgconn: pq.abc.PGconn) -> None:
    """Let the rows of the message just sent come a few at a time: libpq keeps no more."""
    if pq.version() >= _CHUNKED_SINCE:
        pgconn.set_chunked_rows_mode(ROWS_AT_A_TIME)
    else:
        pgconn.set_single_row_mode()


def _answer(
    pgconn: pq.abc.PGconn,
    copies: Iterator[Iterable[bytes]],
    look: Callable[[pq.abc.PGresult], None] = lambda _: None,
) -> PQGen[_Answer]:
    """All of the answer to the message that was sent; *look* gets each result.

    :raises psycopg.Error: libpq failed, or has no result where one is due
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
            break  # the server has said why before it went
        if result is None:
            break
        last = result
        look(result)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            failed = failed or result
        elif failed is None and result.status not in _ROWS:
            completed += not ended
            ended = ended or ((result.command_status or b"").decode() if marked else "")
            # of a column that is not there, libpq says so in a notice
            marked = result.nfields == 1 and result.fname(0) == _MARK
    if last is None or (pgconn.transaction_status == pq.TransactionStatus.ACTIVE and not lost):
        raise psycopg.OperationalError("receiving a result failed: libpq has none where one is due")
    return _Answer(last, failed, completed, ended, lost)


def _next_result(
    pgconn: pq.abc.PGconn, copies: Iterator[Iterable[bytes]]
) -> PQGen[pq.abc.PGresult | None]:
    """The next one, None behind the last one; before it a COPY is served."""
    while True:
        result: pq.abc.PGresult | None = yield from fetch(pgconn)
        match result and result.status:
            case pq.ExecStatus.COPY_IN:
                transfer = _copy(pgconn, next(copies, None))
            case pq.ExecStatus.COPY_OUT:
                transfer = _discard(pgconn)
            case _:
                return result
        try:
            yield from transfer
        except psycopg.OperationalError:
            if pgconn.status != pq.ConnStatus.BAD:
                raise
            # the result that follows gives the server's reason


def _copy(pgconn: pq.abc.PGconn, pieces: Iterable[bytes] | None) -> PQGen[None]:
    """Send the data that the server asks for, or that there is none."""
    for piece in pieces or ():
        _queued(pgconn.put_copy_data(piece))
        yield from _flush(pgconn)
    _queued(pgconn.put_copy_end(NO_COPY_DATA if pieces is None else None))
    yield from _flush(pgconn)


def _queued(returned: int) -> None:
    """:raises psycopg.OperationalError: libpq can queue no more, right after all was sent"""
    if not returned:
        raise psycopg.OperationalError("sending copy data failed: out of memory")


def _discard(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Read the data that the server sends, as what a SELECT returns: nobody wants it."""
    while (length := pgconn.get_copy_data(1)[0]) >= 0:
        if not length:
            yield Wait.R
            pgconn.consume_input()


def _flush(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Send what is queued, and read what the server says meanwhile, for which it may wait.

    As psycopg's own, which does not outlive an interruption: it is sent nothing to begin anew.
    """
    while pgconn.flush():
        ready = yield Wait.RW
        if ready and ready & Ready.R:
            pgconn.consume_input()


def _statement_failed(error: psycopg.Error, *, completed: int) -> StatementFailed:
    """*error* of a statement, *completed* ones of the same message before it."""
    said = error.diag
    beside = (
        *(error.sqlstate, said.message_detail, said.message_hint, said.context),
        *(said.schema_name, said.table_name, said.constraint_name),
    )
    failed = StatementFailed(
        "migration-failed",
        said.message_primary or str(error),
        server=ServerMessage(*(text or "" for text in beside)),
    )
    failed.position = int(said.statement_position or 0)
    failed.routine = said.source_function or ""
    failed.completed = completed
    return failed
