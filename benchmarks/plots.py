"""Bar charts as SVG, readable on a light and on a dark page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

# Medium tones, because an image does not know the color of its page.
_TEXT: Final = "#7d8590"
_BAR: Final = "#8fa3b8"
_HIGHLIGHTED: Final = "#2f81f7"
_ROW: Final = 24
_HEAD: Final = 34
_LONGEST: Final = 330
_LETTER: Final = 7.3
_FRAME: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{{width}}" height="{{height}}" role="img"
     viewBox="0 0 {{width}} {{height}}" font-family="sans-serif" font-size="13" fill="{_TEXT}">
<title>{{title}}</title>
<text x="8" y="20" font-weight="bold">{{title}}</text>
{{rows}}
</svg>
"""


class Bar(NamedTuple):
    """One bar, with a *name* before it and *words* after it."""

    name: str
    value: float
    words: str


def bar_chart(title: str, bars: Sequence[Bar], *, highlighted: str = "", cut: bool = False) -> str:
    """Horizontal bars from zero, the first on top; with *cut*, one much longer bar is shortened."""
    left = round(max((len(bar.name) for bar in bars), default=0) * _LETTER) + 16
    width = left + _LONGEST + 190
    height = _HEAD + _ROW * len(bars) + 8
    full = _full_length([bar.value for bar in bars], cut=cut)
    rows = [_row(bar, i, left, full, highlighted) for i, bar in enumerate(bars)]
    return _FRAME.format(width=width, height=height, title=escape(title), rows="\n".join(rows))


def _full_length(values: Sequence[float], *, cut: bool) -> float:
    """The value of a full bar: the largest value, unless it is far larger than the others."""
    largest, second = [*sorted(values, reverse=True), 0, 0][:2]
    is_cut = cut and 0 < second < largest / 2.5
    return second * 1.15 if is_cut else largest or 1


def _row(bar: Bar, number: int, left: int, full: float, highlighted: str) -> str:
    top = _HEAD + _ROW * number
    length = max(2.0, min(1.0, bar.value / full) * _LONGEST)
    is_ours = bar.name == highlighted
    color, weight = (_HIGHLIGHTED, "bold") if is_ours else (_BAR, "normal")
    parts = [
        _text(left - 8, top, bar.name, f'text-anchor="end" font-weight="{weight}"'),
        f'<rect x="{left}" y="{top + 3}" width="{length:.1f}" height="{_ROW - 7}" fill="{color}"/>',
        _cut(left + length - 30, top) if bar.value > full else "",
        _text(left + length + 8, top, bar.words, f'font-weight="{weight}"'),
    ]
    return "\n".join(filter(None, parts))


def _text(x: float, top: int, words: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{top + 16}" {attributes}>{escape(words)}</text>'


def _cut(x: float, top: int) -> str:
    """A gap, which shows that the bar would be longer."""
    path = f"M{x:.1f} {top + _ROW} l6 -{_ROW}"
    # Two lines with a gap between them that shows the bar: grey on any page.
    return f'<path d="{path} m5 0 l-6 {_ROW}" stroke="{_TEXT}" stroke-width="2" fill="none"/>'
