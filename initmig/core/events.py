"""What happened, as frozen records emitted after the fact; units are in the field names."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from initmig.core.errors import Problem


class NothingPending(Record):
    """Every migration of this image is applied, or every one that was asked for."""

    migrations: int
    later: int = 0
    """How many behind the one that `--to` names are pending."""


class NoMigrationsFound(Record):
    """The folders exist and hold no migration."""

    folders: tuple[str, ...]


class FilesIgnored(Record):
    """Files and folders that look like migrations and are not used, by their *paths*."""

    paths: tuple[str, ...]


class NoStatements(Record):
    """The migration *id* has only comments, or no steps in Python: it is recorded, nothing runs."""

    id: str
    path: str


class DirectiveIgnored(Record):
    """A line that reads as a directive, but stands where yoyo does not look for one."""

    place: str
    """``path:line:column``"""
    line: str
    """The text of the line."""


class WaitingForDatabase(Record):
    """The database cannot be used yet; said once for each reason."""

    reason: str
    timeout_seconds: float


class Connected(Record):
    """The database answered after having been waited for."""

    waited_seconds: float


class WaitingForMigrations(Record):
    """Somebody else has to apply what is pending; said once for each change of it."""

    reason: str
    timeout_seconds: float


class WaitingInQueue(Record):
    """Another session holds the migration lock."""

    holder: str
    """Who, since when and what it is doing, in words."""
    holder_pid: int
    """Its server process id; 0 for a prepared transaction."""
    blocked_by: tuple[int, ...]
    """Server process ids that the holder itself waits for, from ``pg_blocking_pids``."""
    waited_seconds: float
    holder_role: str = ""
    """The role that the holder logged in as."""
    is_migrator: bool = True
    """Whether the holder calls itself an initmig, or has the lock row of one."""
    next_step: str = ""
    """How to end it, where nothing is known to run there, or it is no initmig."""


class WaitingForYoyo(Record):
    """A stock yoyo's row stands in ``yoyo_lock``."""

    pid: int
    locked_at_utc: str
    waited_seconds: float


class LockAcquired(Record):
    """This process is the migrator now; *pooled* tells in which way the lock is held."""

    waited_seconds: float
    pooled: bool


class AppliedElsewhere(Record):
    """The last pending migration was applied by another migrator while this one waited."""

    waited_seconds: float


class StaleLockRemoved(Record):
    """A lock row of an initmig that is no more was removed from ``yoyo_lock``."""

    pid: int


class YoyoLockRemoved(Record):
    """``unlock`` removed a row from ``yoyo_lock``, of a yoyo or of a dead initmig."""

    pid: int
    locked_at_utc: str


class NotLocked(Record):
    """``unlock`` found no lock row, or that of an initmig at work."""


class HistoryRead(Record):
    """What the database says is applied; said once until that changes."""

    applied: int
    """How many of this image's migrations."""
    pending: tuple[str, ...]
    unknown: int


class OutOfOrder(Record):
    """A pending migration sorts before one that is applied."""

    id: str
    applied_id: str


class Changed(Record):
    """An applied migration's file is not the one that was applied."""

    id: str
    path: str


class HistoryShared(Record):
    """What is applied seems to be another application's: its ids stand for other files here."""

    reason: str
    next_step: str


class OtherHistoryFound(Record):
    """`status` found no history, but that of another tool, or one in another place."""

    reason: str
    next_step: str


class RowSecurityActive(Record):
    """To the *role*, rows of the history *table* look pending that its *policies* do not show."""

    table: str
    role: str
    policies: tuple[str, ...]


class UnknownMigrations(Record):
    """The database is ahead: these are applied, and not among this image's files."""

    ids: tuple[str, ...]


class MigrationStarted(Record):
    """A migration is about to run; *position* of *total*, 1-based."""

    id: str
    path: str
    position: int
    total: int


class MigrationResumed(Record):
    """A migration goes on where an earlier run stopped; its first *parts_done* are done."""

    id: str
    parts_done: int
    parts: int
    in_doubt: bool
    """Whether the next part was at work when that run stopped."""


class PartFoundDone(Record):
    """The catalog shows that the part that was in doubt, 1-based, had been done."""

    id: str
    part: int
    parts: int


class LeftOverRemoved(Record):
    """What an interrupted statement had left behind is gone."""

    id: str
    what: str


class LargeFileRead(Record):
    """A file is about to be read for what is in it, which takes a while."""

    path: str
    size_bytes: int


class ParserFellBack(Record):
    """pgparse does not read this file; it is split by rules of initmig's own."""

    path: str
    reason: str


class MigrationApplied(Record):
    """A migration and its record were committed."""

    id: str
    duration_seconds: float


class MigrationRolledBack(Record):
    """A migration was undone and its record removed, in one commit."""

    id: str
    duration_seconds: float


class RollbackSkipped(Record):
    """``rollback`` will skip what has no rollback in the migration *id*, and remove its record."""

    id: str
    reason: str
    places: tuple[str, ...]
    """Of each Python step without a rollback, as ``file:line``; of SQL, the missing file."""


