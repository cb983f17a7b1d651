"""`rollback --irreversible`: a migration without a rollback is refused, or skipped as in yoyo."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import initmig as library
from dev.programs import find_installation
from initmig.core.errors import PlanError
from tests.support.databases import ASLEEP, WAIT_FOR_GATE, create_database
from tests.support.dumps import pg_dump_for
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.processes import succeeded
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo

pytestmark = pytest.mark.any_version

STEP = "from yoyo import group, step\n"
NON_TRANSACTIONAL = "-- transactional: false\n"
PYTHON_NON_TRANSACTIONAL = f"{STEP}__transactional__ = False\n"
SKIP = "--irreversible=skip"

# Each imitates a folder of a real project that uses yoyo.
FOLDERS: dict[str, dict[str, str]] = {
    "SQL without any rollback file": {
        "0001_users.sql": "CREATE TABLE users (id int); CREATE INDEX ON users (id);",
        "0002_note.sql": "ALTER TABLE users ADD note text;",
    },
    "SQL with a rollback file for the newest migration only": {
        "0001_users.sql": "CREATE TABLE users (id int)",
        "0002_note.sql": "-- depends: 0001_users\nALTER TABLE users ADD note text",
        "0002_note.rollback.sql": "ALTER TABLE users DROP note",
    },
    "a rollback file with fewer statements than the migration": {
        "0001_a.sql": "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE c ();",
        "0001_a.rollback.sql": "DROP TABLE c;\nDROP TABLE a;",
        "0002_d.sql": "CREATE TABLE d ();",
    },
    "a rollback file with more statements than the migration": {
        "0001_a.sql": "CREATE TABLE a (n int);",
        "0001_a.rollback.sql": "ALTER TABLE a RENAME TO b; ALTER TABLE b ADD m int;"
        " ALTER TABLE b RENAME TO c",
        "0002_d.sql": "CREATE TABLE d ();",
    },
    "a rollback file that is empty, and one with only a comment": {
        "0001_a.sql": "CREATE TABLE a ();",
        "0001_a.rollback.sql": "",
        "0002_b.sql": "CREATE TABLE b ();",
        "0002_b.rollback.sql": "-- cannot be undone\n",
        "0003_c.sql": "CREATE TABLE c ();",
    },
    "Python steps, some without a rollback": {
        "0001_users.py": STEP + "steps = [\n"
        "    step('CREATE TABLE users (id int)', 'DROP TABLE users'),\n"
        "    step('CREATE TABLE kept (id int)'),\n"
        "    step('CREATE INDEX users_id ON users (id)', 'DROP INDEX users_id'),\n"
        "]\n",
    },
    "Python functions without a rollback": {
        "0001_rows.py": STEP + "def fill(connection):\n"
        "    connection.cursor().execute('INSERT INTO rows VALUES (1)')\n"
        "step('CREATE TABLE rows (id int)')\n"
        "step(fill)\n"
        "step('CREATE TABLE more ()', lambda c: c.cursor().execute('DROP TABLE more'))\n",
    },
    "a rollback that is None, an empty string, or a comment": {
        "0001_a.py": STEP + "step('CREATE TABLE a ()', None)\n"
        "step('CREATE TABLE b ()', '')\n"
        "step('CREATE TABLE c ()', '-- nothing')\n"
        "step('CREATE TABLE d ()', rollback='DROP TABLE d')\n",
    },
    "groups in groups, whose errors are ignored": {
        "0001_a.py": STEP + "group([\n"
        "    step('CREATE TABLE a ()'),\n"
        "    group([step('CREATE TABLE b ()', 'DROP TABLE b'), step('CREATE TABLE c ()')],\n"
        "          ignore_errors='rollback'),\n"
        "    group([step('CREATE TABLE d ()', 'DROP TABLE d'),\n"
        "           step('CREATE TABLE e ()', 'DROP TABLE missing')], ignore_errors='all'),\n"
        "])\n",
    },
    "migrations that are not transactional": {
        "0001_t.sql": "CREATE TABLE t (id int)",
        "0002_i.sql": f"{NON_TRANSACTIONAL}CREATE INDEX CONCURRENTLY i ON t (id);",
        "0003_j.py": PYTHON_NON_TRANSACTIONAL
        + "step('CREATE INDEX CONCURRENTLY j ON t (id)', 'DROP INDEX CONCURRENTLY j')\n"
        "step('VACUUM t')\n"
        "step('ALTER TABLE t ADD m int', 'ALTER TABLE t DROP m')\n",
        "0004_k.sql": f"{NON_TRANSACTIONAL}CREATE INDEX CONCURRENTLY k ON t (id);",
        "0004_k.rollback.sql": "DROP INDEX CONCURRENTLY k;",
    },
    "a hook after each run": {
        "0001_t.sql": "CREATE TABLE t (id serial)",
        "post-apply.sql": "INSERT INTO t DEFAULT VALUES",
        "0002_u.sql": "CREATE TABLE u ()",
        "0002_u.rollback.sql": "DROP TABLE u",
    },
}


def skipped_events(result: Result) -> list[dict[str, Any]]:
    return [event for event in result.events if event["event"] == "rollback_skipped"]


class State:
    """The state of a database after a rollback: its schema, rows and history."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        program = pg_dump_for(find_installation(), tmp_path / "dump")
        argv = [str(program), "--inserts", "--exclude-table=_initmig*", "--exclude-table=*yoyo*"]
        dump = subprocess.run([*argv, database.url], capture_output=True, text=True, check=True)
        self.schema = re.sub(r"(?m)^(--|\\).*\n", "", dump.stdout)
        self.history = database.query("SELECT migration_hash, migration_id FROM _yoyo_migration")
        self.log = database.query(
            "SELECT migration_hash, migration_id, operation FROM _yoyo_log ORDER BY created_at_utc"
        )


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_skipping_leaves_the_same_state_as_stock_yoyo(
    yoyo: Yoyo, server: DatabaseServer, database: Database, tmp_path: Path, files: dict[str, str]
) -> None:
    folder = write(tmp_path / "migrations", files)
    other = create_database(server)
    for each in (database, other):
        library.migrate(database_url=each.url, migrations=folder)
    with pytest.raises(PlanError) as refused:
        library.rollback(database_url=database.url, migrations=folder, all=True)
    assert {problem.id for problem in refused.value.problems} == {"no-rollback"}

    events: list[Any] = []
    library.rollback(
        database_url=database.url,
        migrations=folder,
        all=True,
        irreversible="skip",
        on_event=events.append,
    )
    stock = yoyo("rollback", "--all", database=other, folder=folder)
    assert stock.code == 0, stock.err  # yoyo logs a traceback for each ignored error
    by_initmig, by_yoyo = State(database, tmp_path), State(other, tmp_path)
    other.drop(server)
    assert by_initmig.schema == by_yoyo.schema
    assert "CREATE TABLE" in by_initmig.schema
    assert (by_initmig.history, by_initmig.log) == ([], by_yoyo.log)
    names = [type(event).__name__ for event in events]
    assert 0 < names.index("RollbackSkipped") < names.index("MigrationStarted")
    assert "RollbackSkipped" not in names[names.index("MigrationStarted") :]


