"""Finds pending and applied migrations, and their order: pure functions over ids and files."""

from __future__ import annotations

from initmig.core.errors import PlanError
from initmig.core.model import HOOK, PACKAGE, UNDOING, Migration, MigrationFile
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import TypeVar

    from initmig.core.model import AppliedMigration, Listing

    _T = TypeVar("_T", MigrationFile, Migration)


class LeftToDo(Record):
    """The work left to do in a database, in order."""

    pending: tuple[MigrationFile, ...]
    due_hooks: tuple[MigrationFile, ...]
    """The hooks that have not run since something was applied."""
    half_undone: tuple[str, ...]
    """The ids of migrations whose rollback is running or was interrupted."""
    unknown: tuple[str, ...]
    """The applied ids without a file in this image, in the order applied."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all work that is left; unknown migrations do not belong to this image."""
        return (*(file.id for file in (*self.pending, *self.due_hooks)), *self.half_undone)


def left_to_do(listing: Listing, applied: Collection[str]) -> LeftToDo:
    """Find the work left to do in a database whose history has the ids *applied*."""
    known, done = {file.id for file in listing.migrations}, {*applied}
    # the two sets are usually equal, and may have thousands of ids
    others = [] if done <= known else unknown_ids(applied, listing)
    return LeftToDo(
        () if known <= done else pending_files(listing, applied),
        tuple(hook for hook in listing.hooks if hook.id in applied),
        tuple(id.removeprefix(UNDOING) for id in others if id.startswith(UNDOING)),
        unknown_migrations(listing, others),
    )


def unknown_migrations(listing: Listing, applied: Iterable[str]) -> tuple[str, ...]:
    """The *applied* ids of migrations without a file in this image."""
    others = unknown_ids(applied, listing)
    return tuple(id for id in others if not id.startswith((HOOK, UNDOING)))


def pending_files(listing: Listing, applied: Iterable[str]) -> tuple[MigrationFile, ...]:
    """The migrations that are not applied, in the listing's order."""
    done = frozenset(applied)
    return tuple(file for file in listing.migrations if file.id not in done)


def unknown_ids(ids: Iterable[str], listing: Listing) -> list[str]:
    """The *ids* without a file in this image."""
    known = {PACKAGE, *(file.id for file in listing.migrations)}
    return [id for id in ids if id not in known]


def recorded(applied: Iterable[AppliedMigration], listing: Listing) -> tuple[AppliedMigration, ...]:
    """The *applied* migrations, without an ``__init__.py`` that this image does not have."""
    has_package = any(file.id == PACKAGE for file in listing.packages)
    return tuple(each for each in applied if has_package or each.id != PACKAGE)


