"""docs/reference/verify.md lists the compared catalog columns, and each has a test."""

from __future__ import annotations

import pytest

from dev.catalog_page import PAGE, page_with_table
from initmig.commands.verify.catalogs import SOURCES
from tests.support.schema_changes import CHANGES, ROWS

CATALOGS = sorted({source.catalog for source in SOURCES})


def test_page_shows_the_current_table() -> None:
    page = PAGE.read_text()
    assert page == page_with_table(page), "run python -m dev.catalog_page"


@pytest.mark.parametrize("catalog", CATALOGS)
def test_each_column_is_compared_or_excluded_for_one_reason(catalog: str) -> None:
    sources = [source for source in SOURCES if source.catalog == catalog]
    compared = {column for source in sources for column in source.compared}
    left = [
        name for source in sources for names in source.omitted.values() for name in names.split()
    ]
    assert sorted(left) == sorted(set(left) - compared)


def test_each_compared_column_is_changed_by_a_test() -> None:
    changed = {column for change in CHANGES for column in change.columns.split()}
    changed |= {f"{row.catalog}.{column}" for row in ROWS for column in row.values}
    assert changed == {f"{each.catalog}.{column}" for each in SOURCES for column in each.compared}
