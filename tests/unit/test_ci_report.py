"""The report at the end of `.ci/run`: its parts, their budgets, and the slowest test files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dev.ci_report import TimedFile, read_seconds, read_test_files, report, unfinished

if TYPE_CHECKING:
    from pathlib import Path


def test_parts_are_sorted_by_their_seconds_and_have_their_budgets() -> None:
    lines = report({"check": 40, "image": 50.4}, [], {"check": 120, "image": 90}).splitlines()
    assert lines[1:4] == [
        "part   seconds  budget",
        "image       50      90",
        "check       40     120",
    ]


def test_only_a_part_that_took_longer_than_its_budget_is_reported() -> None:
    text = report({"check": 120, "image": 91}, [], {"check": 120, "image": 90})
    assert "OVER BUDGET: image took 91 s instead of at most 90 s" in text
    assert "OVER BUDGET: check" not in text


def test_part_without_a_budget_is_over_it() -> None:
    assert "OVER BUDGET: new took 1 s instead of at most 0 s" in report({"new": 1}, [], {})


def test_part_that_did_not_end_is_reported() -> None:
    assert "NOT RUN: image" in report({"check": 1}, [], {"check": 1, "image": 1})
    assert unfinished({"check": 1}, {"check": 1, "image": 1}) == ["image"]


def test_report_has_the_ten_slowest_test_files_of_all_parts() -> None:
    files = [TimedFile("postgres-18", f"tests.unit.test_{n}", n) for n in range(1, 12)]
    lines = report({}, files, {}).splitlines()
    slowest = [line.split() for line in lines if "postgres-18" in line]
    assert slowest[0] == ["11", "tests.unit.test_11", "(postgres-18)"]
    assert len(slowest) == 10
    assert "tests.unit.test_1 " not in "".join(lines)


def test_seconds_of_a_part_and_of_its_test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "postgres-14.seconds").write_text("12\n")
    (tmp_path / "postgres-14.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.unit.test_a" name="x" time="1.5"/>'
        '<testcase classname="tests.unit.test_a" name="y" time="2.0"/>'
        '<testcase classname="tests.unit.test_b" name="z" time="0.5"/></testsuite></testsuites>'
    )
    assert read_seconds(tmp_path) == {"postgres-14": 12}
    assert list(read_test_files(tmp_path)) == [
        TimedFile("postgres-14", "tests.unit.test_a", 3.5),
        TimedFile("postgres-14", "tests.unit.test_b", 0.5),
    ]
