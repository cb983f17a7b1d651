"""The nouns: a migration as a file, as code that can run, and as a fact in the database."""

from __future__ import annotations

from initmig.core.errors import Place
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from typing import Any, Literal, Protocol

    Direction = Literal["apply", "rollback"]

    class Sliceable(Protocol):
        """Bytes, or what gives them."""

        def __len__(self) -> int: ...
        def __getitem__(self, index: slice, /) -> bytes: ...


HOOK = "post-apply"
"""What the name of a file begins with that runs after every run that applied something."""


PACKAGE = "__init__"
"""The id under which yoyo records an ``__init__.py`` as a migration, which it is not."""


UNDOING = "rolling back "
"""What stands before an id in yoyo's table while that migration is half rolled back."""


_LONGEST_RECORDED = 255
"""Characters, not bytes, of the column in yoyo's table."""


def longest_id(*, transactional: bool) -> int:
    """So many characters an id can have, of which a part of a rollback is recorded, too."""
    return _LONGEST_RECORDED - (0 if transactional else len(UNDOING))


class MigrationFile(Record):
    """A migration as its folder lists it; nothing has been read yet."""

    id: str
    """The file's name without its suffix, as in yoyo."""
    path: str
    rollback_path: str = ""
    """Path of ``ID.rollback.sql``; empty where there is none."""
    folder: str = ""

    @property
    def is_sql(self) -> bool:
        """Whether it is SQL, and not Python."""
        return self.path.endswith(".sql")


class Listing(Record):
    """What the folders of an image hold, in yoyo's order: folder by folder, sorted by name."""

    migrations: tuple[MigrationFile, ...]
    hooks: tuple[MigrationFile, ...] = ()
    """The ``post-apply*`` files, run after every run that applied something."""
    packages: tuple[MigrationFile, ...] = ()
    """The ``__init__.py`` that has the id `PACKAGE`: never pending, nor unknown."""

    @property
    def has_python(self) -> bool:
        """Whether a file is Python, whose steps get a connection of psycopg's."""
        return not all(file.is_sql for file in (*self.migrations, *self.hooks))


def _nowhere(_: int) -> Place:
    return Place("")


class Step(Record):
    """One step as ``plan`` shows it: SQL, or where the Python function stands; in UTF-8.

    Not as text, of which a single character can make four bytes of each other one.
    """

    applying: Sliceable
    undoing: Sliceable
    """Empty where the step cannot be rolled back."""
    line: int = 0
    """Where a Python file defines it, 1-based; 0 where that is not known, and in SQL."""
    may_fail: frozenset[Direction] = frozenset()
    """The directions in which its errors are ignored."""
    place_at: Callable[[int], Place] = _nowhere
    """The place in the file of a byte of what applies it, from 0, without the text of the line."""
    function: str = ""
    """The name of the Python function that applies it; empty for SQL."""

    @property
    def data(self) -> bytes:
        """What applies it, in UTF-8."""
        return self.applying[:]

    @property
    def apply(self) -> str:
        """What applies it."""
        return self.applying[:].decode()

    @property
    def rollback(self) -> str:
        """What rolls it back; empty where it cannot be."""
        return self.undoing[:].decode()


class Migration(Record):
    """A migration that was read and can be run."""

    file: MigrationFile
    checksum: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    transactional: bool
    breaking: bool
    depends: frozenset[str]
    steps: tuple[Step, ...]
    handle: Any
    """The engine's own object for it; only the engine looks inside."""
    rollback_checksum: str = ""
    """As *checksum*, of what rolls it back."""
    parts: Sequence[Place] = ()
    """Where each part stands that the journal counts; empty where it is one transaction."""
    rollback_parts: Sequence[Place] = ()
    ignored: Sequence[Place] = ()
    """Where directives stand that yoyo does not read, nor does initmig."""

    @property
    def id(self) -> str:
        """As its file's."""
        return self.file.id


class AppliedMigration(Record):
    """A migration that the database says is applied, in the order applied."""

    id: str
    applied_at: datetime | None
    """UTC, with its time zone; None where the history has no such time. For people: it decides
    nothing."""
    applied_by: str
    """``user@host`` as recorded; empty where nobody recorded it."""
    checksum: str = ""
    """Empty where stock yoyo applied it."""
    breaking: bool = False
    duration_seconds: float | None = None
    """None where nobody recorded it, or nothing was run."""


class Unfinished(Record):
    """A migration that is not one transaction, and is half way: at work, or stopped there."""

    id: str
    direction: Direction
    checksum: str
    """Of what was begun: of the migration, or of its rollback."""
    parts_done: int
    before: str | None
    """What the catalog showed before the part that is in doubt; None where none is."""


class MigrationStatus(Record):
    """A line of `status`."""

    id: str
    state: str
    """applied, changed (applied, and the file is different now), pending, applying or rolling back
    (half way), or unknown."""
    path: str = ""
    applied: AppliedMigration | None = None
    unfinished: Unfinished | None = None
    parts: Sequence[Place] = ()
    """Of the half-way migration, in the direction that it goes; empty where they are not known."""
    behind: str = ""
    """The applied id that a pending migration sorts before, out of order; empty where none is."""


class Outcome(Record):
    """What became of one of many targets."""

    target: str
    exit_code: int
    applied: Sequence[str] = ()
    message: str = ""
    """Why it failed; empty where it did not."""
    duration_seconds: float = 0.0
