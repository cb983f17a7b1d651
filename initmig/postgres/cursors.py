"""Cursors for Python steps: psycopg's, extended to run code that was written for psycopg2."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq, sql
from psycopg._queries import PostgresClientQuery

from initmig.postgres.errors import not_committed
from initmig.sql.binding import has_parameter_in_string, has_values, takes_parameters
from initmig.sql.scanner import split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg._queries import PostgresQuery


class Refused(psycopg.ProgrammingError):
    """A migration must not do this with initmig's connection. *hint* has an alternative."""

    def __init__(self, id: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.id = id
        self.hint = hint


def rollback_refused(what: str) -> Refused:
    """The error for *what*, which would roll back initmig's transaction."""
    return Refused(
        "ends-transaction",
        f"{what} would also undo the steps before this one and the migration's record",
        "to undo a part of a step, put that part in `with connection.transaction():` and raise"
        " psycopg.Rollback inside; to undo all of it, raise an exception",
    )


def transaction_end_refused(command: str) -> Refused:
    """The error for a statement whose *command* would end initmig's transaction."""
    return Refused(
        "ends-transaction",
        f"{command} would end the transaction in which initmig records the migration",
        f"remove {command}: initmig commits the migration together with its record; only a"
        " migration with __transactional__ = False commits by itself",
    )


def close_refused() -> Refused:
    """The error for a migration that would close initmig's connection."""
    return Refused(
        "closes-connection",
        "close() would close initmig's own connection",
        "remove the call: initmig closes the connection when it is done",
    )


def _in_string() -> Refused:
    return Refused(
        "parameter-in-string",
        "a parameter inside a string has no effect: the server would read `$1` as text",
        "write %s outside the quotes, as in make_interval(days => %s) for '%s days'; see"
        " docs/how-to/psycopg2.md",
    )


class Cursor(psycopg.Cursor[Any]):
    """psycopg's cursor, with three differences.

    - It writes values into statements that take no parameters on the server.
    - It adds methods of psycopg2's cursor that psycopg's lacks.
    - It raises an error if the server answers COMMIT with ROLLBACK.
    """

    def execute(self, *arguments: Any, **options: Any) -> Self:
        """Execute, as psycopg's method does.

        :raises psycopg.errors.InFailedSqlTransaction: it was a COMMIT, and the server rolled back
        """
        failed = has_failed(self.connection)
        super().execute(*arguments, **options)
        if failed and self._query and is_commit(self._query.query.decode(errors="replace")):
            raise commit_failed()
        return self

    def _convert_query(self, query: Any, params: Any = None) -> PostgresQuery:
        connection: Any = self.connection
        converted: PostgresQuery = connection.checked_query(super()._convert_query(query, params))
        return _with_values(self, converted, query, params) or converted

    def mogrify(self, query: Any, params: Any = None) -> bytes:
        """Write *params* into *query*, as psycopg2's method does."""
        written = _ClientQuery(psycopg.adapt.Transformer(self))
        written.convert(query, params)
        return written.query

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """COPY from or to *file*, in text or binary mode, as psycopg2's method does."""
        with self.copy(sql) as copy:
            if self.pgresult and self.pgresult.status == pq.ExecStatus.COPY_IN:
                while data := file.read(size):
                    copy.write(data)
                return
            encoding = self.connection.info.encoding if isinstance(file, io.TextIOBase) else ""
            for piece in copy:
                file.write(bytes(piece).decode(encoding) if encoding else piece)

    def copy_from(  # noqa: PLR0913, PLR0917 - psycopg2's signature
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        size: int = 8192,
        columns: Iterable[str] | None = None,
    ) -> None:
        """Append *file* to *table*, as psycopg2's method does."""
        self.copy_expert(_copy(table, columns, "FROM STDIN", sep, null), file, size)

    def copy_to(
        self,
        file: Any,
        table: str,
        sep: str = "\t",
        null: str = "\\N",
        columns: Iterable[str] | None = None,
    ) -> None:
        """Write *table* to *file*, as psycopg2's method does."""
        self.copy_expert(_copy(table, columns, "TO STDOUT", sep, null), file)


class ServerCursor(psycopg.ServerCursor[Any]):
    """psycopg's cursor. It writes values into queries that take no parameters on the server."""

    def _convert_query(self, query: Any, params: Any = None) -> PostgresQuery:
        converted = super()._convert_query(query, params)
        return _with_values(self, converted, query, params) or converted


def _copy(
    table: str, columns: Iterable[str] | None, direction: str, sep: str, null: str
) -> sql.Composed:
    names = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, columns or ())))
    return sql.SQL("COPY {}{} {} WITH (DELIMITER {}, NULL {})").format(
        sql.Identifier(table),
        names if columns else sql.SQL(""),
        sql.SQL(direction),
        sep,
        null,
    )


class _ClientQuery(PostgresClientQuery):
    """A query with its values written into it, as psycopg does, but with tuples as in psycopg2.

    psycopg writes a tuple as a composite value.
    """

    __slots__ = ()

    def convert(self, query: Any, vars: Any) -> None:
        super().convert(query, vars)
        self.params = None  # no parameters to send separately

    def dump(self, vars: Any) -> None:
        if vars is not None:
            values = self.validate_and_reorder_params(self._parts, vars, self._order)
            self.query = self.template % tuple(map(self._literal, values))

    def _literal(self, value: Any) -> bytes:
        if value is None:
            return b"NULL"
        if isinstance(value, tuple):
            return b"(%s)" % b", ".join(map(self._literal, value))
        return bytes(self._tx.as_literal(value))


class _MarkedQuery(_ClientQuery):
    """A query with markers for the values that could end the surrounding token too early."""

    __slots__ = ("marks",)

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer)
        self.marks: list[str] = []

    def _literal(self, value: Any) -> bytes:
        if value is None or isinstance(value, tuple | bool | int | float):
            return super()._literal(value)
        self.marks.append(f"initmig {len(self.marks)}")
        return f"'{self.marks[-1]}'".encode()


def _with_values(
    cursor: psycopg.Cursor[Any] | psycopg.ServerCursor[Any],
    converted: PostgresQuery,
    query: Any,
    params: Any,
) -> PostgresQuery | None:
    """Write *params* into *query*, but only if necessary and safe. Otherwise return None.

    :raises Refused: a parameter is inside a string
    """
    if not (converted.params and params):
        return None
    if takes_parameters(converted.query):
        if has_parameter_in_string(converted.query, len(converted.params)):
            raise _in_string()
        return None
    marked, written = _MarkedQuery(cursor._tx), _ClientQuery(cursor._tx)  # noqa: SLF001
    marked.convert(query, params)
    written.convert(query, params)
    if has_values(marked.query, marked.marks) and has_values(written.query, ()):
        return written
    return None


def has_failed(connection: psycopg.Connection[Any]) -> bool:
    """Whether the open transaction can only be rolled back."""
    return connection.info.transaction_status == pq.TransactionStatus.INERROR


def is_commit(sql: str) -> bool:
    """Whether *sql* begins with a COMMIT, including its synonyms."""
    return any(re.match(r"(?i)(COMMIT|END|PREPARE)\b", each.text) for each in split(sql)[:1])


def commit_failed() -> psycopg.Error:
    """The error for a COMMIT that the server answered with ROLLBACK."""
    return psycopg.errors.InFailedSqlTransaction(
        not_committed("ROLLBACK", completed=0).problems[0].message
    )
