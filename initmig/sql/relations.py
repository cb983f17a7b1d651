"""Which relations a database has, and which it has after each pending statement.

The database tells once, as an `Inventory`; from there on `Relations` follows the statements, by
PostgreSQL's own rules for names. What a function, a DO block or an extension makes is not seen.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from initmig.quoting import LONGEST_NAME_BYTES, quote_identifier, split_names
from initmig.sql.statements import nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from initmig.sql.statements import Node

_TEMPORARY = "pg_temp"
_SYSTEM = ("pg_catalog", "information_schema")


class Relation(NamedTuple):
    """A table, view, index or sequence, by its names in the catalog."""

    id: int
    """Its oid; below 0 where a pending statement makes it."""
    schema: str
    name: str
    kind: str
    """As pg_class.relkind: r table, p partitioned, v view, m materialized, f foreign, S, i, I."""
    table: int = 0
    """Of an index, the table that has it."""
    partition: str = ""
    """Of a partition ``partition``, or ``default``; else empty."""
    columns: tuple[str, ...] = ()
    """Of an index, those of its table that it has, without those in expressions."""

    @property
    def is_new(self) -> bool:
        """Whether a pending statement makes it: nobody uses it before that is committed."""
        return self.id < 0

    @property
    def is_system(self) -> bool:
        """Whether it belongs to the server's own catalog."""
        return self.schema in _SYSTEM


class ForeignKey(NamedTuple):
    """A foreign key, by the ids of what it connects; that of a partition is one more."""

    id: int
    name: str
    table: int
    columns: tuple[str, ...]
    referenced: int
    referenced_columns: tuple[str, ...]
    unique: int
    """The index of the key that it refers to; 0 where it is not known."""
    parent: int
    """The foreign key of the partitioned table that this is the part of; else 0."""
    on_delete: str
    """As pg_constraint.confdeltype: a, r, c (CASCADE), n (SET NULL) or d (SET DEFAULT)."""
    on_update: str


class Uses(NamedTuple):
    """What a view reads: a relation's *columns*, or all of it where there are none."""

    view: int
    relation: int
    columns: tuple[str, ...]


class Program(NamedTuple):
    """A user's trigger, or a rule: what runs with a statement on the *table*, and is not seen."""

    table: int
    kind: str
    """``trigger`` or ``rule``."""
    name: str
    events: frozenset[str]
    """Of INSERT, DELETE, UPDATE and TRUNCATE."""
    instead: bool


class Inventory(NamedTuple):
    """What the catalog has, at one moment."""

    path: tuple[str, ...] = ("public",)
    """The names of the search path, also of schemas that there are not."""
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
    """Schema, name and table of what CREATE STATISTICS has made."""
    server: int = 18
    """The major version of the server."""


