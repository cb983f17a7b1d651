"""Time as a parameter, so that a test of a minute of waiting takes no time."""

from __future__ import annotations

import os
import time

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable


def _jitter() -> float:
    # not by `random`, whose import takes longer than all else that a waiting copy does
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Clock(Record):
    """Seconds that only grow, a way to let them pass, and chance, that none do so in step."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = _jitter
    """At least 0, and less than 1."""


SYSTEM_CLOCK = Clock()
