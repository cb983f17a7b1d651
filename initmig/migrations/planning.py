"""Decides, without touching anything: what to apply, what to roll back, what to refuse."""

from __future__ import annotations

from initmig.core.durations import counted
from initmig.core.errors import Place, PlanError, Problem
from initmig.core.events import Changed, OutOfOrder, RollbackSkipped
from initmig.core.model import (
    HOOK,
    PACKAGE,
    UNDOING,
    Migration,
    MigrationFile,
    MigrationStatus,
)
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import TypeVar

    from initmig.core.model import (
        AppliedMigration,
        Direction,
        Listing,
        Unfinished,
    )

    _T = TypeVar("_T", MigrationFile, Migration)


_SKIPPING = "--irreversible=skip to roll back the rest and remove the record"

_ALREADY_EXISTS = ("42P07", "42P06", "42710", "42723", "42701")
"""A relation, schema, other object, function or column of this name exists."""


class Finding(Record):
    """Something that a policy decides on: an event to emit, or the error it becomes."""

    event: OutOfOrder | Changed
    error: Problem


def pending_files(listing: Listing, applied: Iterable[str]) -> tuple[MigrationFile, ...]:
    """The migrations that are not applied, in the listing's order."""
    done = frozenset(applied)
    return tuple(file for file in listing.migrations if file.id not in done)


class LeftToDo(Record):
    """What a database is not at the end of, in the order in which it is to be done."""

    pending: tuple[MigrationFile, ...]
    owed: tuple[MigrationFile, ...]
    """The hooks that have not run since something was applied."""
    half_undone: tuple[str, ...]
    """The migrations whose rollback has begun and not ended: it is at work, or stopped."""
    unknown: tuple[str, ...]
    """The applied ids that no file of this image has, in the order applied; for somebody else."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all that is left to do here."""
        return (*(file.id for file in (*self.pending, *self.owed)), *self.half_undone)


def left_to_do(listing: Listing, applied: Collection[str]) -> LeftToDo:
    """What is left to do where yoyo's table has the ids *applied*."""
    known, done = {file.id for file in listing.migrations}, {*applied}
    # a start usually finds the same on both sides, of which there may be thousands
    others = [] if done <= known else _unknown(applied, listing)
    return LeftToDo(
        () if known <= done else pending_files(listing, applied),
        tuple(hook for hook in listing.hooks if hook.id in applied),
        tuple(id.removeprefix(UNDOING) for id in others if id.startswith(UNDOING)),
        tuple(id for id in others if not id.startswith((HOOK, UNDOING))),
    )


def _unknown(ids: Iterable[str], listing: Listing) -> list[str]:
    """Those *ids* that no file has, and that are of migrations."""
    known = {PACKAGE, *(file.id for file in listing.migrations)}
    return [id for id in ids if id not in known]


def recorded(applied: Iterable[AppliedMigration], listing: Listing) -> tuple[AppliedMigration, ...]:
    """What is *applied*, without an ``__init__.py`` that this image does not have."""
    there = [file.id for file in listing.packages]
    return tuple(each for each in applied if each.id != PACKAGE or PACKAGE in there)


def resolve_id(text: str, ids: Sequence[str]) -> str:
    """The id that is *text*, or the only one that starts with it.

    :raises PlanError: no id does, or several do
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


def up_to(target: str, ordered: Sequence[_T], listing: Listing) -> tuple[_T, ...]:
    """Those of the *ordered* pending migrations that `--to` *target* asks for.

    *target* is a whole id. Where it is applied already, these are the ones listed before it.
    """
    ids = [migration.id for migration in ordered]
    if target in ids:
        return tuple(ordered[: ids.index(target) + 1])
    listed = [file.id for file in listing.migrations]
    before = set(listed[: listed.index(target)])
    return tuple(migration for migration in ordered if migration.id in before)


def applied_up_to(target: str, applied: Collection[str], listing: Listing) -> tuple[str, ...]:
    """The ids, up to and with *target* (a whole one) as listed, that are *applied*."""
    listed = [file.id for file in listing.migrations]
    return tuple(id for id in listed[: listed.index(target) + 1] if id in applied)


def without_blocked(
    chosen: Sequence[Migration], pending: Iterable[Migration]
) -> tuple[Migration, ...]:
    """Those *chosen* of the *pending* migrations that depend on none that stays pending."""
    blocked = {migration.id for migration in pending} - {migration.id for migration in chosen}
    kept: list[Migration] = []
    for migration in chosen:
        if migration.depends & blocked:
            blocked.add(migration.id)
        else:
            kept.append(migration)
    return tuple(kept)


def out_of_order(
    pending: Sequence[MigrationFile], applied: Iterable[str], listing: Listing
) -> tuple[Finding, ...]:
    """The pending migrations that sort before an applied one of the same folder."""
    return tuple(
        Finding(OutOfOrder(id, last), _out_of_order(id, last))
        for id, last in behind(pending, applied, listing).items()
    )


def behind(
    pending: Sequence[MigrationFile], applied: Iterable[str], listing: Listing
) -> dict[str, str]:
    """The same by their ids, each with the last applied one of its folder."""
    done = frozenset(applied)
    last: dict[str, str] = {}
    for file in listing.migrations:
        if file.id in done:
            last[file.folder] = max(file.id, last.get(file.folder, ""))
    return {file.id: last[file.folder] for file in pending if file.id < last.get(file.folder, "")}


def placed_by_name(ordered: Iterable[Migration]) -> tuple[MigrationFile, ...]:
    """Those of the *ordered* pending migrations whose name says when they run.

    The others depend on one that sorts after them, so that they follow it by intention; or they
    are Python without steps, which may run at any time.
    """
    placed: list[MigrationFile] = []
    moved: set[str] = set()
    for migration in ordered:
        if any(id > migration.id or id in moved for id in migration.depends):
            moved.add(migration.id)
        elif migration.steps:
            placed.append(migration.file)
    return tuple(placed)


def _out_of_order(id: str, applied_id: str) -> Problem:
    return Problem(
        "out-of-order",
        f"{id} would be applied after {applied_id}, which is already applied",
        hint="rename it to sort last, or pass --out-of-order=allow",
    )


def changed(
    listing: Listing, applied: Iterable[AppliedMigration], checksums: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The applied migrations whose file is another than the one applied.

    *checksums* gives the file's checksum by id; what stock yoyo applied has none to compare.
    """
    recorded = {migration.id: migration.checksum for migration in applied}
    return tuple(
        Finding(Changed(file.id, file.path), _changed(file.id, file.path))
        for file in listing.migrations
        if recorded.get(file.id) and recorded[file.id] != checksums.get(file.id)
    )


