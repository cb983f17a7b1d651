"""Sends SIGTERM to a run when it reaches a given line of initmig's code."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import initmig

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from types import FrameType

AT = "SIGNAL_AT"
"""The variable with the number of the line, counted from 1 in order of execution; 0 for none."""
REPORT = "SIGNAL_REPORT"
"""The variable with the path of a file for the number of executed lines."""

_PACKAGE = str(Path(initmig.__file__).parent)


class _Counting:
    """A trace function: https://docs.python.org/3/library/sys.html#sys.settrace"""

    def __init__(self, at: int) -> None:
        self.lines = 0
        self._at = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> _Counting | None:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._at:
                os.kill(os.getpid(), signal.SIGTERM)
        return self


@contextmanager
def around(env: MutableMapping[str, str]) -> Iterator[None]:
    """Inside, the signal is sent as the variables in *env* specify; the variables are removed."""
    at, report = env.pop(AT, ""), env.pop(REPORT, "")
    if not at:
        yield
        return
    counting = _Counting(int(at))
    sys.settrace(counting)
    try:
        yield
    finally:
        sys.settrace(None)
        Path(report).write_text(str(counting.lines))
