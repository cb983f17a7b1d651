"""Finds the state of each migration, for `status`."""

from __future__ import annotations

from initmig.core.model import MigrationStatus
from initmig.core.records import TYPE_CHECKING
from initmig.migrations.planning import recorded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from initmig.core.model import AppliedMigration, Listing, MigrationFile, Unfinished


def statuses(
    listing: Listing,
    applied: Iterable[AppliedMigration],
    changed_ids: Collection[str],
    *,
    due_hooks: Iterable[MigrationFile] = (),
    unfinished: Iterable[Unfinished] = (),
) -> tuple[MigrationStatus, ...]:
    """The state of this image's migrations in its order, the pending hooks, and unknown migrations.

    An unknown migration that is half-applied is shown as half-applied.
    """
    records = {migration.id: migration for migration in recorded(applied, listing)}
    half_applied = {each.id: each for each in unfinished}
    packages = [file for file in listing.packages if file.id in records]
    rows = [
        MigrationStatus(
            file.id,
            _state(file.id, records, changed_ids, half_applied),
            file.path,
            records.pop(file.id, None),
            half_applied.pop(file.id, None),
        )
        for file in (*listing.migrations, *packages, *due_hooks)
    ]
    for id in (*records, *(id for id in half_applied if id not in records)):
        is_half_applied = id in half_applied
        state = _state(id, records, changed_ids, half_applied) if is_half_applied else "unknown"
        rows.append(MigrationStatus(id, state, "", records.get(id), half_applied.get(id)))
    return tuple(rows)


def _state(
    id: str,
    records: Mapping[str, AppliedMigration],
    changed_ids: Collection[str],
    half_applied: Mapping[str, Unfinished],
) -> str:
    if id in half_applied:
        return "applying" if half_applied[id].direction == "apply" else "rolling back"
    if id not in records:
        return "pending"
    return "changed" if id in changed_ids else "applied"
