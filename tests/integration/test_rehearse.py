"""`rehearse` runs the pending migrations, reports their effects, and rolls everything back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.databases import ASLEEP, WAIT_FOR_GATE
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo

TABLES = """
CREATE TABLE users (id int PRIMARY KEY, name text, n int, remark text);
CREATE INDEX users_n ON users (n);
CREATE TABLE orders (id int PRIMARY KEY, user_id int);
CREATE VIEW names AS SELECT name FROM users;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM orders;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
INSERT INTO users SELECT i, 'x', i FROM generate_series(1, 100) i;
INSERT INTO orders SELECT i, i FROM generate_series(1, 10) i;
ALTER TABLE users ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
"""


# The parts of the catalog that migrations change, and the locks of other sessions.
CATALOG = """
SELECT 'relation', c.relname::text,
    concat_ws(' ', c.relkind, c.relfilenode, c.relnatts, c.reloptions)
FROM pg_class c WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'column', attrelid::regclass::text, concat_ws(' ', attname, atttypid, attnotnull)
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'constraint', conname::text, concat_ws(' ', contype, convalidated)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgname::text, tgrelid::regclass::text FROM pg_trigger
UNION ALL SELECT 'function', proname::text, '' FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'lock', mode, relation::regclass::text
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'
ORDER BY 1, 2, 3"""


def everything(database: Database) -> list[tuple[Any, ...]]:
    """The state of the database: catalog, data, history and locks."""
    rows = [
        (name, str(row))
        for name in sorted(database.tables())
        for row in database.query(f"SELECT * FROM {name} AS row ORDER BY row::text")
    ]
    return [*database.query(CATALOG), *rows]


@pytest.fixture
def migrated(database: Database, initmig: Initmig, folder: Path) -> Database:
    """A database with tables and rows. Files that a test adds to *folder* are pending."""
    write(folder, {"0001_tables.sql": TABLES})
    assert initmig(url=database.url, folder=folder).code == 0
    return database


def rehearsed(result: Result) -> dict[str, dict[str, Any]]:
    """The migrations in the output of `--json`, by id."""
    return {each["id"]: each for each in json.loads(result.out)["migrations"]}


@pytest.fixture
def populated(database: Database) -> Database:
    """A database with the same tables, without a history."""
    database.execute(TABLES)
    return database


def impacts(initmig: Initmig, database: Database, folder: Path, sql: str) -> list[dict[str, Any]]:
    """The impact of each statement of *sql*, by table. Asserts that nothing else changes."""
    before = everything(database)
    write(folder, {"0002_next.sql": sql})
    result = initmig("rehearse", "--json", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert everything(database) == before
    statements = rehearsed(result)["0002_next"]["statements"]
    return [{each.pop("table"): each for each in one["tables"]} for one in statements]


AE, SRE, SUE = "ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE new (id int)", []),
        ("CREATE TABLE new (user_id int REFERENCES users)", [("users", SRE, "writes")]),
        ("ALTER TABLE users ADD note text", [("users", AE, "reads and writes")]),
        ("ALTER TABLE users ADD note text DEFAULT 'x'", [("users", AE, "reads and writes")]),
        (
            "ALTER TABLE users ADD token float DEFAULT random()",
            [("users", AE, "reads and writes", "rewritten", "scanned")],
        ),
        ("ALTER TABLE users ALTER remark TYPE varchar", [("users", AE, "reads and writes")]),
        (
            "ALTER TABLE users ALTER n TYPE bigint",
            [("users", AE, "reads and writes", "rewritten", "scanned")],
        ),
        (
            "ALTER TABLE users ALTER name SET NOT NULL",
            [("users", AE, "reads and writes", "scanned")],
        ),
        (
            "ALTER TABLE users ADD CHECK (n < 1000) NOT VALID",
            [("users", AE, "reads and writes")],
        ),
        (
            "ALTER TABLE users ADD CHECK (n < 1000)",
            [("users", AE, "reads and writes", "scanned")],
        ),
        (
            "ALTER TABLE users VALIDATE CONSTRAINT positive",
            [("users", SUE, "DDL alone", "scanned")],
        ),
        ("CREATE INDEX ON users (name)", [("users", "SHARE", "writes", "scanned")]),
        ("DROP INDEX users_n", [("users", AE, "reads and writes")]),
        ("REINDEX INDEX users_n", [("users", AE, "reads and writes", "scanned")]),
        ("ALTER INDEX users_n RENAME TO other", [("users", SUE, "DDL alone")]),
        (
            "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
            [("users", SRE, "writes")],
        ),
        ("SELECT count(*) FROM orders", [("orders", "ACCESS SHARE", "DDL alone", "scanned")]),
        (
            "SELECT FROM orders FOR UPDATE",
            [("orders", "ROW SHARE", "DDL alone", "scanned")],
        ),
        (
            "INSERT INTO orders VALUES (11, 1), (12, 1)",
            [("orders", "ROW EXCLUSIVE", "DDL alone", 2)],
        ),
        (
            "UPDATE orders SET user_id = 1",
            [("orders", "ROW EXCLUSIVE", "DDL alone", "scanned", 10)],
        ),
        ("DELETE FROM orders", [("orders", "ROW EXCLUSIVE", "DDL alone", "scanned", 10)]),
        ("LOCK TABLE orders IN SHARE MODE", [("orders", "SHARE", "writes")]),
        ("LOCK TABLE orders IN EXCLUSIVE MODE", [("orders", "EXCLUSIVE", "writes")]),
        ("ANALYZE orders", [("orders", SUE, "DDL alone")]),
        ("TRUNCATE orders", [("orders", AE, "reads and writes", "rewritten", "scanned")]),
        ("DROP TABLE orders CASCADE", [("orders", AE), ("totals", AE)]),
        (
            "CREATE OR REPLACE VIEW names AS SELECT name, n FROM users",
            [("names", AE, "reads and writes"), ("users", "ACCESS SHARE", "DDL alone")],
        ),
        ("DO $$ BEGIN INSERT INTO orders VALUES (11, 1); END $$", [("orders", "ROW EXCLUSIVE", 1)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lock_rewrite_scan_and_rows_of_each_statement_are_reported(
    populated: Database,
    initmig: Initmig,
    folder: Path,
    sql: str,
    expected: Sequence[tuple[str | int, ...]],
) -> None:
    [found] = impacts(initmig, populated, folder, sql)
    assert set(found) == {name for name, *_ in expected}
    for name, lock, *facts in expected:
        impact = found[str(name)]
        assert impact["lock"] == lock
        assert impact["rewritten"] == ("rewritten" in facts)
        assert impact["scanned"] == ("scanned" in facts)
        assert impact["rows_written"] == sum(each for each in facts if isinstance(each, int))
        for blocks in {"reads and writes", "writes", "DDL alone"} & {*facts}:
            assert impact["blocks"] == blocks


def test_foreign_key_blocks_writes_to_both_tables(
    populated: Database, initmig: Initmig, folder: Path
) -> None:
    sql = "ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users"
    [found] = impacts(initmig, populated, folder, sql)
    assert {name: each["lock"] for name, each in found.items()} == {"orders": SRE, "users": SRE}
    assert {each["blocks"] for each in found.values()} == {"writes"}
    assert found["orders"]["scanned"]


def test_rows_of_a_scan_are_counted(populated: Database, initmig: Initmig, folder: Path) -> None:
    [found] = impacts(initmig, populated, folder, "ALTER TABLE users VALIDATE CONSTRAINT positive")
    assert found["users"]["rows_read"] == 100


def test_lock_is_reported_when_it_is_taken_or_strengthened(
    populated: Database, initmig: Initmig, folder: Path
) -> None:
    sql = (
        "SELECT count(*) FROM users; CREATE INDEX ON users (name); SELECT count(*) FROM users;"
        "ALTER TABLE users ADD a int; UPDATE users SET n = 1 WHERE id = 1"
    )
    locks = [found["users"]["lock"] for found in impacts(initmig, populated, folder, sql)]
    assert locks == ["ACCESS SHARE", "SHARE", None, AE, None]


def test_tables_locked_by_earlier_migrations_are_reported(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    files = {
        "0002_a.sql": "ALTER TABLE users ADD a int",
        "0003_b.sql": "UPDATE users SET a = 1; ALTER TABLE users ADD b int",
    }
    write(folder, files)
    found = rehearsed(initmig("rehearse", "--json", url=migrated.url, folder=folder))
    assert found["0002_a"]["locked_before"] == []
    assert {"table": "users", "lock": AE} in found["0003_b"]["locked_before"]
    # each statement shows the strongest lock of its migration, without earlier migrations
    [first, second] = found["0003_b"]["statements"]
    assert first["tables"][0]["lock"] == "ROW EXCLUSIVE"
    assert second["tables"] == []
    shown = initmig("rehearse", url=migrated.url, folder=folder).out
    assert "0003_b: earlier migrations have locked users (ACCESS EXCLUSIVE)," in shown


def test_rehearsal_leaves_nothing_in_an_empty_database(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    before = everything(database)
    write(
        folder,
        {
            "0001_tables.sql": TABLES,
            "0002_data.py": "from yoyo import step\nstep('UPDATE users SET n = 5')\n",
            "post-apply.sql": "ANALYZE users",
        },
    )
    result = initmig("rehearse", "--json", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert {id: each["state"] for id, each in rehearsed(result).items()} == dict.fromkeys(
        ("0001_tables", "0002_data", "post-apply"), "rehearsed"
    )
    assert everything(database) == before == []


def test_role_without_superuser_can_rehearse_its_migrations(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    url = database.login_role("GRANT ALL ON SCHEMA public TO {role}")
    write(folder, {"0001_tables.sql": TABLES})
    assert initmig(url=url, folder=folder).code == 0
    write(folder, {"0002_next.sql": "ALTER TABLE users ALTER n TYPE bigint"})
    result = initmig("rehearse", "--json", url=url, folder=folder)
    [statement] = rehearsed(result)["0002_next"]["statements"]
    [impact] = statement["tables"]
    assert (impact["lock"], impact["rewritten"], impact["scanned"]) == (AE, True, True)


def test_role_without_create_privilege_is_refused(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    write(folder, {"0001_tables.sql": TABLES})
    url = database.login_role()
    result = initmig("rehearse", url=url, folder=folder)
    assert result.code == 4
    assert "permission denied for schema public (42501)" in result.err


def test_nothing_pending_is_reported(migrated: Database, initmig: Initmig, folder: Path) -> None:
    before = everything(migrated)
    for flag in ((), ("--markdown",)):
        result = initmig("rehearse", *flag, url=migrated.url, folder=folder)
        assert (result.code, result.out) == (0, "nothing is pending\n")
        assert "nothing to do: 1 migration, all applied" in result.err
    result = initmig("rehearse", "--json", url=migrated.url, folder=folder)
    assert (result.code, json.loads(result.out)["migrations"]) == (0, [])
    assert everything(migrated) == before


def test_to_flag_limits_the_rehearsal(migrated: Database, initmig: Initmig, folder: Path) -> None:
    write(folder, {"0002_a.sql": "SELECT 1", "0003_b.sql": "SELECT 1"})
    result = initmig("rehearse", "--json", "--to=0002", url=migrated.url, folder=folder)
    assert list(rehearsed(result)) == ["0002_a"]


def test_text_has_a_line_for_each_statement_and_table_and_a_summary(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0002_a.sql": "-- a comment\n"
            "ALTER TABLE users ADD token float DEFAULT random();\n"
            "CREATE INDEX ON orders (user_id);\n",
            "0003_b.py": "from yoyo import step\nstep('UPDATE orders SET user_id = 1')\n",
        },
    )
    result = initmig("rehearse", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    head, first, second, third, empty, *summary = result.out.splitlines()
    assert re.sub(" +", " ", head) == (
        "statement took table lock blocks rewritten scanned written SQL"
    )
    assert first.startswith("0002_a:2 ")
    assert "users   ACCESS EXCLUSIVE  reads and writes  yes" in first
    assert first.endswith("ALTER TABLE users ADD token float DEFAULT random()")
    assert second.startswith("0002_a:3 ")
    assert "orders  SHARE             writes" in second
    assert third.startswith("0003_b ")
    assert third.endswith("10 rows   10 rows  (Python)")
    assert empty == ""
    assert summary[0] == "rehearsed 2 of 2 migrations in one transaction, which was rolled back"
    assert summary[1].startswith("blocks reads and writes: 0002_a:2 (users) for ")
    assert summary[2].startswith("blocks writes: 0002_a:3 (orders) for ")
    assert summary[3] == "rewrites a table: 0002_a:2 (users)"
    assert summary[4].startswith("longest statement: 000")
    assert len(summary) == 6, "the last line reports that orders is locked before 0003_b"


def test_markdown_has_the_summary_on_top_and_is_escaped(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    sql = "COMMENT ON TABLE users IS 'a | b `c`'; CREATE TABLE \"a|b*\" (); SELECT 1"
    migrated.execute('CREATE TABLE "<x|y>" ()')
    write(folder, {"0002_a.sql": f'{sql}; ALTER TABLE "<x|y>" ADD a int'})
    result = initmig("rehearse", "--markdown", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "### Rehearsal of the pending migrations"
    assert lines[2] == "- rehearsed 1 of 1 migration in one transaction, which was rolled back"
    assert lines[3].startswith('- blocks reads and writes: `0002_a:1:74 ("<x|y>")` for ')
    table = [line for line in lines if line.startswith("|")]
    assert lines.index(table[0]) > lines.index(lines[3])
    columns = {line.replace(r"\|", "").count("|") for line in table}
    assert columns == {10}
    assert r"`COMMENT ON TABLE users IS 'a \| b 'c''`" in result.out


def test_json_and_markdown_exclude_each_other(initmig: Initmig, folder: Path) -> None:
    result = initmig("rehearse", "--json", "--markdown", folder=folder)
    assert result.code == 2
    assert "[conflicting-flags]" in result.err


def test_output_masks_secrets(migrated: Database, initmig: Initmig, folder: Path) -> None:
    migrated.execute("DROP ROLE IF EXISTS rehearsed")
    write(folder, {"0002_a.sql": "CREATE ROLE rehearsed PASSWORD 'hunter2'"})
    for flag in ((), ("--json",), ("--markdown",)):
        result = initmig("rehearse", *flag, url=migrated.url, folder=folder)
        assert result.code == 0, result.err
        assert "CREATE ROLE rehearsed PASSWORD ***" in result.out.replace("\\", "")
        assert "hunter2" not in result.out + result.err
    assert migrated.query("SELECT FROM pg_roles WHERE rolname = 'rehearsed'") == []


@pytest.mark.parametrize(
    "failing",
    [
        (
            {"0003_b.sql": "CREATE TABLE b ();\nUPDATE users SET\n  n = emial;\n"},
            "0003_b.sql:3:7",
            'column "emial" does not exist (42703)',
        ),
        (
            {"0003_b.sql": "CREATE TABLE b ();\n\n  INSERT INTO users VALUES (1);\n"},
            "0003_b.sql:3:3",
            "duplicate key value",
        ),
        (
            {"0003_b.sql": "CREATE INDEX CONCURRENTLY ON users (name)"},
            "0003_b.sql:1:1",
            "cannot run inside a transaction block (25001)",
        ),
        ({"0003_b.sql": "SELECT 1;\n SELECT (2"}, "0003_b.sql:2:11", "syntax error"),
        (
            {"0003_b.py": "from yoyo import step\ndef f(c):\n    1 / 0\nstep(f)\n"},
            "0003_b.py:3",
            "ZeroDivisionError",
        ),
        (
            {"0003_b.py": "from yoyo import step\nstep('SELECT 1')\nstep('SELECT x')\n"},
            "0003_b.py:3:14",
            'column "x" does not exist',
        ),
    ],
    ids=["position", "statement", "concurrently", "syntax", "exception", "step"],
)
def test_failure_names_the_same_place_as_migrate_and_rolls_back(
    migrated: Database, initmig: Initmig, folder: Path, failing: tuple[dict[str, str], str, str]
) -> None:
    files, place, words = failing
    write(folder, {"0002_a.sql": "ALTER TABLE users ADD a int", **files, "0004_c.sql": "SELECT 1"})
    before = everything(migrated)
    result = initmig("rehearse", "--json", url=migrated.url, folder=folder)
    assert result.code == 1
    assert f"{folder}/{place}: 0003_b" in result.err
    assert words in result.err
    assert "[migration-failed]" in result.err
    assert ("and rehearse again" in result.err) == (words != "ZeroDivisionError")
    found = {id: each["state"] for id, each in rehearsed(result).items()}
    assert found == {"0002_a": "rehearsed", "0003_b": "failed"}
    assert json.loads(result.out)["error"].startswith("0003_b")
    assert everything(migrated) == before
    write(folder, {"0004_c.sql": "SELECT 1"})
    shown = initmig("rehearse", url=migrated.url, folder=folder)
    assert "0002_a:1" in shown.out
    assert "rehearsed 1 of 3 migrations" in shown.out
    assert "failed: 0003_b" in shown.out
    real = initmig("migrate", "--to=0003", url=migrated.url, folder=folder)
    assert f"{folder}/{place}: 0003_b" in real.err


def test_lock_timeout_names_the_blocker_and_is_not_retried(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0002_a.sql": "CREATE TABLE a ();\nALTER TABLE users ADD a int"})
    with psycopg.connect(migrated.url, application_name="the app") as other:
        other.execute("SELECT FROM users")
        result = initmig("rehearse", "--lock-timeout=3s", url=migrated.url, folder=folder)
        pid = other.info.backend_pid
    assert result.code == 1
    assert f"{folder}/0002_a.sql:2:1: 0002_a failed: canceling statement due to" in result.err
    assert f"blocked by pid {pid} (the app, user postgres" in result.err
    assert "next: rolled back; rehearse again when the database is less busy" in result.err
    assert "retry" not in result.err
    assert "a" not in migrated.tables()


def test_statement_timeout_fails_the_rehearsal(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0002_a.sql": "SELECT pg_sleep(60)"})
    result = initmig("rehearse", "--statement-timeout=100ms", url=migrated.url, folder=folder)
    assert result.code == 1
    assert "statement timeout (57014)" in result.err
    assert "next: rolled back; raise --statement-timeout" in result.err


NOT_TRANSACTIONAL = "-- transactional: false\nCREATE INDEX CONCURRENTLY c ON users (name);"


def test_migrations_that_cannot_be_rehearsed_are_listed_with_their_dependents(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0002_index.sql": NOT_TRANSACTIONAL,
            "0003_after.sql": "-- depends: 0002_index\nSELECT 1",
            "0004_after.sql": "-- depends: 0003_after\nSELECT 1",
            "0005_independent.sql": "ALTER TABLE orders ADD a int",
            "0006_vacuum.py": "from yoyo import step\n__transactional__ = False\nstep('VACUUM')\n",
        },
    )
    result = initmig("rehearse", "--json", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    found = {id: each["why_not"] for id, each in rehearsed(result).items()}
    reasons = [each["reason"] for each in rehearsed(result).values()]
    after = "depends-on-not-rehearsed"
    assert reasons == ["not-transactional", after, after, None, "not-transactional"]
    assert found == {
        "0002_index": "not transactional",
        "0003_after": "depends on 0002_index, which was not rehearsed",
        "0004_after": "depends on 0003_after, which was not rehearsed",
        "0005_independent": None,
        "0006_vacuum": "not transactional",
    }
    assert "not rehearsed: 0002_index: not transactional" in (
        initmig("rehearse", url=migrated.url, folder=folder).out
    )


def test_failure_after_a_migration_that_was_not_rehearsed_is_not_conclusive(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0002_index.sql": NOT_TRANSACTIONAL,
            "0003_rename.sql": "CREATE TABLE half (); ALTER INDEX c RENAME TO d",
            "0004_half.sql": "CREATE TABLE half ()",
            "0005_data.py": "from yoyo import step\ndef f(c):\n    1 / 0\nstep(f)\n",
        },
    )
    result = initmig("rehearse", "--json", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    found = rehearsed(result)
    states = [each["state"] for each in found.values()]
    assert states == ["not rehearsed", "not rehearsed", "rehearsed", "not rehearsed"]
    assert found["0003_rename"]["reason"] == "after-not-rehearsed"
    assert found["0003_rename"]["why_not"] == (
        f"may need 0002_index, which was not rehearsed: {folder}/0003_rename.sql:1:23:"
        ' 0003_rename failed: relation "c" does not exist'
    )
    assert len(found["0003_rename"]["statements"]) == 1


@pytest.mark.parametrize(
    ("sql", "words"),
    [("SELECT (1", "syntax error"), ("SELECT pg_sleep(60)", "statement timeout")],
    ids=["syntax", "timeout"],
)
def test_failure_that_no_missing_object_explains_fails_the_rehearsal(
    migrated: Database, initmig: Initmig, folder: Path, sql: str, words: str
) -> None:
    write(folder, {"0002_index.sql": NOT_TRANSACTIONAL, "0003_fails.sql": sql})
    result = initmig("rehearse", "--statement-timeout=200ms", url=migrated.url, folder=folder)
    assert result.code == 1
    assert words in result.err


def test_migration_that_sets_its_isolation_level_is_not_rehearsed(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    level = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1"
    write(folder, {"0002_level.sql": level, "0003_after.sql": "SELECT 1"})
    result = initmig("rehearse", "--json", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    found = rehearsed(result)
    assert found["0002_level"]["reason"] == "own-transaction"
    assert found["0002_level"]["why_not"].startswith("must run first in a transaction: ")
    assert found["0003_after"]["state"] == "rehearsed"
    assert initmig(url=migrated.url, folder=folder).code == 0


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_settings_of_a_file_do_not_affect_the_next_file(
    server: DatabaseServer, migrated: Database, initmig: Initmig, folder: Path, pooled: bool
) -> None:
    migrated.execute("CREATE SCHEMA elsewhere")
    sets = (
        "SET search_path = elsewhere; SET lock_timeout = '7s'; SET ROLE pg_monitor;"
        "SET client_encoding = 'LATIN1';\nSELECT 'ä'"
    )
    asserts = """DO $$ BEGIN
        ASSERT current_schema() = 'public' AND current_user = 'postgres';
        ASSERT current_setting('lock_timeout') = '3s';
        ASSERT length('ä') = 1;
    END $$"""
    write(
        folder,
        {
            "0002_sets.sql": sets,
            "0003_asserts.sql": asserts,
            "0004_sets.py": f"from yoyo import step\nstep({sets.splitlines()[0]!r})\n",
            "0005_asserts.sql": asserts,
        },
    )
    if pooled:
        with running_pgbouncer(server) as pooler:
            result = initmig(
                "rehearse", "--lock-timeout=3s", url=pooler.url(migrated.name), folder=folder
            )
    else:
        result = initmig("rehearse", "--lock-timeout=3s", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    assert "rehearsed 4 of 4" in result.out


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_rehearsal_through_a_pooler_needs_one_connection_and_leaves_nothing(
    server: DatabaseServer, migrated: Database, initmig: Initmig, folder: Path, mode: str
) -> None:
    write(folder, {"0002_a.sql": "ALTER TABLE users ADD token float DEFAULT random()"})
    before = everything(migrated)
    with running_pgbouncer(server, pool_mode=mode, default_pool_size=1) as pooler:
        result = initmig("rehearse", "--json", url=pooler.url(migrated.name), folder=folder)
        assert result.code == 0, result.err
        [statement] = rehearsed(result)["0002_a"]["statements"]
        assert statement["tables"][0]["rewritten"]
    wait_until(lambda: everything(migrated) == before)


DEFERRED = """
CREATE TABLE deferred (id int PRIMARY KEY,
    user_id int REFERENCES users DEFERRABLE INITIALLY DEFERRED,
    order_id int REFERENCES orders DEFERRABLE);
