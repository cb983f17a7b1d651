"""`verify`: applies each migration, rolls it back, compares the schemas, and applies it again.

It works in a scratch database. After a rollback that does not restore the schema, it continues in a
new database, so that one wrong rollback does not affect the verdicts about other migrations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.applying import load, locked
from initmig.commands.context import begin, finished
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
from initmig.core.records import Record
from initmig.engine.executor import advice
from initmig.history import store
from initmig.migrations.decision import History, Policy, decide
from initmig.migrations.refusals import without_rollback

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


class Verification(Record):
    """The result of `verify`."""

    outcome: str
    ids: tuple[str, ...]
    """The migrations whose rollback restores the schema."""
    seconds: float
    verdicts: tuple[Verdict, ...]
    """About each migration in the order of the plan, all of them together, and each hook."""
    summary: Finished
    failure: MigrationFailed | None = None
    """With every problem of the verdicts."""


def verify(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Verification:
    """Verify each migration, then all of them together, then each hook.

    :raises InitmigError: there is no scratch database, or a file cannot be read
    """
    run = begin(config, _without_steps(emit), clock)
    if config.from_baseline:
        check_baseline(config.from_baseline)
    return finished(run, lambda: _verification(run, tuple(_verdicts(run))))


def _verdicts(run: Run) -> list[Verdict]:
    verdicts: list[Verdict] = []
    is_complete = False
    while not is_complete:
        found = _verify_from(run, len(verdicts))
        verdicts += found
        is_complete = not (found and _is_wrong_rollback(found[-1]))
    return verdicts


def _verification(run: Run, verdicts: tuple[Verdict, ...]) -> Verification:
    judged = [verdict for verdict in verdicts if verdict.path]
    ids = tuple(verdict.id for verdict in judged if verdict.state == "ok")
    outcome = "verified" if ids else "nothing verified"
    seconds = run.seconds()
    summary = Finished(outcome, ids, seconds, total=len(judged))
    problems = tuple(problem for verdict in verdicts for problem in verdict.problems)
    failure = MigrationFailed.of(problems) if problems else None
    return Verification(outcome, ids, seconds, verdicts, summary, failure)


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
        decision = decide(run.listing, History(store.applied_ids(session)), Policy())
        loaded = load(run, decision)
        with locked(session, run, lambda: True) as executor:
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
        if missing := without_rollback(migration):
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
            self._executor.roll_back(last_first, next_step=_fix("rollback")), "during rollback, "
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
            problems = _problems(self._executor.run_hooks([hook], next_step=_fix("migration")))
            yield Verdict(hook.id, "failed" if problems else "ok", hook.file.path, (), problems)

    def _apply(
        self, migrations: Sequence[Migration], when: str = "", next_step: NextStep | None = None
    ) -> tuple[Problem, ...]:
        next_step = next_step or _fix("migration")
        return _problems(self._executor.apply_each(migrations, next_step=next_step), when)


def _problems(committed: Iterable[str], when: str = "") -> tuple[Problem, ...]:
    """The problems of a migration that fails, with *when* before each message.

    *committed* is what the executor yields while it works.
    """
    try:
        for _ in committed:
            pass
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
