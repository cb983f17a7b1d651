"""Writes events as lines of text or JSON. One table has the words of each event."""

from __future__ import annotations

import os
import sys
import time

from initmig.config.dsn import mask_secrets
from initmig.core import events
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


class _Rendering(Record):
    level: str
    text: Callable[[Any], str]


def _migrations(count: int) -> str:
    return counted(count, "migration")


def _joined(ids: tuple[str, ...]) -> str:
    return ", ".join(ids)


def _blocked_by(items: tuple[str, ...]) -> str:
    return f"; blocked by {'; '.join(items)}" if items else ""


def _activity(words: str) -> str:
    shown = words.removeprefix("running").removeprefix(", ")
    return f": {shown}" if shown else ""


def _finished(event: events.Finished) -> str:
    if not event.ids:
        kept = f": nothing was applied after {event.kept}, which --to keeps"
        return f"{event.summary}{kept if event.kept else ''}"
    done, as_, what = event.summary.partition(" as ")
    took = format_duration(event.duration_seconds)
    count = _migrations(len(event.ids))
    if event.total > len(event.ids):
        count = f"{len(event.ids)} of {_migrations(event.total)}"
    return f"{done} {count}{as_}{what} in {took}: {_joined(event.ids)}"


def _targets_finished(event: events.TargetsFinished) -> str:
    parts = [f"applied migrations to {event.applied}"]
    if event.failed:
        parts.append(f"{len(event.failed)} failed ({_joined(event.failed)})")
    if event.not_begun:
        parts.append(f"{event.not_begun} not started")
    return f"{counted(event.targets, 'target')}: {', '.join(parts)}"


def _retried(event: events.MigrationRetried) -> str:
    return (
        f"{event.id}: {event.reason}; retry {event.attempt} of {event.attempts}"
        f" in {format_duration(event.pause_seconds)}"
        f"{_blocked_by(event.blockers)}"
    )


def _statement_place(event: events.StatementRunning) -> str:
    return f" ({Place(event.path, event.line)})" if event.path else ""


_NO_MIGRATOR = "a session that holds the migration lock but is not initmig"


