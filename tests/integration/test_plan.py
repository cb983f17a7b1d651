"""The output of `plan` as text and JSON, for SQL and Python files, with and without squawk."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.command import Initmig
    from tests.support.servers import MakeServer, MakeStandby

USERS = "CREATE TABLE users (id int PRIMARY KEY, name text, n int)"

BARE = {"PATH": "/usr/bin:/bin"}
WITH_SQUAWK = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


def planned(
    command: str,
    initmig: Initmig,
    database: Database,
    folder: Path,
    env: dict[str, str] = BARE,
) -> list[dict[str, Any]]:
    result = initmig(command, "--json", url=database.url, folder=folder, env=env)
    assert result.code == 0, result.err
    [migration] = json.loads(result.out)["migrations"]
    statements: list[dict[str, Any]] = migration["statements"]
    return statements


def test_locks_and_advice_are_shown_above_the_sql(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(USERS)
    write(
        folder,
        {
            "0001_a.sql": "CREATE TABLE a (id int);\nCREATE INDEX ON a (id);\n"
            "ALTER TABLE users ALTER name SET NOT NULL;",
            "0002_b.sql": "-- depends: 0001_a\nALTER TABLE a ADD CHECK (id > 0);",
            "0003_c.py": "from yoyo import step\nstep('DROP TABLE users')",
        },
    )
    result = initmig("plan", url=database.url, folder=folder, env=BARE)
    assert result.code == 0, result.err
    assert result.out.splitlines()[:4] == [
        f"-- 0001_a ({folder}/0001_a.sql)",
        "-- 3:1: takes ACCESS EXCLUSIVE on users, which blocks reads and writes",
        (
            "--   scans the whole table while it blocks reads and writes: to avoid the scan, ADD"
            " CHECK (... IS NOT NULL) NOT VALID and VALIDATE it in an earlier migration"
        ),
        "CREATE TABLE a (id int);",
    ]
    # no other session uses a table that the plan creates
    assert f"-- 0002_b ({folder}/0002_b.sql; depends on 0001_a)\n-- depends" in result.out


@pytest.mark.any_version
def test_statement_that_the_parser_cannot_read_is_marked(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(USERS)
    write(folder, {"0001_a.sql": "ALTER TABLE users FROBNICATE;\nLOCK TABLE users;"})
    result = initmig("plan", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert result.out.splitlines()[1:3] == [
        (
            "-- 1:1: not analysed: PostgreSQL 17's parser cannot read it: syntax error at or near"
            ' "FROBNICATE"'
        ),
        "-- 2:1: takes ACCESS EXCLUSIVE on users, which blocks reads and writes",
    ]


def test_findings_of_squawk_are_merged_in(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(USERS)
    write(folder, {"0001_a.sql": "-- why\nSELECT 1;\nALTER TABLE users ADD m int NOT NULL;"})
    [one, two] = planned("plan", initmig, database, folder, WITH_SQUAWK)
    assert one["advice"] == []
    assert any("(squawk: adding-required-field)" in advice for advice in two["advice"])
    # findings that initmig takes care of, or reports itself, are left out
    assert not any("lock-timeout" in advice or "robust" in advice for advice in two["advice"])


def test_rules_of_initmig_apply_without_squawk(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(USERS)
    write(folder, {"0001_a.sql": "ALTER TABLE users ALTER name SET NOT NULL"})
    result = initmig("plan", url=database.url, folder=folder, env=BARE)
    assert result.code == 0, result.err
    assert result.out.count("\n--   ") == 1


def test_failure_of_squawk_is_a_warning_and_the_plan_is_shown(
    database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "squawk"
    program.write_text("#!/bin/sh\necho no JSON")
    program.chmod(0o755)
    write(folder, {"0001_a.sql": "SELECT 1"})
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    result = initmig("plan", url=database.url, folder=folder, env=env)
    assert result.code == 0, result.err
    assert "warning squawk failed" in result.err
    assert "SELECT 1" in result.out


STEPS = """\
from yoyo import group, step

