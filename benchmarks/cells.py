"""Figures as words, and words in tables, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOTHING: Final = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table whose first columns are *words*, and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def seconds(value: float | None) -> str:
    """Milliseconds, or seconds from one on."""
    if value is None:
        return NOTHING
    if abs(value) < 1:
        return f"{value * 1000:.0f} ms" if abs(value) >= 0.01 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def number(value: float | None) -> str:
    """A ratio, with as many digits as can be meant."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def short(value: float | None) -> str:
    """Three digits at most that mean something."""
    return NOTHING if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A whole number."""
    return NOTHING if value is None else f"{value:.0f}"


def mebibytes(size: float | None) -> str:
    """Bytes, as MiB."""
    return NOTHING if size is None else f"{size / 2**20:.0f} MiB"
