"""Tells at the end of a run in a fork (tests/support/forking.py) how much memory it took."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def around(_: Mapping[str, str]) -> Iterator[None]:
    """The last line of stderr is `peak`, and the KiB."""
    try:
        yield
    finally:
        # the peak is the process's own, and not, as in its ru_maxrss, that of who started it
        memory = Path("/proc/self/status").read_text(encoding="ascii").split()
        sys.stderr.write(f"peak {memory[memory.index('VmHWM:') + 1]}\n")
