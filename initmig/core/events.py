"""Events: frozen records, emitted after the fact. Field names contain the units."""

# ruff: noqa: I001, PLC0414, TC001 - the imports with "as" make this module list all events

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record
from initmig.core.run_events import (
    AppliedElsewhere as AppliedElsewhere,
    Connected as Connected,
    Failed as Failed,
    Finished as Finished,
    HistoryRead as HistoryRead,
    NoMigrationsFound as NoMigrationsFound,
    NothingPending as NothingPending,
    OutputLost as OutputLost,
    ServerNotice as ServerNotice,
    SettingLeftOut as SettingLeftOut,
    StoppedBySignal as StoppedBySignal,
    WaitingForDatabase as WaitingForDatabase,
    WaitingForMigrations as WaitingForMigrations,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias


class FilesIgnored(Record):
    """Files and folders that look like migrations but are not used, by their *paths*."""

    paths: tuple[str, ...]


class NoStatements(Record):
    """The migration *id* has only comments, or no Python steps. It is recorded; nothing runs."""

    id: str
    path: str


class DirectiveIgnored(Record):
    """A line looks like a directive, but yoyo does not read it in this place."""

    place: str
    """``path:line:column``"""
    line: str
    """The text of the line."""


class WaitingInQueue(Record):
    """Another session holds the migration lock."""

    holder: str
    """Its identity, its age, and its activity."""
    holder_pid: int
    """Its server process id; 0 for a prepared transaction."""
    blocked_by: tuple[int, ...]
    """Server process ids that the holder itself waits for, from ``pg_blocking_pids``."""
    waited_seconds: float
    holder_role: str = ""
    """The role that the holder logged in as."""
    is_migrator: bool = True
    """Whether the holder has initmig's application name or lock row."""
    next_step: str = ""
    """How to stop the holder, if it is idle or not an initmig; otherwise empty."""


class WaitingForYoyo(Record):
    """``yoyo_lock`` contains a row of a stock yoyo."""

    pid: int
    locked_at_utc: str
    waited_seconds: float


class LockAcquired(Record):
    """This process is now the migrator. *pooled* shows which kind of lock it holds."""

    waited_seconds: float
    pooled: bool


class StaleLockRemoved(Record):
    """Removed the lock row of a dead initmig from ``yoyo_lock``."""

    pid: int


class YoyoLockRemoved(Record):
    """``unlock`` removed a row from ``yoyo_lock``, written by yoyo or by a dead initmig."""

    pid: int
    locked_at_utc: str


class NotLocked(Record):
    """``unlock`` found no lock row, or the row of a running initmig."""


class OutOfOrder(Record):
    """A pending migration sorts before an applied one."""

    id: str
    applied_id: str


class Changed(Record):
    """The file of an applied migration has changed since it was applied."""

    id: str
    path: str


class HistoryShared(Record):
    """The history seems to belong to another application: its ids match different files."""

    reason: str
    next_step: str


class OtherHistoryFound(Record):
    """`status` found no history, but one of another tool, or one in another place."""

    reason: str
    next_step: str


class RowSecurityActive(Record):
    """Rows of the history *table* are hidden from *role* by *policies*, so they look pending."""

    table: str
    role: str
    policies: tuple[str, ...]


class UnknownMigrations(Record):
    """The database is ahead: applied migrations are not among this image's files."""

    ids: tuple[str, ...]


class MigrationStarted(Record):
    """A migration is about to run; *position* of *total*, 1-based."""

    id: str
    path: str
    position: int
    total: int


class MigrationResumed(Record):
    """A migration continues after an interrupted run. Its first *parts_done* parts are done."""

    id: str
    parts_done: int
    parts: int
    in_doubt: bool
    """Whether the interrupted run had started the next part."""


class PartFoundDone(Record):
    """The catalog shows that the uncertain part, 1-based, was completed."""

    id: str
    part: int
    parts: int


class LeftOverRemoved(Record):
    """Removed the leftovers of an interrupted statement."""

    id: str
    what: str


class LargeFileRead(Record):
    """A large file is about to be read, which takes a while."""

    path: str
    size_bytes: int


class ParserFellBack(Record):
    """pgparse cannot parse this file. initmig's own rules split it."""

    path: str
    reason: str


class MigrationApplied(Record):
    """A migration and its record were committed."""

    id: str
    duration_seconds: float


class MigrationRolledBack(Record):
    """A migration was rolled back and its record removed, in one commit."""

    id: str
    duration_seconds: float


class RollbackSkipped(Record):
    """``rollback`` skips the parts of migration *id* without a rollback, and removes its record."""

    id: str
    reason: str
    places: tuple[str, ...]
    """Each Python step without a rollback, as ``file:line``, or the missing SQL file."""


class AlreadyApplied(Record):
    """``baseline`` does not change these, because they are already applied."""

    ids: tuple[str, ...]


class RecordPlanned(Record):
    """``baseline`` is about to record a migration as applied, without running it."""

    id: str
    path: str


class MigrationRecorded(Record):
    """A migration was recorded as applied without running it. The record was committed."""

    id: str


class HookRan(Record):
    """A post-apply hook was committed."""

    id: str
    duration_seconds: float


class MigrationRetried(Record):
    """Another session made a migration fail. It was rolled back, and is retried after the pause."""

    id: str
    reason: str
    sqlstate: str
    attempt: int
    attempts: int
    pause_seconds: float
    blockers: tuple[str, ...]
    """Descriptions of the blocking processes; empty if none were seen."""


class StatementRunning(Record):
    """A statement runs for a long time."""

    id: str
    elapsed_seconds: float
    doing: str
    """Its wait event or its progress."""
    blockers: tuple[str, ...]
    """Descriptions of the blocking processes."""
    path: str = ""
    """The file of the statement."""
    line: int = 0
    """The line of the statement, 1-based; 0 if the server runs several and does not report which.
    """


class OwnStatementWaiting(Record):
    """One of the statements that initmig sends to read or write the history is blocked."""

    waited_seconds: float
    timeout_seconds: float
    doing: str
    """Its wait event, or the reason for its last failure."""
    blockers: tuple[str, ...]
    """Descriptions of the blocking processes."""


class LockNotReleased(Record):
    """The migration lock could not be released. The outcome of the run does not change."""

    reason: str


class SessionNotEmptied(Record):
    """The session state of a migration could not be removed. Its outcome does not change."""

    reason: str


class ParameterIgnored(Record):
    """The connection does not use a *parameter* of libpq, or a part of it. Emitted once."""

    parameter: str
    reason: str


class ErrorIgnored(Record):
    """A step with ``ignore_errors`` failed, and the migration continued."""

    text: str


class CommitIgnored(Record):
    """*call*, in a function of the migration *id*, had no effect, because initmig commits.

    Emitted once for each migration.
    """

    id: str
    call: str
    path: str
    line: int


class Printed(Record):
    """A Python migration wrote this line to stdout, which is reserved for initmig's results."""

    text: str


class SquawkFailed(Record):
    """squawk is installed but failed, so `plan` omits its findings."""

    reason: str


class NoTargets(Record):
    """The file has no target, no schema matches the LIKE pattern, or the shard is empty."""

    source: str
    """The file, or the pattern."""


class FewerProcesses(Record):
    """Only *processes* of the *asked* processes could be started. They migrate all targets."""

    processes: int
    asked: int
    reason: str


class NotWatched(Record):
    """The thread that reports long statements and their blockers could not be started."""

    reason: str


class TargetsFinished(Record):
    """The number of targets, the number of changed targets, and the failed targets."""

    targets: int
    applied: int
    failed: tuple[str, ...]
    not_begun: int


class FilesCreated(Record):
    """``new`` wrote these files."""

    paths: tuple[str, ...]


class Listening(Record):
    """`serve` now answers requests."""

    address: str


class Ready(Record):
    """`/readyz` now reports ready."""

    migrations: int


class NotReady(Record):
    """`/readyz` reports not ready after the end of the run. Emitted again if the reasons change."""

    reasons: tuple[str, ...]


class RequestAnswered(Record):
    """An HTTP request was answered; *path* excludes the query after `?`."""

    method: str
    path: str
    status: int


class RequestFailed(Record):
    """An internal error: an HTTP request raised an exception. Others are still answered."""

    traceback: str


class ServingEnded(Record):
    """`serve` received a signal after the run, while it only answered requests."""

    signal: str


class MigrationVerified(Record):
    """The migration was applied, rolled back, and applied again; the rollback was complete."""

    id: str
    duration_seconds: float


class Irreversible(Record):
    """A migration without a rollback was verified only by applying it."""

    id: str
    refused: bool = False
    """Whether this is an error, as with ``--require-rollback``."""


class ScratchDatabaseLeft(Record):
    """The scratch database *name* could not be dropped."""

    name: str
    reason: str


if TYPE_CHECKING:
    Event: TypeAlias = (
        NothingPending
        | NoMigrationsFound
        | FilesIgnored
        | NoStatements
        | DirectiveIgnored
        | WaitingForDatabase
        | Connected
        | WaitingForMigrations
        | WaitingInQueue
        | WaitingForYoyo
        | LockAcquired
        | AppliedElsewhere
        | StaleLockRemoved
        | YoyoLockRemoved
        | NotLocked
        | HistoryRead
        | OutOfOrder
        | Changed
        | HistoryShared
        | OtherHistoryFound
        | RowSecurityActive
        | UnknownMigrations
        | MigrationStarted
        | MigrationResumed
        | PartFoundDone
        | LeftOverRemoved
        | LargeFileRead
        | ParserFellBack
        | MigrationApplied
        | MigrationRolledBack
        | RollbackSkipped
        | AlreadyApplied
        | RecordPlanned
        | MigrationRecorded
        | HookRan
        | MigrationRetried
        | StatementRunning
        | OwnStatementWaiting
        | LockNotReleased
        | SessionNotEmptied
        | ServerNotice
        | ParameterIgnored
        | ErrorIgnored
        | CommitIgnored
        | Printed
        | Finished
        | SquawkFailed
        | NoTargets
        | OutputLost
        | FewerProcesses
        | SettingLeftOut
        | NotWatched
        | TargetsFinished
        | FilesCreated
        | Listening
        | Ready
        | NotReady
        | RequestAnswered
        | RequestFailed
        | ServingEnded
        | MigrationVerified
        | Irreversible
        | ScratchDatabaseLeft
        | Failed
        | StoppedBySignal
    )
    Emit: TypeAlias = Callable[[Event], None]
