"""A time of day that a test can step for the processes it starts, by preloading libfaketime."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Debian puts libraries below the architecture's name, other distributions below the word size.
_LIBRARIES = ("lib/*/faketime/libfaketimeMT.so.1", "lib*/faketime/libfaketimeMT.so.1")


class SteppedClock:
    """The time of day of every process that is started with *environment*."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "offset"
        self.offset = 0.0
        """Seconds ahead of the machine's clock; negative if this one is slow."""
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # read at each call, so that a step takes effect immediately
            "FAKETIME_NO_CACHE": "1",
            # only the time of day changes: timeouts continue, and files keep their age
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set_to(0)

    def step(self, seconds: float) -> None:
        """Step the clock by *seconds*; a negative number sets it back."""
        self.set_to(self.offset + seconds)

    def set_to(self, offset: float) -> None:
        """Set the clock to *offset* seconds ahead of the machine's clock."""
        self.offset = offset
        # replaced atomically: a process that read half a number would see another time
        new = self._file.with_name("new")
        new.write_text(f"{self.offset:+f}")
        new.chmod(0o644)
        new.replace(self._file)


@contextmanager
def stepped_clock() -> Iterator[SteppedClock]:
    """A clock that shows the machine's time until it is stepped.

    Skips the test if libfaketime is not installed.
    """
    found = [library for pattern in _LIBRARIES for library in Path("/usr").glob(pattern)]
    if not found:
        pytest.skip("needs libfaketime (apt-get install libfaketime)")
    with tempfile.TemporaryDirectory(prefix="initmig-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        yield SteppedClock(found[0], folder)
