"""Runs that are killed at any message: a rerun completes them, and nothing is half done."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import ASLEEP, create_database
from tests.support.kill_trial import KillTrial, Run
from tests.support.migrations import write
from tests.support.statements import commits, kinds, statements
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.fork_server import KillableRuns
    from tests.support.proxy import Proxy
    from tests.support.servers import MakeServer

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

# No migration here can be applied twice.
TRANSACTIONAL = {
    "0001_users.sql": "CREATE TABLE users (id int PRIMARY KEY);\nINSERT INTO users VALUES (1);",
    "0001_users.rollback.sql": "DROP TABLE users;",
    "0002_number.py": 'from yoyo import step\nstep("INSERT INTO users VALUES (3)",'
    ' "DELETE FROM users WHERE id = 3")\n',
    "0003_name.sql": "-- depends: 0002_number\nALTER TABLE users ADD name text DEFAULT 'x;''';",
    "0003_name.rollback.sql": "ALTER TABLE users DROP name;",
}
TABLE = {
    "0001_t.sql": "CREATE TABLE t (a int, b int);\n"
    "INSERT INTO t SELECT n, n FROM generate_series(1, 9) n;",
    "0001_t.rollback.sql": "DROP TABLE t;",
}
INDEXES = TABLE | {
    "0002_i.sql": """-- transactional: false
        CREATE INDEX CONCURRENTLY named ON t (a);
        CREATE INDEX CONCURRENTLY ON t (b);
        CREATE INDEX CONCURRENTLY ON t (b);
        CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS only_one ON t (a, b);
        REINDEX INDEX CONCURRENTLY named;
        REINDEX TABLE CONCURRENTLY t;
        DROP INDEX CONCURRENTLY only_one;""",
    "0002_i.rollback.sql": """DROP INDEX CONCURRENTLY named;
        DROP INDEX CONCURRENTLY t_b_idx; DROP INDEX CONCURRENTLY t_b_idx1;
        ALTER TABLE t RENAME TO renamed; ALTER TABLE renamed RENAME TO t;""",
}
MIXED = TABLE | {
    "0002_m.sql": """-- transactional: false
        SET search_path = pg_catalog, public;
        INSERT INTO t VALUES (-1, 0);
        VACUUM t;
        BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES (-2, 0);
            INSERT INTO t VALUES (-3, 0); COMMIT;
        BEGIN; INSERT INTO t VALUES (-4, 0); ROLLBACK;
        ALTER SYSTEM RESET work_mem;
        INSERT INTO t VALUES (-7, 0);""",
}
COMMITTING = TABLE | {
    "0002_p.sql": """-- transactional: false
        CREATE PROCEDURE p(n int) LANGUAGE plpgsql AS $$ BEGIN
            DELETE FROM t WHERE a = n; COMMIT; INSERT INTO t VALUES (-n, 0); END $$;
        CALL p(1);
        DO $$ BEGIN DELETE FROM t WHERE a = 2; COMMIT; INSERT INTO t VALUES (-2, 0); END $$;""",
}
ENUM = {
    "0001_e.sql": """-- transactional: false
        CREATE TYPE mood AS ENUM ('sad');
        ALTER TYPE mood ADD VALUE 'happy';
        CREATE TABLE moods (mood mood DEFAULT 'happy');
        INSERT INTO moods DEFAULT VALUES;""",
}
PARTITIONS = {
    "0001_p.sql": "CREATE TABLE p (a int) PARTITION BY RANGE (a);\n"
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10);\n"
    "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);\nINSERT INTO p VALUES (1), (11);",
    "0002_i.sql": """-- transactional: false
        CREATE INDEX p_a ON ONLY p (a);
        CREATE INDEX CONCURRENTLY p1_a ON p1 (a);
        ALTER INDEX p_a ATTACH PARTITION p1_a;
        CREATE INDEX CONCURRENTLY p2_a ON p2 (a);
        ALTER INDEX p_a ATTACH PARTITION p2_a;
        ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY;""",
}
DATABASES = {
    "0001_d.sql": """-- transactional: false
        CREATE DATABASE "{database}_one" TEMPLATE template0;
        DROP DATABASE IF EXISTS "{database}_two";""",
}
PYTHON = TABLE | {
    "0002_py.py": """
from yoyo import group, step
__transactional__ = False

def delete(connection):
    connection.execute("DELETE FROM t WHERE a = 1")

