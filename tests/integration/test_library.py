"""The commands as functions: the same settings, behaviour and errors."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import initmig
from initmig.core.errors import ConfigError, MigrationFailed, PlanError
from initmig.core.events import Finished, HistoryRead, MigrationApplied
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from initmig.core.events import Event
    from tests.support.databases import Database

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()', 'DROP TABLE b')",
}


@pytest.fixture
def given(database: Database, folder: Path) -> dict[str, Any]:
    """The settings for the migrations above and an empty database."""
    return {"database_url": database.url, "migrations": write(folder, FILES)}


def test_it_migrates_tells_the_status_and_rolls_back(
    given: dict[str, Any], database: Database
) -> None:
    assert initmig.migrate(**given, to="0001") == ("0001_a",)
    states = {row.id: row.state for row in initmig.status(**given)}
    assert states == {"0001_a": "applied", "0002_b": "pending"}
    assert initmig.migrate(**given) == ("0002_b",)
    assert initmig.migrate(**given) == ()
    assert database.tables() >= {"a", "b"}
    assert initmig.rollback(**given, steps=1) == ("0002_b",)
    assert initmig.rollback(**given, all=True) == ("0001_a",)
    assert database.tables() & {"a", "b"} == set()


def test_it_verifies_on_a_database_of_its_own(given: dict[str, Any], database: Database) -> None:
    write(
        given["migrations"], {"0003_c.sql": "CREATE TABLE c ()", "0003_c.rollback.sql": "SELECT 1"}
    )
    verdicts = {verdict.id: verdict for verdict in initmig.verify(**given)}
    assert [verdicts[id].state for id in ("0001_a", "0002_b")] == ["ok", "ok"]
    assert verdicts["0003_c"].state == "not restored"
    assert "+ table public.c" in "\n".join(verdicts["0003_c"].difference)
    assert verdicts["0003_c"].problems
    assert database.tables() == set()


def test_what_happens_is_told_as_events(given: dict[str, Any]) -> None:
    events: list[Event] = []
    initmig.migrate(**given, on_event=events.append)
    assert HistoryRead(applied=0, pending=("0001_a", "0002_b"), unknown=0) in events
    assert [event.id for event in events if isinstance(event, MigrationApplied)] == [
        "0001_a",
        "0002_b",
    ]
    assert isinstance(events[-1], Finished)


def test_what_is_not_given_comes_from_the_environment(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", given["database_url"])
    monkeypatch.setenv("INITMIG_MIGRATIONS", str(given["migrations"]))
    monkeypatch.setenv("INITMIG_SCHEMA", "elsewhere")
    assert [row.id for row in initmig.status(schema="public")] == ["0001_a", "0002_b"]


def test_folders_can_be_several(given: dict[str, Any], tmp_path: Path) -> None:
    more = write(tmp_path / "more", {"0001_more.sql": "SELECT 1"})
    folders = [given["migrations"], more]
    assert initmig.migrate(database_url=given["database_url"], migrations=folders) == (
        "0001_a",
        "0002_b",
        "0001_more",
    )


def test_errors_are_those_of_the_commands(given: dict[str, Any], folder: Path) -> None:
    write(folder, {"0003_c.sql": "SELECT 1;\nSELECT 1/0"})
    with pytest.raises(MigrationFailed) as failed:
        initmig.migrate(**given)
    assert isinstance(failed.value, initmig.InitmigError)
    [problem] = failed.value.problems
    assert str(problem.place) == f"{folder}/0003_c.sql:2:1"
    assert failed.value.exit_code == 1
    with pytest.raises(PlanError, match="no migration has the id 'nonsense'"):
        initmig.migrate(**given, to="nonsense")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"wait_timeout": "soon"}, "--wait-timeout: 'soon'"),
        ({"lock_retries": -1}, "--lock-retries: '-1'"),
        ({"changed": "maybe"}, "--changed: 'maybe'"),
        ({"chnged": "warn"}, "unknown flag --chnged"),
        ({"migrations": ","}, "--migrations: ',' names no folder"),
        ({"database_url": "mysql://a/b"}, "--database-url"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_done(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        initmig.migrate(**wrong)
    assert said in str(refused.value)


def test_rollback_wants_to_be_told_what() -> None:
    with pytest.raises(ConfigError, match="`rollback` needs") as refused:
        initmig.rollback(database_url="postgresql://localhost/x")
    assert refused.value.id == "missing-argument"


def test_importing_it_imports_nothing_more() -> None:
    code = "import sys, initmig; print(*[m for m in sys.modules if m.startswith('initmig')])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["initmig"]
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        initmig.nonsense  # noqa: B018


def test_schemas_are_a_list_in_one_text_or_one_by_one(
    given: dict[str, Any], database: Database
) -> None:
    database.execute('CREATE SCHEMA "a,b"; CREATE SCHEMA a; CREATE SCHEMA b')
    for schema, home in [("a,b", "a"), (["a,b", "b"], "a,b"), (("b",), "b"), ('"a,b"', "a,b")]:
        initmig.migrate(**given, schema=schema)
        assert database.tables(home) >= {"a", "b", "_yoyo_migration"}
        initmig.rollback(**given, schema=schema, all=True)
        assert database.tables(home) & {"a", "b"} == set()
