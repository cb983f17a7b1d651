"""How often to report what goes on and on."""

from __future__ import annotations

FIRST_SECONDS = 10.0

_STEPS = (1, 3, 6, 12, 30)
"""In units of the first interval: 10 s, 30 s, 1 min, 2 min, 5 min; then every 5 min."""


class ReportSchedule:
    """The more seldom, the longer it takes; sooner where something changes."""

    def __init__(self, first: float = FIRST_SECONDS, *, grows: bool = True) -> None:
        """The *first* report is due after so many seconds; so is each other, unless it *grows*."""
        self.first = first
        self.due = first
        """Seconds after the beginning."""
        self._grows = grows
        self._reported_at: float | None = None
        self._reported_about: object = None

    def is_due(self, elapsed: float, about: object) -> bool:
        """Whether to report now, *elapsed* seconds after the beginning, what is *about* that.

        A change is reported at once, but not before the first report, nor too often: at most every
        *first* seconds, later every tenth of the time, and every minute at least.
        """
        if elapsed >= self.due:
            return True
        if self._reported_at is None or about == self._reported_about:
            return False
        return elapsed - self._reported_at >= min(max(self.first, elapsed / 10), 6 * self.first)

    def reported(self, elapsed: float, about: object) -> None:
        """Note that it was reported."""
        self._reported_at, self._reported_about = elapsed, about
        if self._grows:
            longest = _STEPS[-1] * self.first
            steps = (step * self.first for step in _STEPS if step * self.first > elapsed)
            self.due = next(steps, (elapsed // longest + 1) * longest)
        else:
            self.due = (elapsed // self.first + 1) * self.first
