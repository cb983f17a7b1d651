"""Turns the output of migration steps, and the errors that they ignore, into events."""

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
    """Emit each line that a migration prints, and each error that it ignores.

    *mask* removes secrets from the text.
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
    """A stream that emits each line as an event, such as the rows of a SELECT that yoyo prints."""

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
    """The class name and the text of *error*."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
