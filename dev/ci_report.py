"""Shows how long each part of `.ci/run` and its slowest test files took, next to the budgets."""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from xml.etree import ElementTree as ET

from dev.programs import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BUDGETS: Final = REPOSITORY / ".ci/budgets.toml"
SLOWEST: Final = 10


class TimedFile(NamedTuple):
    """The tests of one file in one part."""

    part: str
    name: str
    """Such as `tests.faults.test_kill`."""
    seconds: float
    """The sum over its tests. They run in parallel, so it can be more than the part took."""


def report(
    seconds: Mapping[str, float], files: Sequence[TimedFile], budgets: Mapping[str, float]
) -> str:
    """The table of the parts, the slowest test files, and the parts over their budgets.

    *seconds* are the durations of the parts, *budgets* the seconds that each of them may take.
    """
    width = max(map(len, seconds), default=4)
    lines = ["", f"{'part':{width}}  seconds  budget"]
    for part, taken in sorted(seconds.items(), key=lambda each: -each[1]):
        lines.append(f"{part:{width}}  {taken:7.0f}  {budgets.get(part, 0):6.0f}")
    lines += ["", f"the {SLOWEST} slowest test files, in seconds summed over their tests"]
    for file in sorted(files, key=lambda each: -each.seconds)[:SLOWEST]:
        lines.append(f"{file.seconds:7.0f}  {file.name} ({file.part})")
    lines += [
        f"OVER BUDGET: {part} took {taken:.0f} s instead of at most {budgets.get(part, 0):.0f} s"
        for part, taken in seconds.items()
        if taken > budgets.get(part, 0)
    ]
    lines += [f"NOT RUN: {part}" for part in unfinished(seconds, budgets)]
    return "\n".join(lines)


def unfinished(seconds: Mapping[str, float], budgets: Mapping[str, float]) -> list[str]:
    """The parts that have a budget and did not end."""
    return [part for part in budgets if part not in seconds]


def read_seconds(results: Path) -> dict[str, float]:
    """The durations in the files `PART.seconds` in *results*."""
    return {path.stem: float(path.read_text()) for path in sorted(results.glob("*.seconds"))}


def read_test_files(results: Path) -> Iterator[TimedFile]:
    """The test files in pytest's reports `PART.xml` in *results*."""
    for path in sorted(results.glob("*.xml")):
        seconds: defaultdict[str, float] = defaultdict(float)
        for case in ET.parse(path).iter("testcase"):
            seconds[case.attrib["classname"]] += float(case.attrib["time"])
        for name, total in seconds.items():
            yield TimedFile(path.stem, name, total)


def main(results: Path) -> int:
    """Print the report of the files in *results*; return 1 if a part did not end."""
    budgets = tomllib.loads(BUDGETS.read_text())["seconds"]
    seconds = read_seconds(results)
    print(report(seconds, list(read_test_files(results)), budgets))
    return 1 if unfinished(seconds, budgets) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
