"""The effect of each statement on the relations, by PostgreSQL's own rules."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from initmig.core.quoting import split_names
from initmig.sql.relations.names import (
    RELATIONS,
    SERIAL,
    TEMPORARY,
    cut,
    index_columns,
    made_name,
    strings,
)
from initmig.sql.relations.records import EVENTS, ForeignKey, NotNullCheck, Program, Relation, Uses
from initmig.sql.relations.state import State
from initmig.sql.statements import nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from initmig.sql.statements import Node

_INSTEAD = 64
"""The timing INSTEAD OF, as pg_trigger.tgtype has it."""


class Relations(State):
    """The relations of a database while the pending statements run, one by one.

    Look up names with `find`, then call `follow` with the statement. Call `begin_file` before each
    file, because it gets a session without temporary tables and with a fresh search path.
    """

    def begin_file(self) -> None:
        """Forget what ends with a session: temporary tables, and a search path that was set."""
        self._path = self._inventory.path
        self._drop(self.inside(TEMPORARY), cascade=True)

    def follow(self, tree: Node) -> None:
        """Do to the relations what the statement does that the parser reads as *tree*."""
        [(kind, node)] = tree.items()
        change = self._changes.get(kind)
        if change:
            change(self, node)

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
            case "CONSTR_CHECK":
                self._add_check(table, constraint)
            case "CONSTR_PRIMARY" | "CONSTR_UNIQUE" | "CONSTR_EXCLUSION" as kind:
                self._add_index_of(table, constraint, kind, column)

    def _add_foreign_key(self, table: Relation, constraint: Node, column: str) -> None:
        referenced = self.named(constraint["pktable"])
        if referenced is None:
            return
        columns = (column,) if column else strings(constraint.get("fk_attrs", ()))
        taken = {key.name for key in self.foreign_keys_of(table) if key.table == table.id}
        name = constraint.get("conname") or self._free_name(
            table.name, "_".join(columns), "fkey", taken.__contains__
        )
        key = ForeignKey(
            *(self._new_id(), name, table.id, columns),
            *(referenced.id, strings(constraint.get("pk_attrs", ())), 0, 0),
            *(constraint.get("fk_del_action", "a"), constraint.get("fk_upd_action", "a")),
        )
        self._add_key(key)
        below = [("table", each) for each in self.family_of(table)[1:]]
        below += [("referenced", each) for each in self.family_of(referenced)[1:]]
        for end, relation in below:
            if relation.partition:
                part = {"id": self._new_id(), "parent": key.id, end: relation.id}
                self._add_key(key._replace(**part))  # type: ignore[arg-type]

    def _add_check(self, table: Relation, constraint: Node) -> None:
        column = _never_null(constraint["raw_expr"])
        if not column or "is_no_inherit" in constraint:
            return
        taken = {each.name for each in self.checks_of(table)}
        name = constraint.get("conname") or self._free_name(
            table.name, column, "check", taken.__contains__
        )
        is_valid = "skip_validation" not in constraint
        self._checks[table.id, name] = NotNullCheck(table.id, name, column, is_valid)

    def _add_index_of(self, table: Relation, constraint: Node, kind: str, column: str) -> None:
        name = constraint.get("conname", "")
        if "indexname" in constraint:  # ADD ... USING INDEX: its name becomes the constraint's
            index = self.find(table.schema, constraint["indexname"])
            if index and name:
                self._replace(index._replace(name=cut(name)))
            return
        names = (column,) if column else strings(constraint.get("keys", ()))
        columns = "_".join(names)
        label = {"CONSTR_PRIMARY": "pkey", "CONSTR_UNIQUE": "key"}.get(kind, "excl")
        if kind == "CONSTR_EXCLUSION":
            columns = index_columns(
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
        columns = index_columns(elements)
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
        for check in self.checks_of(relation):
            if check.column == old:
                self._checks[check[:2]] = check._replace(column=new)
        uses = self._views_of[relation.id]
        for use in list(uses):
            if old in use.columns:
                del uses[use]
                uses[use._replace(columns=renamed(use.columns))] = None

    def _rename_constraint(self, table: Relation, old: str, new: str) -> None:
        if key := self.foreign_key(table, old):
            for each in self.parts_of(key):
                self._foreign_keys[each.id] = each._replace(name=new)
        elif check := self._checks.pop((table.id, old), None):
            self._checks[table.id, new] = check._replace(name=new)
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

    def _alter_validate(self, table: Relation, command: Node) -> None:
        key = table.id, command["name"]
        if check := self._checks.get(key):
            self._checks[key] = check._replace(is_valid=True)

    def _alter_drop(self, table: Relation, command: Node) -> None:
        is_constraint = command["subtype"] == "AT_DropConstraint"
        for check in self.checks_of(table):
            if command["name"] == (check.name if is_constraint else check.column):
                del self._checks[check[:2]]
        for key in self.keys_dropped(table, command):
            self._drop_key(key)
        if is_constraint:
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
            *schema, name = strings(node["funcname"])
            self._functions.add((schema[-1] if schema else self.home(), name))

    def _create_statistics(self, node: Node) -> None:
        *schema, name = strings(node.get("defnames", ()))[-2:] or ("",)
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
        "AT_ValidateConstraint": _alter_validate,
    }


def cascades(node: Node) -> bool:
    """Whether a statement, or a part of one, says CASCADE."""
    return bool(node.get("behavior") == "DROP_CASCADE")


def _may_use(key: ForeignKey, index: Relation | None) -> bool:
    return not key.unique or (index is not None and key.unique == index.id)


def _never_null(expression: Node) -> str:
    """The column that an *expression* ``column IS NOT NULL`` is about; empty for any other."""
    match expression:
        case {
            "NullTest": {
                "arg": {"ColumnRef": {"fields": [*_, {"String": {"sval": str(column)}}]}},
                "nulltesttype": "IS_NOT_NULL",
            }
        }:
            return column
    return ""


def _is_identity(constraint: Node) -> bool:
    return bool(constraint["contype"] == "CONSTR_IDENTITY")
