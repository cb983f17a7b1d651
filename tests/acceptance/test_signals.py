"""SIGTERM and SIGINT stop a run soon: it rolls back, unlocks and reports the signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import ASLEEP
from tests.support.migrations import write
from tests.support.namespaces import as_process_1
from tests.support.ports import closed_port, silent_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result, Running
    from tests.support.proxy import Message, Proxy, Verdict

SLEEPING = {"0001_sleeping.sql": "CREATE TABLE half_done (); SELECT pg_sleep(60)"}
PYTHON = {
    "0001_sleeping.py": """
import sys, time
from yoyo import step
def slow(connection):
    connection.cursor().execute("CREATE TABLE half_done ()")
    print("asleep", file=sys.stderr, flush=True)
    time.sleep(60)
step(slow)
"""
}
PYTHON_IN_SERVER = {
    "0001_sleeping.py": """
from yoyo import step
step("CREATE TABLE half_done ()")
step(lambda connection: connection.cursor().execute("SELECT pg_sleep(%s)", [60]))
"""
}
STUBBORN = {
    "0001_sleeping.py": """
import sys, time
from yoyo import step
def stubborn(connection):
    try:
        print("asleep", file=sys.stderr, flush=True)
        time.sleep(60)
    except:
        connection.cursor().execute("SELECT pg_sleep(60)")
