"""The effects of a query, read from its parsed text and not from its wording."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from initmig.sql.statements import nodes, read_each

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.sql.statements import Node


class Statement(NamedTuple):
    """One statement of a query."""

    text: str
    kind: str
    """Its first words, e.g. `INSERT _yoyo_log`, `SELECT`, `COMMIT` or `SET LOCAL role`."""
    relations: frozenset[str]
    """The tables and views that it names, without their schemas."""
    functions: frozenset[str]
    """The functions that it calls, without their schemas."""


def statements(query: str) -> list[Statement]:
    """The statements of *query*. A statement that cannot be parsed has no names."""
    data = query.encode()
    found, _ = read_each(data, lambda tree: tree)
    return [_statement(data[start:end].decode(), tree) for start, end, tree in found]


def kinds(query: str) -> list[str]:
    """The kind of each statement of *query*."""
    return [each.kind for each in statements(query)]


def reads(query: str, *relations: str) -> bool:
    """Whether *query* changes nothing, and one of its statements selects from all *relations*."""
    found = statements(query)
    return all(each.kind.startswith(("SELECT", "SET LOCAL")) for each in found) and any(
        each.relations.issuperset(relations) for each in found
    )


def calls(query: str, *functions: str) -> bool:
    """Whether *query* calls one of *functions*."""
    return any(not each.functions.isdisjoint(functions) for each in statements(query))


def commits(query: str) -> bool:
    """Whether *query* has a COMMIT, alone or after other statements."""
    return "COMMIT" in kinds(query)


def _statement(text: str, tree: Node | None) -> Statement:
    if tree is None:
        return Statement(text, text.split(maxsplit=1)[0].upper(), frozenset(), frozenset())
    return Statement(text, _kind(tree), _relations(tree), _functions(tree))


def _kind(tree: Node) -> str:
    [(name, node)] = tree.items()
    if name == "TransactionStmt":
        kind: str = node["kind"].removeprefix("TRANS_STMT_")
        return kind
    if name == "VariableSetStmt":
        verb = node["kind"].removeprefix("VAR_").partition("_")[0]
        words = [verb, "LOCAL" if node.get("is_local") else "", node.get("name", "")]
    else:
        verb = name.removesuffix("Stmt").upper()
        words = [verb, node.get("relation", {}).get("relname", "")]
    return " ".join(filter(None, words))


def _relations(tree: Node) -> frozenset[str]:
    return frozenset(
        node["relname"] for _, node in nodes(tree) if isinstance(node.get("relname"), str)
    )


def _functions(tree: Node) -> frozenset[str]:
    return frozenset(_called(tree))


def _called(tree: Node) -> Iterator[str]:
    for name, node in nodes(tree):
        if name == "FuncCall":
            yield node["funcname"][-1]["String"]["sval"]
