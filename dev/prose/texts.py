"""The pieces that a person reads, and how they are counted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE = "\N{WHITE SQUARE}x"
"""The placeholder for code and for values: one word, which no pattern finds."""

Kind = Literal["text", "comment", "name"]
"""Text for users, a docstring or comment, or a name in the code."""


class Text(NamedTuple):
    """A piece that is read on its own: a paragraph, an item, a cell, a message, a name."""

    line: int
    words: str
    is_cell: bool = False
    is_code: bool = False
    """SQL, a pattern, names: the words count, but it has no sentences."""
    kind: Kind = "text"


def without_code(words: str) -> str:
    """*words* with one placeholder for each piece of code between backticks, in the same lines."""
    return re.sub(r"(`+)[^`]*\1", lambda code: CODE + "\n" * code[0].count("\n"), words)


_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[\w\N{WHITE SQUARE}])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf)\.\s+$")


def sentences(words: str) -> Iterator[tuple[int, str]]:
    """Each sentence of *words*, with the number of line ends before it."""
    start = 0
    for match in _SENTENCE_END.finditer(words):
        if not _ABBREVIATION.search(words[start : match.end()]):
            yield words.count("\n", 0, start), words[start : match.start()]
            start = match.end()
    yield words.count("\n", 0, start), words[start:]


def count(words: str) -> int:
    """How many words a person counts."""
    return sum(any(map(str.isalnum, each)) for each in words.split())
