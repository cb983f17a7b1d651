"""Long statements report their progress and blockers; failures caused by others are retried."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from initmig.config.options import Secret
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
    """A transaction of an application that locks the table `busy`. Yields its pid."""
    with Database(url or database.url).connect() as other:
        other.execute("SET application_name = 'the app'; BEGIN; LOCK TABLE busy")
        yield other.info.backend_pid


class Monitored:
    """Runs statements in a thread, and collects the events of a `StatementMonitor`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[StatementRunning] = []
        self.monitor: StatementMonitor
        self._work: list[threading.Thread] = []

    def emit(self, event: Event) -> None:
        self.events.append(cast("StatementRunning", event))

    @property
    def activities(self) -> list[str]:
        return [event.doing for event in self.events]

    def start(self, *statements: str) -> None:
        """Run each statement as a separate message, monitored until the last one ends."""

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
def monitoring(url: str, report_interval: float, *, pid: int = 0) -> Iterator[Monitored]:
    """Monitor a session and report each *report_interval* seconds, until its statements end."""
    session = connect(Settings(Secret(url)))
    monitored = Monitored(session)
    monitored.monitor = StatementMonitor(
        session,
        pid=pid or session.startup_pid,
        look_every=float("inf"),
        emit=monitored.emit,
        schedule=lambda: ReportSchedule(report_interval, grows=False),
    )
    with monitored.monitor:
        try:
            yield monitored
        except BaseException:
            session.sibling().query(f"SELECT pg_cancel_backend({session.startup_pid})")
            raise
        finally:
            monitored.finish()
    session.close()


def retries(result: Result) -> list[dict[str, Any]]:
    return [event for event in result.events if event["event"] == "migration_retried"]


def test_lock_timeout_is_retried_and_names_the_blocker(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, BUSY)
    flags = ("--lock-timeout=3s", "--log-format=json")
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


