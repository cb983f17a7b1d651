"""Figures that other pages quote match the benchmark page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BENCHMARKS = (DOCS / "explanation" / "benchmarks.md").read_text()


def section(page: str, heading: str) -> str:
    return page.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in *text*, without emphasis."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("| ").split("|")] for line in lines]


def measured(work: str, tool: str) -> list[str]:
    """The first row of *tool* in the tables of section *work*."""
    return next(row for row in rows(section(BENCHMARKS, work)) if row[0] == tool)


MEASURED = [
    row
    for row in rows(
        section((DOCS / "explanation" / "comparison.md").read_text(), "What was measured")
    )
    if re.search(r"\d", row[0])
]


def test_comparison_names_four_tools() -> None:
    assert len(MEASURED) == 4


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row[0])
def test_comparison_quotes_the_benchmark_figures(row: list[str]) -> None:
    tool, version = row[0].split()
    noop, apply, crowd = row[1:]
    assert f"| {tool} | {version} |" in BENCHMARKS
    assert noop in measured("A no-op", tool)
    assert apply in measured("Five hundred small migrations", tool)
    assert crowd in measured("Sixteen copies at once", tool)


@pytest.mark.parametrize(
    ("page", "words", "line"),
    [
        (
            "explanation/comparison.md",
            r"initmig took ([\d.]+) times as long",
            "with a password, against dbmate",
        ),
        ("faq.md", r"files took ([\d.]+) times", "5,000 files against 10"),
    ],
)
def test_quoted_ratio_is_in_the_benchmark(page: str, words: str, line: str) -> None:
    [ratio] = re.findall(words, (DOCS / page).read_text())
    [found] = [row for row in rows(BENCHMARKS) if any(line in cell for cell in row)]
    assert ratio in found
