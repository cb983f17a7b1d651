"""How much memory an answer takes, which only the system can tell: libpq's buffer is its own."""

from __future__ import annotations

import os

from initmig.postgres.errors import UnexpectedAnswer

_MOST_BYTES = 64 << 20
"""What the process may grow by for one answer to initmig: 200,000 long ids take half of it."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = "/proc/self/statm"


class MemoryLimit:
    """Notices an answer that grows too large; what has no time limit is the user's own, and may.

    libpq makes room for a message as soon as it knows its length, and then reads as much of it as
    there is. So the room is what counts, and it is looked at before anything more is read.
    """

    def __init__(self, timeout: float = 0.0) -> None:
        """For an answer that has to come within *timeout* seconds."""
        self._is_limited = timeout < float("inf")
        self._before: int | None = None

    def check(self) -> None:
        """:raises UnexpectedAnswer: the answer is too large"""
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
    """The bytes that this process can write to, used or not; 0 where the system does not tell.

    Not the whole of its address space: for each thread, glibc reserves 64 MiB of that at once.
    """
    try:
        file = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(file, 200).split()[5]) * _PAGE_BYTES
    finally:
        os.close(file)
