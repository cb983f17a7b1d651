"""The site matches the Markdown on GitHub, fits a phone and makes no network requests.

`make docs` creates the environment. Without it, or without Chromium, these tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cmarkgfm
import pytest
import yaml
from cmarkgfm.cmark import Options

from tests.support.browser import CHROMIUM, Browser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".venv" / "docs" / "bin" / "mkdocs"
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]

pytestmark = [
    pytest.mark.skipif(not MKDOCS.exists(), reason="needs `make docs`"),
    pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium"),
]


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    # --quiet would also hide the warnings from the count that makes a build strict
    command = [str(MKDOCS), "build", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


WITHOUT_TRANSITIONS = """
document.head.append(Object.assign(
    document.createElement("style"), {textContent: "* {transition: none !important}"}
))
"""


class Visit(NamedTuple):
    page: str
    widths: dict[int, int]
    """The width of the page by the width of the window."""
    requested: list[str]


@pytest.fixture(scope="module")
def visits(site: Path, browser: Browser) -> list[Visit]:
    found = []
    for page in PAGES:
        browser.requested.clear()
        browser.open((site / place(page)).as_uri())
        # otherwise the width may be measured during a transition
        browser.evaluate(WITHOUT_TRANSITIONS)
        widths = {}
        for width in (390, 1280):
            browser.resize(width, 900)
            widths[width] = browser.evaluate("document.documentElement.scrollWidth")
        found.append(Visit(page, widths, [*browser.requested]))
    return found


def place(page: str) -> str:
    """The path of the repository's *page* in the site."""
    within = "index.md" if page == "README.md" else page.removeprefix("docs/")
    return within.removesuffix(".md") + ".html"


# --- content ---


