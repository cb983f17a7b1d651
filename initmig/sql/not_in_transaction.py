"""Statements that PostgreSQL refuses in a transaction: found before they run, explained after.

PostgreSQL's parser finds them. It does not read functions or DO blocks, and does not know the
database. So it does not find REINDEX or CLUSTER of a partitioned table, or DROP SUBSCRIPTION of a
subscription with a slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.errors import Place
from initmig.core.records import Record
from initmig.sql.lines import Lines
from initmig.sql.masking import mask_sql
from initmig.sql.scanner import mentions
from initmig.sql.statements import (
    Drops,
    EndsBlock,
    OpensBlock,
    cannot_run_in_transaction,
    read_kinds,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initmig.core.model import Direction, Migration
    from initmig.sql.statements import Kind

_WORDS = (
    *("cluster", "concurrently", "database", "discard", "prepared", "reindex", "subscription"),
    *("system", "tablespace", "vacuum"),
)
"""Each such statement contains one of them. Searching for them is faster than parsing."""

_SHOWN = 60
"""Characters of a statement in a message."""

_IN_TRANSACTION = "25001"
"""active_sql_transaction"""

PREVENTING = "PreventInTransactionBlock"
"""The server function that raises it for statements that can never run in a transaction."""

_REFUSING = (PREVENTING, "CreateInitDecodingContext")
"""The functions that raise it for a statement. Others raise it for a setting, such as SET
TRANSACTION. Running that without a transaction would not help."""

_COMMITS = "2D000"
"""invalid_transaction_termination: a procedure or DO block that commits by itself."""


class Refused(Record):
    """A statement of the migration *id* that will fail because it is in a transaction."""

    id: str
    direction: Direction
    place: Place
    fact: str
    next_step: str


class _Statement(Record):
    """A statement whose kind is known, from the byte *start* to *end* of its file or step."""

    lines: Lines
    line: int
    """The line of the Python step; 0 in SQL."""
    start: int
    end: int
    kind: Kind

    @property
    def place(self) -> Place:
        """Where it begins, or in Python where its step begins."""
        if self.lines.path.endswith(".sql"):
            return self.lines.place(self.start)
        return Place(self.lines.path, self.line)

    @property
    def text(self) -> str:
        """Its first characters, on one line."""
        # masked before it is cut, because half a secret is still a secret
        sql = mask_sql(self.lines.data[self.start : self.end].decode(errors="replace"))
        text = " ".join(sql.split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def refused_in_transaction(migrations: Iterable[Migration]) -> Iterator[Refused]:
    """The statements in *migrations* and in their rollbacks that PostgreSQL will refuse."""
    directions: tuple[Direction, ...] = ("apply", "rollback")
    for migration in migrations:
        for direction in directions:
            yield from _refused(migration, direction)


def _refused(migration: Migration, direction: Direction) -> Iterator[Refused]:
    begin: _Statement | None = None
    what = migration.id if direction == "apply" else f"the rollback of {migration.id}"
    for each in _statements(migration, direction):
        if isinstance(each.kind, OpensBlock):
            begin = each
        elif isinstance(each.kind, EndsBlock):
            begin = None
        elif (begin or migration.transactional) and _is_refused(each.kind):
            fact = f"`{each.text}` cannot run inside a transaction, so {what} would fail"
            yield Refused(migration.id, direction, each.place, fact, _next_step(migration, begin))


def _next_step(migration: Migration, begin: _Statement | None) -> str:
    if migration.transactional or begin is None:
        return directive_for(migration)
    return f"move it out of the transaction that begins at {begin.place}"


def _statements(migration: Migration, direction: Direction) -> Iterator[_Statement]:
    """The statements in the *direction* that matter here, if their errors are not ignored."""
    file, applying = migration.file, direction == "apply"
    path = file.path if applying or not file.is_sql else file.rollback_path
    for step in migration.steps if applying else reversed(migration.steps):
        data = (step.applying if applying else step.undoing)[:]
        if direction in step.may_fail or (migration.transactional and not mentions(data, _WORDS)):
            continue
        lines = Lines(path, data)
        for start, end, kind in read_kinds(data)[0]:
            if kind is not None:
                yield _Statement(lines, step.line, start, end, kind)


def _is_refused(kind: Kind) -> bool:
    """Whether the server refuses all statements of this *kind* in a transaction."""
    has_no_slot = isinstance(kind, Drops) and kind.what == "subscription"
    return cannot_run_in_transaction(kind) and not has_no_slot


def directive_for(migration: Migration) -> str:
    """The step that makes *migration* run without a transaction."""
    path = migration.file.path
    if migration.file.is_sql:
        return f"put `-- transactional: false` at the top of {path}"
    return f"put `__transactional__ = False` at the top of {path}"


def advice_after(migration: Migration, sqlstate: str, routine: str, context: str) -> str:
    """The fix if *migration* failed because of a transaction; otherwise empty.

    *routine* is the server function that raised the error. *context* shows the function or block
    that ran the statement; it is empty for a statement of the file itself.
    """
    if sqlstate == _COMMITS:
        if migration.transactional:
            return f"{directive_for(migration)}, so that a procedure or DO block can commit"
        return (
            "run the procedure or DO block as a separate statement, not between BEGIN and COMMIT"
            " and not in a function"
        )
    if sqlstate != _IN_TRANSACTION or routine not in _REFUSING:
        return ""
    if not migration.transactional:
        return (
            "run it as a separate statement, not between BEGIN and COMMIT and not in a function"
            " or DO block"
        )
    inside = "; if a function or DO block runs it, also move it to a separate statement"
    return f"{directive_for(migration)}{inside if context else ''}"
