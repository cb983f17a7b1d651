"""Every link in the Markdown of this repository leads to an existing file and heading."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TEMPLATES = {Path("benchmarks/report.md")}  # its links are right in docs/explanation/benchmarks.md
GENERATED = {"build", "dist", "site"}


def _pages() -> Iterator[Path]:
    for top in ROOT.iterdir():
        if top.name not in GENERATED and not top.name.startswith("."):
            found = top.rglob("*.md") if top.is_dir() else [top]
            yield from (page.relative_to(ROOT) for page in found if page.suffix == ".md")


PAGES = sorted({*_pages()} - TEMPLATES)


class Links(HTMLParser):
    """The targets of a page's links, and the anchors of its headings on GitHub."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.heading: list[str] | None = None
        self.feed(cmarkgfm.github_flavored_markdown_to_html(page, Options.CMARK_OPT_UNSAFE))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets += [given[name] or "" for name in ("href", "src") if name in given]
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if re.fullmatch("h[1-6]", tag):
            self.heading = []

    def handle_endtag(self, tag: str) -> None:
        if re.fullmatch("h[1-6]", tag) and self.heading is not None:
            self.anchors.add(self._new_anchor("".join(self.heading)))
            self.heading = None

    def handle_data(self, data: str) -> None:
        if self.heading is not None:
            self.heading.append(data)

    def _new_anchor(self, heading: str) -> str:
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number, anchor = 0, slug
        while anchor in self.anchors:
            number += 1
            anchor = f"{slug}-{number}"
        return anchor


class Dead(NamedTuple):
    target: str
    reason: str


def dead_links(path: Path, root: Path) -> list[Dead]:
    """The links of the page at *path* whose target does not exist or is not allowed."""
    page = Links(path.read_text())
    return [
        Dead(target, reason) for target in page.targets if (reason := _fault(target, path, root))
    ]


def _fault(target: str, path: Path, root: Path) -> str:
    try:
        link = urlsplit(target)
    except ValueError as error:
        return str(error)
    if link.scheme or link.netloc:
        return "" if _is_address(target) else "not an https address"
    if link.path.startswith("/") or not target:
        return "not relative to the page"
    file = (path.parent / unquote(link.path)).resolve() if link.path else path
    if not file.is_relative_to(root) or not file.exists():
        return "no such file"
    if link.fragment and file.suffix == ".md":
        exists = unquote(link.fragment) in Links(file.read_text()).anchors
        return "" if exists else "no such heading"
    return ""


def _is_address(target: str) -> bool:
    return bool(re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(:\d+)?(/\S*)?|mailto:\S+@\S+", target))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page_has_no_dead_link(page: Path) -> None:
    assert dead_links(ROOT / page, ROOT) == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Use it", "use-it"),
        ("`--json` and `DATABASE_URL`, or not?", "--json-and-database_url-or-not"),
        ("What's new: 1.2 / 2.0", "whats-new-12--20"),
        ("Exit code 6 (refused) \N{EN DASH} why", "exit-code-6-refused--why"),
        ("A [link](x.md) in **bold**", "a-link-in-bold"),
        ("Größe & Maß", "größe--maß"),
    ],
)
def test_heading_gets_the_same_anchor_as_on_github(heading: str, anchor: str) -> None:
    assert Links(f"## {heading}\n").anchors == {anchor}


def test_anchors_of_equal_headings_are_numbered() -> None:
    assert Links("# A\n\n## A\n\n### A\n").anchors == {"a", "a-1", "a-2"}


@pytest.mark.parametrize(
    "target",
    [
        *("other.md", "other.md#a-heading", "#own-heading", "../README.md", "folder/", "folder"),
        *("https://example.org/a?b=c#d", "other.md#placed", "with%20space.md"),
    ],
)
def test_valid_link_is_accepted(target: str, tmp_path: Path) -> None:
    assert dead_links(_site(tmp_path, f"[x]({target})"), tmp_path) == []


@pytest.mark.parametrize(
    "target",
    [
        *("gone.md", "other.md#gone", "#gone", "../../outside.md", "/docs/other.md", ""),
        *("http://example.org", "https://example", "other.md#A-heading", "ftp://example.org"),
    ],
)
def test_dead_link_is_found(target: str, tmp_path: Path) -> None:
    page = _site(tmp_path, f"[x]({target})")
    assert [dead.target for dead in dead_links(page, tmp_path)] == [target]


def test_images_and_reference_links_are_checked_but_code_is_not(tmp_path: Path) -> None:
    page = _site(tmp_path, "![x](a.png) [y][ref] `[z](b.md)` <img src='c.png'>\n\n[ref]: d.md\n")
    assert [dead.target for dead in dead_links(page, tmp_path)] == ["a.png", "d.md", "c.png"]


def _site(root: Path, text: str) -> Path:
    docs = root / "docs"
    (docs / "folder").mkdir(parents=True)
    (root / "README.md").touch()
    (docs / "other.md").write_text("# Title\n\n## A heading\n\n<a name='placed'></a>\n")
    (docs / "with space.md").touch()
    page = docs / "page.md"
    page.write_text(f"## Own heading\n\n{text}\n")
    return page
