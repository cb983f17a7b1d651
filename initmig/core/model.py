"""The data model: a migration as a file, as executable code, and as a record in the database."""

from __future__ import annotations

from initmig.core.errors import Place
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from typing import Any, Literal, Protocol

    Direction = Literal["apply", "rollback"]

    class Sliceable(Protocol):
        """Bytes, or an object that returns bytes for a slice."""

        def __len__(self) -> int: ...
        def __getitem__(self, index: slice, /) -> bytes: ...

    class Runnable(Protocol):
        """The code of a migration. Its channel and its parts are objects of the engine."""

        source: str | None
        """The text of a Python file; None for SQL."""
        sets_isolation: bool
        """Whether it may set the isolation level, which must precede all queries."""
        sets_session: bool
        """Whether it may change settings of the session."""

        def run(self, channel: Any, direction: Direction) -> None:
            """Send the SQL, or run the steps, in the open transaction."""

        def statements(self) -> Sequence[Any]:
            """The parts to apply one by one in an open transaction."""

        def visible_parts(self, direction: Direction) -> Sequence[Any]:
            """The statements or steps that run in the *direction*, for inspection."""

        def parts(self, direction: Direction) -> Sequence[Any]:
            """The parts that the journal counts, in the order run; empty if transactional."""


HOOK = "post-apply"
"""File names with this prefix run after every run that applied a migration."""


PACKAGE = "__init__"
"""The id under which yoyo records an ``__init__.py`` as a migration, although it is not one."""


UNDOING = "rolling back "
"""Prefix of an id in yoyo's table while the rollback of that migration is unfinished."""


_LONGEST_RECORDED = 255
"""Characters, not bytes, of the column in yoyo's table."""


def longest_id(*, transactional: bool) -> int:
    """The maximum length of an id. A non-transactional rollback needs space for a prefix."""
    return _LONGEST_RECORDED - (0 if transactional else len(UNDOING))


class MigrationFile(Record):
    """A migration in the listing of its folder. The file has not been read yet."""

    id: str
    """The file name without its suffix, as in yoyo."""
    path: str
    rollback_path: str = ""
    """Path of ``ID.rollback.sql``; empty if it does not exist."""
    folder: str = ""

    @property
    def is_sql(self) -> bool:
        """Whether the file is SQL. Otherwise it is Python."""
        return self.path.endswith(".sql")


class Listing(Record):
    """The migrations of an image in yoyo's order: folder by folder, sorted by name."""

    migrations: tuple[MigrationFile, ...]
    hooks: tuple[MigrationFile, ...] = ()
    """The ``post-apply*`` files, run after every run that applied a migration."""
    packages: tuple[MigrationFile, ...] = ()
    """The ``__init__.py`` files with the id `PACKAGE`: never pending, never unknown."""

    @property
    def has_python(self) -> bool:
        """Whether any file is Python. Its steps need a psycopg connection."""
        return not all(file.is_sql for file in (*self.migrations, *self.hooks))


def _nowhere(_: int) -> Place:
    return Place("")


class Step(Record):
    """A step as ``plan`` shows it, in UTF-8: SQL, or the source of a Python function.

    Stored as bytes because in a Python string one character can make every other take four bytes.
    """

    applying: Sliceable
    undoing: Sliceable
    """Empty if the step cannot be rolled back."""
    line: int = 0
    """The line in a Python file, 1-based; 0 if unknown, and in SQL."""
    may_fail: frozenset[Direction] = frozenset()
    """The directions whose errors are ignored."""
    place_at: Callable[[int], Place] = _nowhere
    """Maps a byte offset in *applying*, from 0, to its place, without the text of the line."""
    function: str = ""
    """The name of the Python function that applies the step; empty for SQL."""

    @property
    def data(self) -> bytes:
        """The SQL that applies the step, in UTF-8."""
        return self.applying[:]

    @property
    def apply(self) -> str:
        """The SQL that applies the step."""
        return self.applying[:].decode()

    @property
    def rollback(self) -> str:
        """The SQL that rolls the step back; empty if it cannot be rolled back."""
        return self.undoing[:].decode()


class Migration(Record):
    """A migration that was read and can run."""

    file: MigrationFile
    checksum: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    transactional: bool
    breaking: bool
    depends: frozenset[str]
    steps: tuple[Step, ...]
    handle: Runnable
    rollback_checksum: str = ""
    """SHA-256 of the rollback, as *checksum*."""
    parts: Sequence[Place] = ()
    """The place of each part that the journal counts; empty if it runs in one transaction."""
    rollback_parts: Sequence[Place] = ()
    ignored: Sequence[Place] = ()
    """The places of directives that neither yoyo nor initmig reads."""
    has_statements: bool = True
    """Whether an SQL file contains a statement to apply; always true of Python."""

    @property
    def id(self) -> str:
        """The id of the file."""
        return self.file.id


class AppliedMigration(Record):
    """A migration that is applied according to the database. Sorted by the time of applying."""

    id: str
    applied_at: datetime | None
    """In UTC, with a time zone; None if the history has no time. For display only."""
    applied_by: str
    """``user@host`` as recorded; empty if not recorded."""
    checksum: str = ""
    """Empty if stock yoyo applied the migration."""
    breaking: bool = False
    duration_seconds: float | None = None
    """None if not recorded, or if nothing was run."""


class Unfinished(Record):
    """A non-transactional migration that is half-applied: it is running or was interrupted."""

    id: str
    direction: Direction
    checksum: str
    """Checksum of the migration, or of its rollback if *direction* is rollback."""
    parts_done: int
    before: str | None
    """The state in the catalog before the uncertain part; None if no part is uncertain."""


class MigrationStatus(Record):
    """A line of `status`."""

    id: str
    state: str
    """One of: applied, changed (applied, but the file differs), pending, applying, rolling back,
    unknown.
    """
    path: str = ""
    applied: AppliedMigration | None = None
    unfinished: Unfinished | None = None
    parts: Sequence[Place] = ()
    """The parts of a half-applied migration, in its direction; empty if unknown."""
    behind: str = ""
    """For a pending migration that is out of order: the applied id that sorts after it."""


class TargetResult(Record):
    """The outcome of `migrate` for one of many targets."""

    target: str
    exit_code: int
    applied: Sequence[str] = ()
    message: str = ""
    """The reason for a failure; empty after success."""
    duration_seconds: float = 0.0
