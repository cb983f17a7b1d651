"""The relations of a database at one moment, with queries and changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from initmig.sql.relations.names import TEMPORARY, cut, quoted_if_needed, strings
from initmig.sql.relations.records import Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from initmig.sql.relations.records import ForeignKey, Inventory, NotNullCheck, Program, Uses
    from initmig.sql.statements import Node


class State:
    """The relations of a database: first those of the *inventory*."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self.server = inventory.server
        self._path = inventory.path
        self._schemas = set(inventory.schemas)
        self._last_id = 0
        self._relations: dict[int, Relation] = {}
        self._ids: defaultdict[str, dict[str, int]] = defaultdict(dict)  # by schema, by name
        self._indexes: defaultdict[int, dict[int, None]] = defaultdict(dict)
        self._children: defaultdict[int, dict[int, None]] = defaultdict(dict)
        self._parents: defaultdict[int, dict[int, None]] = defaultdict(dict)
        self._foreign_keys: dict[int, ForeignKey] = {}
        self._keys_of: defaultdict[int, dict[int, None]] = defaultdict(dict)
        self._views_of: defaultdict[int, dict[Uses, None]] = defaultdict(dict)
        self._read_by: defaultdict[int, dict[int, None]] = defaultdict(dict)
        self._programs: defaultdict[int, dict[tuple[str, str], Program]] = defaultdict(dict)
        self._functions = set(inventory.functions)
        self._statistics = {each[:2]: each[2] for each in inventory.statistics}
        self._checks = {each[:2]: each for each in inventory.not_null_checks}
        for relation in inventory.relations:
            self._add(relation)
        for child, parent in inventory.children:
            self._adopt(child, parent)
        for key in inventory.foreign_keys:
            self._add_key(key)
        for use in inventory.uses:
            self._add_use(use)
        for program in inventory.programs:
            self._add_program(program)

    # --- questions ---

    def find(self, schema: str, name: str) -> Relation | None:
        """The relation with this name now, if any. Without *schema*, the search path decides."""
        for each in [schema] if schema else (TEMPORARY, "pg_catalog", *self._path):
            if (id := self._ids[each].get(name)) is not None:
                return self._relations[id]
        return None

    def named(self, node: Node) -> Relation | None:
        """The relation that a RangeVar of the parser's means."""
        return self.find(node.get("schemaname", ""), node["relname"])

    def listed(self, items: Sequence[Node]) -> Relation | None:
        """The relation that a list of names means, ``a.b`` or ``b``."""
        *schema, name = [item["String"]["sval"] for item in items]
        return self.find(schema[-1] if schema else "", name)

    def shown(self, relation: Relation) -> str:
        """Its name for people: in SQL, with the schema where the path does not lead to it."""
        visible = self.find("", relation.name) == relation
        names = [relation.name] if visible else [relation.schema, relation.name]
        return ".".join(map(quoted_if_needed, names))

    def home(self) -> str:
        """The schema where a name without a schema is created; empty if there is no such schema."""
        return next((each for each in self._path if each in self._schemas), "")

    def is_checked(self, table: Node, column: str) -> bool:
        """Whether a valid constraint excludes NULL from the *column* of a RangeVar."""
        relation = self.named(table)
        return relation is not None and any(
            each.is_valid and each.column == column for each in self.checks_of(relation)
        )

    def checks_of(self, table: Relation) -> list[NotNullCheck]:
        """The constraints of *table* that keep NULL out of a column."""
        return [each for each in self._checks.values() if each.table == table.id]

    def has_schema(self, name: str) -> bool:
        """Whether there is such a schema now."""
        return name in self._schemas

    def has_function(self, schema: str, name: str) -> bool:
        """Whether a VOLATILE function outside of the server's own catalog has this name now."""
        if schema:
            return (schema, name) in self._functions
        return any((each, name) in self._functions for each in self._path)

    def table_of(self, relation: Relation) -> Relation:
        """The table of an index, or the relation itself."""
        return self._relations.get(relation.table, relation)

    def of_statistics(self, items: Sequence[Node]) -> Relation | None:
        """The table of the extended statistics that a list of names means."""
        *schema, name = strings(items)
        for each in schema[-1:] or self._path:
            if (table := self._statistics.get((each, name))) is not None:
                return self._relations.get(table)
        return None

    def indexes_of(self, relation: Relation) -> list[Relation]:
        """The indexes of a table."""
        return [self._relations[id] for id in self._indexes[relation.id]]

    def children_of(self, relation: Relation) -> list[Relation]:
        """Its partitions, and the tables that inherit from it, one level down."""
        return [self._relations[id] for id in self._children[relation.id]]

    def parents_of(self, relation: Relation) -> list[Relation]:
        """The tables that it is a partition of, or inherits from."""
        return [self._relations[id] for id in self._parents[relation.id]]

    def family_of(self, relation: Relation) -> list[Relation]:
        """It, and all below it."""
        return self._closure([relation], self.children_of)

    def foreign_keys_of(self, *relations: Relation) -> list[ForeignKey]:
        """The foreign keys of *relations*, and the foreign keys that refer to them."""
        ids = {id: None for relation in relations for id in self._keys_of[relation.id]}
        return [self._foreign_keys[id] for id in ids]

    def ends_of(self, key: ForeignKey) -> tuple[Relation, Relation]:
        """The table that has the *key*, and the one that it refers to."""
        return self._relations[key.table], self._relations[key.referenced]

    def parts_of(self, key: ForeignKey) -> list[ForeignKey]:
        """The foreign key with those of the partitions."""
        related = self.foreign_keys_of(
            *(each for end in self.ends_of(key) for each in self.family_of(end))
        )
        found = {key.id: key}
        for each in sorted(related, key=lambda each: abs(each.id)):
            if each.parent in found:
                found[each.id] = each
        return list(found.values())

    def whole_of(self, key: ForeignKey) -> ForeignKey:
        """The foreign key that *key* is a partition's part of, or *key* itself."""
        while key.parent in self._foreign_keys:
            key = self._foreign_keys[key.parent]
        return key

    def foreign_key(self, table: Relation, name: str) -> ForeignKey | None:
        """The foreign key *name* that *table* has."""
        keys = self.foreign_keys_of(table)
        found = [key for key in keys if key.table == table.id and key.name == name]
        return min(found, key=lambda key: key.parent != 0, default=None)

    def views_of(self, relation: Relation, column: str = "") -> list[Relation]:
        """The views that read *relation*, or one *column* of it."""
        return [
            self._relations[use.view]
            for use in self._views_of[relation.id]
            if not (column and use.columns) or column in use.columns
        ]

    def read_by(self, view: Relation) -> list[Relation]:
        """The relations that *view* reads."""
        return [self._relations[id] for id in self._read_by[view.id]]

    def programs_of(self, relation: Relation) -> list[Program]:
        """Its triggers and rules."""
        return list(self._programs[relation.id].values())

    def all(self) -> list[Relation]:
        """Every relation."""
        return list(self._relations.values())

    @property
    def functions(self) -> frozenset[tuple[str, str]]:
        """As in the inventory, by now."""
        return frozenset(self._functions)

    def inside(self, schema: str) -> list[Relation]:
        """All relations of *schema*."""
        return [self._relations[id] for id in self._ids[schema].values()]

    def dropped_with(self, relations: Iterable[Relation], *, cascade: bool) -> list[Relation]:
        """The relations that a DROP of *relations* drops, starting with *relations*."""

        def following(relation: Relation) -> Iterator[Relation]:
            yield from self.indexes_of(relation)
            children = self.children_of(relation)
            yield from (each for each in children if cascade or each.partition or each.table)
            if cascade:
                yield from self.views_of(relation)

        return self._closure(relations, following)

    def _closure(
        self, relations: Iterable[Relation], following: Callable[[Relation], Iterable[Relation]]
    ) -> list[Relation]:
        found = {each.id: each for each in relations}
        left = list(found.values())
        for relation in left:
            for each in following(relation):
                if each.id not in found:
                    found[each.id] = each
                    left.append(each)
        return left

    # --- changes ---

    def _add(self, relation: Relation) -> None:
        self._relations[relation.id] = relation
        self._ids[relation.schema][relation.name] = relation.id
        if relation.table:
            self._indexes[relation.table][relation.id] = None

    def _replace(self, relation: Relation) -> None:
        old = self._relations[relation.id]
        self._ids[old.schema].pop(old.name, None)
        self._add(relation)

    def _adopt(self, child: int, parent: int) -> None:
        if child in self._relations and parent in self._relations:
            self._children[parent][child] = None
            self._parents[child][parent] = None

    def _disown(self, child: Relation, parent: Relation) -> None:
        self._children[parent.id].pop(child.id, None)
        self._parents[child.id].pop(parent.id, None)

    def _add_key(self, key: ForeignKey) -> None:
        self._foreign_keys[key.id] = key
        self._keys_of[key.table][key.id] = None
        self._keys_of[key.referenced][key.id] = None

    def _drop_key(self, key: ForeignKey) -> None:
        for each in self.parts_of(key):
            if self._foreign_keys.pop(each.id, None):
                self._keys_of[each.table].pop(each.id, None)
                self._keys_of[each.referenced].pop(each.id, None)

    def _add_use(self, use: Uses) -> None:
        if use.view in self._relations and use.relation in self._relations:
            self._views_of[use.relation][use] = None
            self._read_by[use.view][use.relation] = None

    def _forget_uses(self, view: Relation) -> None:
        for id in self._read_by.pop(view.id, {}):
            uses = self._views_of[id]
            for use in [each for each in uses if each.view == view.id]:
                del uses[use]

    def _add_program(self, program: Program) -> None:
        self._programs[program.table][program.kind, program.name] = program

    def _new_id(self) -> int:
        self._last_id -= 1
        return self._last_id

    def _drop(self, relations: Iterable[Relation], *, cascade: bool) -> None:
        for each in self.dropped_with(relations, cascade=cascade):
            for key in self.foreign_keys_of(each):
                self._drop_key(self.whole_of(key) if key.referenced == each.id else key)
            for parent in self.parents_of(each):
                self._disown(each, parent)
            for child in self.children_of(each):
                self._disown(child, each)
            self._forget_uses(each)
            self._indexes[each.table].pop(each.id, None)
            self._programs.pop(each.id, None)
            del self._relations[each.id]
            if self._ids[each.schema].get(each.name) == each.id:
                del self._ids[each.schema][each.name]

    def _make(self, node: Node, kind: str, **more: Any) -> Relation | None:
        """A new relation for the RangeVar *node*; None if the name is taken."""
        schema = node.get("schemaname") or self.home()
        if node.get("relpersistence") == "t":
            schema = TEMPORARY
        return self._make_at(schema, node["relname"], kind, **more)

    def _make_at(self, schema: str, name: str, kind: str, **more: Any) -> Relation | None:
        name = cut(name)
        if name in self._ids[schema]:
            return None
        made = Relation(self._new_id(), schema, name, kind)._replace(**more)
        self._add(made)
        return made
