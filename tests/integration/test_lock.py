"""Only one migrator runs at a time. A waiting one names the holder of the lock."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import WAIT_FOR_GATE
from tests.support.migrations import write
from tests.support.statements import calls, reads
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Running
    from tests.support.proxy import Message, Proxy, Verdict
    from tests.support.yoyo import Yoyo

GATED = {"0001_gated.sql": f"CREATE TABLE once ();{WAIT_FOR_GATE}"}
TAKES = (
    "pg_advisory_lock",
    "pg_advisory_xact_lock",
    "pg_try_advisory_lock",
    "pg_try_advisory_xact_lock",
)
"""PostgreSQL's functions that take an exclusive advisory lock."""

LOOKS = ("pg_try_advisory_lock_shared", "pg_try_advisory_xact_lock_shared")
"""The functions that check whether another session holds the lock, without waiting."""

FREE = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
FREE += " (SELECT oid FROM pg_database WHERE datname = current_database())"


@pytest.fixture
def leader(database: Database, initmig: Initmig, folder: Path) -> Running:
    """An initmig that runs a migration until the table `gate` is dropped."""
    database.execute("CREATE TABLE gate ()")
    running = initmig.start("--log-level=debug", url=database.url, folder=write(folder, GATED))
    running.wait_for_line("[1/1] 0001_gated")
    return running


def open_gate(database: Database) -> None:
    database.execute("DROP TABLE gate")


def migrator_pid(database: Database) -> int:
    pid = database.value("SELECT -pid FROM yoyo_lock")
    assert isinstance(pid, int)
    return pid


def test_waiter_names_the_holder(
    database: Database, leader: Running, initmig: Initmig, folder: Path
) -> None:
    waiter = initmig.start("--log-format=json", url=database.url, folder=folder)
    waiter.wait_for_line("waiting_in_queue")
    pid = migrator_pid(database)
    open_gate(database)
    [event, *_] = waiter.result().events
    assert event["holder_pid"] == pid
    assert event["blocked_by"] == []
    assert re.match(
        rf"pid {pid} \(initmig, user postgres, from 127\.0\.0\.1\), connected .* s, active",
        event["holder"],
    )
    assert leader.result().code == 0


