"""Measures the cells that text takes on a terminal, and wraps or shortens lines to fit.

Uses the Unicode tables in Python, because wcwidth would add a second copy of them. The texts have
no invisible characters (visible.py), so no character moves the cursor.
"""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ELLIPSIS = "…"

_BREAKS = "_-./:,;=|"
"""A long word may be divided after these characters."""

_FAR = 4
"""Characters to measure for each cell of a line; more would only be needed for zero widths."""

_JUNGSEONG = range(0x1160, 0x1200)
"""Hangul vowels and finals, which are drawn in the cells of the consonant before them."""


def cells(text: str) -> int:
    """The number of cells that *text* takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    from unicodedata import category, east_asian_width

    if category(character) in ("Mn", "Me", "Cf") or ord(character) in _JUNGSEONG:
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def padded(text: str, width: int) -> str:
    """*text* followed by blanks, up to *width* cells."""
    return text + " " * (width - cells(text))


def longest_word(text: str, breaks: str = "") -> int:
    """The cells of the longest part of *text* when it is divided at blanks and after *breaks*."""
    for each in breaks:
        text = text.replace(each, f"{each} ")
    return max(map(cells, text.split()), default=0)


def shortened(text: str, width: int) -> str:
    """*text*; if it takes more than *width* cells, an ellipsis replaces its end."""
    if cells(text) <= width:
        return text
    return text[: _fitting(text, width - 1)] + ELLIPSIS


def shortened_inside(text: str, width: int) -> str:
    """*text*; if it takes more than *width* cells, an ellipsis replaces its middle.

    Two thirds of the cells are before the ellipsis.
    """
    if cells(text) <= width:
        return text
    tail = max(0, (width - 1) // 3)
    end = text[len(text) - tail :]
    while cells(end) > tail:
        end = end[1:]
    return text[: _fitting(text, width - 1 - cells(end))] + ELLIPSIS + end


def _fitting(text: str, width: int) -> int:
    """The number of characters of *text*, at least one, that fit in *width* cells."""
    taken = 0
    for index, character in enumerate(text):
        taken += _cells_of(character) if not character.isascii() else 1
        if taken > width and index:
            return index
    return len(text)


def wrapped(text: str, width: int, hang: int = 0) -> list[str]:
    """*text* as lines of at most *width* cells; all except the first are indented by *hang*."""
    indent = " " * hang
    return [
        f"{indent if start else ''}{text[start:end]}" for start, end in spans(text, width, hang)
    ]


def spans(
    text: str, width: int, hang: int = 0, keep: Sequence[int] = ()
) -> Iterator[tuple[int, int]]:
    """The start and end in *text* of each line of `wrapped`.

    No line ends at the blanks whose indexes are in *keep*.
    """
    start, room = 0, width
    while cells(near := text[start : start + _FAR * width]) > room or start + len(near) < len(text):
        end = start + _end_of_line(near, room, [each - start for each in keep])
        yield start, start + len(text[start:end].rstrip(" "))
        start = end + len(text[end:]) - len(text[end:].lstrip(" "))
        room = max(1, width - hang)
    yield start, len(text)


def _end_of_line(text: str, width: int, keep: Sequence[int]) -> int:
    """The index where to end the first line of *text*, which takes more than *width* cells."""
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
    """Whether the *blank* is between a number and its unit."""
    unit = text[blank + 1 : blank + 4].partition(" ")[0].rstrip(":;,.)")
    return text[blank - 1].isdigit() and unit in ("s", "m", "h", "%", "MB")
