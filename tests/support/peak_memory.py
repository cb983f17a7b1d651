"""Writes the peak memory of a forked run (tests/support/fork_server.py) when it ends."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def around(_: Mapping[str, str]) -> Iterator[None]:
    """Write `peak` and the KiB as the last line of stderr."""
    try:
        yield
    finally:
        # ru_maxrss would be the maximum of this process and of the process that started it
        memory = Path("/proc/self/status").read_text(encoding="ascii").split()
        sys.stderr.write(f"peak {memory[memory.index('VmHWM:') + 1]}\n")
