"""Through PgBouncer, each migration is applied once, in every pool mode and after every failure."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.databases import ASLEEP, WAIT_FOR_GATE
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.pgbouncer import PgBouncer
    from tests.support.processes import Running
    from tests.support.proxy import MakeProxy, Message, Verdict

# Fails if another migration runs at the same time, even if that one is rolled back later.
EXCLUSIVE = """
DO $$ BEGIN
    IF NOT pg_try_advisory_xact_lock(4711) THEN RAISE 'two at work'; END IF;
END $$;
"""
GATED = {
    "0001_t.sql": f"{EXCLUSIVE} CREATE TABLE t1 (); {WAIT_FOR_GATE}",
    "0002_t.sql": f"{EXCLUSIVE} CREATE TABLE t2 ();",
}
SEEN = (
    "SELECT current_user::text AS role, current_schema()::text AS schema,"
    " current_setting('lock_timeout') AS lock_timeout,"
    " current_setting('statement_timeout') AS statement_timeout"
)
LOGGED = "SELECT count(*) FROM _yoyo_log"
LOCK_HOLDER = "SELECT -pid FROM yoyo_lock"
POOLED = ["transaction", "session"]


class MakePooler(Protocol):
    """Starts a PgBouncer in front of the server of `database`, with these *settings*."""

    def __call__(self, **settings: str | int) -> PgBouncer: ...


@pytest.fixture
def make_pooler(server: DatabaseServer) -> Iterator[MakePooler]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_pgbouncer(server, **settings))


def exclusive(count: int, seconds: float) -> dict[str, str]:
    """Migrations of *seconds* each. They cannot be applied twice, nor two at the same time."""
    return {
        f"{n:04}_t.sql": f"{EXCLUSIVE} CREATE TABLE t{n} (); SELECT pg_sleep({seconds})"
        for n in range(1, count + 1)
    }


def assert_applied_once(database: Database, count: int) -> None:
    ids = [f"{n:04}_t" for n in range(1, count + 1)]
    logged = "SELECT migration_id FROM _yoyo_log ORDER BY created_at_utc"
    assert [id for (id,) in database.query(logged)] == ids
    assert [id for (id,) in database.query("SELECT migration_id FROM _yoyo_migration")] == ids
    assert database.query("SELECT * FROM yoyo_lock") == []


# --- settings ---


@pytest.mark.parametrize("mode", POOLED)
def test_settings_apply_to_each_migration_and_to_no_other_client(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    role = urlsplit(database.login_role("CREATE SCHEMA app AUTHORIZATION {role}")).username
    assert role
    write(folder, {f"{n:04}_seen.sql": f"CREATE TABLE seen{n} AS {SEEN}" for n in range(1, 5)})
    write(
        folder,
        {"0005_seen.py": f'from yoyo import step\nstep("""CREATE TABLE seen5 AS {SEEN}""")\n'},
    )
    options = ["--schema=app", f"--role={role}", "--lock-timeout=1234ms", "--statement-timeout=5s"]
    with running_pgbouncer(server, pool_mode=mode, default_pool_size=2) as bouncer:
        before = seen_by_other_clients(bouncer, database)
        result = initmig("migrate", *options, url=bouncer.url(database.name), folder=folder)
        assert result.code == 0, result.err
        after = seen_by_other_clients(bouncer, database)
    expected = [(role, "app", "1234ms", "5s")]
    assert [database.query(f"SELECT * FROM app.seen{n}") for n in range(1, 6)] == [expected] * 5
    assert before == after
    assert after == [("postgres", "public", "0", "0")] * 2
    assert database.tables() == set()


def seen_by_other_clients(bouncer: PgBouncer, database: Database) -> list[tuple[str, ...]]:
    """The settings that other clients see on the two server connections of the pool."""
    url = bouncer.url(database.name)
    with psycopg.connect(url) as one, psycopg.connect(url) as other:
        pids = {each.execute("SELECT pg_backend_pid()").fetchone() for each in (one, other)}
        assert len(pids) == 2
        return [row for each in (one, other) for row in each.execute(SEEN.encode()).fetchall()]


def test_no_statement_is_prepared_behind_a_pooler(
    database: Database,
    server: DatabaseServer,
    make_proxy: MakeProxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    insert = (
        "from yoyo import step\n"
        "def insert(connection):\n"
        "    for n in range(8):\n"
        "        connection.cursor().execute('INSERT INTO t1 VALUES (%s)', (n,))\n"
        "step(insert)\n"
    )
    write(folder, {"0001_t.sql": "CREATE TABLE t1 (n int)"})
    write(folder, {f"{n:04}_t.py": insert for n in range(2, 10)})
    with make_proxy(server) as proxy, running_pgbouncer(proxy, default_pool_size=3) as bouncer:
        result = initmig(url=bouncer.url(database.name), folder=folder)
        assert result.code == 0, result.err
        names = [m.payload.partition(b"\0")[0] for m in proxy.messages if m.type == "P"]
    assert database.value("SELECT count(*) FROM t1") == 64
    assert len(names) >= 64
    assert set(names) == {b""}


# --- configurations that are refused ---


def test_statement_mode_is_refused_before_anything_is_written(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    with running_pgbouncer(server, pool_mode="statement") as bouncer:
        result = initmig(url=bouncer.url(database.name), folder=write(folder, exclusive(1, 0)))
    assert result.code == 4
    assert "the pooler is in statement mode" in result.err
    assert "next: set pool_mode=transaction" in result.err
    assert result.seconds < 40, "does not wait for the database"
    assert database.tables() == set()


def test_run_with_nothing_pending_works_in_statement_mode(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    assert initmig(url=database.url, folder=write(folder, exclusive(1, 0))).code == 0
    with running_pgbouncer(server, pool_mode="statement") as bouncer:
        result = initmig(url=bouncer.url(database.name), folder=folder)
    assert result.code == 0, result.err
    assert "nothing to do: 1 migration, all applied" in result.err


@pytest.mark.parametrize(
    "limits",
    [
        {"pool_mode": "transaction", "query_wait_timeout": 2},
        {"pool_mode": "session", "query_wait_timeout": 2},
        pytest.param({"pool_mode": "transaction"}, marks=pytest.mark.long),
        pytest.param({"pool_mode": "session"}, marks=pytest.mark.long),
    ],
)
def test_pool_of_one_connection_is_refused_before_anything_is_written(
    database: Database,
    make_pooler: MakePooler,
    initmig: Initmig,
    folder: Path,
    limits: dict[str, str | int],
) -> None:
    url = make_pooler(default_pool_size=1, **limits).url(database.name)
    result = initmig(url=url, folder=write(folder, exclusive(1, 0)))
    assert result.code == 4
    assert "[pooler-too-small]" in result.err
    assert "next: set default_pool_size" in result.err
    assert result.seconds < 90, "does not wait forever"
    assert database.tables() == set()


def test_url_options_that_the_pooler_refuses_are_reported_without_a_retry(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    with running_pgbouncer(server) as bouncer:
        url = bouncer.url(database.name, options="-c%20search_path%3Dapp")
        result = initmig(url=url, folder=write(folder, exclusive(1, 0)))
    assert result.code == 4
    assert "unsupported startup parameter: options" in result.err
    assert "[startup-parameter-unsupported]" in result.err
    assert result.seconds < 40, "does not wait for the database"
    assert database.tables() == set()


def test_schema_is_used_even_if_the_pooler_ignores_the_url_options(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE SCHEMA app; CREATE SCHEMA dropped")
    ignored = "extra_float_digits,options"
    with running_pgbouncer(server, ignore_startup_parameters=ignored) as bouncer:
        url = bouncer.url(database.name, options="-c%20search_path%3Ddropped")
        result = initmig("migrate", "--schema=app", url=url, folder=write(folder, exclusive(2, 0)))
    assert result.code == 0, result.err
    assert {"t1", "t2", "_yoyo_migration", "yoyo_lock"} < database.tables("app")
    assert database.tables("dropped") == database.tables() == set()


def test_pooler_that_refuses_extra_startup_parameters_works(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path
) -> None:
    with running_pgbouncer(server, ignore_startup_parameters="") as bouncer:
        result = initmig(url=bouncer.url(database.name), folder=write(folder, exclusive(1, 0)))
    assert result.code == 0, result.err
    assert_applied_once(database, 1)


# --- leftovers in a session that another client gets next ---

LEAVES = {
    "the temporary table t": "CREATE TEMP TABLE t (a int)",
    "the prepared statement p": "PREPARE p AS SELECT 1",
    "the cursor c WITH HOLD": "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN c": "LISTEN c",
    "an advisory lock": "SELECT pg_advisory_lock(4712)",
    "a setting": "SELECT set_config(name, setting, false) FROM pg_settings WHERE name = 'TimeZone'",
}
LEFTOVERS = """
SELECT (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r')
    + (SELECT count(*) FROM pg_prepared_statements) + (SELECT count(*) FROM pg_cursors)
    + (SELECT count(*) FROM pg_listening_channels())
    + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712)
    + (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name IN ({settings}))
