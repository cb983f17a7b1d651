"""How often a long statement is reported."""

from __future__ import annotations

from initmig.core.report_schedule import ReportSchedule


def reports(
    schedule: ReportSchedule, *, seconds: int, about: dict[int, str] | None = None
) -> list[int]:
    """When it is reported, looked at every second; *about* says since when it is about what."""
    now, told = "", []
    for elapsed in range(1, seconds + 1):
        now = (about or {}).get(elapsed, now)
        if schedule.should_report(elapsed, now):
            schedule.reported(elapsed, now)
            told.append(elapsed)
    return told


def test_the_longer_it_takes_the_more_seldom_it_is_reported() -> None:
    assert reports(ReportSchedule(), seconds=1300) == [10, 30, 60, 120, 300, 600, 900, 1200]


def test_what_was_not_looked_at_in_time_is_reported_once() -> None:
    schedule = ReportSchedule()
    assert schedule.should_report(75, "")
    schedule.reported(75, "")
    assert schedule.due == 120


def test_a_change_is_reported_at_once() -> None:
    about = {12: "a blocker", 25: "another", 200: "none"}
    assert reports(ReportSchedule(), seconds=300, about=about) == [10, 20, 30, 60, 120, 200, 300]


def test_changes_before_the_first_report_wait_for_it() -> None:
    assert reports(ReportSchedule(), seconds=20, about={2: "a", 4: "b"}) == [10]


def test_what_changes_all_the_time_is_reported_ever_more_seldom() -> None:
    about = {second: str(second) for second in range(1, 3601)}
    told = reports(ReportSchedule(), seconds=3600, about=about)
    assert told[:4] == [10, 20, 30, 40]
    assert [later - sooner for sooner, later in zip(told[-5:], told[-4:], strict=False)] == [60] * 4
    assert len(told) < 90


def test_a_rhythm_that_does_not_grow_is_even() -> None:
    assert reports(ReportSchedule(2, grows=False), seconds=9) == [2, 4, 6, 8]
