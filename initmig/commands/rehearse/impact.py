"""What statements did to the tables that were there before them."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record
from initmig.sql.locks import blocked_by, strongest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initmig.core.errors import MigrationFailed, Place


class Relation(Record):
    """A table or an index that was there before, by what the catalog said of it then."""

    table: int
    """The oid of the table: its own, or that of which it is an index."""
    name: str
    filenode: int | None


class Footprint(Record):
    """What a transaction has done to one relation so far."""

    modes: frozenset[str]
    """In which it is locked."""
    filenode: int | None
    """None where it has none, or has been dropped."""
    scans: int
    rows_read: int
    rows_written: int


class TableImpact(Record):
    """What one statement did to one table that was there before."""

    table: str
    lock: str = ""
    """The mode in which it was locked newly, or in a stronger one than by the migration so far."""
    rewritten: bool = False
    """Its rows went to a new file, or are gone by TRUNCATE."""
    scanned: bool = False
    """It was read from beginning to end."""
    rows_read: int = 0
    """By scanning it."""
    rows_written: int = 0
    """Inserted, updated or deleted."""

    @property
    def blocks(self) -> str:
        """What of others waits for the end of the migration."""
        return blocked_by(self.lock)


class StatementImpact(Record):
    """One statement, or a migration in Python as a whole."""

    place: Place
    sql: str
    """Empty for Python."""
    seconds: float
    tables: tuple[TableImpact, ...]


class WhyNot(Record):
    """Why a migration was not rehearsed, or not to its end."""

    id: str
    """Kebab case; docs/reference/rehearse.md lists them all. Stable even if the words change."""
    words: str


class Rehearsed(Record):
    """What came of one migration."""

    id: str
    path: str
    statements: tuple[StatementImpact, ...] = ()
    held: tuple[tuple[str, str], ...] = ()
    """Tables that earlier ones keep locked, and the modes: these locks are not seen again."""
    why_not: WhyNot | None = None
    """None where it was rehearsed to its end, or failed."""
    note: str = ""
    """What was done so that it could be rehearsed; mostly empty."""


class Rehearsal(Record):
    """All that was rehearsed, in order, up to and with the one that failed."""

    migrations: tuple[Rehearsed, ...]
    failure: MigrationFailed | None = None
    planned: int = 0
    """How many were to be rehearsed, with those behind the one that failed."""


def impacts(
    relations: Mapping[int, Relation],
    before: Mapping[int, Footprint],
    after: Mapping[int, Footprint],
    held: Mapping[int, str],
) -> dict[int, TableImpact]:
    """What happened between two looks, by the tables' oids; what was not touched is left out.

    *held* has the strongest mode in which the migration has locked each table so far.
    """
    new: dict[int, set[str]] = {}
    for oid, now in after.items():
        if relation := relations.get(oid):
            # who locks an index holds up everybody who plans a query of its table
            taken = now.modes - before[oid].modes if oid in before else now.modes
            new.setdefault(relation.table, set()).update(taken)
    found = {}
    for oid, modes in new.items():
        untouched = Footprint(frozenset(), relations[oid].filenode, 0, 0, 0)
        then = before.get(oid, untouched)
        impact = _impact(relations[oid].name, then, after.get(oid, then))
        impact = impact._replace(lock=_stronger(strongest(modes), held.get(oid, "")))
        if any(impact[1:]):
            found[oid] = impact
    return found


def _stronger(mode: str, other: str) -> str:
    return mode if strongest((other, mode)) != other else ""


def _impact(name: str, then: Footprint, now: Footprint) -> TableImpact:
    return TableImpact(
        name,
        rewritten=now.filenode not in (None, then.filenode),
        scanned=now.scans > then.scans,
        rows_read=max(0, now.rows_read - then.rows_read),
        rows_written=max(0, now.rows_written - then.rows_written),
    )