_RENDERINGS: dict[type[Event], _Rendering] = {
    events.NothingPending: _Rendering(
        "info",
        lambda e: (
            f"nothing to do up to the requested migration;"
            f" {e.later} of {_migrations(e.migrations)} pending after it"
            if e.later
            else f"nothing to do: {_migrations(e.migrations)}, all applied"
        ),
    ),
    events.NoMigrationsFound: _Rendering(
        "warning", lambda e: f"no migrations in {_joined(e.folders)}"
    ),
    events.FilesIgnored: _Rendering(
        "warning",
        lambda e: (
            f"ignored {_joined(e.paths)}: migrations must be directly in the folder,"
            " with names that end in .sql or .py"
        ),
    ),
    events.NoStatements: _Rendering(
        "warning",
        lambda e: (
            f"{e.path} has no {'steps' if e.path.endswith('.py') else 'statements'}:"
            f" applying {e.id} only records it"
        ),
    ),
    events.DirectiveIgnored: _Rendering(
        "warning",
        lambda e: (
            f"{e.place}: ignored `{e.line}`, because yoyo reads no directives below a /* */"
            " comment; move it to the top of the file"
        ),
    ),
    events.WaitingForDatabase: _Rendering(
        "info",
        lambda e: (
            f"waiting up to {format_duration(e.timeout_seconds)} for the database: {e.reason}"
        ),
    ),
    events.Connected: _Rendering(
        "info", lambda e: f"connected to the database after {format_duration(e.waited_seconds)}"
    ),
    events.WaitingForMigrations: _Rendering(
        "info",
        lambda e: f"waiting up to {format_duration(e.timeout_seconds)} for migrations: {e.reason}",
    ),
    events.WaitingInQueue: _Rendering(
        "info",
        lambda e: (
            f"waiting for {'another migrator' if e.is_migrator else _NO_MIGRATOR}"
            f" ({format_duration(e.waited_seconds)} so far): {e.holder}"
            + (f"; {e.next_step}" if e.next_step else "")
        ),
    ),
    events.WaitingForYoyo: _Rendering(
        "info",
        lambda e: (
            f"waiting for yoyo ({format_duration(e.waited_seconds)} so far): its process {e.pid}"
            f" has held the lock since {e.locked_at_utc} UTC;"
            " if that process no longer exists, run `initmig unlock`"
        ),
    ),
    events.LockAcquired: _Rendering(
        "debug",
        lambda e: (
            f"acquired the migration lock after {format_duration(e.waited_seconds)}"
            + (" through a pooler" if e.pooled else "")
        ),
    ),
    events.AppliedElsewhere: _Rendering(
        "info",
        lambda e: (
            "nothing to do: another migrator applied the pending migrations"
            f" (waited {format_duration(e.waited_seconds)})"
        ),
    ),
    events.StaleLockRemoved: _Rendering(
        "warning", lambda e: f"removed the lock row of an initmig that has ended (pid {e.pid})"
    ),
    events.YoyoLockRemoved: _Rendering(
        "info",
        lambda e: f"removed the lock row of process {e.pid}, held since {e.locked_at_utc} UTC",
    ),
    events.NotLocked: _Rendering(
        "info", lambda _: "nothing to do: there is no lock row, or a running initmig holds it"
    ),
    events.HistoryRead: _Rendering(
        "debug",
        lambda e: (
            f"{e.applied} applied, {e.unknown} unknown, {len(e.pending)} pending"
            + (f": {_joined(e.pending)}" if e.pending else "")
        ),
    ),
    events.OutOfOrder: _Rendering(
        "warning",
        lambda e: (
            f"{e.id} is out of order: {e.applied_id} is already applied"
            " (--out-of-order=fail refuses this)"
        ),
    ),
    events.Changed: _Rendering(
        "warning",
        lambda e: f"{e.path} has changed since {e.id} was applied (--changed=fail refuses this)",
    ),
    events.UnknownMigrations: _Rendering(
        "warning",
        lambda e: (
            f"the database is ahead of these migrations: {_joined(e.ids)}"
            f" {'is' if len(e.ids) == 1 else 'are'} applied, but unknown here"
        ),
    ),
    events.RowSecurityActive: _Rendering(
        "warning",
        lambda e: (
            f"row level security on {e.table} applies to {e.role}"
            f" (policies: {_joined(e.policies)}); applied migrations that it hides look pending"
        ),
    ),
    events.HistoryShared: _Rendering("warning", lambda e: f"{e.reason}; {e.next_step}"),
    events.OtherHistoryFound: _Rendering("warning", lambda e: f"{e.reason}; {e.next_step}"),
    events.MigrationStarted: _Rendering(
        "debug", lambda e: f"[{e.position}/{e.total}] {e.id} ({e.path})"
    ),
    events.MigrationResumed: _Rendering(
        "info",
        lambda e: (
            f"resuming {e.id}: {e.parts_done} of {counted(e.parts, 'part')} done"
            + ("; checking whether the next one completed" if e.in_doubt else "")
        ),
    ),
    events.PartFoundDone: _Rendering(
        "info",
        lambda e: f"{e.id}: the catalog shows that part {e.part} of {e.parts} is already done",
    ),
    events.LeftOverRemoved: _Rendering(
        "warning", lambda e: f"{e.id}: removed {e.what}, left behind by an interrupted statement"
    ),
    events.LargeFileRead: _Rendering(
        "info", lambda e: f"reading {e.path} ({e.size_bytes / 1e6:.1f} MB)"
    ),
    events.ParserFellBack: _Rendering(
        "info",
        lambda e: (
            f"cannot parse {e.path} ({e.reason}); splitting it by simpler rules."
            " The file has a syntax error, or uses syntax that is newer than the parser"
        ),
    ),
    events.MigrationApplied: _Rendering(
        "info", lambda e: f"applied {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.MigrationRolledBack: _Rendering(
        "info", lambda e: f"rolled back {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.RollbackSkipped: _Rendering(
        "warning",
        lambda e: (
            f"{e.reason} ({_joined(e.places)}); skipping it and removing the record of {e.id}"
        ),
    ),
    events.AlreadyApplied: _Rendering(
        "info", lambda e: f"already applied, left unchanged: {_joined(e.ids)}"
    ),
    events.RecordPlanned: _Rendering(
        "info", lambda e: f"will record as applied without running it: {e.id} ({e.path})"
    ),
    events.MigrationRecorded: _Rendering("debug", lambda e: f"recorded {e.id} as applied"),
    events.HookRan: _Rendering(
        "info", lambda e: f"ran {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.MigrationRetried: _Rendering("warning", _retried),
    events.StatementRunning: _Rendering(
        "info",
        lambda e: (
            f"{e.id}{_statement_place(e)} has been running for {format_duration(e.elapsed_seconds)}"
            f"{_activity(e.doing)}{_blocked_by(e.blockers)}"
        ),
    ),
    events.OwnStatementWaiting: _Rendering(
        "warning",
        lambda e: (
            "one of initmig's own statements has been held up for"
            f" {format_duration(e.waited_seconds)} (limit {format_duration(e.timeout_seconds)})"
            f"{_activity(e.doing)}{_blocked_by(e.blockers)}"
        ),
    ),
    events.LockNotReleased: _Rendering(
        "warning",
        lambda e: (
            f"could not release the migration lock: {e.reason}. The lock ends with the connection."
            " A row left in yoyo_lock blocks only stock yoyo; `initmig unlock` or the next run"
            " that applies something removes it"
        ),
    ),
    events.SessionNotEmptied: _Rendering(
        "warning",
        lambda e: (
            f"could not reset the session after the migration: {e.reason}."
            " The migration's outcome stands; initmig continues in a new session"
        ),
    ),
    events.ServerNotice: _Rendering("info", lambda e: f"{e.severity}: {e.text}"),
    events.ParameterIgnored: _Rendering(
        "warning", lambda e: f"ignored the connection parameter {e.parameter}: {e.reason}"
    ),
    events.ErrorIgnored: _Rendering(
        "warning", lambda e: f"ignored an error, because the step has ignore_errors: {e.text}"
    ),
    events.CommitIgnored: _Rendering(
        "warning",
        lambda e: (
            f"{e.path}:{e.line}: {e.call} has no effect: initmig commits {e.id} together with its"
            " record"
        ),
    ),
    events.Printed: _Rendering("info", lambda e: e.text),
    events.Finished: _Rendering("info", _finished),
    events.SquawkFailed: _Rendering(
        "warning", lambda e: f"squawk failed, so its findings are missing: {e.reason}"
    ),
    events.NoTargets: _Rendering("warning", lambda e: f"found no targets in {e.source}"),
    events.OutputLost: _Rendering(
        "warning", lambda e: f"{e.reason}; the result is lost, but the work continues"
    ),
    events.FewerProcesses: _Rendering(
        "warning",
        lambda e: f"migrating with {e.processes} processes instead of {e.asked}: {e.reason}",
    ),
    events.SettingLeftOut: _Rendering(
        "warning", lambda e: f"could not set {e.name} ({e.reason}): {e.effect}"
    ),
    events.NotWatched: _Rendering(
        "warning",
        lambda e: f"cannot report long statements and who blocks them: {e.reason}",
    ),
    events.TargetsFinished: _Rendering("info", _targets_finished),
    events.FilesCreated: _Rendering("info", lambda e: f"wrote {_joined(e.paths)}"),
    events.Listening: _Rendering(
        "info", lambda e: f"listening on {e.address}: /healthz, /readyz, /metrics"
    ),
    events.Ready: _Rendering("info", lambda e: f"ready: {_migrations(e.migrations)}, all applied"),
    events.NotReady: _Rendering("warning", lambda e: f"not ready: {'; '.join(e.reasons)}"),
    events.RequestAnswered: _Rendering("debug", lambda e: f"{e.method} {e.path} {e.status}"),
    events.RequestFailed: _Rendering(
        "error", lambda e: f"internal error (please report): {e.traceback}"
    ),
    events.ServingEnded: _Rendering("info", lambda e: f"stopped serving after {e.signal}"),
    events.MigrationVerified: _Rendering(
        "info", lambda e: f"verified {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.Irreversible: _Rendering(
        "warning",
        lambda e: (
            f"{e.id} has no rollback: verified only that it applies"
            + ("" if e.refused else " (--require-rollback refuses this)")
        ),
    ),
    events.ScratchDatabaseLeft: _Rendering(
        "warning", lambda e: f"could not drop the scratch database {e.name}: {e.reason}"
    ),
    events.Failed: _Rendering("error", lambda e: e.problem.message),
    events.StoppedBySignal: _Rendering(
        "error",
        lambda e: f"stopped by {e.signal}: uncommitted work was rolled back; run again to continue",
    ),
}


def event_words(event: Event) -> str:
    """*event* in words, without secrets. The caller must escape invisible characters."""
    return mask_secrets(_RENDERINGS[type(event)].text(event))


def event_text(event: Event, width: int = 0) -> str:
    """*event* in words, without secrets.

    Later lines are marked, so that they cannot be mistaken for another event. *width* is as in
    `problem_text`.
    """
    if isinstance(event, events.Failed):
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
    if isinstance(event, events.ServerNotice):
        return {"WARNING": "warning", "NOTICE": "info", "INFO": "info"}.get(event.severity, "debug")
    return _RENDERINGS[type(event)].level


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
    if not isinstance(event, events.Failed):
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