class AlreadyApplied(Record):
    """``baseline`` leaves these alone: they are applied, and stay recorded as they are."""

    ids: tuple[str, ...]


class RecordPlanned(Record):
    """``baseline`` is about to record a migration as applied, and will not run it."""

    id: str
    path: str


class MigrationRecorded(Record):
    """A migration was recorded as applied without being run; its record was committed."""

    id: str


class HookRan(Record):
    """A post-apply hook was committed."""

    id: str
    duration_seconds: float


class MigrationRetried(Record):
    """A migration was rolled back because of others, and will be tried again after the pause."""

    id: str
    reason: str
    sqlstate: str
    attempt: int
    attempts: int
    pause_seconds: float
    blockers: tuple[str, ...]
    """Who stood in the way, in words; empty where that was not seen."""


class StatementRunning(Record):
    """A statement takes long."""

    id: str
    elapsed_seconds: float
    doing: str
    """What it waits for, or how far it is."""
    blockers: tuple[str, ...]
    """Who stands in the way, in words."""
    path: str = ""
    """The file that runs."""
    line: int = 0
    """Of the statement, 1-based; 0 where the server has several, and does not say which it runs."""


class OwnStatementWaiting(Record):
    """A statement that initmig sends for itself, to read or write the history, is held up."""

    waited_seconds: float
    timeout_seconds: float
    doing: str
    """What it waits for, or why it failed before it is tried again."""
    blockers: tuple[str, ...]
    """Who stands in the way, in words."""


class LockNotReleased(Record):
    """The work is done, or has failed before; only the migration lock could not be released."""

    reason: str


class SessionNotEmptied(Record):
    """A migration's outcome stands; what it left in the session could not be removed."""

    reason: str


class ServerNotice(Record):
    """PostgreSQL said something beside its answer."""

    severity: str
    text: str


class ParameterIgnored(Record):
    """The connection is made without a *parameter* of libpq, or a part of it; said once."""

    parameter: str
    reason: str


class ErrorIgnored(Record):
    """A step with ``ignore_errors`` failed, and the migration went on without it."""

    text: str


class CommitIgnored(Record):
    """*call*, in a function of the migration *id*, did nothing: initmig commits the migration.

    Emitted once for each migration.
    """

    id: str
    call: str
    path: str
    line: int


class Printed(Record):
    """A migration in Python wrote this line to stdout, which is kept for initmig's results."""

    text: str


class SquawkFailed(Record):
    """squawk is installed, and could not be asked: `plan` goes without its findings."""

    reason: str


class NoTargets(Record):
    """There is no target in the file, no schema that is LIKE the pattern, or none in the shard."""

    source: str
    """The file, or the pattern."""


class OutputLost(Record):
    """stdout took no result of a run that does its work without it."""

    reason: str


class FewerProcesses(Record):
    """Only so many *processes* of those *asked* for could be started; they migrate all targets."""

    processes: int
    asked: int
    reason: str


class SettingLeftOut(Record):
    """The server cannot set one of initmig's own settings; said once for each."""

    name: str
    reason: str
    effect: str


class NotWatched(Record):
    """No thread could be started that reports on long statements and on who blocks them."""

    reason: str


class TargetsFinished(Record):
    """Of many targets: how many there were, how many got something applied, which failed."""

    targets: int
    applied: int
    failed: tuple[str, ...]
    not_begun: int


class Finished(Record):
    """A run that applied, rolled back or recorded something came to its end."""

    summary: str
    ids: tuple[str, ...]
    duration_seconds: float
    kept: str = ""
    """The id after which `rollback --to` has undone everything; empty without one."""
    total: int = 0
    """How many `verify` looked at, with those that have no rollback or failed."""


class FilesCreated(Record):
    """``new`` wrote these files."""

    paths: tuple[str, ...]


class Listening(Record):
    """`serve` answers requests from now on."""

    address: str


class Ready(Record):
    """`/readyz` says yes from now on."""

    migrations: int


class NotReady(Record):
    """`/readyz` says no, though the run is over; said once until the reasons change."""

    reasons: tuple[str, ...]


class RequestAnswered(Record):
    """An HTTP request got its answer; *path* is without what follows a `?`."""

    method: str
    path: str
    status: int


class RequestFailed(Record):
    """A bug: an HTTP request raised an error; others are still answered."""

    traceback: str


class ServingEnded(Record):
    """`serve` was told to stop when it had nothing to do but to answer."""

    signal: str


class MigrationVerified(Record):
    """It was applied, rolled back, and applied again; the rollback restored what it found."""

    id: str
    duration_seconds: float


class Irreversible(Record):
    """A migration without a rollback was verified as far as that goes: it applies."""

    id: str
    refused: bool = False
    """Whether that is an error, as with ``--require-rollback``."""


class ScratchDatabaseLeft(Record):
    """The scratch database *name* could not be dropped."""

    name: str
    reason: str


class Failed(Record):
    """The run ended with *exit_code* because of *problem*."""

    problem: Problem
    exit_code: int


class StoppedBySignal(Record):
    """The run was stopped; what was not committed was rolled back."""

    signal: str
    exit_code: int


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
