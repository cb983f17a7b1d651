"""Writes events as lines of text or JSON. Two tables have the words of each event."""

from __future__ import annotations

import os
import sys
import time

from initmig.config.dsn import mask_secrets
from initmig.core import run_events
from initmig.core.durations import counted, format_duration
from initmig.core.errors import Place
from initmig.core.records import TYPE_CHECKING, Record
from initmig.core.visible import in_lines, in_one_line, to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

    from initmig.core.errors import Problem
    from initmig.core.events import Event
    from initmig.reporting.terminal.display import Display

LEVELS = ("debug", "info", "warning", "error")


class Rendering(Record):
    """The log level of an event, and the function that puts it into words."""

    level: str
    text: Callable[[Any], str]


def _migrations(count: int) -> str:
    return counted(count, "migration")


def joined(ids: tuple[str, ...]) -> str:
    """*ids* as a list in a sentence."""
    return ", ".join(ids)


def _finished(event: run_events.Finished) -> str:
    if not event.ids:
        kept = f": nothing was applied after {event.kept}, which --to keeps"
        return f"{event.summary}{kept if event.kept else ''}"
    done, as_, what = event.summary.partition(" as ")
    took = format_duration(event.duration_seconds)
    count = _migrations(len(event.ids))
    if event.total > len(event.ids):
        count = f"{len(event.ids)} of {_migrations(event.total)}"
    return f"{done} {count}{as_}{what} in {took}: {joined(event.ids)}"


_OF_ANY_RUN: dict[type[Event], Rendering] = {
    run_events.NothingPending: Rendering(
        "info",
        lambda e: (
            f"nothing to do up to the requested migration;"
            f" {e.later} of {_migrations(e.migrations)} pending after it"
            if e.later
            else f"nothing to do: {_migrations(e.migrations)}, all applied"
        ),
    ),
    run_events.NoMigrationsFound: Rendering(
        "warning", lambda e: f"no migrations in {joined(e.folders)}"
    ),
    run_events.WaitingForDatabase: Rendering(
        "info",
        lambda e: (
            f"waiting up to {format_duration(e.timeout_seconds)} for the database: {e.reason}"
        ),
    ),
    run_events.Connected: Rendering(
        "info", lambda e: f"connected to the database after {format_duration(e.waited_seconds)}"
    ),
    run_events.WaitingForMigrations: Rendering(
        "info",
        lambda e: f"waiting up to {format_duration(e.timeout_seconds)} for migrations: {e.reason}",
    ),
    run_events.AppliedElsewhere: Rendering(
        "info",
        lambda e: (
            "nothing to do: another migrator applied the pending migrations"
            f" (waited {format_duration(e.waited_seconds)})"
        ),
    ),
    run_events.HistoryRead: Rendering(
        "debug",
        lambda e: (
            f"{e.applied} applied, {e.unknown} unknown, {len(e.pending)} pending"
            + (f": {joined(e.pending)}" if e.pending else "")
        ),
    ),
    run_events.ServerNotice: Rendering("info", lambda e: f"{e.severity}: {e.text}"),
    run_events.Finished: Rendering("info", _finished),
    run_events.OutputLost: Rendering(
        "warning", lambda e: f"{e.reason}; the result is lost, but the work continues"
    ),
    run_events.SettingLeftOut: Rendering(
        "warning", lambda e: f"could not set {e.name} ({e.reason}): {e.effect}"
    ),
    run_events.Failed: Rendering("error", lambda e: e.problem.message),
    run_events.StoppedBySignal: Rendering(
        "error",
        lambda e: f"stopped by {e.signal}: uncommitted work was rolled back; run again to continue",
    ),
}


def _rendering(event: Event) -> Rendering:
    if type(event) in _OF_ANY_RUN:
        return _OF_ANY_RUN[type(event)]
    # imported on demand: a run with nothing to do emits none of the others
    from initmig.reporting.event_words import RENDERINGS

    return RENDERINGS[type(event)]


def event_words(event: Event) -> str:
    """*event* in words, without secrets. The caller must escape invisible characters."""
    return mask_secrets(_rendering(event).text(event))


def event_text(event: Event, width: int = 0) -> str:
    """*event* in words, without secrets.

    Later lines are marked, so that they cannot be mistaken for another event. *width* is as in
    `problem_text`.
    """
    if isinstance(event, run_events.Failed):
        return problem_text(event.problem, width)
    return in_lines(event_words(event))


def problem_text(problem: Problem, width: int = 0) -> str:
    """The place and the fact, the source line with a caret, the server's words, the next step.

    The text contains no secrets. Quoted text is marked, so that it cannot be mistaken for one of
    these lines. The source line takes at most *width* cells of a terminal; 0 means no limit.
    """
    where = f"{problem.place}: " if problem.place else ""
    code = f" ({problem.server.sqlstate})" if problem.server.sqlstate else ""
    lines = [_shown(f"{where}{problem.message}{code} [{problem.id}]")]
    if problem.place and problem.place.source:
        lines += _excerpt(problem.place, width)
    for label, text in (
        ("DETAIL", problem.server.detail),
        ("HINT", problem.server.hint),
        ("CONTEXT", problem.server.context),
        ("next", problem.hint),
    ):
        if text:
            lines.append(_shown(f"  {label}: {text}"))
    return "\n".join(lines)


