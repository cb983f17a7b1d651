"""Waits for conditions, instead of sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Return once *condition* is true. Raises AssertionError after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {timeout} s"
        time.sleep(0.02)
