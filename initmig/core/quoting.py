"""Quote names and strings for SQL, and read lists of names."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def quote_identifier(name: str) -> str:
    """*name* as an SQL identifier, with any characters."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """*text* as an SQL string, for any value of ``standard_conforming_strings``."""
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


LONGEST_NAME_BYTES = 63
"""PostgreSQL truncates longer names, so they might refer to another object."""

USER_SCHEMA = "$user"
"""In a search path, quoted or not, this refers to the schema with the name of the role.

https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SEARCH-PATH
"""


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list such as ``app, "with, comma"``. A quoted name escapes ``"`` as ``""``.

    Unlike in SQL, an unquoted name keeps its case and may contain spaces.

    :raises ValueError: a quote is not closed, or a name is empty or too long
    """
    names: list[str] = []
    rest = "," + text
    while rest:
        name, rest = _split_first(rest[1:].lstrip())
        if not name:
            raise ValueError(f"{text!r} contains an empty name")
        if len(name.encode()) > LONGEST_NAME_BYTES:
            raise ValueError(
                f"{name!r} is longer than the {LONGEST_NAME_BYTES} bytes that PostgreSQL allows"
            )
        names.append(name)
    return tuple(names)


def _split_first(text: str) -> tuple[str, str]:
    """The first name of *text*, and the rest: empty, or a comma and more names."""
    if not text.startswith('"'):
        name, comma, rest = text.partition(",")
        return name.rstrip(), comma + rest
    end = text.find('"', 1)
    while text.startswith('""', end):
        end = text.find('"', end + 2)
    if end < 0:
        raise ValueError(f"{text!r} contains a double quote that is not closed")
    rest = text[end + 1 :].lstrip()
    if rest and not rest.startswith(","):
        raise ValueError(f"{text!r} needs a comma after each name in quotes")
    return text[1:end].replace('""', '"'), rest


def join_names(names: Iterable[str]) -> str:
    """The list for *names*; `split_names` returns the same names."""
    return ",".join(map(quote_identifier, names))
