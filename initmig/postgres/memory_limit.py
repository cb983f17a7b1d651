"""Limit the memory of an answer, measured by the system because libpq's buffer is private."""

from __future__ import annotations

import os

from initmig.postgres.errors import UnexpectedAnswer

_MOST_BYTES = 64 << 20
"""Limit for one answer to initmig. 200,000 long migration ids need half of it."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = "/proc/self/statm"


class MemoryLimit:
    """Detects answers that are too large. A statement without a time limit is the user's: no check.

    libpq allocates memory for a message as soon as it knows the length, and then reads the
    available data. So this checks the allocated memory before each read.
    """

    def __init__(self, timeout: float = 0.0) -> None:
        """For an answer that must arrive within *timeout* seconds."""
        self._is_limited = timeout < float("inf")
        self._before: int | None = None

    def check(self) -> None:
        """Check the memory that the process has allocated since the first check.

        :raises UnexpectedAnswer: the answer is too large
        """
        if not self._is_limited:
            return
        now = _size()
        if self._before is None:
            self._before = now
        if now - self._before > _MOST_BYTES:
            raise UnexpectedAnswer(
                "answer-too-large",
                "the server's answer to one of initmig's own statements takes more than"
                f" {_MOST_BYTES >> 20} MiB of memory",
                hint="check that the URL leads to PostgreSQL, and check any pooler or proxy in"
                " between",
            )


def _size() -> int:
    """The bytes that the process can write to, used or not; 0 if the system does not report them.

    This excludes reserved address space: glibc reserves 64 MiB of it for each thread.
    """
    try:
        file = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(file, 200).split()[5]) * _PAGE_BYTES
    finally:
        os.close(file)
