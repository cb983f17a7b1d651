"""yoyo's backend in initmig's session: it runs steps, and writes yoyo's tables."""

from __future__ import annotations

import sys
import uuid
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from yoyo.backends.base import DatabaseBackend
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.utils import change_param_style

from initmig.core.home import LOCK, LOG, VERSION
from initmig.engine.transactions import savepoint
from initmig.history import store
from initmig.history.location import columns_of
from initmig.postgres import StatementFailed, quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from initmig.core.home import Home
    from initmig.core.identity import Identity
    from initmig.engine.batch import Batch
    from initmig.postgres.dbapi import PsycopgConnection

_TABLES: Mapping[str, Callable[[Home], str]] = {
    "migration_table_quoted": lambda home: home.history,
    "log_table_quoted": lambda home: home.log,
    "version_table_quoted": lambda home: home.version,
    "lock_table_quoted": lambda home: home.lock,
}
"""The history tables by the placeholder in yoyo's SQL."""


class _NoDriver:
    """The part of a DB-API module that yoyo needs when it does not connect."""

    DatabaseError = StatementFailed


class _Rows:
    """The part of a cursor that yoyo needs to read its tables."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None after the last row."""
        return next(self._rows, None)


class _StepCursor:
    """The part of a cursor that yoyo needs to run an SQL step and print its rows.

    psycopg's cursor keeps all rows of all statements in memory.
    """

    def __init__(self, connection: PsycopgConnection) -> None:
        self._connection = connection
        self._rows: Sequence[Sequence[object]] = ()
        self.description: Sequence[tuple[str]] = ()

    def execute(self, sql: str) -> None:
        """Run *sql*, and keep only the rows that will be printed."""
        sample = self._connection.sample(sql)
        self.description = [(name,) for name in sample.columns]
        self._rows = sample.rows
        if sample.total > len(sample.rows):
            sys.stdout.write(f"{sample.total} rows, of which these are the first:\n")

    def fetchall(self) -> Sequence[Sequence[object]]:
        """The first rows."""
        return self._rows

    def close(self) -> None:
        """Does nothing, because no resource is open."""


class YoyoBackend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend in initmig's session. A transaction is open whenever yoyo uses its tables.

    *batch* gets all of its SQL, and *home* has the tables.
    """

    mark_migration_sql = DatabaseBackend.mark_migration_sql.replace(":when", store.RECORDED_AT)
    log_migration_sql = (
        DatabaseBackend.log_migration_sql.replace(":created_at_utc", store.RECORDED_AT)
        .replace("{quoted.created_at_utc})", "{quoted.created_at_utc}, {quoted.comment})")
        .replace(f"{store.RECORDED_AT})", f"{store.RECORDED_AT}, :comment)")
    )
    log_table, lock_table, version_table = LOG, LOCK, VERSION

    def __init__(self, batch: Batch, home: Home, by: Identity) -> None:
        self._batch = batch
        self._home = home
        self._by = by
        self._formatted: dict[str, str] = {}
        super().__init__(None, home.table)

    def __getattr__(self, name: str) -> Any:
        """The placeholder of a table in yoyo's SQL, which `execute` fills in.

        A schema's name may contain characters that yoyo would read as a parameter.
        """
        if name in _TABLES:
            return f":{name}"
        raise AttributeError(name)

    def connect(self, dburi: None) -> Any:  # noqa: ARG002 - yoyo's signature
        """The session's connection; *dburi* is ignored."""
        return self._batch.session.connection.dbapi

    def _load_driver_module(self) -> Any:
        """psycopg if Python steps need its connection; otherwise the few names that yoyo needs."""
        if self._batch.session.connection.dbapi is None:
            return _NoDriver
        return super()._load_driver_module()

    @property
    def connection(self) -> Any:
        """The session's connection, after all collected SQL was sent."""
        self._batch.send()
        return self._batch.session.connection.dbapi

    def cursor(self) -> _StepCursor:
        """A cursor for an SQL step, after all collected SQL was sent."""
        self._batch.send()
        return _StepCursor(cast("PsycopgConnection", self._batch.session.connection))

    def transaction(self, rollback_on_exit: bool = False) -> AbstractContextManager[None]:  # noqa: ARG002, FBT001, FBT002 - yoyo's signature
        """A savepoint, because initmig has opened the transaction."""
        return savepoint(self._batch)

    @property
    def lock_table_definition(self) -> str:
        """The SQL that creates yoyo's lock table."""
        return self._with_values(self.format_sql(self.create_lock_table_sql), {})

    def copy(self) -> YoyoBackend:
        """This backend, because a second connection could not commit in the same transaction."""
        return self

    def list_tables(self, **_: Any) -> list[str]:
        """The history tables that exist. yoyo looks for no other tables."""
        return list(columns_of(self._batch.session, self._home, self._home.tables))

    def ensure_internal_schema_updated(self) -> None:
        """Does nothing, because `history_tables.prepare` has already done it."""

    def format_sql(self, s: str, **kwargs: str) -> str:
        """Like yoyo's, which creates a class per call, but cached for *s* without arguments."""
        if kwargs:
            return str(super().format_sql(s, **kwargs))
        if s not in self._formatted:
            self._formatted[s] = str(super().format_sql(s))
        return self._formatted[s]

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> _Rows:
        """Like yoyo's, but a statement without rows is only collected."""
        sql = self._with_values(sql, params or {})
        if sql.startswith("SELECT"):
            return _Rows(self._batch.query_by_path(sql))
        self._batch.add(sql)
        return _Rows(())

    def _with_values(self, sql: str, params: Mapping[str, Any]) -> str:
        """yoyo's *sql* with the names of the history tables and *params* filled in."""
        values = {name: table(self._home) for name, table in _TABLES.items() if f":{name}" in sql}
        for name, value in params.items():
            values[name] = "NULL" if value is None else quote_literal(str(value))
        return _template(sql, tuple(values)) % values if values else sql

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo's log row except its time, without looking up the passwd file or DNS."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self._by.user,
            "hostname": self._by.host,
            "operation": operation,
            "comment": store.log_comment(self._home),
        }


@cache
def _template(sql: str, names: Sequence[str]) -> str:
    return str(change_param_style("pyformat", sql, dict.fromkeys(names))[0])
