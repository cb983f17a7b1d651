"""`python -m dev.catalog_page` writes the table of columns in docs/reference/verify.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dev.programs import REPOSITORY
from initmig.commands.verify.catalogs import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE: Final = REPOSITORY / "docs" / "reference" / "verify.md"
HEADING: Final = "## Column by column\n"


def page_with_table(page: str) -> str:
    """The text of *page*, with the current table at the end."""
    before, heading, section = page.partition(HEADING)
    introduction = section.partition("| catalog |")[0]
    return f"{before}{heading}{introduction}{_table()}"


def _table() -> str:
    catalogs = sorted({source.catalog for source in SOURCES})
    rows = "".join(_row(catalog) for catalog in catalogs)
    return f"| catalog | compared | not compared |\n|---|---|---|\n{rows}"


def _row(catalog: str) -> str:
    sources = [source for source in SOURCES if source.catalog == catalog]
    compared = frozenset[str]().union(*(source.compared for source in sources))
    omitted = sorted(reason for source in sources for reason in source.omitted.items())
    reasons = ". ".join(f"`{_names(names.split())}`: {reason}" for reason, names in omitted)
    return f"| `{catalog}` | {_names(compared)} | {reasons} |\n"


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(page_with_table(PAGE.read_text()))


if __name__ == "__main__":
    main()
