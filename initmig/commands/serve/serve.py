"""`serve`: migrates, then keeps running and reports over HTTP whether migrations are pending.

The main thread migrates and checks the database. Another thread answers requests from the latest
known state, so that no request waits for the database.
"""

from __future__ import annotations

from concurrent.futures import Future
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily

from initmig import postgres
from initmig.commands.checks import as_migrate_would
from initmig.commands.context import set_retry_handler, without_files
from initmig.commands.migrate import migrate
from initmig.commands.reading import read_history
from initmig.commands.result import Result
from initmig.commands.serve.listener import Answer, listening, plain
from initmig.config.dsn import mask_secrets
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import InitmigError, PlanError
from initmig.core.events import (
    Connected,
    HistoryRead,
    LockAcquired,
    MigrationApplied,
    MigrationStarted,
    NotReady,
    Ready,
    ServingEnded,
    WaitingForDatabase,
    WaitingForYoyo,
    WaitingInQueue,
)
from initmig.core.records import Record
from initmig.core.signals import Stopped
from initmig.core.visible import in_lines
from initmig.migrations.files import list_files
from initmig.reporting.logs import event_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initmig.commands.context import Run
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit, Event
    from initmig.core.model import Listing

CHECK_INTERVAL_SECONDS = 30.0

_CHECK_SECONDS = 10.0
"""The limit for one check: a server that takes longer cannot be used anyway."""

_LONGEST_SLEEP_SECONDS = 0.1
"""The longest sleep: Python handles a signal that arrives just before a sleep only after it."""

_SHOWN_PENDING = 20
"""Pending migrations that an answer names. It limits the memory for clients that read slowly."""

_OUTCOMES = ("running", "applied", "applied_elsewhere", "nothing_pending")


class State(Record):
    """The facts for all answers. Replaced as a whole, so that each answer is consistent."""

    started: float
    """When the run began, in seconds of the clock."""
    ended: float | None = None
    """When the run ended, in seconds of the clock; None while it continues."""
    outcome: str = "running"
    history: HistoryRead | None = None
    """The history when it was last read."""
    database_problem: str = "the database has not answered yet"
    """Why the applied migrations are unknown now; empty if they are known."""
    refusal: str = ""
    """Why `migrate` would refuse to start, in words; empty if it would start."""
    activity: str = ""
    waited_for_database: float = 0.0
    waited_for_migrator: float = 0.0


def serve(
    config: Config,
    emit: Emit,
    clock: Clock = SYSTEM_CLOCK,
    *,
    interval: float = CHECK_INTERVAL_SECONDS,
) -> Result:
    """Migrate, then check the database every *interval* seconds until a signal.

    Requests are answered from the beginning.

    :raises ConfigError: the address or a thread is not available; nothing was applied
    :raises InitmigError: any error that `migrate` raises
    """
    listing = list_files(config.migrations)
    keeper = _StateKeeper(emit, clock)
    with listening(config.listen, keeper.answer, emit):
        result = migrate(config, keeper, clock)
        run = reading_run(config, listing, keeper, clock)
        try:
            keeper.end_run(result)
            _check_repeatedly(lambda: _check_and_report(run, keeper), clock, interval)
        except Stopped as stopped:
            summary = ServingEnded(str(stopped))
    emit(summary)
    return Result("stopped serving", result.ids, run.seconds(), summary)


def _check_repeatedly(check: Callable[[], None], clock: Clock, interval: float) -> NoReturn:
    """Call *check* every *interval* seconds, until a signal."""
    while True:
        _pause(clock, interval)
        _in_thread(check)


def _pause(clock: Clock, seconds: float) -> None:
    until = clock.now() + seconds
    while (left := until - clock.now()) > 0:
        clock.sleep(min(left, _LONGEST_SLEEP_SECONDS))


def _in_thread(work: Callable[[], None]) -> None:
    """Run *work* in a thread, because it may hang, and this thread must still handle signals."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - `done.result` raises it again
            done.set_exception(error)

    thread = Thread(target=run, name="check", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the user's limit on threads is reached
        run()
    while thread.is_alive():
        thread.join(_LONGEST_SLEEP_SECONDS)
    done.result()


def reading_run(config: Config, listing: Listing, emit: Emit, clock: Clock) -> Run:
    """A run for `check`, which writes nothing."""
    return without_files(config, emit, clock)._replace(listing=listing, reads=True)


def _check_and_report(run: Run, keeper: _StateKeeper) -> None:
    refusal = ""
    try:
        check(run)
        keeper.database_answered()
    except PlanError as error:
        keeper.database_answered()
        refusal = mask_secrets(str(error))
    except InitmigError as error:
        keeper.database_failed(mask_secrets(str(error)))
    keeper.refuse(refusal)
    keeper.report()


def check(run: Run) -> None:
    """Read the applied migrations in one attempt, usually with one query, without waiting.

    :raises PlanError: `migrate` would refuse to start
    :raises InitmigError: the database does not answer, or refuses
    """
    session = postgres.connect(run.settings)
    set_retry_handler(session, run, limit=_CHECK_SECONDS)
    try:
        with postgres.checking_answers():
            as_migrate_would(session, run, read_history(session, run, if_pending=True))
    finally:
        session.close()


class _StateKeeper:
    """Forwards events, and keeps the state that answers use."""

    def __init__(self, emit: Emit, clock: Clock) -> None:
        self._emit = emit
        self._clock = clock
        self._state = State(clock.now())
        self._reported: tuple[str, ...] | None = None

    def __call__(self, event: Event) -> None:
        self._state = after(self._state, event)
        self._emit(event)

    def end_run(self, result: Result) -> None:
        self._state = ended(self._state, result, self._clock.now())
        self.report()

    def database_answered(self) -> None:
        self._state = self._state._replace(database_problem="")

    def database_failed(self, reason: str) -> None:
        self._state = self._state._replace(database_problem=reason)

    def refuse(self, reason: str) -> None:
        self._state = self._state._replace(refusal=reason)

    def report(self) -> None:
        """Emit Ready or NotReady if the state has changed."""
        reasons = reasons_not_ready(self._state)
        if reasons != self._reported:
            self._reported = reasons
            history = self._state.history
            applied = history.applied if history else 0
            self._emit(NotReady(reasons) if reasons else Ready(applied))

    def answer(self, path: str) -> Answer:
        return answer(path, self._state, self._clock.now())


def ended(state: State, result: Result, now: float) -> State:
    """*state* after the run has ended with *result*; *now* in seconds of the state's clock."""
    state = state._replace(ended=now, activity="", outcome=result.outcome.replace(" ", "_"))
    if result.outcome != "applied elsewhere":
        return state
    # `seconds` counts from the beginning of the run
    return state._replace(waited_for_migrator=result.seconds - state.waited_for_database)


