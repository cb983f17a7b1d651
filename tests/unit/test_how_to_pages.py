"""How-to pages link only documented errors, and guides for other tools share their sections."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ERRORS = (DOCS / "reference" / "errors.md").read_text()
PAGES = sorted((DOCS / "how-to").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_page_links_only_documented_errors(page: Path) -> None:
    named = re.findall(r"\[`([a-z-]+)`\]\(\.\./reference/errors\.md[)#]", page.read_text())
    assert {id for id in named if f"`{id}`" not in ERRORS} == set()


@pytest.mark.parametrize(
    "page", [path for path in PAGES if path.stem.startswith("from-")], ids=lambda path: path.stem
)
def test_guide_for_another_tool_has_the_standard_sections(page: Path) -> None:
    headings = re.findall(r"^## (.*)", page.read_text(), re.MULTILINE)
    assert headings == ["Before you start", "Steps", "Check the result", "What can go wrong"]
