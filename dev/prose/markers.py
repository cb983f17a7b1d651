"""How many findings the code has, by folder: the figures of ``--markers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dev.prose.check import Check, Page
from dev.prose.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dev.prose.rules import Rules
    from dev.prose.texts import Kind

COLUMNS: dict[str, Kind] = {"docstrings, comments": "comment", "names": "name"}


class Markers(NamedTuple):
    """The findings in texts of one kind, and the words of these texts."""

    words: int
    findings: int

    @property
    def per_thousand(self) -> float:
        """Findings in a thousand words; 0 without words."""
        return 1000 * self.findings / max(self.words, 1)


def markers(rules: Rules, pages: Iterable[Page], kind: Kind) -> Markers:
    """The markers in the texts of this *kind*."""
    chosen = [page.only(kind) for page in pages]
    words = sum(count(text.words) for page in chosen for text in page.texts)
    return Markers(words, len(Check(rules, chosen).findings))


def table(rules: Rules, pages: Sequence[Page]) -> Iterator[str]:
    """A line for each folder, and one for all of them."""
    yield "".join(f"{title:>34}" for title in ("", *COLUMNS)).removeprefix(" " * 6)
    yield f"{'':28}" + f"{'words':>14}{'findings':>10}{'/1000':>10}" * len(COLUMNS)
    for folder in sorted({page.folder for page in pages if page.only("comment", "name").texts}):
        yield _row(folder, rules, [page for page in pages if page.folder == folder])
    yield _row("all", rules, pages)


def _row(name: str, rules: Rules, pages: Sequence[Page]) -> str:
    cells = (markers(rules, pages, kind) for kind in COLUMNS.values())
    return f"{name:28}" + "".join(
        f"{each.words:14}{each.findings:10}{each.per_thousand:10.1f}" for each in cells
    )
