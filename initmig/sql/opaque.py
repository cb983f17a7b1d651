"""Code that a statement runs but the parser cannot see, such as triggers. It may lock any table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.sql.relations import RELATIONS, cascades
from initmig.sql.statements import nodes
from initmig.sql.table_locks import QUERIES, truncated, writes_in, written_relations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from initmig.sql.relations import Relation, Relations
    from initmig.sql.statements import Node

_CALLING = (*QUERIES, "AlterTableStmt", "CallStmt", "ExecuteStmt")
"""The statements that evaluate their expressions immediately."""


def opaque_in(tree: Node, relations: Relations) -> Iterator[str]:
    """Describes the code that the statement with this *tree* runs but the parser cannot see."""
    [(kind, node)] = tree.items()
    if kind in _WHOLES:
        yield _WHOLES[kind]
    if rule := _STATEMENTS.get(kind):
        yield from rule(relations, node)
    if kind in _CALLING:
        yield from _functions(relations, tree)
    if kind in QUERIES:
        yield from _programs(relations, tree)


def _functions(relations: Relations, tree: Node) -> Iterator[str]:
    calls = [each for name, each in nodes(tree) if name == "FuncCall"]
    for call in sorted(calls, key=lambda call: call.get("location", 0)):
        *schema, own = [part["String"]["sval"] for part in call["funcname"]]
        if relations.has_function(schema[-1] if schema else "", own):
            yield f"the function {'.'.join([*schema, own])}"


def _call(_: Relations, node: Node) -> Iterator[str]:
    names = [part["String"]["sval"] for part in node["funccall"]["funcname"]]
    yield f"the procedure {'.'.join(names)}"


def _programs(relations: Relations, tree: Node) -> Iterator[str]:
    """The triggers and rules of the tables that the statement writes to."""
    for name, event, _ in writes_in(tree):
        written = relations.named(name)
        if written is None:
            continue
        if written.kind == "v" and len(relations.read_by(written)) != 1:
            yield f"the tables behind the view {relations.shown(written)}"
        tables = list(written_relations(relations, written, event))
        if event != "INSERT" and "inh" in name:
            tables = [below for each in tables for below in relations.family_of(each)]
        yield from _running(relations, tables, event)


def _running(relations: Relations, tables: list[Relation], event: str) -> Iterator[str]:
    for table in tables:
        for program in relations.programs_of(table):
            if event in program.events:
                yield f"the {program.kind} {program.name} on {relations.shown(table)}"


def _copy(relations: Relations, node: Node) -> Iterator[str]:
    table = relations.named(node["relation"]) if "is_from" in node else None
    yield from _running(relations, [table] if table else [], "INSERT")


def _truncate(relations: Relations, node: Node) -> Iterator[str]:
    yield from _running(relations, truncated(relations, node), "TRUNCATE")


def _drop(_: Relations, node: Node) -> Iterator[str]:
    what = node["removeType"].removeprefix("OBJECT_")
    is_known = what in (*RELATIONS, "SCHEMA", "TRIGGER", "POLICY", "RULE") and what != "SEQUENCE"
    if what == "EXTENSION" or (cascades(node) and not is_known):
        yield f"other objects that are dropped with the {what.lower().replace('_', ' ')}"


def _alter_type(_: Relations, node: Node) -> Iterator[str]:
    if node.get("objtype") == "OBJECT_TYPE":
        yield "the tables that have a column of the type"


def _every_table(key: str) -> Callable[[Relations, Node], Iterator[str]]:
    def rule(_: Relations, node: Node) -> Iterator[str]:
        if key not in node:
            yield "every table of the schema or database, one by one"

    return rule


_WHOLES = {
    "AlterDomainStmt": "the tables that have a column of the domain",
    "AlterExtensionStmt": "the script of the extension",
    "AlterTableMoveAllStmt": "every table of the tablespace",
    "CreateExtensionStmt": "the script of the extension",
    "DoStmt": "the DO block",
    "DropOwnedStmt": "everything that the role owns",
    "ExecuteStmt": "the prepared statement",
    "ReassignOwnedStmt": "everything that the role owns",
}
_STATEMENTS: Mapping[str, Callable[[Relations, Node], Iterator[str]]] = {
    "AlterTableStmt": _alter_type,
    "CallStmt": _call,
    "ClusterStmt": _every_table("relation"),
    "CopyStmt": _copy,
    "DropStmt": _drop,
    "ReindexStmt": _every_table("relation"),
    "TruncateStmt": _truncate,
    "VacuumStmt": _every_table("rels"),
}
