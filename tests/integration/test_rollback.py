"""`initmig rollback` rolls back applied migrations, newest first, or refuses before it starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.command import JSON
from tests.support.migrations import write
from tests.support.processes import succeeded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result


def tables(*names: str) -> dict[str, str | bytes]:
    """For each name, such as 0001_one, a migration that creates a table, and its rollback."""
    files: dict[str, str | bytes] = {}
    for name in names:
        files[f"{name}.sql"] = f'CREATE TABLE "{name}" ();'
        files[f"{name}.rollback.sql"] = f'DROP TABLE "{name}";'
    return files


THREE = ("0001_one", "0002_two", "0003_three")


def applied(database: Database) -> list[str]:
    rows = database.query("SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc")
    return [id for (id,) in rows]


def rolled_back(result: Result) -> list[str]:
    """The ids that the run reports as rolled back, in order."""
    return [event["id"] for event in result.events if event["event"] == "migration_rolled_back"]


@pytest.mark.parametrize(
    ("arguments", "undone"),
    [
        (["--steps", "1"], 1),
        (["--steps", "2"], 2),
        (["--steps", "99"], 3),
        (["--to", "0001_one"], 2),
        (["--to", "0002"], 1),
        (["--to", "0003_three"], 0),
        (["--all"], 3),
    ],
    ids=["one", "two", "more", "to", "to prefix", "to last", "all"],
)
def test_rolls_back_the_requested_migrations(
    initmig: Initmig, database: Database, folder: Path, arguments: list[str], undone: int
) -> None:
    write(folder, tables(*THREE))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = succeeded(initmig("rollback", *arguments, url=database.url, folder=folder, env=JSON))
    left = list(THREE[: 3 - undone])
    assert rolled_back(result) == list(reversed(THREE))[:undone]
    assert applied(database) == left
    assert sorted(database.tables() & set(THREE)) == left
    assert database.query("SELECT migration_id FROM _initmig_migration ORDER BY 1") == [
        (id,) for id in left
    ]


def test_rolls_back_in_reverse_order_of_application_and_not_by_name(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables("0002_two", "0003_three"))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    write(folder, tables("0001_one"))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = succeeded(
        initmig("rollback", "--to", "0002_two", url=database.url, folder=folder, env=JSON)
    )
    assert rolled_back(result) == ["0001_one", "0003_three"]
    assert applied(database) == ["0002_two"]


def test_dependent_migration_is_rolled_back_first(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_view.sql": "-- depends: 0002_table\nCREATE VIEW v AS SELECT FROM t",
            "0001_view.rollback.sql": "DROP VIEW v",
            "0002_table.sql": "CREATE TABLE t ()",
            "0002_table.rollback.sql": "DROP TABLE t",
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = succeeded(initmig("rollback", "--all", url=database.url, folder=folder, env=JSON))
    assert rolled_back(result) == ["0001_view", "0002_table"]


def test_rolled_back_migration_is_pending_and_can_be_applied_again(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    for _ in range(2):
        succeeded(initmig("migrate", url=database.url, folder=folder))
        succeeded(initmig("rollback", "--steps", "2", url=database.url, folder=folder))
    result = initmig("status", "--json", url=database.url, folder=folder)
    rows = json.loads(succeeded(result).out)["migrations"]
    assert [row["state"] for row in rows] == ["applied", "pending", "pending"]
    operations = database.query(
        "SELECT operation, migration_id FROM _yoyo_log ORDER BY created_at_utc"
    )
    applies = [("apply", id) for id in THREE]
    rollbacks = [("rollback", id) for id in reversed(THREE[1:])]
    assert operations == [*applies, *rollbacks, *applies[1:], *rollbacks]


def test_migration_without_a_rollback_is_refused_before_any_change(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    (folder / "0002_two.rollback.sql").unlink()
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = initmig("rollback", "--all", url=database.url, folder=folder)
    assert result.code == 6
    assert "0002_two has no rollback" in result.err
    assert f" in {folder}/0002_two.rollback.sql" in result.err
    assert applied(database) == list(THREE)
    assert set(THREE) <= database.tables()


def test_every_migration_that_cannot_be_rolled_back_is_named(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    write(folder, {"0004_four.py": "step('SELECT 4', 'SELECT 4')\nstep('SELECT 44')\n"})
    succeeded(initmig("migrate", url=database.url, folder=folder))
    (folder / "0001_one.rollback.sql").unlink()
    (folder / "0003_three.sql").unlink()
    (folder / "0003_three.rollback.sql").unlink()
    result = initmig("rollback", "--all", url=database.url, folder=folder)
    assert result.code == 6
    assert "0001_one has no rollback" in result.err
    assert (
        "0003_three is applied, but its file is not among these migrations [unknown-migration]"
        in result.err
    )
    assert "0004_four has no rollback in step 2 of 2" in result.err
    assert "0002_two" not in result.err
    assert applied(database) == [*THREE, "0004_four"]


def test_migrations_that_stay_applied_need_no_rollback(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    (folder / "0001_one.rollback.sql").unlink()
    (folder / "0002_two.sql").unlink()
    (folder / "0002_two.rollback.sql").unlink()
    write(folder, {"0003_three.sql": "-- depends: 0002_two\n"})
    succeeded(initmig("rollback", "--steps", "1", url=database.url, folder=folder))
    assert applied(database) == ["0001_one", "0002_two"]


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("0009", "no migration has the id '0009'"),
        ("0001_oen", "did you mean 0001_one?"),
        ("000", "[ambiguous-id]"),
    ],
)
def test_unknown_or_ambiguous_id_is_refused(
    initmig: Initmig, database: Database, folder: Path, to: str, expected: str
) -> None:
    write(folder, tables(*THREE))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = initmig("rollback", "--to", to, url=database.url, folder=folder)
    assert result.code == 6
    assert expected in result.err
    assert applied(database) == list(THREE)


def test_rollback_to_a_pending_migration_is_refused(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    succeeded(initmig("migrate", "--to", "0002", url=database.url, folder=folder))
    result = initmig("rollback", "--to", "0003_three", url=database.url, folder=folder)
    assert result.code == 6
    assert applied(database) == ["0001_one", "0002_two"]


def test_failure_keeps_the_migrations_rolled_back_before_it(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    write(folder, {"0002_two.rollback.sql": 'DROP TABLE "0002_two";\n\nDROP TABLE nowhere;\n'})
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = initmig("rollback", "--all", url=database.url, folder=folder)
    assert result.code == 1
    assert f"{folder}/0002_two.rollback.sql:3:1: 0002_two" in result.err
    assert "next: 0002_two is still applied; fix the rollback and run again" in result.err
    assert 'table "nowhere" does not exist' in result.err
    assert applied(database) == ["0001_one", "0002_two"]
    assert sorted(database.tables() & set(THREE)) == ["0001_one", "0002_two"]
    write(folder, {"0002_two.rollback.sql": 'DROP TABLE "0002_two";'})
    succeeded(initmig("rollback", "--all", url=database.url, folder=folder))
    assert applied(database) == []


def test_python_steps_are_rolled_back_in_reverse_order(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute("CREATE TABLE events (word text, id serial)")
    write(
        folder,
        {
            "0001_words.py": (
                "from yoyo import group, step\n"
                "def log(word):\n"
                "    return lambda connection: connection.execute(\n"
                "        'INSERT INTO events (word) VALUES (%s)', [word])\n"
                "step(log('a'), log('undo a'))\n"
                "group([step(log('b'), log('undo b')), step(log('c'), log('undo c'))])\n"
                "step(log('d'), log('undo d'))\n"
            )
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    succeeded(initmig("rollback", "--all", url=database.url, folder=folder))
    words = database.value("SELECT string_agg(word, ', ' ORDER BY id) FROM events")
    assert words == "a, b, c, d, undo d, undo c, undo b, undo a"


def test_failed_python_rollback_leaves_the_migration_applied(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.py": (
                "from yoyo import step\n"
                "def fail(connection):\n"
                "    raise RuntimeError('not today')\n"
                "step('SELECT 1', fail)\n"
                "step('CREATE TABLE kept ()', 'DROP TABLE kept')\n"
            )
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = initmig("rollback", "--all", url=database.url, folder=folder)
    assert result.code == 1
    assert f"{folder}/0001_a.py:3: 0001_a raised RuntimeError: not today" in result.err
    assert "kept" in database.tables()
    assert applied(database) == ["0001_a"]


def test_non_transactional_rollback_runs_statement_by_statement(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_t.sql": "CREATE TABLE t (id int)",
            "0002_index.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY i ON t (id);",
            "0002_index.rollback.sql": "SELECT 1;\nDROP INDEX CONCURRENTLY i;\nVACUUM t;",
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    succeeded(initmig("rollback", "--steps", "1", url=database.url, folder=folder))
    assert applied(database) == ["0001_t"]
    assert database.value("SELECT to_regclass('i')") is None


def test_each_rollback_is_one_transaction(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    database.execute("CREATE TABLE seen (id bigint)")
    for id in THREE:
        write(
            folder,
            {
                f"{id}.rollback.sql": (
                    f'DROP TABLE "{id}"; INSERT INTO seen VALUES (txid_current());'
                    " INSERT INTO seen VALUES (txid_current())"
                )
            },
        )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    succeeded(initmig("rollback", "--all", url=database.url, folder=folder))
    assert database.value("SELECT count(DISTINCT id) FROM seen") == 3


def test_rollback_without_applied_migrations_has_nothing_to_do(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    result = succeeded(initmig("rollback", "--all", url=database.url, folder=folder))
    assert "nothing to roll back" in result.err
    assert database.tables() == set()


def test_rollback_to_the_last_migration_keeps_it_and_names_it(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    json = {"INITMIG_LOG_FORMAT": "json"}
    for to in ("0003_three", "0003"):
        result = initmig("rollback", "--to", to, url=database.url, folder=folder, env=json)
        [finished] = [event for event in succeeded(result).events if event["event"] == "finished"]
        assert (finished["ids"], finished["kept"]) == ([], "0003_three")
        assert "0003_three" in finished["message"]
    assert applied(database) == list(THREE)


def test_warning_names_every_unknown_migration(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, tables(*THREE))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    for id in THREE[1:]:
        (folder / f"{id}.sql").unlink()
        (folder / f"{id}.rollback.sql").unlink()
    json = {"INITMIG_LOG_FORMAT": "json"}
    result = initmig("rollback", "--steps", "1", url=database.url, folder=folder, env=json)
    [warning] = [event for event in result.events if event["event"] == "unknown_migrations"]
    assert warning["ids"] == list(THREE[1:])
    assert [each["error"] for each in result.events if "error" in each] == ["unknown-migration"]
