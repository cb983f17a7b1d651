"""What the steps of a migration print, and the errors that they are told to ignore, as events."""

from __future__ import annotations

import io
import logging
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from initmig.core.events import ErrorIgnored, Printed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initmig.core.events import Emit

yoyo_log = logging.getLogger("yoyo.migrations")


@contextmanager
def capture_output(emit: Emit, mask: Callable[[str], str] = str) -> Iterator[None]:
    """What a migration prints is emitted, line by line, and so are the errors that it ignores.

    Of each text, what *mask* leaves of it.
    """
    handler, lines = _IgnoredErrors(emit, mask), _Lines(emit, mask)
    yoyo_log.addHandler(handler)
    saved, yoyo_log.propagate = yoyo_log.propagate, False
    try:
        with redirect_stdout(lines), redirect_stderr(lines):
            yield
    finally:
        lines.end()
        yoyo_log.removeHandler(handler)
        yoyo_log.propagate = saved


class _Lines(io.TextIOBase):
    """A stream of which each line becomes an event: what yoyo prints of a SELECT, for one."""

    def __init__(self, emit: Emit, mask: Callable[[str], str]) -> None:
        self._emit, self._mask = emit, mask
        self._unfinished = ""

    def write(self, text: str) -> int:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._emit(Printed(self._mask(line)))
        return len(text)

    def end(self) -> None:
        if self._unfinished:
            self.write("\n")


class _IgnoredErrors(logging.Handler):
    def __init__(self, emit: Emit, mask: Callable[[str], str]) -> None:
        super().__init__(logging.ERROR)
        self._emit, self._mask = emit, mask

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._emit(ErrorIgnored(self._mask(describe_error(record.exc_info[1]))))


def describe_error(error: BaseException) -> str:
    """The kind of *error* and its text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
