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
"""The server refuses it outside of a transaction: a file may have ended the one it was run in."""

_SENT_ALONE_BYTES = 1 << 20
"""So many bytes cost more, copied into a message with others, than a message."""

_IMMEDIATE_CONSTRAINTS = """
SELECT string_agg(name, ', ') FROM (
    SELECT format('%I.%I', n.nspname, c.conname)
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE c.condeferrable AND has_schema_privilege(n.oid, 'USAGE')
    -- a name stands for all constraints that have it, and a late check fails nothing that is right
    GROUP BY n.nspname, c.conname HAVING NOT bool_or(c.condeferred)
) AS immediate (name)"""

_TEMPORARY_CONSTRAINTS = """
SELECT string_agg(format('%I.%I', n.nspname, c.conname), ', ')
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferrable AND n.oid = pg_my_temp_schema()"""

_CLOSE_CURSORS = """
SELECT string_agg(format('CLOSE %I', name), ';')
FROM pg_cursors WHERE NOT is_holdable AND name <> ''"""

# Asked by the user's search path, which is one of them.
_CHANGED_SETTINGS = """
SELECT name, setting, coalesce(reset_val, '') FROM pg_catalog.pg_settings
WHERE source OPERATOR(pg_catalog.=) 'session'
    AND NOT pg_catalog.starts_with(name, 'transaction_')"""

_CREATED_CONCURRENTLY = ("42P07", "23505")
"""duplicate_table, or unique_violation in pg_type: another session created it just now."""


_TABLES: Mapping[str, Callable[[Home], str]] = {
    "migration_table_quoted": lambda home: home.history,
    "log_table_quoted": lambda home: home.log,
    "version_table_quoted": lambda home: home.version,
    "lock_table_quoted": lambda home: home.lock,
}
"""By what yoyo calls them."""


class _ReleasedSavepoint(SavepointTransactionManager):  # type: ignore[misc]
    """yoyo's savepoint, given back: thousands of kept ones exhaust the server's memory.

    It also shows whether a step has ended the transaction and begun another one.
    """

    id_generator = map((SAVEPOINT[3:] + "_{}").format, count(1))

    def _do_commit(self) -> None:
        self.backend.savepoint_release(self.id)


class _NoDriver:
    """What yoyo asks of a DB-API module that it does not work with."""

    DatabaseError = StatementFailed


