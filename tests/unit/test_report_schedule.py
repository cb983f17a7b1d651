"""How often a long statement is reported."""

from __future__ import annotations

from initmig.core.report_schedule import ReportSchedule


def reports(
    schedule: ReportSchedule, *, seconds: int, about: dict[int, str] | None = None
) -> list[int]:
    """The seconds of the reports, with a check every second.

    *about* maps a second to the state of the statement from then on.
    """
    now, reported = "", []
    for elapsed in range(1, seconds + 1):
        now = (about or {}).get(elapsed, now)
        if schedule.should_report(elapsed, now):
            schedule.reported(elapsed, now)
            reported.append(elapsed)
    return reported


def test_reports_become_rarer_over_time() -> None:
    assert reports(ReportSchedule(), seconds=1300) == [10, 30, 60, 120, 300, 600, 900, 1200]


def test_missed_reports_are_replaced_by_one() -> None:
    schedule = ReportSchedule()
    assert schedule.should_report(75, "")
    schedule.reported(75, "")
    assert schedule.due == 120


def test_change_is_reported_before_the_next_regular_report() -> None:
    about = {12: "a blocker", 25: "another", 200: "none"}
    assert reports(ReportSchedule(), seconds=300, about=about) == [10, 20, 30, 60, 120, 200, 300]


def test_changes_before_the_first_report_cause_no_earlier_report() -> None:
    assert reports(ReportSchedule(), seconds=20, about={2: "a", 4: "b"}) == [10]


def test_reports_of_constant_changes_become_rarer() -> None:
    about = {second: str(second) for second in range(1, 3601)}
    reported = reports(ReportSchedule(), seconds=3600, about=about)
    assert reported[:4] == [10, 20, 30, 40]
    assert [
        later - sooner for sooner, later in zip(reported[-5:], reported[-4:], strict=False)
    ] == [60] * 4
    assert len(reported) < 90


def test_schedule_without_growth_is_regular() -> None:
    assert reports(ReportSchedule(2, grows=False), seconds=9) == [2, 4, 6, 8]
