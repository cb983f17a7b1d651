"""Names: as the parser has them, as PostgreSQL makes them up, and as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.quoting import LONGEST_NAME_BYTES, quote_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from initmig.sql.statements import Node

TEMPORARY = "pg_temp"
RELATIONS = ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE")
SERIAL = frozenset(("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"))


def strings(items: Iterable[Node]) -> tuple[str, ...]:
    """The names in a list of them as the parser has it."""
    return tuple(item["String"]["sval"] for item in items)


def index_columns(elements: Iterable[Node]) -> str:
    """The column names in the name of an index that was created without a name."""
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


def cut(name: str) -> str:
    """*name* as the server stores it, cut off at its limit."""
    return name.encode()[:LONGEST_NAME_BYTES].decode(errors="ignore")


def quoted_if_needed(name: str) -> str:
    """*name* as people write it in SQL."""
    is_plain = name.isascii() and name.isidentifier() and name == name.lower()
    return name if is_plain else quote_identifier(name)