class _Rows:
    """What yoyo asks of a cursor."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        """The next row, None behind the last one."""
        return next(self._rows, None)


class _StepCursor:
    """What yoyo asks of a cursor for a step in SQL, of whose rows it prints a table.

    psycopg's own keeps all rows of all statements in memory.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Sequence[tuple[str]] = ()

    def execute(self, sql: str) -> None:
        """Run *sql*; more rows than are worth printing are only counted."""
        sample = self._connection.sample(sql)
        self.description = [(name,) for name in sample.columns]
        self._rows = sample.rows
        if sample.total > len(sample.rows):
            sys.stdout.write(f"{sample.total} rows, of which these are the first:\n")

    def fetchall(self) -> Sequence[Any]:
        """The first rows."""
        return self._rows

    def close(self) -> None:
        """Nothing: there is no more of it."""


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend on initmig's one connection; the caller holds the migration lock.

    *settings* is the SQL that opens every transaction after BEGIN, all of it SET LOCAL; *guard*
    follows it, and fails where the lock was lost.
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
        """Gets where each statement stands in its file, before it is sent."""
        self.by = by
        self.emit = emit
        self.due_hooks: Sequence[str] = ()
        """The ids of the hooks that have to run once something was applied."""
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
        """What stands for a table in yoyo's SQL, as a parameter of `execute`.

        A schema's name can have characters that yoyo's SQL takes for parameters.
        """
        if name in _TABLES:
            return f":{name}"
        raise AttributeError(name)

    def connect(self, dburi: None) -> Any:  # noqa: ARG002 - yoyo's signature
        """The session's connection, whatever yoyo would connect to."""
        return self.session.connection.dbapi

    def _load_driver_module(self) -> Any:
        """psycopg, where steps in Python get its connection; else as much of it as is needed."""
        if self.session.connection.dbapi is None:
            return _NoDriver
        return super()._load_driver_module()

    @property
    def connection(self) -> Any:
        """The session's connection, for who wants an answer: nothing waits any more."""
        self._batch.send()
        return self._connection

    def cursor(self) -> _StepCursor:
        """For a step in SQL, behind all that waits."""
        self._batch.send()
        return _StepCursor(self.session.connection)

    @property
    def lock_table_definition(self) -> str:
        """The SQL that creates yoyo's lock table."""
        return self._with_values(self.format_sql(self.create_lock_table_sql), {})

    def copy(self) -> Backend:
        """This backend: a second connection could not commit together with the first."""
        return self

    def list_tables(self, **_: Any) -> list[str]:
        """Those of yoyo's tables that exist; yoyo asks for no others."""
        return list(columns_of(self.session, self.home, self.home.tables))

    def prepare(self, *, upgrades: bool = True) -> None:
        """Make the history tables that are missing, and put what is in them in order.

        The caller holds yoyo's lock too. Unless it *upgrades*, 0.1.0's own table stays as it is.
        """
        self.create_tables(upgrades=upgrades)
        # under the lock, and after the tables that others have just created
        trust.require_trusted(self.session, self.home)
        self._position = maintenance.repair(self.session, self.home)
        half_applied = store.unfinished_migrations(self.session)
        self._half_applied = frozenset(each.id for each in half_applied)

    def create_tables(self, *, upgrades: bool = True) -> None:
        """Make the history tables that are missing, or as an older yoyo made them.

        :raises PlanError: a newer yoyo made them
        """
        there = columns_of(self.session, self.home, self.home.tables)
        columns = there.get(self.migration_table, ())
        if "ctime" in columns and "migration_hash" not in columns:
            with self.history_transaction():
                internalmigrations.upgrade(self)  # from before yoyo 6
        else:
            self._create_missing_tables(there)
        self._batch.send()  # where the transaction is not its own, no COMMIT has done it
        maintenance.create_own_table(self.session, self.home, upgrades=upgrades)

    def _create_missing_tables(self, there: Collection[str]) -> None:
        version = None
        if VERSION in there:
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
        missing = [name for name in make if name not in there]
        if missing or version is None:
            with self.history_transaction():
                for name in missing:
                    make[name](self)
                if version is None:
                    internalmigrations.mark_schema_version(self, newest)

    def ensure_internal_schema_updated(self) -> None:
        """Nothing: `prepare` has done it, once."""

    def transaction(self, rollback_on_exit: bool = False) -> TransactionManager:  # noqa: FBT001, FBT002
        """A transaction, or inside of one a savepoint."""
        kind = _ReleasedSavepoint if self._in_transaction else TransactionManager
        return kind(self, rollback_on_exit=rollback_on_exit)

    @contextmanager
    def history_transaction(self) -> Iterator[None]:
        """A transaction in which nothing of a migration runs: names are PostgreSQL's own."""
        with self.transaction():
            self.add(search_path.PIN_PATH.rstrip(";"))
            yield
            self.add(search_path.RESTORE_PATH)

    def begin(self) -> None:
        """BEGIN with the settings, in one message with what follows.

        :raises DatabaseUnavailable: what a migration has left in the session is still there
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
        """Take the transaction that is open in the session for one of `begin`."""
        self._in_transaction = True

    @property
    def prologue(self) -> str:
        """What a transaction starts with; empty where the session's settings hold."""
        guard = "" if self._guard_last else self._guard
        return f"{self.session.preamble}{self._settings}{guard}"

    @contextmanager
    def transaction_for(self, *migrations: Any) -> Iterator[None]:
        """A transaction, or inside of one a savepoint, for all of *migrations*."""
        self._is_shared = self._in_transaction
        if not self._is_shared:
            # the guard is a query, before which the level has to be set
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
        """Inside, the settings last for the session, so that what runs there can change them."""
        with cleaning_up(self._reset_session), self._discard_state_on_failure():
            yield

    def _reset_session(self) -> None:
        if self.session.is_dedicated and self.session.usable:
            self.session.command(self.session.reset_sql)

    @contextmanager
    def _discard_state_on_failure(self) -> Iterator[None]:
        """What fails inside leaves nothing in a session that is initmig's alone.

        A ROLLBACK keeps prepared statements and advisory locks, which the next attempt would meet.
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
        """An error of this *kind* inside is a warning: the migration's outcome stands.

        The next transaction is begun in a new session.
        """
        try:
            yield
        except kind as error:
            self._reset_failure = str(error)
            self._roll_back_session()
            self.emit(SessionNotEmptied(self._reset_failure))

    def commit(self) -> None:
        """COMMIT, in one message with all that waits for it; the server must confirm it.

        What a migration has left in the session is gone then.
        """
        end = commit_then(self.session.cleanup_sql) if self._discards_state else "COMMIT"
        try:
            self._batch.add(f"{self._guard if self._guard_last else ''}{end}")
            with self._warn_if_not_reset(AfterCommit):
                self._batch.send(commits=True)
        except (StatementFailed, KeyboardInterrupt):  # the file, too, runs only now
            self.rollback()
            raise
        finally:
            self._in_transaction = False

    def rollback(self) -> None:
        """ROLLBACK where there is still something to roll back."""
        self._batch.discard()
        self._in_transaction = False
        self._roll_back_session()

    def _roll_back_session(self) -> None:
        """Roll back what is open; without a connection the server does it by itself."""
        if not self.session.in_transaction:
            return
        try:
            self.session.run_own("ROLLBACK")
        except InitmigError:
            if not self.session.connection.closed:
                raise

    def format_sql(self, s: str, **kwargs: str) -> str:
        """As yoyo does it, which makes a class each time, but once for each *s* by itself."""
        if kwargs:
            return str(super().format_sql(s, **kwargs))
        if s not in self._formatted:
            self._formatted[s] = str(super().format_sql(s))
        return self._formatted[s]

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        """As yoyo does it; in a transaction, what has no rows waits."""
        sql = self._with_values(sql, params or {})
        if self._in_transaction and not sql.startswith("SELECT"):
            self._batch.add(sql)
            return None
        return _Rows(self._batch.query(sql))

    def _with_values(self, sql: str, params: Mapping[str, Any]) -> str:
        """*sql* of yoyo's with the tables of the history and *params* in it."""
        values = {name: table(self.home) for name, table in _TABLES.items() if f":{name}" in sql}
        for name, value in params.items():
            values[name] = "NULL" if value is None else quote_literal(str(value))
        return _template(sql, tuple(values)) % values if values else sql

    def run(self, script: Script) -> None:
        """*script*, which waits for the COMMIT where the transaction is its own."""
        self.on_statement(script.statement_place)
        if self._can_wait(script):
            self._batch.add(script)
            return
        self._batch.send()
        self._batch.add(script)
        self._batch.send()

    def _can_wait(self, script: Script) -> bool:
        # with what the server cannot read, a transaction would be lost that is open already
        opens = self._in_transaction and not (self._is_shared or self.session.in_transaction)
        # nor goes COPY data with its COMMIT: first it has to be seen that the server took all of it
        return opens and not script.data and script.size < _SENT_ALONE_BYTES

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002
        """Run the steps and record them, in one transaction where *migration* has one.

        What is not to be marked is a hook, which is not owed any more.
        """
        with self._run_and_record(migration, "apply") as seconds:
            self._record_applied(migration, seconds, mark=mark)

    def _record_applied(self, migration: Any, seconds: float | None, *, mark: bool) -> None:
        self.log_migration(migration, "apply")
        if mark:
            self.mark_one(migration, log=False)
            if not migration.use_transactions or migration.id in self._half_applied:
                self.add(store.delete_record(self.home, migration.id))  # what the journal kept
            self.add(self._own_record(migration, seconds))
            if self.due_hooks:
                self.add(store.mark_due(self.home, self.due_hooks))
        else:
            self.add(store.delete_record(self.home, migration.id))
            self.add(store.delete_history_rows(self.home, migration.id))

    def rollback_one(self, migration: Any, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Run the rollback steps and forget the migration, in one transaction where it has one."""
        with self._run_and_record(migration, "rollback"):
            self.log_migration(migration, "rollback")
            for id in (migration.id, UNDOING + migration.id):
                self.add(store.delete_history_rows(self.home, id))
            self.add(store.delete_record(self.home, migration.id))

    def mark_migrations(self, migrations: Iterable[Any]) -> None:
        """Record *migrations*, in this order, as applied without running them: all, or none."""
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
        """One more than any before; what was rolled back leaves a gap."""
        if self._position is not None:
            self._position += 1
        return self._position

    @contextmanager
    def _run_and_record(self, migration: Any, direction: Direction) -> Iterator[float | None]:
        """Run *migration*; what is recorded inside is committed with it, or with its last part.

        Gives the seconds that it took; None where its transaction is its own, and as old as it.
        """
        started = time.monotonic()
        if not migration.use_transactions:
            from initmig.engine.non_transactional import NonTransactionalRun

            NonTransactionalRun(self, migration, direction).run()
        with self.transaction_must_stay_open(migration.id, Place(migration.path)):
            with self.transaction_for(migration):
                if migration.use_transactions:
                    self._run(migration, direction)
                its_own = migration.use_transactions and not self._is_shared
                self._prepare_record()
                yield None if its_own else time.monotonic() - started
                self.add(_FAILS_OUTSIDE_TRANSACTION)
            self._batch.send()

    def _run(self, migration: Any, direction: Direction) -> None:
        migration.run(self, direction)
        if self._is_shared and self.session.is_dedicated:
            self._discard_transaction_state(migration)
        elif migration.sets_session:
            self._reset_settings(migration, direction)

    def _reset_settings(self, migration: Any, direction: Direction) -> None:
        """What a migration has set reaches neither its record nor what comes after it."""
        if self.session.is_dedicated:
            reset = self.session.reset_sql
        else:  # the rest is the pooler's, and of the connection's other users
            from initmig.engine.session_state import reset_statements  # which no other run needs

            made = reset_statements(migration, direction)
            reset = f"{made}RESET SESSION AUTHORIZATION; RESET ROLE; RESET search_path"
        self.add(f"{reset};{self.session.preamble}{self._settings}".rstrip(";"))

    @contextmanager
    def rehearsal_transaction(self) -> Iterator[None]:
        """Inside, the transaction that is open in the session is this one's; then rolled back."""
        self._in_transaction = True
        try:
            self.add(self.prologue)
            self._original_settings = self._changed_settings()
            yield
        finally:
            self.rollback()

    @contextmanager
    def rehearse_one(self, migration: Any, *, mark: bool, commits: bool) -> Iterator[None]:
        """Inside, *migration* is run; then it is recorded, and checked if it *commits* by itself.

        A hook is not marked. What an error leaves is rolled back.
        """
        started = time.monotonic()
        with (
            self.transaction_must_stay_open(migration.id, Place(migration.path)),
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
        """Let the next migration in this transaction meet nothing that a COMMIT would have left.

        Advisory locks stay: the server does not tell a session's from a transaction's.
        """
        self._reset_settings(migration, "apply")
        if self.session.is_dedicated:
            self.add("CLOSE ALL;DEALLOCATE ALL")
        else:  # behind a pooler only what a ROLLBACK undoes
            self._close_cursors()
            self._undo_set_local()
        [(deferrable,)] = self.query(_TEMPORARY_CONSTRAINTS)
        if deferrable:  # the table would not be dropped while its triggers wait for the COMMIT
            self.add(f"SET CONSTRAINTS {deferrable} IMMEDIATE")
        self.add("UNLISTEN *;DISCARD TEMP")

    def _close_cursors(self) -> None:
        """Close the cursors that a COMMIT would close."""
        [(close,)] = self.query(_CLOSE_CURSORS)
        if close:
            self.add(close)

    def _undo_set_local(self) -> None:
        """Put the settings of a pooled session back to what they were before the migrations."""
        for name, (value, default) in self._changed_settings().items():
            before, _ = self._original_settings.get(name, (default, ""))
            if value != before:
                made = f"{quote_literal(name)}, {quote_literal(before)}"
                self.add(f"SELECT pg_catalog.set_config({made}, true)")

    def _changed_settings(self) -> dict[str, tuple[str, str]]:
        """The settings that were changed in a pooled session: their values, and their defaults."""
        made = () if self.session.is_dedicated else self.query_by_path(_CHANGED_SETTINGS)
        return {name: (value, default) for name, value, default in made}

    def _check_deferred_constraints(self) -> None:
        """Check the constraints that wait for a COMMIT; the next ones wait as they would then."""
        self.add("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        [(immediate,)] = self.query(_IMMEDIATE_CONSTRAINTS)
        if immediate:
            self.add(f"SET CONSTRAINTS {immediate} IMMEDIATE")

    def query_by_path(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of *sql*, behind all that waits; the user's search path is in force."""
        return self._batch.query(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """As `ask`, and every name in *sql* is one of pg_catalog."""
        rows = self._batch.query(f"{search_path.PIN_PATH}{sql}")
        self.add(search_path.RESTORE_PATH)
        return rows

    def add(self, sql: str) -> None:
        """Let *sql* go with the COMMIT of the transaction that is open."""
        self._batch.add(sql)

    @contextmanager
    def transaction_must_stay_open(
        self, id: str, place: Place, *, which: str = "that initmig opened for it"
    ) -> Iterator[None]:
        """Inside, the migration *id* must not end *which* transaction.

        :raises MigrationFailed: it did
        """
        started = time.monotonic()
        try:
            yield
        except StatementFailed as error:
            if not transaction_has_ended(error):
                raise
            self._batch.discard()
            self._roll_back_session()  # another one, which is not initmig's
            place = error.problems[0].place or place
            raise transaction_ended_error(
                id, self.session, place, which=which, seconds=time.monotonic() - started
            ) from error

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo's log row but its time, without asking the passwd file or DNS who this is."""
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
    """Make yoyo's lock table where it is missing, also while a stock yoyo does the same."""
    if columns_of(session, home_of(session), (LOCK,)):
        return
    backend = _plain_backend(session)
    try:
        session.query(backend.lock_table_definition)
    except DatabaseRefused as error:
        if error.problems[0].server.sqlstate not in _CREATED_CONCURRENTLY:
            raise


def try_create_tables(session: Session) -> None:
    """Make the tables that are missing, in the transaction that is open, to be rolled back.

    :raises InitmigError: it cannot be done
    """
    trusted_home(session)
    create_lock_table(session)
    backend = _plain_backend(session)
    backend.use_open_transaction()
    backend.create_tables()


def _plain_backend(session: Session) -> Backend:
    return Backend(session, by=Identity("", "", ""), emit=lambda _: None)