def test_waiter_names_the_session_that_blocks_the_holder(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_busy.sql": "ALTER TABLE busy ADD x int"})
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE busy")
        leader = initmig.start(url=database.url, folder=folder)
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'busy'::regclass"
        wait_until(lambda: database.value(blocked) == 1)
        waiter = initmig.start("--log-format=json", url=database.url, folder=folder)
        waiter.wait_for_line("waiting_in_queue")
        pid = other.info.backend_pid
        other.execute("ROLLBACK")
    [event, *_] = waiter.result().events
    assert event["blocked_by"] == [pid]
    assert f"itself blocked by pid {pid}" in event["holder"]
    assert leader.result().code == 0


def test_waiter_without_privileges_names_a_superuser_as_the_holder(
    database: Database, leader: Running, initmig: Initmig, folder: Path
) -> None:
    wait_until(lambda: "_yoyo_migration" in database.tables())
    plain = database.login_role(
        "GRANT ALL ON SCHEMA public TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    waiter = initmig.start(url=plain, folder=folder)
    line = waiter.wait_for_line("waiting for another migrator")
    assert f"pid {migrator_pid(database)} (" in line
    open_gate(database)
    assert waiter.result().code == 0
    assert leader.result().code == 0


def test_waiter_exits_after_the_leader_without_taking_the_lock(
    database: Database, leader: Running, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    asks_again, leader_ended = threading.Event(), threading.Event()

    def before(message: Message) -> Verdict:
        refused = any(calls(query, *TAKES) for query in proxy.queries)
        if refused and message.type == "Q" and reads(message.query, "_yoyo_migration"):
            asks_again.set()
            leader_ended.wait(20)
        return "forward"

    proxy.before = before
    waiter = initmig.start(url=proxy.url(database.name), folder=folder)
    assert asks_again.wait(20)
    open_gate(database)
    assert leader.result().code == 0
    leader_ended.set()
    result = waiter.result()
    assert result.code == 0
    assert "nothing to do: another migrator applied" in result.err
    proxy.wait_until_quiet()
    assert sum(calls(query, *TAKES) for query in proxy.queries) == 1


def test_waiter_polls_and_does_not_block_in_the_server(
    database: Database,
    leader: Running,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    waiter = initmig.start(url=proxy.url(database.name), folder=folder)
    wait_until(lambda: sum(calls(query, *LOOKS) for query in proxy.queries) > 3)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    in_transaction = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'initmig'"
        " AND datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    assert database.value(waiting) == 0
    assert database.value(in_transaction) == 0
    open_gate(database)
    assert waiter.result().code == 0
    assert leader.result().code == 0


def test_waiter_takes_over_when_the_leader_dies(
    database: Database, leader: Running, initmig: Initmig, folder: Path
) -> None:
    waiter = initmig.start(url=database.url, folder=folder)
    waiter.wait_for_line("waiting for another migrator")
    leader.kill()
    removed = waiter.wait_for_line("removed the lock row of an initmig")
    assert "(pid " in removed
    open_gate(database)
    result = waiter.result()
    assert result.code == 0
    assert "applied 0001_gated" in result.err


def test_waiter_takes_over_when_the_leader_fails(
    database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE gate ()")
    broken = {"0001_gated.sql": GATED["0001_gated.sql"] + "; SELECT 1/0"}
    leader = initmig.start(
        "--log-level=debug", url=database.url, folder=write(tmp_path / "broken", broken)
    )
    leader.wait_for_line("[1/1] 0001_gated")
    waiter = initmig.start(url=database.url, folder=write(folder, GATED))
    waiter.wait_for_line("waiting for another migrator")
    open_gate(database)
    assert leader.result().code == 1
    assert waiter.result().code == 0
    assert database.value("SELECT count(*) FROM _yoyo_log") == 1


def test_waiter_gives_up_after_the_queue_timeout_and_names_the_holder(
    database: Database, leader: Running, initmig: Initmig, folder: Path
) -> None:
    result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
    assert result.code == 5
    assert result.seconds < 40
    expected = (
        f"timed out after 0.5 s waiting for another migrator: pid {migrator_pid(database)} (initmig"
    )
    assert expected in result.err
    assert "[queue-timeout]" in result.err
    open_gate(database)
    assert leader.result().code == 0


def test_waiter_for_an_earlier_migration_exits_once_it_is_applied(
    database: Database, leader: Running, initmig: Initmig, tmp_path: Path
) -> None:
    both = write(tmp_path / "both", {**GATED, "0002_later.sql": "CREATE TABLE later ()"})
    waiter = initmig.start("--to=0001_gated", url=database.url, folder=both)
    waiter.wait_for_line("waiting for another migrator")
    open_gate(database)
    result = waiter.result()
    assert result.code == 0
    assert "nothing to do: another migrator applied" in result.err
    assert "later" not in database.tables()
    assert leader.result().code == 0


def test_two_schemas_of_one_database_are_migrated_concurrently(
    database: Database, leader: Running, initmig: Initmig, tmp_path: Path
) -> None:
    database.execute("CREATE SCHEMA other")
    own = write(tmp_path / "own", {"0001_own.sql": "CREATE TABLE own ()"})
    result = initmig("--schema=other", "--queue-timeout=2s", url=database.url, folder=own)
    assert result.code == 0, result.err
    assert leader.is_running()
    assert "own" in database.tables("other")
    open_gate(database)
    assert leader.result().code == 0


# --- stock yoyo ---


def test_initmig_waits_for_the_lock_row_of_stock_yoyo_and_names_it(
    database: Database, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    assert yoyo("list", database=database, folder=folder).code == 0
    database.execute("INSERT INTO yoyo_lock VALUES (1, '2026-01-02 03:04:05', 4711)")
    result = initmig("--queue-timeout=500ms", url=database.url, folder=folder)
    assert result.code == 5
    assert "[queue-timeout]" in result.err
    assert result.err.count("process 4711 has held the lock since 2026-01-02 03:04:05 UTC") == 2
    assert "`initmig unlock`" in result.err
    assert "a" not in database.tables()
    assert database.value(FREE) == 0
    assert database.query("SELECT pid FROM yoyo_lock") == [(4711,)]

    waiter = initmig.start(url=database.url, folder=folder)
    waiter.wait_for_line("process 4711")
    assert initmig("unlock", url=database.url).code == 0
    assert waiter.result().code == 0
    assert "a" in database.tables()


def test_unlock_keeps_the_lock_row_of_a_running_initmig(
    database: Database, leader: Running, initmig: Initmig
) -> None:
    result = initmig("unlock", url=database.url)
    assert result.code == 0
    assert "nothing to do: " in result.err
    assert migrator_pid(database) > 0
    open_gate(database)
    assert leader.result().code == 0


def test_lock_row_of_a_dead_initmig_is_removed_if_another_session_has_its_pid(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "CREATE TABLE b ()"})
    with database.connect() as other:
        pid = other.info.backend_pid
        database.execute(f"INSERT INTO yoyo_lock VALUES (1, now(), {-pid})")
        result = initmig("--queue-timeout=5s", url=database.url, folder=folder)
    assert result.code == 0
    assert f"(pid {pid})" in result.err
    assert database.query("SELECT * FROM yoyo_lock") == []


def test_initmig_waits_for_a_running_yoyo_and_has_nothing_left_to_do(
    database: Database, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    database.execute("CREATE TABLE gate ()")
    leader = yoyo.start("apply", database=database, folder=write(folder, GATED))
    wait_until(lambda: database.value("SELECT to_regclass('yoyo_lock') IS NOT NULL"))
    wait_until(lambda: database.value("SELECT count(*) FROM yoyo_lock") == 1)
    waiter = initmig.start(url=database.url, folder=folder)
    waiter.wait_for_line("waiting for yoyo")
    open_gate(database)
    assert leader.result().code == 0
    result = waiter.result()
    assert result.code == 0
    assert "nothing to do: another migrator applied" in result.err
    assert database.value(FREE) == 0


def test_yoyo_waits_for_a_running_initmig(
    database: Database,
    leader: Running,
    proxy: Proxy,
    yoyo: Yoyo,
    folder: Path,
) -> None:
    waiter = yoyo.start("apply", database=proxy.url(database.name), folder=folder)
    # The second attempt shows that the first one was refused.
    wait_until(lambda: sum(b'INTO "yoyo_lock"' in m.payload for m in proxy.messages) > 1)
    open_gate(database)
    assert leader.result().code == 0
    assert waiter.result().code == 0
    assert database.query("SELECT migration_id FROM _yoyo_log") == [("0001_gated",)]
    assert database.query("SELECT * FROM yoyo_lock") == []


# --- CREATE INDEX CONCURRENTLY ---


def test_waiters_do_not_block_create_index_concurrently(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    # If waiters blocked in pg_advisory_lock, this would be a deadlock.
    database.execute("CREATE TABLE gate (); CREATE TABLE a AS SELECT generate_series(1, 9) AS id")
    index = "CREATE INDEX CONCURRENTLY a_id ON a (id)"
    write(folder, {"0001_index.sql": f"-- transactional: false\n{WAIT_FOR_GATE}\n{index};"})
    leader = initmig.start("--log-level=debug", url=database.url, folder=folder)
    leader.wait_for_line("[1/1] 0001_index")
    waiters = [initmig.start(url=database.url, folder=folder) for _ in range(3)]
    for waiter in waiters:
        waiter.wait_for_line("waiting for another migrator")
    open_gate(database)
    assert [each.result().code for each in (leader, *waiters)] == [0] * 4
    assert database.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass")
