"""Statements that PostgreSQL refuses in a transaction: `plan` and `doctor` predict the failure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import initmig as library
from initmig.core.errors import MigrationFailed
from initmig.core.model import Migration, MigrationFile, Step
from initmig.sql.not_in_transaction import refused_in_transaction
from tests.support.databases import create_database
from tests.support.migrations import NO_CODE, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.servers import MakeServer

pytestmark = pytest.mark.each_version

# --- the prediction, compared with the server ---

NOWHERE = "CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p"
TABLES = f"""
CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE INDEX t_n ON t (n);
CREATE TABLE "Odd; name" (id int);
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parts DEFAULT;
CREATE INDEX parts_id ON parts (id);
CREATE TYPE mood AS ENUM ('sad');
CREATE MATERIALIZED VIEW totals AS SELECT 1 AS n;
CREATE UNIQUE INDEX totals_n ON totals (n);
CREATE SUBSCRIPTION idle {NOWHERE} WITH (connect = false);
CREATE SUBSCRIPTION busy {NOWHERE} WITH (connect = false);
CREATE SUBSCRIPTION slotless {NOWHERE} WITH (connect = false, slot_name = NONE);
ALTER SUBSCRIPTION busy ENABLE"""
CLEAN_UP = """
ALTER SUBSCRIPTION busy DISABLE; ALTER SUBSCRIPTION busy SET (slot_name = NONE);
ALTER SUBSCRIPTION idle SET (slot_name = NONE);
DROP SUBSCRIPTION busy; DROP SUBSCRIPTION idle; DROP SUBSCRIPTION slotless"""

REFUSED = [
    "VACUUM",
    "VACUUM t",
    "VACUUM (FULL, ANALYZE) t",
    'VACUUM "Odd; name"',
    "CREATE INDEX CONCURRENTLY ON t (n)",
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_n ON public.t (n)",
    "DROP INDEX CONCURRENTLY t_n",
    "DROP INDEX CONCURRENTLY IF EXISTS nowhere",
    "REINDEX INDEX CONCURRENTLY t_n",
    "REINDEX (CONCURRENTLY) TABLE t",
    "REINDEX (CONCURRENTLY on, VERBOSE) TABLE parts",
    "REINDEX SCHEMA public",
    "REINDEX SCHEMA CONCURRENTLY public",
    "REINDEX DATABASE {database}",
    "REINDEX SYSTEM {database}",
    "CLUSTER",
    "CLUSTER VERBOSE",
    "ALTER SYSTEM SET work_mem = '5MB'",
    "ALTER SYSTEM RESET ALL",
    "CREATE DATABASE another",
    "DROP DATABASE IF EXISTS nowhere",
    "ALTER DATABASE {database} SET TABLESPACE pg_default",
    "CREATE TABLESPACE space LOCATION '/nowhere'",
    "DROP TABLESPACE IF EXISTS nowhere",
    "ALTER TABLE parts DETACH PARTITION part_1 CONCURRENTLY",
    "COMMIT PREPARED 'nobody'",
    "ROLLBACK PREPARED 'nobody'",
    "DISCARD ALL",
    f"CREATE SUBSCRIPTION another {NOWHERE}",
    f"CREATE SUBSCRIPTION another {NOWHERE} WITH (enabled = off)",
    "ALTER SUBSCRIPTION busy REFRESH PUBLICATION",
    "ALTER SUBSCRIPTION busy SET PUBLICATION q",
    "ALTER SUBSCRIPTION busy ADD PUBLICATION q",
]
ACCEPTED = [
    "ANALYZE",
    "ANALYZE t",
    "CREATE INDEX ON t (n)",
    "DROP INDEX t_n",
    "REINDEX TABLE t",
    "REINDEX (CONCURRENTLY off) INDEX t_n",
    "CLUSTER t USING t_n",
    "ALTER DATABASE {database} SET work_mem = '5MB'",
    "ALTER DATABASE {database} CONNECTION LIMIT 50",
    "ALTER TABLE parts DETACH PARTITION part_1",
    "ALTER TYPE mood ADD VALUE 'happy'",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY totals",
    "REFRESH MATERIALIZED VIEW totals",
    "DISCARD TEMP",
    "CHECKPOINT",
    "LISTEN vacuum",
    "SELECT 'VACUUM; CREATE DATABASE x' AS reindex",
    "COMMENT ON TABLE t IS 'CREATE INDEX CONCURRENTLY'",
    f"CREATE SUBSCRIPTION another {NOWHERE} WITH (connect = false)",
    f"CREATE SUBSCRIPTION another {NOWHERE} WITH (connect = false, slot_name = NONE)",
    "DROP SUBSCRIPTION slotless",
    "DROP SUBSCRIPTION IF EXISTS nowhere",
    "ALTER SUBSCRIPTION busy SET PUBLICATION q WITH (refresh = false)",
    "ALTER SUBSCRIPTION busy SET (synchronous_commit = off)",
    "ALTER SUBSCRIPTION busy DISABLE",
]
SINCE = {"ALTER SUBSCRIPTION idle SET (failover = true)": 17}
"""Statements that the server refuses in a transaction since this version; older ones lack them."""
# The parser cannot decide these, because the result depends on objects in the database.
DATABASE_KNOWS = ["REINDEX TABLE parts", "REINDEX INDEX parts_id", "DROP SUBSCRIPTION idle"]


@pytest.fixture
def populated(database: Database) -> Iterator[Database]:
    for statement in TABLES.split(";\n"):
        database.execute(statement)
    yield database
    for statement in CLEAN_UP.split(";"):
        database.execute(statement)


def is_predicted(sql: str) -> bool:
    file = MigrationFile("0001_a", "m/0001_a.sql")
    step = Step(sql.encode(), b"")
    migration = Migration(file, "", True, False, frozenset(), (step,), NO_CODE)
    return any(refused_in_transaction([migration]))


def outcome(connection: psycopg.Connection, sql: str) -> str:
    """The SQLSTATE of the server's refusal, in a transaction that has already done something."""
    try:
        connection.execute("CREATE TABLE before ()")
        connection.execute(sql.encode())
    except psycopg.Error as error:
        return error.sqlstate or "none"
    finally:
        connection.rollback()
    return "done"


