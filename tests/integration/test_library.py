"""The commands as Python functions, with the same settings, behaviour and errors."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import initmig
from initmig.core.errors import ConfigError, DatabaseUnavailable, MigrationFailed, PlanError
from initmig.core.events import Finished, HistoryRead, MigrationApplied
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from initmig.core.events import Event
    from tests.support.databases import Database

pytestmark = pytest.mark.any_version

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()', 'DROP TABLE b')",
}


@pytest.fixture
def settings(database: Database, folder: Path) -> dict[str, Any]:
    """The settings for `FILES` and an empty database."""
    return {"database_url": database.url, "migrations": write(folder, FILES)}


def test_migrate_status_and_rollback_work_as_functions(
    settings: dict[str, Any], database: Database
) -> None:
    assert initmig.migrate(**settings, to="0001").ids == ("0001_a",)
    states = {row.id: row.state for row in initmig.status(**settings)}
    assert states == {"0001_a": "applied", "0002_b": "pending"}
    second = initmig.migrate(**settings)
    assert ([*second], len(second), "0002_b" in second) == (["0002_b"], 1, True)
    assert (second.outcome, second.ids) == ("applied", ("0002_b",))
    assert second.seconds > 0
    nothing = initmig.migrate(**settings)
    assert (nothing.outcome, bool(nothing)) == ("nothing pending", False)
    assert initmig.migrate(**settings).ids == ()
    assert database.tables() >= {"a", "b"}
    assert initmig.rollback(**settings, steps=1).ids == ("0002_b",)
    assert initmig.rollback(**settings, all=True).ids == ("0001_a",)
    assert database.tables() & {"a", "b"} == set()


def test_verify_returns_verdicts_and_leaves_the_database_unchanged(
    settings: dict[str, Any], database: Database
) -> None:
    write(
        settings["migrations"],
        {"0003_c.sql": "CREATE TABLE c ()", "0003_c.rollback.sql": "SELECT 1"},
    )
    verdicts = {verdict.id: verdict for verdict in initmig.verify(**settings)}
    assert [verdicts[id].state for id in ("0001_a", "0002_b")] == ["ok", "ok"]
    assert verdicts["0003_c"].state == "not restored"
    assert "+ table public.c" in "\n".join(verdicts["0003_c"].difference)
    assert verdicts["0003_c"].problems
    assert database.tables() == set()


def test_on_event_receives_the_events_of_a_run(settings: dict[str, Any]) -> None:
    events: list[Event] = []
    initmig.migrate(**settings, on_event=events.append)
    assert HistoryRead(applied=0, pending=("0001_a", "0002_b"), unknown=0) in events
    assert [event.id for event in events if isinstance(event, MigrationApplied)] == [
        "0001_a",
        "0002_b",
    ]
    assert isinstance(events[-1], Finished)


def test_missing_arguments_come_from_the_environment(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", settings["database_url"])
    monkeypatch.setenv("INITMIG_MIGRATIONS", str(settings["migrations"]))
    monkeypatch.setenv("INITMIG_SCHEMA", "elsewhere")
    assert [row.id for row in initmig.status(schema="public")] == ["0001_a", "0002_b"]


def test_migrations_accepts_several_folders(settings: dict[str, Any], tmp_path: Path) -> None:
    more = write(tmp_path / "more", {"0001_more.sql": "SELECT 1"})
    folders = [settings["migrations"], more]
    assert initmig.migrate(database_url=settings["database_url"], migrations=folders).ids == (
        "0001_a",
        "0002_b",
        "0001_more",
    )


def test_error_has_the_ids_committed_before_it(settings: dict[str, Any], folder: Path) -> None:
    write(folder, {"0003_c.sql": "SELECT 1/0"})
    with pytest.raises(MigrationFailed) as failed:
        initmig.migrate(**settings)
    assert failed.value.committed == ("0001_a", "0002_b")
    with pytest.raises(MigrationFailed) as failed:
        initmig.migrate(**settings)
    assert failed.value.committed == ()
    write(folder, {"0001_a.rollback.sql": "SELECT 1/0"})
    with pytest.raises(MigrationFailed) as failed:
        initmig.rollback(**settings, all=True)
    assert failed.value.committed == ("0002_b",)


def test_error_after_a_lost_connection_has_the_committed_ids(
    settings: dict[str, Any], folder: Path
) -> None:
    write(folder, {"0003_c.sql": "SELECT pg_terminate_backend(pg_backend_pid())"})
    with pytest.raises(DatabaseUnavailable) as failed:
        initmig.migrate(**settings, wait_timeout=1)
    assert failed.value.committed == ("0001_a", "0002_b")


def test_failure_in_one_transaction_has_committed_nothing(
    settings: dict[str, Any], folder: Path
) -> None:
    write(folder, {"0003_c.sql": "SELECT 1/0"})
    with pytest.raises(MigrationFailed) as failed:
        initmig.migrate(**settings, transaction="all")
    assert failed.value.committed == ()


def test_functions_raise_the_errors_of_the_commands(settings: dict[str, Any], folder: Path) -> None:
    write(folder, {"0003_c.sql": "SELECT 1;\nSELECT 1/0"})
    with pytest.raises(MigrationFailed) as failed:
        initmig.migrate(**settings)
    assert isinstance(failed.value, initmig.InitmigError)
    [problem] = failed.value.problems
    assert str(problem.place) == f"{folder}/0003_c.sql:2:1"
    assert failed.value.exit_code == 1
    with pytest.raises(PlanError, match="no migration has the id 'nonsense'"):
        initmig.migrate(**settings, to="nonsense")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"wait_timeout": "soon"}, "--wait-timeout: 'soon'"),
        ({"lock_retries": -1}, "--lock-retries: '-1'"),
        ({"changed": "maybe"}, "--changed: 'maybe'"),
        ({"chnged": "warn"}, "unknown flag --chnged"),
        ({"migrations": ","}, "--migrations: ',' names no folder"),
        ({"database_url": "mysql://a/b"}, "--database-url"),
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        initmig.migrate(**wrong)
    assert expected in str(refused.value)


def test_rollback_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="`rollback` needs") as refused:
        initmig.rollback(database_url="postgresql://localhost/x")
    assert refused.value.id == "missing-argument"


def test_import_loads_no_other_module() -> None:
    code = "import sys, initmig; print(*[m for m in sys.modules if m.startswith('initmig')])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["initmig"]
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        initmig.nonsense  # noqa: B018


def test_schema_is_a_string_as_in_the_flag_or_a_list(
    settings: dict[str, Any], database: Database
) -> None:
    database.execute('CREATE SCHEMA "a,b"; CREATE SCHEMA a; CREATE SCHEMA b')
    for schema, home in [("a,b", "a"), (["a,b", "b"], "a,b"), (("b",), "b"), ('"a,b"', "a,b")]:
        initmig.migrate(**settings, schema=schema)
        assert database.tables(home) >= {"a", "b", "_yoyo_migration"}
        initmig.rollback(**settings, schema=schema, all=True)
        assert database.tables(home) & {"a", "b"} == set()
