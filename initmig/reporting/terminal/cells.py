"""How many cells of a terminal a text takes, and lines that do not take more than there are.

By Unicode's own tables, which Python has: wcwidth would bring a second copy of them. The texts are
visible ones (visible.py), so that no character moves the cursor.
"""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ELLIPSIS = "…"

_BREAKS = "_-./:,;=|"
"""Behind which a word may be continued in the next line, where it has to be."""

_FAR = 4
"""So many characters for each cell are looked at: most of them would take none."""

_JUNGSEONG = range(0x1160, 0x1200)
"""Hangul vowels and finals: drawn into the cells of the consonant before them."""


def cells(text: str) -> int:
    """How many cells *text* takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    from unicodedata import category, east_asian_width

    if category(character) in ("Mn", "Me", "Cf") or ord(character) in _JUNGSEONG:
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def padded(text: str, width: int) -> str:
    """*text* and blanks, up to *width* cells."""
    return text + " " * (width - cells(text))


def longest_word(text: str, breaks: str = "") -> int:
    """The cells of the longest part of *text* that is not divided at blanks, or after *breaks*."""
    for each in breaks:
        text = text.replace(each, f"{each} ")
    return max(map(cells, text.split()), default=0)


def shortened(text: str, width: int) -> str:
    """*text*, its end left out where it takes more than *width* cells."""
    if cells(text) <= width:
        return text
    return text[: _fitting(text, width - 1)] + ELLIPSIS


def shortened_inside(text: str, width: int) -> str:
    """*text*, its middle left out where it takes more than *width* cells: two thirds are before."""
    if cells(text) <= width:
        return text
    tail = max(0, (width - 1) // 3)
    end = text[len(text) - tail :]
    while cells(end) > tail:
        end = end[1:]
    return text[: _fitting(text, width - 1 - cells(end))] + ELLIPSIS + end


def _fitting(text: str, width: int) -> int:
    """How many characters of *text*, one at least, fit in *width* cells."""
    taken = 0
    for index, character in enumerate(text):
        taken += _cells_of(character) if not character.isascii() else 1
        if taken > width and index:
            return index
    return len(text)


def wrapped(text: str, width: int, hang: int = 0) -> list[str]:
    """*text* as lines of at most *width* cells; all but the first have *hang* blanks in front."""
    indent = " " * hang
    return [
        f"{indent if start else ''}{text[start:end]}" for start, end in spans(text, width, hang)
    ]


def spans(
    text: str, width: int, hang: int = 0, keep: Sequence[int] = ()
) -> Iterator[tuple[int, int]]:
    """Where each of those lines begins and ends in *text*.

    The blank at each of the indexes *keep* is none at which a line ends.
    """
    start, room = 0, width
    while cells(near := text[start : start + _FAR * width]) > room or start + len(near) < len(text):
        end = start + _end_of_line(near, room, [each - start for each in keep])
        yield start, start + len(text[start:end].rstrip(" "))
        start = end + len(text[end:]) - len(text[end:].lstrip(" "))
        room = max(1, width - hang)
    yield start, len(text)


def _end_of_line(text: str, width: int, keep: Sequence[int]) -> int:
    """Where the first line of *text*, which takes more than *width* cells, ends."""
    fitting = _fitting(text, width)
    first = len(text) - len(text.lstrip(" "))
    for index in range(fitting, first, -1):
        if (
            text[index : index + 1] == " "
            and index not in keep
            and not _is_in_quantity(text, index)
        ):
            return index
    for index in range(fitting, first + 1, -1):
        if text[index - 1] in _BREAKS:
            return index
    return fitting


def _is_in_quantity(text: str, blank: int) -> bool:
    """Whether the *blank* stands between a number and its unit."""
    unit = text[blank + 1 : blank + 4].partition(" ")[0].rstrip(":;,.)")
    return text[blank - 1].isdigit() and unit in ("s", "m", "h", "%", "MB")
