"""Locks, timeouts and cancellations delay initmig's statements, and never change the outcome."""

from __future__ import annotations

import re
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from initmig.config.options import Secret
from initmig.postgres import Settings
from initmig.postgres.connecting import open_connection
from tests.support.databases import WAIT_FOR_GATE, Database, create_database
from tests.support.migrations import write
from tests.support.processes import succeeded
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.processes import Running
    from tests.support.servers import MakeServer, MakeStandby

FIRST = {"0001_a.sql": "CREATE TABLE a ();", "0001_a.rollback.sql": "DROP TABLE a;"}
SECOND = {"0002_b.sql": "CREATE TABLE b ();"}
GATED = {"0002_b.sql": f"CREATE TABLE b ();{WAIT_FOR_GATE}"}
IN_PARTS = {
    "0002_b.sql": f"-- transactional: false\nCREATE TABLE b ();\n{WAIT_FOR_GATE}\nVACUUM b;",
}
IN_PYTHON = {
    "0002_b.py": "from yoyo import step\n"
    f"step('''CREATE TABLE b ();{WAIT_FOR_GATE}''', 'DROP TABLE b')\n"
}
FAILING = {"0002_b.sql": f"CREATE TABLE b ();{WAIT_FOR_GATE}SELECT 1/0;"}
FAILING_IN_PARTS = {"0002_b.sql": f"-- transactional: false{WAIT_FOR_GATE}SELECT 1/0;"}
FAILING_IN_PYTHON = {
    "0002_b.py": "from yoyo import step\n"
    f"step('''CREATE TABLE b ();{WAIT_FOR_GATE}''')\nstep('SELECT 1/0')\n"
}
KINDS = ["sql", "parts", "python"]
INITMIG_TABLES = (
    "yoyo_lock",
    "_yoyo_migration",
    "_yoyo_log",
    "_yoyo_version",
    "_initmig_migration",
)
QUICK = "--lock-timeout=500ms"

BLOCKED = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = to_regclass(%s)"
WAITS_FOR_ROW = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"


@pytest.fixture
def migrated(database: Database, initmig: Initmig, folder: Path) -> Database:
    """A database on which the first migration in *folder* is applied."""
    succeeded(initmig(url=database.url, folder=write(folder, FIRST)))
    return database


@contextmanager
def locked(database: Database, table: str, mode: str = "SHARE") -> Iterator[None]:
    """Inside, a transaction of an application holds a lock on *table*."""
    with database.connect() as other:
        other.execute("SET application_name = 'the app'")
        other.execute(f"BEGIN; LOCK TABLE {table} IN {mode} MODE".encode())
        yield


@contextmanager
def gate(database: Database) -> Iterator[None]:
    """Inside, a gated migration waits at its gate; the gate opens at the end."""
    database.execute("CREATE TABLE gate ()")
    yield
    database.execute("DROP TABLE gate")


def at_gate(database: Database) -> bool:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    return bool(database.value(f"{sleeping} AND wait_event = 'PgSleep'"))


def is_blocked(database: Database, table: str) -> bool:
    return bool(database.query(BLOCKED, [table]))


def wait_for_lock_timeout(database: Database, table: str) -> None:
    """Return once a session that waited for a lock on *table* has timed out."""
    for expected in (True, False):
        wait_until(lambda: is_blocked(database, table) is expected)  # noqa: B023 - called immediately


def assert_applied(database: Database, *ids: str) -> None:
    rows = database.query("SELECT migration_id FROM _yoyo_migration ORDER BY 1")
    assert [id for (id,) in rows] == list(ids)
    logged = "SELECT migration_id FROM _yoyo_log WHERE operation = 'apply' ORDER BY 1"
    assert database.query(logged) == rows
    assert database.value("SELECT count(*) FROM _initmig_migration") == len(ids)


# --- a lock on one of initmig's tables ---


