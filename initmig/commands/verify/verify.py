"""`verify`: applies each migration, rolls it back, compares the schemas, and applies it again.

It works in a scratch database. After a rollback that does not restore the schema, it continues in a
new database, so that one wrong rollback does not affect the verdicts about other migrations.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from initmig.commands import writer
from initmig.commands.context import begin
from initmig.commands.verify.comparison import Verdict, compare
from initmig.commands.verify.scratch import check_baseline, scratch_database
from initmig.commands.verify.snapshot import take_snapshot
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.durations import counted
from initmig.core.errors import MigrationFailed, Place, Problem
from initmig.core.events import (
    Finished,
    Irreversible,
    MigrationApplied,
    MigrationRolledBack,
    MigrationStarted,
    MigrationVerified,
)
from initmig.core.model import MigrationFile
from initmig.engine.executor import advice
from initmig.history import store
from initmig.migrations import planning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.verify.comparison import Snapshot
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit, Event
    from initmig.core.model import Migration
    from initmig.engine.executor import Executor, NextStep
    from initmig.postgres import Session

_ALL = "all at once, down and up again"
"""The id of the verdict about all migrations together; it has no path."""

_NO_FILE = MigrationFile("", "")

_REPORTED_AS_VERIFIED = (MigrationStarted, MigrationApplied, MigrationRolledBack)


def verify(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[Verdict, ...]:
    """Verify each migration, then all of them together, then each hook.

    Verdicts about migrations are in the order of the plan.

    :raises InitmigError: there is no scratch database, or a file cannot be read
    """
    run = begin(config, _without_steps(emit), clock)
    if config.from_baseline:
        check_baseline(config.from_baseline)
    verdicts: list[Verdict] = []
    is_complete = False
    while not is_complete:
        found = _verify_from(run, len(verdicts))
        verdicts += found
        is_complete = not (found and _is_wrong_rollback(found[-1]))
    judged = [verdict for verdict in verdicts if verdict.path]
    ids = tuple(verdict.id for verdict in judged if verdict.state == "ok")
    summary = "verified" if ids else "nothing verified"
    emit(Finished(summary, ids, run.seconds(), total=len(judged)))
    return tuple(verdicts)


def _without_steps(emit: Emit) -> Emit:
    """*emit* without the events of single steps: `MigrationVerified` reports all steps together."""

    def emit_others(event: Event) -> None:
        if not isinstance(event, _REPORTED_AS_VERIFIED):
            emit(event)

    return emit_others


def _verify_from(run: Run, start: int) -> list[Verdict]:
    """The verdicts from the migration with the index *start* on, in a new database.

    They end after the first rollback that does not restore the schema.
    """
    with scratch_database(run) as session:
        applied = store.applied_ids(session)
        pending = planning.pending_files(run.listing, applied)
        loaded = writer.load(run, pending, applied)
        with writer.locked(session, run, lambda: True) as executor:
            assert executor is not None  # noqa: S101 - `lambda: True` always needs one
            verifier = _Verifier(session, executor, run)
            return list(verifier.verify(loaded.pending, loaded.hooks, start))


def _is_wrong_rollback(verdict: Verdict) -> bool:
    """Whether *verdict* says that the rollback of one migration does not restore the schema."""
    return bool(verdict.path) and verdict.state == "not restored"


class _Verifier:
    """Verifies migrations in one scratch database."""

    def __init__(self, session: Session, executor: Executor, run: Run) -> None:
        self._session = session
        self._executor = executor
        self._run = run
        self._reversible: list[Migration] = []
        """The verified migrations since the last irreversible one."""
        self._before_reversible: Snapshot = {}
        """The schema before the first of them."""

    def verify(
        self, plan: Sequence[Migration], hooks: Sequence[Migration], start: int
    ) -> Iterator[Verdict]:
        """Apply *plan* up to *start*, then yield verdicts as `_verify_from`."""
        done, remaining = plan[:start], plan[start:]
        problems = self._apply(done, "in another new database, ")
        if problems:
            yield from map(_not_reached, remaining)
            yield Verdict(_ALL, "failed", problems=problems)
            return
        for position, migration in enumerate(remaining, 1):
            verdict = self._verify_one(migration)
            yield verdict
            if verdict.state == "failed":
                yield from map(_not_reached, remaining[position:])
            if verdict.state in ("failed", "not restored"):
                return
        yield from self._finish(hooks)

    def _verify_one(self, migration: Migration) -> Verdict:
        started = self._run.clock.now()
        before = take_snapshot(self._session)
        id, path = migration.id, migration.file.path
        if problems := self._apply([migration]):
            return Verdict(id, "failed", path, problems=problems)
        if missing := planning.without_rollback(migration):
            self._reversible.clear()
            refused = (missing,) if self._run.config.require_rollback else ()
            self._run.emit(Irreversible(id, refused=bool(refused)))
            return Verdict(id, "irreversible", path, problems=refused)
        verdict = self._roll_back_and_apply(id, migration.file, [migration], before)
        if verdict.state == "ok":
            self._before_reversible = self._before_reversible if self._reversible else before
            self._reversible.append(migration)
            self._run.emit(MigrationVerified(id, self._run.clock.now() - started))
        return verdict

    def _roll_back_and_apply(
        self, id: str, file: MigrationFile, migrations: Sequence[Migration], before: Snapshot
    ) -> Verdict:
        """Roll back *migrations*, which are the last applied ones, and apply them again."""
        last_first = [*reversed(migrations)]
        problems = _problems(
            lambda: self._executor.roll_back(last_first, next_step=_fix("rollback")),
            "during rollback, ",
        )
        if problems:
            return Verdict(id, "not restored", file.path, problems=problems)
        difference = compare(before, take_snapshot(self._session))
        if difference:
            problem = _not_restored(id, file, difference)
            return Verdict(id, "not restored", file.path, difference, (problem,))
        # the migration did apply before, so the rollback left something that prevents it
        problems = self._apply(
            migrations, "applied again after the rollback, ", next_step=_fix("rollback")
        )
        if problems:
            return Verdict(id, "not restored", file.path, problems=problems)
        return Verdict(id, "ok", file.path)

    def _finish(self, hooks: Sequence[Migration]) -> Iterator[Verdict]:
        if self._reversible:
            verdict = self._roll_back_and_apply(
                _ALL, _NO_FILE, self._reversible, self._before_reversible
            )
            yield verdict
            if verdict.problems:
                return
        for hook in hooks:
            problems = _problems(
                partial(self._executor.run_hooks, [hook], next_step=_fix("migration"))
            )
            yield Verdict(hook.id, "failed" if problems else "ok", hook.file.path, (), problems)

    def _apply(
        self, migrations: Sequence[Migration], when: str = "", next_step: NextStep | None = None
    ) -> tuple[Problem, ...]:
        next_step = next_step or _fix("migration")
        return _problems(lambda: self._executor.apply_each(migrations, next_step=next_step), when)


def _problems(act: Callable[[], None], when: str = "") -> tuple[Problem, ...]:
    """The problems of a migration that fails in *act*, with *when* before each message."""
    try:
        act()
    except MigrationFailed as error:
        return tuple(
            problem._replace(message=f"{when}{problem.message}") for problem in error.problems
        )
    return ()


def _fix(file: str) -> NextStep:
    """The next step after a failure that the *file* causes: "migration" or "rollback".

    It does not mention the state of the database, because a scratch database is dropped.
    """
    return lambda _, sqlstate: advice(sqlstate, otherwise=f"fix the {file} and run again")


def _not_restored(id: str, file: MigrationFile, difference: Sequence[str]) -> Problem:
    subject = id if file.path else "all migrations"
    place = file.rollback_path or file.path
    lines = sum(not line.startswith(" ") for line in difference)
    return Problem(
        "not-restored",
        f"the rollback of {subject} does not restore the schema: {counted(lines, 'line')} changed",
        hint="change the rollback so that it removes the lines with + and restores those with -",
        place=Place(place) if place else None,
    )


def _not_reached(migration: Migration) -> Verdict:
    return Verdict(migration.id, "not reached", migration.file.path)