def test_prediction_agrees_with_the_server(populated: Database) -> None:
    names = {"database": populated.name}
    with populated.connect(autocommit=False) as connection:
        version = connection.info.server_version // 10_000
        refused = [*REFUSED, *(sql for sql, since in SINCE.items() if version >= since)]
        expected = {
            **dict.fromkeys(refused, (True, "25001")),
            **dict.fromkeys(ACCEPTED, (False, "done")),
            **dict.fromkeys(DATABASE_KNOWS, (False, "25001")),
        }
        found = {
            sql: (is_predicted(sql.format(**names)), outcome(connection, sql.format(**names)))
            for sql in expected
        }
    assert found == expected
    assert all(map(is_predicted, SINCE))


# --- the errors ---

STEP = "from yoyo import step\n"
PROCEDURE = {
    "0001_a.sql": "CREATE PROCEDURE commits() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';"
    " CREATE FUNCTION cleans() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''VACUUM''; END';"
    " CREATE TABLE t (id int)",
}
SQL_DIRECTIVE = "put `-- transactional: false` at the top of {folder}/0002_b.sql"
PYTHON_DIRECTIVE = "put `__transactional__ = False` at the top of {folder}/0002_b.py"
COMMITTING = f"{SQL_DIRECTIVE}, so that a procedure or DO block can commit"
MOVE_IT_TOO = (
    f"{SQL_DIRECTIVE}; if a function or DO block runs it, also move it to a separate statement"
)
NOT_IN_A_FUNCTION = "and not in a function or DO block"
NON_TRANSACTIONAL = "-- transactional: false\n"

