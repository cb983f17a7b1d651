"""What is pending, run for real in one transaction, observed, and rolled back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from initmig import planning
from initmig.causes import is_canceled, is_spoiled
from initmig.errors import DatabaseRefused, MigrationFailed
from initmig.events import AppliedElsewhere
from initmig.executor import named, naming_blockers, watched_backend
from initmig.lock import lock_for_rehearsal
from initmig.postgres import NoAnswer, StatementFailed
from initmig.rehearsal.impact import Rehearsal, Rehearsed, StatementImpact
from initmig.rehearsal.observing import Observer
from initmig.run import glance, is_pending, left_to_apply
from initmig.writer import get_ready, load, read_and_plan, refuse_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.engine import Backend
    from initmig.engine.piecewise import Part
    from initmig.model import Migration
    from initmig.postgres import Session
    from initmig.run import Run
    from initmig.watching import Watch
    from initmig.writer import Loaded

_NEEDS_ITS_OWN = "25001"
"""active_sql_transaction: what sets the isolation level has to be the first of its transaction."""

_SYNTAX_ERROR = "42601"


def rehearse(session: Session, run: Run) -> Rehearsal:
    """What `migrate` would do now; nothing of it is kept.

    :raises InitmigError: it would refuse to begin, or another migrator was still at it
    """
    found = glance(session, run)
    left = left_to_apply(session, run, found)
    if left is None:
        return Rehearsal(())
    loaded = load(run, left.pending, found.ids)
    limits = get_ready(session, run)
    with lock_for_rehearsal(
        session,
        timeout=limits.queue_timeout,
        clock=run.clock,
        emit=run.emit,
        is_needed=lambda: is_pending(session, run),
    ) as held:
        if held is None:
            run.emit(AppliedElsewhere(run.seconds()))
            return Rehearsal(())
        with (
            watched_backend(session, held, limits=limits, emit=run.emit) as (backend, watch),
            backend.rehearsal(),
        ):
            with _held_up_is_no_refusal():
                backend.prepare(upgrades=False)  # which would lock others out to the end
                plan = _planned(session, run, loaded)
            refuse_leftovers(session, plan)
            rehearsal = _Rehearsing(backend, watch).of(plan)
            if rehearsal.failure and loaded.nothing_applied:
                problems = rehearsal.failure.problems
                rehearsal.failure.problems = tuple(map(planning.with_baseline, problems))
            return rehearsal


@contextmanager
def _held_up_is_no_refusal() -> Iterator[None]:
    """What others spoil in the transaction cannot be tried again in it.

    :raises NoAnswer: they did
    """
    try:
        yield
    except (DatabaseRefused, StatementFailed) as error:
        sqlstate = error.problems[0].server.sqlstate
        if not (is_spoiled(sqlstate) or is_canceled(sqlstate)):
            raise
        raise NoAnswer(
            "no-answer",
            f"one of initmig's own statements was held up: {error}",
            hint="rehearse when less is going on, or raise --lock-timeout",
            server=error.problems[0].server,
        ) from error


def _planned(session: Session, run: Run, loaded: Loaded) -> tuple[Migration, ...]:
    """What `migrate` would run, the hooks behind it."""
    plan, owed = read_and_plan(session, run, loaded.pending)
    return (*plan, *(hook for hook in loaded.hooks if plan or hook.file in owed))


class _Rehearsing:
    """Runs migrations in the transaction that is open, and remembers what could not be run."""

    def __init__(self, backend: Backend, watch: Watch) -> None:
        self._backend = backend
        self._watch = watch
        self._observer = Observer(backend.ask)
        self._left_out: list[str] = []

    def of(self, plan: Sequence[Migration]) -> Rehearsal:
        """All of *plan*, up to the first that fails."""
        done: list[Rehearsed] = []
        for migration in plan:
            rehearsed, failure = self._rehearse(migration)
            done.append(rehearsed)
            if rehearsed.why_not:
                self._left_out.append(migration.id)
            if failure:
                return Rehearsal(tuple(done), failure)
        return Rehearsal(tuple(done))

    def _rehearse(self, migration: Migration) -> tuple[Rehearsed, MigrationFailed | None]:
        rehearsed = Rehearsed(
            migration.id,
            migration.file.path,
            held=self._observer.begin_migration(),
            why_not=self._why_not(migration),
        )
        if rehearsed.why_not:
            return rehearsed, None
        statements: list[StatementImpact] = []
        why_not, failure = "", None
        try:
            self._run(migration, statements)
        except MigrationFailed as error:
            why_not = self._excuse(migration, error)
            failure = None if why_not else error
        return rehearsed._replace(statements=tuple(statements), why_not=why_not), failure

    def _why_not(self, migration: Migration) -> str:
        """Why *migration* cannot be run here; empty where it can."""
        if not migration.transactional:
            return "not transactional"
        missing = [id for id in self._left_out if id in migration.depends]
        return f"depends on {', '.join(missing)}, not rehearsed" if missing else ""

    def _run(self, migration: Migration, statements: list[StatementImpact]) -> None:
        self._watch.works_on(migration.id)
        try:
            with (
                naming_blockers(self._watch),
                named(migration, _next_step),
                self._backend.rehearsing(migration.handle),
            ):
                for statement in migration.handle.statements():
                    statements.append(self._observed(statement))  # noqa: PERF401 - one may fail
        finally:
            self._watch.rests()

    def _observed(self, statement: Part) -> StatementImpact:
        started = time.monotonic()
        statement.run(self._backend)
        seconds = time.monotonic() - started
        return StatementImpact(statement.place, statement.sql, seconds, self._observer.impacts())

    def _excuse(self, migration: Migration, error: MigrationFailed) -> str:
        """Why the *error* is the rehearsal's, and maybe not the migration's; else empty."""
        [problem] = error.problems
        sqlstate = problem.server.sqlstate
        if sqlstate == _NEEDS_ITS_OWN and migration.handle.sets_isolation:
            return "needs a transaction of its own, whose isolation level it sets"
        of_others = is_canceled(sqlstate) or is_spoiled(sqlstate)
        is_certain = of_others or sqlstate == _SYNTAX_ERROR
        # a step may have committed: then there is nothing to go on in
        if is_certain or not (self._left_out and self._backend.session.in_transaction):
            return ""
        place = f"{problem.place}: " if problem.place else ""
        return f"{place}{problem.message}; maybe for want of {', '.join(self._left_out)}"


def _next_step(_: Migration, sqlstate: str) -> str:
    if is_canceled(sqlstate):
        return "nothing was kept; raise --statement-timeout if it is too short"
    if is_spoiled(sqlstate):
        return "nothing was kept; rehearse when less is going on, or raise --lock-timeout"
    return "nothing was kept; mend it and rehearse again"
