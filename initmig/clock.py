"""Time as a parameter, so that a test of a minute of waiting takes no time."""

from __future__ import annotations

import time

from initmig.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock(Record):
    """Seconds that only grow, and a way to let them pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()