# The file, the line of the error, and the last part of the next step.
ERRORS: dict[str, tuple[dict[str, str], int, str]] = {
    "a statement in SQL": (
        {"0002_b.sql": "SELECT 1;\nVACUUM t;"},
        2,
        f"run again: {SQL_DIRECTIVE}",
    ),
    "an index on a table that the file creates": (
        {"0002_b.sql": "CREATE TABLE u (n int);\nCREATE INDEX CONCURRENTLY ON u (n);"},
        2,
        SQL_DIRECTIVE,
    ),
    "SQL in a Python step": (
        {"0002_b.py": f"{STEP}step('SELECT 1')\nstep('VACUUM t')"},
        3,
        f"run again: {PYTHON_DIRECTIVE}",
    ),
    "a Python function": (
        {"0002_b.py": f"{STEP}def f(c):\n    c.execute('VACUUM t')\nstep(f)"},
        3,
        PYTHON_DIRECTIVE,
    ),
    "a function that runs it": ({"0002_b.sql": "SELECT cleans();"}, 1, MOVE_IT_TOO),
    "a DO block that runs it": (
        {"0002_b.sql": "DO 'BEGIN EXECUTE ''VACUUM''; END'"},
        1,
        MOVE_IT_TOO,
    ),
    "a procedure that commits": ({"0002_b.sql": "SELECT 1;\nCALL commits();"}, 2, COMMITTING),
    "a DO block that commits": ({"0002_b.sql": "DO 'BEGIN COMMIT; END'"}, 1, COMMITTING),
    "a DO block that rolls back": ({"0002_b.sql": "DO 'BEGIN ROLLBACK; END'"}, 1, COMMITTING),
    "a step that calls a procedure that commits": (
        {"0002_b.py": f"{STEP}step('CALL commits()')"},
        2,
        f"{PYTHON_DIRECTIVE}, so that a procedure or DO block can commit",
    ),
    "a hook": (
        {"0002_b.sql": "SELECT 1", "post-apply.sql": "\nVACUUM;"},
        2,
        "put `-- transactional: false` at the top of {folder}/post-apply.sql",
    ),
    "a block in a file that is not transactional": (
        {"0002_b.sql": f"{NON_TRANSACTIONAL}BEGIN;\nVACUUM;\nCOMMIT;"},
        3,
        f"run it as a separate statement, not between BEGIN and COMMIT {NOT_IN_A_FUNCTION}",
    ),
    "a DO block in a file that is not transactional": (
        {"0002_b.sql": f"{NON_TRANSACTIONAL}DO 'BEGIN EXECUTE ''VACUUM''; END'"},
        2,
        NOT_IN_A_FUNCTION,
    ),
    "a commit in a block of a file that is not transactional": (
        {"0002_b.sql": f"{NON_TRANSACTIONAL}BEGIN;\nCALL commits();\nCOMMIT;"},
        3,
        "not between BEGIN and COMMIT and not in a function",
    ),
    "a statement that no directive fixes": (
        {"0002_b.sql": "SELECT 1;\nSET TRANSACTION ISOLATION LEVEL SERIALIZABLE;"},
        2,
        "rolled back; fix the migration and run again",
    ),
}


@pytest.mark.any_version
@pytest.mark.parametrize("case", ERRORS)
def test_error_names_the_directive_and_the_file_it_belongs_in(
    database: Database, folder: Path, case: str
) -> None:
    files, line, next_step = ERRORS[case]
    write(folder, PROCEDURE | files)
    with pytest.raises(MigrationFailed) as caught:
        library.migrate(database_url=database.url, migrations=folder)
    [problem] = caught.value.problems
    assert problem.server.sqlstate in ("25001", "2D000")
    assert problem.place
    assert problem.place.line == line
    assert problem.hint.endswith(next_step.format(folder=folder))


@pytest.mark.any_version
def test_error_of_a_rollback_names_the_file_that_needs_the_directive(
    database: Database, folder: Path
) -> None:
    files = {"0002_b.sql": "SELECT 1", "0002_b.rollback.sql": "SELECT 1;\n\nVACUUM t;"}
    write(folder, PROCEDURE | files)
    library.migrate(database_url=database.url, migrations=folder)
    with pytest.raises(MigrationFailed) as caught:
        library.rollback(database_url=database.url, migrations=folder, steps=1)
    [problem] = caught.value.problems
    assert str(problem.place) == f"{folder}/0002_b.rollback.sql:3:1"
    assert problem.hint.endswith(SQL_DIRECTIVE.format(folder=folder))
    write(folder, {"0002_b.sql": f"{NON_TRANSACTIONAL}SELECT 1"})
    undone = library.rollback(database_url=database.url, migrations=folder, steps=1)
    assert undone.ids == ("0002_b",)


@pytest.mark.any_version
def test_transaction_all_suggests_the_directive_first_and_then_transaction_each(
    database: Database, folder: Path
) -> None:
    write(folder, PROCEDURE | {"0002_b.sql": "VACUUM t"})
    settings: Any = {"database_url": database.url, "migrations": folder, "transaction": "all"}
    with pytest.raises(MigrationFailed) as caught:
        library.migrate(**settings)
    assert caught.value.problems[0].hint.endswith(SQL_DIRECTIVE.format(folder=folder))
    write(folder, {"0002_b.sql": f"{NON_TRANSACTIONAL}VACUUM t"})
    with pytest.raises(library.InitmigError, match="0002_b") as refused:
        library.migrate(**settings)
    assert refused.value.id == "not-transactional"
    assert "--transaction=each" in refused.value.problems[0].hint
    assert library.migrate(**settings | {"transaction": "each"}).ids == ("0001_a", "0002_b")


