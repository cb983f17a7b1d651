"""Other sessions hold the locks that a migration needs: initmig names them, and tries again."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
from psycopg import errors

from tests.support.databases import ASLEEP, Database, create_database
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import DatabaseServer
    from tests.support.processes import Result
    from tests.support.servers import MakeServer

# If a failed attempt were not rolled back, its first statement would leave a table.
FILES = {"0001_busy.sql": "CREATE TABLE leftover (); ALTER TABLE busy ADD x int"}
COLUMNS = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'busy'"
LONG_WAITS = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
AND waitstart < clock_timestamp() - interval '5 s'"""
MARGIN_SECONDS = 20


class Readers:
    """Sessions that read the table `busy` continuously; to use in `with`."""

    def __init__(self, database: Database, *, count: int = 3) -> None:
        self._database = database
        self._done = threading.Event()
        self._seconds: list[list[float]] = [[] for _ in range(count)]
        self._threads = [threading.Thread(target=self._read, args=[each]) for each in self._seconds]

    @property
    def longest_seconds(self) -> float:
        return max(max(each) for each in self._seconds)

    def fewest_longer_than(self, seconds: float) -> int:
        """The number of reads that took longer than *seconds*, of the reader with the fewest."""
        return min(sum(one > seconds for one in each) for each in self._seconds)

    def _read(self, seconds: list[float]) -> None:
        with self._database.connect() as connection:
            while not self._done.is_set():
                started = time.monotonic()
                connection.execute("SELECT FROM busy")
                seconds.append(time.monotonic() - started)
                self._done.wait(0.01)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: all(self._seconds))
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def transaction(database: Database, script: str) -> Iterator[int]:
    """An open transaction of an application that has run *script*; yields its process id."""
    with database.connect() as other:
        other.execute("SET application_name = 'the app'")
        other.execute("BEGIN")
        other.execute(script.encode())
        yield other.info.backend_pid
        other.execute("ROLLBACK")


def events(result: Result, name: str) -> list[dict[str, Any]]:
    return [event for event in result.events if event["event"] == name]


def test_readers_wait_at_most_one_lock_timeout_and_each_retry_names_the_blocker(
    database: Database,
    initmig: Initmig,
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, FILES)
    flags = ("--lock-timeout=2s", "--lock-retries=2", "--log-format=json")
    with transaction(database, "SELECT count(*) FROM busy") as pid, Readers(database) as readers:
        result = initmig(*flags, url=database.url, folder=folder)

    assert result.code == 1
    assert readers.fewest_longer_than(0.5) >= 3, "each reader waits for each of the three attempts"
    assert readers.longest_seconds < 2 + MARGIN_SECONDS
    record_property("longest_read_seconds", readers.longest_seconds)

    first, second = events(result, "migration_retried")
    assert 0.5 <= first["pause_seconds"] <= 1 <= second["pause_seconds"] <= 1.5
    for retry in (first, second):
        [blocker] = retry["blockers"]
        begin = f"pid {pid} (the app, user postgres, idle in transaction, transaction open for "
        assert blocker.startswith(begin)
        assert blocker.endswith(" s): SELECT count(*) FROM busy")
        assert f"lock timeout; retry {retry['attempt']} of 2 in " in (retry["message"])
        assert retry["message"].endswith(f"; blocked by {blocker}")

    [failed] = events(result, "failed")
    assert failed["sqlstate"] == "55P03"
    assert f"; blocked by pid {pid} (the app, " in failed["message"]
    assert "raise --lock-timeout" in failed["next"]

    assert "leftover" not in database.tables()
    assert database.value(COLUMNS) == 0
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 0
    assert initmig(*flags, url=database.url, folder=folder).code == 0
    assert database.value(COLUMNS) == 1


@pytest.mark.long
def test_readers_wait_at_most_the_default_lock_timeout_until_the_run_succeeds(
    database: Database,
    initmig: Initmig,
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, FILES)
    with Readers(database) as readers:
        with transaction(database, "SELECT count(*) FROM busy") as pid:
            running = initmig.start("--log-format=json", url=database.url, folder=folder)
            running.wait_for_line('"attempt": 3', timeout=60)
        result = running.result()

    assert result.code == 0, result.err
    assert readers.fewest_longer_than(2.5) >= 3
    assert readers.longest_seconds < 5 + MARGIN_SECONDS
    record_property("longest_read_seconds", readers.longest_seconds)
    retries = events(result, "migration_retried")
    pauses = [retry["pause_seconds"] for retry in retries[:3]]
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 1.5 <= pauses[2] <= 2.5
    for retry in retries[:3]:
        [blocker] = retry["blockers"]
        assert blocker.startswith(f"pid {pid} (the app, ")
    assert database.value(COLUMNS) == 1


@pytest.mark.parametrize("timeout", ["500ms", "100ms"])
def test_blocker_is_named_even_with_a_short_lock_timeout(
    database: Database, initmig: Initmig, folder: Path, timeout: str
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, FILES)
    flags = (f"--lock-timeout={timeout}", "--lock-retries=2", "--log-format=json")
    with transaction(database, "LOCK TABLE busy") as pid:
        result = initmig(*flags, url=database.url, folder=folder)
    retries = events(result, "migration_retried")
    assert len(retries) == 2
    # an attempt may end before the second connection is open
    named = [blocker for retry in retries for blocker in retry["blockers"]]
    assert named
    assert all(blocker.startswith(f"pid {pid} (the app, ") for blocker in named)


