"""Runs the pending migrations in one transaction, observes them, and rolls back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from initmig.commands.applying import Loaded, decide_now, get_ready, load, refuse_leftovers
from initmig.commands.checks import decide_first, is_still_needed
from initmig.commands.context import begin, finished, with_session
from initmig.commands.rehearse.backdating import Backdating
from initmig.commands.rehearse.impact import (
    NotRehearsed,
    Rehearsal,
    RehearsedMigration,
    StatementImpact,
)
from initmig.commands.rehearse.observation import Observer
from initmig.commands.rehearse.shared_transaction import Failure, find_reason
from initmig.core.causes import is_cancellation, is_contention
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import DatabaseRefused, MigrationFailed
from initmig.core.events import AppliedElsewhere, NothingPending
from initmig.core.model import HOOK
from initmig.core.records import Record
from initmig.engine.executor import monitored_channel, named, naming_blockers
from initmig.engine.history_tables import create_lock_table, prepare
from initmig.engine.rehearsal import rehearsal
from initmig.engine.transactions import savepoint
from initmig.locking.lock import lock_for_rehearsal
from initmig.locking.queue import Queue
from initmig.migrations.refusals import with_baseline
from initmig.postgres import NoAnswer, StatementFailed
from initmig.sql.not_in_transaction import PREVENTING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.rehearse.backdating import Query
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import Problem
    from initmig.core.events import Emit
    from initmig.core.model import Migration
    from initmig.engine.channel import Channel
    from initmig.engine.parts import Part
    from initmig.engine.recorder import Recorder
    from initmig.engine.rehearsal import RehearsalTransaction
    from initmig.locking.blockers import StatementMonitor
    from initmig.postgres import Session

_SYNTAX_ERROR = "42601"

_MAYBE_TIME_DEPENDENT = ("22", "23", "P0")
"""SQLSTATE classes: data exceptions, constraint violations, and exceptions of PL/pgSQL."""

_BACKDATED = (
    "rehearsed with earlier times in the rows of earlier migrations: a rehearsal has one now()"
    " for all migrations, which made it fail at first"
)


class _Turn(Record):
    """A migration, and its position in the transactions that `migrate` would use."""

    migration: Migration
    is_first: bool
    """Whether it is the first migration."""
    begins: bool
    """Whether `migrate` would begin a transaction for it."""
    commits: bool
    """Whether `migrate` would commit after it."""


class _Attempt(Record):
    """One run of a migration."""

    locked_before: tuple[tuple[str, str], ...]
    """As in `RehearsedMigration`."""
    done: list[StatementImpact]
    """The statements that succeeded."""
    failure: MigrationFailed | None = None


def rehearse(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Rehearsal:
    """Do what `migrate` would do now, and roll back.

    :raises InitmigError: `migrate` would refuse to start, or timed out waiting for another migrator
    """
    run = begin(config, emit, clock)
    return finished(run, lambda: with_session(run, lambda session: _rehearse(session, run)))


def _rehearse(session: Session, run: Run) -> Rehearsal:
    decision = decide_first(session, run)
    if not decision.is_work:
        nothing = NothingPending(len(run.listing.migrations), len(decision.left.pending))
        return Rehearsal("nothing pending", (), run.seconds(), summary=nothing)
    loaded = load(run, decision)
    limits = get_ready(session, run)
    queue = Queue(limits.queue_timeout, run.clock, run.emit, lambda: is_still_needed(session, run))
    with lock_for_rehearsal(session, queue, create_lock_table) as held:
        if held is None:
            seconds = run.seconds()
            elsewhere = AppliedElsewhere(seconds)
            return Rehearsal("applied elsewhere", (), seconds, summary=elsewhere)
        with (
            monitored_channel(session, held, limits=limits, emit=run.emit) as (channel, monitor),
            rehearsal(channel) as transaction,
        ):
            with _interruption_as_no_answer():
                # an upgrade would lock the history until the end
                recorder = prepare(channel, upgrades=False)
                plan = _planned(session, run, loaded)
            refuse_leftovers(session, plan)
            in_one_transaction = run.config.transaction == "all"
            rehearser = _Rehearser(
                channel, transaction, recorder, monitor, in_one_transaction=in_one_transaction
            )
            done, failure = rehearser.run(plan)
            if failure and loaded.nothing_applied:
                failure.problems = tuple(map(with_baseline, failure.problems))
            ids = tuple(each.id for each in done if not each.not_rehearsed)
            return Rehearsal("rehearsed", ids, run.seconds(), done, failure, len(plan))


@contextmanager
def _interruption_as_no_answer() -> Iterator[None]:
    """Turn the interruption of an internal statement into an error without a retry.

    The failed transaction cannot run the statement again.

    :raises NoAnswer: another session, or a timeout, interrupted a statement in the block
    """
    try:
        yield
    except (DatabaseRefused, StatementFailed) as error:
        sqlstate = error.sqlstate
        if not (is_contention(sqlstate) or is_cancellation(sqlstate)):
            raise
        raise NoAnswer(
            "no-answer",
            f"one of initmig's own statements was interrupted: {error}",
            hint="rehearse again when the database is less busy, or raise --lock-timeout",
            server=error.server,
        ) from error


def _planned(session: Session, run: Run, loaded: Loaded) -> tuple[Migration, ...]:
    """The migrations that `migrate` would run, followed by the hooks."""
    decision = decide_now(session, run, loaded.pending)
    return (*decision.plan, *loaded.due(decision))


class _Rehearser:
    """Runs migrations in the open transaction, and remembers the ones that it skipped.

    *in_one_transaction* is whether `migrate` would run them in one transaction, too.
    """

    def __init__(
        self,
        channel: Channel,
        transaction: RehearsalTransaction,
        recorder: Recorder,
        monitor: StatementMonitor,
        *,
        in_one_transaction: bool,
    ) -> None:
        self._channel = channel
        self._transaction = transaction
        self._recorder = recorder
        self._monitor = monitor
        self._in_one_transaction = in_one_transaction
        batch, home = channel.batch, channel.home
        history = (home.history, home.log, home.version, home.lock, home.own)
        self._observer = Observer(batch.query_by_path, batch.query, excluded=history)
        query = self._or_no_rows(batch.query_by_path)
        self._query_catalogs = self._or_no_rows(batch.query)
        self._backdating = Backdating(query, self._query_catalogs, log=home.log, excluded=history)
        self._skipped: list[str] = []

    def run(
        self, plan: Sequence[Migration]
    ) -> tuple[tuple[RehearsedMigration, ...], MigrationFailed | None]:
        """Rehearse *plan* up to the first migration that fails; the results, and its failure."""
        done: list[RehearsedMigration] = []
        for turn in self._turns(plan):
            rehearsed, failure = self._rehearse(turn)
            done.append(rehearsed)
            if rehearsed.not_rehearsed:
                self._skipped.append(turn.migration.id)
            if failure:
                return tuple(done), failure
        return tuple(done), None

    def _turns(self, plan: Sequence[Migration]) -> Iterator[_Turn]:
        separate = not self._in_one_transaction
        for number, migration in enumerate(plan):
            is_first = number == 0
            yield _Turn(
                migration,
                is_first,
                begins=separate or is_first or _is_hook(migration),
                commits=separate or all(map(_is_hook, plan[number + 1 :])),
            )

    def _rehearse(self, turn: _Turn) -> tuple[RehearsedMigration, MigrationFailed | None]:
        migration = turn.migration
        rehearsed = RehearsedMigration(migration.id, migration.file.path)
        if not_rehearsed := self._reason_not_to_run(migration):
            locked = self._observer.begin_migration()
            return rehearsed._replace(not_rehearsed=not_rehearsed, locked_before=locked), None
        attempt = self._attempt(turn)
        backdated = self._may_depend_on_time(turn, attempt.failure) and self._backdating.apply()
        if backdated:
            attempt = self._attempt(turn)
        failure = attempt.failure
        not_rehearsed = self._excuse(turn, attempt.done, failure) if failure else None
        rehearsed = rehearsed._replace(
            statements=tuple(attempt.done),
            locked_before=attempt.locked_before,
            not_rehearsed=not_rehearsed,
            note=_BACKDATED if backdated and not failure else "",
        )
        return rehearsed, None if not_rehearsed else failure

    def _attempt(self, turn: _Turn) -> _Attempt:
        attempt = _Attempt(self._observer.begin_migration(), [])
        try:
            self._execute(turn, attempt.done)
        except MigrationFailed as error:
            return attempt._replace(failure=error)
        return attempt

    def _may_depend_on_time(self, turn: _Turn, failure: MigrationFailed | None) -> bool:
        """Whether one `now()` for all migrations can cause this kind of *failure*."""
        if not failure or not turn.begins or not self._channel.session.in_transaction:
            return False
        return failure.sqlstate.startswith(_MAYBE_TIME_DEPENDENT)

    def _reason_not_to_run(self, migration: Migration) -> NotRehearsed | None:
        """The reason why *migration* cannot run here, or None if it can."""
        if not migration.transactional:
            return NotRehearsed("not-transactional", "not transactional")
        missing = [id for id in self._skipped if id in migration.depends]
        if not missing:
            return None
        return NotRehearsed("depends-on-not-rehearsed", f"depends on {_names_skipped(missing)}")

    def _execute(self, turn: _Turn, done: list[StatementImpact]) -> None:
        migration = turn.migration
        self._monitor.start(migration.id)
        try:
            with (
                naming_blockers(self._monitor),
                named(migration, _next_step),
                self._transaction.rehearsing(
                    migration, partial(self._record, migration), commits=turn.commits
                ),
            ):
                for statement in migration.handle.statements():
                    done.append(self._observed(statement))  # noqa: PERF401 - one may fail
        finally:
            self._monitor.stop()

    def _record(self, migration: Migration, seconds: float) -> None:
        if _is_hook(migration):
            self._recorder.hook_ran(migration)
        else:
            self._recorder.applied(migration, seconds)

    def _observed(self, statement: Part) -> StatementImpact:
        started = time.monotonic()
        statement.run(self._channel)
        seconds = time.monotonic() - started
        return StatementImpact(statement.place, statement.sql, seconds, self._observer.impacts())

    def _excuse(
        self, turn: _Turn, done: Sequence[StatementImpact], error: MigrationFailed
    ) -> NotRehearsed | None:
        """The reason why `migrate` might not meet this *error*, or None if it would.

        The statements that the migration had *done* are rolled back.
        """
        [problem] = error.problems
        # a step may have committed, and then no transaction is left to continue in
        if _fails_in_migrate_too(error) or not self._channel.session.in_transaction:
            return None
        why = self._shared_transaction_reason(turn, done, problem) or self._skipped_reason()
        place = f"{problem.place}: " if problem.place else ""
        return why and why._replace(words=f"{why.words}: {place}{problem.message}")

    def _shared_transaction_reason(
        self, turn: _Turn, done: Sequence[StatementImpact], problem: Problem
    ) -> NotRehearsed | None:
        if not turn.begins:
            return None
        migration = turn.migration
        failure = Failure(
            problem,
            _failed(migration, done),
            [statement.sql for statement in done],
            is_first=turn.is_first,
            is_python=not migration.file.is_sql,
            # behind a pooler, `migrate` first guards the lock with a query, unless the file sets
            # the isolation level
            may_set_transaction=migration.handle.sets_isolation
            or self._channel.session.is_dedicated,
        )
        return find_reason(failure, self._query_catalogs)

    def _skipped_reason(self) -> NotRehearsed | None:
        if not self._skipped:
            return None
        return NotRehearsed("after-not-rehearsed", f"may need {_names_skipped(self._skipped)}")

    def _or_no_rows(self, query: Query) -> Query:
        """A function like *query* that returns no rows if the server refuses a query."""

        def answer(sql: str) -> Sequence[tuple[Any, ...]]:
            try:
                with savepoint(self._channel.batch):
                    return query(sql)
            except StatementFailed:
                return ()

        return answer


def _names_skipped(ids: Sequence[str]) -> str:
    were = "was" if len(ids) == 1 else "were"
    return f"{', '.join(ids)}, which {were} not rehearsed"


def _is_hook(migration: Migration) -> bool:
    return migration.id.startswith(HOOK)


def _fails_in_migrate_too(error: MigrationFailed) -> bool:
    """Whether *error* does not depend on the migrations that ran before, or were skipped."""
    sqlstate, cause = error.sqlstate, error.__cause__
    never_runs = isinstance(cause, StatementFailed) and cause.routine == PREVENTING
    return (
        is_cancellation(sqlstate)
        or is_contention(sqlstate)
        or sqlstate == _SYNTAX_ERROR
        or never_runs
    )


def _failed(migration: Migration, done: Sequence[StatementImpact]) -> str:
    """The SQL of the statement after the ones *done*; the whole file for Python or the COMMIT."""
    statements = migration.handle.statements()
    sql = statements[len(done)].sql if len(done) < len(statements) else ""
    return sql or migration.handle.source or "\n".join(step.apply for step in migration.steps)


def _next_step(_: Migration, sqlstate: str) -> str:
    if is_cancellation(sqlstate):
        return "rolled back; raise --statement-timeout if it is too short"
    if is_contention(sqlstate):
        return "rolled back; rehearse again when the database is less busy, or raise --lock-timeout"
    return "rolled back; fix the migration and rehearse again"