def test_skipping_through_a_pooler_leaves_the_same_state(
    initmig: Initmig, server: DatabaseServer, database: Database, folder: Path
) -> None:
    write(folder, MIXED | FOLDERS["migrations that are not transactional"])
    with running_pgbouncer(server, pool_mode="transaction", default_pool_size=2) as bouncer:
        url = bouncer.url(database.name)
        succeeded(initmig("migrate", url=url, folder=folder))
        result = succeeded(initmig("rollback", "--all", SKIP, url=url, folder=folder))
    assert len(re.findall("skipping it and removing the record of", result.err)) == 5
    assert {"s", "a", "b", "c", "t", "good", "d"} & database.tables() == {"s", "a", "b", "c", "t"}
    assert database.query("SELECT FROM _yoyo_migration") == []


# --- messages ---

PYTHON_LINES = """\
from yoyo import group, step

def kept(name):
    step(f"CREATE TABLE {name} ()")

kept("a")
kept("b")
group(
    [
        step(
            "CREATE TABLE c ()",
        ),
        step("CREATE TABLE d ()", "DROP TABLE d"),
    ]
)
step(lambda connection: None)
"""
MIXED = {
    "0001_sql.sql": "CREATE TABLE s ()",
    "0002_lines.py": PYTHON_LINES,
    "0003_good.sql": "CREATE TABLE good ()",
    "0003_good.rollback.sql": "DROP TABLE good",
}


