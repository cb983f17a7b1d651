"""Draws one line at the bottom of a terminal that shows the current work of a run.

The line is erased before each line of the log, and when the run ends. The cursor stays at its
start, so that any other output overwrites it. A terminal that is closed, slow or stopped does not
delay the run: the line is drawn only if that needs no waiting.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from select import POLLOUT, poll
from threading import Event as Flag
from threading import Lock, Thread
from time import monotonic

from initmig.config.dsn import mask_secrets
from initmig.core import events
from initmig.core.durations import format_duration
from initmig.core.records import TYPE_CHECKING
from initmig.core.visible import in_one_line
from initmig.reporting.terminal.cells import cells, shortened, shortened_inside
from initmig.reporting.terminal.screen import Screen, Styled, width_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from initmig.core.events import Event

_TICK_SECONDS = 0.5
_SHORTEST_WORK_SECONDS = 1.0
"""Shorter work is not shown, because it would only flicker."""

_LONGEST_SILENCE_SECONDS = 8.0
"""Work that was not announced counts as finished after this long without an event."""

_ERASE = "\r\x1b[J"
"""Erases from the start of the line to the end of the screen, because a resize may wrap it."""

_LONGEST_DRAWING_SECONDS = 1.0
_SHORTEST_NAME = 24
_USUAL_WIDTH = 80


class Work:
    """The current work, and when it began."""

    def __init__(self, id: str, begun: float, *, announced: bool) -> None:
        self.id = id
        self.name = _shown(id)
        self.begun = begun
        self.announced = announced
        """Whether an event reports its end as well."""
        self.position = ""
        """The position of a migration in the plan."""
        self.is_file = False
        """Whether the name may be shortened inside: its number is enough to recognize a file."""
        self.limit = ""
        self.updated = begun
        self.doing = ""
        self.blockers: tuple[str, ...] = ()

    def update(self, doing: str, blockers: Sequence[str] = ()) -> None:
        """Update its activity, *doing*, and the *blockers* that it waits for."""
        self.updated = monotonic()
        self.doing, self.blockers = _shown(doing), tuple(map(_shown, blockers))

    def line(self, now: float, width: int) -> tuple[str, str]:
        """Its name and its progress, in *width* cells together."""
        name, rest = self.position + self.name, ""
        for rest in self._progress_texts(now - self.begun):
            if cells(name + rest) <= width:
                return name, rest
        if self.is_file:
            room = max(_SHORTEST_NAME, width - cells(self.position + rest))
            name = self.position + shortened_inside(self.name, room)
        name = shortened(name, width)
        return name, shortened(rest, width - cells(name)) if cells(name) < width else ""

    def _progress_texts(self, seconds: float) -> Iterator[str]:
        """Its progress, in fewer words each time."""
        elapsed = f" {format_duration(int(seconds))}{self.limit}"
        doing = f": {self.doing}" if self.doing else ""
        joint = "; blocked by " if doing else ": blocked by "
        if self.blockers:
            yield f"{elapsed}{doing}{joint}{'; '.join(self.blockers)}"
            short = ", ".join(map(_short, self.blockers))
            yield f"{elapsed}{doing}{joint}{short}"
            yield f"{elapsed}: blocked by {short}"
        else:
            yield f"{elapsed}{doing}"


def _short(blocker: str) -> str:
    """The process and application of a *blocker*, without other facts."""
    name, bracket, facts = blocker.partition(" (")
    return f"{name} ({facts.partition(',')[0].rstrip(')')})" if bracket else name


class Progress:
    """Follows the events of a run, and shows its current work on *stream*, a terminal."""

    def __init__(self, stream: TextIO, *, columns: int, colour: bool) -> None:
        """*columns* overrides the terminal's width if it is not 0."""
        self._stream = stream
        self._columns = columns
        self._screen = Screen(0, colour)
        self._work: Work | None = None
        self._ended_id = ""
        self._holder: tuple[str, int] | None = None
        self._drawn: tuple[int, str, str] | None = None
        self._draw_lock = Lock()
        self._event_lock = Lock()
        self._redraw = Flag()
        self._is_off = False
        self._thread: Thread | None = None
        os.register_at_fork(after_in_child=self._turn_off_in_child)

    def _turn_off_in_child(self) -> None:
        self._draw_lock = Lock()
        self._is_off, self._drawn = True, None

    def note(self, event: Event) -> bool:
        """Show *event*; return whether it needs no line in the log."""
        if self._is_off:
            return isinstance(event, events.StatementRunning)
        with self._event_lock:  # without the lock, a late report could restore work that has ended
            if isinstance(event, _ENDING_EVENTS):
                self._end_work(getattr(event, "id", ""))
                return False
            return self._follow(event)

    @contextmanager
    def erased(self) -> Iterator[str]:
        """Inside the block, other text may be written to the terminal.

        Yields the text that erases the progress; write it first.
        """
        with self._locked():
            # if the progress is off here, another process may have drawn it
            erasing, self._drawn = _ERASE if self._drawn or self._is_off else "", None
            yield erasing
            if erasing and not self._is_off:
                self._draw()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._draw_lock.acquire(timeout=_LONGEST_DRAWING_SECONDS):
            self._is_off = True  # the terminal accepts no output, and must not delay the run
            yield
            return
        try:
            yield
        finally:
            self._draw_lock.release()

    def clear(self) -> None:
        """Show nothing, because no work is running."""
        self._end_work("")
        with self._locked():
            if self._drawn and self._write(_ERASE):
                self._drawn = None

    def _end_work(self, id: str) -> None:
        self._ended_id = id
        self._work = self._holder = None

    def _begin(self, work: Work) -> None:
        self._work = work
        self._redraw.set()
        if self._thread is None:
            thread = Thread(target=self._run, name="progress", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the user's limit on threads is reached
                self._is_off = True
            else:
                self._thread = thread

    # --- events ---

    def _follow(self, event: Event) -> bool:
        match event:
            case events.MigrationStarted():
                self._ended_id = ""
                work = Work(event.id, monotonic(), announced=True)
                work.position, work.is_file = f"[{event.position}/{event.total}] ", True
                self._begin(work)
            case events.StatementRunning():
                self._show_statement(event)
                return True
            case events.MigrationRetried() if self._work:
                self._work.update(f"{event.reason}, waiting to try again", event.blockers)
            case events.WaitingForDatabase():
                self._show_wait("waiting for the database", event.reason, event.timeout_seconds)
            case events.WaitingForMigrations():
                self._show_wait("waiting for migrations", event.reason, event.timeout_seconds)
            case events.WaitingInQueue():
                whose = "another migrator" if event.is_migrator else "the migration lock"
                return self._show_queue(whose, event.holder_pid, event.holder, event.waited_seconds)
            case events.WaitingForYoyo():
                holder = f"process {event.pid}"
                return self._show_queue("yoyo", event.pid, holder, event.waited_seconds)
        return False

    def _show_statement(self, event: events.StatementRunning) -> None:
        if event.id == self._ended_id:
            return  # a late event of a migration that has ended
        work = self._work
        if work is None or work.id != event.id:
            work = Work(event.id, monotonic() - event.elapsed_seconds, announced=False)
        work.name, work.is_file = _shown(_place(event) or event.id), True
        # the line itself already shows that the statement is running
        work.update(event.doing.removeprefix("running").removeprefix(", "), event.blockers)
        self._begin(work)

    def _show_queue(self, whose: str, pid: int, holder: str, waited: float) -> bool:
        """Show the wait; return whether the same holder was reported before."""
        is_known, self._holder = self._holder == (whose, pid), (whose, pid)
        work = Work(f"waiting for {whose}", monotonic() - waited, announced=True)
        work.update(holder)
        self._begin(work)
        return is_known

    def _show_wait(self, what: str, reason: str, timeout: float) -> None:
        begun = self._work.begun if self._work and self._work.id == what else monotonic()
        work = Work(what, begun, announced=True)
        work.limit = f" of {format_duration(timeout)}" if timeout else ""
        work.update(reason)
        self._begin(work)

    # --- drawing ---

    def _run(self) -> None:
        pausing = Flag()
        while not self._is_off:
            self._redraw.wait()
            self._redraw.clear()
            # if another thread has the lock, it draws afterwards
            if self._draw_lock.acquire(blocking=False):
                try:
                    self._draw()
                finally:
                    self._draw_lock.release()
            if self._work or self._drawn:
                self._redraw.set()
            pausing.wait(_TICK_SECONDS)

    def _draw(self) -> None:
        """Draw the current work, or erase the line; the caller holds the lock."""
        work, now = self._work, monotonic()
        if work and not work.announced and now - work.updated > _LONGEST_SILENCE_SECONDS:
            work = None
        if work and now - work.begun >= _SHORTEST_WORK_SECONDS:
            width = width_of(self._stream, self._columns) or _USUAL_WIDTH
            # keep the last cell free: some terminals start a new line once it is written
            name, rest = work.line(now, width - 1)
            drawn = (width, name, rest)
            if drawn != self._drawn:
                line = self._screen.text([[Styled(name, "bold"), rest]])
                if self._write(f"{_ERASE}{line}\r"):
                    self._drawn = drawn
        elif self._drawn and self._write(_ERASE):
            self._drawn = None

    def _write(self, text: str) -> bool:
        """Write *text*, unless that would have to wait for the terminal; return whether it did."""
        try:
            number = self._stream.fileno()
            ready = poll()
            ready.register(number, POLLOUT)
            if not any(found & POLLOUT for _, found in ready.poll(0)):
                return False
            os.write(number, text.encode(errors="backslashreplace"))
        except (OSError, ValueError):  # the terminal is closed
            self._is_off = True
            return False
        return True


def _shown(text: str) -> str:
    return in_one_line(mask_secrets(text))


def _place(event: events.StatementRunning) -> str:
    """The file, with the line if it is known."""
    file = os.path.basename(event.path)
    return f"{file}:{event.line}" if file and event.line else file


_ENDING_EVENTS = (
    events.Connected,
    events.LockAcquired,
    events.AppliedElsewhere,
    events.NothingPending,
    events.MigrationApplied,
    events.MigrationRolledBack,
    events.MigrationRecorded,
    events.MigrationVerified,
    events.HookRan,
    events.Finished,
    events.Failed,
    events.StoppedBySignal,
    events.Ready,
    events.NotReady,
)
