"""yoyo's PostgreSQL backend on one connection: a migration and its record are one transaction."""

from __future__ import annotations

import sys
import time
import uuid
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from yoyo import internalmigrations
from yoyo.backends.base import DatabaseBackend, SavepointTransactionManager, TransactionManager
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.internalmigrations import v2
from yoyo.utils import change_param_style

from initmig.core.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    InitmigError,
    Place,
    PlanError,
)
from initmig.core.events import SessionNotEmptied
from initmig.core.home import LOCK, LOG, VERSION
from initmig.core.identity import Identity
from initmig.core.model import UNDOING
from initmig.engine.batch import Batch
from initmig.engine.transactions import (
    SAVEPOINT,
    cleaning_up,
    transaction_ended_error,
    transaction_has_ended,
)
from initmig.history import maintenance, store, trust
from initmig.history.location import columns_of, home_of, trusted_home
from initmig.postgres import AfterCommit, StatementFailed, commit_then, quote_literal, search_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from initmig.core.events import Emit
    from initmig.core.home import Home
    from initmig.core.model import Direction
    from initmig.engine.batch import Script
    from initmig.postgres import Session

_FAILS_OUTSIDE_TRANSACTION = f"SAVEPOINT {SAVEPOINT}"
"""Fails outside a transaction. It detects a file that ended the transaction it was run in."""

_SENT_ALONE_BYTES = 1 << 20
"""From this size on, copying a script into a larger message costs more than a separate message."""

_IMMEDIATE_CONSTRAINTS = """
SELECT string_agg(name, ', ') FROM (
    SELECT format('%I.%I', n.nspname, c.conname)
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE c.condeferrable AND has_schema_privilege(n.oid, 'USAGE')
    -- a name means all constraints with that name, and a late check rejects no valid row
    GROUP BY n.nspname, c.conname HAVING NOT bool_or(c.condeferred)
) AS immediate (name)"""

_TEMPORARY_CONSTRAINTS = """
SELECT string_agg(format('%I.%I', n.nspname, c.conname), ', ')
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferrable AND n.oid = pg_my_temp_schema()"""

_CLOSE_CURSORS = """
SELECT string_agg(format('CLOSE %I', name), ';')
FROM pg_cursors WHERE NOT is_holdable AND name <> ''"""

# Runs with the user's search path, which is one of the settings.
_CHANGED_SETTINGS = """
SELECT name, setting, coalesce(reset_val, '') FROM pg_catalog.pg_settings
WHERE source OPERATOR(pg_catalog.=) 'session'
    AND NOT pg_catalog.starts_with(name, 'transaction_')"""

_CREATED_CONCURRENTLY = ("42P07", "23505")
"""duplicate_table, or unique_violation in pg_type: another session created it concurrently."""


_TABLES: Mapping[str, Callable[[Home], str]] = {
    "migration_table_quoted": lambda home: home.history,
    "log_table_quoted": lambda home: home.log,
    "version_table_quoted": lambda home: home.version,
    "lock_table_quoted": lambda home: home.lock,
}
"""The history tables by the placeholder in yoyo's SQL."""


class _ReleasedSavepoint(SavepointTransactionManager):  # type: ignore[misc]
    """yoyo's savepoint, but released, because thousands of savepoints exhaust the server's memory.

    RELEASE also fails if a step has ended the transaction and started another one.
    """

    id_generator = map((SAVEPOINT[3:] + "_{}").format, count(1))

    def _do_commit(self) -> None:
        self.backend.savepoint_release(self.id)


class _NoDriver:
    """The part of a DB-API module that yoyo needs when it does not connect."""

    DatabaseError = StatementFailed