__transactional__ = False

def fill(connection):
    pass

step("ALTER TABLE users ADD m int")
step(fill)
group([
    step(
        \'\'\'
        CREATE INDEX CONCURRENTLY
            ON users (name);
        \'\'\'
    ),
    step("CREATE TABLE é (id int); " "DROP TABLE users", "SELECT 1"),
])
step(f"UPDATE users SET n = {1 + 1} WHERE n = 1")
step("DO $$ BEGIN END $$")
"""


@pytest.mark.any_version
def test_sql_of_python_steps_is_analysed_and_their_functions_are_marked(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(USERS)
    write(folder, {"0001_a.py": STEPS})
    found = [
        (
            each["line"],
            each["column"],
            *(f"{lock['lock']} on {lock['table']}" for lock in each["locks"]),
            *each["not_analysed"],
        )
        for each in planned("plan", initmig, database, folder)
    ]
    assert found == [
        (8, 7, "ACCESS EXCLUSIVE on users"),
        (5, None, "the Python function fill"),
        (13, 9, "SHARE UPDATE EXCLUSIVE on users"),
        (17, None),
        (17, None, "ACCESS EXCLUSIVE on users"),
        (None, None),
        (20, 7, "the DO block"),
    ]
    result = initmig("plan", url=database.url, folder=folder, env=BARE)
    assert "\n-- 5: not analysed: the Python function fill\n" in result.out


@pytest.mark.any_version
def test_role_that_can_only_read_gets_the_same_plan(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": f"{USERS}; CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int)"})
    assert initmig("migrate", url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "DROP TABLE users; DROP TABLE hidden.t; DROP TABLE IF EXISTS u"})
    reader = database.login_role(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    expected = planned("plan", initmig, database, folder)
    assert [[lock["table"] for lock in each["locks"]] for each in expected] == [
        ["users"],
        ["hidden.t"],
        [],
    ]
    assert planned("plan", initmig, Database(reader), folder) == expected


@pytest.mark.any_version
def test_table_locked_by_another_session_does_not_block_the_plan(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(f"{USERS}; CREATE VIEW names AS SELECT name FROM users")
    write(folder, {"0001_a.sql": "DELETE FROM names; DROP TABLE users CASCADE"})
    with database.connect(autocommit=False) as connection:
        connection.execute("LOCK TABLE names, users")
        found = planned("plan", initmig, database, folder)
    assert [[lock["table"] for lock in each["locks"]] for each in found] == [
        ["names", "users"],
        ["users", "names"],
    ]


@pytest.mark.any_version
def test_names_are_resolved_in_the_schema_of_the_settings(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(f"{USERS}; CREATE SCHEMA app; CREATE TABLE app.orders (id int)")
    write(folder, {"0001_a.sql": "DROP TABLE IF EXISTS users, orders, public.users"})
    for schema, tables in {"public": ["users"], "app": ["orders", "public.users"]}.items():
        result = initmig("plan", "--json", "--schema", schema, url=database.url, folder=folder)
        [migration] = json.loads(result.out)["migrations"]
        [statement] = migration["statements"]
        assert [lock["table"] for lock in statement["locks"]] == tables


@pytest.mark.any_version
def test_plan_on_a_standby_is_the_same(
    make_server: MakeServer, make_standby: MakeStandby, initmig: Initmig, folder: Path
) -> None:
    primary = make_server()
    database = create_database(primary)
    database.execute(USERS)
    write(folder, {"0001_a.sql": "ALTER TABLE users ADD m int; DROP TABLE IF EXISTS missing"})
    copy = Database(make_standby(primary).url(database.name))
    wait_until(lambda: "users" in copy.tables())
    expected = planned("plan", initmig, database, folder)
    assert [len(each["locks"]) for each in expected] == [1, 0]
    assert planned("plan", initmig, copy, folder) == expected
