"""yoyo's PostgreSQL backend on one connection: a migration and its record are one transaction."""

from __future__ import annotations

import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from yoyo import internalmigrations
from yoyo.backends.base import DatabaseBackend, SavepointTransactionManager, TransactionManager
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import default_migration_table
from yoyo.utils import change_param_style

from initmig import history
from initmig.engine.piecewise import Piecewise
from initmig.errors import MigrationFailed, Place
from initmig.identity import Identity
from initmig.model import UNDOING
from initmig.postgres import StatementFailed, refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.events import Emit
    from initmig.model import Direction
    from initmig.postgres.session import Session

_SERVER_CLOCK = "(clock_timestamp() AT TIME ZONE 'UTC')"
"""The order applied is kept by one clock, not by those of the hosts that happened to apply."""

_CREATED_ELSEWHERE = ("42P07", "23505")
"""duplicate_table, or unique_violation in pg_type: another session created it just now."""


class _ReleasedSavepoint(SavepointTransactionManager):  # type: ignore[misc]
    """yoyo's savepoint, given back: thousands of kept ones exhaust the server's memory."""

    def _do_commit(self) -> None:
        self.backend.savepoint_release(self.id)


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend on initmig's one connection; the caller holds the migration lock.

    *settings* is the SQL that opens every transaction after BEGIN, all of it SET LOCAL; *guard*
    follows it, and fails where the lock was lost.
    """

    mark_migration_sql = DatabaseBackend.mark_migration_sql.replace(":when", _SERVER_CLOCK)
    log_migration_sql = DatabaseBackend.log_migration_sql.replace(":created_at_utc", _SERVER_CLOCK)

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
        self.by = by
        self.emit = emit
        self.owing: Sequence[str] = ()
        """The ids of the hooks that have to run once something was applied."""
        self._settings = settings
        self._guard = guard
        self._guards_late = False
        self._records: list[str] | None = None
        super().__init__(None, default_migration_table)

    def connect(self, dburi: None) -> Any:  # noqa: ARG002 - yoyo's signature
        """The session's connection, whatever yoyo would connect to."""
        return self.session.connection

    def copy(self) -> Backend:
        """This backend: a second connection could not commit together with the first."""
        return self

    def list_tables(self, **_: Any) -> list[str]:
        """Those of yoyo's tables that exist; yoyo asks for no others."""
        names = (self.migration_table, self.version_table, self.lock_table)
        there = history.have_tables(self.session, names)
        return [name for name, exists in zip(names, there, strict=True) if exists]

    def prepare(self) -> None:
        """Make the history tables that are missing; the caller holds yoyo's lock too."""
        with self.session.translating_errors():
            if internalmigrations.needs_upgrading(self):
                internalmigrations.upgrade(self)
        history.create_table(self.session)

    def ensure_internal_schema_updated(self) -> None:
        """Nothing: `prepare` has done it, once."""

    def transaction(self, rollback_on_exit: bool = False) -> TransactionManager:  # noqa: FBT001, FBT002
        """A transaction, or inside of one a savepoint."""
        kind = _ReleasedSavepoint if self._in_transaction else TransactionManager
        return kind(self, rollback_on_exit=rollback_on_exit)

    def begin(self) -> None:
        """BEGIN with the settings, in one message."""
        self.session.run(f"BEGIN;{self.opening}")
        self._in_transaction = True

    @property
    def opening(self) -> str:
        """What a transaction starts with; empty where the session's settings hold."""
        guard = "" if self._guards_late else self._guard
        return f"{self.session.preamble}{self._settings}{guard}"

    @contextmanager
    def transaction_for(self, *migrations: Any) -> Iterator[None]:
        """A transaction, or inside of one a savepoint, for all of *migrations*."""
        if not self._in_transaction:
            # the guard is a query, before which the level has to be set
            self._guards_late = any(each.sets_isolation for each in migrations)
        try:
            with self.transaction():
                yield
        finally:
            self._guards_late = self._guards_late and self._in_transaction

    @contextmanager
    def settings_of_session(self) -> Iterator[None]:
        """Inside, the settings last for the session, so that what runs there can change them."""
        if not self.session.settled:
            yield
            return
        settings, self._settings = self._settings, ""
        try:
            if settings:
                self.session.run(settings.replace("SET LOCAL", "SET"))
            yield
        finally:
            self._settings = settings
            if self.session.usable:
                self.session.query(self.session.resetting)

    def commit(self) -> None:
        """COMMIT together with the records that wait for it, in one message."""
        try:
            guard = self._guard if self._guards_late else ""
            self.session.run(";".join([*self._take_records(), f"{guard}COMMIT"]))
        except StatementFailed:
            self.rollback()
            raise
        finally:
            self._in_transaction = False

    def rollback(self) -> None:
        """ROLLBACK where there is still something to roll back."""
        self._take_records()
        self._in_transaction = False
        if self.session.in_transaction:
            self.session.run("ROLLBACK")

    def savepoint_release(self, id: str) -> None:
        """RELEASE, after the records that belong into the savepoint, in one message."""
        release = f"RELEASE SAVEPOINT {self.quote_identifier(id)}"
        self.session.run(";".join([*self._take_records(), release]))

    def execute(self, sql: str, params: Any = None) -> Any:
        """As yoyo does it; a record only waits for the COMMIT."""
        if self._records is None:
            return super().execute(sql, params)
        rendered = self.session.render(*change_param_style("pyformat", sql, params))
        self._records.append(rendered)
        return None

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002
        """Run the steps and record them, in one transaction where *migration* has one.

        What is not to be marked is a hook, which is not owed any more.
        """
        started = time.monotonic()
        with self._unit(migration, "apply"):
            self.log_migration(migration, "apply")
            if mark:
                self.mark_one(migration, log=False)
                seconds = time.monotonic() - started
                self.record(history.record(migration.description, seconds=seconds, by=self.by))
                if self.owing:
                    self.record(history.owe(self.owing))
            else:
                self.record(history.forget(migration.id))
                self.record(history.settle(migration.id))

    def rollback_one(self, migration: Any, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Run the rollback steps and forget the migration, in one transaction where it has one."""
        with self._unit(migration, "rollback"):
            self.log_migration(migration, "rollback")
            self.unmark_one(migration, log=False)
            self.record(history.forget(migration.id))
            self.record(history.settle(UNDOING + migration.id))

    @contextmanager
    def _unit(self, migration: Any, direction: Direction) -> Iterator[None]:
        """Run *migration*; what is recorded inside is committed with it, or with its last part."""
        if not migration.use_transactions:
            Piecewise(self, migration, direction).run()
        with self.transaction_for(migration):
            if migration.use_transactions:
                self._run_steps(migration, direction)
            self._records = []
            if migration.use_transactions and migration.sets_session:
                self._forget_settings()
            yield

    def _run_steps(self, migration: Any, direction: Direction) -> None:
        steps = migration.steps if direction == "apply" else reversed(migration.steps)
        with migration.errors_placed(self.session):
            for step in steps:
                getattr(step, direction)(self)
        self._refuse_lost_transaction(migration)

    def _refuse_lost_transaction(self, migration: Any) -> None:
        if not self.session.in_transaction:
            raise MigrationFailed(
                f"{migration.id} ended the transaction that initmig opened for it",
                hint="what it did before that is kept, and it is not recorded as applied: undo"
                " that, and let it neither commit nor roll back",
                place=Place(migration.path),
            )

    def _forget_settings(self) -> None:
        """What a migration has set reaches neither its record nor what comes after it."""
        if self.session.settled:
            reset = self.session.resetting
        else:  # the rest is the pooler's, and of the connection's other users
            reset = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET search_path"
        self.record(f"{reset};{self.session.preamble}{self._settings}".rstrip(";"))

    def record(self, sql: str) -> None:
        """Let *sql* go with the COMMIT of the transaction that is open."""
        self._records = [*(self._records or ()), sql]

    def _take_records(self) -> list[str]:
        records, self._records = self._records or [], None
        return records

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo's log row, without asking the passwd file or DNS who this is."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self.by.user,
            "hostname": self.by.host,
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def create_lock_table(session: Session) -> None:
    """Make yoyo's lock table where it is missing, also while a stock yoyo does the same."""
    if history.have_tables(session, (DatabaseBackend.lock_table,))[0]:
        return
    backend = Backend(session, by=Identity("", "", ""), emit=lambda _: None)
    try:
        session.run(session.preamble + backend.format_sql(backend.create_lock_table_sql))
    except StatementFailed as error:
        if error.server.sqlstate not in _CREATED_ELSEWHERE:
            raise refused(error) from error