class _Rows:
    """The part of a cursor that yoyo needs."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        """The next row; None after the last row."""
        return next(self._rows, None)


class _StepCursor:
    """The part of a cursor that yoyo needs to run an SQL step and print its rows.

    psycopg's cursor keeps all rows of all statements in memory.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Sequence[tuple[str]] = ()

    def execute(self, sql: str) -> None:
        """Run *sql*, and keep only the rows that will be printed."""
        sample = self._connection.sample(sql)
        self.description = [(name,) for name in sample.columns]
        self._rows = sample.rows
        if sample.total > len(sample.rows):
            sys.stdout.write(f"{sample.total} rows, of which these are the first:\n")

    def fetchall(self) -> Sequence[Any]:
        """The first rows."""
        return self._rows

    def close(self) -> None:
        """Does nothing, because no resource is open."""


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend on initmig's only connection. The caller holds the migration lock.

    *settings* is SQL that every transaction runs after BEGIN, all of it SET LOCAL. *guard* runs
    next, and fails if the lock was lost.
    """

    mark_migration_sql = DatabaseBackend.mark_migration_sql.replace(":when", store.RECORDED_AT)
    log_migration_sql = (
        DatabaseBackend.log_migration_sql.replace(":created_at_utc", store.RECORDED_AT)
        .replace("{quoted.created_at_utc})", "{quoted.created_at_utc}, {quoted.comment})")
        .replace(f"{store.RECORDED_AT})", f"{store.RECORDED_AT}, :comment)")
    )
    log_table, lock_table, version_table = LOG, LOCK, VERSION

    def __init__(
        self,
        session: Session,
        *,
        by: Identity,
        emit: Emit,
        settings: str = "",
        guard: str = "",
    ) -> None:
        self.session = session
        self.on_statement: Callable[[Callable[[], Place]], object] = lambda _: None
        """Called before each statement, with a function that returns its place."""
        self.by = by
        self.emit = emit
        self.due_hooks: Sequence[str] = ()
        """The ids of the hooks to run after a migration was applied."""
        self._batch = Batch(session)
        self._settings = settings
        self._guard = guard
        self._guard_last = False
        self._is_shared = False
        self._discards_state = False
        self._reset_failure = ""
        self._original_settings: Mapping[str, tuple[str, str]] = {}
        self._formatted: dict[str, str] = {}
        self.home = home_of(session)
        self._position: int | None = None
        self._half_applied: frozenset[str] = frozenset()
        super().__init__(None, self.home.table)

    def __getattr__(self, name: str) -> Any:
        """The placeholder of a table in yoyo's SQL, which `execute` fills in.

        A schema's name may contain characters that yoyo would read as a parameter.
        """
        if name in _TABLES:
            return f":{name}"
        raise AttributeError(name)

    def connect(self, dburi: None) -> Any:  # noqa: ARG002 - yoyo's signature
        """The session's connection; *dburi* is ignored."""
        return self.session.connection.dbapi

    def _load_driver_module(self) -> Any:
        """psycopg if Python steps need its connection; otherwise the few names that yoyo needs."""
        if self.session.connection.dbapi is None:
            return _NoDriver
        return super()._load_driver_module()

    @property
    def connection(self) -> Any:
        """The session's connection, after all collected SQL was sent."""
        self._batch.send()
        return self._connection

    def cursor(self) -> _StepCursor:
        """A cursor for an SQL step, after all collected SQL was sent."""
        self._batch.send()
        return _StepCursor(self.session.connection)

    @property
    def lock_table_definition(self) -> str:
        """The SQL that creates yoyo's lock table."""
        return self._with_values(self.format_sql(self.create_lock_table_sql), {})

    def copy(self) -> Backend:
        """This backend, because a second connection could not commit in the same transaction."""
        return self

    def list_tables(self, **_: Any) -> list[str]:
        """The history tables that exist. yoyo looks for no other tables."""
        return list(columns_of(self.session, self.home, self.home.tables))

    def prepare(self, *, upgrades: bool = True) -> None:
        """Create missing history tables, and repair the rows of the others.

        The caller also holds yoyo's lock. If *upgrades* is false, the table of 0.1.0 is not
        changed.
        """
        self.create_tables(upgrades=upgrades)
        # under the lock, so that it also checks tables that another session has just created
        trust.require_trusted(self.session, self.home)
        self._position = maintenance.repair(self.session, self.home)
        half_applied = store.unfinished_migrations(self.session)
        self._half_applied = frozenset(each.id for each in half_applied)

    def create_tables(self, *, upgrades: bool = True) -> None:
        """Create missing history tables, and upgrade the tables of an older yoyo.

        :raises PlanError: the tables are from a newer yoyo
        """
        existing = columns_of(self.session, self.home, self.home.tables)
        columns = existing.get(self.migration_table, ())
        if "ctime" in columns and "migration_hash" not in columns:
            with self.history_transaction():
                internalmigrations.upgrade(self)  # tables of yoyo before version 6
        else:
            self._create_missing_tables(existing)
        self._batch.send()  # in an outer transaction, no COMMIT has sent the batch
        maintenance.create_own_table(self.session, self.home, upgrades=upgrades)

    def _create_missing_tables(self, existing: Collection[str]) -> None:
        version = None
        if VERSION in existing:
            [(version,)] = self.session.query(f"SELECT max(version) FROM {self.home.version}")
        newest = max(internalmigrations.schema_versions)
        if version is not None and version > newest:
            raise PlanError(
                "newer-yoyo",
                f"a newer yoyo has changed the history tables: {self.home.version} has version"
                f" {version}, and this image's yoyo knows versions up to {newest}",
                hint="deploy an image that contains the newer yoyo",
            )
        make = {
            self.migration_table: v2.create_migration_table,
            LOG: v2.create_log_table,
            VERSION: v2.create_version_table,
        }
        missing = [name for name in make if name not in existing]
        if missing or version is None:
            with self.history_transaction():
                for name in missing:
                    make[name](self)
                if version is None:
                    internalmigrations.mark_schema_version(self, newest)

    def ensure_internal_schema_updated(self) -> None:
        """Does nothing, because `prepare` has already done it."""

    def transaction(self, rollback_on_exit: bool = False) -> TransactionManager:  # noqa: FBT001, FBT002
        """A transaction, or a savepoint if a transaction is open."""
        kind = _ReleasedSavepoint if self._in_transaction else TransactionManager
        return kind(self, rollback_on_exit=rollback_on_exit)

    @contextmanager
    def history_transaction(self) -> Iterator[None]:
        """A transaction for initmig's own SQL, whose names are looked up only in pg_catalog."""
        with self.transaction():
            self.add(search_path.PIN_PATH.rstrip(";"))
            yield
            self.add(search_path.RESTORE_PATH)

    def begin(self) -> None:
        """Add BEGIN and the settings to the next message.

        :raises DatabaseUnavailable: an earlier migration's session state could not be discarded
        """
        if self._reset_failure:
            raise DatabaseUnavailable(
                "session-not-emptied",
                f"the session cannot be used again: {self._reset_failure}",
                hint="end the session that blocks it, if there is one, and run again",
            )
        self._batch.add(f"BEGIN;{self.prologue}".rstrip(";"))
        self._in_transaction = True

    def use_open_transaction(self) -> None:
        """Use the session's open transaction as if `begin` had opened it."""
        self._in_transaction = True

    @property
    def prologue(self) -> str:
        """The SQL after BEGIN; empty if the session's settings are sufficient."""
        guard = "" if self._guard_last else self._guard
        return f"{self.session.preamble}{self._settings}{guard}"

    @contextmanager
    def transaction_for(self, *migrations: Any) -> Iterator[None]:
        """A transaction for all of *migrations*, or a savepoint if a transaction is open."""
        self._is_shared = self._in_transaction
        if not self._is_shared:
            # the guard is a query, and SET TRANSACTION ISOLATION LEVEL must precede all queries
            self._guard_last = any(each.sets_isolation for each in migrations)
            self._discards_state = self.session.is_dedicated
        try:
            with self._discard_state_on_failure(), self.transaction():
                yield
        finally:
            self._is_shared = False
            self._guard_last = self._guard_last and self._in_transaction
            self._discards_state = self._discards_state and self._in_transaction

    @contextmanager
    def session_settings(self) -> Iterator[None]:
        """Allow statements to change the session's settings, and reset them at the end."""
        with cleaning_up(self._reset_session), self._discard_state_on_failure():
            yield

    def _reset_session(self) -> None:
        if self.session.is_dedicated and self.session.usable:
            self.session.command(self.session.reset_sql)

    @contextmanager
    def _discard_state_on_failure(self) -> Iterator[None]:
        """After an exception, discard the session state, unless a pooler shares the session.

        ROLLBACK keeps prepared statements and advisory locks, which would affect the next attempt.
        """
        try:
            yield
        except Exception:
            if self.session.is_dedicated and self.session.usable and not self._reset_failure:
                with self._warn_if_not_reset(InitmigError):
                    self.session.run_own(self.session.cleanup_sql)
            raise

    @contextmanager
    def _warn_if_not_reset(self, kind: type[InitmigError]) -> Iterator[None]:
        """Report an error of this *kind* as a warning, because it does not affect the migration.

        `begin` then fails, so the next transaction needs a new session.
        """
        try:
            yield
        except kind as error:
            self._reset_failure = str(error)
            self._roll_back_session()
            self.emit(SessionNotEmptied(self._reset_failure))

    def commit(self) -> None:
        """Send COMMIT in one message with all collected SQL; the server must confirm it.

        The message also discards the session state that a migration leaves.
        """
        end = commit_then(self.session.cleanup_sql) if self._discards_state else "COMMIT"
        try:
            self._batch.add(f"{self._guard if self._guard_last else ''}{end}")
            with self._warn_if_not_reset(AfterCommit):
                self._batch.send(commits=True)
        except (StatementFailed, KeyboardInterrupt):  # the message may contain the whole migration
            self.rollback()
            raise
        finally:
            self._in_transaction = False

    def rollback(self) -> None:
        """Discard collected SQL, and roll back if a transaction is open."""
        self._batch.discard()
        self._in_transaction = False
        self._roll_back_session()

    def _roll_back_session(self) -> None:
        """Roll back the open transaction. The server does it if the connection is lost."""
        if not self.session.in_transaction:
            return
        try:
            self.session.run_own("ROLLBACK")
        except InitmigError:
            if not self.session.connection.closed:
                raise

    def format_sql(self, s: str, **kwargs: str) -> str:
        """Like yoyo's, which creates a class per call, but cached for *s* without arguments."""
        if kwargs:
            return str(super().format_sql(s, **kwargs))
        if s not in self._formatted:
            self._formatted[s] = str(super().format_sql(s))
        return self._formatted[s]

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        """Like yoyo's, but a statement without rows in a transaction is only collected."""
        sql = self._with_values(sql, params or {})
        if self._in_transaction and not sql.startswith("SELECT"):
            self._batch.add(sql)
            return None
        return _Rows(self._batch.query(sql))

    def _with_values(self, sql: str, params: Mapping[str, Any]) -> str:
        """yoyo's *sql* with the names of the history tables and *params* filled in."""
        values = {name: table(self.home) for name, table in _TABLES.items() if f":{name}" in sql}
        for name, value in params.items():
            values[name] = "NULL" if value is None else quote_literal(str(value))
        return _template(sql, tuple(values)) % values if values else sql

    def run(self, script: Script) -> None:
        """Run *script*, or add it to the message of the COMMIT if it has its own transaction."""
        self.on_statement(script.statement_place)
        if self._can_wait(script):
            self._batch.add(script)
            return
        self._batch.send()
        self._batch.add(script)
        self._batch.send()

    def _can_wait(self, script: Script) -> bool:
        # a syntax error in a later message would end a transaction that is already open
        opens = self._in_transaction and not (self._is_shared or self.session.in_transaction)
        # COMMIT must follow COPY data in another message, once the server has accepted all of it
        return opens and not script.data and script.size < _SENT_ALONE_BYTES

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002
        """Run the steps and record the migration, in one transaction if it is transactional.

        A hook has a false *mark*; it is removed from the hooks to run.
        """
        with self._run_and_record(migration, "apply") as seconds:
            self._record_applied(migration, seconds, mark=mark)

    def _record_applied(self, migration: Any, seconds: float | None, *, mark: bool) -> None:
        self.log_migration(migration, "apply")
        if mark:
            self.mark_one(migration, log=False)
            if not migration.use_transactions or migration.id in self._half_applied:
                self.add(store.delete_record(self.home, migration.id))  # the journal's row
            self.add(self._own_record(migration, seconds))
            if self.due_hooks:
                self.add(store.mark_due(self.home, self.due_hooks))
        else:
            self.add(store.delete_record(self.home, migration.id))
            self.add(store.delete_history_rows(self.home, migration.id))

    def rollback_one(self, migration: Any, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Run the rollback steps and remove the record, in one transaction if transactional."""
        with self._run_and_record(migration, "rollback"):
            self.log_migration(migration, "rollback")
            for id in (migration.id, UNDOING + migration.id):
                self.add(store.delete_history_rows(self.home, id))
            self.add(store.delete_record(self.home, migration.id))

    def mark_migrations(self, migrations: Iterable[Any]) -> None:
        """Record *migrations* as applied, in this order and in one transaction; run nothing."""
        with self.history_transaction():
            for migration in migrations:
                self._prepare_record()
                self.mark_one(migration)
                position = self._next_position()
                mark = store.mark(self.home, migration.description, by=self.by, position=position)
                self.add(mark)

    def _prepare_record(self) -> None:
        self.add(store.write_guard(self.session, self.home) + store.set_record_time())

    def _own_record(self, migration: Any, seconds: float | None) -> str:
        return store.insert_record(
            self.home,
            migration.description,
            by=self.by,
            position=self._next_position(),
            seconds=seconds,
        )

    def _next_position(self) -> int | None:
        """The highest position plus one. Rolled back migrations leave gaps."""
        if self._position is not None:
            self._position += 1
        return self._position

    @contextmanager
    def _run_and_record(self, migration: Any, direction: Direction) -> Iterator[float | None]:
        """Run *migration*. The body records it, and is committed with it or after its last part.

        Yields its duration in seconds; None if its own transaction is exactly as old.
        """
        started = time.monotonic()
        if not migration.use_transactions:
            from initmig.engine.non_transactional import NonTransactionalRun

            NonTransactionalRun(self, migration, direction).run()
        with self.transaction_must_stay_open(migration.id, lambda: Place(migration.path)):
            with self.transaction_for(migration):
                if migration.use_transactions:
                    self._run(migration, direction)
                has_own_transaction = migration.use_transactions and not self._is_shared
                self._prepare_record()
                yield None if has_own_transaction else time.monotonic() - started
                self.add(_FAILS_OUTSIDE_TRANSACTION)
            self._batch.send()

    def _run(self, migration: Any, direction: Direction) -> None:
        migration.run(self, direction)
        if self._is_shared and self.session.is_dedicated:
            self._discard_transaction_state(migration)
        elif migration.sets_session:
            self._reset_settings(migration, direction)

    def _reset_settings(self, migration: Any, direction: Direction) -> None:
        """Reset the migration's settings, for its record and for the next migration."""
        if self.session.is_dedicated:
            reset = self.session.reset_sql
        else:  # other settings belong to the pooler and to other clients of this connection
            # imported here, because other runs do not need it
            from initmig.engine.session_state import reset_statements

            made = reset_statements(migration, direction)
            reset = f"{made}RESET SESSION AUTHORIZATION; RESET ROLE; RESET search_path"
        self.add(f"{reset};{self.session.preamble}{self._settings}".rstrip(";"))

    @contextmanager
    def rehearsal_transaction(self) -> Iterator[None]:
        """Use the session's open transaction, and roll it back at the end."""
        self._in_transaction = True
        try:
            self.add(self.prologue)
            self._original_settings = self._changed_settings()
            yield
        finally:
            self.rollback()

    @contextmanager
    def rehearse_one(self, migration: Any, *, mark: bool, commits: bool) -> Iterator[None]:
        """The body runs *migration*, which is then recorded in the open transaction.

        If `migrate` *commits* after it, also check deferred constraints. A hook has a false *mark*.
        An error rolls back to a savepoint.
        """
        started = time.monotonic()
        with (
            self.transaction_must_stay_open(migration.id, lambda: Place(migration.path)),
            self.transaction(),
        ):
            yield
            if migration.sets_session:
                self._reset_settings(migration, "apply")
            self._prepare_record()
            self._record_applied(migration, time.monotonic() - started, mark=mark)
            if commits:
                self._check_deferred_constraints()
            if commits or self.session.is_dedicated:
                self._discard_transaction_state(migration)

    def _discard_transaction_state(self, migration: Any) -> None:
        """Discard the state that a COMMIT and its cleanup would discard.

        Advisory locks stay, because the server does not show whether a lock is for the session or
        the transaction.
        """
        self._reset_settings(migration, "apply")
        if self.session.is_dedicated:
            self.add("CLOSE ALL;DEALLOCATE ALL")
        else:  # behind a pooler, discard only state that a ROLLBACK restores
            self._close_cursors()
            self._undo_set_local()
        [(deferrable,)] = self.query(_TEMPORARY_CONSTRAINTS)
        if deferrable:  # a table with pending trigger events cannot be dropped
            self.add(f"SET CONSTRAINTS {deferrable} IMMEDIATE")
        self.add("UNLISTEN *;DISCARD TEMP")

    def _close_cursors(self) -> None:
        """Close the cursors that COMMIT would close."""
        [(close,)] = self.query(_CLOSE_CURSORS)
        if close:
            self.add(close)

    def _undo_set_local(self) -> None:
        """Restore the settings that a pooled session had before the migrations."""
        for name, (value, default) in self._changed_settings().items():
            before, _ = self._original_settings.get(name, (default, ""))
            if value != before:
                made = f"{quote_literal(name)}, {quote_literal(before)}"
                self.add(f"SELECT pg_catalog.set_config({made}, true)")

    def _changed_settings(self) -> dict[str, tuple[str, str]]:
        """The value and default of each setting that was changed in a pooled session."""
        made = () if self.session.is_dedicated else self.query_by_path(_CHANGED_SETTINGS)
        return {name: (value, default) for name, value, default in made}

    def _check_deferred_constraints(self) -> None:
        """Check the deferred constraints, as COMMIT would, and restore their default timing."""
        self.add("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        [(immediate,)] = self.query(_IMMEDIATE_CONSTRAINTS)
        if immediate:
            self.add(f"SET CONSTRAINTS {immediate} IMMEDIATE")

    def query_by_path(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of *sql*, after all collected SQL; by the user's search path."""
        return self._batch.query(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Like `query_by_path`, but names are looked up only in pg_catalog."""
        rows = self._batch.query(f"{search_path.PIN_PATH}{sql}")
        self.add(search_path.RESTORE_PATH)
        return rows

    def add(self, sql: str) -> None:
        """Add *sql* to the next message, in the open transaction."""
        self._batch.add(sql)

    @contextmanager
    def transaction_must_stay_open(
        self, id: str, begins_at: Callable[[], Place], *, is_block: bool = False
    ) -> Iterator[None]:
        """Report an error if the migration *id* ends the transaction in the body.

        The transaction is initmig's, or a block in the file. *begins_at* returns where it begins.
        It is only called for an error.

        :raises MigrationFailed: the transaction has ended
        """
        started = time.monotonic()
        try:
            yield
        except StatementFailed as error:
            if not transaction_has_ended(error):
                raise
            self._batch.discard()
            self._roll_back_session()  # the migration may have started another transaction
            begin = begins_at()
            which = f"that begins at {begin}" if is_block else "that initmig opened for it"
            place = error.place or begin
            raise transaction_ended_error(
                id, self.session, place, which=which, seconds=time.monotonic() - started
            ) from error

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo's log row except its time, without looking up the passwd file or DNS."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self.by.user,
            "hostname": self.by.host,
            "operation": operation,
            "comment": store.log_comment(self.home),
        }


@cache
def _template(sql: str, names: Sequence[str]) -> str:
    return str(change_param_style("pyformat", sql, dict.fromkeys(names))[0])


def create_lock_table(session: Session) -> None:
    """Create yoyo's lock table if it does not exist; stock yoyo may do the same concurrently."""
    if columns_of(session, home_of(session), (LOCK,)):
        return
    backend = _plain_backend(session)
    try:
        session.query(backend.lock_table_definition)
    except DatabaseRefused as error:
        if error.sqlstate not in _CREATED_CONCURRENTLY:
            raise


def try_create_tables(session: Session) -> None:
    """Try to create the missing tables in the open transaction, which the caller rolls back.

    :raises InitmigError: they cannot be created
    """
    trusted_home(session)
    create_lock_table(session)
    backend = _plain_backend(session)
    backend.use_open_transaction()
    backend.create_tables()


def _plain_backend(session: Session) -> Backend:
    return Backend(session, by=Identity("", "", ""), emit=lambda _: None)
