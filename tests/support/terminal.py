"""A real pseudo-terminal to run commands in, and a model of its screen."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
import threading
import time
from contextlib import suppress
from select import select
from typing import TYPE_CHECKING

from tests.support.command import COMMAND
from tests.support.processes import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from tests.support.processes import Processes, Running

_ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Terminal:
    """A terminal of *columns* columns; a thread reads the output that is written to it."""

    def __init__(
        self,
        columns: int,
        *,
        streams: Sequence[str] = ("stdout", "stderr"),
        controls: bool = True,
    ) -> None:
        """The *streams* of the commands lead to the terminal; the others to files.

        If it *controls* the commands, they get its Ctrl-C, and SIGHUP when it is closed.
        """
        self._controls = controls
        self.columns = columns
        self._streams = streams
        self._ours, self.theirs = os.openpty()
        self.resize(columns)
        self._written = bytearray()
        self._is_closing = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def resize(self, columns: int) -> None:
        """Change the width."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def _read(self) -> None:
        with suppress(OSError):
            while not self._is_closing:
                if select([self._ours], [], [], POLL_SECONDS)[0]:
                    self._written += os.read(self._ours, 1 << 16)

    def stop_reading(self) -> None:
        """Stop taking output, as after Ctrl-S."""
        termios.tcflow(self.theirs, termios.TCOOFF)

    def resume_reading(self) -> None:
        termios.tcflow(self.theirs, termios.TCOON)

    def type(self, text: str) -> None:
        """Press the keys of *text*."""
        os.write(self._ours, text.encode())

    def close(self) -> None:
        """Close the window."""
        if self._is_closing:
            return
        self._is_closing = True
        self._thread.join()
        os.close(self.theirs)
        os.close(self._ours)

    def start(
        self, processes: Processes, *arguments: str, env: Mapping[str, str], cwd: Path | None = None
    ) -> Running:
        """Start initmig in the terminal."""
        env = {"TERM": "xterm-256color", **env}
        return processes.start([str(COMMAND), *arguments], env=env, cwd=cwd, start=self._start)

    def _start(
        self,
        argv: Sequence[str],
        *,
        stdout: BinaryIO,
        stderr: BinaryIO,
        env: Mapping[str, str],
        cwd: Path,
    ) -> subprocess.Popen[bytes]:
        # no fork of this process, which has threads; setsid makes the terminal the command's own
        prefix = ["setsid", "--ctty"] if self._controls else []
        return subprocess.Popen(
            [*prefix, *argv],
            stdin=self.theirs,
            stdout=self.theirs if "stdout" in self._streams else stdout,
            stderr=self.theirs if "stderr" in self._streams else stderr,
            env=dict(env),
            cwd=cwd,
            start_new_session=not self._controls,
        )

    @property
    def raw(self) -> str:
        """All output that was written to the terminal."""
        return self._written.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, up to the last line that is not empty."""
        return seen(self.raw, self.columns)

    def wait_for(self, text: str | re.Pattern[str], timeout: float = 20) -> None:
        """Return once *text* is on the screen."""
        pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
        deadline = time.monotonic() + timeout
        while not pattern.search("\n".join(self.lines)):
            assert time.monotonic() < deadline, f"no {text!r} on:\n" + "\n".join(self.lines)
            time.sleep(POLL_SECONDS)


def unstyled(raw: str) -> str:
    """*raw* without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", raw)


def seen(raw: str, columns: int) -> list[str]:
    """The lines that a terminal shows for *raw*; a line that is too long is wrapped."""
    rows: list[list[str]] = [[]]
    row = column = 0
    raw = unstyled(raw)
    at = 0
    while at < len(raw):
        found = _ESCAPE.match(raw, at)
        if found:
            assert found.group() in ("\x1b[J", "\x1b[K"), f"unknown to this terminal: {found}"
            del rows[row][column:]
            del rows[row + 1 :]
            at = found.end()
            continue
        character = raw[at]
        at += 1
        if character == "\r":
            column = 0
        elif character == "\n":
            row += 1
        else:
            assert character != "\x1b"
            if column == columns and columns:
                row, column = row + 1, 0
            while row >= len(rows):
                rows.append([])
            cells = rows[row]
            cells += [" "] * (column - len(cells))
            cells[column : column + 1] = [character]
            column += 1
        while row >= len(rows):
            rows.append([])
    texts = ["".join(cells).rstrip() for cells in rows]
    while texts and not texts[-1]:
        texts.pop()
    return texts
