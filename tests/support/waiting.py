"""Conditions to wait for, instead of sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(is_so: Callable[[], bool], timeout: float = 20) -> None:
    """Return once *is_so* says so. Raises AssertionError after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, f"not so in {timeout} s"
        time.sleep(0.02)
