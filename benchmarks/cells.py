"""Formats figures and tables as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOTHING: Final = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table; its first *words* columns are text, the others are numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def seconds(value: float | None) -> str:
    """A time in milliseconds, or in seconds from 1 s on."""
    if value is None:
        return NOTHING
    if abs(value) < 1:
        return f"{value * 1000:.0f} ms" if abs(value) >= 0.01 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def number(value: float | None) -> str:
    """A ratio, with its significant digits."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def short(value: float | None) -> str:
    """A number with at most three significant digits."""
    return NOTHING if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A whole number."""
    return NOTHING if value is None else f"{value:.0f}"


def mebibytes(size: float | None) -> str:
    """A size in bytes, as MiB."""
    return NOTHING if size is None else f"{size / 2**20:.0f} MiB"
