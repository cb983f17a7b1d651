"""Runs and measures commands, several of them in turn."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

STOPWATCH: Final = Path(__file__).with_name("stopwatch.py")
LONGEST_SECONDS: Final = 300.0


class CommandFailed(Exception):
    """A command failed or took too long, so there is no figure.

    The first line is the reason; further lines are the command's output.
    """


class Command(NamedTuple):
    """A command, its folder, and its variables in addition to the common ones."""

    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = {}


class Copy(NamedTuple):
    """One process with its descendants; times are from the start of the first copy."""

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


class Sample(NamedTuple):
    """One measurement of a command, or of copies that were started at the same time."""

    wall: float
    """Seconds until the last exit."""
    cpu: float
    """Seconds of all processors and processes, user and system."""
    memory: int
    """The peak of the largest copy, in bytes."""
    good: int = 1
    """The number of copies that exited 0."""
    connections: int = 0
    """The number of connections, open at the same time or opened, as the work specifies."""
    round_trips: int = 0
    """The number of times that a connected client waited for the server."""


def measure(command: Command, *, limit: float = LONGEST_SECONDS) -> Sample:
    """One run of *command*. Raises CommandFailed unless it exits 0 within *limit* seconds."""
    with tempfile.NamedTemporaryFile() as output:
        [copy] = _run(command, 1, Path(output.name), limit)
        if copy.exit_code != 0:
            printed = output.read().decode(errors="replace").strip()
            raise CommandFailed(f"exit code {copy.exit_code}\n{printed[-2000:]}")
    return Sample(copy.wall_seconds, copy.cpu_seconds, copy.peak_bytes)


def measure_copies(command: Command, copies: int, *, limit: float = LONGEST_SECONDS) -> Sample:
    """Run *copies* of *command* at the same time; they may fail.

    Raises CommandFailed if they take more than *limit* seconds.
    """
    ended = _run(command, copies, Path(os.devnull), limit)
    return Sample(
        wall=max(copy.wall_seconds for copy in ended),
        cpu=sum(copy.cpu_seconds for copy in ended),
        memory=max(copy.peak_bytes for copy in ended),
        good=sum(copy.exit_code == 0 for copy in ended),
    )


def output_of(command: Command) -> str:
    """The output of *command*, including errors. Raises CommandFailed unless it exits 0."""
    done = subprocess.run(
        command.argv,
        cwd=command.folder,
        env=_environment(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"{command.argv[0]} failed: {done.stdout.strip()[-2000:]}")
    return done.stdout


def _run(command: Command, copies: int, output: Path, limit: float) -> list[Copy]:
    request = {
        "argv": command.argv,
        "folder": str(command.folder),
        "environment": _environment(command),
        "copies": copies,
        "output": str(output),
    }
    stopwatch = subprocess.Popen(
        [sys.executable, "-I", "-S", STOPWATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        answer, _ = stopwatch.communicate(json.dumps(request), timeout=limit)
    except BaseException as error:
        os.killpg(stopwatch.pid, signal.SIGKILL)
        stopwatch.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandFailed(f"not done after {limit:.0f} s") from None
        raise
    if stopwatch.returncode != 0:
        raise CommandFailed(f"{command.argv[0]} could not be started")
    return [Copy(**each) for each in json.loads(answer)]


def _environment(command: Command) -> dict[str, str]:
    kept = {
        name: os.environ[name] for name in ("PATH", "JAVA_HOME", "TMPDIR") if name in os.environ
    }
    # A home that does not exist, so that no ~/.psqlrc and no ~/.npmrc is read.
    return {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **kept, **command.environment}


# --- in turn ---


class Trial(NamedTuple):
    """Something to measure *rounds* times."""

    case: str
    peer: str
    rounds: int
    prepare: Callable[[], Callable[[], Sample]]
    """Prepares the trial without measuring, and returns the function to measure."""
    is_optional: bool = False
    """Whether it may be impossible to measure."""


class Figure(NamedTuple):
    """The samples of one trial, or the reason *why_not*."""

    work: str
    case: str
    peer: str
    samples: Sequence[Sample] = ()
    why_not: str = ""
    is_optional: bool = False
    """Whether it may be impossible to measure."""

    def median(self, field: str) -> float | None:
        """The median of *field* over the samples, None without samples."""
        values = [getattr(sample, field) for sample in self.samples]
        return statistics.median(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {**self._asdict(), "samples": [sample._asdict() for sample in self.samples]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Figure:
        """The inverse of `to_json`."""
        return cls(**{**values, "samples": [Sample(**each) for each in values["samples"]]})


def take_turns(work: str, trials: Iterable[Trial], say: Callable[[str], None]) -> list[Figure]:
    """Run all *trials* once without measuring, then round by round; failed trials are left out."""
    turns = [_Turns(work, trial, say) for trial in trials]
    for turn in turns:
        turn.prepare()
    for number in range(max((turn.trial.rounds for turn in turns), default=0)):
        for turn in turns:
            turn.take(number)
    return [turn.figure() for turn in turns]


class _Turns:
    """The turns of one trial among others."""

    def __init__(self, work: str, trial: Trial, say: Callable[[str], None]) -> None:
        self.trial = trial
        self._work = work
        self._say = say
        self._run: Callable[[], Sample] | None = None
        self._samples: list[Sample] = []
        self._why_not = ""

    def prepare(self) -> None:
        """Prepare, and run once to warm the caches."""
        self._attempt(self._warm)

    def take(self, number: int) -> None:
        """Measure in round *number* (0-based)."""
        if self._run and number < self.trial.rounds:
            self._attempt(self._measure)

    def figure(self) -> Figure:
        """The figure, once all rounds are done."""
        return Figure(
            *(self._work, self.trial.case, self.trial.peer),
            *(tuple(self._samples), self._why_not, self.trial.is_optional),
        )

    def _warm(self) -> None:
        run = self.trial.prepare()
        if self.trial.rounds > 1:
            run()
        self._run = run

    def _measure(self) -> None:
        if self._run:
            self._samples.append(self._run())

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except CommandFailed as error:
            self._run = None
            self._samples.clear()
            self._why_not = str(error)
            self._say(f"{self._work} {self.trial.case} {self.trial.peer}: {error}")
