"""The texts of comments and docstrings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from dev.prose.texts import Text, without_code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Comment(NamedTuple):
    """One line of a comment, with its ``#``."""

    line: int
    column: int
    words: str
    follows_code: bool


_FOR_TOOLS = re.compile(r"#\s*(?:noqa|type:|pragma|fmt:|mypy:|shellcheck|yaml-language-server|!).*")
_MARKS = re.compile(r"^\s*#+:?\s?(?:-{2,}\s*)?|\s*-{2,}$")


def texts_of_comments(comments: Iterable[Comment]) -> Iterator[Text]:
    """The texts of each comment. Consecutive lines in the same column form one comment."""
    block: list[Comment] = []
    for comment in comments:
        if block and not _continues(block[-1], comment):
            yield from _texts(block)
            block = []
        block.append(comment)
    yield from _texts(block)


def _continues(last: Comment, comment: Comment) -> bool:
    position = (last.line + 1, last.column)
    return (comment.line, comment.column) == position and not comment.follows_code


def _texts(block: list[Comment]) -> Iterator[Text]:
    if block:
        lines = (_MARKS.sub("", _FOR_TOOLS.sub("", comment.words)) for comment in block)
        yield from paragraphs(block[0].line, "\n".join(lines))


def texts_of_hash_comments(source: str) -> list[Text]:
    """The comments of shell, YAML and make: from a ``#`` between white space to the line's end."""
    comments = [
        Comment(number, found.start(), found[0], follows_code=bool(line[: found.start()].strip()))
        for number, line in enumerate(source.split("\n"), 1)
        if (found := re.search(r"(?:^|(?<=\s))#+(?:\s.*|$)", line))
    ]
    return list(texts_of_comments(comments))


_ROLE = re.compile(r":raises? [\w.]+:|:\w+:(?=`)")
_STARTS_TEXT = re.compile(r"\s*(?:[-*]\s|\d+\.\s|:raises? )|\s+\S+\s{2,}\S")


def paragraphs(line: int, words: str) -> Iterator[Text]:
    """Each paragraph, item and ``:raises`` of a docstring or comment that starts at *line*."""
    part: list[str] = []
    for number, each in enumerate(without_code(words).split("\n"), line):
        if part and (not each.strip() or _STARTS_TEXT.match(each)):
            yield _paragraph(number - len(part), part)
            part = []
        if each.strip():
            part.append(_ROLE.sub("", each).strip().removeprefix("- "))
    if part:
        yield _paragraph(number + 1 - len(part), part)


def _paragraph(line: int, lines: list[str]) -> Text:
    return Text(line, "\n".join(lines).strip(), kind="comment")
