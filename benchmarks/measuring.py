"""Commands, what they take, and taking turns."""

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
    """A command that has to succeed did not, or took too long: there is no figure.

    The first line says so, more lines are what the command said.
    """


class Command(NamedTuple):
    """What to run, where, and with which variables beside the few that all commands get."""

    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = {}


class Copy(NamedTuple):
    """One process, with all its descendants, from the moment that the first copy was started."""

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


class Sample(NamedTuple):
    """One measurement: of a command, or of copies of it that were started at once."""

    wall: float
    """Seconds to the last exit."""
    cpu: float
    """Seconds of all processors and processes, user and system."""
    memory: int
    """Bytes of the largest copy at its peak."""
    good: int = 1
    """How many copies ended with 0."""
    connections: int = 0
    """How many were seen at once, or opened, as the work says."""
    round_trips: int = 0
    """How often the server was waited for, once connected."""


def measure(command: Command, *, limit: float = LONGEST_SECONDS) -> Sample:
    """One run of *command*. Raises CommandFailed unless it exits 0 within *limit* seconds."""
    with tempfile.NamedTemporaryFile() as output:
        [copy] = _run(command, 1, Path(output.name), limit)
        if copy.exit_code != 0:
            said = output.read().decode(errors="replace").strip()
            raise CommandFailed(f"exit code {copy.exit_code}\n{said[-2000:]}")
    return Sample(copy.wall_seconds, copy.cpu_seconds, copy.peak_bytes)


def measure_copies(command: Command, copies: int, *, limit: float = LONGEST_SECONDS) -> Sample:
    """*copies* of *command* at once, however each of them ends.

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
    """What *command* prints, errors too. Raises CommandFailed unless it exits 0."""
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
    # A home of nobody's, so that no ~/.psqlrc and no ~/.npmrc has a say.
    return {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **kept, **command.environment}


# --- in turn ---


class Trial(NamedTuple):
    """Something to measure, *rounds* times."""

    case: str
    peer: str
    rounds: int
    prepare: Callable[[], Callable[[], Sample]]
    """Makes ready what is not to be measured, and gives what is."""
    is_optional: bool = False
    """Whether it is a result, too, that it cannot be measured."""


class Figure(NamedTuple):
    """What the samples of one trial were, or *why_not*."""

    work: str
    case: str
    peer: str
    samples: Sequence[Sample] = ()
    why_not: str = ""
    is_optional: bool = False
    """Whether it is a result, too, that there are no samples."""

    def median(self, field: str) -> float | None:
        """The median of a *field* of the samples, None without samples."""
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
    """All *trials* once, unmeasured, and then round by round; a trial that fails takes no part."""
    turns = [_Turns(work, trial, say) for trial in trials]
    for turn in turns:
        turn.prepare()
    for number in range(max((turn.trial.rounds for turn in turns), default=0)):
        for turn in turns:
            turn.take(number)
    return [turn.figure() for turn in turns]


class _Turns:
    """One trial among others."""

    def __init__(self, work: str, trial: Trial, say: Callable[[str], None]) -> None:
        self.trial = trial
        self._work = work
        self._say = say
        self._run: Callable[[], Sample] | None = None
        self._samples: list[Sample] = []
        self._why_not = ""

    def prepare(self) -> None:
        """Prepare, and run once to warm what can be warmed."""
        self._attempt(self._warm)

    def take(self, number: int) -> None:
        """Measure in round *number* (0-based)."""
        if self._run and number < self.trial.rounds:
            self._attempt(self._measure)

    def figure(self) -> Figure:
        """What has come of it."""
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