@pytest.mark.any_version
@pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
@pytest.mark.parametrize("table", INITMIG_TABLES)
def test_run_waits_for_a_lock_on_an_initmig_table_at_the_start(
    migrated: Database, initmig: Initmig, folder: Path, table: str, mode: str
) -> None:
    write(folder, SECOND)
    with locked(migrated, table, mode):
        running = initmig.start(QUICK, url=migrated.url, folder=folder)
        if mode == "ACCESS EXCLUSIVE":
            wait_until(lambda: is_blocked(migrated, table))
        elif table != "_yoyo_version":  # initmig only reads it
            wait_for_lock_timeout(migrated, table)
    succeeded(running.result())
    assert_applied(migrated, "0001_a", "0002_b")


@pytest.mark.any_version
@pytest.mark.parametrize("files", [GATED, IN_PARTS, IN_PYTHON], ids=KINDS)
@pytest.mark.parametrize("table", ["_yoyo_migration", "_yoyo_log", "_initmig_migration"])
def test_run_waits_for_a_lock_on_an_initmig_table_during_a_migration(
    migrated: Database, initmig: Initmig, folder: Path, table: str, files: dict[str, str]
) -> None:
    write(folder, files)
    with migrated.connect() as other:
        with gate(migrated):
            running = initmig.start(QUICK, url=migrated.url, folder=folder)
            wait_until(lambda: at_gate(migrated))
            other.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE".encode())
        wait_for_lock_timeout(migrated, table)
    succeeded(running.result())
    assert_applied(migrated, "0001_a", "0002_b")


@contextmanager
def locked_at_gate(
    database: Database, initmig: Initmig, folder: Path, *arguments: str
) -> Iterator[Running]:
    """A run that passes the gate once another session has locked `yoyo_lock`."""
    with database.connect() as other:
        with gate(database):
            running = initmig.start(*arguments, url=database.url, folder=folder)
            wait_until(lambda: at_gate(database))
            other.execute("BEGIN; LOCK TABLE yoyo_lock IN SHARE MODE")
        yield running


NOT_RELEASED = "could not release the migration lock: canceling statement due to lock timeout"


@pytest.mark.any_version
@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (("migrate",), GATED),
        (("migrate", "--transaction=all"), GATED),
        (("migrate",), IN_PARTS),
        (("migrate",), IN_PYTHON),
        (("migrate", "--each-schema=public"), GATED),
        (("exec", "--", "sh", "-c", "echo the application"), GATED),
    ],
    ids=["migrate", "all", "parts", "python", "each-schema", "exec"],
)
def test_lock_at_the_end_does_not_change_the_outcome(
    migrated: Database,
    initmig: Initmig,
    folder: Path,
    arguments: tuple[str, ...],
    files: dict[str, str],
) -> None:
    write(folder, files)
    with locked_at_gate(migrated, initmig, folder, *arguments) as running:
        result = succeeded(running.result())
    assert NOT_RELEASED in result.err
    assert "applied 1 migration in" in result.err
    assert_applied(migrated, "0001_a", "0002_b")
    if "exec" in arguments:
        assert result.out == "the application\n"
    # the remaining row of yoyo_lock blocks no session
    write(folder, {"0003_c.sql": "CREATE TABLE c ()"})
    succeeded(initmig(url=migrated.url, folder=folder))
    assert migrated.query("SELECT * FROM yoyo_lock") == []


@pytest.mark.any_version
def test_serve_is_ready_despite_a_lock_at_the_end(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, GATED)
    with locked_at_gate(migrated, initmig, folder, "serve", "--listen=127.0.0.1:0") as running:
        running.wait_for_line(NOT_RELEASED)
        running.wait_for_line("ready: ")
        running.terminate()
        succeeded(running.result())