def after(state: State, event: Event) -> State:
    """*state* after *event*."""
    for part in (_history_after, _wait_after):
        state = part(state, event)
    return state


def _history_after(state: State, event: Event) -> State:
    match event:
        case HistoryRead():
            return state._replace(history=event, database_problem="")
        case MigrationStarted():
            return state._replace(activity=event_words(event))
        case MigrationApplied():
            return state._replace(history=_with_applied(state.history, event.id))
    return state


def _wait_after(state: State, event: Event) -> State:
    match event:
        case WaitingForDatabase():
            return state._replace(database_problem=event_words(event))
        case Connected():
            return state._replace(database_problem="", waited_for_database=event.waited_seconds)
        case WaitingInQueue() | WaitingForYoyo():
            waited = event.waited_seconds
            return state._replace(activity=event_words(event), waited_for_migrator=waited)
        case LockAcquired():
            return state._replace(
                database_problem="", activity="", waited_for_migrator=event.waited_seconds
            )
    return state


def _with_applied(history: HistoryRead | None, id: str) -> HistoryRead | None:
    if history is None or id not in history.pending:
        return history
    pending = tuple(each for each in history.pending if each != id)
    return history._replace(applied=history.applied + 1, pending=pending)


def reasons_not_ready(state: State) -> tuple[str, ...]:
    """Why initmig is not ready, in words; empty if it is ready."""
    reasons = [state.database_problem, state.refusal]
    if state.ended is None:
        reasons.append(state.activity or "the run has not finished")
    if state.history and state.history.pending:
        pending = state.history.pending
        shown = ", ".join(pending[:_SHOWN_PENDING])
        more = len(pending) - _SHOWN_PENDING
        reasons.append(f"{len(pending)} pending: {shown}{f' and {more} more' if more > 0 else ''}")
    return tuple(filter(None, reasons))


def answer(path: str, state: State, now: float) -> Answer:
    """The answer to GET *path*; *now* in seconds of the state's clock."""
    match path:
        case "/healthz":
            return plain(HTTPStatus.OK, "ok")
        case "/readyz":
            return _readiness(reasons_not_ready(state))
        case "/metrics":
            return Answer(HTTPStatus.OK, exposition(state, now), CONTENT_TYPE_PLAIN_0_0_4)
        case _:
            return plain(HTTPStatus.NOT_FOUND, "not found; use /healthz, /readyz or /metrics")


def _readiness(reasons: tuple[str, ...]) -> Answer:
    if reasons:
        return plain(
            HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(["not ready", *map(in_lines, reasons)])
        )
    return plain(HTTPStatus.OK, "ready")


def exposition(state: State, now: float) -> bytes:
    """The metrics of *state* in Prometheus' text format."""
    registry = CollectorRegistry()  # the library's default registry has metrics of the process
    registry.register(_Collector(state, now))
    return generate_latest(registry)


class _Collector(Record):
    state: State
    now: float

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _counts(self.state.history)
        yield from _run_metrics(self.state, self.now)


def _counts(history: HistoryRead | None) -> Iterator[GaugeMetricFamily]:
    """Metrics without values until they are known: 0 would mean that nothing is pending."""
    pending = None if history is None else len(history.pending)
    for state, help, value in (
        ("pending", "Pending migrations of this image.", pending),
        ("applied", "Applied migrations of this image.", history and history.applied),
        (
            "unknown",
            "Applied migrations that are unknown to this image.",
            history and history.unknown,
        ),
    ):
        yield GaugeMetricFamily(f"initmig_migrations_{state}", help, value)


def _run_metrics(state: State, now: float) -> Iterator[GaugeMetricFamily]:
    up = GaugeMetricFamily(
        "initmig_database_up", "1 if the database answered the last query, else 0."
    )
    up.add_metric([], not state.database_problem)
    yield up
    outcome = GaugeMetricFamily(
        "initmig_last_run_outcome",
        "1 for the outcome of the last run, 0 for the others.",
        labels=["outcome"],
    )
    for each in _OUTCOMES:
        outcome.add_metric([each], each == (state.outcome if state.ended else "running"))
    yield outcome
    yield GaugeMetricFamily(
        "initmig_last_run_duration_seconds",
        "Duration of the last run; of one that is running, so far.",
        (now if state.ended is None else state.ended) - state.started,
    )
    waited = GaugeMetricFamily(
        "initmig_waited_seconds",
        "How long the last run waited for the database or for other migrators.",
        labels=["for"],
    )
    waited.add_metric(["database"], state.waited_for_database)
    waited.add_metric(["migrator"], state.waited_for_migrator)
    yield waited