@pytest.mark.any_version
def test_replication_slot_after_a_write_needs_the_same_directive(
    make_server: MakeServer, folder: Path
) -> None:
    database = create_database(make_server(wal_level="logical"))
    make_slot = "CREATE TABLE u ();\nSELECT pg_create_logical_replication_slot('s', 'pgoutput');"
    write(folder, {"0002_b.sql": make_slot})
    with pytest.raises(MigrationFailed) as caught:
        library.migrate(database_url=database.url, migrations=folder)
    assert caught.value.problems[0].hint.endswith(SQL_DIRECTIVE.format(folder=folder))
    write(folder, {"0002_b.sql": NON_TRANSACTIONAL + make_slot})
    assert library.migrate(database_url=database.url, migrations=folder).ids == ("0002_b",)


# --- plan and doctor ---

BEFORE = {
    "0001_t.sql": "CREATE TABLE t (id int);",
    "0002_i.sql": "SELECT 1;\n  CREATE INDEX CONCURRENTLY\n  ON t (id);",
    "0002_i.rollback.sql": "\nDROP INDEX CONCURRENTLY t_id_idx;",
    "0003_v.py": f"{STEP}step('SELECT 1')\nstep('VACUUM t', 'VACUUM FULL t')\n",
    "0004_correct.sql": f"{NON_TRANSACTIONAL}VACUUM t;",
}
FIXED = {
    "0002_i.sql": f"{NON_TRANSACTIONAL}CREATE INDEX CONCURRENTLY ON t (id);",
    "0003_v.py": f"{STEP}__transactional__ = False\nstep('VACUUM t', 'VACUUM FULL t')\n",
    "post-apply.sql": f"{NON_TRANSACTIONAL}VACUUM;",
}


@pytest.mark.any_version
def test_plan_lists_statements_that_will_be_refused_and_exits_0(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, BEFORE)
    shown = initmig("plan", url=database.url, folder=folder)
    assert shown.code == 0
    assert (
        f"-- {folder}/0002_i.sql:2:3: `CREATE INDEX CONCURRENTLY ON t (id)` cannot run inside a"
        " transaction, so 0002_i would fail\n"
        f"--   put `-- transactional: false` at the top of {folder}/0002_i.sql\n"
    ) in shown.out
    result = initmig("plan", "--json", url=database.url, folder=folder)
    refused = {each["id"]: each["refused"] for each in json.loads(result.out)["migrations"]}
    assert {id: [summary_of(each) for each in found] for id, found in refused.items()} == {
        "0001_t": [],
        "0002_i": [
            ("apply", f"{folder}/0002_i.sql", 2, 3),
            ("rollback", f"{folder}/0002_i.rollback.sql", 2, 1),
        ],
        "0003_v": [
            ("apply", f"{folder}/0003_v.py", 3, 0),
            ("rollback", f"{folder}/0003_v.py", 3, 0),
        ],
        "0004_correct": [],
    }
    write(folder, FIXED)
    result = initmig("plan", "--json", url=database.url, folder=folder)
    assert not any(each["refused"] for each in json.loads(result.out)["migrations"])


def summary_of(refused: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(refused[key] for key in ("direction", "path", "line", "column"))


@pytest.mark.any_version
def test_doctor_fails_for_migrations_and_warns_for_rollbacks_that_will_be_refused(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, BEFORE | {"post-apply.sql": "VACUUM;"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert result.code == 4
    checks = [
        check
        for check in json.loads(result.out)["checks"]
        if "inside a transaction" in check["found"]
    ]
    assert {check["subject"] for check in checks} == {"pending"}
    python = f"put `__transactional__ = False` at the top of {folder}/0003_v.py"
    sql = f"put `-- transactional: false` at the top of {folder}/"
    assert [(each["level"], each["found"].split(": ")[0], each["hint"]) for each in checks] == [
        ("failure", f"{folder}/0002_i.sql:2:3", f"{sql}0002_i.sql"),
        ("warning", f"{folder}/0002_i.rollback.sql:2:1", f"{sql}0002_i.sql"),
        ("failure", f"{folder}/0003_v.py:3", python),
        ("warning", f"{folder}/0003_v.py:3", python),
        ("failure", f"{folder}/post-apply.sql:1:1", f"{sql}post-apply.sql"),
    ]
    write(folder, FIXED)
    result = initmig("doctor", url=database.url, folder=folder)
    assert result.code == 0, result.out
    assert initmig("migrate", url=database.url, folder=folder).code == 0
