"""Runs migrations in one transaction that is always rolled back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from initmig.core.errors import Place
from initmig.engine.transaction_state import (
    changed_settings,
    discard_pooled_state,
    discard_state,
    reset_settings,
)
from initmig.engine.transactions import savepoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from initmig.core.model import Migration
    from initmig.engine.batch import Batch
    from initmig.engine.channel import Channel
    from initmig.engine.transaction_state import ChangedSetting

_IMMEDIATE_CONSTRAINTS = """
SELECT string_agg(name, ', ') FROM (
    SELECT format('%I.%I', n.nspname, c.conname)
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE c.condeferrable AND has_schema_privilege(n.oid, 'USAGE')
    -- a name means all constraints with that name, and a late check rejects no valid row
    GROUP BY n.nspname, c.conname HAVING NOT bool_or(c.condeferred)
) AS immediate (name)"""


@contextmanager
def rehearsal(channel: Channel) -> Iterator[RehearsalTransaction]:
    """Use the session's open transaction, and roll it back at the end."""
    try:
        channel.batch.add(channel.transactions.prologue)
        # in a dedicated session, a reset restores them
        original = {} if channel.session.is_dedicated else changed_settings(channel.batch)
        yield RehearsalTransaction(channel, original)
    finally:
        channel.transactions.roll_back()


class RehearsalTransaction:
    """The open transaction. *original* are the settings that a pooled session had changed."""

    def __init__(self, channel: Channel, original: Mapping[str, ChangedSetting]) -> None:
        self._channel = channel
        self._original = original

    @contextmanager
    def rehearsing(
        self,
        migration: Migration,
        record: Callable[[float], None],
        *,
        commits: bool,
    ) -> Iterator[None]:
        """The body runs *migration*, which *record* then records with its duration in seconds.

        If `migrate` *commits* after it, also check deferred constraints. An error rolls back to a
        savepoint.
        """
        channel = self._channel
        started = time.monotonic()
        with (
            channel.transactions.must_stay_open(migration.id, partial(Place, migration.file.path)),
            savepoint(channel.batch),
        ):
            yield
            if migration.handle.sets_session:
                reset_settings(channel, migration, "apply")
            record(time.monotonic() - started)
            if commits:
                _check_deferred_constraints(channel.batch)
            self._discard_state(migration, commits=commits)

    def _discard_state(self, migration: Migration, *, commits: bool) -> None:
        if self._channel.session.is_dedicated:
            discard_state(self._channel, migration)
        elif commits:
            discard_pooled_state(self._channel, migration, self._original)


def _check_deferred_constraints(batch: Batch) -> None:
    """Check the deferred constraints, as COMMIT would, and restore their default timing."""
    batch.add("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    [(immediate,)] = batch.query(_IMMEDIATE_CONSTRAINTS)
    if immediate:
        batch.add(f"SET CONSTRAINTS {immediate} IMMEDIATE")
