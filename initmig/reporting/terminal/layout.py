"""Fits tables and lines to the width of a terminal.

If a table is too wide, its empty columns are removed. Then its longest cells are wrapped or
shortened. If it is still too wide, each row becomes a paragraph, with a line for each cell.
"""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING
from initmig.reporting.terminal.cells import cells, longest_word, padded, shortened, spans, wrapped
from initmig.reporting.terminal.screen import Styled, like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.reporting.terminal.screen import Line

    Row = Sequence[str]

GAP = 2
"""Blanks between two columns."""

ID, WORDS, PROSE, NAME, SQL, FIXED = "id", "words", "prose", "name", "sql", "fixed"
"""The kinds of columns: ids are wrapped last and never shortened, words and prose are wrapped,
names and SQL are shortened, and fixed columns do not change."""

_LEAST_WIDTHS = {ID: 20, WORDS: 9, PROSE: 26, NAME: 8, SQL: 24}
_SHORTENED = (NAME, SQL)
_BREAKS = "_-./:,"
_LONGEST_WORD = 24
"""Longer words are divided anywhere."""
_HANG = 2


def laid_out(
    rows: Sequence[Row], width: int, kinds: Sequence[str], *, headed: bool
) -> list[list[Line]]:
    """The lines of each of *rows*; each line takes at most *width* cells.

    *kinds* has the kind of each column. If the table is *headed*, the first row has the headings.
    """
    if width and _full_width(rows) > width:
        rows, kinds = _without_empty(rows, kinds, headed=headed)
    widths = _widths(rows, width, kinds)
    if not widths:
        return _in_paragraphs(rows, width, headed=headed)
    wrapped_rows = [[*map(_cell, row, widths, kinds)] for row in rows]
    taken = [max(map(_widest, column)) for column in zip(*wrapped_rows, strict=True)]
    return [_in_columns(row, taken) for row in wrapped_rows]


def _full_width(rows: Sequence[Row]) -> int:
    return sum(map(_widest, zip(*rows, strict=True))) + GAP * (len(rows[0]) - 1)


def _widest(column: Sequence[str]) -> int:
    return max(map(cells, column))


def _without_empty(
    rows: Sequence[Row], kinds: Sequence[str], *, headed: bool
) -> tuple[Sequence[Row], Sequence[str]]:
    """*rows* and *kinds* without the columns that are empty except for a heading."""
    columns = [*zip(*rows, strict=True)]
    kept = [number for number, column in enumerate(columns) if number == 0 or any(column[headed:])]
    return [[row[number] for number in kept] for row in rows], [kinds[number] for number in kept]


def _widths(rows: Sequence[Row], width: int, kinds: Sequence[str]) -> list[int]:
    """The width of each column; empty if the columns cannot be made narrow enough."""
    columns = [*zip(*rows, strict=True)]
    widths = [_widest(column) for column in columns]
    over = sum(widths) + GAP * (len(widths) - 1) - width if width else 0
    least = [_least_width(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    for shrinking in ({WORDS, PROSE, NAME, SQL}, {ID}):
        while over > 0:
            spare = [
                (widths[number], number)
                for number, kind in enumerate(kinds)
                if kind in shrinking and widths[number] > least[number]
            ]
            if not spare:
                break
            widths[max(spare)[1]] -= 1
            over -= 1
    return widths if over <= 0 else []


def _least_width(column: Sequence[str], kind: str) -> int:
    """The smallest width of a column of this *kind*."""
    widest = _widest(column)
    if kind == FIXED:
        return widest
    breaks = _BREAKS if kind == ID else ""
    word = max(longest_word(each, breaks) for each in column) if kind not in _SHORTENED else 0
    return min(widest, max(_LEAST_WIDTHS[kind], min(word, _LONGEST_WORD)))


def _in_columns(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> list[Line]:
    """The lines of a row whose cells, the *columns*, may have several lines each."""
    height = max(map(len, columns))
    return [
        _line([column[number] if number < len(column) else "" for column in columns], widths)
        for number in range(height)
    ]


def _cell(text: str, width: int, kind: str) -> list[str]:
    if cells(text) <= width:
        return [text]
    if kind in _SHORTENED:
        return [like(text, shortened(text, width))]
    # a continuation line must not look like another row
    hang = _HANG if kind == ID else 0
    return [like(text, each) for each in wrapped(text, width, hang)]


def _line(row: Row, widths: Sequence[int]) -> Line:
    pieces: list[str] = []
    blanks = 0
    for text, width in zip(row, widths, strict=True):
        if text:
            pieces += [" " * blanks, text]
            blanks = 0
        blanks += width - cells(text) + GAP
    if pieces:
        pieces[-1] = like(pieces[-1], pieces[-1].rstrip())
    return pieces


def _in_paragraphs(rows: Sequence[Row], width: int, *, headed: bool) -> list[list[Line]]:
    if not headed:
        return [_paragraph(row, width) for row in rows]
    heads, *others = rows
    size = max(map(cells, heads[1:]), default=0)
    shown: list[list[Line]] = [[]]  # the paragraphs contain the headings
    return shown + [
        [
            *(fitted([row[0]], width, _HANG) if row[0] else ()),
            *(
                line
                for head, text in zip(heads[1:], row[1:], strict=True)
                if text
                for line in fitted(
                    [" " * _HANG, Styled(padded(head, size), "dim"), "  ", text],
                    width,
                    min(_HANG + size + GAP, width // 2),
                )
            ),
        ]
        for row in others
    ]


def _paragraph(row: Row, width: int) -> list[Line]:
    """All cells in one line if they fit; otherwise the last cell goes below the others."""
    *before, last = row
    title = [piece for each in before for piece in (each, " " * GAP)]
    if sum(map(cells, title)) + cells(last) <= width:
        return [[*title, last]]
    return [*fitted(title[:-1], width, _HANG), *fitted([" " * _HANG, last], width, _HANG)]


def fitted(line: Line, width: int, hang: int = _HANG, keep: Sequence[int] = ()) -> list[Line]:
    """*line* as lines of at most *width* cells, 0 for no limit; later lines are indented by *hang*.

    Each piece keeps its style. No line ends at the blanks whose indexes are in *keep*.
    """
    text = "".join(line)
    if not width or cells(text) <= width:
        return [line]
    found: list[Line] = []
    for start, end in spans(text, width, hang, keep):
        pieces = _within(line, start, end)
        found.append([" " * hang, *pieces] if start else pieces)
    return found


def _within(line: Line, start: int, end: int) -> list[str]:
    """The pieces of *line* between *start* and *end*, cut to fit."""
    found, at = [], 0
    for piece in line:
        part = piece[max(0, start - at) : max(0, end - at)]
        if part:
            found.append(like(piece, part))
        at += len(piece)
    return found
