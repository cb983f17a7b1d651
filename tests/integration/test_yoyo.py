"""Stock yoyo and initmig take turns on the same folder and the same tables."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yoyo import get_backend, read_migrations
from yoyo.migrations import topological_sort
from yoyo.topologicalsort import CycleError

from initmig import engine
from initmig.core.errors import ConfigError
from initmig.migrations.files import list_files
from tests.support.examples import examples
from tests.support.migrations import write
from tests.support.order import in_order_of_yoyo
from tests.support.processes import succeeded
from tests.support.yoyo import yoyo_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.yoyo import Yoyo

YOYO_TABLES = ("_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")

COLUMNS = """
SELECT c.relname, c.relkind, c.relpersistence, a.attnum, a.attname, a.attnotnull,
    format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attidentity
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relname = ANY (%s) AND c.relnamespace = 'public'::regnamespace
ORDER BY 1, 4"""

CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid::regclass::text = ANY (%s) ORDER BY 1, 2"""

INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY (%s) ORDER BY 1"

# Three migrations, so that each tool can apply one and leave one for the other.
THREE = {
    "0001_one.sql": "CREATE TABLE one ();",
    "0001_one.rollback.sql": "DROP TABLE one;",
    "0002_two.py": (
        "from yoyo import step\n"
        "step('CREATE TABLE two (id int)', 'DROP TABLE two')\n"
        "def fill(connection):\n"
        "    connection.cursor().execute('INSERT INTO two VALUES (2)')\n"
        "step(fill, lambda connection: None)\n"
    ),
    "0003_three.sql": "-- depends: 0002_two\nCREATE TABLE three ();",
    "0003_three.rollback.sql": "DROP TABLE three;",
}
THREE_IDS = ["0001_one", "0002_two", "0003_three"]


def describe(database: Database) -> list[list[tuple[object, ...]]]:
    """The columns, constraints and indexes of yoyo's tables."""
    names = [list(YOYO_TABLES)]
    return [database.query(sql, names) for sql in (COLUMNS, CONSTRAINTS, INDEXES)]


def yoyo_list(yoyo: Yoyo, database: Database, folder: Path) -> dict[str, bool]:
    """Each id, and whether yoyo lists it as applied."""
    lines = succeeded(yoyo("list", database=database, folder=folder)).out.splitlines()[2:]
    return {id: state == "A" for state, id, *_ in map(str.split, lines)}


def states(initmig: Initmig, database: Database, folder: Path | str) -> dict[str, str]:
    """Each id, and its state in `initmig status`."""
    result = succeeded(initmig("status", "--json", url=database.url, folder=folder))
    return {row["id"]: row["state"] for row in json.loads(result.out)["migrations"]}


def applied_order(database: Database) -> list[str]:
    rows = database.query("SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc")
    return [id for (id,) in rows]


def logged(database: Database) -> list[tuple[str, str]]:
    rows = database.query("SELECT operation, migration_id FROM _yoyo_log ORDER BY created_at_utc")
    return [(operation, id) for operation, id in rows]


# --- one history ---


