"""`serve`: migrates, then stays and answers whether every migration of this image is applied.

The main thread migrates and looks. Requests get their answers in another one, from what is known at
that moment, so that no request waits for the database.
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

LOOK_EVERY_SECONDS = 30.0

_LOOK_SECONDS = 10.0
"""The limit for one look: a server that takes longer cannot be used anyway."""

_NAP_SECONDS = 0.1
"""Python sees a signal that comes just before it falls asleep only when it wakes up."""

_MOST_SHOWN = 20
"""Pending migrations that an answer names: clients that never read it have it in memory."""

_OUTCOMES = ("running", "applied", "applied_elsewhere", "nothing_pending")


class State(Record):
    """All that answers are made of; replaced as a whole, so that none speaks of two moments."""

    begun: float
    """Seconds of the clock, as *ended*, which is None while the run goes on."""
    ended: float | None = None
    outcome: str = "running"
    history: HistoryRead | None = None
    """As it was read last."""
    trouble: str = "the database has not answered yet"
    """Why it is not known what is applied now; empty where it is."""
    refusal: str = ""
    """Why `migrate` would refuse to start, in words; empty where it would not."""
    doing: str = ""
    waited_for_database: float = 0.0
    waited_for_migrator: float = 0.0


def serve(
    config: Config,
    emit: Emit,
    clock: Clock = SYSTEM_CLOCK,
    *,
    interval: float = LOOK_EVERY_SECONDS,
) -> Result:
    """Migrate, then look every *interval* seconds until a signal; answer all the while.

    :raises ConfigError: it cannot listen; nothing was applied
    :raises InitmigError: any that `migrate` raises
    """
    listing = list_files(config.migrations)
    board = _Board(emit, clock)
    with listening(config.listen, board.answer, emit):
        result = migrate(config, board, clock)
        run = reading_run(config, listing, board, clock)
        try:
            board.end_run(result)
            _keep_looking(lambda: _look_and_report(run, board), clock, interval)
        except Stopped as stopped:
            summary = ServingEnded(str(stopped))
    emit(summary)
    return Result("stopped serving", result.ids, run.seconds(), summary)


def _keep_looking(look: Callable[[], None], clock: Clock, interval: float) -> NoReturn:
    """Let *look* run every *interval* seconds, until a signal."""
    while True:
        _pause(clock, interval)
        _in_thread(look)


def _pause(clock: Clock, seconds: float) -> None:
    until = clock.now() + seconds
    while (left := until - clock.now()) > 0:
        clock.sleep(min(left, _NAP_SECONDS))


def _in_thread(work: Callable[[], None]) -> None:
    """Run *work* where it holds up no signal: a name server or a database may let it hang."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)

    thread = Thread(target=run, name="look", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # as many threads as this user may have
        run()
    while thread.is_alive():
        thread.join(_NAP_SECONDS)
    done.result()


def reading_run(config: Config, listing: Listing, emit: Emit, clock: Clock) -> Run:
    """A run for `look`, which writes nothing."""
    return without_files(config, emit, clock)._replace(listing=listing, reads=True)


def _look_and_report(run: Run, board: _Board) -> None:
    refusal = ""
    try:
        look(run)
        board.see()
    except PlanError as error:
        board.see()
        refusal = mask_secrets(str(error))
    except InitmigError as error:
        board.lose_sight(mask_secrets(str(error)))
    board.refuse(refusal)
    board.report()


def look(run: Run) -> None:
    """Read what is applied, in one attempt, usually one query, without waiting.

    :raises PlanError: `migrate` would refuse to start
    :raises InitmigError: the database does not answer, or refuses
    """
    session = postgres.connect(run.settings)
    set_retry_handler(session, run, limit=_LOOK_SECONDS)
    try:
        with postgres.checking_answers():
            as_migrate_would(session, run, read_history(session, run, if_pending=True))
    finally:
        session.close()


class _Board:
    """Passes events on, and keeps what requests are answered from."""

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

    def see(self) -> None:
        self._state = self._state._replace(trouble="")

    def lose_sight(self, reason: str) -> None:
        self._state = self._state._replace(trouble=reason)

    def refuse(self, reason: str) -> None:
        self._state = self._state._replace(refusal=reason)

    def report(self) -> None:
        """Emit whether it is ready, if that has changed."""
        reasons = obstacles(self._state)
        if reasons != self._reported:
            self._reported = reasons
            history = self._state.history
            applied = history.applied if history else 0
            self._emit(NotReady(reasons) if reasons else Ready(applied))

    def answer(self, path: str) -> Answer:
        return answer(path, self._state, self._clock.now())


def ended(state: State, result: Result, now: float) -> State:
    """*state* once the run has ended with *result*; *now* in seconds of the state's clock."""
    state = state._replace(ended=now, doing="", outcome=result.outcome.replace(" ", "_"))
    if result.outcome != "applied elsewhere":
        return state
    # the result counts from the beginning of the run
    return state._replace(waited_for_migrator=result.seconds - state.waited_for_database)


def after(state: State, event: Event) -> State:
    """*state* once *event* has happened."""
    for part in (_history_after, _wait_after):
        state = part(state, event)
    return state


def _history_after(state: State, event: Event) -> State:
    match event:
        case HistoryRead():
            return state._replace(history=event, trouble="")
        case MigrationStarted():
            return state._replace(doing=event_words(event))
        case MigrationApplied():
            return state._replace(history=_with_applied(state.history, event.id))
    return state


def _wait_after(state: State, event: Event) -> State:
    match event:
        case WaitingForDatabase():
            return state._replace(trouble=event_words(event))
        case Connected():
            return state._replace(trouble="", waited_for_database=event.waited_seconds)
        case WaitingInQueue() | WaitingForYoyo():
            waited = event.waited_seconds
            return state._replace(doing=event_words(event), waited_for_migrator=waited)
        case LockAcquired():
            return state._replace(trouble="", doing="", waited_for_migrator=event.waited_seconds)
    return state


def _with_applied(history: HistoryRead | None, id: str) -> HistoryRead | None:
    if history is None or id not in history.pending:
        return history
    pending = tuple(each for each in history.pending if each != id)
    return history._replace(applied=history.applied + 1, pending=pending)


def obstacles(state: State) -> tuple[str, ...]:
    """Why it is not ready, in words; none where it is."""
    reasons = [state.trouble, state.refusal]
    if state.ended is None:
        reasons.append(state.doing or "the run has not finished")
    if state.history and state.history.pending:
        pending = state.history.pending
        shown = ", ".join(pending[:_MOST_SHOWN])
        more = len(pending) - _MOST_SHOWN
        reasons.append(f"{len(pending)} pending: {shown}{f' and {more} more' if more > 0 else ''}")
    return tuple(filter(None, reasons))


def answer(path: str, state: State, now: float) -> Answer:
    """The answer to GET *path*; *now* in seconds of the state's clock."""
    match path:
        case "/healthz":
            return plain(HTTPStatus.OK, "ok")
        case "/readyz":
            return _readiness(obstacles(state))
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
    registry = CollectorRegistry()  # not the library's own, which tells of the process
    registry.register(_Collector(state, now))
    return generate_latest(registry)


class _Collector(Record):
    state: State
    now: float

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _counts(self.state.history)
        yield from _run_metrics(self.state, self.now)


def _counts(history: HistoryRead | None) -> Iterator[GaugeMetricFamily]:
    """Without values while they are not known: a 0 would say that nothing is pending."""
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
    up.add_metric([], not state.trouble)
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
        (now if state.ended is None else state.ended) - state.begun,
    )
    waited = GaugeMetricFamily(
        "initmig_waited_seconds",
        "How long the last run waited for the database or for other migrators.",
        labels=["for"],
    )
    waited.add_metric(["database"], state.waited_for_database)
    waited.add_metric(["migrator"], state.waited_for_migrator)
    yield waited
