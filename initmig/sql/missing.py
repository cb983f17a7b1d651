"""Which tables and views the pending SQL uses that neither exist nor are created before.

Only certain cases are reported. The search stops at a DO block, a user's function, a Python
function, a trigger or ROLLBACK. The parser cannot see their effects, and they may have created
the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.quoting import quote_identifier
from initmig.core.records import Record
from initmig.sql.relations import Relations
from initmig.sql.statements import nodes, read_each

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from initmig.core.errors import Place
    from initmig.core.model import Step
    from initmig.sql.relations import Inventory
    from initmig.sql.statements import Node


class Missing(Record):
    """A *name* that does not exist when it is used."""

    place: Place
    name: str
    nearest: tuple[str, ...]
    """Likely intended names: the same name in other schemas, otherwise a similar one."""
    removed_at: Place | None
    """The statement that dropped, renamed or moved it earlier; None if it never existed."""


class _Reference(Record):
    schema: str
    name: str
    location: int = 0
    """In bytes from the start of the statement."""


class _Statement(Record):
    """The properties of a statement that matter here."""

    kind: str
    uses: tuple[_Reference, ...]
    makes: _Reference | None
    only_if_new: bool
    """Whether it does nothing if the relation in *makes* exists."""
    removes: tuple[_Reference, ...]
    calls: frozenset[str]
    defines: tuple[str, ...]
    """The function that it creates."""
    moves_path: bool
    """Whether names without a schema can have another meaning after it."""
    makes_no_tables: bool
    """Whether it creates an extension that is known to contain no tables."""
    undoes: bool
    """Whether it rolls back an earlier statement."""
    target: _Reference | None
    """The table whose rows it changes, and whose triggers it can fire."""
    tree: Node | None
    """None if the statement only changes rows."""


def find_missing(
    migrations: Iterable[Iterable[Step]],
    inventory: Inventory,
    *,
    known: Collection[str] = (),
    watched: bool = False,
) -> Iterator[Missing]:
    """The tables and views that the steps of *migrations* use although they do not exist.

    The *inventory* describes the database before the steps. The *known* names are tables that
    initmig creates. With *watched*, event triggers run for each statement that defines something.
    """
    search = _Search(inventory, known, watched=watched)
    for steps in migrations:
        yield from search.in_migration(steps)
        if search.is_over:
            return


class _Search:
    def __init__(self, inventory: Inventory, known: Collection[str], *, watched: bool) -> None:
        self._relations = relations = Relations(inventory)
        self._search_path = inventory.path
        self._watched = watched
        self._ever = {(each.schema, each.name) for each in relations.all()}
        """All relations that ever existed. Their absence is certain only after an explicit DROP."""
        self._removed: dict[tuple[str, str], tuple[Step, int]] = {}
        """The step that removed it and the offset in that step. Most places are never needed."""
        self._functions = {name for _, name in inventory.functions}
        self._known = known
        self._reported: set[tuple[str, ...]] = set()
        self._path_is_known = True
        self.is_over = False

    def in_migration(self, steps: Iterable[Step]) -> Iterator[Missing]:
        """The missing names of the next migration."""
        self._relations.begin_file()
        self._path_is_known = True
        for step in steps:
            # the effect of a step whose errors are ignored is unknown
            self.is_over = bool(step.function) or "apply" in step.may_fail
            if not self.is_over:
                yield from self._in_step(step, step.data)
            if self.is_over:
                return

    def _in_step(self, step: Step, data: bytes) -> Iterator[Missing]:
        found, _ = read_each(data, _read)
        for start, _, statement in found:
            if statement is None:
                self.is_over = True
            else:
                yield from self._in_statement(step, data, start, statement)
            if self.is_over:
                return

    def _in_statement(
        self, step: Step, data: bytes, start: int, statement: _Statement
    ) -> Iterator[Missing]:
        made = statement.makes
        if not (made and statement.only_if_new and self._may_be_there(made)):
            for each in filter(self._lacks, statement.uses):
                self._reported.add(each[:2])
                place = step.place_at(_located(data, start, each))
                yield self._missing(each, place)
        self.is_over = self._hides(statement)
        self._follow(step, start, statement)

    def _follow(self, step: Step, start: int, statement: _Statement) -> None:
        for each in statement.removes:
            for key in ((each.schema, each.name), ("", each.name)):
                self._removed[key] = (step, start)
        self._functions.update(statement.defines)
        if statement.moves_path:
            self._path_is_known = False
        if statement.tree is not None:
            self._relations.follow(statement.tree)
        if statement.makes:
            self._removed.pop(statement.makes[:2], None)
            made = self._relations.find(*statement.makes[:2]) or statement.makes
            self._ever.add((made.schema or self._relations.home(), made.name))

    def _hides(self, statement: _Statement) -> bool:
        """Whether *statement* can have effects that the parser cannot see."""
        is_opaque = statement.kind in _OPAQUE and not statement.makes_no_tables
        if is_opaque or statement.undoes or (self._watched and statement.tree is not None):
            return True
        if statement.calls & self._functions:
            return True
        target = statement.target and self._relations.find(*statement.target[:2])
        return bool(target and self._relations.programs_of(target))

    def _lacks(self, each: _Reference) -> bool:
        if each[:2] in self._reported or each.name in self._known or self._may_be_there(each):
            return False
        return not self._ever_was(each) or (each.schema, each.name) in self._removed

    def _ever_was(self, each: _Reference) -> bool:
        if each.schema:
            return (each.schema, each.name) in self._ever
        schemas = ("pg_temp", *self._search_path) if self._path_is_known else ()
        return any((schema, each.name) in self._ever for schema in schemas)

    def _may_be_there(self, each: _Reference) -> bool:
        if self._relations.find(each.schema, each.name):
            return True
        if each.schema or self._path_is_known:
            return False
        return any(other.name == each.name for other in self._relations.all())

    def _missing(self, each: _Reference, place: Place) -> Missing:
        from difflib import get_close_matches

        name = ".".join(_shown(part) for part in (each.schema, each.name) if part)
        removed = self._removed.get((each.schema, each.name))
        since = removed[0].place_at(removed[1]) if removed else None
        there = [other for other in self._relations.all() if other.kind in _USABLE]
        there = [other for other in there if not other.is_system]
        nearest = [self._relations.shown(other) for other in there if other.name == each.name]
        if not nearest:
            alike = get_close_matches(each.name, {other.name for other in there}, n=1)
            nearest = [self._relations.shown(o) for o in there if o.name in alike]
        return Missing(place, name, tuple(nearest[:_SUGGESTIONS]), since)


_SUGGESTIONS = 3
_USABLE = ("r", "p", "v", "m", "f")

# Statements that run code, or roll back earlier statements.
_OPAQUE = (
    *("AlterExtensionStmt", "CallStmt", "CreateExtensionStmt", "CreateEventTrigStmt", "DoStmt"),
    *("DropOwnedStmt", "ExecuteStmt", "ImportForeignSchemaStmt"),
)
# Extensions of PostgreSQL itself: https://www.postgresql.org/docs/current/contrib.html
_WITHOUT_TABLES = (
    *("btree_gin", "btree_gist", "citext", "cube", "earthdistance", "fuzzystrmatch", "hstore"),
    *("intarray", "isn", "ltree", "pg_trgm", "pgcrypto", "plpgsql", "seg", "tablefunc", "unaccent"),
    "uuid-ossp",
)
_CHANGES_ROWS = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "TruncateStmt", "CopyStmt")
_CHECKED = (
    *("AlterObjectSchemaStmt", "AlterPolicyStmt", "AlterTableStmt", "ClusterStmt", "CommentStmt"),
    *("CopyStmt", "CreateFunctionStmt", "CreatePolicyStmt", "CreatePublicationStmt"),
    *("CreateForeignTableStmt", "CreateStatsStmt", "CreateStmt", "CreateTableAsStmt"),
    *("CreateTrigStmt", "DeleteStmt", "DropStmt", "GrantStmt", "IndexStmt", "InsertStmt"),
    *("LockStmt", "MergeStmt", "RefreshMatViewStmt", "RenameStmt", "RuleStmt", "SelectStmt"),
    *("TruncateStmt", "UpdateStmt", "VacuumStmt", "ViewStmt"),
)
# Other statements name a type, a sequence, an index, or a part of one of them.
_TABLES = ("TABLE", "VIEW", "MATVIEW", "FOREIGN_TABLE")
_OF_TABLES = ("TRIGGER", "POLICY", "RULE", "TABCONSTRAINT")
_NO_TABLES = ("old", "new", "excluded")


def _read(tree: Node) -> _Statement:
    [(kind, node)] = tree.items()
    found = list(nodes(tree))
    made = _made(kind, node, found)
    only_rows = kind in _CHANGES_ROWS or (kind == "SelectStmt" and made is None)
    calls = frozenset(
        each["funcname"][-1]["String"]["sval"] for name, each in found if name == "FuncCall"
    )
    return _Statement(
        kind,
        tuple(sorted(_uses(kind, node, made, found), key=lambda each: each.location)),
        _reference(made) if made else None,
        node.get("if_not_exists", False),
        _removed(kind, node),
        calls,
        (node["funcname"][-1]["String"]["sval"],) if kind == "CreateFunctionStmt" else (),
        "set_config" in calls or (kind == "VariableSetStmt" and _moves_path(node)),
        kind == "CreateExtensionStmt" and node["extname"] in _WITHOUT_TABLES,
        kind == "TransactionStmt" and "ROLLBACK" in node["kind"],
        _reference(node["relation"]) if only_rows and "relation" in node else None,
        None if only_rows else tree,
    )


def _uses(
    kind: str, node: Node, made: Node | None, found: Sequence[tuple[str, Node]]
) -> Iterator[_Reference]:
    what = _object_type(node)
    is_other = what and what not in (*_TABLES, *_OF_TABLES, "COLUMN")
    if kind not in _CHECKED or "missing_ok" in node or is_other:
        return
    if kind in ("DropStmt", "CommentStmt"):
        yield from _listed(node, what)
        return
    own = {each["ctename"] for name, each in found if name == "CommonTableExpr"}
    for _, each in found:
        if "relname" not in each or "catalogname" in each:
            continue
        reference = _reference(each)
        is_own = made is not None and reference[:2] == _reference(made)[:2]
        is_word = not reference.schema and reference.name in (*own, *_NO_TABLES)
        # not all sequences of columns are predicted
        if not (is_own or is_word or reference.name.endswith("_seq")):
            yield reference


def _object_type(node: Node) -> str:
    """The kind of object of a statement that names it; otherwise empty."""
    keys = ("removeType", "renameType", "objtype", "objectType")
    return next((node[key].removeprefix("OBJECT_") for key in keys if key in node), "")


def _listed(node: Node, what: str) -> Iterator[_Reference]:
    """The relations of names without a place, as ``a.b`` or, with one of their parts, ``a.b.c``."""
    if what not in (*_TABLES, *_OF_TABLES):
        return
    for each in [node["object"]] if "object" in node else node["objects"]:
        names = [item["String"]["sval"] for item in each["List"]["items"]]
        if what in _OF_TABLES:
            names.pop()
        yield _Reference(*["", *names][-2:])


def _made(kind: str, node: Node, found: Sequence[tuple[str, Node]]) -> Node | None:
    match kind, node:
        case "SelectStmt", _:
            into = (each for name, each in found if name == "intoClause")
            first: Node | None = next((each["rel"] for each in into), None)
            return first
        case (
            ("CreateStmt", {"relation": made})
            | ("CreateForeignTableStmt", {"base": {"relation": made}})
            | ("ViewStmt", {"view": made})
            | ("CreateTableAsStmt", {"into": {"rel": made}})
            | ("CreateSeqStmt", {"sequence": made})
        ):
            return dict(made)
        case "RenameStmt", {"relation": relation, "newname": name}:
            return {**relation, "relname": name}
        case "AlterObjectSchemaStmt", {"relation": relation, "newschema": schema}:
            return {**relation, "schemaname": schema}
    return None


def _moves_path(node: Node) -> bool:
    return node.get("name", "search_path") in ("search_path", "role", "session_authorization")


def _removed(kind: str, node: Node) -> tuple[_Reference, ...]:
    match kind:
        case "DropStmt" if _object_type(node) in _TABLES:
            return tuple(_listed(node, _object_type(node)))
        case "RenameStmt" | "AlterObjectSchemaStmt" if _object_type(node) in _TABLES:
            return (_reference(node["relation"]),) if "relation" in node else ()
    return ()


def _reference(node: Node) -> _Reference:
    return _Reference(node.get("schemaname", ""), node["relname"], node.get("location", 0))


def _located(data: bytes, start: int, each: _Reference) -> int:
    """The offset of *each*, or of its statement if the parser does not report one."""
    at = start + each.location
    beginning = (each.schema or each.name).lower().encode()
    text = data[at : at + len(beginning)].decode(errors="replace").lower().encode()
    return at if text == beginning or data[at : at + 1] == b'"' else start


def _shown(name: str) -> str:
    is_plain = name.isascii() and name.isidentifier() and name == name.lower()
    return name if is_plain else quote_identifier(name)
