"""Records migrations in yoyo's tables and in initmig's own, in the open transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.model import UNDOING
from initmig.history import store

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from initmig.core.model import Migration
    from initmig.engine.channel import Channel


class Recorder:
    """Adds the records of migrations to the next message. A transaction must be open.

    *position* is that of the last record; None if the table does not have the column.
    *half_applied* are ids that already have a record, which is the journal's.
    """

    def __init__(
        self, channel: Channel, *, position: int | None, half_applied: Collection[str]
    ) -> None:
        self._yoyo = channel.yoyo
        self._session = channel.session
        self._home = channel.home
        self._by = channel.by
        self._add = channel.batch.add
        self._position = position
        self._half_applied = half_applied

    def applied(
        self, migration: Migration, seconds: float | None, due_hooks: Sequence[str] = ()
    ) -> None:
        """Record that *migration* was applied in *seconds*, or in its own transaction if None.

        The hooks *due_hooks*, by id, become due.
        """
        self._begin()
        self._yoyo.log_migration(migration.handle, "apply")
        self._yoyo.mark_one(migration.handle, log=False)
        if not migration.transactional or migration.id in self._half_applied:
            self._add(store.delete_record(self._home, migration.id))  # the journal's row
        position = self._next_position()
        self._add(
            store.insert_record(
                self._home, migration, by=self._by, position=position, seconds=seconds
            )
        )
        if due_hooks:
            self._add(store.mark_due(self._home, due_hooks))

    def hook_ran(self, hook: Migration) -> None:
        """Log that *hook* ran, and remove it from the hooks to run."""
        self._begin()
        self._yoyo.log_migration(hook.handle, "apply")
        self._add(store.delete_record(self._home, hook.id))
        self._add(store.delete_history_rows(self._home, hook.id))

    def rolled_back(self, migration: Migration) -> None:
        """Log that *migration* was rolled back, and remove its record."""
        self._begin()
        self._yoyo.log_migration(migration.handle, "rollback")
        for id in (migration.id, UNDOING + migration.id):
            self._add(store.delete_history_rows(self._home, id))
        self._add(store.delete_record(self._home, migration.id))

    def marked(self, migration: Migration) -> None:
        """Record *migration* as applied, although nothing was run."""
        self._begin()
        self._yoyo.mark_one(migration.handle)
        position = self._next_position()
        self._add(store.mark(self._home, migration, by=self._by, position=position))

    def _begin(self) -> None:
        self._add(store.write_guard(self._session, self._home) + store.set_record_time())

    def _next_position(self) -> int | None:
        """The last position plus one. Rolled back migrations leave gaps."""
        if self._position is not None:
            self._position += 1
        return self._position