class Relations:
    """The relations of a database while the pending statements run, one by one.

    Ask `find` what a name means now, then let `follow` know of the statement. `begin_file` is due
    where the next file begins: it gets a session without temporary tables and with its own path.
    """

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
        """The relation of this name now; None if there is none. Without *schema* the path tells."""
        for each in [schema] if schema else (_TEMPORARY, "pg_catalog", *self._path):
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
        return ".".join(map(_quoted_if_needed, names))

    def home(self) -> str:
        """The schema in which a name without one is made; empty where there is none."""
        return next((each for each in self._path if each in self._schemas), "")

    def has_schema(self, name: str) -> bool:
        """Whether there is such a schema now."""
        return name in self._schemas

    def has_function(self, schema: str, name: str) -> bool:
        """Whether a VOLATILE function outside of the server's own catalog has this name now."""
        if schema:
            return (schema, name) in self._functions
        return any((each, name) in self._functions for each in self._path)

    def table_of(self, relation: Relation) -> Relation:
        """The table of an index; else the relation itself."""
        return self._relations.get(relation.table, relation)

    def of_statistics(self, items: Sequence[Node]) -> Relation | None:
        """The table of the extended statistics that a list of names means."""
        *schema, name = _strings(items)
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
        """What it is a partition of, or inherits from."""
        return [self._relations[id] for id in self._parents[relation.id]]

    def family_of(self, relation: Relation) -> list[Relation]:
        """It, and all below it."""
        return self._closure([relation], self.children_of)

    def foreign_keys_of(self, *relations: Relation) -> list[ForeignKey]:
        """Those that *relations* have, and those that refer to them."""
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
        """What a DROP of *relations* drops, them first."""

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

    def begin_file(self) -> None:
        """Forget what ends with a session: temporary tables, and a search path that was set."""
        self._path = self._inventory.path
        self._drop(self.inside(_TEMPORARY), cascade=True)

    def follow(self, tree: Node) -> None:
        """Do to the relations what the statement does that the parser reads as *tree*."""
        [(kind, node)] = tree.items()
        change = self._changes.get(kind)
        if change:
            change(self, node)

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
        """A new relation for the RangeVar *node*; None where one of that name is there."""
        schema = node.get("schemaname") or self.home()
        if node.get("relpersistence") == "t":
            schema = _TEMPORARY
        return self._make_at(schema, node["relname"], kind, **more)

    def _make_at(self, schema: str, name: str, kind: str, **more: Any) -> Relation | None:
        name = _cut(name)
        if name in self._ids[schema]:
            return None
        made = Relation(self._new_id(), schema, name, kind)._replace(**more)
        self._add(made)
        return made

    # --- statements ---

    def _create_table(self, node: Node, kind: str = "r") -> None:
        kind = "p" if "partspec" in node else kind
        bound = node.get("partbound")
        partition = ("default" if bound.get("is_default") else "partition") if bound else ""
        table = self._make(node["relation"], kind, partition=partition)
        if table is None:
            return
        for parent in self._all_named(each["RangeVar"] for each in node.get("inhRelations", ())):
            self._adopt(table.id, parent.id)
            if partition:
                self._join_partition(table, parent)
        for element in node.get("tableElts", ()):
            if column := element.get("ColumnDef"):
                self._add_column(table, column)
            elif constraint := element.get("Constraint"):
                self._add_constraint(table, constraint)

    def _all_named(self, names: Iterable[Node]) -> Iterator[Relation]:
        return (found for each in names if (found := self.named(each)))

    def _join_partition(self, partition: Relation, parent: Relation) -> None:
        """Make what *partition* gets from *parent*: foreign keys, also to it, and indexes."""
        for index in self.indexes_of(parent):
            alike = [each for each in self.indexes_of(partition) if each.columns == index.columns]
            name = f"{partition.name}{index.name.removeprefix(parent.name)}"
            made = next(iter(alike), None) or self._make_index(partition, name, index.columns)
            if made:
                self._adopt(made.id, index.id)
        for key in self.foreign_keys_of(parent):
            end = "table" if key.table == parent.id else "referenced"
            self._add_key(key._replace(id=self._new_id(), parent=key.id, **{end: partition.id}))  # type: ignore[arg-type]

    def _add_column(self, table: Relation, column: Node) -> None:
        name = column["colname"]
        types = [each["String"]["sval"] for each in column.get("typeName", {}).get("names", ())]
        constraints = [each["Constraint"] for each in column.get("constraints", ())]
        if (types[-1:] and types[-1] in SERIAL) or any(map(_is_identity, constraints)):
            self._make_at(table.schema, made_name(table.name, name, "seq"), "S")
        for constraint in constraints:
            self._add_constraint(table, constraint, column=name)

    def _add_constraint(self, table: Relation, constraint: Node, column: str = "") -> None:
        match constraint["contype"]:
            case "CONSTR_FOREIGN":
                self._add_foreign_key(table, constraint, column)
            case "CONSTR_PRIMARY" | "CONSTR_UNIQUE" | "CONSTR_EXCLUSION" as kind:
                self._add_index_of(table, constraint, kind, column)

    def _add_foreign_key(self, table: Relation, constraint: Node, column: str) -> None:
        referenced = self.named(constraint["pktable"])
        if referenced is None:
            return
        columns = (column,) if column else _strings(constraint.get("fk_attrs", ()))
        taken = {key.name for key in self.foreign_keys_of(table) if key.table == table.id}
        name = constraint.get("conname") or self._free_name(
            table.name, "_".join(columns), "fkey", taken.__contains__
        )
        key = ForeignKey(
            *(self._new_id(), name, table.id, columns),
            *(referenced.id, _strings(constraint.get("pk_attrs", ())), 0, 0),
            *(constraint.get("fk_del_action", "a"), constraint.get("fk_upd_action", "a")),
        )
        self._add_key(key)
        below = [("table", each) for each in self.family_of(table)[1:]]
        below += [("referenced", each) for each in self.family_of(referenced)[1:]]
        for end, relation in below:
            if relation.partition:
                part = {"id": self._new_id(), "parent": key.id, end: relation.id}
                self._add_key(key._replace(**part))  # type: ignore[arg-type]

    def _add_index_of(self, table: Relation, constraint: Node, kind: str, column: str) -> None:
        name = constraint.get("conname", "")
        if "indexname" in constraint:  # ADD ... USING INDEX: its name becomes the constraint's
            index = self.find(table.schema, constraint["indexname"])
            if index and name:
                self._replace(index._replace(name=_cut(name)))
            return
        names = (column,) if column else _strings(constraint.get("keys", ()))
        columns = "_".join(names)
        label = {"CONSTR_PRIMARY": "pkey", "CONSTR_UNIQUE": "key"}.get(kind, "excl")
        if kind == "CONSTR_EXCLUSION":
            columns = _index_columns(
                each["List"]["items"][0]["IndexElem"] for each in constraint["exclusions"]
            )
        name = name or self._free_relation(table, "" if label == "pkey" else columns, label)
        self._make_index(table, name, names)

    def _make_index(self, table: Relation, name: str, columns: tuple[str, ...]) -> Relation | None:
        kind = "I" if table.kind == "p" else "i"
        return self._make_at(table.schema, name, kind, table=table.id, columns=columns)

    def _free_relation(self, table: Relation, columns: str, label: str) -> str:
        def is_taken(name: str) -> bool:
            return name in self._ids[table.schema]

        return self._free_name(table.name, columns, label, is_taken)

    def _free_name(
        self, table: str, columns: str, label: str, is_taken: Callable[[str], bool]
    ) -> str:
        number = 0
        while is_taken(name := made_name(table, columns, f"{label}{number or ''}")):
            number += 1
        return name

    def _create_table_as(self, node: Node) -> None:
        kind = "m" if node.get("objtype") == "OBJECT_MATVIEW" else "r"
        if (made := self._make(node["into"]["rel"], kind)) and kind == "m":
            self._reads(made, node["query"])

    def _select(self, node: Node) -> None:
        if "intoClause" in node:
            self._make(node["intoClause"]["rel"], "r")
        match node.get("targetList"):
            case [{"ResTarget": {"val": {"FuncCall": {"funcname": [*_, name], "args": args}}}}]:
                if name == {"String": {"sval": "set_config"}}:
                    self._set_config(args)

    def _set_config(self, args: Sequence[Node]) -> None:
        match args:
            case [{"A_Const": {"sval": {"sval": "search_path"}}}, {"A_Const": {"sval": value}}, _]:
                text = value.get("sval", "")
                with suppress(ValueError):  # the server refuses such a list
                    self._path = split_names(text) if text else ()

    def _create_view(self, node: Node) -> None:
        made = self._make(node["view"], "v")
        if made is None and (made := self.named(node["view"])):
            self._forget_uses(made)
        if made:
            self._reads(made, node["query"])

    def _reads(self, view: Relation, query: Node) -> None:
        for relation in self.read_in(query):
            self._add_use(Uses(view.id, relation.id, ()))

    def read_in(self, query: Node) -> list[Relation]:
        """The relations that *query* names."""
        found = [(name, each) for name, each in nodes(query)]
        own = {each["ctename"] for name, each in found if name == "CommonTableExpr"}
        names = [
            each
            for name, each in found
            if name == "RangeVar" and ("schemaname" in each or each["relname"] not in own)
        ]
        return list({each.id: each for each in self._all_named(names)}.values())

    def _create_sequence(self, node: Node) -> None:
        self._make(node["sequence"], "S")

    def _create_foreign_table(self, node: Node) -> None:
        self._create_table(node["base"], "f")

    def _create_index(self, node: Node) -> None:
        table = self.named(node["relation"])
        if table is None:
            return
        elements = [each["IndexElem"] for each in node.get("indexParams", ())]
        columns = _index_columns(elements)
        names = tuple(each["name"] for each in elements if "name" in each)
        name = node.get("idxname") or self._free_relation(table, columns, "idx")
        made = self._make_index(table, name, names)
        if made and node["relation"].get("inh"):
            self._index_partitions(made, table, columns)

    def _index_partitions(self, index: Relation, table: Relation, columns: str) -> None:
        """Make the parts of a new *index* in the partitions of *table*."""
        for child in self.children_of(table):
            if child.partition:
                name = self._free_relation(child, columns, "idx")
                if made := self._make_index(child, name, index.columns):
                    self._adopt(made.id, index.id)
                    self._index_partitions(made, child, columns)

    def _create_schema(self, node: Node) -> None:
        name = node.get("schemaname") or node.get("authrole", {}).get("rolename", "")
        if name:
            self._schemas.add(name)
        path, self._path = self._path, (name, *self._path)
        for each in node.get("schemaElts", ()):
            self.follow(each)
        self._path = path

    def dropped_by(self, node: Node) -> list[Relation]:
        """The relations that a DropStmt names, or those of the schemas that it names."""
        what = node["removeType"].removeprefix("OBJECT_")
        if what == "SCHEMA":
            return [
                relation
                for each in node["objects"]
                for relation in self.inside(each["String"]["sval"])
            ]
        if what not in RELATIONS:
            return []
        names = (each["List"]["items"] for each in node["objects"])
        return [found for each in names if (found := self.listed(each))]

    def _drop_objects(self, node: Node) -> None:
        what = node["removeType"].removeprefix("OBJECT_")
        self._drop(self.dropped_by(node), cascade=cascades(node))
        if what == "SCHEMA":
            names = {each["String"]["sval"] for each in node["objects"]}
            self._schemas -= names
            self._functions = {each for each in self._functions if each[0] not in names}
        if what in ("TRIGGER", "RULE"):
            for each in node["objects"]:
                *names, own = each["List"]["items"]
                if table := self.listed(names):
                    for relation in self.family_of(table):
                        key = (what.lower(), own["String"]["sval"])
                        self._programs[relation.id].pop(key, None)

    def _rename(self, node: Node) -> None:
        what, new = node["renameType"].removeprefix("OBJECT_"), node["newname"]
        if what == "SCHEMA":
            self._rename_schema(node["subname"], new)
            return
        relation = self.named(node["relation"]) if "relation" in node else None
        if relation is None:
            return
        if what in RELATIONS:
            self._replace(relation._replace(name=new))
        elif what == "COLUMN":
            self._rename_column(relation, node["subname"], new)
        elif what == "TABCONSTRAINT":
            self._rename_constraint(relation, node["subname"], new)
        elif what in ("TRIGGER", "RULE"):
            programs = self._programs[relation.id]
            if program := programs.pop((what.lower(), node["subname"]), None):
                self._add_program(program._replace(name=new))

    def _rename_schema(self, old: str, new: str) -> None:
        if old in self._schemas:
            self._schemas.remove(old)
            self._schemas.add(new)
        for each in self.inside(old):
            self._replace(each._replace(schema=new))
        self._functions = {(new if s == old else s, name) for s, name in self._functions}

    def _rename_column(self, relation: Relation, old: str, new: str) -> None:
        def renamed(columns: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(new if each == old else each for each in columns)

        for index in self.indexes_of(relation):
            self._replace(index._replace(columns=renamed(index.columns)))
        for key in self.foreign_keys_of(relation):
            if key.table == relation.id:
                key = key._replace(columns=renamed(key.columns))  # noqa: PLW2901
            if key.referenced == relation.id:
                key = key._replace(referenced_columns=renamed(key.referenced_columns))  # noqa: PLW2901
            self._foreign_keys[key.id] = key
        uses = self._views_of[relation.id]
        for use in list(uses):
            if old in use.columns:
                del uses[use]
                uses[use._replace(columns=renamed(use.columns))] = None

    def _rename_constraint(self, table: Relation, old: str, new: str) -> None:
        if key := self.foreign_key(table, old):
            for each in self.parts_of(key):
                self._foreign_keys[each.id] = each._replace(name=new)
        elif index := self.index_named(table, old):
            self._replace(index._replace(name=new))

    def index_named(self, table: Relation, name: str) -> Relation | None:
        """The index of *table*'s constraint *name*, which has the same name."""
        index = self.find(table.schema, name)
        return index if index and index.table == table.id else None

    def _move(self, node: Node) -> None:
        relation = self.named(node["relation"]) if "relation" in node else None
        if relation:
            for each in (relation, *self.indexes_of(relation)):
                self._replace(each._replace(schema=node["newschema"]))

    def _alter_table(self, node: Node) -> None:
        relation = self.named(node["relation"])
        if relation is None:
            return
        for each in node["cmds"]:
            command = each["AlterTableCmd"]
            if change := self._commands.get(command["subtype"]):
                change(self, relation, command)

    def _alter_add_column(self, table: Relation, command: Node) -> None:
        self._add_column(table, command["def"]["ColumnDef"])

    def _alter_add_constraint(self, table: Relation, command: Node) -> None:
        self._add_constraint(table, command["def"]["Constraint"])

    def keys_dropped(self, table: Relation, command: Node) -> list[ForeignKey]:
        """The foreign keys that go with a constraint or a column, as ALTER TABLE drops it."""
        if command["subtype"] == "AT_DropConstraint":
            if key := self.foreign_key(table, command["name"]):
                return [key]
            index = self.index_named(table, command["name"])
            keys = self.foreign_keys_of(table) if index and cascades(command) else []
            return [key for key in keys if key.referenced == table.id and _may_use(key, index)]
        return [
            key
            for key in self.foreign_keys_of(table)
            if (key.table == table.id and command["name"] in key.columns)
            or (key.referenced == table.id and command["name"] in key.referenced_columns)
        ]

    def _alter_drop(self, table: Relation, command: Node) -> None:
        for key in self.keys_dropped(table, command):
            self._drop_key(key)
        if command["subtype"] == "AT_DropConstraint":
            index = self.index_named(table, command["name"])
            self._drop([index] if index else [], cascade=True)
            return
        lost = [each for each in self.indexes_of(table) if command["name"] in each.columns]
        views = self.views_of(table, command["name"]) if cascades(command) else []
        self._drop([*lost, *views], cascade=True)

    def _alter_attach(self, parent: Relation, command: Node) -> None:
        part = command["def"]["PartitionCmd"]
        child = self.named(part["name"])
        if child is None:
            return
        self._adopt(child.id, parent.id)
        if not parent.table:
            kind = "default" if part.get("bound", {}).get("is_default") else "partition"
            self._replace(child._replace(partition=kind))
            self._join_partition(child, parent)

    def _alter_detach(self, parent: Relation, command: Node) -> None:
        if child := self.named(command["def"]["PartitionCmd"]["name"]):
            self._disown(child, parent)
            self._replace(child._replace(partition=""))
            for index in self.indexes_of(child):
                for above in self.parents_of(index):
                    self._disown(index, above)
            parents = {key.id for key in self.foreign_keys_of(parent)}
            for key in self.foreign_keys_of(child):
                if key.parent in parents and key.referenced == child.id:
                    self._drop_key(key)
                elif key.parent in parents:
                    self._foreign_keys[key.id] = key._replace(parent=0)

    def _alter_inherit(self, child: Relation, command: Node) -> None:
        if parent := self.named(command["def"]["RangeVar"]):
            change = self._adopt if command["subtype"] == "AT_AddInherit" else None
            if change:
                change(child.id, parent.id)
            else:
                self._disown(child, parent)

    def _create_trigger(self, node: Node) -> None:
        if table := self.named(node["relation"]):
            events = frozenset(name for bit, name in EVENTS.items() if node["events"] & bit)
            instead = node.get("timing", 0) == _INSTEAD
            for each in self.family_of(table) if "row" in node else [table]:
                program = Program(each.id, "trigger", node["trigname"], events, instead)
                self._add_program(program)

    def _create_rule(self, node: Node) -> None:
        event = node["event"].removeprefix("CMD_")
        if (table := self.named(node["relation"])) and event != "SELECT":
            instead = node.get("instead", False)
            self._add_program(
                Program(table.id, "rule", node["rulename"], frozenset([event]), instead)
            )

    def _create_function(self, node: Node) -> None:
        options = {each["DefElem"]["defname"]: each["DefElem"] for each in node.get("options", ())}
        volatility = options.get("volatility", {}).get("arg", {}).get("String", {}).get("sval")
        if volatility in (None, "volatile"):
            *schema, name = _strings(node["funcname"])
            self._functions.add((schema[-1] if schema else self.home(), name))

    def _create_statistics(self, node: Node) -> None:
        *schema, name = _strings(node.get("defnames", ()))[-2:] or ("",)
        table = self.named(node["relations"][0].get("RangeVar", {"relname": ""}))
        if name and table:
            self._statistics[schema[-1] if schema else self.home(), name] = table.id

    def _set(self, node: Node) -> None:
        if node.get("name") == "search_path":
            values = [each.get("A_Const", {}).get("sval", {}) for each in node.get("args", ())]
            names = tuple(each.get("sval", "") for each in values)
            self._path = names or self._inventory.path
        elif node.get("kind") == "VAR_RESET_ALL":
            self._path = self._inventory.path

    _changes: ClassVar[Mapping[str, Callable[[Relations, Node], None]]] = {
        "AlterObjectSchemaStmt": _move,
        "AlterTableStmt": _alter_table,
        "CreateForeignTableStmt": _create_foreign_table,
        "CreateFunctionStmt": _create_function,
        "CreateSchemaStmt": _create_schema,
        "CreateSeqStmt": _create_sequence,
        "CreateStatsStmt": _create_statistics,
        "CreateStmt": _create_table,
        "CreateTableAsStmt": _create_table_as,
        "CreateTrigStmt": _create_trigger,
        "DropStmt": _drop_objects,
        "IndexStmt": _create_index,
        "RenameStmt": _rename,
        "RuleStmt": _create_rule,
        "SelectStmt": _select,
        "VariableSetStmt": _set,
        "ViewStmt": _create_view,
    }
    _commands: ClassVar[Mapping[str, Callable[[Relations, Relation, Node], None]]] = {
        "AT_AddColumn": _alter_add_column,
        "AT_AddConstraint": _alter_add_constraint,
        "AT_AddInherit": _alter_inherit,
        "AT_AttachPartition": _alter_attach,
        "AT_DetachPartition": _alter_detach,
        "AT_DropColumn": _alter_drop,
        "AT_DropConstraint": _alter_drop,
        "AT_DropInherit": _alter_inherit,
    }


RELATIONS = ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE")
SERIAL = frozenset(("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"))
EVENTS = {4: "INSERT", 8: "DELETE", 16: "UPDATE", 32: "TRUNCATE"}
"""As pg_trigger.tgtype has them, and the parser."""
_INSTEAD = 64


def cascades(node: Node) -> bool:
    """Whether a statement, or a part of one, says CASCADE."""
    return bool(node.get("behavior") == "DROP_CASCADE")


def _may_use(key: ForeignKey, index: Relation | None) -> bool:
    return not key.unique or (index is not None and key.unique == index.id)


def _is_identity(constraint: Node) -> bool:
    return bool(constraint["contype"] == "CONSTR_IDENTITY")


def _strings(items: Iterable[Node]) -> tuple[str, ...]:
    return tuple(item["String"]["sval"] for item in items)


def _index_columns(elements: Iterable[Node]) -> str:
    """What an index without a name has of its columns in its name."""
    return "_".join(_index_column(each) for each in elements)


def _index_column(element: Node) -> str:
    match element:
        case {"name": str(name)}:
            return name
        case {"expr": {"FuncCall": {"funcname": [*_, {"String": {"sval": str(name)}}]}}}:
            return name
    return "expr"


def made_name(table: str, columns: str, label: str) -> str:
    """The name that PostgreSQL makes up, as makeObjectName() in its indexcmds.c does."""
    names = [name.encode() for name in (table, columns) if name]
    room = LONGEST_NAME_BYTES - len(label.encode()) - len(names)
    while sum(map(len, names)) > room:
        longest = max(range(len(names)), key=lambda i: (len(names[i]), i))
        names[longest] = names[longest][:-1]
    return "_".join([*(name.decode(errors="ignore") for name in names), label])


def _cut(name: str) -> str:
    return name.encode()[:LONGEST_NAME_BYTES].decode(errors="ignore")


def _quoted_if_needed(name: str) -> str:
    is_plain = name.isascii() and name.isidentifier() and name == name.lower()
    return name if is_plain else quote_identifier(name)


def read_inventory(rows: Mapping[str, Collection[Sequence[object]]]) -> Inventory:
    """The `Inventory` of what the catalog has, by the names of its fields, as JSON gives it."""

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
