"""Names and strings as SQL, and names in a list."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def quote_identifier(name: str) -> str:
    """*name* as an SQL identifier, whatever characters are in it."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """*text* as an SQL string, whatever ``standard_conforming_strings`` is."""
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


LONGEST_NAME_BYTES = 63
"""PostgreSQL cuts longer names off, so they would be those of something else."""

USER_SCHEMA = "$user"
"""In a search path, in quotes or not, this names the schema that is named after the role.

https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SEARCH-PATH
"""


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list such as ``app, "with, comma"``; in double quotes, "" is one of them.

    Unlike in SQL, a name without quotes is taken as it is, and may have capitals and spaces.

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
    """The first name of *text*, and what follows: nothing, or a comma and more names."""
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
    """The list that `split_names` makes the same *names* of."""
    return ",".join(map(quote_identifier, names))
