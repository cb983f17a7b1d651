"""Long statements are never silent, and what others spoil is tried again."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from initmig import postgres
from initmig.events import Event, StatementRunning
from initmig.watching import Watch
from tests.support.databases import Database
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.processes import Result

BUSY = {"0001_busy.sql": "ALTER TABLE busy ADD x int"}
WAITS_FOR_LOCK = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'busy'::regclass"""


@contextmanager
def holding_busy(database: Database, *, url: str = "") -> Iterator[int]:
    """A transaction of an application that keeps the table `busy` to itself; its pid."""
    with Database(url or database.url).connect() as other:
        other.execute("SET application_name = 'the app'; BEGIN; LOCK TABLE busy")
        yield other.info.backend_pid


def retries(result: Result) -> list[dict[str, Any]]:
    return [event for event in result.events if event["event"] == "migration_retried"]


def test_lock_timeout_is_retried_and_names_the_blocker(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, BUSY)
    flags = ("--lock-timeout=600ms", "--log-format=json")
    with holding_busy(database) as pid:
        running = initmig.start(*flags, url=database.url, folder=folder)
        running.wait_for_line("migration_retried")
    result = running.result()
    assert result.code == 0, result.err
    [retry, *_] = retries(result)
    assert (retry["reason"], retry["sqlstate"]) == ("lock timeout", "55P03")
    assert (retry["attempt"], retry["attempts"]) == (1, 10)
    [blocker] = retry["blockers"]
    for fact in (f"pid {pid} (the app, user postgres, ", "idle in transaction", "open for 0."):
        assert fact in blocker
    assert blocker.endswith("LOCK TABLE busy")
    assert database.value("SELECT count(*) FROM _yoyo_log") == 1


