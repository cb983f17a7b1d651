"""The progress line fits the terminal and is removed when the work ends."""

from __future__ import annotations

import io
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from initmig.core import events
from initmig.reporting.logs import Log
from initmig.reporting.terminal import progress
from initmig.reporting.terminal.cells import cells
from initmig.reporting.terminal.display import Display
from initmig.reporting.terminal.progress import Progress, Work
from initmig.reporting.terminal.screen import Screen
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "20261201093500_backfill_phone_numbers"
BLOCKER = "pid 4711 (psql, user eve, idle in transaction, transaction open for 3 m): LOCK TABLE t"
STARTED = events.MigrationStarted(ID, f"m/{ID}.sql", 2, 5)
RUNNING = events.StatementRunning(
    ID, 2.5, "running, waits for Lock: relation", (), f"m/{ID}.sql", 4
)
BLOCKED = RUNNING._replace(blockers=(BLOCKER, BLOCKER.replace("4711", "4712")))
APPLIED = events.MigrationApplied(ID, 3)


@contextmanager
def logging(columns: int = 120) -> Iterator[tuple[Terminal, Log, Progress]]:
    """A log on its own terminal."""
    terminal = Terminal(columns)
    with os.fdopen(os.dup(terminal.theirs), "w") as stream:
        shows = Progress(stream, columns=0, colour=True)
        log = Log(
            "info", "text", stream, display=Display(lambda: Screen(columns, colour=True), shows)
        )
        yield terminal, log, shows
        log.clear()
    terminal.close()


@pytest.fixture(autouse=True)
def quick_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw immediately and often."""
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.02)
    monkeypatch.setattr(progress, "_SHORTEST_WORK_SECONDS", 0.0)


def work(*, blockers: tuple[str, ...] = ()) -> Work:
    found = Work(ID, 0, announced=True)
    found.position, found.name, found.is_file = "[2/5] ", f"{ID}.sql:4", True
    found.update("running, waits for Lock: relation", blockers)
    return found


@pytest.mark.parametrize("width", [19, 39, 79, 119, 199])
@pytest.mark.parametrize("blockers", [(), (BLOCKER,), (BLOCKER,) * 5], ids=["free", "one", "five"])
def test_line_fits_the_width(width: int, blockers: tuple[str, ...]) -> None:
    name, rest = work(blockers=blockers).line(65, width)
    assert cells(name + rest) <= width
    assert name.startswith("[2/5] 202612")


def test_line_shows_migration_location_time_wait_and_blocker() -> None:
    assert "".join(work(blockers=(BLOCKER,)).line(65, 300)) == (
        f"[2/5] {ID}.sql:4 1 m 5 s: running, waits for Lock: relation; blocked by {BLOCKER}"
    )


def test_narrow_line_keeps_the_time_the_blocker_and_both_ends_of_the_name() -> None:
    line = "".join(work(blockers=(BLOCKER,)).line(65, 79))
    assert line == "[2/5] 20261201093500_backfill_…umbers.sql:4 1 m 5 s: blocked by pid 4711 (psql)"


def test_log_lines_remain_and_the_progress_line_is_removed() -> None:
    with logging() as (terminal, log, _):
        log(STARTED)
        terminal.wait_for("[2/5] ")
        log(BLOCKED)
        terminal.wait_for("blocked by pid 4711 (psql)")
        log(events.Printed("a line in between"))
        terminal.wait_for("a line in between")
        terminal.wait_for("blocked by pid 4711 (psql)")
        log(APPLIED)
        terminal.wait_for("applied")
        time.sleep(0.1)
        assert [line.split("Z ")[-1] for line in terminal.lines] == [
            "info    a line in between",
            f"info    applied {ID} in 3 s",
        ]


def test_late_report_of_a_finished_migration_is_not_shown() -> None:
    with logging() as (terminal, log, _):
        log(STARTED)
        terminal.wait_for("[2/5] ")
        log(APPLIED)
        log(RUNNING)
        time.sleep(0.1)
        [line] = terminal.lines
        assert line.endswith("in 3 s")


def test_each_holder_of_the_lock_is_logged_once() -> None:
    first = events.WaitingInQueue("pid 7 (app)", 7, (), 0.0, "app")
    with logging(200) as (terminal, log, _):
        for waited in (0.0, 10.0, 20.0):
            log(first._replace(waited_seconds=waited, holder=f"pid 7 (app), {waited}"))
        terminal.wait_for("20 s: pid 7 (app), 20.0")
        log(first._replace(holder="pid 8 (app)", holder_pid=8, waited_seconds=25.0))
        log(events.LockAcquired(30.0, pooled=False))
        time.sleep(0.1)
        assert len(terminal.lines) == 2, terminal.lines
        first_line, second_line = terminal.lines
        assert "pid 7 (app)" in first_line
        assert "pid 8 (app)" in second_line


def test_narrower_terminal_gets_a_shorter_line() -> None:
    with logging() as (terminal, log, _):
        log(STARTED)
        log(BLOCKED)
        terminal.wait_for("4712 (psql)")
        terminal.resize(40)
        terminal.wait_for("…")
        last = terminal.raw.rsplit("\x1b[J", 1)[1].replace("\r", "")
        assert cells(Screen().text([[_plain(last)]])) < 40
        log(APPLIED)


def _plain(raw: str) -> str:
    return raw.replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_progress_line_escapes_control_characters_and_masks_secrets() -> None:
    hostile = RUNNING._replace(doing="\x1b[2J\n postgres://u:hunter2@h/d", blockers=("\x07",))
    with logging(200) as (terminal, log, _):
        log(hostile)
        terminal.wait_for("\\x1b[2J\\n postgres://u:***@h/d; blocked by \\x07")
        assert "hunter2" not in terminal.raw


def test_terminal_that_does_not_read_delays_nothing() -> None:
    with logging() as (terminal, log, _):
        terminal.stop_reading()
        started = time.monotonic()
        log(STARTED)
        log(BLOCKED)
        time.sleep(0.1)
        assert terminal.raw == ""
        assert time.monotonic() - started < 1
        terminal.resume_reading()
        terminal.wait_for("blocked by pid 4711")
        log(APPLIED)


def test_closed_terminal_is_ignored() -> None:
    with logging() as (terminal, log, shows):
        log(STARTED)
        terminal.wait_for("[2/5] ")
        terminal.close()
        log(BLOCKED)
        log(APPLIED)
        log.clear()
        assert shows.note(BLOCKED)


def test_stream_that_is_not_a_terminal_raises_no_error() -> None:
    shows = Progress(io.StringIO(), columns=80, colour=False)
    shows.note(STARTED)
    time.sleep(0.1)
    shows.clear()
