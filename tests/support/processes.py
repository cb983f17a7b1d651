"""Commands in separate processes, which a test can signal and which never outlive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

POLL_SECONDS = 0.01


class Process(Protocol):
    """The part of `subprocess.Popen` that the tests use."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Start(Protocol):
    """Starts *argv* in a new session, so that its children can be killed with it."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdout: BinaryIO,
        stderr: BinaryIO,
        env: Mapping[str, str],
        cwd: Path,
    ) -> Process: ...


def start_program(
    argv: Sequence[str],
    *,
    stdout: BinaryIO,
    stderr: BinaryIO,
    env: Mapping[str, str],
    cwd: Path,
) -> Process:
    """A `Start` that runs the program *argv*."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """How a process ended; *code* is negative if a signal ended it, as in subprocess."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of stderr, parsed as JSON. Raises ValueError on any other line."""
        return [json.loads(line) for line in self.err.splitlines()]


def succeeded(result: Result) -> Result:
    """*result*, if its exit code is 0 and it logs no traceback. Raises AssertionError otherwise."""
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    return result


class Running:
    """A started process. Its output goes to files, so that it never blocks on a full pipe."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        output: Path,
        env: Mapping[str, str],
        cwd: Path,
        start: Start,
    ) -> None:
        self._out = output.with_suffix(".out")
        self._err = output.with_suffix(".err")
        self._started = time.monotonic()
        self._ended: float | None = None
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = start(argv, stdout=out, stderr=err, env=env, cwd=cwd)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        """Its stdout so far."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for_line(self, text: str, timeout: float = 20) -> str:
        """The first complete line of stderr that contains *text*.

        Raises AssertionError with stderr if it ends or *timeout* seconds pass before that.
        """
        deadline = time.monotonic() + timeout
        while True:
            running = self.is_running()
            for line in self.err.splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line.rstrip("\n")
            if not running or time.monotonic() > deadline:
                raise AssertionError(f"no line with {text!r} in stderr:\n{self.err}")
            time.sleep(POLL_SECONDS)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, but not to its children."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        self.send(signal.SIGTERM)

    def interrupt(self) -> None:
        self.send(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL it, and return once it has ended."""
        self._process.kill()
        self._process.wait()

    def result(self, timeout: float | None = 60) -> Result:
        """Wait until it exits. Raises AssertionError with its output after *timeout* seconds."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"did not end in {timeout} s\nstdout:\n{self.out}\nstderr:\n{self.err}"
            ) from None
        self._ended = self._ended or time.monotonic()
        return Result(code, self.out, self.err, self._ended - self._started)

    def clean_up(self) -> None:
        """Kill it and its remaining children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Processes:
    """Starts processes, and kills all of them at the end."""

    def __init__(self, folder: Path) -> None:
        """*folder* is for their output, and their home."""
        self.folder = folder
        self._all: list[Running] = []

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start: Start = start_program,
    ) -> Running:
        """Start *argv* with *env* added to a clean environment."""
        running = Running(
            argv,
            output=self.folder / f"process-{len(self._all) + 1}",
            env={**self._clean_environment(), **(env or {})},
            cwd=cwd or self.folder,
            start=start,
        )
        self._all.append(running)
        return running

    def clean_up(self) -> None:
        for running in self._all:
            running.clean_up()

    def _clean_environment(self) -> dict[str, str]:
        # A home without .pgpass, .pg_service.conf or yoyo.ini.
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
        }