def test_blocker_is_named_though_the_lock_is_asked_for_late(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_late.sql": "SELECT pg_sleep(1.2); ALTER TABLE busy ADD x int"})
    with holding_busy(database) as pid:
        running = initmig.start("--lock-timeout=1s", url=database.url, folder=folder)
        line = running.wait_for_line("retry 1 of 10")
    assert f"; blocked by pid {pid} (the app" in line
    assert running.result().code == 0


def test_blocker_with_more_rights_is_named_without_its_query(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    plain = database.login_role("GRANT ALL ON SCHEMA public TO {role}")
    Database(plain).execute("CREATE TABLE busy ()")
    write(folder, BUSY)
    with holding_busy(database) as pid:
        running = initmig.start("--lock-timeout=600ms", url=plain, folder=folder)
        line = running.wait_for_line("retry 1 of 10")
    assert f"blocked by pid {pid} (" in line
    assert "LOCK TABLE" not in line
    assert running.result().code == 0


def test_pauses_between_tries_grow_and_then_it_fails_with_the_next_step(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_busy.sql": "CREATE TABLE half_done (); ALTER TABLE busy ADD x int"})
    flags = ("--lock-timeout=50ms", "--lock-retries=2", "--log-format=json")
    with holding_busy(database):
        result = initmig(*flags, url=database.url, folder=folder)
    assert result.code == 1
    first, second = (retry["pause_seconds"] for retry in retries(result))
    assert 0.5 <= first <= 1
    assert 1 <= second <= 1.5
    assert result.seconds > first + second
    [failed] = [event for event in result.events if event["event"] == "failed"]
    assert failed["sqlstate"] == "55P03"
    assert "raise --lock-timeout" in failed["next"]
    assert "half_done" not in database.tables()


def test_zero_lock_retries_try_once(database: Database, initmig: Initmig, folder: Path) -> None:
    database.execute("CREATE TABLE busy ()")
    flags = ("--lock-timeout=50ms", "--lock-retries=0", "--log-format=json")
    with holding_busy(database):
        result = initmig(*flags, url=database.url, folder=write(folder, BUSY))
    assert result.code == 1
    assert retries(result) == []


def test_deadlock_is_retried(database: Database, initmig: Initmig, folder: Path) -> None:
    database.execute("CREATE TABLE busy (); CREATE TABLE other ()")
    write(folder, {"0001_both.sql": "ALTER TABLE other ADD x int;\nALTER TABLE busy ADD x int;"})
    flags = ("--lock-timeout=0", "--log-format=json")
    with database.connect() as app:
        # So that it is the migration that PostgreSQL ends.
        app.execute("SET deadlock_timeout = '60s'; BEGIN; LOCK TABLE busy")
        running = initmig.start(*flags, url=database.url, folder=folder)
        wait_until(lambda: database.value(WAITS_FOR_LOCK) == 1)
        app.execute("LOCK TABLE other")
        running.wait_for_line("migration_retried")
        app.execute("COMMIT")
    result = running.result()
    assert result.code == 0, result.err
    [retry, *_] = retries(result)
    assert (retry["reason"], retry["sqlstate"]) == ("deadlock", "40P01")


def test_serialization_failure_is_retried(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy (n int); INSERT INTO busy VALUES (1)")
    # What it reads first fixes its snapshot; the application's change then comes in between.
    script = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;"
        "SELECT * FROM busy; LOCK TABLE gate; UPDATE busy SET n = n + 10"
    )
    database.execute("CREATE TABLE gate ()")
    write(folder, {"0001_update.sql": script})
    with database.connect() as app:
        app.execute("BEGIN; LOCK TABLE gate")
        running = initmig.start("--log-format=json", url=database.url, folder=folder)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass"
        wait_until(lambda: database.value(waits) == 1)
        database.execute("UPDATE busy SET n = n + 1")
        app.execute("COMMIT")
    result = running.result()
    assert result.code == 0, result.err
    [retry] = retries(result)
    assert (retry["reason"], retry["sqlstate"]) == ("serialization failure", "40001")
    assert database.value("SELECT n FROM busy") == 12


def test_lock_timeout_in_python_is_retried_and_its_step_runs_again(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    steps = (
        "from yoyo import step\n"
        "step('CREATE TABLE first ()')\n"
        "step(lambda c: c.cursor().execute('ALTER TABLE busy ADD x int'))\n"
    )
    write(folder, {"0001_busy.py": steps})
    with holding_busy(database):
        running = initmig.start("--lock-timeout=50ms", url=database.url, folder=folder)
        running.wait_for_line("lock timeout, nothing of it was kept; retry 1 of 10")
    assert running.result().code == 0
    assert "first" in database.tables()


def test_other_errors_are_not_retried(database: Database, initmig: Initmig, folder: Path) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(60)"})
    flags = ("--statement-timeout=50ms", "--log-format=json")
    result = initmig(*flags, url=database.url, folder=folder)
    assert result.code == 1
    assert retries(result) == []
    assert result.events[-1]["sqlstate"] == "57014"


def test_all_in_one_transaction_is_retried_as_a_whole(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0000_first.sql": "CREATE TABLE first ()", **BUSY})
    flags = ("--transaction=all", "--lock-timeout=100ms", "--log-format=json")
    with holding_busy(database):
        running = initmig.start(*flags, url=database.url, folder=folder)
        running.wait_for_line("migration_retried")
        assert "first" not in database.tables()
    result = running.result()
    assert result.code == 0, result.err
    logged = "SELECT migration_id FROM _yoyo_log ORDER BY created_at_utc"
    assert database.query(logged) == [("0000_first",), ("0001_busy",)]


def test_long_statement_tells_every_interval_what_it_waits_for_and_who_blocks_it(
    database: Database,
) -> None:
    database.execute("CREATE TABLE busy ()")
    told: list[Event] = []
    session = postgres.connect(postgres.Settings(database.url))
    work = threading.Thread(target=session.run, args=["ALTER TABLE busy ADD x int"])
    watch = Watch(
        session,
        pid=session.startup_pid,
        look_every=float("inf"),
        emit=told.append,
        tell_every=0.3,
    )
    with holding_busy(database) as pid, watch:
        work.start()
        watch.works_on("0001_busy")
        wait_until(lambda: len(told) >= 3)
    work.join()
    session.close()
    first, second, third = (event for event in told[:3] if isinstance(event, StatementRunning))
    assert first.id == "0001_busy"
    assert 0.3 <= first.elapsed_seconds < second.elapsed_seconds < third.elapsed_seconds
    assert second.elapsed_seconds - first.elapsed_seconds >= 0.15
    assert first.doing == "running, waits for Lock: relation"
    [blocker] = first.blockers
    assert blocker.startswith(f"pid {pid} (the app, user postgres, idle in transaction, ")


def test_statement_of_eleven_seconds_is_told_of_after_ten(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(11)"})
    result = initmig("--log-format=json", url=database.url, folder=folder)
    assert result.code == 0
    [told] = [event for event in result.events if event["event"] == "statement_running"]
    assert told["id"] == "0001_slow"
    assert 10 <= told["elapsed_seconds"] < 11
    assert told["doing"] == "running, waits for Timeout: PgSleep"
    assert told["blockers"] == []


def test_watching_leaves_no_connection_behind(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(1.5)"})
    running = initmig.start("--lock-timeout=1s", url=database.url, folder=folder)
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert running.result().code == 0
    wait_until(lambda: database.value(count) == 1)