"""


def test_violation_that_a_commit_would_report_fails_the_rehearsal(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {"0002_a.sql": DEFERRED, "0003_b.sql": "INSERT INTO deferred VALUES (1, 999, 1)"},
    )
    result = initmig("rehearse", url=migrated.url, folder=folder)
    assert result.code == 1
    assert "0003_b.sql: 0003_b failed: insert or update on table" in result.err
    assert "violates foreign key constraint" in result.err


def test_deferred_constraints_are_checked_at_the_end_of_each_migration(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0002_a.sql": f"{DEFERRED} INSERT INTO deferred VALUES (1, 1, 1)",
            # PostgreSQL refuses this while a deferred check is pending
            "0003_b.sql": "ALTER TABLE deferred ADD b int",
            "0004_c.sql": "INSERT INTO deferred VALUES (2, 999, 1);"
            "INSERT INTO users VALUES (999, '', 1)",
            "0005_d.sql": "INSERT INTO deferred VALUES (3, 1, 1); ALTER TABLE users ADD d int",
        },
    )
    # the last one would fail in its own transaction, too, because its check is deferred
    result = initmig("rehearse", "--to=0004", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    write(folder, {"0005_d.sql": "INSERT INTO deferred VALUES (3, 1, 999)"})
    result = initmig("rehearse", url=migrated.url, folder=folder)
    assert f"{folder}/0005_d.sql:1:1: 0005_d failed" in result.err, "not only at the COMMIT"


@pytest.mark.parametrize(
    "before",
    [{}, {"0002_index.sql": NOT_TRANSACTIONAL}],
    ids=["", "after one that is not rehearsed"],
)
def test_step_that_commits_fails_the_rehearsal_and_nothing_runs_after_it(
    migrated: Database, initmig: Initmig, folder: Path, before: dict[str, str]
) -> None:
    commits = "from yoyo import step\ndef f(c):\n    c.pgconn.exec_(b'COMMIT')\nstep(f)\n"
    write(folder, {**before, "0003_commits.py": commits, "0004_a.sql": "CREATE TABLE a ()"})
    result = initmig("rehearse", url=migrated.url, folder=folder)
    assert result.code == 1
    assert "0003_commits ended the transaction that initmig opened for it" in result.err
    assert "a" not in migrated.tables()


def test_rehearsals_and_migrators_wait_for_each_other(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    migrated.execute("CREATE TABLE gate ()")
    write(folder, {"0002_a.sql": f"{WAIT_FOR_GATE} CREATE TABLE a ()"})
    first = initmig.start("rehearse", url=migrated.url, folder=folder)
    wait_until(lambda: migrated.value(ASLEEP) == 1)
    second = initmig("rehearse", "--queue-timeout=1s", url=migrated.url, folder=folder)
    assert second.code == 5
    assert "waiting for another migrator: pid" in second.err
    with pytest.raises(psycopg.errors.LockNotAvailable):
        migrated.execute("SET lock_timeout = '200ms'; INSERT INTO yoyo_lock VALUES (1, now(), 1)")
    migrating = initmig.start(url=migrated.url, folder=folder)
    migrating.wait_for_line("waiting for another migrator")
    migrated.execute("DROP TABLE gate")
    assert first.result().code == 0
    assert migrating.result().code == 0
    assert "a" in migrated.tables()


def test_rehearsal_waits_for_a_migrator_and_has_nothing_left_to_do(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    migrated.execute("CREATE TABLE gate ()")
    write(folder, {"0002_a.sql": f"{WAIT_FOR_GATE} CREATE TABLE a ()"})
    migrating = initmig.start(url=migrated.url, folder=folder)
    wait_until(lambda: migrated.value(ASLEEP) == 1)
    rehearsing = initmig.start("rehearse", url=migrated.url, folder=folder)
    rehearsing.wait_for_line("waiting for another migrator")
    migrated.execute("DROP TABLE gate")
    assert migrating.result().code == 0
    result = rehearsing.result()
    assert (result.code, result.out) == (0, "nothing is pending\n")


def test_lock_row_of_yoyo_blocks_and_that_of_a_dead_initmig_is_left_unchanged(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0002_a.sql": "CREATE TABLE a ()"})
    migrated.execute("INSERT INTO yoyo_lock VALUES (1, now(), 42)")
    before = everything(migrated)
    result = initmig("rehearse", "--queue-timeout=500ms", url=migrated.url, folder=folder)
    assert result.code == 5
    assert "process 42 has held the lock" in result.err
    assert everything(migrated) == before
    migrated.execute("UPDATE yoyo_lock SET pid = -42")
    before = everything(migrated)
    result = initmig("rehearse", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    assert everything(migrated) == before


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_interrupted_rehearsal_leaves_nothing_that_blocks_migrate(
    migrated: Database, initmig: Initmig, folder: Path, how: str
) -> None:
    migrated.execute("CREATE TABLE gate ()")
    write(folder, {"0002_a.sql": f"CREATE TABLE a (); {WAIT_FOR_GATE}"})
    before = everything(migrated)
    running = initmig.start("rehearse", url=migrated.url, folder=folder)
    wait_until(lambda: migrated.value(ASLEEP) == 1)
    if how == "killed":
        running.kill()
    else:
        running.terminate()
        assert running.result().code == 143
    wait_until(lambda: everything(migrated) == before)
    migrated.execute("DROP TABLE gate")
    result = initmig("migrate", "--queue-timeout=10s", url=migrated.url, folder=folder)
    assert result.code == 0, result.err
    assert "a" in migrated.tables()


def test_rehearsal_uses_the_schema_and_role(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute('CREATE SCHEMA "an App"')
    write(folder, {"0001_a.sql": "CREATE TABLE a (); CREATE TABLE b AS SELECT current_schema()"})
    flags = ("--schema", "an App", "--role", "postgres")
    result = initmig("rehearse", *flags, url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert database.tables("an App") == set()
    assert initmig(*flags, url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "ALTER TABLE b ADD x int"})
    result = initmig("rehearse", "--json", *flags, url=database.url, folder=folder)
    [statement] = rehearsed(result)["0002_b"]["statements"]
    assert statement["tables"][0]["table"] == "b"


def test_rehearsal_starts_again_after_a_lost_connection(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    migrated.execute("CREATE TABLE gate ()")
    write(folder, {"0002_a.sql": f"CREATE TABLE a (); {WAIT_FOR_GATE}"})
    running = initmig.start("rehearse", url=migrated.url, folder=folder)
    wait_until(lambda: migrated.value(ASLEEP) == 1)
    migrated.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        " AND datname = current_database()"
    )
    running.wait_for_line("the connection was lost")
    migrated.execute("DROP TABLE gate")
    result = running.result()
    assert result.code == 0, result.err
    assert "rehearsed 1 of 1" in result.out


def test_stock_yoyo_waits_for_a_rehearsal(
    migrated: Database, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    migrated.execute("CREATE TABLE gate ()")
    write(folder, {"0002_a.sql": f"{WAIT_FOR_GATE} CREATE TABLE a ()"})
    rehearsing = initmig.start("rehearse", url=migrated.url, folder=folder)
    wait_until(lambda: migrated.value(ASLEEP) == 1)
    applying = yoyo.start("apply", database=migrated, folder=folder)
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    wait_until(lambda: migrated.value(waits) == 1)
    migrated.execute("DROP TABLE gate")
    assert rehearsing.result().code == 0
    result = applying.result()
    assert result.code == 0, result.err
    assert "a" in migrated.tables()


def test_statements_on_one_line_are_shown_with_their_column(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0002_a.sql": "SELECT 1; SELECT 2;\n  SELECT 3;"})
    lines = initmig("rehearse", url=migrated.url, folder=folder).out.splitlines()
    names = [line.split()[0] for line in lines[1:4]]
    assert names == ["0002_a:1", "0002_a:1:11", "0002_a:2:3"]


def test_rehearsal_is_refused_for_the_same_reasons_as_migrate(
    migrated: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0000_early.sql": "SELECT 1", "0001_tables.sql": f"{TABLES} -- changed"})
    for flag in ("--out-of-order=fail", "--changed=fail"):
        result = initmig("rehearse", flag, url=migrated.url, folder=folder)
        assert (result.code, result.out) == (6, "")
    write(folder, {"0002_index.sql": NOT_TRANSACTIONAL})
    result = initmig("rehearse", "--transaction=all", url=migrated.url, folder=folder)
    assert result.code == 6
    assert "0002_index [not-transactional]" in result.err
