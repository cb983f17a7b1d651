"""Relations and related objects in the catalog, as records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_SYSTEM = ("pg_catalog", "information_schema")

EVENTS = {4: "INSERT", 8: "DELETE", 16: "UPDATE", 32: "TRUNCATE"}
"""As pg_trigger.tgtype has them, and the parser."""


class Relation(Record):
    """A table, view, index or sequence, by its names in the catalog."""

    id: int
    """Its oid; negative if a pending statement makes it."""
    schema: str
    name: str
    kind: str
    """As pg_class.relkind: r table, p partitioned, v view, m materialized, f foreign, S, i, I."""
    table: int = 0
    """The table of an index."""
    partition: str = ""
    """``partition`` or ``default`` for a partition; otherwise empty."""
    columns: tuple[str, ...] = ()
    """The columns of its table that an index has, without those in expressions."""

    @property
    def is_new(self) -> bool:
        """Whether a pending statement makes it. No other session uses it before the commit."""
        return self.id < 0

    @property
    def is_system(self) -> bool:
        """Whether it belongs to the server's own catalog."""
        return self.schema in _SYSTEM


class ForeignKey(Record):
    """A foreign key, by the ids of both tables. Each partition has another one."""

    id: int
    name: str
    table: int
    columns: tuple[str, ...]
    referenced: int
    referenced_columns: tuple[str, ...]
    unique: int
    """The index of the key that it refers to; 0 if unknown."""
    parent: int
    """The foreign key of the partitioned table that this is a part of; otherwise 0."""
    on_delete: str
    """As pg_constraint.confdeltype: a, r, c (CASCADE), n (SET NULL) or d (SET DEFAULT)."""
    on_update: str


class NotNullCheck(Record):
    """A constraint CHECK (column IS NOT NULL) that also holds for tables that inherit it."""

    table: int
    name: str
    column: str
    is_valid: bool
    """Whether no row of the table breaks it: False after NOT VALID."""


class Uses(Record):
    """A relation that a view reads. Without *columns*, the view reads all of it."""

    view: int
    relation: int
    columns: tuple[str, ...]


class Program(Record):
    """A user's trigger or a rule, which runs with a statement on the *table*."""

    table: int
    kind: str
    """``trigger`` or ``rule``."""
    name: str
    events: frozenset[str]
    """Some of INSERT, DELETE, UPDATE and TRUNCATE."""
    instead: bool


class Inventory(Record):
    """The content of the catalog at one moment."""

    path: tuple[str, ...] = ("public",)
    """The names in the search path, including schemas that do not exist."""
    schemas: tuple[str, ...] = ("public",)
    relations: tuple[Relation, ...] = ()
    children: tuple[tuple[int, int], ...] = ()
    """Child and parent, of partitions and of tables that inherit."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    uses: tuple[Uses, ...] = ()
    programs: tuple[Program, ...] = ()
    functions: frozenset[tuple[str, str]] = frozenset()
    """Schema and name of each VOLATILE function outside of the server's own catalog."""
    statistics: tuple[tuple[str, str, int], ...] = ()
    """Schema, name and table of each CREATE STATISTICS object."""
    not_null_checks: tuple[NotNullCheck, ...] = ()
    server: int = 18
    """The major version of the server."""


def read_inventory(rows: Mapping[str, Collection[Sequence[object]]]) -> Inventory:
    """The `Inventory` from JSON with the names of its fields."""

    def frozen(value: object) -> object:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    def records(field: str) -> Iterator[tuple[object, ...]]:
        return (tuple(map(frozen, row)) for row in rows.get(field) or ())

    return Inventory(
        path=tuple(str(name) for (name,) in records("path")),
        schemas=tuple(str(name) for (name,) in records("schemas")),
        relations=tuple(map(Relation._make, records("relations"))),
        children=tuple((int(str(a)), int(str(b))) for a, b in records("children")),
        foreign_keys=tuple(map(ForeignKey._make, records("foreign_keys"))),
        uses=tuple(map(Uses._make, records("uses"))),
        programs=tuple(map(_program, records("programs"))),
        functions=frozenset((str(a), str(b)) for a, b in records("functions")),
        statistics=tuple((str(a), str(b), int(str(c))) for a, b, c in records("statistics")),
        not_null_checks=tuple(map(NotNullCheck._make, records("not_null_checks"))),
        server=next((int(str(number)) // 10000 for (number,) in records("server")), 18),
    )


def _program(row: tuple[object, ...]) -> Program:
    table, kind, name, events, instead = row
    bits = int(str(events))
    return Program(
        int(str(table)),
        str(kind),
        str(name),
        frozenset(word for bit, word in EVENTS.items() if bits & bit),
        bool(instead),
    )
