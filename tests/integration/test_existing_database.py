"""A database that another tool has migrated, or whose schema exists already."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from initmig.migrations.foreign import guide
from tests.support.image import COMMANDS, Image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database

A = {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": "DROP TABLE a"}


@pytest.fixture
def image(initmig: Initmig, database: Database, folder: Path) -> Image:
    return Image(initmig, database, folder)


# --- the history of another tool ---

HISTORIES = {
    "golang-migrate": "CREATE TABLE schema_migrations (version bigint, dirty boolean)",
    "dbmate": "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)",
    "goose": "CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied boolean)",
    "Flyway": "CREATE TABLE flyway_schema_history (installed_rank int)",
    "Prisma": "CREATE TABLE _prisma_migrations (id text)",
    "Sequelize": 'CREATE TABLE "SequelizeMeta" (name text)',
}
REFUSE_A_HISTORY = {
    name: command
    for name, command in COMMANDS.items()
    if name not in ("baseline", "verify", "doctor")
}


@pytest.mark.parametrize("command", REFUSE_A_HISTORY.values(), ids=REFUSE_A_HISTORY)
@pytest.mark.parametrize("tool", HISTORIES)
def test_history_of_another_tool_is_refused_if_initmig_has_no_history(
    image: Image, tool: str, command: tuple[str, ...]
) -> None:
    image.database.execute(HISTORIES[tool])
    before = image.database.tables()
    image.write(A)
    [error] = image.errors(*command, code=6)
    assert error["error"] == "foreign-history"
    assert tool in error["message"]
    assert "initmig baseline" in error["next"]
    assert guide(tool) in error["next"]
    assert image.database.tables() == before


@pytest.mark.parametrize("tool", HISTORIES)
def test_status_warns_of_a_history_that_migrate_would_refuse(image: Image, tool: str) -> None:
    image.database.execute(HISTORIES[tool])
    image.write(A)
    result = image("status")
    assert result.code == 0
    [warning] = result.events
    assert (warning["event"], warning["level"]) == ("other_history_found", "warning")
    assert tool in warning["reason"]
    assert guide(tool) in warning["next_step"]
    assert not image("status", "--foreign=allow").events
    assert image("baseline", "--to", "0001_a").code == 0
    assert not image("status").events


def test_doctor_fails_if_another_tool_has_a_history(image: Image) -> None:
    image.database.execute(HISTORIES["goose"])
    image.write(A)
    result = image("doctor", "--json")
    assert result.code == 6, result.err
    failures = [each for each in json.loads(result.out)["checks"] if each["level"] == "failure"]
    assert ["goose" in each["found"] for each in failures] == [True]


def test_baseline_adopts_a_database_with_another_tools_history(image: Image) -> None:
    image.database.execute(f"{HISTORIES['dbmate']}; CREATE TABLE a ()")
    image.write(A | {"0002_b.sql": "CREATE TABLE b ()"})
    assert image("baseline", "--to", "0001_a").code == 0
    assert image().code == 0
    assert "b" in image.database.tables()


def test_history_of_another_tool_is_ignored_if_initmig_has_a_history(image: Image) -> None:
    image.write(A)
    assert image().code == 0
    image.database.execute(HISTORIES["Flyway"])
    image.write({"0002_b.sql": "CREATE TABLE b ()"})
    assert image().code == 0
    assert "b" in image.database.tables()


def test_history_of_another_tool_can_be_allowed(image: Image) -> None:
    image.database.execute(HISTORIES["Flyway"])
    image.write(A)
    assert image("--foreign=allow").code == 0
    assert "a" in image.database.tables()


def test_history_of_another_tool_in_another_schema_is_ignored(image: Image) -> None:
    image.database.execute("CREATE SCHEMA other; CREATE TABLE other.flyway_schema_history (id int)")
    image.write(A)
    assert image().code == 0
    assert "a" in image.database.tables()


def test_wait_as_a_role_without_privileges_refuses_the_history_of_another_tool(
    image: Image,
) -> None:
    image.database.execute(HISTORIES["Flyway"])
    image.write(A)
    reader = image.database.login_role()
    result = image("wait", DATABASE_URL=reader)
    assert [event["error"] for event in result.events if event["event"] == "failed"] == [
        "foreign-history"
    ]


# --- the history of another role ---


def test_history_owned_by_another_role_suggests_running_as_that_role(image: Image) -> None:
    owner = image.database.login_role("GRANT CREATE ON SCHEMA public TO {role}")
    image.write(A)
    assert image(DATABASE_URL=owner).code == 0
    image.write({"0002_b.sql": "CREATE TABLE b ()"})
    errors = image.errors(code=6)
    assert {error["error"] for error in errors} == {"untrusted-history"}
    for error in errors:
        assert "run initmig as that role" in error["next"]
        assert "To give the table to this role: ALTER TABLE public." in error["next"]
    assert image(DATABASE_URL=owner).code == 0


# --- objects that exist already ---

EXISTS = {
    "table": ("CREATE TABLE x ()", "42P07"),
    "index": ("CREATE TABLE IF NOT EXISTS x (a int); CREATE INDEX i ON x (a)", "42P07"),
    "schema": ("CREATE SCHEMA s", "42P06"),
    "type": ("CREATE TYPE mood AS ENUM ('ok')", "42710"),
    "function": ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "42723"),
    "column": ("CREATE TABLE IF NOT EXISTS x (); ALTER TABLE x ADD c int", "42701"),
}


@pytest.mark.parametrize("transactional", [True, False], ids=["transactional", "not transactional"])
@pytest.mark.parametrize("kind", EXISTS)
def test_error_for_an_existing_object_suggests_baseline_if_the_history_is_empty(
    image: Image, kind: str, transactional: bool
) -> None:
    sql, sqlstate = EXISTS[kind]
    image.database.execute(sql)
    directive = "" if transactional else "-- transactional: false\n"
    image.write({"0001_ok.sql": "SELECT 1", "0002_x.sql": directive + sql})
    [error] = image.errors(code=1)
    assert (error["error"], error["sqlstate"]) == ("migration-failed", sqlstate)
    assert "initmig baseline --to ID" in error["next"]


def test_error_for_an_existing_object_does_not_suggest_baseline_after_a_migration(
    image: Image,
) -> None:
    image.write(A)
    assert image().code == 0
    image.write({"0002_x.sql": "CREATE TABLE a ()"})
    [error] = image.errors(code=1)
    assert error["sqlstate"] == "42P07"
    assert "baseline" not in error["next"]
