"""Untrusted text in Markdown stays plain text in GitHub's own renderer."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from cmarkgfm import github_flavored_markdown_to_html
from cmarkgfm.cmark import Options
from hypothesis import example, given
from hypothesis import strategies as st

from initmig.core.visible import in_one_line
from initmig.reporting.markdown import code, prose, row

OURS = {"ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td", "code"}
REFERENCES = re.compile(
    r"[@#!$%~&^]\w|\bGH-\d|\b[0-9a-f]{7,40}\b|://|www\.|:\w+:|\[\w+|mailto:|<|`", re.IGNORECASE
)
"""Text outside code that GitHub or GitLab turns into a link, a reference or an emoji."""

ACTIVE = [
    "@torvalds",
    "x@example.com",
    "\\@torvalds",
    "&#64;torvalds",
    "#123",
    "GH-1",
    "gh-26",
    "jlord/sheetsee.js#26",
    "mojombo@a5c3785ed8d6a35868bc169f07e40e889087fd2e",
    "a5c3785",
    "deadbeef",
    "1234567",
    "!12",
    "~label",
    "%1.2",
    "$1",
    "&3",
    ":shipit:",
    "a :+1: b",
    "http://example.com",
    "HTTPS://EXAMPLE.COM/",
    "www.example.com",
    "ftp://example.com",
    "mailto:x@example.com",
    "xmpp:x@example.com",
    "[x](http://example.com)",
    "[x](javascript:alert(1))",
    "![x](http://example.com/x.png)",
    "[x]: http://example.com",
    "[[wiki]]",
    "[^1]",
    "<http://example.com>",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- a comment",
    "<details>",
    "&lt;b&gt;",
    "a | b",
    "a || b \\| c \\",
    "|",
    "\\",
    "`",
    "``` ` `` x",
    "`" * 100,
    "`@torvalds`",
    "` <b>`` @x",
    "*b* _i_ ~~s~~ **x**",
    "# heading",
    "- list",
    "+ list",
    "1. list",
    "2) list",
    "> quote",
    "---",
    "===",
    "```\ncode",
    "    code",
    "a\n\n# b\n@c",
    "a  \nb",
    "a\x1b[2J\u202eb",
    "- [x] task",
    "$`x`$ $$y$$",
    "\\#1 \\* \\<b>",
]
ANYTHING = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(ACTIVE) | st.text("@#`|\\<>[]()!.:/aw0 \n~$*_-=&", max_size=5)
).map("".join)


class Seen(HTMLParser):
    """The tags, prose and cells of rendered Markdown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.prose = ""
        self.cells: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert attrs == []
        self.tags.add(tag)
        self._open.append(tag)
        if tag in ("li", "td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data
        if "code" not in self._open:
            self.prose += data


def seen(markdown: str) -> Seen:
    # the renderer must not remove HTML, or these tests would miss it
    return Seen(github_flavored_markdown_to_html(markdown, Options.CMARK_OPT_UNSAFE))


def words(text: str) -> str:
    """The visible form of *text*."""
    return in_one_line(" ".join(text.split())).replace("`", "'")


def assert_only_text(text: str) -> None:
    table = "\n".join([row(("a", "b", "c")), row(("---",) * 3)])
    for markdown, expected in (
        (f"- {prose(text)}\n- x", [words(text), "x"]),
        (f"- x\n- {code(text)}", ["x", words(text)]),
        (
            f"{table}\n{row((prose(text), code(text), 'x'))}",
            ["a", "b", "c", words(text), words(text), "x"],
        ),
    ):
        page = seen(markdown)
        assert page.tags <= OURS
        assert not REFERENCES.search(page.prose)
        assert [cell.strip("\n") for cell in page.cells] == expected


@pytest.mark.parametrize("text", ACTIVE)
def test_markup_and_references_stay_plain_text(text: str) -> None:
    assert_only_text(text)
    assert_only_text(f"before {text} after")


@example(": :")
@example("@x ,")
@example(",;")
@given(ANYTHING)
def test_any_text_stays_plain_text(text: str) -> None:
    assert_only_text(text)


def test_prose_keeps_words_and_shows_identifiers_as_code() -> None:
    assert prose("rehearsed 2 of 3 migrations in one transaction, which was rolled back") == (
        "rehearsed 2 of 3 migrations in one transaction, which was rolled back"
    )
    assert prose("blocks writes: 0002_a:3 (public.t) for 1.2 s") == (
        "blocks writes: `0002_a:3 (public.t)` for 1.2 s"
    )
    assert (prose(""), code("")) == ("", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("longest statement: 0005_token:2, 1 s", "longest statement: `0005_token:2`, 1 s"),
        ("not rehearsed: 0006_orders_user: why", "not rehearsed: `0006_orders_user`: why"),
        ("a_b:2, c_d:3; then", "`a_b:2, c_d:3`; then"),
        ("a , b", "a `,` b"),
    ],
)
def test_punctuation_follows_the_code(text: str, shown: str) -> None:
    assert prose(text) == shown