def _changed(id: str, path: str) -> Problem:
    return Problem(
        "changed",
        f"{id} is applied, but {path} has changed since",
        hint="restore the file and put the change in a new migration, or pass --changed=allow",
    )


def shared(
    listing: Listing, applied: Iterable[AppliedMigration], different: Sequence[str]
) -> Problem | None:
    """Why the history seems to be another application's: its ids stand for *different* files here.

    All of them do that can be compared. A single one may be a file that was edited, unless there
    are others that this image lacks.
    """
    known = {file.id for file in listing.migrations}
    records = tuple(applied)
    compared = [record.id for record in records if record.checksum and record.id in known]
    others = _unknown((record.id for record in records), listing)
    if not different or len(different) < len(compared) or not (others or len(compared) > 1):
        return None
    return Problem(
        "id-used-twice",
        f"this image's files differ from those that were applied ({', '.join(different)}):"
        " another application seems to keep its history here",
        hint="give each application its own history with --history-table=NAME, or its own schema."
        " If you edited all of these files, pass --changed=allow",
    )


def refuse_half_way(
    unfinished: Iterable[Unfinished], migrations: Mapping[str, Migration], direction: Direction
) -> None:
    """:raises PlanError: a migration stopped half way that this run does not go on with.

    *migrations* are the ones that the run would apply, or roll back, by their id.
    """
    problems = [
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
    ]
    if problems:
        raise PlanError.of(tuple(problems))


def changed_half_way(
    unfinished: Iterable[Unfinished], migrations: Mapping[str, Migration]
) -> tuple[Finding, ...]:
    """The half-way migrations whose file is not the one that was begun, or has fewer parts."""
    findings = []
    for each in unfinished:
        migration = migrations.get(each.id)
        if migration is None:
            continue
        checksum, _, parts = _begun(migration, each.direction)
        if each.checksum != checksum or each.parts_done > len(parts):
            findings.append(_changed_half_way(migration, each))
    return tuple(findings)


def _begun(migration: Migration, direction: Direction) -> tuple[str, str, Sequence[Place]]:
    """Checksum, path and parts of *migration* in the *direction* that it goes."""
    if direction == "apply":
        return migration.checksum, migration.file.path, migration.parts
    path = migration.file.rollback_path or migration.file.path
    return migration.rollback_checksum, path, migration.rollback_parts


def _changed_half_way(migration: Migration, stopped: Unfinished) -> Finding:
    _, path, parts = _begun(migration, stopped.direction)
    left = parts[stopped.parts_done :]
    return Finding(
        Changed(migration.id, path),
        Problem(
            "changed-half-applied",
            f"{migration.id} is half-applied, and {path} has changed since:"
            f" {counted(stopped.parts_done, 'part')} done, {counted(len(left), 'part')} left",
            hint="if the change is the fix, and the file from this place on is exactly what is left"
            " to do, run once with --changed=allow. Otherwise restore the file",
            place=left[0] if left else Place(path),
        ),
    )


def refuse(findings: Iterable[Finding]) -> None:
    """:raises PlanError: there is any finding; all of them are reported together."""
    problems = tuple(finding.error for finding in findings)
    if problems:
        raise PlanError.of(problems)


def refuse_old_image(unknown: Iterable[AppliedMigration]) -> None:
    """:raises PlanError: a migration that an older application cannot live with is unknown."""
    problems = _too_old(migration.id for migration in unknown if migration.breaking)
    if problems:
        raise PlanError.of(problems)


