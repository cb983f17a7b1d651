"""`verify`: each migration is applied, rolled back, compared and applied again on a new database.

Each database is used for as long as it is what the migrations make of it: behind one whose rollback
did not restore what it found a new one takes its place, so that each is judged by itself.
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
    from initmig.engine.executor import Executor
    from initmig.postgres import Session

_ALL = "all at once, down and up again"
"""What the verdict about the whole way is called; it has no path."""

_NO_FILE = MigrationFile("", "")

_TOLD_AS_VERIFIED = (MigrationStarted, MigrationApplied, MigrationRolledBack)


def verify(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[Verdict, ...]:
    """A verdict about each migration in the plan's order, the way down and up again, each hook.

    :raises InitmigError: there is no scratch database, or a file cannot be read
    """
    run = begin(config, _without_steps(emit), clock)
    if config.from_baseline:
        check_baseline(config.from_baseline)
    verdicts: list[Verdict] = []
    while _goes_on(run, verdicts):
        pass
    judged = [verdict for verdict in verdicts if verdict.path]
    ids = tuple(verdict.id for verdict in judged if verdict.state == "ok")
    summary = "verified" if ids else "nothing verified"
    emit(Finished(summary, ids, run.seconds(), total=len(judged)))
    return tuple(verdicts)


def _without_steps(emit: Emit) -> Emit:
    """What is done again and again is told once."""

    def tell(event: Event) -> None:
        if not isinstance(event, _TOLD_AS_VERIFIED):
            emit(event)

    return tell


def _goes_on(run: Run, verdicts: list[Verdict]) -> bool:
    """Add to *verdicts* in a new database; whether another one is needed for those that are left.

    What there is a verdict about already is applied there first.
    """
    with scratch_database(run) as session:
        applied = store.applied_ids(session)
        pending = planning.pending_files(run.listing, applied)
        loaded = writer.load(run, pending, applied)
        with writer.locked(session, run, lambda: True) as executor:
            assert executor is not None  # noqa: S101 - it is needed
            bench = _Bench(session, executor, run)
            return bench.works_through(loaded.pending, loaded.hooks, verdicts)


class _Bench:
    """One scratch database."""

    def __init__(self, session: Session, executor: Executor, run: Run) -> None:
        self._session = session
        self._executor = executor
        self._run = run
        self._bottom: Snapshot = {}
        self._reversible: list[Migration] = []
        """What can be rolled back at once, down to the *bottom*."""

    def works_through(
        self, plan: Sequence[Migration], hooks: Sequence[Migration], verdicts: list[Verdict]
    ) -> bool:
        """As `_goes_on`."""
        done, left = plan[: len(verdicts)], plan[len(verdicts) :]
        if problems := _problems(
            lambda: self._executor.apply_each(done), "in another new database, "
        ):
            verdicts += [*map(_not_reached, left), Verdict(_ALL, "failed", problems=problems)]
            return False
        for position, migration in enumerate(left, 1):
            verdict = self._judge(migration)
            verdicts.append(verdict)
            if verdict.state == "failed":
                verdicts += map(_not_reached, left[position:])
                return False
            if verdict.state == "not restored":
                return True
        verdicts += self._finish(hooks)
        return False

    def _judge(self, migration: Migration) -> Verdict:
        started = self._run.clock.now()
        before = take_snapshot(self._session)
        id, path = migration.id, migration.file.path
        if problems := _problems(lambda: self._executor.apply_each([migration])):
            return Verdict(id, "failed", path, problems=problems)
        if missing := planning.without_rollback(migration):
            self._reversible.clear()
            refused = (missing,) if self._run.config.require_rollback else ()
            self._run.emit(Irreversible(id, refused=bool(refused)))
            return Verdict(id, "irreversible", path, problems=refused)
        verdict = self._there_and_back(id, migration.file, [migration], before)
        if verdict.state == "ok":
            self._bottom = self._bottom if self._reversible else before
            self._reversible.append(migration)
            self._run.emit(MigrationVerified(id, self._run.clock.now() - started))
        return verdict

    def _there_and_back(
        self, id: str, file: MigrationFile, migrations: Sequence[Migration], before: Snapshot
    ) -> Verdict:
        """Roll back *migrations*, which are the last applied, and apply them again."""
        undo = [*reversed(migrations)]
        if problems := _problems(lambda: self._executor.roll_back(undo), "during rollback, "):
            return Verdict(id, "not restored", file.path, problems=problems)
        difference = compare(before, take_snapshot(self._session))
        if difference:
            problem = _not_restored(id, file, difference)
            return Verdict(id, "not restored", file.path, difference, (problem,))
        again = "applied again after the rollback, "
        if problems := _problems(lambda: self._executor.apply_each(migrations), again):
            # what is different now is what the rollback has left
            problems = tuple(map(_blaming_rollback, problems))
            return Verdict(id, "not restored", file.path, problems=problems)
        return Verdict(id, "ok", file.path)

    def _finish(self, hooks: Sequence[Migration]) -> Iterator[Verdict]:
        if self._reversible:
            verdict = self._there_and_back(_ALL, _NO_FILE, self._reversible, self._bottom)
            yield verdict
            if verdict.problems:
                return
        for hook in hooks:
            problems = _problems(partial(self._executor.run_hooks, [hook]))
            yield Verdict(hook.id, "failed" if problems else "ok", hook.file.path, (), problems)


def _problems(act: Callable[[], None], when: str = "") -> tuple[Problem, ...]:
    """Why a migration failed in *act*, and *when* it did; empty where none has."""
    try:
        act()
    except MigrationFailed as error:
        return tuple(
            problem._replace(message=f"{when}{problem.message}") for problem in error.problems
        )
    return ()


def _blaming_rollback(problem: Problem) -> Problem:
    return problem._replace(hint=problem.hint.replace("fix the migration", "fix the rollback"))


def _not_restored(id: str, file: MigrationFile, difference: Sequence[str]) -> Problem:
    what = id if file.path else "all migrations"
    place = file.rollback_path or file.path
    lines = sum(not line.startswith(" ") for line in difference)
    return Problem(
        "not-restored",
        f"the rollback of {what} does not restore the schema: {counted(lines, 'line')} changed",
        hint="change the rollback so that it removes the lines with + and restores those with -",
        place=Place(place) if place else None,
    )


def _not_reached(migration: Migration) -> Verdict:
    return Verdict(migration.id, "not reached", migration.file.path)
