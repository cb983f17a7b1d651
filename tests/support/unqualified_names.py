"""Finds names in a statement that do not specify a schema.

PostgreSQL looks such a name up along the search path, where any role with CREATE can put an object.
That applies to operators too, including those with SQL keywords.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from initmig.sql.statements import nodes, trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initmig.sql.statements import Node


class UnqualifiedName(NamedTuple):
    """A name without a schema, and the kind of object that it names."""

    what: str
    name: str

    def __str__(self) -> str:
        return f"{self.what} {self.name}"


def unqualified_names(tree: Node) -> set[UnqualifiedName]:
    """The names without a schema in the statement *tree*, and in SQL that it contains as text."""
    common = {node["ctename"] for name, node in nodes(tree) if name == "CommonTableExpr"}
    found: set[UnqualifiedName] = set()
    for name, node in nodes(tree):
        look = _LOOKS.get(name)
        if look:
            found.update(look(node))
    return {each for each in found if each.what != "relation" or each.name not in common}


def _names(parts: list[Node]) -> list[str]:
    return [part["String"]["sval"] for part in parts if "String" in part]


def _of(what: str, parts: list[Node]) -> Iterator[UnqualifiedName]:
    names = _names(parts)
    if len(names) == 1:
        yield UnqualifiedName(what, names[0])


def _relation(node: Node) -> Iterator[UnqualifiedName]:
    if "relname" in node and "schemaname" not in node:
        yield UnqualifiedName("relation", node["relname"])


def _call(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("function", node["funcname"])
    called = _names(node["funcname"])[-1]
    for text in _texts(node.get("args", [])):
        if called in _READS_NAMES:
            yield from _name_in_text(text)
        elif called in _RUNS_TEXT:
            yield from _sql_in_text(text)


# Functions that look up the given text along the search path.
_READS_NAMES = frozenset(
    f"to_reg{kind}"
    for kind in ("class", "type", "proc", "procedure", "oper", "operator", "collation")
)
# Functions that run the given text.
_RUNS_TEXT = frozenset(
    ("ts_stat", "ts_rewrite", "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema")
)
_REG_TYPES = frozenset(name.removeprefix("to_") for name in _READS_NAMES)


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        for name, node in nodes(each):
            if name == "A_Const" and "sval" in node:
                yield node["sval"].get("sval", "")


def _name_in_text(text: str) -> Iterator[UnqualifiedName]:
    quoted = r'"(?:[^"]|"")*"'
    if not re.match(rf"(?:{quoted}|\w+)\.", text):
        yield UnqualifiedName("name in a text", text)


def _sql_in_text(text: str) -> Iterator[UnqualifiedName]:
    if not re.match(r"\s*(?:SELECT|WITH|TABLE|VALUES)\b", text, re.IGNORECASE):
        return
    inside = trees(text.encode())
    if inside is None:
        yield UnqualifiedName("text that no parser reads", text)
    for tree in inside or ():
        yield from unqualified_names(tree)


def _expression(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("operator", node["name"])


def _type(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("type", node.get("names", []))


def _cast(node: Node) -> Iterator[UnqualifiedName]:
    names = _names(node["typeName"].get("names", []))
    if names and names[-1] in _REG_TYPES:
        for text in _texts(node["arg"]):
            yield from _name_in_text(text)


def _case(node: Node) -> Iterator[UnqualifiedName]:
    if "arg" in node:
        yield UnqualifiedName("operator", "= of CASE")


def _join(node: Node) -> Iterator[UnqualifiedName]:
    if "usingClause" in node or "isNatural" in node:
        yield UnqualifiedName("operator", "= of JOIN USING")


def _sublink(node: Node) -> Iterator[UnqualifiedName]:
    if "operName" in node:
        yield from _of("operator", node["operName"])
    elif "testexpr" in node:
        yield UnqualifiedName("operator", "= of IN (SELECT)")


def _collation(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("collation", node["collname"])


def _sort(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("operator", node.get("useOp", []))


def _index_element(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("operator class", node.get("opclass", []))
    yield from _of("collation", node.get("collation", []))


def _sample(node: Node) -> Iterator[UnqualifiedName]:
    yield from _of("function", node["method"])


# The names of these objects are lists. Schemas, databases and similar objects have no schema.
_IN_SCHEMAS = re.compile(
    r"OBJECT_(?:TABLE|VIEW|MATVIEW|INDEX|SEQUENCE|TYPE|DOMAIN|FUNCTION|COLLATION)$"
)


def _drop(node: Node) -> Iterator[UnqualifiedName]:
    if _IN_SCHEMAS.match(node["removeType"]):
        for each in node["objects"]:
            yield from _of("object", each.get("List", {}).get("items", []))


def _constraints(node: Node) -> Iterator[UnqualifiedName]:
    for each in node.get("constraints", []):
        yield from _relation(each["RangeVar"])


def _do(node: Node) -> Iterator[UnqualifiedName]:
    for each in node["args"]:
        argument = each["DefElem"]
        if argument["defname"] == "as":
            yield from _plpgsql(argument["arg"]["String"]["sval"])


# The subset of PL/pgSQL that initmig uses, with the parts that are SQL; the rest is reported.
_PLPGSQL = (
    r"(?:BEGIN|ELSE|END IF|END)\b",
    r"PERFORM (?P<sql>[^;]+)",
    r"(?:IF|ELSIF) (?P<sql>.+?) THEN\b",
    r"RAISE (?:LOG|NOTICE|WARNING|EXCEPTION) '[^']*'(?: USING ERRCODE = '\w+')?",
    r"(?P<sql>(?:LOCK|SELECT|INSERT|UPDATE|DELETE) [^;]+)",
)


def _plpgsql(body: str) -> Iterator[UnqualifiedName]:
    left = " ".join(body.split())
    while left := left.lstrip("; "):
        found = next(filter(None, (re.match(pattern, left) for pattern in _PLPGSQL)), None)
        inside = trees(_sql_of(found).encode()) if found else None
        if found is None or inside is None:
            yield UnqualifiedName("PL/pgSQL that is not understood", left)
            return
        for tree in inside:
            yield from unqualified_names(tree)
        left = left[found.end() :]


def _sql_of(found: re.Match[str]) -> str:
    sql = found.groupdict().get("sql") or ""
    plain = re.match(r"(?:LOCK|SELECT|INSERT|UPDATE|DELETE)\b", found[0])
    return sql if plain or not sql else f"SELECT {sql.replace('NOT FOUND', 'true')}"


def _all_of(
    *looks: Callable[[Node], Iterator[UnqualifiedName]],
) -> Callable[[Node], Iterator[UnqualifiedName]]:
    def look(node: Node) -> Iterator[UnqualifiedName]:
        for each in looks:
            yield from each(node)

    return look


_LOOKS: dict[str, Callable[[Node], Iterator[UnqualifiedName]]] = {
    "RangeVar": _relation,
    # the parser omits the node's name if the grammar allows only one kind
    "relation": _relation,
    "typeName": _type,
    "TypeName": _type,
    "FuncCall": _call,
    "A_Expr": _expression,
    "TypeCast": _cast,
    "CaseExpr": _case,
    "JoinExpr": _join,
    "SubLink": _sublink,
    "CollateClause": _collation,
    "collClause": _collation,
    "SortBy": _sort,
    "IndexElem": _index_element,
    "RangeTableSample": _sample,
    "DropStmt": _drop,
    "ConstraintsSetStmt": _constraints,
    "DoStmt": _do,
}
