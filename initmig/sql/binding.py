"""Which statements take parameters from the client, and which need the values in their text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.sql.statements import nodes, trees

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from initmig.sql.statements import Node

_PLANNED = {
    "CallStmt",
    "CreateTableAsStmt",
    "DeclareCursorStmt",
    "DeleteStmt",
    "ExplainStmt",
    "InsertStmt",
    "MergeStmt",
    "SelectStmt",
    "UpdateStmt",
}
"""The server accepts parameters in these. https://www.postgresql.org/docs/current/protocol-flow.html"""

_WITH_THEIR_OWN = {"CreateFunctionStmt", "PrepareStmt"}
"""In these, ``$1`` is a parameter of the object that is created."""

_PARAMETER = r"\$(\d{1,5})"

_LONGEST = 1 << 16
"""Bytes of the longest text that is parsed, because parsing takes a multiple of its memory."""


class _Read(Record):
    """The result of parsing a text for its parameters."""

    takes: bool = True
    in_strings: frozenset[int] = frozenset()
    """The numbers that are only in strings."""


def takes_parameters(sql: bytes) -> bool:
    """Whether *sql* can be sent with values for its ``$1`` and so on.

    False only if every server would refuse that, or if the parser cannot read *sql*.
    """
    return _read(sql).takes


def has_parameter_in_string(sql: bytes, count: int) -> bool:
    """Whether one of the *count* parameters of *sql* is only in a string.

    The server takes it for text, and reports no missing parameter.
    """
    return any(number <= count for number in _read(sql).in_strings)


def _read(sql: bytes) -> _Read:
    return _Read() if len(sql) > _LONGEST else _parsed(sql)


@lru_cache
def _parsed(sql: bytes) -> _Read:
    match trees(sql):
        case [tree]:
            used = {each["number"] for each in _named(tree, "ParamRef")}
            strings = (each.get("sval", {}).get("sval", "") for each in _named(tree, "A_Const"))
            named = {int(number) for each in strings for number in re.findall(_PARAMETER, each)}
            return _Read(_takes_parameters(tree), frozenset(named - used - {0}))
    return _Read(takes=False)


def _takes_parameters(tree: Node) -> bool:
    [(kind, node)] = tree.items()
    if kind in _PLANNED and node.get("objtype") != "OBJECT_MATVIEW":
        return not any(map(_has_type_in_front, _named(tree, "TypeCast")))
    return kind in _WITH_THEIR_OWN or next(_named(tree, "ParamRef"), None) is None


def _named(tree: Node, name: str) -> Iterator[Node]:
    return (node for found, node in nodes(tree) if found == name)


def _has_type_in_front(cast: Node) -> bool:
    """Whether *cast* is written ``interval $1``, which libpg_query accepts but no server does."""
    match cast:
        case {"arg": {"ParamRef": {"location": value}}, "typeName": {"location": type}}:
            return bool(type < value)
    return False


def has_values(sql: bytes, values: Collection[str]) -> bool:
    """Whether *sql* is valid and each of *values* is a whole string in it.

    A value in a comment, in a name, or in a longer string does not count.
    """
    parsed = trees(sql)
    if parsed is None:
        return False
    found = {
        each
        for tree in parsed
        for _, node in nodes(tree)
        for each in node.values()
        if isinstance(each, str)
    }
    return found.issuperset(values)