def _too_old(breaking: Iterable[str]) -> tuple[Problem, ...]:
    ids = ", ".join(breaking)
    if not ids:
        return ()
    problem = Problem(
        "image-too-old",
        "this image is too old for the database: it does not contain these breaking migrations,"
        f" which are applied: {ids}",
        hint="deploy an image that contains them, or roll them back with the newer image first",
    )
    return (problem,)


def refuse_transaction_of_all(migrations: Iterable[Migration]) -> None:
    """:raises PlanError: not all of *migrations* can run in one transaction."""
    others = [migration.id for migration in migrations if not migration.transactional]
    if others:
        raise PlanError(
            "not-transactional",
            f"--transaction=all, but these migrations are not transactional: {', '.join(others)}",
            hint="first apply up to the last of them, with --transaction=each and --to",
        )


def newest_first(
    applied: Sequence[AppliedMigration], depends: Mapping[str, Collection[str]]
) -> tuple[AppliedMigration, ...]:
    """The *applied* migrations from the last one on, but none before one that *depends* on it."""
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
    """What to undo of all that is applied, *newest_first*; *to*, a whole id, stays applied.

    :raises PlanError: *to* is not applied
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
    """Those *chosen* that are *applied* as they were then, and were not applied again since."""
    now = {(migration.id, migration.applied_at) for migration in applied}
    return tuple(each for each in chosen if (each.id, each.applied_at) in now)


def kept_applied(
    chosen: Iterable[AppliedMigration], applied: Iterable[AppliedMigration]
) -> tuple[str, ...]:
    """The ids of what is *applied* and not *chosen* to be rolled back, in the order applied."""
    undone = {migration.id for migration in chosen}
    return tuple(migration.id for migration in applied if migration.id not in undone)


def skipped_in_rollback(
    chosen: Iterable[AppliedMigration],
    migrations: Mapping[str, Migration],
    unfinished: Iterable[Unfinished],
    *,
    skip: bool,
) -> tuple[RollbackSkipped, ...]:
    """What the rollback of the *chosen* *migrations* leaves as it is, for want of a rollback.

    Without *skip* that is only what belongs to a rollback that has begun: to finish it needs no
    second decision.

    :raises PlanError: one of *chosen* is not in this image, or has no rollback; names all
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
    if problems:
        raise PlanError.of(tuple(problems))
    return tuple(skipped)


def _not_in_image(id: str) -> Problem:
    return Problem(
        "unknown-migration",
        f"{id} is applied, but its file is not among these migrations",
        hint="roll back with the image or folder that contains it",
    )


def without_rollback(migration: Migration) -> Problem | None:
    """Why *migration* cannot be rolled back; None where it can."""
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
    """What of *migration* has no rollback, and where: each step in Python, the file of SQL.

    Nothing has a place where all can be rolled back.
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
    """*problem* of a first migration; `baseline` is a next step where something exists already."""
    if problem.server.sqlstate not in _ALREADY_EXISTS:
        return problem
    return problem._replace(
        hint=f"{problem.hint}. If the database already had this schema, record its migrations with"
        " `initmig baseline --to ID`"
    )


def statuses(
    listing: Listing,
    applied: Iterable[AppliedMigration],
    changed_ids: Collection[str],
    *,
    owed: Iterable[MigrationFile] = (),
    unfinished: Iterable[Unfinished] = (),
) -> tuple[MigrationStatus, ...]:
    """Every migration: those of this image in its order, the hooks that are owed, the unknown.

    An unknown one that is half way is told as that.
    """
    records = {migration.id: migration for migration in recorded(applied, listing)}
    half_way = {each.id: each for each in unfinished}
    packages = [file for file in listing.packages if file.id in records]
    rows = [
        MigrationStatus(
            file.id,
            _state(file.id, records, changed_ids, half_way),
            file.path,
            records.pop(file.id, None),
            half_way.pop(file.id, None),
        )
        for file in (*listing.migrations, *packages, *owed)
    ]
    for id in (*records, *(id for id in half_way if id not in records)):
        state = _state(id, records, changed_ids, half_way) if id in half_way else "unknown"
        rows.append(MigrationStatus(id, state, "", records.get(id), half_way.get(id)))
    return tuple(rows)


def refusals(
    rows: Sequence[MigrationStatus], *, changed: str, out_of_order: str
) -> tuple[Problem, ...]:
    """Why `migrate` would refuse to start with the policies *changed* and *out_of_order*."""
    unknown = (row for row in rows if row.state == "unknown" and row.applied)
    problems = [*_too_old(row.id for row in unknown if row.applied and row.applied.breaking)]
    if changed == "fail":
        problems += [_changed(row.id, row.path) for row in rows if row.state == "changed"]
    if out_of_order == "fail":
        problems += [_out_of_order(row.id, row.behind) for row in rows if row.behind]
    return tuple(problems)


def _state(
    id: str,
    records: Mapping[str, AppliedMigration],
    changed_ids: Collection[str],
    half_way: Mapping[str, Unfinished],
) -> str:
    if id in half_way:
        return "applying" if half_way[id].direction == "apply" else "rolling back"
    if id not in records:
        return "pending"
    return "changed" if id in changed_ids else "applied"