step(stubborn)
"""
}
NON_TRANSACTIONAL = {
    "0001_sleeping.sql": "-- transactional: false\nSELECT pg_sleep(60);\nSELECT 1;"
}

LEFT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def assert_nothing_left(database: Database) -> None:
    assert database.value(ASLEEP) == 0
    wait_until(lambda: database.value(LEFT) == 0)
    assert "half_done" not in database.tables()
    assert database.query("SELECT * FROM _yoyo_migration") == []
    assert database.query("SELECT * FROM yoyo_lock") == []


def stopped(running: Running, number: signal.Signals = signal.SIGTERM) -> Result:
    """Send the signal; returns the result, which must arrive within 5 seconds."""
    running.send(number)
    result = running.result(timeout=5)
    assert result.code == 128 + number, result.err
    last = result.err.splitlines()[-1]
    assert f"stopped by {number.name}" in last
    assert "Traceback" not in result.err
    return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["each", "all"])
def test_signal_during_a_statement_rolls_back_and_unlocks(
    database: Database, initmig: Initmig, folder: Path, number: signal.Signals, mode: str
) -> None:
    write(folder, SLEEPING)
    running = initmig.start(f"--transaction={mode}", url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    stopped(running, number)
    assert_nothing_left(database)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_process_1_rolls_back_and_unlocks(
    database: Database, initmig: Initmig, folder: Path, number: signal.Signals
) -> None:
    prefix = as_process_1()
    write(folder, SLEEPING)
    running = initmig.start(url=database.url, folder=folder, prefix=prefix)
    wait_until(lambda: database.value(ASLEEP) == 1)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
    [inner] = map(int, children.split())
    assert "NSpid" in Path(f"/proc/{inner}/status").read_text()
    os.kill(inner, number)
    result = running.result(timeout=5)
    assert result.code == 128 + number, result.err
    assert f"stopped by {number.name}" in result.err
    assert_nothing_left(database)


@pytest.mark.parametrize(
    "files", [PYTHON_IN_SERVER, NON_TRANSACTIONAL], ids=["python", "no transaction"]
)
def test_signal_stops_statements_of_python_and_non_transactional_migrations(
    database: Database, initmig: Initmig, folder: Path, files: dict[str, str]
) -> None:
    write(folder, files)
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    stopped(running)
    assert_nothing_left(database)


def test_signal_during_a_sleep_in_python_rolls_back_and_unlocks(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, PYTHON)
    running = initmig.start(url=database.url, folder=folder)
    running.wait_for_line("asleep")
    stopped(running)
    assert_nothing_left(database)


def test_signal_stops_python_code_that_catches_everything(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, STUBBORN)
    running = initmig.start(url=database.url, folder=folder)
    running.wait_for_line("asleep")
    stopped(running)
    wait_until(lambda: database.value(LEFT) == 0)
    assert database.query("SELECT * FROM _yoyo_migration") == []


@pytest.mark.parametrize("command", ["migrate", "wait"])
def test_signal_stops_the_wait_for_a_refusing_database(
    initmig: Initmig, folder: Path, command: str
) -> None:
    url = f"postgresql://x@127.0.0.1:{closed_port()}/x"
    running = initmig.start(command, url=url, folder=write(folder, SLEEPING))
    running.wait_for_line("waiting up to 1 m for the database")
    stopped(running)


def test_signal_stops_the_wait_for_a_silent_database(initmig: Initmig, folder: Path) -> None:
    with silent_port() as port:
        url = f"postgresql://x@127.0.0.1:{port}/x"
        running = initmig.start(url=url, folder=write(folder, SLEEPING))
        wait_until(lambda: is_connected_to(port))
        stopped(running)


def is_connected_to(port: int) -> bool:
    remote = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2] == remote and line.split()[3] == "01" for line in lines)


def test_signal_in_the_queue_does_not_affect_the_lock_holder(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SLEEPING)
    leader = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    waiter = initmig.start(url=database.url, folder=folder)
    waiter.wait_for_line("waiting for another migrator")
    stopped(waiter)
    assert database.value("SELECT count(*) FROM yoyo_lock WHERE pid < 0") == 1
    assert leader.is_running()
    stopped(leader)
    assert_nothing_left(database)


def test_signal_while_waiting_for_yoyo_keeps_its_lock_row(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    database.execute("INSERT INTO yoyo_lock VALUES (1, now(), 4711)")
    write(folder, {"0002_b.sql": "SELECT 2"})
    waiter = initmig.start(url=database.url, folder=folder)
    waiter.wait_for_line("process 4711")
    stopped(waiter)
    assert database.query("SELECT pid FROM yoyo_lock") == [(4711,)]
    wait_until(lambda: database.value(LEFT) == 0)


def test_signal_between_two_retries_of_a_migration_unlocks(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_busy.sql": "CREATE TABLE half_done (); ALTER TABLE busy ADD x int"})
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE busy")
        running = initmig.start("--lock-timeout=50ms", url=database.url, folder=folder)
        running.wait_for_line("retry 2 of 10")
        stopped(running)
    assert_nothing_left(database)


def test_further_signals_do_not_disturb_the_shutdown(
    database: Database,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    running = initmig.start(url=proxy.url(database.name), folder=write(folder, SLEEPING))

    def send_more_signals(message: Message) -> Verdict:
        if message.type == "Q":
            running.interrupt()
            running.terminate()
        return "forward"

    wait_until(lambda: database.value(ASLEEP) == 1)
    proxy.before = send_more_signals
    stopped(running)
    assert_nothing_left(database)


def test_signal_stops_a_run_with_a_dead_network(
    database: Database,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    running = initmig.start(
        "--log-format=json", url=proxy.url(database.name), folder=write(folder, SLEEPING)
    )
    wait_until(lambda: database.value(ASLEEP) == 1)
    proxy.stop_answering()
    proxy.pause()
    running.terminate()
    result = running.result(timeout=5)
    assert result.code == 143
    assert [event["event"] for event in result.events] == ["stopped_by_signal"]


def test_connection_lost_during_the_shutdown_is_not_reopened(
    database: Database,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    running = initmig.start(url=proxy.url(database.name), folder=write(folder, SLEEPING))
    wait_until(lambda: database.value(ASLEEP) == 1)
    proxy.before = lambda message: "cut" if message.type == "Q" else "forward"
    stopped(running)
    wait_until(lambda: database.value(LEFT) == 0)
    assert proxy.count("startup") == 1
    assert "half_done" not in database.tables()


def test_stopped_exec_does_not_run_the_command(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SLEEPING)
    running = initmig.start("exec", "--", "echo", "served", url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    assert stopped(running).out == ""
    assert_nothing_left(database)


def test_run_after_a_stopped_run_applies_the_rest(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": "SELECT pg_sleep(60)"})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    stopped(running)
    write(folder, {"0002_b.sql": "CREATE TABLE b ()"})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0
    assert "applied 1 migration in" in result.err
    assert {"a", "b"} < database.tables()
