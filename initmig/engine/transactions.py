"""Opens and ends initmig's transactions, with the settings and the guard of the lock in each."""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.engine.ended_transaction import (
    SAVEPOINT,
    transaction_ended_error,
    transaction_has_ended,
)
from initmig.engine.session_reset import roll_back
from initmig.postgres import AfterCommit, StatementFailed, commit_then, search_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.core.errors import Place
    from initmig.core.model import Migration
    from initmig.engine.batch import Batch
    from initmig.engine.session_reset import SessionReset

_numbers = count(1)


@contextmanager
def savepoint(batch: Batch) -> Iterator[None]:
    """A savepoint in the open transaction; an exception in the body rolls back to it.

    It is released, because thousands of savepoints exhaust the server's memory. RELEASE also fails
    if a step has ended the transaction and started another one.
    """
    name = f'"{SAVEPOINT}_{next(_numbers)}"'
    batch.add(f"SAVEPOINT {name}")
    try:
        yield
    except BaseException:
        batch.add(f"ROLLBACK TO SAVEPOINT {name}")
        raise
    batch.add(f"RELEASE SAVEPOINT {name}")


class _Bounds(Record):
    """The SQL that begins a transaction, and the SQL that commits it."""

    begin: str
    commit: str


class Transactions:
    """The transactions of one session. BEGIN and COMMIT go into the messages of *batch*.

    *settings* is SQL that every transaction runs after BEGIN, all of it SET LOCAL. *guard* runs
    next, and fails if the lock was lost.
    """

    def __init__(self, batch: Batch, reset: SessionReset, *, settings: str, guard: str) -> None:
        self._batch = batch
        self._session = batch.session
        self._reset = reset
        self._settings = settings
        self._guard = guard

    @property
    def settings(self) -> str:
        """The SQL of the settings; empty if the session's settings are sufficient."""
        return f"{self._session.preamble}{self._settings}"

    @property
    def prologue(self) -> str:
        """The settings and the guard, in SQL to run after BEGIN; may be empty."""
        return f"{self.settings}{self._guard}"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that keeps the session's state."""
        with self._within(_Bounds(f"BEGIN;{self.prologue}", "COMMIT")):
            yield

    @contextmanager
    def for_own_sql(self) -> Iterator[None]:
        """A transaction, or a savepoint if one is open, that looks up names only in pg_catalog."""
        is_open = self._session.in_transaction
        with savepoint(self._batch) if is_open else self.transaction():
            self._batch.add(search_path.PIN_PATH.rstrip(";"))
            yield
            self._batch.add(search_path.RESTORE_PATH)

    @contextmanager
    def for_migrations(self, migrations: Sequence[Migration]) -> Iterator[None]:
        """A transaction for *migrations*, which also discards the session state that they leave."""
        with self._reset.after_failure(), self._within(self._bounds_for(migrations)):
            yield

    def _bounds_for(self, migrations: Sequence[Migration]) -> _Bounds:
        session = self._session
        commit = commit_then(session.cleanup_sql) if session.is_dedicated else "COMMIT"
        # the guard is a query, and SET TRANSACTION ISOLATION LEVEL must precede all queries
        if any(each.handle.sets_isolation for each in migrations):
            return _Bounds(f"BEGIN;{self.settings}", f"{self._guard}{commit}")
        return _Bounds(f"BEGIN;{self.prologue}", commit)

    @contextmanager
    def _within(self, bounds: _Bounds) -> Iterator[None]:
        """A transaction around the body, which is rolled back after an exception.

        :raises DatabaseUnavailable: an earlier migration's session state could not be discarded
        """
        self._reset.require_clean()
        self._batch.add(bounds.begin.rstrip(";"))
        try:
            yield
        except BaseException:
            self.roll_back()
            raise
        self._commit(bounds.commit)

    def _commit(self, sql: str) -> None:
        """Send *sql*, which ends with COMMIT or its cleanup, in one message with all collected SQL.

        The server must confirm the COMMIT.
        """
        self._batch.add(sql)
        try:
            with self._reset.failure_as_warning(AfterCommit):
                self._batch.send(commits=True)
        except (StatementFailed, KeyboardInterrupt):  # the message may contain the whole migration
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Discard collected SQL, and roll back if a transaction is open."""
        self._batch.discard()
        roll_back(self._session)

    @contextmanager
    def must_stay_open(
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
            self.roll_back()  # the migration may have started another transaction
            begin = begins_at()
            which = f"that begins at {begin}" if is_block else "that initmig opened for it"
            raise transaction_ended_error(
                id,
                self._session,
                error.place or begin,
                which=which,
                seconds=time.monotonic() - started,
            ) from error
