"""docs/explanation/threats.md names only tests, pages and errors that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "explanation" / "threats.md"
TEXT = PAGE.read_text()
TESTS = sorted(set(re.findall(r"`((?:\w+/)?test_\w+\.py)`", TEXT)))
LINKS = sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT)))
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


def anchors(text: str) -> set[str]:
    """The anchors of the headings of *text* on GitHub."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings}


def test_page_names_many_tests() -> None:
    assert len(TESTS) > 20


@pytest.mark.parametrize("name", TESTS)
def test_each_test_exists(name: str) -> None:
    assert (PROJECT / "tests" / name).is_file()


@pytest.mark.parametrize("link", LINKS)
def test_each_link_has_a_target(link: str) -> None:
    path, _, anchor = link.partition("#")
    target = PAGE.parent / path if path else PAGE
    assert target.is_file()
    assert not anchor or anchor in anchors(target.read_text())


def test_each_error_id_is_documented() -> None:
    ids = set(re.findall(r"exit \d, `([a-z-]+)`", TEXT))
    assert ids
    errors = (PROJECT / "docs" / "reference" / "errors.md").read_text()
    assert {id for id in ids if f"`{id}`" not in errors} == set()


@pytest.mark.parametrize("section", SECTIONS, ids=[each.splitlines()[0] for each in SECTIONS])
def test_each_actor_has_defended_and_undefended_threats(section: str) -> None:
    assert re.search(r"^\| (?:it|they) can \| defended \| by \|$", section, re.MULTILINE)
    assert re.search(r"^\*\*Not defended:\*\*", section, re.MULTILINE)