"""


def with_all(directive: str = "") -> dict[str, str]:
    """A file for each of `LEAVES`, after a file that leaves nothing."""
    files = {f"{n:04}_t.sql": f"{directive}\n{sql}" for n, sql in enumerate(LEAVES.values(), 2)}
    return {"0001_t.sql": "CREATE TABLE t1 ()", **files}


@pytest.mark.any_version
@pytest.mark.parametrize("directive", ["", "-- transactional: false"])
def test_file_that_leaves_something_in_the_session_is_refused_before_anything_runs(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, directive: str
) -> None:
    write(folder, with_all(directive))
    result = initmig(url=make_pooler().url(database.name), folder=folder)
    assert result.code == 6, result.err
    for n, words in enumerate(LEAVES, 2):
        assert f"{n:04}_t.sql:" in result.err
        assert f"{n:04}_t leaves {words} in its session" in result.err
    assert result.err.count("[session-setting-behind-pooler]") == len(LEAVES)
    assert "t1" not in database.tables()


@pytest.mark.any_version
@pytest.mark.parametrize("name", ["0001_t.sql", "0001_t.py", "post-apply.sql"])
def test_each_kind_of_file_that_leaves_something_is_refused(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, name: str
) -> None:
    text = "LISTEN c" if name.endswith(".sql") else "from yoyo import step\nstep('LISTEN c')\n"
    write(folder, {"0000_t.sql": "CREATE TABLE t1 ()", name: text})
    url = make_pooler().url(database.name)
    for command in ("migrate", "rehearse"):
        result = initmig(command, url=url, folder=folder)
        assert result.code == 6, result.err
        assert f"{name}:" in result.err
        assert " leaves LISTEN c in its session" in result.err
        assert "t1" not in database.tables()


@pytest.mark.any_version
def test_rollback_that_leaves_something_in_the_session_is_refused(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path
) -> None:
    undo = {"0001_t.rollback.sql": "LISTEN c", "0002_t.rollback.sql": "DROP TABLE t2"}
    write(
        folder, {"0001_t.sql": "LISTEN c; UNLISTEN c", "0002_t.sql": "CREATE TABLE t2 ()", **undo}
    )
    url = make_pooler().url(database.name)
    assert initmig(url=url, folder=folder).code == 0
    result = initmig("rollback", "--all", url=url, folder=folder)
    assert result.code == 6, result.err
    assert "0001_t.rollback.sql:1:1: 0001_t leaves LISTEN c in its session" in result.err
    assert "t2" in database.tables()


@pytest.mark.any_version
def test_temporary_table_is_refused_with_transaction_all(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_t.sql": "CREATE TEMP TABLE t () ON COMMIT DROP"})
    url = make_pooler().url(database.name)
    result = initmig("--transaction=all", url=url, folder=folder)
    assert result.code == 6, result.err
    assert "0001_t leaves the temporary table t in its session" in result.err
    assert initmig(url=url, folder=folder).code == 0


GOOD = """
CREATE TEMP TABLE t (a int) ON COMMIT DROP; CREATE TEMP TABLE u (a int); DROP TABLE u;
PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p;
DECLARE c CURSOR WITH HOLD FOR SELECT 1; CLOSE c; LISTEN c; UNLISTEN *;
SELECT pg_advisory_lock(4712); SELECT pg_advisory_unlock(4712);
SET work_mem = '1234kB'; SET SESSION enable_seqscan = off;
SELECT set_config('maintenance_work_mem', '2345kB', false);
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE;
SET TRANSACTION READ WRITE;
"""
SET_BY_GOOD = (
    "'work_mem', 'enable_seqscan', 'maintenance_work_mem', 'default_transaction_isolation'"
)


@pytest.mark.parametrize("mode", POOLED)
def test_file_that_leaves_nothing_runs_and_its_settings_are_reset(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    in_block = "-- transactional: false\nBEGIN; CREATE TEMP TABLE t () ON COMMIT DROP; COMMIT"
    step = f'from yoyo import step\nstep("""{GOOD}""")\n'
    write(folder, {"0001_t.sql": GOOD, "0002_t.py": step, "0003_t.sql": in_block})
    with running_pgbouncer(server, pool_mode=mode, default_pool_size=2) as bouncer:
        url = bouncer.url(database.name)
        result = initmig(url=url, folder=folder)
        assert result.code == 0, result.err
        left = LEFTOVERS.format(settings=SET_BY_GOOD).encode()
        with psycopg.connect(url) as one, psycopg.connect(url) as other:
            assert [each.execute(left).fetchone() for each in (one, other)] == [(0,), (0,)]


# --- many copies at the same time ---


@pytest.mark.any_version
@pytest.mark.parametrize(
    "limits",
    [
        {"pool_mode": "transaction"},
        # fewer server connections than copies; each copy starts with one
        {"pool_mode": "session", "default_pool_size": 4},
        pytest.param({"pool_mode": "session"}, marks=pytest.mark.long),
        pytest.param({"pool_mode": "transaction", "default_pool_size": 2}, marks=pytest.mark.long),
        pytest.param({"pool_mode": "session", "default_pool_size": 2}, marks=pytest.mark.long),
    ],
)
def test_sixteen_copies_apply_each_migration_once_and_one_at_a_time(
    database: Database,
    make_pooler: MakePooler,
    initmig: Initmig,
    folder: Path,
    limits: dict[str, str | int],
) -> None:
    write(folder, exclusive(3, 0.3))
    url = make_pooler(**limits).url(database.name)
    copies = [initmig.start(url=url, folder=folder) for _ in range(16)]
    results = [copy.result(90) for copy in copies]
    assert [result.code for result in results] == [0] * 16, "\n".join(
        result.err for result in results if result.code
    )
    assert sum(result.err.count(" applied 000") for result in results) == 3
    assert_applied_once(database, 3)


@pytest.mark.any_version
@pytest.mark.parametrize("mode", POOLED)
def test_waiting_run_holds_no_server_connection_between_attempts(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    write(folder, exclusive(1, 60))
    direct = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    with running_pgbouncer(server, pool_mode=mode, default_pool_size=1) as bouncer:
        url = bouncer.url(database.name)
        waiter = initmig.start(url=url, folder=folder)
        waiter.wait_for_line("waiting for another migrator")
        for _ in range(5):
            with psycopg.connect(url) as other:
                assert other.execute("SELECT 1").fetchone() == (1,)
        waiter.terminate()
        assert waiter.result().code == 143
    direct.terminate()
    assert direct.result().code == 143


# --- only the connection that holds the lock is lost ---


def terminate_lock_holder(database: Database) -> None:
    pid = database.value(LOCK_HOLDER)
    assert database.value("SELECT pg_terminate_backend(%s)", [pid])


@pytest.mark.parametrize("mode", POOLED)
def test_waiting_run_does_not_start_while_a_migration_outlives_its_lock(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, mode: str
) -> None:
    url = make_pooler(pool_mode=mode).url(database.name)
    leader, waiter = leader_and_waiter(database, initmig, url, write(folder, GATED))
    terminate_lock_holder(database)
    waiter.wait_for_line("an initmig that lost its lock")
    assert_both_succeed(database, leader, waiter)


@pytest.mark.parametrize("mode", POOLED)
def test_waiting_run_does_not_start_when_the_pooler_ends_idle_transactions(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, mode: str
) -> None:
    url = make_pooler(pool_mode=mode, idle_transaction_timeout=1).url(database.name)
    leader, waiter = leader_and_waiter(database, initmig, url, write(folder, GATED))
    pid = database.value(LOCK_HOLDER)
    ended = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: bool(database.value(ended, [pid])))
    assert_both_succeed(database, leader, waiter)


def leader_and_waiter(
    database: Database, initmig: Initmig, url: str, folder: Path
) -> tuple[Running, Running]:
    """A run in the middle of a migration, until `gate` is dropped, and a run that waits for it."""
    database.execute("CREATE TABLE gate ()")
    leader = initmig.start(url=url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    waiter = initmig.start(url=url, folder=folder)
    waiter.wait_for_line("waiting for another migrator")
    return leader, waiter


def assert_both_succeed(database: Database, leader: Running, waiter: Running) -> None:
    database.execute("DROP TABLE gate")
    results = [leader.result(), waiter.result()]
    assert [result.code for result in results] == [0, 0], results
    assert_applied_once(database, 2)


def test_migrator_that_lost_its_lock_between_migrations_does_not_start_another(
    database: Database,
    make_pooler: MakePooler,
    make_proxy: MakeProxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    write(folder, exclusive(3, 0))
    pooler = make_pooler()
    proxy = make_proxy(pooler)
    begins, overtaken = threading.Event(), threading.Event()

    def before(message: Message) -> Verdict:
        if b"'0002_t'" in message.payload:
            begins.set()
            overtaken.wait(20)
        return "forward"

    proxy.before = before
    first = initmig.start(url=proxy.url(database.name), folder=folder)
    assert begins.wait(20)
    terminate_lock_holder(database)
    second = initmig(url=pooler.url(database.name), folder=folder)
    overtaken.set()
    assert second.code == 0
    assert second.err.count(" applied 000") == 2
    result = first.result()
    assert result.code == 0, result.err
    assert "another migrator has taken over" in result.err
    assert_applied_once(database, 3)


# --- PgBouncer itself ---


@pytest.mark.any_version
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_run_completes_when_the_pooler_is_restarted_during_a_migration(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path, how: signal.Signals
) -> None:
    write(folder, exclusive(2, 1.5))
    with running_pgbouncer(server) as bouncer:
        running = initmig.start(url=bouncer.url(database.name), folder=folder)
        wait_until(lambda: database.value(ASLEEP) == 1)
        bouncer.stop(how)
        bouncer.start()
        result = running.result()
    assert result.code == 0, result.err
    assert_applied_once(database, 2)


@pytest.mark.any_version
def test_rerun_without_the_pooler_completes_after_the_pooler_died(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path
) -> None:
    pooler = make_pooler()
    write(folder, exclusive(1, 2))
    url = pooler.url(database.name)
    running = initmig.start("--wait-timeout=1s", url=url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    pooler.stop()
    assert running.result().code == 3
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert_applied_once(database, 1)


@pytest.mark.any_version
def test_reload_pause_and_resume_of_the_pooler_only_delay_a_run(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path
) -> None:
    pooler = make_pooler()
    write(folder, exclusive(3, 0.5))
    running = initmig.start(url=pooler.url(database.name), folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    pooler.admin("RELOAD")
    with closing(psycopg.connect(pooler.url("pgbouncer"), autocommit=True)) as admin:
        # Not read: the answer arrives once every transaction has ended, including that of the lock.
        admin.pgconn.send_query(b"PAUSE")
        wait_until(lambda: database.value(LOGGED) == 1)
        time.sleep(1)
        assert database.value(LOGGED) == 1
        assert running.is_running()
        pooler.admin("RESUME")
        result = running.result()
    assert result.code == 0, result.err
    assert_applied_once(database, 3)


@pytest.mark.any_version
@pytest.mark.parametrize("mode", POOLED)
def test_rerun_after_sigkill_behind_a_pooler_waits_for_the_running_statement(
    database: Database, server: DatabaseServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    with running_pgbouncer(server, pool_mode=mode) as bouncer:
        url = bouncer.url(database.name)
        running = initmig.start(url=url, folder=write(folder, exclusive(1, 60)))
        wait_until(lambda: database.value(ASLEEP) == 1)
        running.kill()
        result = initmig(url=url, folder=write(folder, exclusive(1, 0)))
    assert result.code == 0, result.err
    assert result.seconds < 40, "does not wait for the database"
    assert database.value(ASLEEP) == 0
    assert_applied_once(database, 1)


@pytest.mark.any_version
def test_waiting_run_starts_only_after_the_statement_of_a_killed_run_has_ended(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path
) -> None:
    url = make_pooler().url(database.name)
    leader, waiter = leader_and_waiter(database, initmig, url, write(folder, GATED))
    leader.kill()
    waiter.wait_for_line("removed the lock row")
    database.execute("DROP TABLE gate")
    result = waiter.result()
    assert result.code == 0, result.err
    assert result.err.count(" applied 000") == 2
    assert_applied_once(database, 2)


# --- locks and timeouts ---

BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass(%s)"


@pytest.mark.parametrize("table", ["yoyo_lock", "_initmig_migration"])
def test_run_waits_for_a_lock_on_an_initmig_table(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, table: str
) -> None:
    url = make_pooler(pool_mode="transaction").url(database.name)
    assert initmig(url=url, folder=write(folder, exclusive(1, 0))).code == 0
    write(folder, exclusive(2, 0))
    with database.connect() as other:
        other.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE".encode())
        running = initmig.start("--lock-timeout=1s", url=url, folder=folder)
        for expected in (True, False):
            wait_until(lambda: bool(database.value(BLOCKED, [table])) is expected)  # noqa: B023
    result = running.result()
    assert result.code == 0, result.err
    assert_applied_once(database, 2)


def test_session_that_blocks_an_initmig_statement_is_named(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path
) -> None:
    url = make_pooler(pool_mode="transaction").url(database.name)
    assert initmig(url=url, folder=write(folder, exclusive(1, 0))).code == 0
    write(folder, exclusive(2, 0))
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE yoyo_lock IN SHARE MODE")
        running = initmig.start(url=url, folder=folder)
        line = running.wait_for_line(
            "one of initmig's own statements has been held up for 1", timeout=30
        )
        pid = other.info.backend_pid
    assert f"; blocked by pid {pid} (no application name, user postgres, idle in tr" in line
    assert running.result().code == 0


@pytest.mark.parametrize("mode", POOLED)
def test_timeouts_set_in_the_database_do_not_stop_a_transactional_migration(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, mode: str
) -> None:
    for name in ("idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout"):
        database.execute(f"ALTER DATABASE {database.name} SET {name} = '200ms'")
    code = "import time\nfrom yoyo import step\nstep(lambda connection: time.sleep(0.5))\n"
    write(folder, exclusive(1, 0.5) | {"0002_t.py": code})
    result = initmig(url=make_pooler(pool_mode=mode).url(database.name), folder=folder)
    assert result.code == 0, result.err
    assert_applied_once(database, 2)


OWN_TRANSACTION = """
import time
from yoyo import step
__transactional__ = False
def work(connection):
    cursor = connection.cursor()
    cursor.execute("SELECT nextval('tries')")
    cursor.execute("BEGIN")
    time.sleep(0.5)
    cursor.execute("CREATE TABLE t1 ()")
    cursor.execute("COMMIT")
step(work)
"""


@pytest.mark.parametrize("mode", POOLED)
def test_timeout_that_cannot_be_overridden_fails_a_migration_once_and_is_named(
    database: Database, make_pooler: MakePooler, initmig: Initmig, folder: Path, mode: str
) -> None:
    database.execute("CREATE SEQUENCE tries")
    name = "idle_in_transaction_session_timeout"
    database.execute(f"ALTER DATABASE {database.name} SET {name} = '200ms'")
    write(folder, {"0001_t.py": OWN_TRANSACTION})
    url = make_pooler(pool_mode=mode).url(database.name)
    warned = initmig("doctor", url=url, folder=folder)
    assert f"{name} is 200ms: PostgreSQL ends a non-transactional Python function" in warned.out
    result = initmig(url=url, folder=folder)
    assert result.code == 1
    assert database.value("SELECT last_value FROM tries") == 1
    assert f"it is 200ms, set by ALTER DATABASE {database.name}\n" in result.err
