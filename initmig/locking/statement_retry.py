"""Report, retry, and give up on initmig's own statements that are blocked.

Imported only when a statement is blocked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.causes import cause_of
from initmig.core.durations import format_duration
from initmig.core.errors import InitmigError
from initmig.core.events import OwnStatementWaiting
from initmig.core.retrying import error_of
from initmig.locking.blockers import activity_of
from initmig.postgres import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from tenacity import RetryCallState, Retrying

    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.postgres import Session

_REPORT_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 3.0


class StatementRetry:
    """A `session.RetryHandler` for one statement, which may take *limit* seconds in all."""

    def __init__(self, session: Session, limit: float, clock: Clock, emit: Emit) -> None:
        self._session = session
        self._limit = limit
        self._clock = clock
        self._emit = emit
        self._reported_at = 0.0
        self._doing = ""
        self._blockers: tuple[str, ...] = ()

    def report(self, sql: str, waited: float) -> None:
        """As in `session.RetryHandler`."""
        try:
            activity = activity_of(self._session, sql)
        except InitmigError:
            self._doing = ""  # no slot or no privilege: the statement still waits
        else:
            self._doing = activity.doing
            if activity.busy:  # otherwise a timeout has struck, and the blockers are already lost
                self._blockers = activity.blockers
        self._report(self._doing, waited)

    def retrying(
        self,
        is_retryable: Callable[[BaseException], bool],
        waited: Callable[[], float],
        prepare: Callable[[InitmigError], None],
    ) -> Retrying:
        """As in `session.RetryHandler`."""
        from tenacity import Retrying, retry_if_exception, wait_random_exponential

        def record(state: RetryCallState) -> None:
            self._doing = cause_of(error_of(state).sqlstate).name

        def before_sleep(state: RetryCallState) -> None:
            self._report(self._doing, waited())
            prepare(error_of(state))

        def give_up(state: RetryCallState) -> NoReturn:
            raise self.no_answer_error(error_of(state)) from error_of(state)

        pause = wait_random_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS)
        return Retrying(
            retry=retry_if_exception(is_retryable),
            after=record,
            wait=lambda state: min(pause(state), max(self._limit - waited(), 0)),
            stop=lambda _: waited() >= self._limit,
            before_sleep=before_sleep,
            sleep=self._clock.sleep,
            retry_error_callback=give_up,
        )

    def no_answer_error(self, error: InitmigError) -> InitmigError:
        """As in `session.RetryHandler`."""
        words = f"no answer to one of initmig's own statements in {format_duration(self._limit)}"
        if self._doing:
            words += f": {self._doing}"
        hint = "check the server"
        if self._blockers:
            words += f"; blocked by {'; '.join(self._blockers)}"
            hint = "end the transaction that blocks it"
        return NoAnswer(
            "no-answer",
            words,
            hint=f"{hint}, and run again; --wait-timeout sets how long initmig waits",
            server=error.server,
        )

    def _report(self, doing: str, waited: float) -> None:
        if waited - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = waited
        self._emit(OwnStatementWaiting(waited, self._limit, doing, self._blockers))