def test_error_names_each_step_without_a_rollback_and_the_flag(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, MIXED)
    succeeded(initmig("migrate", url=database.url, folder=folder))
    refused = initmig(*("rollback", "--all", "--log-format=json"), url=database.url, folder=folder)
    assert refused.code == 6
    python, sql = (event for event in refused.events if event["event"] == "failed")
    assert (python["error"], sql["error"]) == ("no-rollback", "no-rollback")
    assert "steps 1, 2, 3, 5 of 5, at lines 4, 4, 10, 16" in python["message"]
    assert (python["path"], python["line"]) == (f"{folder}/0002_lines.py", 4)
    assert f"{folder}/0001_sql.rollback.sql" in sql["next"]
    assert "--irreversible=skip" in sql["next"]
    assert "--irreversible=skip" in python["next"]
    assert {"s", "a", "b", "c", "d", "good"} <= database.tables()


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        (["--steps=1"], []),
        (["--steps=2"], ["0002_lines"]),
        (["--to=0002"], []),
        (["--all"], ["0002_lines", "0001_sql"]),
    ],
    ids=["none of them", "one of them", "up to them", "all of them"],
)
def test_skipped_migrations_are_listed_before_anything_runs(
    initmig: Initmig, database: Database, folder: Path, arguments: list[str], listed: list[str]
) -> None:
    write(folder, MIXED)
    succeeded(initmig("migrate", url=database.url, folder=folder))
    env = {"INITMIG_IRREVERSIBLE": "skip", "INITMIG_LOG_FORMAT": "json"}
    result = succeeded(initmig("rollback", *arguments, url=database.url, folder=folder, env=env))
    assert [event["id"] for event in skipped_events(result)] == listed
    places = {event["id"]: event["places"] for event in skipped_events(result)}
    lines = f"{folder}/0002_lines.py:"
    assert places.get("0002_lines", []) in ([], [f"{lines}{n}" for n in (4, 4, 10, 16)])
    assert places.get("0001_sql", []) in ([], [f"{folder}/0001_sql.rollback.sql"])
    names = [event["event"] for event in result.events]
    assert "rollback_skipped" not in names[names.index("migration_rolled_back") :]
    assert {event["level"] for event in skipped_events(result)} <= {"warning"}


