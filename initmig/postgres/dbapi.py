"""A psycopg connection for Python steps, with the behavior that yoyo documents."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq
from psycopg.errors import get_base_exception, lookup
from psycopg.pq.misc import strip_severity
from psycopg.rows import tuple_row

from initmig.core.errors import ServerMessage
from initmig.core.records import Record
from initmig.core.signals import callback
from initmig.postgres import connection
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
    StatementFailed,
    as_number,
    client_failed,
    disconnect_error,
    one_line,
    says_out_of_memory,
    shortened,
    unexpected_answer,
)
from initmig.postgres.exchange import read_rows
from initmig.postgres.libpq import (
    NO_LIMIT,
    OPEN,
    USUAL_VERBOSITY,
    as_text,
    libpq_of_psycopg,
)
from initmig.postgres.native import c_void_p
from initmig.postgres.parameters import RAW
from initmig.sql.scanner import ending_transaction, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from psycopg._queries import PostgresQuery
    from psycopg.abc import PQGen

    from initmig.core.errors import InitmigError
    from initmig.postgres.libpq import Library
    from initmig.postgres.notices import Notices

    _T = TypeVar("_T")

# The error that follows contains psycopg's warning, and its log lines have another format.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# libpq calls these, and they call initmig's code.
callback(psycopg.Connection._notice_handler)  # noqa: SLF001
callback(psycopg.Connection._notify_handler)  # noqa: SLF001

_PARTIAL = (pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_CHUNK)
"""Statuses of results before the last one of a statement."""

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


class PsycopgConnection(connection.Connection):
    """A connection that psycopg has opened, which Python steps can borrow."""

    verbosity = USUAL_VERBOSITY  # steps may show the text of psycopg's errors

    def __init__(self, libpq: Library, pgconn: pq.abc.PGconn) -> None:
        self.dbapi = Connection(pgconn)
        self.dbapi.reset_attributes()
        self.dbapi._notifies_backlog = deque(maxlen=_NOTIFICATIONS_KEPT)  # noqa: SLF001
        super().__init__(libpq)

    @property
    def pointer(self) -> c_void_p:
        """As in `libpq.Handle`. A step can close the connection."""
        return c_void_p(self.dbapi.pgconn.pgconn_ptr)

    @property
    def lock(self) -> AbstractContextManager[object]:
        """As in `connection.Connection`. Threads of a step may use the connection, too."""
        lock: AbstractContextManager[object] = self.dbapi.lock
        return lock

    def collect_notices(self, notices: Notices) -> None:
        """As in `connection.Connection`, also while a step uses the connection."""

        @callback
        def receive(diagnostic: psycopg.errors.Diagnostic) -> None:
            notices.add(diagnostic.severity_nonlocalized or "", diagnostic.message_primary or "")

        self.dbapi.notice_queue = notices
        self.dbapi.add_notice_handler(receive)

    def take_notifications(self) -> None:
        """Pass the notifications to psycopg, because a step may read them."""
        pgconn = self.dbapi.pgconn
        while notification := pgconn.notifies():
            pgconn.notify_handler(notification)

    def sample(self, sql: str) -> Sample:
        """Run *sql*, and return only the first rows of its first statement.

        :raises psycopg.Error: the server rejected a statement; yoyo expects the error of a cursor
        :raises InitmigError: any other failure, as `exchange`
        """
        first = _FirstRows(self.libpq)
        failed = has_failed(self.dbapi)
        message = sql.encode(self.dbapi.info.encoding)
        with suppress(StatementFailed):
            self._exchange(message, NO_LIMIT, iter(()), on_piece=first.add)
        self._forget_prepared()
        if first.error:
            raise first.error
        if failed and is_commit(sql):
            raise commit_failed()
        return first.sample(self.dbapi)

    def _forget_prepared(self) -> None:
        """Clear the list of psycopg's prepared statements, which SQL can deallocate."""
        prepared = self.dbapi._prepared  # noqa: SLF001 - it sees only what psycopg sends
        prepared.clear()
        prepared._to_flush.clear()  # noqa: SLF001

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Translate psycopg's errors inside the block.

        :raises StatementFailed: or DatabaseUnavailable, or ClientFailed
        """
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: psycopg.Error) -> InitmigError:
        words = one_line(str(error))
        # a result without an SQLSTATE comes from libpq, because the server always sends one
        of_libpq = words.startswith(_CLIENT_FAILED) or error.pgresult is not None
        if not error.sqlstate and (says_out_of_memory(words) or (of_libpq and not self.closed)):
            call = "PQgetResult" if error.pgresult else words.partition(":")[0]
            return self._ended or self._give_up(client_failed(call, words))
        failed = _statement_failed(error)
        # psycopg raises the server's error before it notices that the connection is closed
        closed = self.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC")
        if ended := disconnect_error(failed, words, closed=closed):
            return self._ended or self._end(ended)
        return failed

    @contextmanager
    def lent(self, to: str, on_ignored: Callable[[str], None] | None) -> Iterator[None]:
        """Lend the connection to the migration *to*; *on_ignored* as in `Connection`."""
        if self.dbapi.borrower != to:
            self.dbapi.reset_attributes()
        self._forget_prepared()
        self.dbapi.borrower = to
        self.dbapi.lent_by, self.dbapi.on_ignored = os.getpid(), on_ignored
        try:
            yield
        finally:
            self.dbapi.lent_by, self.dbapi.on_ignored = 0, None

    def close(self) -> None:
        """As in `libpq.Handle`, even if the connection is lent."""
        OPEN.discard(self)
        self.dbapi.pgconn.finish()


def start_by_psycopg(conninfo: str, params: Mapping[str, str]) -> PsycopgConnection:
    """Start to connect with *conninfo* and *params*, which override it."""
    given = pq.Conninfo.parse(conninfo.encode(errors=RAW))
    options = {each.keyword: each.val for each in given if each.val is not None}
    options |= {name.encode(): value.encode(errors=RAW) for name, value in params.items()}
    pairs = (b"%s='%s'" % (name, _escaped(value)) for name, value in options.items())
    return PsycopgConnection(libpq_of_psycopg(), pq.PGconn.connect_start(b" ".join(pairs)))


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b"'", b"\\'")


class Sample(Record):
    """The first rows of a result."""

    columns: tuple[str, ...]
    """The column names; empty if the statement returns no rows."""
    rows: tuple[tuple[Any, ...], ...]
    total: int
    """The number of all rows."""


class _FirstRows:
    """Collects the first rows of the first statement in a message, and counts its rows."""

    def __init__(self, libpq: Library) -> None:
        self._libpq = libpq
        self._columns: list[tuple[bytes, int]] = []
        """The name and the type of each column."""
        self._rows: list[tuple[bytes | None, ...]] = []
        self._total = 0
        self._complete = False
        self.error: psycopg.Error | None = None
        """The server's error."""

    def add(self, result: c_void_p) -> None:
        """Add *result* if it belongs to the first statement. Results arrive in order."""
        libpq = self._libpq
        status = libpq.PQresultStatus(result)
        if status == pq.ExecStatus.FATAL_ERROR:
            self.error = self.error or _error_of(libpq, result)
        if self._complete:
            return
        columns = range(libpq.PQnfields(result))
        self._columns = [
            (libpq.PQfname(result, each), libpq.PQftype(result, each)) for each in columns
        ]
        self._total += libpq.PQntuples(result)
        if len(self._rows) < _SAMPLE:
            self._rows += read_rows(libpq, result, lambda _: bytes)
        self._complete = status not in _PARTIAL

    def sample(self, dbapi: Connection) -> Sample:
        """The rows as the cursor of *dbapi* returns them.

        :raises UnexpectedAnswer: psycopg cannot read a value
        """
        names = tuple(name.decode(dbapi.info.encoding) for name, _ in self._columns)
        transformer = psycopg.adapt.Transformer(dbapi)
        loads = [transformer.get_loader(type, pq.Format.TEXT).load for _, type in self._columns]
        try:
            rows = tuple(
                tuple(
                    None if value is None else load(value)
                    for load, value in zip(loads, row, strict=True)
                )
                for row in self._rows[:_SAMPLE]
            )
        except (psycopg.Error, ValueError, TypeError, IndexError) as error:
            raise unexpected_answer(error) from error
        return Sample(names, rows, self._total)


def _error_of(libpq: Library, result: c_void_p) -> psycopg.Error:
    """The error that a cursor would raise for *result*."""
    fields: dict[int, bytes | None] = {
        each: libpq.PQresultErrorField(result, each) for each in pq.DiagnosticField
    }
    message = strip_severity(as_text(libpq.PQresultErrorMessage(result)))
    sqlstate = as_text(fields[pq.DiagnosticField.SQLSTATE])
    try:
        kind = lookup(sqlstate)
    except KeyError:
        kind = get_base_exception(sqlstate)
    return kind(message, info=fields)


def _statement_failed(error: psycopg.Error) -> StatementFailed:
    """The error for a failed statement of a step."""
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
    return failed
