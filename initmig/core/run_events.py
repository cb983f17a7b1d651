"""The events that any run may emit. A run with nothing to do imports only these.

`core.events` has all events.
"""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from initmig.core.errors import Problem


class NothingPending(Record):
    """All migrations of this image, or all requested ones, are applied."""

    migrations: int
    later: int = 0
    """The number of pending migrations after the target of `--to`."""


class NoMigrationsFound(Record):
    """The folders exist but contain no migrations."""

    folders: tuple[str, ...]


class WaitingForDatabase(Record):
    """The database cannot be used yet. Emitted once for each reason."""

    reason: str
    timeout_seconds: float


class Connected(Record):
    """The database answered after a wait."""

    waited_seconds: float


class WaitingForMigrations(Record):
    """Another process must apply the pending migrations. Emitted after each change."""

    reason: str
    timeout_seconds: float


class AppliedElsewhere(Record):
    """The last pending migration was applied by another migrator while this one waited."""

    waited_seconds: float


class HistoryRead(Record):
    """The applied migrations according to the database. Emitted again only after a change."""

    applied: int
    """The number of this image's migrations that are applied."""
    pending: tuple[str, ...]
    unknown: int


class ServerNotice(Record):
    """PostgreSQL sent a notice."""

    severity: str
    text: str


class OutputLost(Record):
    """A run could not write its result to stdout. The work itself was done."""

    reason: str


class SettingLeftOut(Record):
    """The server cannot set one of the settings that initmig uses. Emitted once for each."""

    name: str
    reason: str
    effect: str


class Finished(Record):
    """A run that applied, rolled back or recorded migrations has ended."""

    summary: str
    ids: tuple[str, ...]
    duration_seconds: float
    kept: str = ""
    """The id after which `rollback --to` has rolled back everything; empty otherwise."""
    total: int = 0
    """The number of migrations that `verify` checked, including failures and irreversible ones."""


class Failed(Record):
    """The run ended with *exit_code* because of *problem*."""

    problem: Problem
    exit_code: int


class StoppedBySignal(Record):
    """A signal stopped the run. Uncommitted work was rolled back."""

    signal: str
    exit_code: int