def test_creates_the_same_tables_as_yoyo(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(
        folder, {"0001_one.sql": "CREATE TABLE one ()", "0001_one.rollback.sql": "DROP TABLE one"}
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    of_initmig = describe(database)
    database.execute(
        "DROP TABLE one, _initmig_migration, _yoyo_log, _yoyo_migration, _yoyo_version, yoyo_lock"
    )
    succeeded(yoyo("apply", database=database, folder=folder))
    assert {row[0] for row in of_initmig[0]} == set(YOYO_TABLES)
    assert of_initmig == describe(database)


def test_writes_the_same_rows_as_yoyo(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    rows = {}
    write(folder, THREE)
    for name in ("initmig", "yoyo"):
        if name == "initmig":
            succeeded(initmig("migrate", url=database.url, folder=folder))
        else:
            succeeded(yoyo("apply", database=database, folder=folder))
        rows[name] = (
            database.query("SELECT migration_hash, migration_id FROM _yoyo_migration ORDER BY 2"),
            database.query(
                "SELECT migration_hash, migration_id, operation, length(id)"
                " FROM _yoyo_log ORDER BY created_at_utc"
            ),
            database.query("SELECT version FROM _yoyo_version ORDER BY installed_at_utc, version"),
            database.query("SELECT * FROM yoyo_lock"),
        )
        database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert rows["initmig"] == rows["yoyo"]
    assert rows["initmig"][0] == [(hashlib.sha256(id.encode()).hexdigest(), id) for id in THREE_IDS]


def test_times_are_utc_in_any_time_zone_of_the_server(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET timezone = 'Asia/Kathmandu'")
    write(folder, {"0001_one.sql": "CREATE TABLE one ()"})
    succeeded(initmig("migrate", url=database.url, folder=folder))
    for column, table in (("applied_at_utc", "_yoyo_migration"), ("created_at_utc", "_yoyo_log")):
        age = f"SELECT abs(extract(epoch FROM now() AT TIME ZONE 'UTC' - {column})) FROM {table}"
        assert database.value(age) < 60
    assert states(initmig, database, folder) == {"0001_one": "applied"}


@pytest.mark.any_version
def test_each_tool_continues_the_history_of_the_other(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(folder, THREE)

    def agree() -> dict[str, bool]:
        listed = yoyo_list(yoyo, database, folder)
        assert states(initmig, database, folder) == {
            id: "applied" if applied else "pending" for id, applied in listed.items()
        }
        return listed

    one, two, three = THREE_IDS
    succeeded(yoyo("apply", "--revision", one, database=database, folder=folder))
    assert agree() == {one: True, two: False, three: False}
    succeeded(initmig("migrate", "--to", two, url=database.url, folder=folder))
    assert agree() == {one: True, two: True, three: False}
    succeeded(yoyo("apply", database=database, folder=folder))
    assert agree() == {one: True, two: True, three: True}
    succeeded(initmig("rollback", "--steps", "2", url=database.url, folder=folder))
    assert agree() == {one: True, two: False, three: False}
    succeeded(yoyo("apply", database=database, folder=folder))
    succeeded(yoyo("rollback", "--all", database=database, folder=folder))
    assert agree() == {one: False, two: False, three: False}
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert agree() == {one: True, two: True, three: True}
    assert {"one", "two", "three"} <= database.tables()
    assert database.value("SELECT id FROM two") == 2
    assert yoyo("apply", database=database, folder=folder).code == 0
    assert "nothing to do" in initmig("migrate", url=database.url, folder=folder).err


def test_migration_reapplied_by_yoyo_does_not_count_as_changed(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(folder, THREE)
    succeeded(initmig("migrate", url=database.url, folder=folder))
    succeeded(yoyo("rollback", "--revision", "0003", database=database, folder=folder))
    write(folder, {"0003_three.sql": "CREATE TABLE three (id int)"})
    succeeded(yoyo("apply", database=database, folder=folder))
    assert states(initmig, database, folder)["0003_three"] == "applied"
    result = initmig("migrate", "--changed", "fail", url=database.url, folder=folder)
    assert succeeded(result).err.count("changed") == 0


def test_migration_marked_by_yoyo_is_applied_and_unmarked_is_pending(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(folder, THREE)
    succeeded(yoyo("mark", "--revision", "0001_one", database=database, folder=folder))
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert "one" not in database.tables()
    succeeded(yoyo("unmark", "--revision", "0001_one", database=database, folder=folder))
    assert states(initmig, database, folder)["0001_one"] == "pending"
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert "one" in database.tables()


def test_status_shows_the_user_who_marked_a_migration_with_yoyo(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(folder, {"0001_one.sql": "CREATE TABLE one ()"})
    succeeded(initmig("migrate", url=database.url, folder=folder))
    succeeded(yoyo("unmark", "--revision", "0001", database=database, folder=folder))
    succeeded(yoyo("mark", "--revision", "0001", database=database, folder=folder))
    database.execute("UPDATE _yoyo_log SET username = operation, hostname = 'here'")
    result = initmig("status", "--json", url=database.url, folder=folder)
    [row] = json.loads(succeeded(result).out)["migrations"]
    assert (row["applied_by"], row["duration_seconds"]) == ("mark@here", None)


V1 = """
CREATE TABLE _yoyo_migration (id VARCHAR(255) NOT NULL PRIMARY KEY, ctime TIMESTAMP);
INSERT INTO _yoyo_migration VALUES ('0002_two', '2015-01-02'), ('0001_one', '2015-01-01');
CREATE TABLE one (); CREATE TABLE two (id int)"""


def test_table_of_yoyo_before_version_6_is_upgraded(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    database.execute(V1)
    write(folder, THREE)
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert applied_order(database) == THREE_IDS
    assert all(yoyo_list(yoyo, database, folder).values())
    upgraded = describe(database)
    database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    database.execute(V1)
    succeeded(yoyo("apply", database=database, folder=folder))
    assert upgraded == describe(database)


def test_table_of_yoyo_before_version_6_is_read_without_changes(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute(V1)
    write(folder, THREE)
    assert states(initmig, database, folder) == {
        "0001_one": "applied",
        "0002_two": "applied",
        "0003_three": "pending",
    }
    assert initmig("plan", url=database.url, folder=folder).out.count("CREATE TABLE") == 1
    (folder / "0003_three.sql").unlink()
    (folder / "0003_three.rollback.sql").unlink()
    assert "nothing to do" in succeeded(initmig(url=database.url, folder=folder)).err
    assert succeeded(initmig("wait", url=database.url, folder=folder)).code == 0
    assert database.tables() == {"_yoyo_migration", "one", "two"}


def test_migrations_applied_by_yoyo_before_version_6_can_be_rolled_back(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute(V1)
    write(folder, THREE)
    succeeded(initmig("rollback", "--all", url=database.url, folder=folder))
    assert database.tables() == {*YOYO_TABLES, "_initmig_migration"}


# --- files ---


def test_directives_have_the_same_meaning_as_in_yoyo(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_last.sql": (
                "-- A comment first.\n--depends:0002_index\n\n-- depends : 0003_first\n"
                "CREATE TABLE last AS SELECT FROM first"
            ),
            "0002_index.sql": (
                "-- transactional: FALSE\n-- depends: 0003_first\n"
                "CREATE INDEX CONCURRENTLY by_id ON first (id);\nVACUUM first;"
            ),
            "0003_first.sql": "CREATE TABLE first (id int)",
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert applied_order(database) == ["0003_first", "0002_index", "0001_last"]
    assert database.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_id'::regclass")


def test_python_attributes_have_the_same_meaning_as_in_yoyo(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_vacuum.py": (
                "from yoyo import step\n__depends__ = {'0002_table'}\n__transactional__ = False\n"
                "step('VACUUM numbers')\n"
            ),
            "0002_table.py": (
                "__depends__ = '0003_base'\nstep('CREATE TABLE numbers AS SELECT * FROM base')\n"
            ),
            "0003_base.py": "import yoyo\nyoyo.step('CREATE TABLE base (id int)')\n",
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert applied_order(database) == ["0003_base", "0002_table", "0001_vacuum"]


def test_steps_and_groups_are_applied_in_order_and_rolled_back_in_reverse(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    steps = "".join(
        f"{name} = step(\"INSERT INTO events VALUES ('{name}')\","
        f" \"INSERT INTO events VALUES ('undo {name}')\")\n"
        for name in "abcde"
    )
    write(
        folder,
        {
            "0001_events.sql": "CREATE TABLE events (word text, id serial)",
            "0002_words.py": f"from yoyo import group, step, transaction\n{steps}"
            "group(b, c)\ntransaction([d])\n",
        },
    )

    def words() -> list[str]:
        return [word for (word,) in database.query("SELECT word FROM events ORDER BY id")]

    succeeded(initmig("migrate", url=database.url, folder=folder))
    succeeded(initmig("rollback", "--steps", "1", url=database.url, folder=folder))
    by_initmig = words()
    database.execute("TRUNCATE events")
    succeeded(yoyo("apply", database=database, folder=folder))
    succeeded(yoyo("rollback", database=database, folder=folder))
    assert by_initmig == words()
    assert by_initmig == [*"aebcd", *(f"undo {name}" for name in "dcbea")]


@pytest.mark.parametrize("ignored", ["apply", "rollback", "all", None])
def test_ignore_errors_of_a_step_applies_to_the_given_direction(
    initmig: Initmig, database: Database, folder: Path, ignored: str | None
) -> None:
    write(
        folder,
        {
            "0001_a.py": (
                "from yoyo import step\n"
                "step('CREATE TABLE before ()', 'DROP TABLE before')\n"
                f"step('SELECT 1/0', 'SELECT 2/0', ignore_errors={ignored!r})\n"
                "step('CREATE TABLE after ()', 'DROP TABLE after')\n"
            )
        },
    )
    applied = initmig("migrate", url=database.url, folder=folder)
    if ignored not in ("apply", "all"):
        assert (applied.code, "before" in database.tables()) == (1, False)
        write(folder, {"0001_a.py": (folder / "0001_a.py").read_text().replace("1/0", "1/1")})
        succeeded(initmig("migrate", url=database.url, folder=folder))
    else:
        assert applied.code == 0
        assert "division by zero" in applied.err
    assert {"before", "after"} <= database.tables()
    rolled_back = initmig("rollback", "--all", url=database.url, folder=folder)
    undone = ignored in ("rollback", "all")
    assert rolled_back.code == (0 if undone else 1)
    assert {"before", "after"}.isdisjoint(database.tables()) == undone


def test_ignored_error_in_a_group_rolls_back_the_whole_group(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.py": (
                "from yoyo import group, step\n"
                "group(step('CREATE TABLE lost ()'), step('SELECT 1/0'), ignore_errors='apply')\n"
                "step('CREATE TABLE kept ()')\n"
            )
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert database.tables() & {"lost", "kept"} == {"kept"}


def test_ignored_error_does_not_stop_a_non_transactional_migration(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.py": (
                "from yoyo import step\n__transactional__ = False\n"
                "step('SELECT 1/0', ignore_errors='apply')\n"
                "step('CREATE TABLE kept ()')\n"
            )
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert "kept" in database.tables()


def test_output_of_a_python_migration_is_logged_and_not_on_stdout(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.py": (
                "from yoyo import step\n"
                "step('SELECT 42 AS answer', 'SELECT 43 AS answer')\n"
                "step(lambda _: print('no line', end=''), lambda _: print('one\\ntwo'))\n"
            )
        },
    )
    env = {"INITMIG_LOG_FORMAT": "json"}
    printed = {}
    for command in (("migrate",), ("rollback", "--all")):
        result = succeeded(initmig(*command, url=database.url, folder=folder, env=env))
        assert result.out == ""
        lines = [event["text"] for event in result.events if event["event"] == "printed"]
        printed[command[0]] = [line.strip() for line in lines]
    assert printed == {
        "migrate": ["answer", "--------", "42", "(1 row)", "no line"],
        "rollback": ["one", "two", "answer", "--------", "43", "(1 row)"],
    }


def test_python_migration_can_open_a_nested_transaction(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.py": (
                "from yoyo import step\nimport psycopg\n"
                "def fill(connection):\n"
                "    with connection.cursor() as cursor:\n"
                "        cursor.execute('CREATE TABLE filled (id int PRIMARY KEY)')\n"
                "        for id in (1, 1, 2):\n"
                "            try:\n"
                "                with connection.transaction():\n"
                "                    cursor.execute('INSERT INTO filled VALUES (%s)', [id])\n"
                "            except psycopg.errors.UniqueViolation:\n"
                "                pass\n"
                "step(fill)\n"
            )
        },
    )
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert database.query("SELECT id FROM filled ORDER BY id") == [(1,), (2,)]


# --- hooks ---


def test_hooks_run_after_every_run_that_applies_something(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    database.execute("CREATE TABLE events (word text, id serial)")
    write(
        folder,
        {
            "0001_a.sql": "INSERT INTO events VALUES ('a')",
            "post-apply.py": "step(\"INSERT INTO events VALUES ('hook')\")",
            "post-apply-more.sql": "INSERT INTO events VALUES ('more')",
        },
    )

    def words() -> list[str]:
        return [word for (word,) in database.query("SELECT word FROM events ORDER BY id")]

    succeeded(initmig("migrate", url=database.url, folder=folder))
    hooks = words()[1:]
    assert sorted(hooks) == ["hook", "more"]
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert words() == ["a", *hooks]
    write(folder, {"0002_b.sql": "INSERT INTO events VALUES ('b')"})
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert words() == ["a", *hooks, "b", *hooks]
    write(folder, {"0003_c.sql": "INSERT INTO events VALUES ('c')"})
    succeeded(yoyo("apply", database=database, folder=folder))
    assert words() == ["a", *hooks, "b", *hooks, "c", *hooks]
    assert applied_order(database) == ["0001_a", "0002_b", "0003_c"]
    assert {("apply", "post-apply"), ("apply", "post-apply-more")} <= set(logged(database))
    assert set(states(initmig, database, folder)) == {"0001_a", "0002_b", "0003_c"}


def test_failed_hook_keeps_the_applied_migrations(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.sql": "CREATE TABLE kept ()",
            "post-apply.sql": "CREATE TABLE lost ();\nSELECT 1/0;",
        },
    )
    result = initmig("migrate", url=database.url, folder=folder)
    assert result.code == 1
    assert f"{folder}/post-apply.sql:2" in result.err
    assert database.tables() & {"kept", "lost"} == {"kept"}
    assert states(initmig, database, folder) == {"0001_a": "applied", "post-apply": "pending"}


def test_failed_hook_runs_again_in_the_next_run(
    initmig: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE events (word text)", "post-apply.sql": "SELECT 1/0"})
    assert initmig("migrate", url=database.url, folder=folder).code == 1
    # the pending hook does not block stock yoyo
    assert yoyo("list", database=database, folder=folder).code == 0
    waiting = initmig("wait", "--wait-timeout=0", url=database.url, folder=folder)
    assert waiting.code == 7
    assert "1 pending: post-apply" in waiting.err
    assert initmig("status", "--check", url=database.url, folder=folder).code == 7
    write(folder, {"post-apply.sql": "INSERT INTO events VALUES ('hook')"})
    assert "ran post-apply" in succeeded(initmig("migrate", url=database.url, folder=folder)).err
    assert "nothing to do" in succeeded(initmig("migrate", url=database.url, folder=folder)).err
    assert database.query("SELECT word FROM events") == [("hook",)]
    assert applied_order(database) == ["0001_a"]


# --- several folders ---


def test_several_folders_share_one_history(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    insert = "INSERT INTO events VALUES"
    app = write(
        tmp_path / "app",
        {
            "0001_app.sql": f"-- depends: 0005_base\n{insert} ('app')",
            "0002_more.sql": f"{insert} ('more')",
            "post-apply-app.sql": f"{insert} ('app hook')",
        },
    )
    base = write(
        tmp_path / "base",
        {"0005_base.sql": f"{insert} ('base')", "post-apply.sql": f"{insert} ('base hook')"},
    )
    database.execute("CREATE TABLE events (word text, id serial)")
    in_order = "SELECT string_agg(word, ', ' ORDER BY id) FROM events"
    succeeded(initmig("migrate", url=database.url, folder=f"{app},{base}"))
    by_initmig = database.value(in_order)
    assert states(initmig, database, f"{app},{base}").keys() == {
        "0001_app",
        "0002_more",
        "0005_base",
    }
    database.execute("TRUNCATE events; TRUNCATE _yoyo_migration")
    with get_backend(yoyo_url(database.url)) as backend:
        backend.apply_migrations(backend.to_apply(read_migrations(str(app), str(base))))
    assert by_initmig == database.value(in_order)
    assert by_initmig == "more, base, app, app hook, base hook"


# --- the order ---


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, set[str]]:
    """Ids with their dependencies: any ids except themselves, so that cycles occur."""
    ids = draw(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=8, unique=True))
    return {id: draw(st.sets(st.sampled_from(ids), max_size=3)) - {id} for id in sorted(ids)}


def documented_order(graph: Mapping[str, set[str]]) -> list[str] | None:
    """The ids in the order that yoyo documents. None if the dependencies form a cycle."""
    try:
        return in_order_of_yoyo(graph)
    except ValueError:
        return None


def order_of_yoyo(folders: list[str]) -> list[str] | None:
    """The ids in yoyo's order. None if yoyo refuses."""
    try:
        return [migration.id for migration in topological_sort(read_migrations(*folders))]
    except CycleError:
        return None


def order_of_initmig(folders: list[str]) -> list[str] | None:
    try:
        return [
            migration.id
            for migration in engine.load(list_files(folders).migrations, known=(), emit=print)
        ]
    except ConfigError:
        return None


def text_of(depends: set[str], suffix: str) -> str:
    if suffix == ".sql":
        return f"-- depends: {' '.join(sorted(depends))}\nSELECT 1"
    return f"__depends__ = {sorted(depends)!r}\nstep('SELECT 1')\n"


@given(graph=graphs(), data=st.data())
@settings(max_examples=examples(60))
def test_order_is_the_same_as_in_yoyo(graph: Mapping[str, set[str]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = [str(write(Path(root) / name, {})) for name in ("one", "two")]
        homes = {id: data.draw(st.sampled_from(folders)) for id in graph}
        for id, depends in graph.items():
            suffix = data.draw(st.sampled_from([".sql", ".py"]))
            write(Path(homes[id]), {f"{id}{suffix}": text_of(depends, suffix)})
        listed = [id for home in folders for id in sorted(graph) if homes[id] == home]
        expected = documented_order({id: graph[id] for id in listed})
        assert order_of_initmig(folders) == expected
        assert order_of_yoyo(folders) == expected
