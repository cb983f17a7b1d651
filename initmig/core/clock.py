"""Time as a parameter, so that a test of a one-minute wait takes no time."""

from __future__ import annotations

import os
import time

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable


def _jitter() -> float:
    # Avoids `random`: importing it takes longer than the rest of a waiting copy's work.
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Clock(Record):
    """Monotonic time in seconds, a sleep function, and jitter that keeps copies out of step."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = _jitter
    """A random number: 0 <= jitter < 1."""


SYSTEM_CLOCK = Clock()
