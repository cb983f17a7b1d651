"""Long statements are never silent, and what others spoil is tried again."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from initmig.core.report_schedule import ReportSchedule
from initmig.locking.blockers import StatementMonitor, _Blocker, _describe_blocker, deadlocked_with
from initmig.postgres import Session, Settings, connect
from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from initmig.core.events import Event, StatementRunning
    from tests.support.command import Initmig
    from tests.support.databases import DatabaseServer
    from tests.support.processes import Result
    from tests.support.proxy import MakeProxy
    from tests.support.servers import MakeServer

BUSY = {"0001_busy.sql": "ALTER TABLE busy ADD x int"}
WAITS_FOR_LOCK = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'busy'::regclass"""


@contextmanager
def holding_busy(database: Database, *, url: str = "") -> Iterator[int]:
    """A transaction of an application that keeps the table `busy` to itself; its pid."""
    with Database(url or database.url).connect() as other:
        other.execute("SET application_name = 'the app'; BEGIN; LOCK TABLE busy")
        yield other.info.backend_pid


class Told:
    """What a watch tells of statements that run beside the test."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[StatementRunning] = []
        self.monitor: StatementMonitor
        self._work: list[threading.Thread] = []

    def emit(self, event: Event) -> None:
        self.events.append(cast("StatementRunning", event))

    @property
    def doings(self) -> list[str]:
        return [event.doing for event in self.events]

    def start(self, *statements: str) -> None:
        """Run each as a message of its own, watched, until the last has ended."""

        def work() -> None:
            for statement in statements:
                self.session.run(statement)
            self.monitor.stop()

        self.monitor.start("0001_work")
        thread = threading.Thread(target=work)
        self._work.append(thread)
        thread.start()

    def finish(self) -> None:
        for thread in self._work:
            thread.join()


@contextmanager
def watching(url: str, tell_every: float, *, pid: int = 0) -> Iterator[Told]:
    """A watch that tells that often, in seconds; it ends after the work that it watches."""
    session = connect(Settings(url))
    told = Told(session)
    told.monitor = StatementMonitor(
        session,
        pid=pid or session.startup_pid,
        look_every=float("inf"),
        emit=told.emit,
        schedule=lambda: ReportSchedule(tell_every, grows=False),
    )
    with told.monitor:
        try:
            yield told
        except BaseException:
            session.sibling().query(f"SELECT pg_cancel_backend({session.startup_pid})")
            raise
        finally:
            told.finish()
    session.close()


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
    for fact in (f"pid {pid} (the app, user postgres, ", "idle in transaction", "open for "):
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
    assert f"; blocked by pid {pid} (the app, user postgres, " in line
    assert "pg_read_all_stats" in line
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
        running.wait_for_line("lock timeout; retry 1 of 10")
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
    with watching(database.url, 0.3) as told, holding_busy(database) as pid:
        told.start("ALTER TABLE busy ADD x int")
        wait_until(lambda: len(told.events) >= 3)
    first, second, third = told.events[:3]
    assert first.id == "0001_work"
    assert 0.3 <= first.elapsed_seconds < second.elapsed_seconds < third.elapsed_seconds
    assert second.elapsed_seconds - first.elapsed_seconds >= 0.15
    assert first.doing == "running, waiting for Lock: relation"
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
    assert 10 <= told["elapsed_seconds"] < 30
    assert told["doing"] == "running, waiting for Timeout: PgSleep"
    assert told["blockers"] == []
    assert (told["path"], told["line"]) == (str(folder / "0001_slow.sql"), 1)


def test_watching_leaves_no_connection_behind(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(1.5)"})
    running = initmig.start("--lock-timeout=1s", url=database.url, folder=folder)
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert running.result().code == 0
    wait_until(lambda: database.value(count) == 1)


def fill(database: Database, *, rows: int) -> None:
    """A table `big` of so many rows, of which a page holds fifty."""
    database.execute(
        f"CREATE TABLE big AS SELECT n, md5(n::text) AS t FROM generate_series(1, {rows}) AS n"
    )


def test_long_index_build_is_told_with_phase_and_percent(database: Database) -> None:
    fill(database, rows=400_000)
    with watching(database.url, 0.05) as told:
        told.start(
            "SET maintenance_work_mem = '1MB'; SET max_parallel_maintenance_workers = 0",
            "CREATE INDEX ON big (t)",
        )
        told.finish()
    phases = [doing.split(", ")[0] for doing in told.doings]
    assert "CREATE INDEX: building index: scanning table" in phases
    scanning = [
        int(doing.split(", ")[1].removesuffix(" %"))
        for doing in told.doings
        if doing.startswith("CREATE INDEX: building index: scanning table, ")
    ]
    assert len(set(scanning)) > 1
    assert scanning == sorted(scanning)
    assert 0 <= scanning[0] < scanning[-1] <= 100


def test_index_built_concurrently_tells_for_whose_transaction_it_waits(
    database: Database,
) -> None:
    fill(database, rows=10)
    with database.connect() as old:
        old.execute("SET application_name = 'the report'")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT FROM pg_class LIMIT 1")
        pid = old.info.backend_pid
        with watching(database.url, 0.1) as told:
            told.start("CREATE INDEX CONCURRENTLY ON big (t)")
            wait_until(lambda: any("old snapshots" in doing for doing in told.doings))
            old.execute("COMMIT")
            told.finish()
    [waiting, *_] = [event for event in told.events if "old snapshots" in event.doing]
    assert waiting.doing == (
        "CREATE INDEX CONCURRENTLY: waiting for old snapshots, 0 of 1 done,"
        " waiting for Lock: virtualxid"
    )
    [blocker] = waiting.blockers
    assert blocker.startswith(f"pid {pid} (the report, user postgres, idle in transaction, ")


@pytest.mark.parametrize(
    ("statement", "doing"),
    [
        ("VACUUM big", "VACUUM: scanning heap, "),
        ("ANALYZE big", "ANALYZE: acquiring sample rows, "),
    ],
)
def test_long_vacuum_and_analyze_are_told_with_phase_and_percent(
    database: Database, statement: str, doing: str
) -> None:
    fill(database, rows=20_000)
    with watching(database.url, 0.05) as told:
        told.start("SET vacuum_cost_delay = 10; SET vacuum_cost_limit = 5", statement)
        told.finish()
    percents = [text for text in told.doings if text.startswith(doing) and " %" in text]
    assert len(set(percents)) > 1, told.doings


def test_long_rewrite_of_a_table_is_told_with_phase_and_percent(database: Database) -> None:
    fill(database, rows=400_000)
    with watching(database.url, 0.02) as told:
        told.start("VACUUM FULL big")
        told.finish()
    begin = "VACUUM FULL: seq scanning heap, "
    assert [text for text in told.doings if text.startswith(begin) and " %" in text] != []


def test_long_copy_is_told_with_its_rows(database: Database) -> None:
    with watching(database.url, 0.2) as told:
        told.start("COPY (SELECT pg_sleep(0.05) FROM generate_series(1, 20)) TO '/dev/null'")
        told.finish()
    assert [text for text in told.doings if text.startswith("COPY TO: ")] != []
    assert all(" rows" in text for text in told.doings if text.startswith("COPY TO"))


def test_who_blocks_the_blocker_is_told_too(database: Database) -> None:
    database.execute("CREATE TABLE busy (); CREATE TABLE first ()")
    with ExitStack() as stack:
        root = stack.enter_context(database.connect())
        middle = stack.enter_context(database.connect())
        reader = stack.enter_context(database.connect())
        root.execute("BEGIN; LOCK TABLE first")
        middle.execute("BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE")
        reader.execute("BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE")
        waits = threading.Thread(target=middle.execute, args=["LOCK TABLE first"])
        waits.start()
        with watching(database.url, 0.2) as told:
            told.start("ALTER TABLE busy ADD x int")
            wait_until(lambda: any(len(event.blockers) == 3 for event in told.events))
            root_pid, middle_pid = root.info.backend_pid, middle.info.backend_pid
            root.execute("COMMIT")
            waits.join()
            middle.execute("COMMIT")
            reader.execute("COMMIT")
            told.finish()
    [blockers, *_] = [event.blockers for event in told.events if len(event.blockers) == 3]
    assert any(text.startswith(f"pid {root_pid} (") for text in blockers)
    [between] = [text for text in blockers if text.startswith(f"pid {middle_pid} (")]
    assert f", itself blocked by pid {root_pid}): LOCK TABLE first" in between


def test_of_many_blockers_the_five_oldest_are_told(database: Database) -> None:
    database.execute("CREATE TABLE busy ()")
    with ExitStack() as stack:
        readers = [stack.enter_context(database.connect()) for _ in range(7)]
        for reader in readers:
            reader.execute("BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE")
        with watching(database.url, 0.2) as told:
            told.start("ALTER TABLE busy ADD x int")
            wait_until(lambda: len(told.events) > 0)
            pids = [reader.info.backend_pid for reader in readers]
            for reader in readers:
                reader.execute("COMMIT")
            told.finish()
    *named, rest = told.events[0].blockers
    assert [text.split(" (")[0] for text in named] == [f"pid {pid}" for pid in pids[:5]]
    assert rest == "and 2 more"


def test_work_behind_a_pooler_is_found_by_its_mark(database: Database) -> None:
    database.execute("CREATE TABLE busy ()")
    with watching(database.url, 0.2, pid=1) as told, holding_busy(database) as pid:
        told.start(f"BEGIN; {told.monitor.mark}; ALTER TABLE busy ADD x int; COMMIT")
        wait_until(lambda: len(told.events) > 0)
    assert told.events[0].doing == "running, waiting for Lock: relation"
    [blocker] = told.events[0].blockers
    assert blocker.startswith(f"pid {pid} (the app, ")


def test_mark_lets_the_isolation_level_be_set(database: Database) -> None:
    with watching(database.url, 10, pid=1) as told:
        isolation = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation"
        assert told.session.run(f"BEGIN; {told.monitor.mark}; {isolation}") == [("serializable",)]


def test_watch_without_a_free_connection_is_silent_until_there_is_one(
    make_server: MakeServer,
) -> None:
    server = make_server(max_connections=8, superuser_reserved_connections=1, max_wal_senders=0)
    database = create_database(server)
    with watching(database.url, 0.5) as told, ExitStack() as stack:
        with suppress(psycopg.OperationalError):  # there is no other one
            while True:
                stack.enter_context(database.connect())
        before = server.log_size()
        started = time.monotonic()
        told.start("SELECT pg_sleep(4)")
        wait_until(lambda: len(server.log_lines_above_log(since=before)) >= 3)
        refused = server.log_lines_above_log(since=before)
        assert all("too many clients" in line for line in refused)
        most = (time.monotonic() - started) / 0.5 + 2
        assert len(refused) <= most, "more attempts than there was something to tell"
        assert told.events == []
        stack.close()
        wait_until(lambda: "running, waiting for Timeout: PgSleep" in told.doings)


def test_watch_whose_connection_hangs_holds_up_nothing(
    server: DatabaseServer, database: Database, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(server)
    with watching(proxy.url(database.name), 0.1) as told:
        proxy.deaf()
        told.start("SELECT pg_sleep(0.3)")
        told.finish()
        assert proxy.connections == 2
        started = time.monotonic()
    assert time.monotonic() - started < 20
    assert told.events == []


CIRCLE = (
    "Process 12 waits for AccessExclusiveLock on relation 5 of database 7; blocked by process 34.",
    "Process 34 waits for ShareLock on transaction 9; blocked by process 12.",
)
IN_GERMAN = (
    "Prozess 12 wartet auf ShareLock-Sperre auf Transaktion 5; blockiert von Prozess 34.",
    "Prozess 34 wartet auf ShareLock-Sperre auf Transaktion 9; blockiert von Prozess 12.",
)


@pytest.mark.parametrize("lines", [CIRCLE, IN_GERMAN], ids=["English", "German"])
def test_deadlock_tells_its_other_process_in_any_language(lines: tuple[str, ...]) -> None:
    assert deadlocked_with("\n".join(lines)) == [34]


@pytest.mark.parametrize("detail", ["", "Reason code: pivot 3.", "no\nnumber", CIRCLE[0]])
def test_what_is_no_circle_of_processes_names_nobody(detail: str) -> None:
    assert deadlocked_with(detail) == []


def test_autovacuum_is_named_as_such_with_its_table() -> None:
    query = "autovacuum: VACUUM public.busy (to prevent wraparound)"
    worker = _Blocker(
        pid=12,
        exists=True,
        user="",
        application="",
        kind="autovacuum worker",
        state="active",
        age_seconds=65.0,
        query=query,
        blocked_by=[],
    )
    facts = "autovacuum worker, active, transaction open for 1 m 5 s"
    assert _describe_blocker(worker) == f"pid 12 ({facts}): {query}"


def test_blocker_that_is_gone_is_named_by_its_number() -> None:
    assert (
        _describe_blocker(_Blocker(12, False, "", "", "", "", None, "", []))
        == "pid 12 (already ended)"
    )
