"""Waits for conditions, instead of sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Return once *condition* is true. Raises AssertionError after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if condition():
            return
        ended = time.monotonic()
        assert ended < deadline, f"the condition is still false after {timeout} s"
        # A check can be a query or a program: most of the time, other tests have the processor.
        time.sleep(min(max(0.02, 3 * (ended - began)), 0.5))
