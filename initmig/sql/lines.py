"""The places of bytes in a file, as lines and columns, with the text that a reader may see."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from functools import cache

from initmig.core.errors import Place
from initmig.core.records import TYPE_CHECKING
from initmig.sql.masking import MASK, hidden_in, masked_problem, secret_values
from initmig.sql.scanner import extents, octets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.core.errors import Problem
    from initmig.core.model import Sliceable

_LINE_END = r"\r\n?|\n"

_PIECE = 1 << 16
"""Bytes copied at a time."""

_BLOCK = 1 << 12
"""Bytes between two places where the lines are counted in advance."""

_NEAR = 1 << 8
"""Bytes that contain the end of most lines."""

_CONTINUATIONS = bytes(range(0x80, 0xC0))
"""All bytes in UTF-8 except the first byte of a character."""


def characters(data: bytes, start: int, end: int) -> int:
    """The number of characters in *data* from *start* to *end*."""
    return sum(len(_text(piece)) for _, piece in in_characters(data, start, end))


class Lines:
    r"""The places of characters in the *data* of a file; ``\n``, ``\r\n`` or ``\r`` ends a line.

    Each place takes the same time, because the lines before it are counted only once. A place with
    the text of its line costs more: the secrets in the line are masked, which needs the statements.
    """

    def __init__(self, path: str, data: Sliceable) -> None:
        self.path = path
        self.data = data
        # For the beginning of each block: the number of its line, the start of its line, and the
        # number of characters in the line before the block.
        self._numbers, self._starts, self._before = (
            array("Q", [1]),
            array("Q", [0]),
            array("Q", [0]),
        )
        self._ends = array("Q")
        """Where each of its statements ends."""
        self._of_line, self._found = (0, 0), list[tuple[int, int]]()

    def place(self, offset: int, within: tuple[int, int] | None = None) -> Place:
        """The place of the character at the byte *offset*, with the text of its line.

        *within* is the start and end of its statement, if they are known. Finding them takes memory
        of the size of the file. With *within*, other statements in the line are masked.
        """
        offset = self._outside_of_line_end(offset)
        place, start = self._place_and_start(offset)
        end = self._line_end(offset)
        if end - start > _PIECE:
            start = max(start, self._edge(offset - _PIECE // 2))
            end = min(end, self._edge(offset + _PIECE // 2))
        source, caret = self._shown(start, end, offset, within)
        return place._replace(source=source, before=place.column - 1 - caret)

    def _shown(
        self, start: int, end: int, offset: int, within: tuple[int, int] | None
    ) -> tuple[str, int]:
        """The text from *start* to *end* without its secrets, and where *offset* is in it."""
        shown, caret, after = "", -1, start
        for first, last in (*self._secrets_of(start, end, within), (end, end)):
            if caret < 0 and offset <= first:
                caret = len(shown) + _count(self.data[after:offset])
            shown += _text(self.data[after:first])
            if caret < 0 and offset < last:
                caret = len(shown)
            shown += MASK if first < last else ""
            after = last
        return shown, caret

    def _secrets_of(
        self, start: int, end: int, within: tuple[int, int] | None
    ) -> list[tuple[int, int]]:
        """The secrets from *start* to *end*; those of the last line are cached."""
        if self._of_line != (start, end):
            found = self._secrets(start, end)
            if within:
                secrets = self._secrets_within(*within)
                found = iter(sorted([*secrets, *self._outside(start, end, within)]))
            clipped = ((max(first, start), min(last, end)) for first, last in found)
            self._of_line, self._found = (
                (start, end),
                [each for each in clipped if each[0] < each[1]],
            )
        return self._found

    def _secrets(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The secrets of all statements that overlap with *start* to *end*."""
        if not self._ends:
            self._ends = array("Q", (after for _, _, after in extents(octets(self.data[:]))))
        number = bisect_right(self._ends, start)
        after = self._ends[number - 1] if number else 0
        while after < end:
            last = self._ends[number] if number < len(self._ends) else len(self.data)
            yield from self._secrets_within(after, last)
            after, number = last, number + 1

    def _secrets_within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for first, last in hidden_in(octets(self.data[start:end])):
            yield start + first, start + last

    def _outside(self, start: int, end: int, within: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """The text outside of *within* from *start* to *end*, except blanks and a semicolon."""
        for first, last in ((start, min(within[0], end)), (max(within[1], start), end)):
            if self.data[first:last].strip(b"; \t\r\n"):
                yield first, last

    def masked(self, problem: Problem, start: int = 0, end: int | None = None) -> Problem:
        """*problem*, a server error in a part of the SQL, without the secrets of that part.

        The part is tokenized for this, so only after an error.
        """
        return masked_problem(problem, secret_values(octets(self.data[start:end])))

    def numbers(self, offset: int) -> Place:
        """The same without the text of the line, which can be very long."""
        return self._place_and_start(self._outside_of_line_end(offset))[0]

    def _outside_of_line_end(self, offset: int) -> int:
        around = self.data[max(0, offset - 1) : offset + 1]
        return offset - 1 if around == b"\r\n" else offset

    def _place_and_start(self, offset: int) -> tuple[Place, int]:
        block = self._block_of(offset)
        piece = self.data[block * _BLOCK : offset]
        start = _last_start(piece)
        column = _count(piece[start:]) + (0 if start else self._before[block]) + 1
        place = Place(self.path, self._numbers[block] + _line_ends(piece), column)
        return place, block * _BLOCK + start if start else self._starts[block]

    def _line_end(self, offset: int) -> int:
        """Where the line of *offset* ends, or a place in it if the line is very long."""
        rest = b""
        for size in (_NEAR, _PIECE + 1):
            rest = self.data[offset : offset + size]
            if found := _compiled_for_bytes(_LINE_END).search(rest):
                return offset + found.start()
        return offset + len(rest)

    def _block_of(self, offset: int) -> int:
        """The number of the block that contains *offset*; counts all blocks before it."""
        while len(self._numbers) <= offset // _BLOCK:
            self._count_block(len(self._numbers) - 1)
        return offset // _BLOCK

    def _count_block(self, number: int) -> None:
        first = number * _BLOCK
        piece = self.data[first : first + _BLOCK + 1]
        block, following = piece[:_BLOCK], piece[_BLOCK:]
        ends = _line_ends(block) - (block.endswith(b"\r") and following == b"\n")
        start = _last_start(block)
        self._numbers.append(self._numbers[number] + ends)
        self._starts.append(first + start if start else self._starts[number])
        self._before.append(_count(block[start:]) + (0 if start else self._before[number]))

    def _edge(self, offset: int) -> int:
        """The first byte of the character that the byte at *offset* is part of."""
        first = max(0, offset - 3)
        return first + _edge(self.data[first : offset + 1], offset - first)


def _line_ends(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _last_start(data: bytes) -> int:
    """Where the last line of *data* begins; 0 if it is the only one."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


def _count(data: bytes) -> int:
    """The number of characters that begin in *data*, which is UTF-8."""
    return len(data.translate(None, _CONTINUATIONS))


def _edge(data: bytes, offset: int) -> int:
    """The first byte of the character at *offset*. A character has at most four bytes."""
    for at in range(offset, offset - 3, -1):
        if at >= len(data) or data[at] & 0xC0 != 0x80:
            return at
    return offset - 3


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def in_characters(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of *data* from *start* to *end*, with offsets. No piece splits a character."""
    while start < end:
        stop = min(_edge(data, start + _PIECE), end)
        yield start, data[start:stop]
        start = stop


def offset_of(data: bytes, start: int, characters: int) -> int:
    """The byte offset of the character that is *characters* after the one at *start*."""
    for at, piece in in_characters(data, start, len(data)):
        text = _text(piece)
        if characters < len(text):
            return at + len(text[:characters].encode())
        characters -= len(text)
    return len(data)


@cache
def _compiled_for_bytes(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode())
