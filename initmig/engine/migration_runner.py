"""Runs a migration and its record in one transaction, or its parts and then its record."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from initmig.core.errors import Place
from initmig.engine.ended_transaction import SAVEPOINT
from initmig.engine.transaction_state import discard_state, reset_settings
from initmig.engine.transactions import savepoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.core.model import Direction, Migration
    from initmig.engine.channel import Channel
    from initmig.engine.recorder import Recorder

_FAILS_OUTSIDE_TRANSACTION = f"SAVEPOINT {SAVEPOINT}"
"""Fails outside a transaction. It detects a file that ended the transaction it was run in."""


class MigrationRunner:
    """Runs migrations, each in its own transaction if it is transactional."""

    def __init__(self, channel: Channel, recorder: Recorder) -> None:
        self.session = channel.session
        self._channel = channel
        self._recorder = recorder

    def apply(self, migration: Migration, due_hooks: Sequence[str] = ()) -> None:
        """Apply *migration*, and record it. The hooks *due_hooks*, by id, become due."""
        self._run_and_record(
            migration,
            "apply",
            lambda seconds: self._recorder.applied(migration, seconds, due_hooks),
        )

    def run_hook(self, hook: Migration) -> None:
        """Run *hook*, and remove it from the hooks to run."""
        self._run_and_record(hook, "apply", lambda _: self._recorder.hook_ran(hook))

    def roll_back(self, migration: Migration) -> None:
        """Roll back *migration*, and remove its record."""
        self._run_and_record(migration, "rollback", lambda _: self._recorder.rolled_back(migration))

    def _run_and_record(
        self,
        migration: Migration,
        direction: Direction,
        record: Callable[[float | None], None],
    ) -> None:
        """Run *migration* and call *record*, in one transaction or after its last part.

        *record* gets its duration in seconds; None if its own transaction is exactly as old.
        """
        channel, transactions = self._channel, self._channel.transactions
        started = time.monotonic()
        if not migration.transactional:
            from initmig.engine.non_transactional import NonTransactionalRun

            NonTransactionalRun(channel, migration, direction).run()
        with (
            transactions.must_stay_open(migration.id, partial(Place, migration.file.path)),
            transactions.for_migrations([migration]),
        ):
            if migration.transactional:
                self._run(migration, direction)
                record(None)
            else:
                record(time.monotonic() - started)
            channel.batch.add(_FAILS_OUTSIDE_TRANSACTION)

    def _run(self, migration: Migration, direction: Direction) -> None:
        migration.handle.run(self._channel, direction)
        if migration.handle.sets_session:
            reset_settings(self._channel, migration, direction)

    @contextmanager
    def one_transaction(self, migrations: Sequence[Migration]) -> Iterator[SharedTransaction]:
        """A transaction for all of *migrations*; commit it at the end."""
        with self._channel.transactions.for_migrations(migrations):
            yield SharedTransaction(self._channel, self._recorder)

    def record(self, migrations: Sequence[Migration]) -> None:
        """Record *migrations* as applied, in this order and in one transaction; run nothing."""
        with self._channel.transactions.for_own_sql():
            for migration in migrations:
                self._recorder.marked(migration)


class SharedTransaction:
    """Applies several migrations in the transaction that is open."""

    def __init__(self, channel: Channel, recorder: Recorder) -> None:
        self._channel = channel
        self._recorder = recorder

    def apply(self, migration: Migration, due_hooks: Sequence[str] = ()) -> None:
        """Apply *migration*, and record it. The hooks *due_hooks*, by id, become due."""
        channel, batch = self._channel, self._channel.batch
        started = time.monotonic()
        with channel.transactions.must_stay_open(migration.id, partial(Place, migration.file.path)):
            with savepoint(batch):
                if not channel.session.in_transaction:
                    batch.send()  # BEGIN, so that a failure of the file is reported as its own
                self._run(migration)
                self._recorder.applied(migration, time.monotonic() - started, due_hooks)
                batch.add(_FAILS_OUTSIDE_TRANSACTION)
            batch.send()

    def _run(self, migration: Migration) -> None:
        channel = self._channel
        migration.handle.run(channel, "apply")
        if channel.session.is_dedicated:
            discard_state(channel, migration)
        elif migration.handle.sets_session:
            reset_settings(channel, migration, "apply")
