"""The texts of Markdown pages."""

from __future__ import annotations

from html.parser import HTMLParser

import cmarkgfm
from cmarkgfm.cmark import Options

from dev.prose.texts import CODE, Text


class _Markdown(HTMLParser):
    """Collects the texts of a page from the HTML that GitHub renders."""

    BLOCKS = ("p", "li", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6")

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[Text] = []
        self.open: list[tuple[str, int, list[str]]] = []
        self.in_code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        position = dict(attrs).get("data-sourcepos")
        if tag in ("pre", "code"):
            self.in_code += 1
            if tag == "code":
                self._add(CODE)
        if tag in self.BLOCKS:
            line = int(position.partition(":")[0]) if position else self._line()
            self.open.append((tag, line, []))
        if tag == "img":
            self._add(dict(attrs).get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("pre", "code"):
            self.in_code -= 1
        if tag in self.BLOCKS:
            _, line, parts = self.open.pop()
            words = "".join(parts)
            if words.strip():
                self.texts.append(Text(line, words, is_cell=tag in ("td", "th")))

    def handle_data(self, data: str) -> None:
        if not self.in_code:
            self._add(data)

    def handle_comment(self, data: str) -> None:
        del data  # replaces raw HTML such as <br>
        self._add(" ")

    def _add(self, words: str) -> None:
        if self.open:
            self.open[-1][2].append(words)

    def _line(self) -> int:
        return self.open[-1][1] if self.open else 0


def texts_of_markdown(page: str) -> list[Text]:
    """The text of *page*, without its code."""
    reader = _Markdown()
    options = Options.CMARK_OPT_SOURCEPOS
    reader.feed(cmarkgfm.markdown_to_html_with_extensions(page, options, ["table"]))
    return reader.texts


def unreleased(changelog: str) -> str:
    """*changelog* with only its section "Unreleased", in the same lines."""
    before, heading, rest = changelog.partition("## Unreleased")
    return "\n" * before.count("\n") + heading + rest.split("\n## ")[0]