def test_template_of_a_rollback_file_counts_as_no_rollback(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    folder.mkdir()
    succeeded(initmig("new", "a", folder=folder))
    [path] = [path for path in folder.iterdir() if ".rollback" not in path.name]
    path.write_text("CREATE TABLE a ()")
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert initmig("rollback", "--all", url=database.url, folder=folder).code == 6
    skipped = succeeded(initmig("rollback", "--all", SKIP, url=database.url, folder=folder))
    assert f"{path.stem} has no rollback" in skipped.err
    assert "a" in database.tables()


# --- refusals that the flag does not affect ---


def remove(folder: Path) -> None:
    (folder / "0001_sql.sql").unlink()


def make_foreign(folder: Path) -> None:
    write(folder, {"0003_good.rollback.sql": "-- +goose Down\nDROP TABLE good"})


def change(folder: Path) -> None:
    write(folder, {"0001_sql.sql": "CREATE TABLE s (id int)"})


REFUSED: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "a file that this image lacks": (remove, [], 6, "unknown-migration"),
    "another tool's rollback": (make_foreign, [], 2, "foreign-folder"),
    "a changed file": (change, ["--changed=fail"], 6, "changed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_skipping_does_not_allow_other_problems(
    initmig: Initmig, database: Database, folder: Path, case: str
) -> None:
    break_folder, flags, code, error = REFUSED[case]
    write(folder, MIXED)
    succeeded(initmig("migrate", url=database.url, folder=folder))
    break_folder(folder)
    arguments = ["rollback", "--all", SKIP, "--log-format=json", *flags]
    refused = initmig(*arguments, url=database.url, folder=folder)
    assert refused.code == code
    assert [event["error"] for event in refused.events if event["event"] == "failed"] == [error]
    assert skipped_events(refused) == []
    assert "good" in database.tables()


def test_only_rollback_reads_the_variable(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, MIXED)
    env = {"INITMIG_IRREVERSIBLE": "nonsense"}
    for command in (["migrate"], ["status"], ["plan"], ["doctor"]):
        succeeded(initmig(*command, url=database.url, folder=folder, env=env))
    refused = initmig("rollback", "--all", url=database.url, folder=folder, env=env)
    assert refused.code == 2
    assert (
        "INITMIG_IRREVERSIBLE: 'nonsense' is not one of fail, skip [invalid-value]" in refused.err
    )
    misplaced = initmig("migrate", SKIP, url=database.url, folder=folder)
    assert misplaced.code == 2
    assert "[misplaced-flag]\n  next: remove it, or use it with rollback\n" in misplaced.err


# --- half-applied ---

INTERRUPTED: dict[str, dict[str, str]] = {
    "steps in Python": {
        "0001_a.py": PYTHON_NON_TRANSACTIONAL + f"wait = '''{WAIT_FOR_GATE}'''\n"
        "step('CREATE TABLE IF NOT EXISTS a ()', 'DROP TABLE a')\n"
        "step('CREATE TABLE IF NOT EXISTS b ()')\n"
        "step('SELECT 1', wait)\n"
        "step('CREATE TABLE IF NOT EXISTS c ()', 'DROP TABLE c')\n",
    },
    "a group of steps in Python": {
        "0001_a.py": PYTHON_NON_TRANSACTIONAL + f"wait = '''{WAIT_FOR_GATE}'''\n"
        "step('CREATE TABLE IF NOT EXISTS a ()', 'DROP TABLE a')\n"
        "group([step('CREATE TABLE IF NOT EXISTS b ()'), step('SELECT 1', wait)])\n"
        "step('CREATE TABLE IF NOT EXISTS c ()', 'DROP TABLE c')\n",
    },
}


@pytest.mark.parametrize(
    ("case", "flags"),
    [
        ("steps in Python", []),
        ("a group of steps in Python", ["--irreversible=fail"]),
        ("steps in Python", [SKIP]),
    ],
)
def test_killed_rollback_is_resumed_with_or_without_the_flag(
    initmig: Initmig, database: Database, folder: Path, case: str, flags: list[str]
) -> None:
    write(folder, INTERRUPTED[case])
    succeeded(initmig("migrate", url=database.url, folder=folder))
    database.execute("CREATE TABLE gate ()")
    running = initmig.start("rollback", "--all", SKIP, url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    running.kill()
    database.execute("DROP TABLE gate")
    assert {"a", "b", "c"} & database.tables() == {"a", "b"}

    refused = initmig("migrate", url=database.url, folder=folder)
    assert refused.code == 6
    assert "0001_a is half-applied: its rollback was interrupted after 1 part [" in refused.err
    assert "`initmig rollback`" in refused.err

    arguments = ["rollback", "--all", "--log-format=json", *flags]
    finished = succeeded(initmig(*arguments, url=database.url, folder=folder))
    assert [event["id"] for event in skipped_events(finished)] == ["0001_a"]
    resumed = [event for event in finished.events if event["event"] == "migration_resumed"]
    assert [event["parts_done"] for event in resumed] == [1]
    assert {"a", "b", "c"} & database.tables() == {"b"}
    assert database.query("SELECT FROM _yoyo_migration") == []
    assert database.query("SELECT FROM _initmig_migration") == []
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert {"a", "b", "c"} <= database.tables()


def test_rollback_begun_with_a_file_that_is_now_missing_is_refused_without_the_flag(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    files = {
        "0001_a.sql": f"{NON_TRANSACTIONAL}CREATE TABLE a ()",
        "0001_a.rollback.sql": "DROP TABLE a;\nDROP TABLE missing;",
    }
    write(folder, files)
    succeeded(initmig("migrate", url=database.url, folder=folder))
    assert initmig("rollback", "--all", url=database.url, folder=folder).code == 1
    (folder / "0001_a.rollback.sql").unlink()
    for flags, error in (
        ([], "no-rollback"),
        ([SKIP], "changed-half-applied"),
        (["--changed=allow"], "no-rollback"),
    ):
        refused = initmig("rollback", "--all", *flags, url=database.url, folder=folder)
        assert refused.code == 6
        assert f"[{error}]" in refused.err
    succeeded(
        initmig("rollback", "--all", SKIP, "--changed=allow", url=database.url, folder=folder)
    )
    assert database.query("SELECT FROM _yoyo_migration") == []


def test_half_applied_migration_is_refused_with_the_flag(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": f"{NON_TRANSACTIONAL}CREATE TABLE a ();\nSELECT missing;"})
    assert initmig("migrate", url=database.url, folder=folder).code == 1
    refused = initmig("rollback", "--all", SKIP, url=database.url, folder=folder)
    assert refused.code == 6
    assert "[half-applied]" in refused.err
    assert "a" in database.tables()
