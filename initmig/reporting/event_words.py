"""The levels and words of the events that a run with nothing to do never emits.

`reporting.logs` has the words of the other events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core import events
from initmig.core.durations import counted, format_duration
from initmig.core.errors import Place
from initmig.reporting.logs import Rendering, joined

if TYPE_CHECKING:
    from initmig.core.events import Event


def _blocked_by(items: tuple[str, ...]) -> str:
    return f"; blocked by {'; '.join(items)}" if items else ""


def _activity(words: str) -> str:
    shown = words.removeprefix("running").removeprefix(", ")
    return f": {shown}" if shown else ""


def _targets_finished(event: events.TargetsFinished) -> str:
    parts = [f"applied migrations to {event.applied}"]
    if event.failed:
        parts.append(f"{len(event.failed)} failed ({joined(event.failed)})")
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

RENDERINGS: dict[type[Event], Rendering] = {
    events.FilesIgnored: Rendering(
        "warning",
        lambda e: (
            f"ignored {joined(e.paths)}: migrations must be directly in the folder,"
            " with names that end in .sql or .py"
        ),
    ),
    events.NoStatements: Rendering(
        "warning",
        lambda e: (
            f"{e.path} has no {'steps' if e.path.endswith('.py') else 'statements'}:"
            f" applying {e.id} only records it"
        ),
    ),
    events.DirectiveIgnored: Rendering(
        "warning",
        lambda e: (
            f"{e.place}: ignored `{e.line}`, because yoyo reads no directives below a /* */"
            " comment; move it to the top of the file"
        ),
    ),
    events.WaitingInQueue: Rendering(
        "info",
        lambda e: (
            f"waiting for {'another migrator' if e.is_migrator else _NO_MIGRATOR}"
            f" ({format_duration(e.waited_seconds)} so far): {e.holder}"
            + (f"; {e.next_step}" if e.next_step else "")
        ),
    ),
    events.WaitingForYoyo: Rendering(
        "info",
        lambda e: (
            f"waiting for yoyo ({format_duration(e.waited_seconds)} so far): its process {e.pid}"
            f" has held the lock since {e.locked_at_utc} UTC;"
            " if that process no longer exists, run `initmig unlock`"
        ),
    ),
    events.LockAcquired: Rendering(
        "debug",
        lambda e: (
            f"acquired the migration lock after {format_duration(e.waited_seconds)}"
            + (" through a pooler" if e.pooled else "")
        ),
    ),
    events.StaleLockRemoved: Rendering(
        "warning", lambda e: f"removed the lock row of an initmig that has ended (pid {e.pid})"
    ),
    events.YoyoLockRemoved: Rendering(
        "info",
        lambda e: f"removed the lock row of process {e.pid}, held since {e.locked_at_utc} UTC",
    ),
    events.NotLocked: Rendering(
        "info", lambda _: "nothing to do: there is no lock row, or a running initmig holds it"
    ),
    events.OutOfOrder: Rendering(
        "warning",
        lambda e: (
            f"{e.id} is out of order: {e.applied_id} is already applied"
            " (--out-of-order=fail refuses this)"
        ),
    ),
    events.Changed: Rendering(
        "warning",
        lambda e: f"{e.path} has changed since {e.id} was applied (--changed=fail refuses this)",
    ),
    events.UnknownMigrations: Rendering(
        "warning",
        lambda e: (
            f"the database is ahead of these migrations: {joined(e.ids)}"
            f" {'is' if len(e.ids) == 1 else 'are'} applied, but unknown here"
        ),
    ),
    events.RowSecurityActive: Rendering(
        "warning",
        lambda e: (
            f"row level security on {e.table} applies to {e.role}"
            f" (policies: {joined(e.policies)}); applied migrations that it hides look pending"
        ),
    ),
    events.HistoryShared: Rendering("warning", lambda e: f"{e.reason}; {e.next_step}"),
    events.OtherHistoryFound: Rendering("warning", lambda e: f"{e.reason}; {e.next_step}"),
    events.MigrationStarted: Rendering(
        "debug", lambda e: f"[{e.position}/{e.total}] {e.id} ({e.path})"
    ),
    events.MigrationResumed: Rendering(
        "info",
        lambda e: (
            f"resuming {e.id}: {e.parts_done} of {counted(e.parts, 'part')} done"
            + ("; checking whether the next one completed" if e.in_doubt else "")
        ),
    ),
    events.PartFoundDone: Rendering(
        "info",
        lambda e: f"{e.id}: the catalog shows that part {e.part} of {e.parts} is already done",
    ),
    events.LeftOverRemoved: Rendering(
        "warning", lambda e: f"{e.id}: removed {e.what}, left behind by an interrupted statement"
    ),
    events.LargeFileRead: Rendering(
        "info", lambda e: f"reading {e.path} ({e.size_bytes / 1e6:.1f} MB)"
    ),
    events.ParserFellBack: Rendering(
        "info",
        lambda e: (
            f"cannot parse {e.path} ({e.reason}); splitting it by simpler rules."
            " The file has a syntax error, or uses syntax that is newer than the parser"
        ),
    ),
    events.MigrationApplied: Rendering(
        "info", lambda e: f"applied {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.MigrationRolledBack: Rendering(
        "info", lambda e: f"rolled back {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.RollbackSkipped: Rendering(
        "warning",
        lambda e: f"{e.reason} ({joined(e.places)}); skipping it and removing the record of {e.id}",
    ),
    events.AlreadyApplied: Rendering(
        "info", lambda e: f"already applied, left unchanged: {joined(e.ids)}"
    ),
    events.RecordPlanned: Rendering(
        "info", lambda e: f"will record as applied without running it: {e.id} ({e.path})"
    ),
    events.MigrationRecorded: Rendering("debug", lambda e: f"recorded {e.id} as applied"),
    events.HookRan: Rendering(
        "info", lambda e: f"ran {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.MigrationRetried: Rendering("warning", _retried),
    events.StatementRunning: Rendering(
        "info",
        lambda e: (
            f"{e.id}{_statement_place(e)} has been running for {format_duration(e.elapsed_seconds)}"
            f"{_activity(e.doing)}{_blocked_by(e.blockers)}"
        ),
    ),
    events.OwnStatementWaiting: Rendering(
        "warning",
        lambda e: (
            "one of initmig's own statements has been held up for"
            f" {format_duration(e.waited_seconds)} (limit {format_duration(e.timeout_seconds)})"
            f"{_activity(e.doing)}{_blocked_by(e.blockers)}"
        ),
    ),
    events.LockNotReleased: Rendering(
        "warning",
        lambda e: (
            f"could not release the migration lock: {e.reason}. The lock ends with the connection."
            " A row left in yoyo_lock blocks only stock yoyo; `initmig unlock` or the next run"
            " that applies something removes it"
        ),
    ),
    events.SessionNotEmptied: Rendering(
        "warning",
        lambda e: (
            f"could not reset the session after the migration: {e.reason}."
            " The migration's outcome stands; initmig continues in a new session"
        ),
    ),
    events.ParameterIgnored: Rendering(
        "warning", lambda e: f"ignored the connection parameter {e.parameter}: {e.reason}"
    ),
    events.ErrorIgnored: Rendering(
        "warning", lambda e: f"ignored an error, because the step has ignore_errors: {e.text}"
    ),
    events.CommitIgnored: Rendering(
        "warning",
        lambda e: (
            f"{e.path}:{e.line}: {e.call} has no effect: initmig commits {e.id} together with its"
            " record"
        ),
    ),
    events.Printed: Rendering("info", lambda e: e.text),
    events.SquawkFailed: Rendering(
        "warning", lambda e: f"squawk failed, so its findings are missing: {e.reason}"
    ),
    events.NoTargets: Rendering("warning", lambda e: f"found no targets in {e.source}"),
    events.FewerProcesses: Rendering(
        "warning",
        lambda e: f"migrating with {e.processes} processes instead of {e.asked}: {e.reason}",
    ),
    events.NotWatched: Rendering(
        "warning",
        lambda e: f"cannot report long statements and who blocks them: {e.reason}",
    ),
    events.TargetsFinished: Rendering("info", _targets_finished),
    events.FilesCreated: Rendering("info", lambda e: f"wrote {joined(e.paths)}"),
    events.Listening: Rendering(
        "info", lambda e: f"listening on {e.address}: /healthz, /readyz, /metrics"
    ),
    events.Ready: Rendering(
        "info", lambda e: f"ready: {counted(e.migrations, 'migration')}, all applied"
    ),
    events.NotReady: Rendering("warning", lambda e: f"not ready: {'; '.join(e.reasons)}"),
    events.RequestAnswered: Rendering("debug", lambda e: f"{e.method} {e.path} {e.status}"),
    events.RequestFailed: Rendering(
        "error", lambda e: f"internal error (please report): {e.traceback}"
    ),
    events.ServingEnded: Rendering("info", lambda e: f"stopped serving after {e.signal}"),
    events.MigrationVerified: Rendering(
        "info", lambda e: f"verified {e.id} in {format_duration(e.duration_seconds)}"
    ),
    events.Irreversible: Rendering(
        "warning",
        lambda e: (
            f"{e.id} has no rollback: verified only that it applies"
            + ("" if e.refused else " (--require-rollback refuses this)")
        ),
    ),
    events.ScratchDatabaseLeft: Rendering(
        "warning", lambda e: f"could not drop the scratch database {e.name}: {e.reason}"
    ),
}