step("INSERT INTO t VALUES (-1, 0)", "DELETE FROM t WHERE a = -1")
step(delete, lambda connection: None)
step("CREATE INDEX CONCURRENTLY ON t (a)", "DROP INDEX CONCURRENTLY t_a_idx")
step("INSERT INTO t VALUES (-2, 0)", "DELETE FROM t WHERE a = -2")
group([step("CREATE TABLE g1 ()", "DROP TABLE g1"), step("CREATE TABLE g2 ()", "DROP TABLE g2")])
""",
}
HOOKS = TABLE | {
    "0002_u.sql": "CREATE TABLE u ();",
    "post-apply-1.sql": "INSERT INTO t VALUES (-1, 0);",
    "post-apply-2.sql": "-- transactional: false\nINSERT INTO t VALUES (-2, 0); VACUUM t;"
    "INSERT INTO t VALUES (-3, 0);",
    "post-apply-3.py": "from yoyo import step\n__transactional__ = False\n"
    "step('INSERT INTO t VALUES (-4, 0)')\nstep('VACUUM t')\n",
}
DATA = TABLE | {
    "0002_d.sql": "COPY t FROM stdin;\n11\t1\n12\t1\n\\.\nCREATE TABLE d (a int);\n"
    "COPY d FROM stdin WITH (FORMAT csv, HEADER);\na\n1\n\\.\n",
    "0003_d.sql": "-- transactional: false\nCOPY d FROM stdin;\n2\n\\.\nVACUUM d;\n"
    "BEGIN; COPY d FROM stdin;\n3\n\\.\nINSERT INTO d VALUES (4); COMMIT;",
}
SETTINGS = TABLE | {
    "0002_s.sql": """-- transactional: false
        BEGIN; SET search_path = pg_catalog; COMMIT;
        SELECT set_config('search_path', 'public', false);
        CREATE INDEX CONCURRENTLY i ON t (a);
        SET client_encoding = 'LATIN1';
        CREATE TABLE "tä" ();
        SET ROLE pg_read_all_data; RESET ROLE;
        SELECT 1;""",
    "0003_x.sql": "SELECT set_config('search_path', '', false); CREATE TABLE public.x ();",
}
# Too large for one message with its record, which is sent once the server has confirmed the file.
LARGE = TABLE | {
    "0002_l.sql": f"INSERT INTO t VALUES (-1, length('{'x' * (5 << 18)}'));\n"
    "CREATE TABLE large AS SELECT a FROM t;",
    "0002_l.rollback.sql": "DROP TABLE large; DELETE FROM t WHERE a = -1;",
    "0003_none.sql": "-- Merged into 0002_l.\n",
    "0003_none.rollback.sql": "",
}
BLOCKS = TABLE | {
    "0002_b.py": """
from yoyo import step
__transactional__ = False

