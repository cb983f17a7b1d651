"""What is pending, run for real in one transaction, observed, and rolled back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from initmig.commands.context import history_summary, is_pending, left_to_apply
from initmig.commands.rehearse.backdating import Aging
from initmig.commands.rehearse.impact import Rehearsal, Rehearsed, StatementImpact, WhyNot
from initmig.commands.rehearse.observation import Observer
from initmig.commands.rehearse.shared_transaction import Failure, only_here
from initmig.commands.writer import get_ready, load, read_and_plan, refuse_leftovers
from initmig.core.causes import is_cancellation, is_contention
from initmig.core.errors import DatabaseRefused, MigrationFailed
from initmig.core.events import AppliedElsewhere
from initmig.core.model import HOOK
from initmig.core.records import Record
from initmig.engine.backend import create_lock_table
from initmig.engine.executor import monitored_backend, named, naming_blockers
from initmig.locking.lock import lock_for_rehearsal
from initmig.locking.queue import Queue
from initmig.migrations import planning
from initmig.postgres import NoAnswer, StatementFailed
from initmig.sql.not_in_transaction import PREVENTING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.rehearse.backdating import Ask
    from initmig.commands.writer import Loaded
    from initmig.core.errors import Problem
    from initmig.core.model import Migration
    from initmig.engine import Backend
    from initmig.engine.non_transactional import Part
    from initmig.locking.blockers import StatementMonitor
    from initmig.postgres import Session

_SYNTAX_ERROR = "42601"

_OF_DATA = ("22", "23", "P0")
"""What begins the SQLSTATEs of data exceptions, of constraints, and of what PL/pgSQL raises."""

_AGED = (
    "rehearsed with earlier times in the rows of earlier migrations: a rehearsal has one now()"
    " for all migrations, which made it fail at first"
)


class _Attempt(Record):
    """One run of a migration."""

    held: tuple[tuple[str, str], ...]
    """As in `Rehearsed`."""
    done: list[StatementImpact]
    """Those that did not fail."""
    failure: MigrationFailed | None = None


def rehearse(session: Session, run: Run) -> Rehearsal:
    """What `migrate` would do now; nothing of it is kept.

    :raises InitmigError: it would refuse to begin, or another migrator was still at it
    """
    found = history_summary(session, run)
    left = left_to_apply(session, run, found)
    if left is None:
        return Rehearsal(())
    loaded = load(run, left.pending, found.ids)
    limits = get_ready(session, run)
    queue = Queue(limits.queue_timeout, run.clock, run.emit, lambda: is_pending(session, run))
    with lock_for_rehearsal(session, queue, create_lock_table) as held:
        if held is None:
            run.emit(AppliedElsewhere(run.seconds()))
            return Rehearsal(())
        with (
            monitored_backend(session, held, limits=limits, emit=run.emit) as (backend, monitor),
            backend.rehearsal_transaction(),
        ):
            with _held_up_is_no_refusal():
                backend.prepare(upgrades=False)  # which would lock others out to the end
                plan = _planned(session, run, loaded)
            refuse_leftovers(session, plan)
            in_one = run.config.transaction == "all"
            rehearsal = _Rehearsing(backend, monitor, in_one=in_one).of(plan)
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
        if not (is_contention(sqlstate) or is_cancellation(sqlstate)):
            raise
        raise NoAnswer(
            "no-answer",
            f"one of initmig's own statements was interrupted: {error}",
            hint="rehearse again when the database is less busy, or raise --lock-timeout",
            server=error.problems[0].server,
        ) from error


def _planned(session: Session, run: Run, loaded: Loaded) -> tuple[Migration, ...]:
    """What `migrate` would run, the hooks behind it."""
    plan, owed = read_and_plan(session, run, loaded.pending)
    return (*plan, *(hook for hook in loaded.hooks if plan or hook.file in owed))


class _Rehearsing:
    """Runs migrations in the transaction that is open, and remembers what could not be run.

    *in_one* says that `migrate` would run them in one transaction, too.
    """

    def __init__(self, backend: Backend, monitor: StatementMonitor, *, in_one: bool) -> None:
        self._backend = backend
        self._monitor = monitor
        self._in_one = in_one
        home = backend.home
        history = (home.history, home.log, home.version, home.lock, home.own)
        self._observer = Observer(backend.query_by_path, backend.query, besides=history)
        asked, looked = self._answers(backend.query_by_path), self._answers(backend.query)
        self._look = looked
        self._aging = Aging(asked, looked, log=home.log, besides=history)
        self._left_out: list[str] = []
        # What runs now, in the transaction that `migrate` would run it in:
        self._is_first = self._begins = self._commits = True

    def of(self, plan: Sequence[Migration]) -> Rehearsal:
        """All of *plan*, up to the first that fails."""
        done: list[Rehearsed] = []
        for number, migration in enumerate(plan):
            self._is_first = number == 0
            self._begins = not self._in_one or self._is_first or _is_hook(migration)
            self._commits = not self._in_one or all(map(_is_hook, plan[number + 1 :]))
            rehearsed, failure = self._rehearse(migration)
            done.append(rehearsed)
            if rehearsed.why_not:
                self._left_out.append(migration.id)
            if failure:
                return Rehearsal(tuple(done), failure, len(plan))
        return Rehearsal(tuple(done), planned=len(plan))

    def _rehearse(self, migration: Migration) -> tuple[Rehearsed, MigrationFailed | None]:
        rehearsed = Rehearsed(migration.id, migration.file.path)
        if why_not := self._why_not(migration):
            return rehearsed._replace(why_not=why_not, held=self._observer.begin_migration()), None
        attempt = self._attempt(migration)
        aged = self._may_depend_on_time(attempt.failure) and self._aging.age()
        if aged:
            attempt = self._attempt(migration)
        failure = attempt.failure
        why_not = self._excuse(migration, attempt.done, failure) if failure else None
        rehearsed = rehearsed._replace(
            statements=tuple(attempt.done),
            held=attempt.held,
            why_not=why_not,
            note=_AGED if aged and not failure else "",
        )
        return rehearsed, None if why_not else failure

    def _attempt(self, migration: Migration) -> _Attempt:
        attempt = _Attempt(self._observer.begin_migration(), [])
        try:
            self._run(migration, attempt.done)
        except MigrationFailed as error:
            return attempt._replace(failure=error)
        return attempt

    def _may_depend_on_time(self, failure: MigrationFailed | None) -> bool:
        """Whether *failure* is of a kind that one `now()` for all migrations can cause."""
        if not failure or not self._begins or not self._backend.session.in_transaction:
            return False
        return failure.problems[0].server.sqlstate.startswith(_OF_DATA)

    def _why_not(self, migration: Migration) -> WhyNot | None:
        """Why *migration* cannot be run here; None where it can."""
        if not migration.transactional:
            return WhyNot("not-transactional", "not transactional")
        missing = [id for id in self._left_out if id in migration.depends]
        if not missing:
            return None
        return WhyNot("depends-on-not-rehearsed", f"depends on {_left_out(missing)}")

    def _run(self, migration: Migration, done: list[StatementImpact]) -> None:
        self._monitor.start(migration.id)
        try:
            with (
                naming_blockers(self._monitor),
                named(migration, _next_step),
                self._backend.rehearse_one(
                    migration.handle, mark=not _is_hook(migration), commits=self._commits
                ),
            ):
                for statement in migration.handle.statements():
                    done.append(self._observed(statement))  # noqa: PERF401 - one may fail
        finally:
            self._monitor.stop()

    def _observed(self, statement: Part) -> StatementImpact:
        started = time.monotonic()
        statement.run(self._backend)
        seconds = time.monotonic() - started
        return StatementImpact(statement.place, statement.sql, seconds, self._observer.impacts())

    def _excuse(
        self, migration: Migration, done: Sequence[StatementImpact], error: MigrationFailed
    ) -> WhyNot | None:
        """Why `migrate` might not meet this *error*; None if it certainly would.

        What the migration had *done* before is rolled back.
        """
        [problem] = error.problems
        # a step may have committed: then there is nothing to resume in
        if _is_certain(error) or not self._backend.session.in_transaction:
            return None
        why = self._only_here(migration, done, problem) or self._consequence()
        place = f"{problem.place}: " if problem.place else ""
        return why and why._replace(words=f"{why.words}: {place}{problem.message}")

    def _only_here(
        self, migration: Migration, done: Sequence[StatementImpact], problem: Problem
    ) -> WhyNot | None:
        if not self._begins:
            return None
        failure = Failure(
            problem,
            _failed(migration, done),
            [statement.sql for statement in done],
            is_first=self._is_first,
            is_python=not migration.file.is_sql,
            # behind a pooler a query guards the lock, but waits where the level is set
            may_set_transaction=migration.handle.sets_isolation
            or self._backend.session.is_dedicated,
        )
        return only_here(failure, self._look)

    def _consequence(self) -> WhyNot | None:
        if not self._left_out:
            return None
        return WhyNot("after-not-rehearsed", f"may need {_left_out(self._left_out)}")

    def _answers(self, ask: Ask) -> Ask:
        """As *ask*, and no rows where the server refuses the query."""

        def answer(sql: str) -> Sequence[tuple[Any, ...]]:
            try:
                with self._backend.transaction():
                    return ask(sql)
            except StatementFailed:
                return ()

        return answer


def _left_out(ids: Sequence[str]) -> str:
    were = "was" if len(ids) == 1 else "were"
    return f"{', '.join(ids)}, which {were} not rehearsed"


def _is_hook(migration: Migration) -> bool:
    return migration.id.startswith(HOOK)


def _is_certain(error: MigrationFailed) -> bool:
    """Whether this is a failure whatever ran before, or did not."""
    sqlstate, cause = error.problems[0].server.sqlstate, error.__cause__
    never_runs = isinstance(cause, StatementFailed) and cause.routine == PREVENTING
    return (
        is_cancellation(sqlstate)
        or is_contention(sqlstate)
        or sqlstate == _SYNTAX_ERROR
        or never_runs
    )


def _failed(migration: Migration, done: Sequence[StatementImpact]) -> str:
    """The SQL of what comes after what is *done*; the whole file of Python, and at the COMMIT."""
    statements = migration.handle.statements()
    sql = statements[len(done)].sql if len(done) < len(statements) else ""
    return sql or migration.handle.source or "\n".join(step.apply for step in migration.steps)


def _next_step(_: Migration, sqlstate: str) -> str:
    if is_cancellation(sqlstate):
        return "rolled back; raise --statement-timeout if it is too short"
    if is_contention(sqlstate):
        return "rolled back; rehearse again when the database is less busy, or raise --lock-timeout"
    return "rolled back; fix the migration and rehearse again"
