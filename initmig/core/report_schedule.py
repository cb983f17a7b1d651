"""Intervals for reports on long work."""

from __future__ import annotations

FIRST_SECONDS = 10.0

_STEPS = (1, 3, 6, 12, 30)
"""In units of the first interval: 10 s, 30 s, 1 min, 2 min, 5 min, and then every 5 min."""


class ReportSchedule:
    """Reports become rarer as the work takes longer. A change is reported sooner."""

    def __init__(self, first: float = FIRST_SECONDS, *, grows: bool = True) -> None:
        """Start at *first* seconds. If *grows* is False, keep that interval."""
        self.first = first
        self.due = first
        """Seconds since the start of the work."""
        self._grows = grows
        self._reported_at: float | None = None
        self._reported_about: object = None

    def should_report(self, elapsed: float, about: object) -> bool:
        """Whether to report *about*, the current state, *elapsed* seconds after the start.

        A change is reported immediately, with limits: never before the first report, and at most
        every *first* seconds. Later the minimum interval is a tenth of *elapsed*, up to six times
        *first*.
        """
        if elapsed >= self.due:
            return True
        if self._reported_at is None or about == self._reported_about:
            return False
        return elapsed - self._reported_at >= min(max(self.first, elapsed / 10), 6 * self.first)

    def reported(self, elapsed: float, about: object) -> None:
        """Record a report."""
        self._reported_at, self._reported_about = elapsed, about
        if self._grows:
            longest = _STEPS[-1] * self.first
            steps = (step * self.first for step in _STEPS if step * self.first > elapsed)
            self.due = next(steps, (elapsed // longest + 1) * longest)
        else:
            self.due = (elapsed // self.first + 1) * self.first
