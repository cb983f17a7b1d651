"""Report, retry, and give up on initmig's own statements that are blocked.

Imported only when a statement is blocked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.causes import cause_of
from initmig.core.durations import format_duration
from initmig.core.errors import InitmigError
from initmig.core.events import OwnStatementWaiting
from initmig.locking.blockers import activity_of
from initmig.postgres import NoAnswer

if TYPE_CHECKING:
    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.postgres import Session

_REPORT_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 3.0


class StatementRetry:
    """A `connection.RetryHandler` for one statement, which may take *limit* seconds in all."""

    def __init__(self, session: Session, limit: float, clock: Clock, emit: Emit) -> None:
        self._session = session
        self._limit = limit
        self._clock = clock
        self._emit = emit
        self._reported_at = 0.0
        self._doing = ""
        self._blockers: tuple[str, ...] = ()
        self._longest_pause = _FIRST_PAUSE_SECONDS

    def report(self, sql: str, waited: float) -> None:
        """As in `connection.RetryHandler`."""
        try:
            activity = activity_of(self._session, sql)
        except InitmigError:
            self._doing = ""  # no slot or no privilege: the statement still waits
        else:
            self._doing = activity.doing
            if activity.busy:  # otherwise a timeout has struck, and the blockers are already lost
                self._blockers = activity.blockers
        self._report(self._doing, waited)

    def pause_before_retry(self, error: InitmigError, waited: float) -> bool:
        """As in `connection.RetryHandler`."""
        cause = cause_of(error.sqlstate)
        if cause.kind not in ("contention", "canceled"):
            return False
        self._doing = cause.name
        if waited >= self._limit:
            raise self.no_answer_error(error) from error
        self._report(cause.name, waited)
        pause = self._longest_pause * (1 + self._clock.jitter()) / 2
        self._longest_pause = min(2 * self._longest_pause, _LONGEST_PAUSE_SECONDS)
        self._clock.sleep(min(pause, self._limit - waited))
        return True

    def no_answer_error(self, error: InitmigError) -> InitmigError:
        """As in `connection.RetryHandler`."""
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
