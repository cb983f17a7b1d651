"""The navigation lists every page in the section of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
NAV: list[dict[str, Any]] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
FOLDERS = {
    "Tutorial": "tutorial",
    "How-to guides": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
}


def pages_below(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    entries = entry.values() if isinstance(entry, dict) else entry
    return [page for each in entries for page in pages_below(each)]


def test_each_page_is_listed_exactly_once() -> None:
    docs = ROOT / "docs"
    written = sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    assert sorted(pages_below(NAV)) == sorted(["index.md", *written])


def test_each_section_has_the_pages_of_its_folder() -> None:
    sections = {title: pages for section in NAV for title, pages in section.items()}
    for title, folder in FOLDERS.items():
        assert {page.split("/")[0] for page in pages_below(sections.get(title, []))} <= {folder}
