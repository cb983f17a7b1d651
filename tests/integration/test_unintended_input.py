"""Every command refuses input that is probably a mistake, before it changes anything."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.image import COMMANDS, Image
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo

# Commands refuse these inputs before the server's version matters.
pytestmark = pytest.mark.any_version

FLYWAY = {"V2__users.sql": "CREATE TABLE users ()", "V1__a.sql": "CREATE TABLE a ()"}
FOREIGN: dict[str, dict[str, str]] = {
    "golang-migrate": {
        "0002_users.up.sql": "CREATE TABLE users ()",
        "0002_users.down.sql": "DROP TABLE users",
    },
    "Flyway": FLYWAY,
    "goose": {"0002_b.sql": "-- +goose Up\nCREATE TABLE b ();\n-- +goose Down\nDROP TABLE b;\n"},
    "dbmate": {"0002_b.sql": "-- migrate:up\nCREATE TABLE b ()\n-- migrate:down\nDROP TABLE b"},
    "Atlas": {"0002_b.sql": "CREATE TABLE b ()", "atlas.sum": "h1:x"},
    "sqitch": {"0002_b.sql": "CREATE TABLE b ()", "sqitch.plan": "%project=x"},
}
WITHOUT_MIGRATIONS: dict[str, dict[str, str]] = {
    "Prisma": {"20240101_init/migration.sql": "CREATE TABLE a ()", "migration_lock.toml": ""},
    "Diesel": {"1_init/up.sql": "CREATE TABLE a ()", "1_init/down.sql": "DROP TABLE a"},
    "Ecto": {"20240101_init.exs": "defmodule Init do end"},
}
TEMPLATE = "-- What this migration does, and why.\n\n"
EMPTY: dict[str, dict[str, str | bytes]] = {
    "0 bytes": {"0002_b.sql": ""},
    "blank": {"0002_b.sql": " \r\n\n\t"},
    "a byte order mark": {"0002_b.sql": b"\xef\xbb\xbf"},
    "the template": {"0002_b.sql": TEMPLATE},
    "the template with CRLF": {"0002_b.sql": TEMPLATE.replace("\n", "\r\n")},
}
A = {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": "DROP TABLE a"}


@pytest.fixture
def image(initmig: Initmig, database: Database, folder: Path) -> Image:
    return Image(initmig, database, folder)


# --- files of another tool ---


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("tool", FOREIGN)
def test_pending_files_of_another_tool_are_refused(
    image: Image, tool: str, command: tuple[str, ...]
) -> None:
    image.write(A | FOREIGN[tool])
    [error] = image.errors(*command, code=2)
    assert error["error"] == "foreign-folder"
    assert tool in error["message"]
    assert "0002_b.sql" in error["message"] + error["path"] or len(FOREIGN[tool]) > 1
    assert image.is_untouched


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("tool", WITHOUT_MIGRATIONS)
def test_folder_of_a_tool_with_other_file_names_is_refused(
    image: Image, tool: str, command: tuple[str, ...]
) -> None:
    image.write(WITHOUT_MIGRATIONS[tool])
    [error] = image.errors(*command, code=2)
    assert (error["error"], tool in error["message"]) == ("foreign-folder", True)
    assert image.is_untouched


def test_error_points_at_the_marker(image: Image) -> None:
    image.write({"0001_a.sql": "CREATE TABLE a ();\n  -- migrate:down\nDROP TABLE a;"})
    [error] = image.errors(code=2)
    assert (error["line"], error["column"], error["source"]) == (2, 3, "  -- migrate:down")


def test_many_files_of_another_tool_are_one_error(image: Image) -> None:
    names = [f"{n:04}_t.{way}.sql" for n in range(50) for way in ("up", "down")]
    image.write(dict.fromkeys(names, "SELECT 1"))
    [error] = image.errors(code=2)
    assert "95 more" in error["message"]


def test_foreign_files_run_unchanged_with_foreign_allow(image: Image) -> None:
    image.write(FLYWAY)
    assert image("--foreign=allow").code == 0
    assert {"a", "users"} <= image.database.tables()


def test_foreign_files_run_if_the_variable_allows_them(image: Image) -> None:
    image.write(FLYWAY)
    assert image(INITMIG_FOREIGN="allow").code == 0
    assert image.database.tables() >= {"a", "users"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"0001_a.up.sql": "CREATE TABLE a ()"}, {"0002_b.up.sql": "CREATE TABLE b ()"}),
        ({"V1__a.sql": "CREATE TABLE a ()"}, {"V2__b.sql": "CREATE TABLE b ()"}),
        (
            {"0001_a.sql": "-- +goose Up\nCREATE TABLE a ()"},
            {"0002_b.sql": "-- +goose Up\nCREATE TABLE b ()"},
        ),
        (
            {"0001_a.sql": "CREATE TABLE a ()", "atlas.sum": ""},
            {"0002_b.sql": "CREATE TABLE b ()"},
        ),
    ],
    ids=["up.sql", "V1__", "marker", "atlas.sum"],
)
def test_format_that_yoyo_has_applied_before_is_accepted(
    image: Image, yoyo: Yoyo, before: dict[str, str], after: dict[str, str]
) -> None:
    image.write(before)
    assert yoyo("apply", folder=image.folder, database=image.database).code == 0
    image.write(after)
    assert image().code == 0
    assert image.database.tables() >= {"a", "b"}


def test_format_of_a_second_tool_is_refused_after_one_was_allowed(image: Image) -> None:
    image.write(FLYWAY)
    assert image("--foreign=allow").code == 0
    image.write({"0003_c.sql": "-- migrate:up\nSELECT 1;\n-- migrate:down\n"})
    [error] = image.errors(code=2)
    assert error["error"] == "foreign-folder"
    assert "dbmate" in error["message"]


def test_applied_files_of_another_tool_are_not_checked(image: Image) -> None:
    image.write(FLYWAY)
    assert image("--foreign=allow").code == 0
    assert image().code == 0
    assert image("status", "--check").code == 0


# --- empty files ---


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("kind", EMPTY)
def test_empty_pending_file_is_refused(image: Image, kind: str, command: tuple[str, ...]) -> None:
    image.write(A | EMPTY[kind])
    [error] = image.errors(*command, code=2)
    assert error["error"] == "empty-migration"
    assert error["path"].endswith("0002_b.sql")
    assert image.is_untouched


def test_template_of_a_python_migration_is_refused(image: Image) -> None:
    assert image("new", "--python", "x").code == 0
    [error] = image.errors(code=2)
    assert error["error"] == "empty-migration"


def test_file_with_only_comments_is_applied_with_a_warning(image: Image) -> None:
    image.write(A | {"0002_merge.sql": "-- depends: 0001_a\n"})
    result = image()
    assert result.code == 0, result.err
    [warning] = [event for event in result.events if event["event"] == "no_statements"]
    assert (warning["level"], warning["id"]) == ("warning", "0002_merge")
    assert not [event for event in image().events if event["event"] == "no_statements"]


def test_applied_file_that_is_now_empty_only_counts_as_changed(image: Image) -> None:
    image.write(A)
    assert image().code == 0
    image.write({"0001_a.sql": ""})
    assert image().code == 0
    status = json.loads(image("status", "--json").out)
    assert [each["state"] for each in status["migrations"]] == ["changed"]


@pytest.mark.parametrize(
    "rollback", ["", "-- The rows stay.\n", "  \n;;", "/* nothing */ ;;\n", "\ufeff\r\n"]
)
def test_rollback_file_without_statements_only_removes_the_record(
    image: Image, rollback: str
) -> None:
    image.write({"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": rollback})
    assert image().code == 0
    result = image("rollback", "--all")
    assert result.code == 0, result.err
    assert image.database.query("SELECT * FROM _yoyo_migration") == []
    assert "a" in image.database.tables()


@pytest.mark.parametrize(
    "rollback",
    [
        None,  # the template by `new`
        "-- Undo it: initmig refuses to roll back while this file has no statement.\n\n",
    ],
    ids=["new", "from 0.1.0"],
)
def test_template_of_a_rollback_file_is_refused(image: Image, rollback: str | None) -> None:
    assert image("new", "a").code == 0
    [path] = [path for path in image.folder.iterdir() if ".rollback." not in path.name]
    path.write_text("CREATE TABLE a ()")
    if rollback:
        path.with_suffix(".rollback.sql").write_text(rollback)
    assert image().code == 0
    [error] = image.errors("rollback", "--all", code=6)
    assert error["error"] == "no-rollback"
    assert "a" in image.database.tables()


# --- no migrations ---

NEED_MIGRATIONS = COMMANDS | {
    "rollback": ("rollback", "--all"),
    "status": ("status",),
    "many": ("--each-schema", "public"),
}


@pytest.mark.parametrize("command", NEED_MIGRATIONS.values(), ids=NEED_MIGRATIONS)
@pytest.mark.parametrize(
    "files",
    [{}, {"README.md": "x"}, {"0001_a.SQL": "SELECT 1"}, {"post-apply.sql": "SELECT 1"}],
    ids=["empty", "other files", "SQL in capitals", "only a hook"],
)
def test_folder_without_migrations_is_refused(
    image: Image, files: dict[str, str], command: tuple[str, ...]
) -> None:
    image.write(files)
    result = image(*command)
    assert result.code == 2, result.err
    errors = [event for event in result.events if event["event"] == "failed"]
    assert errors[0]["error"] == "no-migrations"
    assert str(image.folder) in errors[0]["message"]
    assert ("0001_a.SQL" in files) == ("0001_a.SQL" in errors[0]["message"])
    assert image.is_untouched


@pytest.mark.parametrize(
    "command", [("--allow-empty",), ("wait", "--allow-empty"), ("status", "--allow-empty=yes")]
)
def test_empty_folder_is_allowed_by_the_flag(image: Image, command: tuple[str, ...]) -> None:
    image.write({})
    result = image(*command)
    assert result.code == 0, result.err
    assert result.events[0]["event"] == "no_migrations_found"


def test_empty_folder_is_allowed_by_the_variable(image: Image) -> None:
    image.write({})
    assert image(INITMIG_ALLOW_EMPTY="yes").code == 0
    assert image(INITMIG_ALLOW_EMPTY="no").code == 2


@pytest.mark.parametrize("command", [("wait", "--for=database"), ("unlock",)])
def test_commands_for_the_database_only_need_no_migrations(
    image: Image, command: tuple[str, ...]
) -> None:
    image.write({})
    assert image(*command).code == 0


# --- ignored files ---


def test_files_that_look_like_migrations_are_named_in_one_warning(image: Image) -> None:
    image.write(
        A
        | {
            "0002_b.SQL": "SELECT 1",
            "more/0003_c.sql": "SELECT 1",
            "0004_d.sql/x": "",
            **dict.fromkeys((".0005_e.sql", "0006_f.sql~", "__init__.py", "README.md"), "x"),
            "other/data.csv": "x",
            "helpers/names.py": "",
        }
    )
    os.mkfifo(image.folder / "0007_g.sql")
    result = image()
    assert result.code == 0, result.err
    [warning] = [event for event in result.events if event["event"] == "files_ignored"]
    ignored = ["0002_b.SQL", "0004_d.sql", "0007_g.sql", "more/"]
    assert warning["paths"] == [f"{image.folder}/{name}" for name in ignored]
    assert image.database.query("SELECT migration_id FROM _yoyo_migration") == [("0001_a",)]


def test_ignored_files_cause_no_warning_if_nothing_is_pending(image: Image) -> None:
    image.write(A | {"0002_b.SQL": "SELECT 1"})
    assert image().code == 0
    assert not [event for event in image().events if event["event"] == "files_ignored"]


# --- no database ---

NEED_A_DATABASE = {
    **{name: command for name, command in NEED_MIGRATIONS.items() if name != "verify"},
    "wait --for=database": ("wait", "--for=database"),
    "unlock": ("unlock",),
}


@pytest.mark.parametrize("command", NEED_A_DATABASE.values(), ids=NEED_A_DATABASE)
def test_missing_database_url_is_an_error_without_waiting(
    initmig: Initmig, folder: Path, command: tuple[str, ...]
) -> None:
    write(folder, A)
    # no local server has its socket on this port
    env = {"INITMIG_LOG_FORMAT": "json", "INITMIG_WAIT_TIMEOUT": "30s", "PGPORT": "1"}
    result = initmig(*command, folder=folder, env=env, timeout=20)
    assert result.code == 2, result.err
    assert "waiting_for_database" not in [event["event"] for event in result.events]
    [error] = [event for event in result.events if event["event"] == "failed"]
    assert error["error"] == "no-database"


@pytest.mark.parametrize(
    "env",
    [
        {"PGHOST": "127.0.0.1"},
        {"PGHOSTADDR": "127.0.0.1"},
        {"PGHOST": "/nowhere"},
        {"DATABASE_URL": "postgresql://127.0.0.1/x"},
        {"DATABASE_URL": "host=/nowhere"},
        {"DATABASE_URL": "service=other"},
        {"PGSERVICE": "other"},
    ],
    ids=lambda env: " ".join(f"{name}={value}" for name, value in env.items()),
)
@pytest.mark.parametrize("python", [False, True], ids=["SQL", "Python"])
def test_initmig_waits_for_a_host_from_any_source(
    initmig: Initmig, folder: Path, env: dict[str, str], python: bool
) -> None:
    step = {"0002_b.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')"} if python else {}
    write(folder, A | step | {"../pg_service.conf": "[other]\nhost=127.0.0.1\n"})
    env = {
        "PGPORT": "1",
        "INITMIG_WAIT_TIMEOUT": "100ms",
        "PGSERVICEFILE": str(folder.parent / "pg_service.conf"),
        **env,
    }
    assert initmig(folder=folder, env=env).code == 3


# --- secrets ---


class Secret:
    """A secret file. The other variables lead to a working database, which must not be used."""

    def __init__(self, image: Image, path: Path, variable: str) -> None:
        self.path = path
        host, port = image.database.url.rpartition("@")[2].split("/")[0].split(":")
        self.env = {
            "INITMIG_LOG_FORMAT": "json",
            "INITMIG_WAIT_TIMEOUT": "300ms",
            "PGHOST": host,
            "PGPORT": port,
            "PGUSER": "postgres",
            "PGPASSWORD": "postgres",
            "PGDATABASE": image.database.name,
            variable: str(path),
        }
        if variable == "PGPASSWORD_FILE":
            del self.env["PGPASSWORD"]


@pytest.fixture(params=["DATABASE_URL_FILE", "PGPASSWORD_FILE"])
def secret(request: pytest.FixtureRequest, image: Image, tmp_path: Path) -> Secret:
    image.write(A)
    return Secret(image, tmp_path / "secret", request.param)


def refused_over_an_empty_secret(result: Result) -> bool:
    assert result.code == 2, result.err
    errors = [event["error"] for event in result.events if event["event"] == "failed"]
    waits = [event for event in result.events if event["event"] == "waiting_for_database"]
    return (errors, len(waits)) == (["empty-secret"], 1)


@pytest.mark.parametrize("command", NEED_A_DATABASE.values(), ids=NEED_A_DATABASE)
def test_empty_secret_is_refused_after_a_wait(
    image: Image, initmig: Initmig, secret: Secret, command: tuple[str, ...]
) -> None:
    secret.path.write_text("")
    assert refused_over_an_empty_secret(initmig(*command, folder=image.folder, env=secret.env))
    assert image.is_untouched


@pytest.mark.parametrize("content", ["\n", " \r\n", "\ufeff"], ids=ascii)
def test_blank_secret_counts_as_empty(
    image: Image, initmig: Initmig, secret: Secret, content: str
) -> None:
    secret.path.write_text(content, newline="")
    assert refused_over_an_empty_secret(initmig(folder=image.folder, env=secret.env))
    assert image.is_untouched


@pytest.mark.parametrize("variable", ["DATABASE_URL_FILE", "PGPASSWORD_FILE"])
def test_secret_that_is_written_during_the_wait_is_used(
    image: Image, initmig: Initmig, tmp_path: Path, variable: str
) -> None:
    image.write(A)
    secret = tmp_path / "secret"
    secret.write_text("")
    url = image.database.url
    password = url.partition("://postgres:")[2].partition("@")[0]
    env = {"INITMIG_LOG_FORMAT": "json", variable: str(secret)}
    if variable == "PGPASSWORD_FILE":
        env["DATABASE_URL"] = url.replace(f":{password}@", "@")
    running = initmig.start(folder=image.folder, env=env)
    running.wait_for_line("waiting_for_database")
    secret.write_text(f"{url if variable == 'DATABASE_URL_FILE' else password}\n")
    assert running.result(30).code == 0
    assert "a" in image.database.tables()


def test_secret_from_a_pipe_is_read_once_and_kept(
    image: Image, initmig: Initmig, tmp_path: Path
) -> None:
    image.write(A | {"0002_b.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')"})
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    # the pipe has one writer, and a run with a Python migration connects twice
    writer = threading.Thread(target=pipe.write_text, args=(f"{image.database.url}\n",))
    writer.start()
    result = initmig(folder=image.folder, env={"DATABASE_URL_FILE": str(pipe)}, timeout=30)
    writer.join()
    assert result.code == 0, result.err
    assert "a" in image.database.tables()


# --- names in two spellings ---

NFC, NFD = "0002_caf\u00e9", "0002_cafe\u0301"
HANGUL = ("0002_\uac00", "0002_\u1100\u1161")
KELVIN = ("0002_\u212a", "0002_K")  # the same letter according to Unicode


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_two_files_whose_names_differ_only_in_normalization_are_refused(
    image: Image, command: tuple[str, ...]
) -> None:
    image.write(A | {f"{NFC}.sql": "SELECT 1", f"{NFD}.sql": "SELECT 1"})
    [error] = image.errors(*command, code=2)
    assert error["error"] == "other-spelling"
    assert "0002_cafe<U+0301> here, 0002_caf<U+00E9> there" in error["message"]
    assert error["next"].startswith("delete one of the files")
    assert image.is_untouched


@pytest.mark.parametrize(
    ("applied", "pending", "command"),
    [
        *((NFC, NFD, name) for name in COMMANDS if name != "verify"),  # verify has its own database
        (NFD, NFC, "migrate"),
        (*HANGUL, "migrate"),
    ],
    ids=ascii,
)
def test_file_whose_name_is_applied_in_another_normalization_is_refused(
    image: Image, applied: str, pending: str, command: str
) -> None:
    image.write(A | {f"{applied}.sql": "CREATE TABLE b ()"})
    assert image().code == 0
    (image.folder / f"{applied}.sql").rename(image.folder / f"{pending}.sql")
    words = [pending if word == "0001_a" else word for word in COMMANDS[command]]
    [error] = image.errors(*words, code=2)
    assert error["error"] == "other-spelling"
    assert error["path"] == f"{image.folder}/{pending}.sql"
    assert all(f"<U+{ord(c):04X}>" in error["message"] for c in applied + pending if c > "~")
    assert error["next"].startswith("rename the file to the applied spelling")
    (image.folder / f"{pending}.sql").rename(image.folder / f"{applied}.sql")
    assert image("wait").code == 0


@pytest.mark.parametrize(
    "files",
    [
        (f"{NFC}.sql", f"other/{NFD}.sql"),
        (f"{NFC}.py", f"{NFD}.sql"),
        tuple(f"{each}.sql" for each in KELVIN),
        ("post-apply-\u00e9.sql", "post-apply-e\u0301.sql"),
    ],
    ids=["folders", "kinds", "one is ASCII", "hooks"],
)
def test_equal_names_in_folders_kinds_and_hooks_are_refused(
    image: Image, files: tuple[str, ...]
) -> None:
    image.write(A)
    (image.folder / "other").mkdir()
    image.write(dict.fromkeys(files, "step('SELECT 1')"))
    folders = f"{image.folder},{image.folder}/other"
    result = image("migrate", INITMIG_MIGRATIONS=folders)
    assert result.code == 2
    assert [event["error"] for event in result.events] == ["other-spelling"]


def test_migrations_applied_in_two_normalizations_are_accepted(image: Image, yoyo: Yoyo) -> None:
    image.write(A | {f"{NFC}.sql": "SELECT 1", f"{NFD}.sql": "SELECT 1"})
    assert yoyo("apply", database=image.database, folder=image.folder).code == 0
    assert image().code == image("wait").code == image("status", "--check").code == 0
    image.write({"0003_\u00e9.sql": "SELECT 1"})
    assert image().code == 0


@pytest.mark.parametrize("other", ["0002_\u00c9", "0002_e", "0002_\u0435"])
def test_names_with_similar_letters_are_different_migrations(image: Image, other: str) -> None:
    image.write({"0002_\u00e9.sql": "SELECT 1", f"{other}.sql": "SELECT 1"})
    assert image().code == 0
    recorded = image.database.query("SELECT migration_id FROM _yoyo_migration")
    assert set(recorded) == {("0002_\u00e9",), (other,)}


# --- names that are too long ---

NON_TRANSACTIONAL = "__transactional__ = False\nstep('SELECT 1', 'SELECT 1')"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_name_too_long_for_the_record_of_a_rollback_is_refused(
    image: Image, command: tuple[str, ...]
) -> None:
    long = "0002_".ljust(243, "x")
    image.write(A | {f"{long}.py": NON_TRANSACTIONAL})
    words = [long if word == "0001_a" else word for word in command]
    [error] = image.errors(*words, code=2)
    assert error["error"] == "id-too-long"
    assert all(count in error["message"] for count in ("has 243 characters", "at most 242"))
    assert error["next"].startswith("give the file a shorter name")
    assert image.is_untouched


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0002_".ljust(242, "x") + ".py", NON_TRANSACTIONAL),
        ("0002_".ljust(242, "x") + ".sql", "-- transactional: false\nSELECT 1; SELECT 2"),
        ("0002_".ljust(252, "x") + ".py", "step('SELECT 1', 'SELECT 1')"),
        ("0002_" + "é" * 123 + ".py", NON_TRANSACTIONAL),
        ("post-apply".ljust(252, "x") + ".py", NON_TRANSACTIONAL),
    ],
    ids=["python", "sql", "transactional", "bytes", "hook"],
)
def test_longest_valid_name_is_applied_and_rolled_back(image: Image, name: str, text: str) -> None:
    image.write(A | {name: text})
    if name.endswith(".sql"):
        image.write({name.replace(".sql", ".rollback.sql"): "SELECT 1; SELECT 2"})
    assert image("wait").code == 7
    ids = {"0001_a", name.rpartition(".")[0]}
    for command, expected in (("migrate", ids), ("rollback --all", set()), ("migrate", ids)):
        done = image(*command.split())
        assert done.code == 0, done.err
        found = image.database.query("SELECT migration_id FROM _yoyo_migration")
        recorded = {id for (id,) in found if not id.startswith("post-apply")}
        assert recorded == {id for id in expected if not id.startswith("post-apply")}


def test_applied_name_too_long_for_a_rollback_is_refused_before_any_rollback(
    image: Image, yoyo: Yoyo
) -> None:
    long = "0000_".ljust(243, "x")
    image.write(A | {f"{long}.py": NON_TRANSACTIONAL})
    assert yoyo("apply", database=image.database, folder=image.folder).code == 0
    [error] = image.errors("rollback", "--all", code=2)
    assert error["error"] == "id-too-long"
    assert "undo it by hand" in error["next"]
    assert "a" in image.database.tables()
    assert image("rollback", "--steps=1").code == 0
