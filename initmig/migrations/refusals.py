"""States why a run must not start, as problems with their next steps; pure functions."""

from __future__ import annotations

from initmig.core.durations import counted
from initmig.core.errors import Place, Problem
from initmig.core.events import Changed, OutOfOrder, RollbackSkipped
from initmig.core.model import HOOK
from initmig.core.records import TYPE_CHECKING, Record
from initmig.migrations.planning import find_out_of_order, unknown_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from initmig.core.model import (
        AppliedMigration,
        Direction,
        Listing,
        Migration,
        MigrationFile,
        Unfinished,
    )

_SKIPPING = "--irreversible=skip to roll back the rest and remove the record"

_ALREADY_EXISTS = ("42P07", "42P06", "42710", "42723", "42701")
"""A relation, schema, other object, function or column with this name exists."""


class Finding(Record):
    """A fact that a policy decides on: the event that warns of it, or the problem that refuses."""

    event: OutOfOrder | Changed
    problem: Problem


def out_of_order(
    pending: Sequence[MigrationFile], applied: Iterable[str], listing: Listing
) -> tuple[Finding, ...]:
    """The pending migrations that sort before an applied one of the same folder."""
    return tuple(
        Finding(OutOfOrder(id, last), _out_of_order(id, last))
        for id, last in find_out_of_order(pending, applied, listing).items()
    )


def _out_of_order(id: str, applied_id: str) -> Problem:
    return Problem(
        "out-of-order",
        f"{id} would be applied after {applied_id}, which is already applied",
        hint="rename it to sort last, or pass --out-of-order=allow",
    )


def changed(listing: Listing, ids: Collection[str]) -> tuple[Finding, ...]:
    """The migrations with the *ids*, whose files have changed since they were applied."""
    return tuple(
        Finding(Changed(file.id, file.path), _changed(file.id, file.path))
        for file in listing.migrations
        if file.id in ids
    )


def _changed(id: str, path: str) -> Problem:
    return Problem(
        "changed",
        f"{id} is applied, but {path} has changed since",
        hint="restore the file and put the change in a new migration, or pass --changed=allow",
    )


def shared(
    listing: Listing, applied: Iterable[AppliedMigration], edited: Collection[str]
) -> tuple[Problem, ...]:
    """The problem that the history seems to belong to another application that uses the same ids.

    *edited* are the ids of the changed files that differ in more than their line ends. All files
    that can be compared must be among them. If there is only one file to compare, it may just have
    been edited, unless the history also has ids that this image lacks.
    """
    known = {file.id for file in listing.migrations}
    records = tuple(applied)
    compared = [record.id for record in records if record.checksum and record.id in known]
    others = unknown_ids((record.id for record in records), listing)
    different = [file.id for file in listing.migrations if file.id in edited]
    if not different or len(different) < len(compared) or not (others or len(compared) > 1):
        return ()
    problem = Problem(
        "id-used-twice",
        f"this image's files differ from those that were applied ({', '.join(different)}):"
        " another application seems to keep its history here",
        hint="give each application its own history with --history-table=NAME, or its own schema."
        " If you edited all of these files, pass --changed=allow",
    )
    return (problem,)


def too_old(unknown: Iterable[AppliedMigration]) -> tuple[Problem, ...]:
    """The problem that this image is older than a breaking migration among the *unknown* ones."""
    ids = ", ".join(migration.id for migration in unknown if migration.breaking)
    if not ids:
        return ()
    problem = Problem(
        "image-too-old",
        "this image is too old for the database: it does not contain these breaking migrations,"
        f" which are applied: {ids}",
        hint="deploy an image that contains them, or roll them back with the newer image first",
    )
    return (problem,)


def not_transactional(migrations: Iterable[Migration]) -> tuple[Problem, ...]:
    """The problem that some *migrations* for one transaction are not transactional."""
    others = ", ".join(migration.id for migration in migrations if not migration.transactional)
    if not others:
        return ()
    problem = Problem(
        "not-transactional",
        f"--transaction=all, but these migrations are not transactional: {others}",
        hint="first apply up to the last of them, with --transaction=each and --to",
    )
    return (problem,)


def half_applied(
    unfinished: Iterable[Unfinished], migrations: Mapping[str, Migration], direction: Direction
) -> tuple[Problem, ...]:
    """A problem for each half-applied migration that this run does not resume.

    *migrations* are the migrations that the run applies or rolls back, by their ids.
    """
    return tuple(
        Problem(
            "half-applied",
            f"{each.id} is half-applied:"
            f" {'' if each.direction == 'apply' else 'its rollback was '}interrupted after"
            f" {counted(each.parts_done, 'part')}",
            hint="resume it first with `initmig migrate`"
            if each.direction == "apply"
            else "resume its rollback first with `initmig rollback`",
        )
        for each in unfinished
        if not each.id.startswith(HOOK)
        and (each.direction != direction or each.id not in migrations)
    )