@pytest.mark.parametrize(
    ("link", "is_good"),
    [
        ("docs/page.md", True),
        ("docs/page.md#a-heading", True),
        ("dev/site/hooks.py", True),
        ("dev/site", True),
        ("docs/gone.md", False),
        ("docs/page.md#gone", False),
        ("#gone", False),
        ("gone/file.py", False),
    ],
)
def test_build_fails_on_a_dead_link(link: str, is_good: bool, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dev" / "site", tmp_path / "dev" / "site")
    settings = (ROOT / "mkdocs.yml").read_text().partition("nav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{settings}nav: [index.md, page.md]\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("# Page\n\n## A heading\n")
    (tmp_path / "README.md").write_text(f"# Title\n\n[x]({link})\n")
    built = build(tmp_path, tmp_path / "site")
    assert (built.returncode == 0) == is_good, built.stderr
    assert is_good or "gone" in built.stderr


class Block(NamedTuple):
    lists: int
    """The number of lists that contain it."""
    kind: str
    words: str


class Outline(HTMLParser):
    """The paragraphs, items, cells, headings and code of a page, in order."""

    KINDS = {"p": "text", "li": "text", "td": "cell", "th": "cell", "pre": "code"} | {
        f"h{n}": f"h{n}" for n in range(1, 7)
    }

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Block] = []
        self._open: list[tuple[str, list[str]]] = []
        self._lists = 0
        self._hidden = False
        self.feed(page)

    @property
    def blocks(self) -> list[Block]:
        return [block for block in self.found if block.words]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.KINDS or tag in ("ul", "ol"):
            self._end_text()
        if tag in self.KINDS:
            self._open.append((tag, []))
        self._lists += tag in ("ul", "ol")
        if dict(attrs).get("class") == "headerlink":
            self._hidden = True

    def handle_endtag(self, tag: str) -> None:
        if tag in self.KINDS:
            self._end_text()
            self._open.pop()
        if tag in ("ul", "ol"):
            self._end_text()
            self._lists -= 1
        if tag == "a":
            self._hidden = False

    def handle_data(self, data: str) -> None:
        if self._open and not self._hidden:
            self._open[-1][1].append(data)

    def _end_text(self) -> None:
        if self._open:
            tag, parts = self._open[-1]
            self.found.append(Block(self._lists, self.KINDS[tag], " ".join("".join(parts).split())))
            parts.clear()


@pytest.mark.parametrize("page", PAGES)
def test_site_page_has_the_same_blocks_as_on_github(page: str, site: Path) -> None:
    options = Options.CMARK_OPT_UNSAFE
    markdown = (ROOT / page).read_text()
    github = Outline(cmarkgfm.github_flavored_markdown_to_html(markdown, options)).blocks
    html = (site / place(page)).read_text()
    article = html.partition("<article")[2].partition("</article>")[0]
    shown = Outline(f"<article{article}").blocks
    assert shown == github


RENDER = """
import sys
from markdown import markdown
sys.path.insert(0, "")
from dev.site.hooks import as_python_markdown
extensions = ["sane_lists", "tables", "pymdownx.highlight", "pymdownx.superfences"]
print(markdown(as_python_markdown(sys.stdin.read()), extensions=extensions))
"""


@pytest.mark.parametrize(
    "markdown",
    [
        "- a\n  - b\n    - c\n  - d\n- e\n",
        "1. a\n   - b\n   - c\n\n2. d\n",
        "1. a:\n\n   ```sql\n   SELECT 1;\n     SELECT 2;\n\n   ```\n\n   and then\n2. b\n",
        "- a:\n  ```\n  - not an item\n  ```\n- b\n",
        "Text:\n- a\n- b\n\nMore text.\n",
        "- a\n\n  second paragraph\n  goes on\n\nout of it\n",
        "- a\n  over two lines\n- b\nlazy\n",
        "* a\n\n      code in an item\n\n* b\n",
        "    - code, no item\n",
        "```\n- a\n  - b\n```\n\n- c\n",
        "| a | b |\n|---|---|\n| `x \\| y` | z \\| z |\n",
    ],
)
def test_lists_and_tables_are_parsed_as_on_github(markdown: str) -> None:
    command = [str(MKDOCS.with_name("python")), "-c", RENDER]
    site = subprocess.run(
        command, input=markdown, cwd=ROOT, capture_output=True, text=True, check=True
    )
    github = cmarkgfm.github_flavored_markdown_to_html(markdown)
    assert Outline(site.stdout).blocks == Outline(github).blocks


# --- appearance in a browser ---


def test_no_page_is_wider_than_the_window(visits: list[Visit]) -> None:
    assert len(visits) == len(PAGES)
    for page, widths, _ in visits:
        assert {width: needed for width, needed in widths.items() if needed > width} == {}, page


def test_pages_request_only_files_of_the_site(visits: list[Visit], site: Path) -> None:
    local = (site.as_uri(), "data:", "blob:")
    for page, _, requested in visits:
        assert requested
        assert [url for url in requested if not url.startswith(local)] == [], page


def test_navigation_lists_the_sections_and_links_to_each_page(site: Path, browser: Browser) -> None:
    browser.resize(1280, 900)
    browser.open((site / "index.html").as_uri())
    sections = browser.evaluate(
        "[...document.querySelectorAll('.md-nav--primary > .md-nav__list > .md-nav__item')]"
        ".map(item => item.querySelector('.md-ellipsis').textContent.trim())"
    )
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sections == [title for entry in nav for title in entry]
    links = browser.evaluate(
        "[...document.querySelectorAll('.md-nav--primary a')].map(a => a.href)"
    )
    assert {(site / place(page)).as_uri() for page in PAGES} <= {
        link.partition("#")[0] for link in links
    }


def test_search_without_a_server_finds_pages_but_no_files(site: Path, browser: Browser) -> None:
    browser.resize(1280, 900)
    browser.open((site / "index.html").as_uri())
    browser.evaluate(
        "document.querySelector('[name=query]').focus();"
        "document.querySelector('[name=query]').value = 'lock';"
        "document.querySelector('[name=query]').dispatchEvent(new Event('keyup', {bubbles: true}))"
    )
    deadline = time.monotonic() + 20
    links = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    while not (found := browser.evaluate(links)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found
    paths = [link.rpartition("/repository/")[2].partition(".html")[0] for link in found]
    assert [path for path in paths if (ROOT / path).exists()] == []


def test_copy_button_copies_commands_without_prompts_and_output(
    site: Path, browser: Browser
) -> None:
    browser.open((site / "index.html").as_uri())
    copied = browser.evaluate(
        "[...document.querySelectorAll('.language-console code')].map(code => {"
        " code.toggleAttribute('data-md-copying'); return code.innerText.trim() })"
    )
    assert any(text.startswith("make run") for text in copied)
    assert [text for text in copied if "$ " in text or " info " in text] == []
