"""docs/reference/tables.md lists each table of the history with its columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write

if TYPE_CHECKING:
    from tests.support.command import Initmig
    from tests.support.databases import Database

pytestmark = pytest.mark.any_version

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tables.md"
COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    || CASE WHEN a.attnum = ANY (i.indkey) THEN ', primary key' ELSE '' END
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
ORDER BY c.relname, a.attnum"""
SHORT = {
    "character varying": "varchar",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}


def documented() -> list[tuple[str, str, str]]:
    found = []
    for section in PAGE.read_text().split("\n## `")[1:]:
        table = section.partition("`")[0]
        for name, type in re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE):
            found.append((table, name, type.replace("`", "").strip()))
    return sorted(found)


def shortened(type: str) -> str:
    for long, short in SHORT.items():
        type = type.replace(long, short)
    return type


def test_page_lists_each_column_with_its_type(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    folder = write(tmp_path / "migrations", {"0001_a.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    rows = [(table, name, shortened(type)) for table, name, type in database.query(COLUMNS)]
    assert len(rows) > 25
    assert documented() == sorted(rows)
