"""Folders like those of real projects give the same result with stock yoyo and initmig."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import pytest
from yoyo import get_backend, read_migrations

from tests.support.command import Initmig
from tests.support.migrations import write
from tests.support.processes import succeeded
from tests.support.yoyo import yoyo_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.fork_server import ForkServer
    from tests.support.processes import Processes, Result
    from tests.support.yoyo import Yoyo

pytestmark = pytest.mark.any_version

SCHEMA = """
SELECT relname, attname, format_type(atttypid, atttypmod) FROM pg_attribute
JOIN pg_class c ON c.oid = attrelid
WHERE attnum > 0 AND NOT attisdropped AND relkind = 'r'
    AND relnamespace = 'public'::regnamespace AND relname !~ '^(_?yoyo|_initmig)'
ORDER BY relname, attname"""
ORDER = "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc"
LOGGED = "SELECT operation, migration_id FROM _yoyo_log ORDER BY created_at_utc"
EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"

A = {"0001_a.sql": "CREATE TABLE a (id int);", "0001_a.rollback.sql": "DROP TABLE a;"}
B = {"0002_b.sql": "CREATE TABLE b (id int);", "0002_b.rollback.sql": "DROP TABLE b;"}
PYTHON = (
    "from yoyo import step\nfrom os.path import basename\n"
    "step('CREATE TABLE p (id int)', 'DROP TABLE p')\n"
)


def framed(begin: str, statement: str, commit: str) -> str:
    return f"{begin}\n{statement}\n{commit}\n"


SAME_RESULT: dict[str, dict[str, str]] = {
    "only SQL": {**A, **B},
    "SQL and Python": {**A, "0002_p.py": PYTHON},
    "a module of helpers": {**A, **B, "helpers.py": "NAMES = ['a']\n"},
    "a module in between": {**A, "0001_names.py": "def names():\n    return ['a']\n", **B},
    "an empty module": {**A, "0001_nothing.py": "", **B},
    "a module with only a docstring": {**A, "0001_why.py": '"""Blanked on purpose."""\n'},
    "steps = []": {**A, "0001_none.py": "from yoyo import step\n\nsteps = []\n", **B},
    "no steps, and no transaction": {**A, "0001_none.py": "__transactional__ = False\n", **B},
    "no steps, and dependencies": {**A, **B, "0000_merge.py": "__depends__ = {'0002_b'}\n"},
    "conftest.py and setup.py": {**A, "conftest.py": "import os\n", "setup.py": "NAME = 'x'\n"},
    "packages in subfolders": {**A, "more/__init__.py": "", "more/0009_x.py": PYTHON},
    "other files": {**A, "README.md": "#", "0003_c.sql.bak": "no", "__pycache__/x.pyc": "x"},
    "a hook without steps": {**A, "post-apply.py": "import os\n"},
    "BEGIN and COMMIT": {
        "0001_a.sql": framed("BEGIN;", "CREATE TABLE a (id int);", "COMMIT;"),
        "0001_a.rollback.sql": framed("BEGIN;", "DROP TABLE a;", "COMMIT;"),
        **B,
    },
    "BEGIN and COMMIT in another form": {
        "0001_a.sql": framed("start transaction;", "CREATE TABLE a (id int);", "commit work;"),
        "0001_a.rollback.sql": framed("Begin Work ;", "DROP TABLE a;", "End"),
        **B,
    },
    "BEGIN and COMMIT between comments": {
        "0001_a.sql": framed(
            "-- depends:\n-- é\nBEGIN TRANSACTION; -- now", "CREATE TABLE a (id int);", "COMMIT;--"
        ),
        "0001_a.rollback.sql": "BEGIN;\n/* 漢 */ DROP TABLE a; COMMIT; -- done",
    },
    "BEGIN and COMMIT in a hook": {
        **A,
        "post-apply.sql": framed(
            "BEGIN;", "CREATE TABLE IF NOT EXISTS hook (n int); DROP TABLE hook;", "COMMIT;"
        ),
    },
    "BEGIN, COMMIT and nothing else": {**A, "0003_c.sql": "BEGIN;\nCOMMIT;\n"}
    | {"0003_c.rollback.sql": "BEGIN; COMMIT;"},
    "BEGIN and COMMIT without a transaction": {
        "0001_a.sql": "-- transactional: false\nBEGIN;\nCREATE TABLE a (id int);\nCOMMIT;\n",
        "0001_a.rollback.sql": "BEGIN;\nDROP TABLE a;\nCOMMIT;\n",
    },
    "BEGIN and COMMIT in a step": {
        "0001_a.py": "from yoyo import step\n"
        'step("BEGIN; CREATE TABLE a (id int); COMMIT", "START TRANSACTION; DROP TABLE a; END")\n',
        **B,
    },
    "prose in the header": {
        "0001_a.sql": "-- Breaking: drops x\n-- Depends: on y\n-- breaking: see there\n"
        "CREATE TABLE a (id int);",
        "0001_a.rollback.sql": "DROP TABLE a;",
    },
    "a directive that yoyo does not read": {
        "0001_a.sql": "/* licence */\n-- depends: nowhere\nCREATE TABLE a (id int);",
        "0001_a.rollback.sql": "DROP TABLE a;",
    },
    "dependencies against the order of names": {
        "0001_a.sql": "-- depends: 0002_b\nCREATE TABLE a (id int);",
        "0001_a.rollback.sql": "DROP TABLE a;",
        **B,
    },
}


class Outcome(NamedTuple):
    """The state after a tool applied a folder, and the state after it rolled everything back."""

    schema: list[tuple[object, ...]]
    order: list[tuple[object, ...]]
    left_schema: list[tuple[object, ...]]
    left: list[tuple[object, ...]]
    logged: list[tuple[object, ...]]


@pytest.fixture
def forked(processes: Processes, fork: ForkServer) -> Initmig:
    """The command in a forked process, which saves the startup time."""
    return Initmig(processes, fork)


def outcome_of(database: Database, apply: Callable[[], None], undo: Callable[[], None]) -> Outcome:
    apply()
    schema, order = database.query(SCHEMA), database.query(ORDER)
    undo()
    left = database.query(SCHEMA), database.query(ORDER), database.query(LOGGED)
    database.execute(EMPTY)
    return Outcome(schema, order, *left)


def outcome_of_yoyo(database: Database, source: Path | str) -> Outcome:
    migrations = read_migrations(str(source))
    with get_backend(yoyo_url(database.url)) as backend:
        return outcome_of(
            database,
            lambda: backend.apply_migrations(backend.to_apply(migrations)),
            lambda: backend.rollback_migrations(backend.to_rollback(migrations)),
        )


def outcome_of_initmig(initmig: Initmig, database: Database, source: Path | str) -> Outcome:
    def run(*commands: str) -> None:
        for command in commands:
            succeeded(initmig(*command.split(), url=database.url, folder=source))

    return outcome_of(
        database,
        lambda: run("plan", "migrate", "status --check"),
        lambda: run("rollback --all"),
    )


@pytest.mark.parametrize("files", SAME_RESULT.values(), ids=SAME_RESULT)
def test_folder_has_the_same_result_as_yoyo(
    forked: Initmig, database: Database, folder: Path, files: dict[str, str]
) -> None:
    write(folder, files)

    expected = outcome_of_yoyo(database, folder)

    assert expected.schema
    assert not expected.left_schema
    assert outcome_of_initmig(forked, database, folder) == expected


@pytest.mark.parametrize(
    "source",
    ["apps/*/migrations", "apps/?/migrations", "apps/[ab]/migrations", "apps/**/migrations"],
)
def test_pattern_finds_the_same_migrations_as_yoyo(
    forked: Initmig, database: Database, tmp_path: Path, source: str
) -> None:
    write(tmp_path / "apps" / "a" / "migrations", A)
    write(tmp_path / "apps" / "b" / "migrations", B)
    write(tmp_path / "apps" / ".hidden" / "migrations", {"0003_c.sql": "SELECT 1/0"})
    write(tmp_path / "apps" / "a" / "deep" / "migrations", {"0003_c.sql": "SELECT 1/0"})

    expected = outcome_of_yoyo(database, f"{tmp_path}/{source}")

    # the file system decides the order of yoyo's folders
    found = outcome_of_initmig(forked, database, f"{tmp_path}/{source}")
    assert found.schema == expected.schema
    assert found.order == [("0001_a",), ("0002_b",)] == sorted(expected.order)
    assert not found.left


def test_package_source_has_the_same_result_as_yoyo_without_an_import(
    initmig: Initmig, yoyo: Yoyo, database: Database, tmp_path: Path
) -> None:
    # `bad` raises when it is imported. yoyo imports the package, initmig does not.
    write(tmp_path, {"good/db/__init__.py": "", "bad/__init__.py": "1/0", "bad/db/__init__.py": ""})
    for package in ("good", "bad"):
        write(tmp_path / package / "db" / "migrations", {**A, **B})
    env = {"PYTHONPATH": str(tmp_path)}

    succeeded(yoyo("apply", "package:good.db:migrations", database=database, env=env))
    expected = database.query(SCHEMA), database.query(ORDER)
    database.execute(EMPTY)

    for source in ("package:good.db:migrations", "package:bad.db:migrations"):
        succeeded(initmig("migrate", url=database.url, folder=source, env=env))
        assert (database.query(SCHEMA), database.query(ORDER)) == expected


# --- files that yoyo records although they are not migrations ---


@pytest.mark.parametrize("has_file", [True, False], ids=["with the file", "without"])
def test_recorded_package_file_causes_no_warning_and_no_refusal(
    forked: Initmig, yoyo: Yoyo, database: Database, folder: Path, *, has_file: bool
) -> None:
    write(folder, {"__init__.py": "", **A})
    succeeded(yoyo("apply", database=database, folder=folder))
    assert ("__init__",) in database.query(ORDER)
    if not has_file:
        (folder / "__init__.py").unlink()

    def run(*arguments: str) -> Result:
        env = {"INITMIG_OUT_OF_ORDER": "fail", "INITMIG_LOG_LEVEL": "warning"}
        result = succeeded(forked(*arguments, url=database.url, folder=folder, env=env))
        assert not result.err
        return result

    run("migrate")
    run("status", "--check")
    write(folder, B)  # sorts before `__init__`
    run("migrate")
    rows = json.loads(run("status", "--json").out)["migrations"]
    assert [(row["id"], row["state"]) for row in rows] == [
        ("0001_a", "applied"),
        ("0002_b", "applied"),
        *([("__init__", "applied")] if has_file else []),
    ]
    run("rollback", "--steps", "2" if has_file else "1")
    left = [] if has_file else [("__init__",)]  # yoyo also needs the file to roll back
    assert database.query(ORDER) == [("0001_a",), *left]
    run("rollback", "--all")
    assert database.query(ORDER) == left
    assert not database.query(SCHEMA)


def test_package_file_is_not_recorded(
    forked: Initmig, yoyo: Yoyo, database: Database, tmp_path: Path
) -> None:
    for name, files in (("a", A), ("b", B)):
        write(tmp_path / name, {"__init__.py": "", **files})
    both = f"{tmp_path}/a,{tmp_path}/b"

    succeeded(forked("migrate", url=database.url, folder=both))

    assert database.query(ORDER) == [("0001_a",), ("0002_b",)]
    succeeded(yoyo("apply", database=database, folder=tmp_path / "a"))
    succeeded(forked("status", "--check", url=database.url, folder=both))


def test_files_without_effect_that_yoyo_accepts_are_applied_with_a_warning(
    forked: Initmig, database: Database, folder: Path
) -> None:
    late = "/* licence */\n-- depends: nowhere\nSELECT 1"
    files = {"helpers.py": "", "late.sql": late, "old.py": "from yoyo import step\nsteps = []\n"}
    write(folder, {**A, **files})

    first = forked("migrate", url=database.url, folder=folder, env={"INITMIG_LOG_FORMAT": "json"})
    again = forked("migrate", url=database.url, folder=folder, env={"INITMIG_LOG_FORMAT": "json"})

    warned = [
        [event["id"] for event in succeeded(result).events if event["event"] == "no_statements"]
        for result in (first, again)
    ]
    assert warned == [["helpers", "old"], []]
    [ignored] = [event for event in first.events if event["event"] == "directive_ignored"]
    assert ignored["place"] == f"{folder}/late.sql:2:4"
    assert ignored["line"] == "-- depends: nowhere"
    assert again.code == 0


def test_module_without_steps_is_never_out_of_order(
    forked: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {**A, "helpers.py": "NAMES = []\n"})
    env = {"INITMIG_OUT_OF_ORDER": "fail"}
    succeeded(forked("migrate", url=database.url, folder=folder, env=env))
    write(folder, {**B, "0000_names.py": ""})  # one sorts before `helpers`, the other before all

    rows = forked("status", "--json", url=database.url, folder=folder, env=env)
    migrated = forked("migrate", url=database.url, folder=folder, env=env)

    assert not any(row.get("behind") for row in json.loads(succeeded(rows).out)["migrations"])
    succeeded(migrated)
    write(folder, {"0003_c.py": PYTHON.replace(" p ", " c "), "0000_x.py": PYTHON})
    late = forked("migrate", url=database.url, folder=folder, env=env)
    assert late.code == 6
    assert "0000_x would be applied after 0002_b" in late.err
    assert "[out-of-order]" in late.err


# --- BEGIN and COMMIT around a file ---


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("BEGIN;\nSELECT missing;\nCOMMIT;", "2:8"),
        ("-- é漢\nBEGIN; SELECT 'é漢🐘', missing; COMMIT;", "2:22"),
        ("BEGIN /* é漢\n🐘 */ WORK; SELECT missing; COMMIT;", "2:19"),
        ("\ufeffbegin;\nSELECT 1;\n  SELECT 1/0;\nend;", "3:3"),
        ("BEGIN;\r\nSELECT 1;\r\nSELEC 1;\r\nCOMMIT;\r\n", "3:1"),
        ("BEGIN; CREATE TABLE t (n int); COPY t FROM STDIN;\n1\nx\n\\.\nCOMMIT;", "3:1"),
    ],
    ids=["position", "characters", "comments", "statement", "line ends", "data"],
)
def test_error_between_begin_and_commit_names_its_place(
    forked: Initmig, database: Database, folder: Path, text: str, place: str
) -> None:
    write(folder, {"0001_a.sql": text, **B})

    result = forked("migrate", url=database.url, folder=folder)

    assert result.code == 1
    assert f"{folder}/0001_a.sql:{place}: 0001_a failed" in result.err
    assert not database.query(SCHEMA), "all or nothing"


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ('step("BEGIN; SELECT missing; COMMIT;")', "2:21"),
        ('step("""\nBEGIN;\nSELECT \'é漢🐘\', missing;\nCOMMIT;\n""")', "4:15"),
    ],
    ids=["one line", "several lines"],
)
def test_error_between_begin_and_commit_in_a_step_names_its_place(
    forked: Initmig, database: Database, folder: Path, step: str, place: str
) -> None:
    write(folder, {"0001_a.py": f"from yoyo import step\n{step}\n"})

    result = forked("migrate", url=database.url, folder=folder)

    assert result.code == 1
    assert f"{folder}/0001_a.py:{place}: 0001_a failed" in result.err