def resolve_id(text: str, ids: Sequence[str]) -> str:
    """Return *text* if it is an id, otherwise the only id with this prefix.

    :raises PlanError: no id matches, or several do
    """
    if text in ids:
        return text
    matches = [id for id in ids if id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise PlanError(
            "ambiguous-id",
            f"{text!r} matches several migrations: {', '.join(matches)}",
            hint="write more of the id",
        )
    raise PlanError(
        "unknown-id", f"no migration has the id {text!r}", hint=_nearest_hint(text, ids)
    )


def _nearest_hint(text: str, ids: Sequence[str]) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(text, ids, n=1)
    return f"did you mean {nearest[0]}?" if nearest else "see the ids in `initmig status`"


def asked_for(to: str, pending: Sequence[_T], listing: Listing) -> Sequence[_T]:
    """The *pending* migrations that ``--to`` selects; all of them if *to* is empty.

    :raises PlanError: *to* does not match exactly one id
    """
    if not to:
        return pending
    return up_to(resolve_id(to, [file.id for file in listing.migrations]), pending, listing)


def up_to(target: str, ordered: Sequence[_T], listing: Listing) -> tuple[_T, ...]:
    """The *ordered* pending migrations up to and including *target*, a whole id.

    If *target* is already applied, the result is the migrations that are listed before it.
    """
    ids = [migration.id for migration in ordered]
    if target in ids:
        return tuple(ordered[: ids.index(target) + 1])
    listed = [file.id for file in listing.migrations]
    before = set(listed[: listed.index(target)])
    return tuple(migration for migration in ordered if migration.id in before)


def applied_up_to(target: str, applied: Collection[str], listing: Listing) -> tuple[str, ...]:
    """The *applied* ids up to and including *target*, a whole id, in the listing's order."""
    listed = [file.id for file in listing.migrations]
    return tuple(id for id in listed[: listed.index(target) + 1] if id in applied)


def without_blocked(
    chosen: Sequence[Migration], pending: Iterable[Migration]
) -> tuple[Migration, ...]:
    """The *chosen* migrations that do not depend on a migration that would stay *pending*."""
    blocked = {migration.id for migration in pending} - {migration.id for migration in chosen}
    kept: list[Migration] = []
    for migration in chosen:
        if migration.depends & blocked:
            blocked.add(migration.id)
        else:
            kept.append(migration)
    return tuple(kept)


def find_out_of_order(
    pending: Sequence[MigrationFile], applied: Iterable[str], listing: Listing
) -> dict[str, str]:
    """The pending ids that sort before an applied id of their folder, each with the last such id.

    Only the names decide; see `placed_by_name`.
    """
    done = frozenset(applied)
    last: dict[str, str] = {}
    for file in listing.migrations:
        if file.id in done:
            last[file.folder] = max(file.id, last.get(file.folder, ""))
    return {file.id: last[file.folder] for file in pending if file.id < last.get(file.folder, "")}


def placed_by_name(ordered: Iterable[Migration]) -> tuple[MigrationFile, ...]:
    """The files of the *ordered* pending migrations whose names decide when they run.

    Leaves out migrations that depend on a later file, because their place is intended, and Python
    files without steps, because they may run at any time.
    """
    placed: list[MigrationFile] = []
    moved: set[str] = set()
    for migration in ordered:
        if any(id > migration.id or id in moved for id in migration.depends):
            moved.add(migration.id)
        elif migration.steps:
            placed.append(migration.file)
    return tuple(placed)


def newest_first(
    applied: Sequence[AppliedMigration], depends: Mapping[str, Collection[str]]
) -> tuple[AppliedMigration, ...]:
    """The *applied* migrations, newest first, but each after the migrations that depend on it."""
    by_id = {migration.id: migration for migration in applied}
    dependents: dict[str, list[str]] = {id: [] for id in by_id}
    for migration in applied:
        for id in depends.get(migration.id, ()):
            if id in dependents:
                dependents[id].append(migration.id)
    ordered: dict[str, AppliedMigration] = {}
    seen: set[str] = set()
    for id in reversed(by_id):
        waiting = [id]
        while waiting:
            current = waiting[-1]
            if current in seen:
                ordered.setdefault(current, by_id[waiting.pop()])
            else:
                seen.add(current)
                waiting.extend(each for each in dependents[current] if each not in seen)
    return tuple(ordered.values())


def to_roll_back(
    newest_first: Sequence[AppliedMigration],
    *,
    to: str = "",
    steps: int = 0,
    everything: bool = False,
) -> tuple[AppliedMigration, ...]:
    """Select the migrations to roll back from all applied ones, *newest_first*; *to* is kept.

    :raises PlanError: *to*, a whole id, is not applied
    """
    if everything:
        return tuple(newest_first)
    if not to:
        return tuple(newest_first[:steps])
    ids = [migration.id for migration in newest_first]
    if to not in ids:
        raise PlanError(
            "not-applied",
            f"{to} is not applied",
            hint="see the applied migrations in `initmig status`",
        )
    return tuple(newest_first[: ids.index(to)])


def still_applied(
    chosen: Iterable[AppliedMigration], applied: Iterable[AppliedMigration]
) -> tuple[AppliedMigration, ...]:
    """The *chosen* migrations that are still *applied*, and have not been applied again since."""
    now = {(migration.id, migration.applied_at) for migration in applied}
    return tuple(each for each in chosen if (each.id, each.applied_at) in now)


def kept_applied(
    chosen: Iterable[AppliedMigration], applied: Iterable[AppliedMigration]
) -> tuple[str, ...]:
    """The ids that stay applied if the *chosen* migrations are rolled back, in the order applied."""
    undone = {migration.id for migration in chosen}
    return tuple(migration.id for migration in applied if migration.id not in undone)
