"""Clocks of a process's own, that a test can step: libfaketime, loaded before everything else."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Debian's folders of libraries have the machine in their names, others' its width.
_LIBRARIES = ("lib/*/faketime/libfaketimeMT.so.1", "lib*/faketime/libfaketimeMT.so.1")


class SteppedClock:
    """The time of day of every process that is started with its *environment*."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "offset"
        self.offset = 0.0
        """Seconds that it is ahead of the machine's; negative where it is behind."""
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # looked at each time, so that a step is seen at once
            "FAKETIME_NO_CACHE": "1",
            # only the time of day: timeouts go on, and files are as old as they are
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set_to(0)

    def step(self, seconds: float) -> None:
        """Set it forward, or back where *seconds* are negative."""
        self.set_to(self.offset + seconds)

    def set_to(self, offset: float) -> None:
        """Set it so many seconds ahead of the machine's."""
        self.offset = offset
        # in one piece: whoever reads half a number has another time
        new = self._file.with_name("new")
        new.write_text(f"{self.offset:+f}")
        new.chmod(0o644)
        new.replace(self._file)


@contextmanager
def stepped_clock() -> Iterator[SteppedClock]:
    """A clock that shows the machine's time until it is stepped.

    Skips the test where there is no libfaketime.
    """
    found = [library for pattern in _LIBRARIES for library in Path("/usr").glob(pattern)]
    if not found:
        pytest.skip("needs libfaketime (apt-get install libfaketime)")
    with tempfile.TemporaryDirectory(prefix="initmig-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        yield SteppedClock(found[0], folder)
