"""The results, saved between measuring and reporting."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.bench import Sizes
from benchmarks.imports import Imports
from benchmarks.measuring import Figure

if TYPE_CHECKING:
    from pathlib import Path


class Results(NamedTuple):
    """All data of the report."""

    machine: dict[str, str]
    versions: dict[str, str]
    """The versions of the peers that took part, in order."""
    left_out: dict[str, str]
    """The reasons why other peers did not take part."""
    sizes: Sizes
    figures: list[Figure]
    imports: Imports

    def figure(self, work: str, case: str, peer: str) -> Figure | None:
        """The figure of a trial, or None."""
        sought = (work, case, peer)
        return next((each for each in self.figures if each[:3] == sought), None)

    def median(self, work: str, case: str, peer: str, field: str = "wall") -> float | None:
        """The median of a figure, or None if it was not measured."""
        figure = self.figure(work, case, peer)
        return figure.median(field) if figure else None

    @property
    def works(self) -> set[str]:
        """The works that were done, completely or not."""
        return {figure.work for figure in self.figures}

    def peers(self, work: str, case: str) -> list[str]:
        """The peers with a figure, in order."""
        return [each.peer for each in self.figures if each[:2] == (work, case)]

    @property
    def missing(self) -> list[Figure]:
        """The figures that could not be measured, except optional ones."""
        return [each for each in self.figures if each.why_not and not each.is_optional]

    def renewed(self, newer: Results) -> Results:
        """The *newer* results, plus these for the works that were not measured again."""
        kept = [figure for figure in self.figures if figure.work not in newer.works]
        return newer._replace(figures=[*kept, *newer.figures])

    def save(self, path: Path) -> None:
        """Save it, for `load`."""
        values = {
            **self._asdict(),
            "sizes": self.sizes._asdict(),
            "figures": [figure.to_json() for figure in self.figures],
            "imports": self.imports._asdict(),
        }
        path.write_text(json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """The saved results."""
        values = json.loads(path.read_text())
        values["sizes"] = Sizes(**values["sizes"])
        values["figures"] = [Figure.from_json(each) for each in values["figures"]]
        values["imports"] = Imports(**values["imports"])
        return cls(**values)


def ratio(one: float | None, other: float | None) -> float | None:
    """*one* divided by *other*; None if either is not known."""
    return one / other if one is not None and other else None
