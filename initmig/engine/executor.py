"""Runs a plan, one transaction per migration, and retries failures that other sessions caused."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from initmig.core.causes import cause_of, is_cancellation, is_contention
from initmig.core.errors import InitmigError, MigrationFailed, Place
from initmig.core.events import (
    HookRan,
    MigrationApplied,
    MigrationRecorded,
    MigrationRetried,
    MigrationRolledBack,
    MigrationStarted,
)
from initmig.core.model import HOOK
from initmig.core.records import Record
from initmig.core.report_schedule import ReportSchedule
from initmig.core.retrying import error_of, retry
from initmig.engine.channel import Channel, open_channel
from initmig.engine.history_tables import create_lock_table, prepare
from initmig.engine.migration_runner import MigrationRunner
from initmig.history import store
from initmig.locking.blockers import StatementMonitor
from initmig.locking.lock import migration_lock
from initmig.locking.queue import Queue, check_writable
from initmig.postgres import (
    READ_ONLY,
    ClientFailed,
    StatementFailed,
    out_of_memory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tenacity import RetryCallState, Retrying

    from initmig.core.clock import Clock
    from initmig.core.errors import Problem
    from initmig.core.events import (
        Emit,
        Event,
    )
    from initmig.core.model import Migration
    from initmig.locking.lock import HeldLock
    from initmig.postgres import Session

    NextStep = Callable[[Migration, str], str]
    """Returns the hint for a failed migration and its SQLSTATE."""

_T = TypeVar("_T")

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_JITTER_SECONDS = 0.5
_LIVE_SECONDS = 2.0
_LOOK_UP_SECONDS = 1.0
"""A signal has to end a run within five seconds."""


class Limits(Record):
    """How long to wait and to run (seconds, 0 for no limit), and how often to retry."""

    queue_timeout: float
    lock_timeout: float
    statement_timeout: float
    lock_retries: int
    live: bool = False
    """Whether to report every few seconds what a statement is doing."""


class Executor:
    """Applies and rolls back migrations in one session; the caller holds the migration lock.

    Each method yields the id of a migration right after its commit, and then emits its event.
    The caller must read to the end.
    """

    def __init__(
        self,
        runner: MigrationRunner,
        monitor: StatementMonitor,
        *,
        lock_retries: int,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._runner = runner
        self._session = runner.session
        self._monitor = monitor
        self._lock_retries = lock_retries
        self._clock = clock
        self._emit = emit

    def apply_each(
        self,
        migrations: Sequence[Migration],
        *,
        due_hooks: Sequence[str] = (),
        next_step: NextStep | None = None,
    ) -> Iterator[str]:
        """Apply each of *migrations* in its own transaction, with its record.

        The hooks *due_hooks*, by id, become due once something is applied.

        :raises MigrationFailed: one failed; those before it are kept
        """
        act = partial(self._runner.apply, due_hooks=due_hooks)
        for position, migration in enumerate(migrations, 1):
            self._start(migration, position, len(migrations))
            apply = partial(self._run, migration, act, next_step=next_step)
            yield from self._committing([migration], apply, MigrationApplied)

    def apply_all(
        self, migrations: Sequence[Migration], *, due_hooks: Sequence[str] = ()
    ) -> Iterator[str]:
        """Apply *migrations*, at least one, with their records in one transaction.

        The hooks *due_hooks*, by id, become due.

        :raises MigrationFailed: one failed; nothing is kept
        """
        yield from self._committing(
            migrations,
            lambda: self._retrying(
                migrations[0], lambda: self._apply_in_one(migrations, due_hooks)
            ),
            MigrationApplied,
        )

    def _apply_in_one(
        self, migrations: Sequence[Migration], due_hooks: Sequence[str]
    ) -> list[float]:
        """The seconds that each of *migrations* took."""
        seconds = []
        with self._runner.one_transaction(migrations) as transaction:
            for position, migration in enumerate(migrations, 1):
                self._start(migration, position, len(migrations))
                self._monitor.start(migration.id)
                started = time.monotonic()
                with named(migration, _next_step):
                    transaction.apply(migration, due_hooks)
                seconds.append(time.monotonic() - started)
        return seconds

    def roll_back(
        self, migrations: Sequence[Migration], *, next_step: NextStep | None = None
    ) -> Iterator[str]:
        """Roll back each of *migrations*, in this order, in its own transaction.

        :raises MigrationFailed: one failed; those before it stay rolled back
        """
        for position, migration in enumerate(migrations, 1):
            self._start(migration, position, len(migrations))
            undo = partial(
                self._run,
                migration,
                self._runner.roll_back,
                next_step=next_step or _next_step_back,
            )
            yield from self._committing([migration], undo, MigrationRolledBack)

    def record(self, migrations: Sequence[Migration]) -> Iterator[str]:
        """Record *migrations* as applied, in this order and in one transaction; run nothing.

        :raises DatabaseRefused: the server refused the records; no record is kept
        """

        def record() -> list[float]:
            self._session.with_retries(lambda: self._runner.record(migrations))
            return [0.0] * len(migrations)

        yield from self._committing(migrations, record, lambda each, _: MigrationRecorded(each))

    def run_hooks(
        self, hooks: Sequence[Migration], *, next_step: NextStep | None = None
    ) -> Iterator[str]:
        """Run the post-apply *hooks*; as in yoyo, they are logged and not marked as applied.

        :raises MigrationFailed: one failed and stays due; what was applied before is kept
        """
        for hook in hooks:
            run = partial(self._run, hook, self._runner.run_hook, next_step=next_step)
            yield from self._committing([hook], run, HookRan)

    def _committing(
        self,
        migrations: Sequence[Migration],
        act: Callable[[], list[float]],
        event: Callable[[str, float], Event],
    ) -> Iterator[str]:
        """Yield the ids of *migrations* once *act* has committed them; emit an *event* for each.

        *act* returns the seconds that each took. If a signal arrives while a COMMIT waits for a
        standby, the server commits and reports that only in a warning, so the history is read.
        """
        started = time.monotonic()
        try:
            seconds = act()
        except KeyboardInterrupt:
            with suppress(InitmigError):
                for id in self._committed(migrations, undone=event is MigrationRolledBack):
                    yield id
                    self._emit(event(id, time.monotonic() - started))
            raise
        yield from (migration.id for migration in migrations)
        for migration, took in zip(migrations, seconds, strict=True):
            self._emit(event(migration.id, took))

    def _committed(self, migrations: Sequence[Migration], *, undone: bool) -> Iterator[str]:
        """The ids of the *migrations* that are applied, or rolled back if *undone*."""
        if not self._session.usable:
            return
        self._session.answer_timeout = _LOOK_UP_SECONDS
        applied = store.applied_ids(self._session)
        for migration in migrations:
            # the history contains a hook only until the hook has run
            if (migration.id in applied) != (undone or migration.id.startswith(HOOK)):
                yield migration.id

    def _start(self, migration: Migration, position: int, total: int) -> None:
        self._emit(MigrationStarted(migration.id, migration.file.path, position, total))

    def _run(
        self,
        migration: Migration,
        unit: Callable[[Migration], None],
        *,
        next_step: NextStep | None = None,
    ) -> list[float]:
        """The seconds of the successful attempt, as one item; *next_step* is for `named`."""

        def attempt() -> list[float]:
            started = time.monotonic()
            with named(migration, next_step or _next_step):
                unit(migration)
            return [time.monotonic() - started]

        return self._retrying(migration, attempt)

    def _retrying(self, migration: Migration, attempt: Callable[[], _T]) -> _T:
        """Run *attempt*, and retry it after a pause if another session caused the failure."""
        with naming_blockers(self._monitor):
            return retry(
                lambda: self._watched(migration, attempt),
                _is_retryable,
                lambda: self._retries_of(migration),
            )

    def _retries_of(self, migration: Migration) -> Retrying:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt
        from tenacity.wait import wait_exponential_jitter

        return Retrying(
            retry=retry_if_exception(_is_retryable),
            wait=wait_exponential_jitter(
                multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS, jitter=_JITTER_SECONDS
            ),
            stop=stop_after_attempt(self._lock_retries + 1),
            before_sleep=lambda state: self._emit(self._retried(migration, state)),
            sleep=self._clock.sleep,
            reraise=True,
        )

    def _judge(self, error: MigrationFailed) -> None:
        """Add the setting that caused *error* to its message.

        :raises DatabaseUnavailable: the server is read-only, so the migration is not the cause
        """
        if error.sqlstate == READ_ONLY and self._session.usable:
            check_writable(self._session)
        self._session.add_setting_source(error)

    def _watched(self, migration: Migration, attempt: Callable[[], _T]) -> _T:
        self._monitor.start(migration.id)
        try:
            return attempt()
        except MigrationFailed as error:
            self._monitor.stop()
            self._judge(error)
            raise
        finally:
            self._monitor.stop()

    def _retried(self, migration: Migration, state: RetryCallState) -> Event:
        server = error_of(state).server
        return MigrationRetried(
            migration.id,
            cause_of(server.sqlstate).name,
            server.sqlstate,
            state.attempt_number,
            self._lock_retries,
            state.upcoming_sleep,
            self._monitor.blockers_of(server),
        )


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, MigrationFailed) and is_contention(error.sqlstate)


@contextmanager
def naming_blockers(monitor: StatementMonitor) -> Iterator[None]:
    """Add the blocking sessions that *monitor* has seen to a failure that they caused."""
    try:
        yield
    except MigrationFailed as error:
        [problem] = error.problems
        blockers = monitor.blockers_of(problem.server) if _is_retryable(error) else ()
        if blockers:
            message = f"{problem.message}; blocked by {'; '.join(blockers)}"
            error.problems = (problem._replace(message=message),)
        raise


@contextmanager
def named(migration: Migration, next_step: NextStep) -> Iterator[None]:
    """Translate an error of the server or the client in the body to a failure of *migration*.

    *next_step* returns the hint for the migration and the SQLSTATE.
    """
    try:
        yield
    except StatementFailed as error:
        from initmig.sql.masking import masked_problem  # only a failed run needs it

        error.masked_by(masked_problem)
        raise MigrationFailed(
            error.id,
            f"{migration.id} failed: {error}",
            hint=_advised(migration, error, next_step(migration, error.sqlstate)),
            place=error.place or Place(migration.file.path),
            server=error.server,
        ) from error
    except ClientFailed as error:
        # change this instance, because each later call on its connection raises it again
        error.problems = (_of_client(migration, error.problems[0]),)
        raise
    except MemoryError as error:
        problem = _of_client(migration, out_of_memory("Python could not allocate more").problems[0])
        raise ClientFailed.of((problem,)) from error


def _advised(migration: Migration, error: StatementFailed, hint: str) -> str:
    """*hint*, and the change that *error* recommends, or that its use of transactions requires."""
    from initmig.sql.not_in_transaction import advice_after  # only a failed run needs it

    server = error.server
    change = error.problems[0].hint or advice_after(
        migration, server.sqlstate, error.routine, server.context
    )
    return f"{hint}: {change}" if change else hint


def _of_client(migration: Migration, problem: Problem) -> Problem:
    """The *problem* of libpq or Python as a problem of *migration*, which is not recorded."""
    kept = "rolled back" if migration.transactional else "the parts before this one are kept"
    return problem._replace(
        message=f"{migration.id} failed: {problem.message}",
        hint=f"{kept}; {problem.hint}",
        place=problem.place or Place(migration.file.path),
    )


def _next_step(migration: Migration, sqlstate: str) -> str:
    if not migration.transactional:
        return _RESUME
    return f"rolled back; {advice(sqlstate, otherwise='fix the migration and run again')}"


def _next_step_back(migration: Migration, sqlstate: str) -> str:
    """`_next_step` after a failed rollback: the migration is still applied."""
    if not migration.transactional:
        return _RESUME
    next_step = advice(sqlstate, otherwise="fix the rollback and run again")
    return f"{migration.id} is still applied; {next_step}"


_RESUME = (
    "the parts before this one are kept; fix the cause and run again to resume here."
    " If you change the file, run once with --changed=allow"
)


def advice(sqlstate: str, *, otherwise: str) -> str:
    """The next step after a failure with *sqlstate*: *otherwise*, unless others caused it."""
    if is_cancellation(sqlstate):
        return "run again, and raise --statement-timeout if it is too short"
    if is_contention(sqlstate):
        return "run again when the database is less busy, or raise --lock-timeout"
    return otherwise


@contextmanager
def locked_executor(
    session: Session,
    *,
    limits: Limits,
    clock: Clock,
    emit: Emit,
    is_needed: Callable[[], bool],
) -> Iterator[Executor | None]:
    """An executor that holds the migration lock, or None once *is_needed* returns False.

    :raises InitmigError: as `migration_lock`
    """
    queue = Queue(limits.queue_timeout, clock, emit, is_needed)
    with migration_lock(session, queue, create_lock_table) as held:
        if held is None:
            yield None
            return
        with monitored_channel(session, held, limits=limits, emit=emit) as (channel, monitor):
            runner = MigrationRunner(channel, session.with_retries(lambda: prepare(channel)))
            yield Executor(
                runner, monitor, lock_retries=limits.lock_retries, clock=clock, emit=emit
            )


@contextmanager
def monitored_channel(
    session: Session, held: HeldLock, *, limits: Limits, emit: Emit
) -> Iterator[tuple[Channel, StatementMonitor]]:
    """A channel that respects *limits* while the lock is *held*, and a monitor of its work."""
    look_every = limits.lock_timeout / 2 or float("inf")
    schedule = _live if limits.live else ReportSchedule
    with StatementMonitor(
        session, pid=held.pid, look_every=look_every, emit=emit, schedule=schedule
    ) as monitor:
        channel = open_channel(
            session,
            emit=emit,
            settings=_settings(session, limits) + monitor.mark,
            guard=held.guard,
            on_statement=monitor.set_place,
        )
        yield channel, monitor


def _live() -> ReportSchedule:
    return ReportSchedule(_LIVE_SECONDS, grows=False)


def _settings(session: Session, limits: Limits) -> str:
    """The settings for each transaction. Behind a pooler, settings last only for a transaction."""
    if not session.is_dedicated:
        return session.timeouts(limits.lock_timeout, limits.statement_timeout, local=True)
    if limits.statement_timeout:  # the session already has the other settings
        session.add_session_settings(
            session.timeouts(limits.lock_timeout, limits.statement_timeout)
        )
    return ""
