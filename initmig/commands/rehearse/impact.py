"""The effects of statements on tables that existed before the rehearsal."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record
from initmig.sql.locks import blocked_by, strongest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initmig.core.errors import MigrationFailed, Place
    from initmig.core.events import Event


class Relation(Record):
    """A table or an index that existed before, as the catalog described it then."""

    table: int
    """The OID of the table: its own, or for an index the OID of the indexed table."""
    name: str
    filenode: int | None


class Footprint(Record):
    """The effects of a transaction on one relation so far."""

    modes: frozenset[str]
    """The lock modes that the transaction holds."""
    filenode: int | None
    """None if it has no file, or was dropped."""
    scans: int
    rows_read: int
    rows_written: int


class TableImpact(Record):
    """The effects of one statement on one table that existed before."""

    table: str
    lock: str = ""
    """The new lock mode, if it is stronger than the migration's modes so far; otherwise empty."""
    rewritten: bool = False
    """Whether its rows were written to a new file, or removed by TRUNCATE."""
    scanned: bool = False
    """Whether it was read from beginning to end."""
    rows_read: int = 0
    """By scans."""
    rows_written: int = 0
    """Inserted, updated or deleted."""

    @property
    def blocks(self) -> str:
        """The statements of other sessions that wait until the migration ends."""
        return blocked_by(self.lock)


class StatementImpact(Record):
    """One statement, or a whole Python migration, and its effects."""

    place: Place
    sql: str
    """Empty for Python."""
    seconds: float
    tables: tuple[TableImpact, ...]


class NotRehearsed(Record):
    """The reason why a migration was not rehearsed completely."""

    id: str
    """Kebab case; docs/reference/rehearse.md lists them all. Stable even if the words change."""
    words: str


class RehearsedMigration(Record):
    """The result of rehearsing one migration."""

    id: str
    path: str
    statements: tuple[StatementImpact, ...] = ()
    locked_before: tuple[tuple[str, str], ...] = ()
    """Tables that earlier migrations keep locked, with the modes; these locks cannot be new."""
    not_rehearsed: NotRehearsed | None = None
    """None if it was rehearsed completely, or failed."""
    note: str = ""
    """The workaround that made the rehearsal possible; usually empty."""


class Rehearsal(Record):
    """The results in order, up to and including the migration that failed."""

    outcome: str
    ids: tuple[str, ...]
    """The migrations that were rehearsed."""
    seconds: float
    migrations: tuple[RehearsedMigration, ...] = ()
    failure: MigrationFailed | None = None
    planned: int = 0
    """The number of migrations in the plan, including those after the one that failed."""
    summary: Event | None = None


def impacts(
    relations: Mapping[int, Relation],
    before: Mapping[int, Footprint],
    after: Mapping[int, Footprint],
    held: Mapping[int, str],
) -> dict[int, TableImpact]:
    """The effects on each table, by OID, between the footprints *before* and *after*.

    Untouched tables are left out. *held* has each table's strongest lock mode so far, in this
    migration.
    """
    new: dict[int, set[str]] = {}
    for oid, now in after.items():
        if relation := relations.get(oid):
            # a lock on an index also blocks sessions that plan a query of its table
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