def test_blocker_is_named_if_the_lock_is_requested_late(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_late.sql": "SELECT pg_sleep(1.2); ALTER TABLE busy ADD x int"})
    with holding_busy(database) as pid:
        running = initmig.start("--lock-timeout=4s", url=database.url, folder=folder)
        line = running.wait_for_line("retry 1 of 10")
    assert f"; blocked by pid {pid} (the app" in line
    assert running.result().code == 0


def test_blocker_with_more_privileges_is_named_without_its_query(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    plain = database.login_role("GRANT ALL ON SCHEMA public TO {role}")
    Database(plain).execute("CREATE TABLE busy ()")
    write(folder, BUSY)
    with holding_busy(database) as pid:
        running = initmig.start("--lock-timeout=3s", url=plain, folder=folder)
        line = running.wait_for_line("retry 1 of 10")
    assert f"; blocked by pid {pid} (the app, user postgres, " in line
    assert "pg_read_all_stats" in line
    assert running.result().code == 0


def test_pauses_between_attempts_grow_until_the_last_attempt_fails(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_busy.sql": "CREATE TABLE rolled_back (); ALTER TABLE busy ADD x int"})
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
    assert "rolled_back" not in database.tables()


def test_lock_retries_of_zero_make_one_attempt(
    database: Database, initmig: Initmig, folder: Path
) -> None:
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
        # so that PostgreSQL cancels the migration and not this session
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
    # The first SELECT takes the snapshot, and the application changes the row after it.
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


def test_lock_timeout_in_python_retries_the_whole_migration(
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


def test_statement_timeout_is_not_retried(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(60)"})
    flags = ("--statement-timeout=50ms", "--log-format=json")
    result = initmig(*flags, url=database.url, folder=folder)
    assert result.code == 1
    assert retries(result) == []
    assert result.events[-1]["sqlstate"] == "57014"


def test_lock_timeout_with_transaction_all_retries_all_migrations(
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


def test_long_statement_reports_its_wait_and_blockers_at_each_interval(
    database: Database,
) -> None:
    database.execute("CREATE TABLE busy ()")
    with monitoring(database.url, 0.3) as monitored, holding_busy(database) as pid:
        monitored.start("ALTER TABLE busy ADD x int")
        wait_until(lambda: len(monitored.events) >= 3)
    first, second, third = monitored.events[:3]
    assert first.id == "0001_work"
    assert 0.3 <= first.elapsed_seconds < second.elapsed_seconds < third.elapsed_seconds
    assert second.elapsed_seconds - first.elapsed_seconds >= 0.15
    assert first.doing == "running, waiting for Lock: relation"
    [blocker] = first.blockers
    assert blocker.startswith(f"pid {pid} (the app, user postgres, idle in transaction, ")


def test_statement_is_reported_after_ten_seconds(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(11)"})
    result = initmig("--log-format=json", url=database.url, folder=folder)
    assert result.code == 0
    [event] = [event for event in result.events if event["event"] == "statement_running"]
    assert event["id"] == "0001_slow"
    assert 10 <= event["elapsed_seconds"] < 30
    assert event["doing"] == "running, waiting for Timeout: PgSleep"
    assert event["blockers"] == []
    assert (event["path"], event["line"]) == (str(folder / "0001_slow.sql"), 1)


def test_monitor_closes_its_connection(database: Database, initmig: Initmig, folder: Path) -> None:
    write(folder, {"0001_slow.sql": "SELECT pg_sleep(1.5)"})
    running = initmig.start("--lock-timeout=1s", url=database.url, folder=folder)
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert running.result().code == 0
    wait_until(lambda: database.value(count) == 1)


def fill(database: Database, *, rows: int) -> None:
    """Create a table `big` with *rows* rows. A page holds about fifty."""
    database.execute(
        f"CREATE TABLE big AS SELECT n, md5(n::text) AS t FROM generate_series(1, {rows}) AS n"
    )


def test_long_index_build_reports_its_phase_and_percentage(database: Database) -> None:
    fill(database, rows=400_000)
    with monitoring(database.url, 0.05) as monitored:
        monitored.start(
            "SET maintenance_work_mem = '1MB'; SET max_parallel_maintenance_workers = 0",
            "CREATE INDEX ON big (t)",
        )
        monitored.finish()
    phases = [doing.split(", ")[0] for doing in monitored.activities]
    assert "CREATE INDEX: building index: scanning table" in phases
    scanning = [
        int(doing.split(", ")[1].removesuffix(" %"))
        for doing in monitored.activities
        if doing.startswith("CREATE INDEX: building index: scanning table, ")
    ]
    assert len(set(scanning)) > 1
    assert scanning == sorted(scanning)
    assert 0 <= scanning[0] < scanning[-1] <= 100


def test_concurrent_index_build_names_the_transaction_it_waits_for(
    database: Database,
) -> None:
    fill(database, rows=10)
    with database.connect() as old:
        old.execute("SET application_name = 'the report'")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT FROM pg_class LIMIT 1")
        pid = old.info.backend_pid
        with monitoring(database.url, 0.1) as monitored:
            monitored.start("CREATE INDEX CONCURRENTLY ON big (t)")
            wait_until(lambda: any("old snapshots" in doing for doing in monitored.activities))
            old.execute("COMMIT")
            monitored.finish()
    [waiting, *_] = [event for event in monitored.events if "old snapshots" in event.doing]
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
def test_long_vacuum_and_analyze_report_their_phase_and_percentage(
    database: Database, statement: str, doing: str
) -> None:
    fill(database, rows=20_000)
    with monitoring(database.url, 0.05) as monitored:
        monitored.start("SET vacuum_cost_delay = 80; SET vacuum_cost_limit = 5", statement)
        monitored.finish()
    percents = [text for text in monitored.activities if text.startswith(doing) and " %" in text]
    assert len(set(percents)) > 1, monitored.activities


def test_long_table_rewrite_reports_its_phase_and_percentage(database: Database) -> None:
    fill(database, rows=400_000)
    with monitoring(database.url, 0.02) as monitored:
        monitored.start("VACUUM FULL big")
        monitored.finish()
    begin = "VACUUM FULL: seq scanning heap, "
    assert [text for text in monitored.activities if text.startswith(begin) and " %" in text] != []


def test_long_copy_reports_its_rows(database: Database) -> None:
    with monitoring(database.url, 0.2) as monitored:
        monitored.start("COPY (SELECT pg_sleep(0.05) FROM generate_series(1, 20)) TO '/dev/null'")
        monitored.finish()
    assert [text for text in monitored.activities if text.startswith("COPY TO: ")] != []
    assert all(" rows" in text for text in monitored.activities if text.startswith("COPY TO"))


def test_blocker_of_the_blocker_is_named(database: Database) -> None:
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
        with monitoring(database.url, 0.2) as monitored:
            monitored.start("ALTER TABLE busy ADD x int")
            wait_until(lambda: any(len(event.blockers) == 3 for event in monitored.events))
            root_pid, middle_pid = root.info.backend_pid, middle.info.backend_pid
            root.execute("COMMIT")
            waits.join()
            middle.execute("COMMIT")
            reader.execute("COMMIT")
            monitored.finish()
    [blockers, *_] = [event.blockers for event in monitored.events if len(event.blockers) == 3]
    assert any(text.startswith(f"pid {root_pid} (") for text in blockers)
    [between] = [text for text in blockers if text.startswith(f"pid {middle_pid} (")]
    assert f", itself blocked by pid {root_pid}): LOCK TABLE first" in between


def test_five_oldest_of_many_blockers_are_named(database: Database) -> None:
    database.execute("CREATE TABLE busy ()")
    with ExitStack() as stack:
        readers = [stack.enter_context(database.connect()) for _ in range(7)]
        for reader in readers:
            reader.execute("BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE")
        with monitoring(database.url, 0.2) as monitored:
            monitored.start("ALTER TABLE busy ADD x int")
            wait_until(lambda: len(monitored.events) > 0)
            pids = [reader.info.backend_pid for reader in readers]
            for reader in readers:
                reader.execute("COMMIT")
            monitored.finish()
    *named, rest = monitored.events[0].blockers
    assert [text.split(" (")[0] for text in named] == [f"pid {pid}" for pid in pids[:5]]
    assert rest == "and 2 more"


def test_statement_through_a_pooler_is_found_by_its_mark(database: Database) -> None:
    database.execute("CREATE TABLE busy ()")
    with monitoring(database.url, 0.2, pid=1) as monitored, holding_busy(database) as pid:
        monitored.start(f"BEGIN; {monitored.monitor.mark}; ALTER TABLE busy ADD x int; COMMIT")
        wait_until(lambda: len(monitored.events) > 0)
    assert monitored.events[0].doing == "running, waiting for Lock: relation"
    [blocker] = monitored.events[0].blockers
    assert blocker.startswith(f"pid {pid} (the app, ")


def test_isolation_level_can_be_set_after_the_mark(database: Database) -> None:
    with monitoring(database.url, 10, pid=1) as monitored:
        isolation = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation"
        assert monitored.session.run(f"BEGIN; {monitored.monitor.mark}; {isolation}") == [
            ("serializable",)
        ]


def test_monitor_without_a_free_connection_reports_once_there_is_one(
    make_server: MakeServer,
) -> None:
    server = make_server(max_connections=8, superuser_reserved_connections=1, max_wal_senders=0)
    database = create_database(server)
    with monitoring(database.url, 0.5) as monitored, ExitStack() as stack:
        with suppress(psycopg.OperationalError):  # no connection is left
            while True:
                stack.enter_context(database.connect())
        before = server.log_size()
        started = time.monotonic()
        monitored.start("SELECT pg_sleep(4)")
        wait_until(lambda: len(server.log_lines_above_log(since=before)) >= 3)
        refused = server.log_lines_above_log(since=before)
        assert all("too many clients" in line for line in refused)
        most = (time.monotonic() - started) / 0.5 + 2
        assert len(refused) <= most, "more attempts than reports"
        assert monitored.events == []
        stack.close()
        wait_until(lambda: "running, waiting for Timeout: PgSleep" in monitored.activities)


def test_monitor_with_a_hanging_connection_does_not_block(
    server: DatabaseServer, database: Database, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(server)
    with monitoring(proxy.url(database.name), 0.1) as monitored:
        proxy.stop_answering()
        monitored.start("SELECT pg_sleep(0.3)")
        monitored.finish()
        assert proxy.connections == 2
        started = time.monotonic()
    assert time.monotonic() - started < 20
    assert monitored.events == []


CIRCLE = (
    "Process 12 waits for AccessExclusiveLock on relation 5 of database 7; blocked by process 34.",
    "Process 34 waits for ShareLock on transaction 9; blocked by process 12.",
)
IN_GERMAN = (
    "Prozess 12 wartet auf ShareLock-Sperre auf Transaktion 5; blockiert von Prozess 34.",
    "Prozess 34 wartet auf ShareLock-Sperre auf Transaktion 9; blockiert von Prozess 12.",
)


@pytest.mark.parametrize("lines", [CIRCLE, IN_GERMAN], ids=["English", "German"])
def test_other_process_of_a_deadlock_is_found_in_any_language(lines: tuple[str, ...]) -> None:
    assert deadlocked_with("\n".join(lines)) == [34]


@pytest.mark.parametrize("detail", ["", "Reason code: pivot 3.", "no\nnumber", CIRCLE[0]])
def test_text_without_a_deadlock_names_no_process(detail: str) -> None:
    assert deadlocked_with(detail) == []


def test_autovacuum_is_named_with_its_table() -> None:
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


def test_blocker_that_has_ended_is_named_by_its_pid() -> None:
    assert (
        _describe_blocker(_Blocker(12, False, "", "", "", "", None, "", []))
        == "pid 12 (already ended)"
    )