def test_blocker_that_is_running_a_statement_is_named_with_the_statement(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy AS SELECT 1 AS n")
    write(folder, FILES)
    query = "SELECT n, pg_sleep(60) FROM busy"

    def read() -> None:
        with pytest.raises(errors.QueryCanceled):
            report.execute(query.encode())

    with database.connect() as report:
        report.execute("SET application_name = 'the report'")
        pid = report.info.backend_pid
        reading = threading.Thread(target=read)
        reading.start()
        wait_until(lambda: database.value(ASLEEP) == 1)
        running = initmig.start("--lock-timeout=3s", url=database.url, folder=folder)
        line = running.wait_for_line("retry 1 of 10")
        report.cancel_safe()
        reading.join()
    assert f"; blocked by pid {pid} (the report, user postgres, active, transaction open" in line
    assert line.endswith(f": {query}")
    assert running.result().code == 0


def test_blocking_prepared_transaction_is_named_by_its_identifier(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server(max_prepared_transactions=2)
    database = create_database(server)
    database.execute("CREATE TABLE busy (); CREATE TABLE other ()")
    for table, identifier in (("busy", "the gid's"), ("other", "another")):
        with database.connect() as app:
            app.execute("BEGIN")
            app.execute(f"LOCK TABLE {table}".encode())
            app.execute("PREPARE TRANSACTION '{}'".format(identifier.replace("'", "''")).encode())
    write(folder, {"0000_first.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, FILES)
    before = server.log_size()
    running = initmig.start("--lock-timeout=3s", url=database.url, folder=folder)
    line = running.wait_for_line("retry 1 of 10")
    database.execute("COMMIT PREPARED 'the gid''s'")
    assert running.result().code == 0
    assert """; blocked by prepared transaction "the gid's" (user postgres, prepared """ in line
    assert "ROLLBACK PREPARED" in line
    assert "another" not in line
    complaints = server.log_lines_above_log(since=before)
    expected = "canceling statement due to lock timeout"
    assert [line for line in complaints if not line.endswith(expected)] == []


def test_password_in_the_statement_of_a_blocker_is_not_shown(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, FILES)
    with database.connect() as app:
        app.execute("BEGIN")
        app.execute("LOCK TABLE busy")
        # so long that the shown statement is cut in the middle of the password
        name = "r" * 50
        app.execute(f"CREATE ROLE {name} PASSWORD 'geheim, geheim, geheim'".encode())
        running = initmig.start("--lock-timeout=3s", url=database.url, folder=folder)
        line = running.wait_for_line("retry 1 of 10")
        app.execute("ROLLBACK")
    assert line.endswith(f": CREATE ROLE {name} PASSWORD ***")
    assert running.result().code == 0


def test_blocker_is_named_behind_a_pooler(
    server: DatabaseServer, database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, FILES)
    with running_pgbouncer(server) as bouncer, transaction(database, "LOCK TABLE busy") as pid:
        flags = ("--lock-timeout=2s", "--lock-retries=2", "--log-format=json")
        result = initmig(*flags, url=bouncer.url(database.name), folder=folder)
    retries = events(result, "migration_retried")
    assert len(retries) == 2
    for retry in retries:
        [blocker] = retry["blockers"]
        assert blocker.startswith(f"pid {pid} (the app, ")


def test_deadlock_names_the_other_session_and_is_retried(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy (); CREATE TABLE other ()")
    write(folder, {"0001_both.sql": "ALTER TABLE other ADD x int;\nALTER TABLE busy ADD x int;"})
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'busy'::regclass"
    with database.connect() as app:
        # The session that has waited for a second ends the deadlock: initmig, not the application.
        app.execute("SET application_name = 'the app'; SET deadlock_timeout = '60s'")
        app.execute("BEGIN")
        app.execute("LOCK TABLE busy")
        running = initmig.start("--log-format=json", url=database.url, folder=folder)
        wait_until(lambda: database.value(waits) == 1)
        app.execute("LOCK TABLE other")
        pid = app.info.backend_pid
        running.wait_for_line("migration_retried")
        app.execute("COMMIT")
    result = running.result()
    assert result.code == 0, result.err
    retry = events(result, "migration_retried")[0]
    assert (retry["reason"], retry["sqlstate"]) == ("deadlock", "40P01")
    [blocker] = retry["blockers"]
    assert blocker.startswith(f"pid {pid} (the app, user postgres, ")
    assert blocker.endswith(": LOCK TABLE other")
    assert database.value(COLUMNS) == 1


def test_serialization_failure_names_the_other_session_and_is_retried(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE busy (n int); INSERT INTO busy VALUES (1)")
    script = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; UPDATE busy SET n = n + 10"
    write(folder, {"0001_update.sql": script})
    # initmig looks for blockers after half of the lock timeout
    flags = ("--lock-timeout=9s", "--log-format=json")
    with database.connect() as app:
        app.execute("SET application_name = 'the app'")
        app.execute("BEGIN")
        app.execute("UPDATE busy SET n = n + 1")
        pid = app.info.backend_pid
        running = initmig.start(*flags, url=database.url, folder=folder)
        wait_until(lambda: database.value(LONG_WAITS) == 1)
        app.execute("COMMIT")
    result = running.result()
    assert result.code == 0, result.err
    [retry] = events(result, "migration_retried")
    assert (retry["reason"], retry["sqlstate"]) == ("serialization failure", "40001")
    [blocker] = retry["blockers"]
    assert blocker.startswith(f"pid {pid} (the app, user postgres, ")
    assert blocker.endswith(": UPDATE busy SET n = n + 1")
    assert database.value("SELECT n FROM busy") == 12
