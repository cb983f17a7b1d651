"""Applies the rules to the texts of files."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from dev.prose.rules import Finding
from dev.prose.texts import CODE, Text, count, sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dev.prose.rules import Excuse, Rules, Word
    from dev.prose.texts import Kind

LONGEST_SENTENCE = 30
LONGEST_CELL = 20


class Page(NamedTuple):
    """A file, by the name that findings give it."""

    name: str
    texts: Sequence[Text]

    @property
    def folder(self) -> str:
        """The package of initmig or the tests, the top folder otherwise, or "." for none."""
        folder = self.name.rpartition("/")[0] or "."
        top = folder.split("/")[0]
        return folder if top in ("initmig", "tests") else top

    def only(self, *kinds: Kind) -> Page:
        """The page with nothing except its texts of these *kinds*."""
        return Page(self.name, [text for text in self.texts if text.kind in kinds])

    def findings(self, words: Iterable[Word]) -> Iterator[Finding]:
        """Where its language breaks a rule."""
        patterns = list(words)
        for text in self.texts:
            yield from self._words(text, (word for word in patterns if word.applies_to(text)))
            if not text.is_code:
                yield from self._sentences(text)
            size = count(text.words)
            if text.is_cell and self.name.endswith("README.md") and size > LONGEST_CELL:
                yield self._finding(text.line, "long cell", text.words, f"shorten it: {size} words")

    def _words(self, text: Text, words: Iterable[Word]) -> Iterator[Finding]:
        for word in words:
            for match in word.pattern.finditer(text.words):
                line = text.line + text.words.count("\n", 0, match.start())
                around = _around(text.words, *match.span())
                yield self._finding(line, f"'{match.group()}'", around, word.instead)

    def _sentences(self, text: Text) -> Iterator[Finding]:
        for lines, sentence in sentences(text.words):
            size = count(sentence)
            if size > LONGEST_SENTENCE:
                instead = f"split it: {size} words"
                yield self._finding(text.line + lines, "long sentence", sentence, instead)
            if len(re.findall(r";\s+\S", sentence)) > 1:
                instead = "use a list, or sentences"
                yield self._finding(text.line + lines, "semicolons", sentence, instead)

    def _finding(self, line: int, what: str, words: str, instead: str) -> Finding:
        flat = " ".join(words.split()).replace(CODE, "…")
        flat = flat if len(flat) < 100 else f"{flat[:99]}…"
        return Finding(self.name, line, " ".join(what.split()), flat, instead)


def _around(words: str, start: int, end: int) -> str:
    before = words[:start].split(" ")[-4:]
    after = words[end:].split(" ")[:4]
    return " ".join(before) + words[start:end] + " ".join(after)


class Check:
    """The findings in *pages*, by *rules*."""

    def __init__(self, rules: Rules, pages: Iterable[Page]) -> None:
        self.rules = rules
        self.pages = list(pages)

    @cached_property
    def all(self) -> list[Finding]:
        """Every finding, including excused ones."""
        return [each for page in self.pages for each in page.findings(self.rules.words)]

    @property
    def findings(self) -> list[Finding]:
        """The findings that no exception excuses."""
        excuses = self.rules.excuses
        return [each for each in self.all if not any(excuse.covers(each) for excuse in excuses)]

    @property
    def needless(self) -> list[Excuse]:
        """Exceptions that excuse nothing in these pages."""
        return [
            excuse
            for excuse in self.rules.excuses
            if any(f"/{page.name}".endswith(f"/{excuse.path}") for page in self.pages)
            and not any(excuse.covers(each) for each in self.all)
        ]