def _shown(text: str) -> str:
    return in_lines(mask_secrets(text))


_WIDEST = 160
_NO_NUMBER = f"{'':>6} | "


def _excerpt(place: Place, width: int) -> list[str]:
    """The source line and a caret under the column; of a long line, only the part near it."""
    end = max(0, place.column - place.before - 1)
    source, before = _shown(place.source), _shown(place.source[:end])
    size: Callable[[str], int] = len
    room = _WIDEST
    if width:
        from initmig.reporting.terminal.cells import cells

        # the width of a tab depends on the terminal
        source, before = source.replace("\t", "    "), before.replace("\t", "    ")
        size, room = cells, min(width - len(_NO_NUMBER), _WIDEST)
    shown, before = _cut_around(source, before, room, size)
    line = f"{place.line or '':>6} | {shown}"
    if not place.column:
        return [line]
    # keep tabs, so that the caret is under its character on any terminal
    indent = "".join(c if c == "\t" else " " * size(c) for c in before)
    return [line, f"{_NO_NUMBER}{indent}^"]


def _cut_around(source: str, before: str, room: int, size: Callable[[str], int]) -> tuple[str, str]:
    """Cut *source* and *before* to *room* cells around the end of *before*."""
    start = max(0, len(before) + 1 - room // 2) if size(source) > room else 0
    end = start + room
    while size(source[start:end]) > room:
        # wide characters take two cells
        start, end = start + (len(before) > start + room // 4), end - 1
    return source[start:end], before[start:]


class Log:
    """Writes the events from a minimum level to *stream*, one whole line at a time."""

    def __init__(
        self,
        level: str,
        form: str,
        stream: TextIO | None = None,
        *,
        target: str = "",
        display: Display | None = None,
    ) -> None:
        """Each line names the *target*, if it is not empty; *display* formats it for a terminal."""
        self._shown = LEVELS[LEVELS.index(level) :]
        self._render = _json_line if form == "json" else _text_line
        self._target = target
        self._stream: TextIO | None = stream or sys.stderr
        self._display = display

    def __call__(self, event: Event) -> None:
        """Write *event*, unless it is below the level."""
        level = _level(event)
        is_shown = level in self._shown
        is_in_progress_line = self._display and self._display.note(event)
        if self._stream and is_shown and not is_in_progress_line:
            try:
                self._write(event, level, self._stream)
            except OSError:
                # a log that cannot be written must not stop a run between two migrations
                discard(self._stream)
            except ValueError:
                self._stream = None  # a migration has closed it
            except KeyboardInterrupt:
                if not _takes_more(self._stream):
                    discard(self._stream)  # or writing the final event would hang as well
                raise

    @property
    def follows(self) -> bool:
        """Whether the log shows running work, and not only completed work."""
        return self._display is not None and self._display.progress is not None

    def clear(self) -> None:
        """Erase the progress line on a terminal."""
        if self._display:
            self._display.clear()

    def _write(self, event: Event, level: str, stream: TextIO) -> None:
        if not self._display:
            stream.write(self._render(event, level, self._target) + "\n")
            stream.flush()
            return
        screen = self._display.screen()
        text = _target(self._target) + event_text(event, screen.width)
        self._display.write(self._display.text(_now(), level, text, screen) + "\n", stream)


def _takes_more(stream: TextIO) -> bool:
    """Whether *stream* can be written to without waiting."""
    from select import POLLOUT, poll

    ready = poll()
    ready.register(stream, POLLOUT)
    return bool(ready.poll(0))


def discard(stream: TextIO) -> None:
    """Redirect a failed *stream* to the null device, or Python would fail again when closing it."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
    except OSError:
        return  # no file descriptor is left, so nothing can replace the stream
    os.dup2(null, stream.fileno())
    os.close(null)


def _level(event: Event) -> str:
    if isinstance(event, run_events.ServerNotice):
        return {"WARNING": "warning", "NOTICE": "info", "INFO": "info"}.get(event.severity, "debug")
    return _rendering(event).level


def _now() -> str:
    seconds = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _text_line(event: Event, level: str, target: str) -> str:
    return f"{_now()} {level:7} {_target(target)}{event_text(event)}"


def _target(name: str) -> str:
    return f"[{in_one_line(name)}] " if name else ""


def _json_line(event: Event, level: str, target: str) -> str:
    record = {
        "time": _now(),
        "level": level,
        **({"target": target} if target else {}),
        "event": _snake_case(type(event).__name__),
        "message": event_words(event),
        **_fields(event),
    }
    return to_json(_masked(record))


def _masked(value: Any) -> Any:
    """*value* with each text masked separately: a mask may extend to the end of the line."""
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, dict):
        return {key: _masked(each) for key, each in value.items()}
    return [*map(_masked, value)] if isinstance(value, tuple) else value


def _fields(event: Event) -> dict[str, Any]:
    if not isinstance(event, run_events.Failed):
        return event._asdict()
    problem = event.problem
    place = problem.place or Place("")
    return {
        "error": problem.id,
        "message": problem.message,
        "path": place.path,
        "line": place.line,
        "column": place.column,
        "source": place.source,
        **problem.server._asdict(),
        "next": problem.hint,
        "exit_code": event.exit_code,
    }


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