def test_every_command_accepts_begin_commit_and_modules_without_steps(
    forked: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.sql": "BEGIN;\nCREATE TABLE a (id int);\nCOMMIT;\n",
            "0001_a.rollback.sql": "START TRANSACTION;\nDROP TABLE a;\nEND;\n",
            "0002_none.py": "__transactional__ = False\n",
            "__init__.py": "",
            "helpers.py": "",
        },
    )

    for command in ("plan", "rehearse", "doctor", "verify", "migrate", "status --check"):
        result = forked(*command.split(), url=database.url, folder=folder)
        assert result.code == 0, (command, result.out, result.err)
    [(checksum,)] = database.query(
        "SELECT checksum FROM _initmig_migration WHERE migration_id = '0001_a'"
    )
    assert checksum == sha256((folder / "0001_a.sql").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT;", "-- transactional: false"),
        ("BEGIN; SELECT 1; COMMIT AND CHAIN;", "-- transactional: false"),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT;",
            "write SET TRANSACTION with its modes instead, and delete the COMMIT",
        ),
    ],
    ids=["several", "chained", "with a mode"],
)
def test_several_or_special_transactions_in_a_file_are_refused(
    forked: Initmig, database: Database, folder: Path, text: str, expected: str
) -> None:
    write(folder, {"0001_a.sql": text})

    result = forked("migrate", url=database.url, folder=folder)

    assert result.code == 2
    assert "[transaction-command]" in result.err
    assert expected in result.err