@pytest.mark.any_version
def test_lock_at_the_end_does_not_change_the_outcome_of_a_rollback(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.rollback.sql": f"DROP TABLE a;{WAIT_FOR_GATE}"})
    with locked_at_gate(migrated, initmig, folder, "rollback", "--all") as running:
        result = succeeded(running.result())
    assert NOT_RELEASED in result.err
    assert "rolled back 1 migration in" in result.err
    assert migrated.query("SELECT * FROM _yoyo_migration") == []


@pytest.mark.any_version
def test_lock_at_the_end_does_not_change_the_outcome_of_a_baseline(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SECOND)
    with migrated.connect() as lock:
        with locked(migrated, "_yoyo_log"):
            running = initmig.start("baseline", "--to=0002_b", url=migrated.url, folder=folder)
            wait_until(lambda: is_blocked(migrated, "_yoyo_log"))
            lock.execute("BEGIN; LOCK TABLE yoyo_lock IN SHARE MODE")
        result = succeeded(running.result())
    assert NOT_RELEASED in result.err
    assert "recorded 1 migration as applied" in result.err


@pytest.mark.any_version
@pytest.mark.parametrize("files", [FAILING, FAILING_IN_PARTS, FAILING_IN_PYTHON], ids=KINDS)
def test_lock_at_the_end_does_not_hide_the_error_of_a_migration(
    migrated: Database, initmig: Initmig, folder: Path, files: dict[str, str]
) -> None:
    write(folder, files)
    with locked_at_gate(migrated, initmig, folder) as running:
        result = running.result()
    assert result.code == 1
    [name] = files
    assert re.search(rf"{name}:\d+:\d+: 0002_b failed: division by zero \(22012\)", result.err)
    assert NOT_RELEASED in result.err


COMMANDS = [
    ("migrate",),
    ("status",),
    ("plan",),
    ("wait",),
    ("rollback", "--all"),
    ("rehearse",),
    ("baseline", "--to=0002_b"),
    ("unlock",),
]


@pytest.mark.any_version
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_each_command_waits_for_a_lock_on_the_table_that_it_reads(
    migrated: Database, initmig: Initmig, folder: Path, command: tuple[str, ...]
) -> None:
    if command != ("wait",):
        write(folder, SECOND)
    table = "yoyo_lock" if command == ("unlock",) else "_yoyo_migration"
    with locked(migrated, table, "ACCESS EXCLUSIVE"):
        running = initmig.start(*command, url=migrated.url, folder=folder)
        wait_until(lambda: is_blocked(migrated, table))
    succeeded(running.result())


@pytest.mark.any_version
def test_rehearsal_waits_for_a_lock_on_the_lock_table(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SECOND)
    with locked(migrated, "yoyo_lock"):
        running = initmig.start("rehearse", QUICK, url=migrated.url, folder=folder)
        wait_for_lock_timeout(migrated, "yoyo_lock")
    succeeded(running.result())


@pytest.mark.any_version
def test_rehearsal_blocked_in_its_transaction_fails_and_can_be_repeated(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SECOND)
    with locked(migrated, "_initmig_migration"):
        result = initmig("rehearse", QUICK, url=migrated.url, folder=folder)
    assert result.code == 3
    assert "(55P03) [no-answer]" in result.err
    succeeded(initmig("rehearse", QUICK, url=migrated.url, folder=folder))


WAITING_EVENT = "own_statement_waiting"


@pytest.mark.any_version
@pytest.mark.parametrize("moment", ["reading", "writing"])
def test_run_times_out_on_a_lasting_lock_and_names_its_holder(
    migrated: Database, initmig: Initmig, folder: Path, moment: str
) -> None:
    write(folder, SECOND)
    reading = moment == "reading"
    table = "_yoyo_migration" if reading else "yoyo_lock"
    flags = ("--wait-timeout=13s", "--lock-timeout=2s", "--log-format=json")
    with locked(migrated, table, "ACCESS EXCLUSIVE" if reading else "SHARE"):
        result = initmig(*flags, url=migrated.url, folder=folder)
    assert result.code == 3
    reported, failed = [e for e in result.events if e["event"] in ("failed", WAITING_EVENT)]
    assert reported["event"] == WAITING_EVENT
    assert reported["waited_seconds"] >= 10
    for blocker in (*reported["blockers"], failed["message"]):
        assert "(the app, user postgres, idle in transaction, transaction open for" in blocker
        assert f"LOCK TABLE {table}" in blocker
    assert len(reported["blockers"]) == 1
    assert failed["error"] == "no-answer"
    # the rest of the wait timeout, once it is connected
    expected = r"no answer to one of initmig's own statements in 1[0-3](\.\d)? s: "
    assert re.match(expected, failed["message"])
    succeeded(initmig(url=migrated.url, folder=folder))


@pytest.mark.any_version
@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
def test_silence_is_noticed_on_either_kind_of_connection(database: Database, python: bool) -> None:
    noticed: list[float] = []
    with closing(open_connection(Settings(Secret(database.url)), 5, python=python)) as connection:
        connection.silence_seconds = 0.2
        connection.on_silence = lambda: noticed.append(time.monotonic())
        assert connection.exchange(b"SELECT 1 FROM pg_sleep(1)", 60, iter(())) == [(1,)]
        assert noticed
        noticed.clear()
        assert connection.exchange(b"SELECT 2", 60, iter(())) == [(2,)]
        assert not noticed


# --- timeouts of the role, and other causes that cancel a statement ---


@pytest.mark.parametrize("timeout", ["statement_timeout", "lock_timeout"])
def test_statement_of_initmig_survives_a_timeout_set_in_the_database(
    migrated: Database, initmig: Initmig, folder: Path, timeout: str
) -> None:
    write(folder, SECOND)
    migrated.execute(f"ALTER DATABASE {migrated.name} SET {timeout} = '50ms'")
    with locked(migrated, "_yoyo_migration", "ACCESS EXCLUSIVE"):
        running = initmig.start(url=migrated.url, folder=folder)
        wait_until(lambda: is_blocked(migrated, "_yoyo_migration"))
        time.sleep(0.2)  # the timeout expires
        wait_until(lambda: is_blocked(migrated, "_yoyo_migration"))
    succeeded(running.result())
    assert_applied(migrated, "0001_a", "0002_b")


@pytest.mark.any_version
def test_cancelled_statement_of_initmig_is_sent_again(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SECOND)
    with locked(migrated, "_initmig_migration"):
        running = initmig.start(url=migrated.url, folder=folder)
        wait_until(lambda: is_blocked(migrated, "_initmig_migration"))
        [(pid,)] = migrated.query(BLOCKED, ["_initmig_migration"])
        assert migrated.value("SELECT pg_cancel_backend(%s)", [pid])
        wait_until(lambda: not is_blocked(migrated, "_initmig_migration"))
        wait_until(lambda: is_blocked(migrated, "_initmig_migration"))
    succeeded(running.result())


@pytest.mark.any_version
def test_serialization_failure_of_an_initmig_statement_is_retried(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    level = "SET default_transaction_isolation = 'repeatable read'"
    migrated.execute(f"ALTER DATABASE {migrated.name} {level}")
    # like the rollback of a stock yoyo, after which initmig removes its row
    migrated.execute("DELETE FROM _yoyo_migration; DROP TABLE a")
    with migrated.connect() as other:
        other.execute("BEGIN; UPDATE _initmig_migration SET username = 'y'")
        running = initmig.start(url=migrated.url, folder=folder)
        wait_until(lambda: bool(migrated.value(WAITS_FOR_ROW)))
        other.execute("COMMIT")
    result = succeeded(running.result())
    assert "applied 1 migration in" in result.err


@pytest.mark.any_version
def test_deadlock_of_an_initmig_statement_is_retried(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, SECOND)
    with migrated.connect() as other:
        other.execute("SET deadlock_timeout = '10s'; BEGIN; LOCK TABLE _yoyo_log IN SHARE MODE")
        running = initmig.start("baseline", "--to=0002_b", url=migrated.url, folder=folder)
        wait_until(lambda: is_blocked(migrated, "_yoyo_log"))
        other.execute(
            "LOCK TABLE _yoyo_migration IN SHARE MODE"
        )  # once initmig's attempt has failed
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        wait_until(lambda: migrated.value(deadlocks) == 1)
    result = succeeded(running.result())
    assert "recorded 1 migration as applied" in result.err


@pytest.mark.any_version
def test_conflict_with_recovery_is_retried(
    private: PrivateServer, make_standby: MakeStandby, initmig: Initmig, folder: Path
) -> None:
    standby = PrivateServer(
        (server := make_standby(private.server)),
        Database(server.url(private.database.name)),
    )
    standby.set("max_standby_streaming_delay", "0")
    conflicts = "SELECT confl_lock FROM pg_stat_database_conflicts"
    conflicts += " WHERE datname = current_database()"
    # status reads several tables, and holds one's lock while it waits for the next one's
    with locked(private.database, "_yoyo_log", "ACCESS EXCLUSIVE"):
        private.database.execute(SEND_WAL)
        wait_until(lambda: bool(standby.database.query(REPLAYED_LOCK)))
        running = initmig.start("status", url=standby.database.url, folder=folder)
        wait_until(lambda: is_blocked(standby.database, "_yoyo_log"))
        with locked(private.database, "_yoyo_migration", "ACCESS EXCLUSIVE"):
            private.database.execute(SEND_WAL)
            wait_until(lambda: standby.database.value(conflicts) == 1)
    succeeded(running.result())


SEND_WAL = "SELECT pg_switch_wal()"
REPLAYED_LOCK = "SELECT FROM pg_locks WHERE relation = '_yoyo_log'::regclass AND granted"


# --- read-only during a run ---


class PrivateServer(NamedTuple):
    """A server that a test may configure, and a database on it."""

    server: Server
    database: Database

    def set(self, name: str, value: str) -> None:
        """Change a setting for all sessions, including open ones."""
        with self.database.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def open_gate(self) -> None:
        with self.database.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("SET synchronous_commit = local")
            connection.execute("DROP TABLE gate")


@pytest.fixture
def private(make_server: MakeServer, initmig: Initmig, folder: Path) -> PrivateServer:
    """A separate server, with a database on which the first migration is applied."""
    server = make_server()
    database = create_database(server)
    succeeded(initmig(url=database.url, folder=write(folder, FIRST)))
    database.execute("CREATE TABLE gate ()")
    return PrivateServer(server, database)


THIRD = {
    "sql": {"0003_c.sql": "CREATE TABLE c ()"},
    "parts": {"0003_c.sql": "-- transactional: false\nCREATE TABLE c ();\nVACUUM c;"},
    "python": {"0003_c.py": "from yoyo import step\nstep('CREATE TABLE c ()')\n"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_run_waits_while_the_server_is_read_only(
    private: PrivateServer, initmig: Initmig, folder: Path, kind: str
) -> None:
    write(folder, GATED | THIRD[kind])
    running = initmig.start(url=private.database.url, folder=folder)
    wait_until(lambda: at_gate(private.database))
    private.set("default_transaction_read_only", "on")
    private.open_gate()
    running.wait_for_line("the server is read-only")
    private.set("default_transaction_read_only", "off")
    result = succeeded(running.result())
    assert "applied 2 migrations in" in result.err
    assert_applied(private.database, "0001_a", "0002_b", "0003_c")


def test_server_that_is_read_only_at_the_end_does_not_change_the_outcome(
    private: PrivateServer, initmig: Initmig, folder: Path
) -> None:
    write(folder, GATED)
    running = initmig.start(url=private.database.url, folder=folder)
    wait_until(lambda: at_gate(private.database))
    private.set("default_transaction_read_only", "on")
    private.open_gate()
    result = succeeded(running.result())
    assert (
        "could not release the migration lock: cannot execute DELETE in a read-only transaction"
        in result.err
    )
    assert "applied 1 migration in" in result.err


@pytest.mark.any_version
def test_migration_that_makes_its_transaction_read_only_fails(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0002_b.sql": "SET TRANSACTION READ ONLY;\nCREATE TABLE b ();"})
    result = initmig(url=migrated.url, folder=folder)
    assert result.code == 1
    assert "0002_b.sql:2:1: 0002_b failed: cannot execute CREATE TABLE" in result.err


# --- a missing synchronous standby ---

# By name, because autovacuum's commits wait for the standby too.
COMMITTING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event = 'SyncRep' AND application_name LIKE 'initmig%'"
)
NO_STANDBY = "IPC: SyncRep (no synchronous standby has confirmed the commit"


@pytest.mark.any_version
def test_migrator_and_waiting_copy_report_a_commit_that_waits_for_a_standby(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server()
    private = PrivateServer(server, create_database(server))
    private.set("synchronous_standby_names", "nobody")
    write(folder, FIRST)
    leader = initmig.start(url=private.database.url, folder=folder)
    wait_until(lambda: private.database.value(COMMITTING) == 1)
    waiter = initmig.start(url=private.database.url, folder=folder)
    assert NO_STANDBY in waiter.wait_for_line("waiting for another migrator")
    assert NO_STANDBY in leader.wait_for_line(
        "one of initmig's own statements has been held up for 1"
    )
    private.set("synchronous_standby_names", "")
    succeeded(leader.result())
    succeeded(waiter.result())
    assert_applied(private.database, "0001_a")


HOOK = SECOND | {"post-apply.sql": WAIT_FOR_GATE}
ROLLBACK = {"0001_a.rollback.sql": f"DROP TABLE a;{WAIT_FOR_GATE}"}


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (("migrate",), GATED),
        (("migrate", "--transaction=all"), GATED),
        (("migrate",), IN_PYTHON),
        (("rollback", "--all"), ROLLBACK),
        (("migrate",), HOOK),
    ],
    ids=["migrate", "all", "python", "rollback", "hook"],
)
def test_sigterm_while_a_commit_waits_for_a_standby_reports_the_outcome(
    private: PrivateServer,
    initmig: Initmig,
    folder: Path,
    arguments: tuple[str, ...],
    files: dict[str, str],
) -> None:
    write(folder, files)
    running = initmig.start(*arguments, url=private.database.url, folder=folder)
    wait_until(lambda: at_gate(private.database))
    private.set("synchronous_standby_names", "nobody")
    private.open_gate()
    wait_until(lambda: private.database.value(COMMITTING) == 1)
    running.terminate()
    result = running.result()
    assert result.code == 143
    left = [id for (id,) in private.database.query("SELECT migration_id FROM _yoyo_migration")]
    if "rollback" in arguments:
        assert "rolled back 0001_a in" in result.err
        assert left == []
    else:
        done = "ran post-apply in" if files is HOOK else "applied 0002_b in"
        assert done in result.err
        assert sorted(left) == ["0001_a", "0002_b"]
    assert private.database.query("SELECT * FROM yoyo_lock") == []


def test_run_checks_the_outcome_of_a_commit_whose_session_was_terminated(
    private: PrivateServer, initmig: Initmig, folder: Path
) -> None:
    write(folder, GATED)
    running = initmig.start(url=private.database.url, folder=folder)
    wait_until(lambda: at_gate(private.database))
    private.set("synchronous_standby_names", "nobody")
    private.open_gate()
    wait_until(lambda: private.database.value(COMMITTING) == 1)
    committing = COMMITTING.replace("count(*)", "pg_terminate_backend(pid)")
    assert private.database.value(committing)
    running.wait_for_line("the connection was lost")
    private.set("synchronous_standby_names", "")
    succeeded(running.result())
    assert_applied(private.database, "0001_a", "0002_b")


@pytest.mark.any_version
def test_sigterm_is_not_delayed_by_a_lock_at_the_end(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, GATED)
    migrated.execute("CREATE TABLE gate ()")
    running = initmig.start(url=migrated.url, folder=folder)
    wait_until(lambda: at_gate(migrated))
    with locked(migrated, "yoyo_lock"), locked(migrated, "_yoyo_migration"):
        running.terminate()
        result = running.result(timeout=20)
    assert result.code == 143
    assert NOT_RELEASED in result.err


@pytest.mark.any_version
def test_sigterm_before_a_commit_reports_nothing_as_applied(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, GATED)
    migrated.execute("CREATE TABLE gate ()")
    running = initmig.start(url=migrated.url, folder=folder)
    wait_until(lambda: at_gate(migrated))
    running.terminate()
    result = running.result()
    assert result.code == 143
    assert "applied 0002_b" not in result.err
    assert_applied(migrated, "0001_a")
