"""Nothing that a migration leaves in the session affects the next migration or hook."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.databases import ASLEEP, WAIT_FOR_GATE
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.proxy import Message, Proxy, Verdict

# By kind: the statement that leaves the object, and the query that counts such objects.
KINDS = {
    "temporary table": (
        "CREATE TEMP TABLE left_over (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)",
        "SELECT count(*) FROM pg_class WHERE relname = 'left_over'",
    ),
    "temporary view": (
        "CREATE TEMP VIEW left_over_view AS SELECT 1",
        "SELECT count(*) FROM pg_class WHERE relname = 'left_over_view'",
    ),
    "temporary function": (
        "CREATE FUNCTION pg_temp.left_over() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT count(*) FROM pg_proc WHERE proname = 'left_over'",
    ),
    "prepared statement": (
        "PREPARE left_over AS SELECT 1",
        "SELECT count(*) FROM pg_prepared_statements",
    ),
    "cursor": (
        "DECLARE left_over CURSOR WITH HOLD FOR SELECT * FROM left_over",
        "SELECT count(*) FROM pg_cursors WHERE name = 'left_over'",
    ),
    "channel": ("LISTEN left_over", "SELECT count(*) FROM pg_listening_channels()"),
    "setting": (
        "SET work_mem = '1234kB'",
        "SELECT count(*) FROM pg_settings WHERE name = 'work_mem' AND setting = '1234'",
    ),
    "custom setting": (
        "SELECT set_config('left.over', 'x', false)",
        "SELECT count(*) FROM (SELECT current_setting('left.over', true) AS v) s WHERE v > ''",
    ),
}
LOCKS = {
    "lock": "SELECT pg_advisory_lock(-5)",
    "lock taken three times": "SELECT pg_advisory_lock(6) FROM generate_series(1, 3)",
    "shared lock": "SELECT pg_advisory_lock_shared(9223372036854775807) FROM generate_series(1, 2)",
    "lock of two keys": "SELECT pg_advisory_lock(-7, 8), pg_try_advisory_lock_shared(-7, 8)",
}
LEAVE = [sql for sql, _ in KINDS.values()]
# its deferred trigger runs at COMMIT, and the table cannot be dropped before
FILL = "INSERT INTO left_over VALUES (1)"
USE = [FILL, "SELECT * FROM left_over", "EXECUTE left_over", "FETCH left_over"]

LOCKS_SEEN = (
    "SELECT 'lock', count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    " AND (objsubid = 2 OR objid IN (4294967291, 6, 4294967295))"
)
SEEN = " UNION ALL ".join(f"SELECT '{kind}', ({count})" for kind, (_, count) in KINDS.items())
SEE = f"INSERT INTO seen {SEEN} UNION ALL {LOCKS_SEEN}"
SEE_OUTSIDE_LOCKS = f"INSERT INTO seen {SEEN}"
HELD = (
    "CREATE TABLE held AS SELECT count(*) AS locks FROM pg_locks"
    " WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
)
SETUP = "CREATE TABLE seen (what text, count bigint)"

SQL = ";\n".join(LEAVE)
ALL_SQL = ";\n".join([*LEAVE, *LOCKS.values(), *USE])


def python(statements: list[str], *, transactional: bool = True) -> str:
    """A migration with one step, a function."""
    return (
        f"from yoyo import step\n__transactional__ = {transactional}\n"
        "def leave(connection):\n"
        f"    for sql in {statements!r}:\n"
        "        connection.execute(sql)\n"
        "step(leave)\n"
    )


EVERYTHING = [*LEAVE, *LOCKS.values(), *USE]
IN_PARTS = f"-- transactional: false\n{ALL_SQL}"
STEPS = "from yoyo import step\n__transactional__ = False\n" + "".join(
    f"step({sql!r})\n" for sql in EVERYTHING
)
MIGRATIONS = {
    "sql": ("0002_leave.sql", ALL_SQL),
    "sql in parts": ("0002_leave.sql", IN_PARTS),
    "python": ("0002_leave.py", python(EVERYTHING)),
    "python in parts": ("0002_leave.py", python(EVERYTHING, transactional=False)),
    "python in steps of SQL": ("0002_leave.py", STEPS),
}
migrations = pytest.mark.parametrize(("name", "text"), MIGRATIONS.values(), ids=MIGRATIONS)


def assert_session_was_empty(database: Database, *, locks: bool = True) -> None:
    kinds = [*KINDS, "lock"] if locks else [*KINDS]
    assert sorted(database.query("SELECT what, count FROM seen")) == sorted(
        (kind, 0) for kind in kinds
    )


@migrations
def test_next_migration_has_an_empty_session(
    database: Database, initmig: Initmig, folder: Path, name: str, text: str
) -> None:
    write(folder, {"0001_setup.sql": SETUP, name: text, "0003_see.sql": f"{SEE}; {HELD}"})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert "warning" not in result.err.lower()
    assert "NOTICE" not in result.err
    assert_session_was_empty(database)
    # the migration lock is the only one
    assert database.value("SELECT locks FROM held") == 1


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_next_rollback_has_an_empty_session(
    database: Database, initmig: Initmig, folder: Path, transactional: str
) -> None:
    database.execute(SETUP)
    write(
        folder,
        {
            "0001_see.sql": "SELECT 1",
            "0001_see.rollback.sql": SEE,
            "0002_leave.sql": f"-- transactional: {transactional}\nSELECT 1",
            "0002_leave.rollback.sql": ALL_SQL,
        },
    )
    assert initmig(url=database.url, folder=folder).code == 0
    result = initmig("rollback", "--all", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert_session_was_empty(database)


def test_next_hook_has_an_empty_session(database: Database, initmig: Initmig, folder: Path) -> None:
    hooks = {"post-apply.1.sql": ALL_SQL, "post-apply.2.sql": SEE}
    write(folder, {"0001_setup.sql": SETUP, **hooks})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert_session_was_empty(database)


@pytest.mark.parametrize("kind", ["sql", "python"])
def test_next_migration_with_transaction_all_has_an_empty_session(
    database: Database, initmig: Initmig, folder: Path, kind: str
) -> None:
    name, text = MIGRATIONS[kind]
    write(folder, {"0001_setup.sql": SETUP, name: text, "0003_see.sql": SEE_OUTSIDE_LOCKS})
    result = initmig("--transaction=all", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert_session_was_empty(database, locks=False)


def test_deferred_constraint_is_checked_at_the_commit_with_transaction_all(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    deferred = (
        "CREATE TABLE p (id int PRIMARY KEY);"
        "CREATE TABLE q (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO q VALUES (1);"
    )
    write(folder, {"0001_a.sql": deferred + SQL, "0002_b.sql": "INSERT INTO p VALUES (1)"})
    result = initmig("--transaction=all", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert database.value("SELECT count(*) FROM q") == 1


def test_next_migration_of_a_rehearsal_has_an_empty_session(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    refuse = (
        "DO $$ DECLARE each record; BEGIN FOR each IN"
        f" SELECT * FROM ({SEEN}) AS s(what, count) WHERE count > 0"
        " LOOP RAISE EXCEPTION 'met a %', each.what; END LOOP; END $$"
    )
    write(folder, {"0001_leave.sql": ";\n".join([*LEAVE, *USE]), "0002_see.sql": refuse})
    result = initmig("rehearse", url=database.url, folder=folder)
    assert result.code == 0, result.out + result.err


def test_migration_lock_is_held_while_the_session_is_emptied(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE TABLE gate ()")
    leaving = "SELECT pg_advisory_lock(6)"
    write(folder, {f"{n:04}_t.sql": leaving for n in range(1, 61)} | {"0000_t.sql": WAIT_FOR_GATE})
    running = initmig.start(url=database.url, folder=folder)
    held = (
        "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks l JOIN pg_database d"
        " ON d.oid = l.database WHERE locktype = 'advisory' AND datname = current_database()"
    )
    wait_until(lambda: database.value(ASLEEP) == 1)
    look = f"SELECT pg_try_advisory_lock_shared({database.value(held)})"
    database.execute("DROP TABLE gate")
    with database.connect() as other:
        while other.execute(look.encode()).fetchone() == (False,):
            pass
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 61
    assert running.result().code == 0


def test_permanent_table_is_used_after_a_temporary_table_with_its_name(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_leave.sql": "CREATE TEMP TABLE users (name text)",
            "0002_users.sql": "CREATE TABLE users (name text); INSERT INTO users VALUES ('a')",
            "0003_read.sql": "CREATE TABLE read AS SELECT * FROM users",
        },
    )
    assert initmig(url=database.url, folder=folder).code == 0
    assert database.query("SELECT * FROM users") == [("a",)]
    assert database.query("SELECT * FROM read") == [("a",)]


FAILING = {
    "sql": ("0002_t.sql", ";\n".join([*LEAVE, *LOCKS.values(), "LOCK TABLE seen"])),
    "python": ("0002_t.py", python([*LEAVE, *LOCKS.values(), "LOCK TABLE seen"])),
    "python in parts": (
        "0002_t.py",
        python(
            [*LEAVE, *LOCKS.values(), "ALTER TABLE seen ADD IF NOT EXISTS n int"],
            transactional=False,
        ),
    ),
}


@pytest.mark.parametrize(("name", "text"), FAILING.values(), ids=FAILING)
def test_retry_after_a_lock_timeout_has_an_empty_session(
    database: Database, initmig: Initmig, folder: Path, name: str, text: str
) -> None:
    database.execute(SETUP)
    write(folder, {name: text})
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE seen")
        running = initmig.start("--lock-timeout=100ms", url=database.url, folder=folder)
        running.wait_for_line("lock timeout")
    result = running.result()
    assert result.code == 0, result.err


def test_statement_prepared_by_psycopg_is_prepared_again(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    step = (
        "from yoyo import step\n"
        "def work(connection):\n"
        "    connection.prepare_threshold = 0\n"
        "    for n in range(2):\n"
        "        connection.execute('SELECT %s::int', [n])\n"
        "step(work)\n"
    )
    write(folder, {"0001_a.py": step, "0002_b.py": step})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err


def test_session_that_cannot_be_emptied_is_replaced_after_the_migration(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(f"CREATE TABLE gate (); {SETUP}")
    leaving = f"-- transactional: false\n{SQL};\n{WAIT_FOR_GATE}"
    write(folder, {"0001_leave.sql": leaving, "0002_see.sql": SEE})
    running = initmig.start("--lock-timeout=200ms", url=database.url, folder=folder)
    temporary = "SELECT oid::regclass::text FROM pg_class WHERE relname = 'left_over'"
    wait_until(lambda: bool(database.query(temporary)))
    with database.connect() as other:
        name = database.value(temporary)
        other.execute(f"BEGIN; LOCK TABLE {name} IN ACCESS SHARE MODE".encode())
        database.execute("DROP TABLE gate")
        result = running.result()
    assert result.code == 0, result.err
    assert result.err.count("could not reset the session after the migration") == 1
    assert result.err.count(" applied 000") == 2
    assert database.query("SELECT migration_id FROM _yoyo_log ORDER BY created_at_utc") == [
        ("0001_leave",),
        ("0002_see",),
    ]
    counts = "SELECT what, sum(count) FROM seen WHERE what LIKE 'setting%' GROUP BY what"
    assert {count for _, count in database.query(counts)} == {0}


def test_lock_is_released_if_the_session_cannot_be_reset(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    url = database.login_role("GRANT ALL ON SCHEMA public TO {role}")
    role = urlsplit(url).username
    rename = f"DO $$ BEGIN EXECUTE 'RE' || 'S' || 'ET ROLE'; ALTER ROLE {role} RENAME TO x; END $$"
    write(folder, {"0001_rename.sql": rename.replace("TO x", f"TO {role}_x")})
    try:
        result = initmig(f"--role={role}", url=database.url, folder=folder)
    finally:
        database.execute(f"ALTER ROLE {role}_x RENAME TO {role}")
    assert result.code == 0, result.err
    assert f': role "{role}" does not exist' in result.err
    assert database.query("SELECT migration_id FROM _yoyo_migration") == [("0001_rename",)]
    assert database.query("SELECT * FROM yoyo_lock") == []


@pytest.mark.parametrize("name", ["0002_b.sql", "0002_b.py"])
def test_migration_is_applied_once_if_the_connection_is_lost_after_its_commit(
    database: Database, proxy: Proxy, initmig: Initmig, folder: Path, name: str
) -> None:
    files = {"0002_b.sql": "CREATE TABLE b ()", "0002_b.py": python(["CREATE TABLE b ()"])}
    write(folder, {"0001_a.sql": SETUP, name: files[name], "0003_c.sql": SEE})
    commits: list[int] = []
    done: list[bytes] = []

    def cut(message: Message) -> Verdict:
        done.append(message.payload)
        if message.payload == b"BEGIN\0":
            done.clear()
        # a migration is recorded in three tables
        if message.payload != b"COMMIT\0" or done.count(b"INSERT 0 1\0") < 3:
            return "forward"
        commits.append(message.number)
        return "cut" if len(commits) == 2 else "forward"

    proxy.passed = cut
    result = initmig(url=proxy.url(database.name), folder=folder)
    assert result.code == 0, result.err
    assert "could not reset the session after the migration" in result.err
    assert [result.err.count(f" applied 000{n}") for n in (1, 2, 3)] == [1, 1, 1]
    assert database.value("SELECT count(*) FROM _yoyo_log") == 3
    assert database.query("SELECT * FROM yoyo_lock") == []
    assert_session_was_empty(database)