step("BEGIN")
step("INSERT INTO t VALUES (-1, 0)")
step(lambda connection: connection.execute("INSERT INTO t VALUES (-2, 0)"))
step("COMMIT")
step("BEGIN")
step("INSERT INTO t VALUES (-3, 0)")
step("ROLLBACK")
step("VACUUM t")
""",
}
# Rows that are discarded on arrival, and a part that is sent without a copy of it.
ROWS = TABLE | {
    "0002_r.sql": "INSERT INTO t VALUES (-1, 0); SELECT * FROM generate_series(1, 300);",
    "0003_r.sql": f"""-- transactional: false
        SELECT * FROM generate_series(1, 300);
        INSERT INTO t VALUES (-2, length('{"x" * (5 << 18)}'));
        VACUUM t;
        BEGIN; SELECT * FROM generate_series(1, 300); INSERT INTO t VALUES (-3, 0); COMMIT;""",
}
BY_PSYCOPG = {"0004_p.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')\n"}
MIGRATE = ("migrate",)
ROLLBACK = ("rollback", "--all")
RUNS = {
    "each": Run(MIGRATE, TRANSACTIONAL),
    "all": Run((*MIGRATE, "--transaction=all"), TRANSACTIONAL),
    "rollback": Run(ROLLBACK, TRANSACTIONAL, before=MIGRATE),
    "indexes": Run(MIGRATE, INDEXES),
    "rollback of indexes": Run(ROLLBACK, INDEXES, before=MIGRATE),
    "mixed": Run(MIGRATE, MIXED),
    "committing": Run(MIGRATE, COMMITTING),
    "enum": Run(MIGRATE, ENUM),
    "partitions": Run(MIGRATE, PARTITIONS),
    "databases": Run(MIGRATE, DATABASES, databases=("_one", "_two")),
    "Python": Run(MIGRATE, PYTHON),
    "rollback of Python": Run(ROLLBACK, PYTHON, before=MIGRATE),
    "hooks": Run(MIGRATE, HOOKS),
    "data": Run(MIGRATE, DATA),
    "data by psycopg": Run(MIGRATE, DATA | BY_PSYCOPG),
    "settings": Run(MIGRATE, SETTINGS),
    "large": Run(MIGRATE, LARGE),
    "large by psycopg": Run(MIGRATE, LARGE | BY_PSYCOPG),
    "rollback of large": Run(ROLLBACK, LARGE, before=MIGRATE),
    "blocks of Python": Run(MIGRATE, BLOCKS),
    "rows": Run(MIGRATE, ROWS),
    "rows by psycopg": Run(MIGRATE, ROWS | BY_PSYCOPG),
}

TWICE = [
    pytest.param(run, id=name, marks=() if name == "mixed" else pytest.mark.exhaustive)
    for name, run in RUNS.items()
]

MakeKillTrial = Callable[[Run], KillTrial]


@pytest.fixture
def make_kill_trial(
    database: Database, proxy: Proxy, killable_runs: KillableRuns, folder: Path
) -> MakeKillTrial:
    return lambda run: KillTrial(
        run, database=database, proxy=proxy, killable_runs=killable_runs, folder=folder
    )


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_rerun_completes_after_sigkill_at_any_message(
    make_kill_trial: MakeKillTrial, run: Run
) -> None:
    trial = make_kill_trial(run)
    for message in trial.messages_to_interrupt(answered=False):
        trial.kill(message, answered=False)
        trial.check_rerun(message)
    # after any other answer, the server is in the same state as before the next message
    last = trial.messages_to_interrupt(answered=True)[-1]
    trial.kill(last, answered=True)
    trial.check_rerun(last)


@pytest.mark.long
@pytest.mark.parametrize("run", TWICE)
def test_second_rerun_completes_after_the_first_rerun_was_killed_too(
    make_kill_trial: MakeKillTrial, run: Run
) -> None:
    trial = make_kill_trial(run)
    for message in trial.messages_to_interrupt(answered=True)[::16]:
        # the first messages only connect and read
        for number in range(4, len(trial.messages), 6):
            trial.kill(message, answered=True)
            if not trial.kill_rerun(number):
                break  # it has finished before that message
            trial.check_rerun(message)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_run_completes_when_the_connection_is_cut_before_any_message(
    make_kill_trial: MakeKillTrial, run: Run
) -> None:
    trial = make_kill_trial(run)
    # Every fourth message: each one costs a pause before the next attempt to connect.
    for message in [
        each for each in trial.messages_to_interrupt(answered=False) if each.number > 3
    ][::4]:
        trial.cut(message, answered=False)
        assert trial.snapshot() == trial.undisturbed, message


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_run_completes_when_the_answer_to_a_commit_is_lost(
    make_kill_trial: MakeKillTrial, run: Run
) -> None:
    trial = make_kill_trial(run)
    committing = [m for m in trial.messages_to_interrupt(answered=True) if commits(m.query)]
    assert committing
    for message in committing:
        trial.cut(message, answered=True)
        assert trial.snapshot() == trial.undisturbed, message


def test_each_sql_migration_is_one_message_with_the_whole_file_and_its_records(
    database: Database,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    first = (
        "\ufeff-- one; two\r\nCREATE TABLE a (t text DEFAULT $x$;\r\n$x$);\n/* ; */ SELECT 1;\n\n"
    )
    second = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END"
    write(folder, {"0001_a.sql": first, "0002_b.sql": second})
    assert initmig(url=proxy.url(database.name), folder=folder).code == 0
    proxy.wait_until_quiet()
    for id, text in (("0001_a", first.removeprefix("\ufeff")), ("0002_b", second)):
        [message] = [query for query in proxy.queries if text in query]
        begin, _, end = message.partition(text)
        assert kinds(begin) == ["BEGIN"]
        transaction = list(takewhile(lambda each: each.kind != "COMMIT", statements(message)))
        assert len(transaction) < len(statements(message))
        records = [each for each in transaction if each.kind.startswith("INSERT")]
        assert [each.kind for each in records] == [
            "INSERT _yoyo_log",
            "INSERT _yoyo_migration",
            "INSERT _initmig_migration",
        ]
        assert all(f"'{id}'" in each.text for each in records)
        assert end.count(f"'{id}'") == len(records)
        # an answer to the last one, and none to COMMIT, means that COMMIT failed
        assert [each.kind for each in transaction[-2:]] == ["SAVEPOINT", "SELECT"]
    assert (
        database.value(
            "SELECT column_default FROM information_schema.columns WHERE table_name = 'a'"
        )
        == "';\r\n'::text"
    )


def test_immediate_rerun_after_sigkill_waits_for_the_running_statement_and_completes(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    sleeping = "CREATE TABLE a (); SELECT pg_sleep(60)"
    write(folder, {"0001_a.sql": sleeping})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    running.kill()
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0
    assert result.seconds < 40
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 1
    assert database.value(ASLEEP) == 0


def test_rerun_removes_the_lock_row_of_a_killed_run_and_reports_it(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT pg_sleep(60)"})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    [(pid,)] = database.query("SELECT pid FROM yoyo_lock")
    assert pid < 0
    running.kill()
    write(folder, {"0001_a.sql": "SELECT 1"})
    result = initmig(url=database.url, folder=folder)
    assert f"(pid {-pid})" in result.err
    assert database.query("SELECT pid FROM yoyo_lock") == []


@pytest.mark.parametrize("mode", ["each", "all"])
def test_run_completes_after_the_server_crashed_during_a_migration(
    make_server: MakeServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    server = make_server()
    database = create_database(server)
    write(
        folder,
        {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": "CREATE TABLE b (); SELECT pg_sleep(2)"},
    )
    running = initmig.start(f"--transaction={mode}", url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    server.restart("immediate")
    result = running.result()
    assert result.code == 0, result.err
    assert {"a", "b"} < database.tables()
    assert database.query("SELECT migration_id FROM _yoyo_migration ORDER BY 1") == [
        ("0001_a",),
        ("0002_b",),
    ]