def changed_half_applied(
    unfinished: Iterable[Unfinished], migrations: Mapping[str, Migration]
) -> tuple[Problem, ...]:
    """A problem for each half-applied migration whose file has changed, or has fewer parts now."""
    problems = []
    for each in unfinished:
        migration = migrations.get(each.id)
        if migration is None:
            continue
        checksum, path, parts = _begun(migration, each.direction)
        if each.checksum != checksum or each.parts_done > len(parts):
            problems.append(_changed_half_applied(each, path, parts[each.parts_done :]))
    return tuple(problems)


def _begun(migration: Migration, direction: Direction) -> tuple[str, str, Sequence[Place]]:
    """The checksum, path and parts of *migration* in the *direction* that was interrupted."""
    if direction == "apply":
        return migration.checksum, migration.file.path, migration.parts
    path = migration.file.rollback_path or migration.file.path
    return migration.rollback_checksum, path, migration.rollback_parts


def _changed_half_applied(stopped: Unfinished, path: str, left: Sequence[Place]) -> Problem:
    return Problem(
        "changed-half-applied",
        f"{stopped.id} is half-applied, and {path} has changed since:"
        f" {counted(stopped.parts_done, 'part')} done, {counted(len(left), 'part')} left",
        hint="if the change is the fix, and the file from this place on is exactly what is left"
        " to do, run once with --changed=allow. Otherwise restore the file",
        place=left[0] if left else Place(path),
    )


def irreversible(
    chosen: Iterable[AppliedMigration],
    migrations: Mapping[str, Migration],
    unfinished: Iterable[Unfinished],
    *,
    skip: bool,
) -> tuple[tuple[Problem, ...], tuple[RollbackSkipped, ...]]:
    """Why the *chosen* migrations cannot be rolled back, and the migrations to skip instead.

    *migrations* are the files of the chosen ones, by their ids. With *skip*, each migration without
    a rollback is skipped. Without it, a migration is skipped only if its rollback had already
    begun, because that was decided then.
    """
    problems: list[Problem] = []
    skipped: list[RollbackSkipped] = []
    begun = {(each.id, each.checksum) for each in unfinished if each.direction == "rollback"}
    for applied in chosen:
        migration = migrations.get(applied.id)
        if migration is None:
            problems.append(_not_in_image(applied.id))
        elif missing := without_rollback(migration):
            if skip or (migration.id, migration.rollback_checksum) in begun:
                fact, places = _lacking(migration)
                skipped.append(RollbackSkipped(migration.id, fact, tuple(map(str, places))))
            else:
                problems.append(missing._replace(hint=f"{missing.hint}, or pass {_SKIPPING}"))
    return tuple(problems), tuple(skipped)


def _not_in_image(id: str) -> Problem:
    return Problem(
        "unknown-migration",
        f"{id} is applied, but its file is not among these migrations",
        hint="roll back with the image or folder that contains it",
    )


def without_rollback(migration: Migration) -> Problem | None:
    """Why *migration* cannot be rolled back; None if it can."""
    fact, places = _lacking(migration)
    if not places:
        return None
    if migration.file.is_sql:
        hint = f"write the rollback in {places[0]}"
        return Problem("no-rollback", fact, hint=hint, place=Place(migration.file.path))
    lines = f", at lines {', '.join(str(each.line) for each in places)}" if places[1:] else ""
    hint = "add a rollback to the step (`lambda connection: None` if there is nothing to undo)"
    return Problem("no-rollback", f"{fact}{lines}", hint=hint, place=places[0])


def _lacking(migration: Migration) -> tuple[str, tuple[Place, ...]]:
    """Which parts of *migration* have no rollback, in words, and the place of each.

    A part is a step in Python, or the whole file in SQL. If there are no places, the whole
    migration can be rolled back.
    """
    fact, path = f"{migration.id} has no rollback", migration.file.path
    missing = {n: step for n, step in enumerate(migration.steps, 1) if not step.undoing}
    if migration.file.is_sql:
        return fact, tuple(Place(path.removesuffix(".sql") + ".rollback.sql") for _ in missing)
    numbers = ", ".join(map(str, missing))
    places = tuple(Place(path, step.line) for step in missing.values())
    step = "steps" if len(missing) > 1 else "step"
    return f"{fact} in {step} {numbers} of {len(migration.steps)}", places


def with_baseline(problem: Problem) -> Problem:
    """Suggest `baseline` in the *problem* of a first migration if an object already exists."""
    if problem.server.sqlstate not in _ALREADY_EXISTS:
        return problem
    return problem._replace(
        hint=f"{problem.hint}. If the database already had this schema, record its migrations with"
        " `initmig baseline --to ID`"
    )
