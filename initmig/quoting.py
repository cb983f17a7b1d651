"""Names and strings as SQL."""

from __future__ import annotations


def quote_identifier(name: str) -> str:
    """*name* as an SQL identifier, whatever characters are in it."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """*text* as an SQL string, whatever ``standard_conforming_strings`` is."""
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"