def test_set_transaction_mode_takes_effect(
    forked: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.sql": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\n"
            "CREATE TABLE level AS SELECT current_setting('transaction_isolation');"
        },
    )

    succeeded(forked("migrate", url=database.url, folder=folder))

    assert database.query("TABLE level") == [("serializable",)]


# --- intended differences ---


def test_yoyo_ini_is_not_read(forked: Initmig, database: Database, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"0001_x.sql": "CREATE TABLE x (id int)"})
    write(tmp_path / "migrations", A)
    ini = (
        "[DEFAULT]\nsources = %(here)s/elsewhere\nmigration_table = other\nprefix = x_\n"
        f"database = {yoyo_url(database.url)}\npost_create_command = touch created\n"
    )
    write(tmp_path, {"yoyo.ini": ini})

    succeeded(forked("migrate", url=database.url, cwd=tmp_path))
    succeeded(forked("new", "add_email", cwd=tmp_path))

    assert database.query(ORDER) == [("0001_a",)]
    assert "other" not in database.tables()
    names = {path.name for path in (tmp_path / "migrations").iterdir()} - A.keys()
    assert all(name[:14].isdigit() and "_add_email." in name for name in names)
    assert len(names) == 2
    assert not (tmp_path / "created").exists()


def test_rows_returned_by_an_sql_file_are_not_shown(
    forked: Initmig, yoyo: Yoyo, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 42 AS answer"})
    shown = succeeded(yoyo("apply", database=database, folder=folder)).out
    database.execute(EMPTY)

    result = succeeded(forked("migrate", url=database.url, folder=folder))

    assert "answer" in shown
    assert result.out == ""
    assert "answer" not in result.err


def test_hidden_file_is_not_a_migration(forked: Initmig, database: Database, folder: Path) -> None:
    write(folder, {**A, ".0002_b.sql": B["0002_b.sql"]})
    by_yoyo = {migration.id for migration in read_migrations(str(folder))}

    succeeded(forked("migrate", url=database.url, folder=folder))

    assert by_yoyo == {"0001_a", ".0002_b"}
    assert database.query(ORDER) == [("0001_a",)]
