"""Wait for the database: which errors to retry, for how long, and how often to report."""

from __future__ import annotations

from initmig.core.durations import format_duration
from initmig.core.errors import DatabaseUnavailable, EmptySecret, InitmigError, MigrationsPending
from initmig.core.records import TYPE_CHECKING
from initmig.core.retrying import error_of, retry
from initmig.core.run_events import Connected, WaitingForDatabase, WaitingForMigrations
from initmig.core.signals import stop_takes_precedence
from initmig.postgres import LoginRefused, NoAnswer, checking_answers

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    from tenacity import Retrying

    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.postgres import Session

    _T = TypeVar("_T")


_WORTH_WAITING = (DatabaseUnavailable, EmptySecret, LoginRefused, MigrationsPending)

_REFUSED_SECONDS = 10.0
"""A server that is being set up refuses a login only for a moment. After this, it is an error."""

_SHORTEST_LIMIT_SECONDS = 5.0
"""For statements: a wait timeout of 0 applies only to connecting."""

_ONE_TRY_SECONDS = 60.0
"""For a single attempt to connect. Each address has its connect timeout within this."""

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 3.0


def with_session(
    connect: Callable[[float], Session], work: Callable[[Session], _T], outage: Outage
) -> _T:
    """Call *work* with a session, and retry while waiting can help. Return its result.

    *connect* is called with its limit in seconds.

    :raises DatabaseUnavailable: the timeout of *outage* is over
    :raises EmptySecret: the same, as are LoginRefused and MigrationsPending
    """

    def attempt() -> _T:
        outage.start_attempt()
        session = connect(outage.connect_limit())
        try:
            outage.record_connected()
            with stop_takes_precedence(), checking_answers():
                return work(session)
        finally:
            session.close()

    return retry(attempt, _is_worth_waiting, lambda: _retrying(outage))


def _is_worth_waiting(error: BaseException) -> bool:
    return isinstance(error, _WORTH_WAITING) and not isinstance(error, NoAnswer)


def _retrying(outage: Outage) -> Retrying:
    from tenacity import Retrying, retry_if_exception, wait_random_exponential

    # full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    pause = wait_random_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS)
    return Retrying(
        retry=retry_if_exception(_is_worth_waiting),
        after=lambda state: outage.record_error(error_of(state)),
        wait=lambda state: min(pause(state), outage.seconds_left()),
        stop=lambda _: outage.is_over(),
        before_sleep=lambda state: outage.report(error_of(state)),
        sleep=outage.clock.sleep,
        retry_error_callback=lambda state: outage.give_up(error_of(state)),
    )


class Outage:
    """Tracks how long the database was not usable, and which reasons were reported.

    *timeout* (in seconds; 0: a single attempt) limits that time over all outages together, so a
    server that crashes at each attempt does not block a run forever.
    """

    def __init__(self, timeout: float, clock: Clock, emit: Emit) -> None:
        self.clock = clock
        self._timeout = timeout
        self._emit = emit
        self._since: float | None = None
        self._refused_since: float | None = None
        self._before = 0.0
        self._connected = False
        self._is_down = False
        """Whether a lost connection was reported. A standby answers every attempt."""
        self._reported: set[str] = set()
        self._pending = ""

    def connect_limit(self) -> float:
        """Seconds for one attempt to connect, for all addresses together."""
        left = self._timeout - self._waited()
        return left if left > 0 else _ONE_TRY_SECONDS

    def statement_limit(self) -> float:
        """Seconds for one statement that initmig sends for itself, including retries."""
        return max(self._timeout - self._waited(), _SHORTEST_LIMIT_SECONDS)

    def start_attempt(self) -> None:
        """Record that an attempt starts."""
        self._connected = False
        self._start_timer()

    def _start_timer(self) -> None:
        self._since = self.clock.now() if self._since is None else self._since

    def record_connected(self) -> None:
        """Record that the connection works."""
        self._before += self._elapsed()
        self._since = self._refused_since = None
        self._connected = True
        if self._is_down:
            self._is_down = False
            self._reported.clear()
            self._emit(Connected(self._before))

    def record_error(self, error: InitmigError) -> None:
        """Record *error*, the result of an attempt."""
        self._start_timer()
        if not isinstance(error, LoginRefused):
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = self.clock.now()

    def report(self, error: InitmigError) -> None:
        """Report the reason of *error*, for which the run waits, if it is new."""
        self._is_down = self._is_down or not self._connected
        reason = str(error)
        if isinstance(error, MigrationsPending):
            if reason != self._pending:
                self._pending = reason
                self._emit(WaitingForMigrations(reason, self._timeout))
        elif reason not in self._reported:
            self._reported.add(reason)
            self._emit(WaitingForDatabase(reason, self._limit_for(error)))

    def seconds_left(self) -> float:
        """Seconds until the latest error is final."""
        left = self._timeout - self._waited()
        if self._refused_since is not None:
            left = min(left, _REFUSED_SECONDS - (self.clock.now() - self._refused_since))
        return max(0.0, left)

    def is_over(self) -> bool:
        """Whether the latest error is final."""
        return self.seconds_left() <= 0

    def give_up(self, error: InitmigError) -> NoReturn:
        """Raise *error* with the time waited.

        :raises InitmigError: always
        """
        if type(error) is not DatabaseUnavailable:
            raise error
        raise DatabaseUnavailable(
            error.id,
            f"{error} (waited {format_duration(self._waited())})",
            hint=error.problems[0].hint
            or "check that the database is running and reachable; --wait-timeout sets how long to"
            " wait for it",
        ) from error

    def _limit_for(self, error: InitmigError) -> float:
        if isinstance(error, LoginRefused):
            return min(self._timeout, _REFUSED_SECONDS)
        return self._timeout

    def _waited(self) -> float:
        return self._before + self._elapsed()

    def _elapsed(self) -> float:
        return 0.0 if self._since is None else self.clock.now() - self._since
