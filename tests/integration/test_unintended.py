"""Input that was not meant to run is refused by every command, before anything is touched."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo

JSON = {"INITMIG_LOG_FORMAT": "json", "INITMIG_WAIT_TIMEOUT": "0"}

COMMANDS: dict[str, tuple[str, ...]] = {
    "migrate": (),
    "migrate --to": ("--to", "0001_a"),
    "exec": ("exec", "--", "echo", "started"),
    "serve": ("serve", "--listen=127.0.0.1:0"),
    "plan": ("plan",),
    "rehearse": ("rehearse",),
    "wait": ("wait",),
    "status --check": ("status", "--check"),
    "doctor": ("doctor",),
    "verify": ("verify",),
    "baseline": ("baseline", "--to", "0001_a"),
}
"""Every command that works with pending migrations."""

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


class Image:
    """initmig with a folder of migrations, for one database."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self.database = database
        self.folder = folder

    def __call__(self, *arguments: str, **env: str) -> Result:
        return self._initmig(
            *arguments, url=self.database.url, folder=self.folder, env=JSON | env, timeout=60
        )

    def errors(self, *arguments: str, code: int) -> list[dict[str, Any]]:
        """The errors of a run that ends with *code*."""
        result = self(*arguments)
        assert result.code == code, result.err
        return [event for event in result.events if event["event"] == "failed"]

    def write(self, files: Mapping[str, str | bytes]) -> None:
        write(self.folder, files)

    @property
    def is_untouched(self) -> bool:
        return not self.database.tables()


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
def test_folder_of_a_tool_whose_files_are_not_even_listed_is_refused(
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


def test_foreign_files_are_run_as_they_are_when_that_is_allowed(image: Image) -> None:
    image.write(FLYWAY)
    assert image("--foreign=allow").code == 0
    assert {"a", "users"} <= image.database.tables()


def test_foreign_files_are_run_when_the_variable_allows_it(image: Image) -> None:
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
def test_shape_that_yoyo_has_applied_before_is_accepted(
    image: Image, yoyo: Yoyo, before: dict[str, str], after: dict[str, str]
) -> None:
    image.write(before)
    assert yoyo("apply", folder=image.folder, database=image.database).code == 0
    image.write(after)
    assert image().code == 0
    assert image.database.tables() >= {"a", "b"}


def test_another_tools_shape_is_refused_though_one_shape_was_applied(image: Image) -> None:
    image.write(FLYWAY)
    assert image("--foreign=allow").code == 0
    image.write({"0003_c.sql": "-- migrate:up\nSELECT 1;\n-- migrate:down\n"})
    [error] = image.errors(code=2)
    assert error["error"] == "foreign-folder"
    assert "dbmate" in error["message"]


def test_applied_files_of_another_shape_are_never_looked_at(image: Image) -> None:
    image.write(FLYWAY)
    assert image("--foreign=allow").code == 0
    assert image().code == 0
    assert image("status", "--check").code == 0


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
def test_history_of_another_tool_is_refused_while_there_is_none_of_ours(
    image: Image, tool: str, command: tuple[str, ...]
) -> None:
    image.database.execute(HISTORIES[tool])
    before = image.database.tables()
    image.write(A)
    [error] = image.errors(*command, code=6)
    assert error["error"] == "foreign-history"
    assert tool in error["message"]
    assert "initmig baseline" in error["next"]
    assert image.database.tables() == before


def test_doctor_fails_over_the_history_of_another_tool(image: Image) -> None:
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


def test_another_tools_history_beside_ours_is_no_obstacle(image: Image) -> None:
    image.write(A)
    assert image().code == 0
    image.database.execute(HISTORIES["Flyway"])
    image.write({"0002_b.sql": "CREATE TABLE b ()"})
    assert image().code == 0


def test_history_of_another_tool_can_be_allowed(image: Image) -> None:
    image.database.execute(HISTORIES["Flyway"])
    image.write(A)
    assert image("--foreign=allow").code == 0


def test_history_of_another_tool_in_another_schema_is_not_ours_to_judge(image: Image) -> None:
    image.database.execute("CREATE SCHEMA other; CREATE TABLE other.flyway_schema_history (id int)")
    image.write(A)
    assert image().code == 0


def test_reader_without_privileges_on_the_table_sees_the_refusal_too(image: Image) -> None:
    image.database.execute(HISTORIES["Flyway"])
    image.write(A)
    reader = image.database.login_role()
    result = image("wait", DATABASE_URL=reader)
    assert [event["error"] for event in result.events if event["event"] == "failed"] == [
        "foreign-history"
    ]


# --- empty files ---


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("kind", EMPTY)
def test_pending_file_that_nobody_has_written_is_refused(
    image: Image, kind: str, command: tuple[str, ...]
) -> None:
    image.write(A | EMPTY[kind])
    [error] = image.errors(*command, code=2)
    assert error["error"] == "empty-migration"
    assert error["path"].endswith("0002_b.sql")
    assert image.is_untouched


def test_template_of_a_python_migration_is_refused(image: Image) -> None:
    assert image("new", "--python", "x").code == 0
    [error] = image.errors(code=2)
    assert error["error"] == "empty-migration"


def test_file_with_comments_alone_is_applied_with_a_warning(image: Image) -> None:
    image.write(A | {"0002_merge.sql": "-- depends: 0001_a\n"})
    result = image()
    assert result.code == 0, result.err
    [warning] = [event for event in result.events if event["event"] == "no_statements"]
    assert (warning["level"], warning["id"]) == ("warning", "0002_merge")
    assert not [event for event in image().events if event["event"] == "no_statements"]


def test_applied_file_that_was_emptied_since_is_only_a_changed_one(image: Image) -> None:
    image.write(A)
    assert image().code == 0
    image.write({"0001_a.sql": ""})
    assert image().code == 0


@pytest.mark.parametrize(
    "rollback", ["", "-- The rows stay.\n", "  \n;;", "/* nothing */ ;;\n", "\ufeff\r\n"]
)
def test_rollback_without_statements_has_nothing_to_undo(image: Image, rollback: str) -> None:
    image.write({"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": rollback})
    assert image().code == 0
    result = image("rollback", "--all")
    assert result.code == 0, result.err
    assert image.database.query("SELECT * FROM _yoyo_migration") == []
    assert "a" in image.database.tables()


@pytest.mark.parametrize(
    "rollback",
    [
        None,  # what `new` writes
        "-- Undo it: initmig refuses to roll back while this file has no statement.\n\n",
    ],
    ids=["new", "of 0.1.0"],
)
def test_template_of_a_rollback_undoes_nothing_and_is_refused(
    image: Image, rollback: str | None
) -> None:
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
    ids=["empty", "other files", "SQL in capitals", "a hook alone"],
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
def test_folder_may_be_empty_where_that_is_allowed(image: Image, command: tuple[str, ...]) -> None:
    image.write({})
    result = image(*command)
    assert result.code == 0, result.err
    assert result.events[0]["event"] == "no_migrations_found"


def test_folder_may_be_empty_where_the_variable_allows_it(image: Image) -> None:
    image.write({})
    assert image(INITMIG_ALLOW_EMPTY="yes").code == 0
    assert image(INITMIG_ALLOW_EMPTY="no").code == 2


@pytest.mark.parametrize("command", [("wait", "--for=database"), ("unlock",)])
def test_commands_about_the_database_alone_need_no_migrations(
    image: Image, command: tuple[str, ...]
) -> None:
    image.write({})
    assert image(*command).code == 0


# --- files that are left out ---


def test_files_that_look_like_migrations_are_named_in_one_warning(image: Image) -> None:
    image.write(
        A
        | {
            "0002_b.SQL": "SELECT 1",
            "more/0003_c.sql": "SELECT 1",
            "0004_d.sql/x": "",
            **dict.fromkeys((".0005_e.sql", "0006_f.sql~", "__init__.py", "README.md"), "x"),
            "other/data.csv": "x",
        }
    )
    os.mkfifo(image.folder / "0007_g.sql")
    result = image()
    assert result.code == 0, result.err
    [warning] = [event for event in result.events if event["event"] == "files_ignored"]
    ignored = ["0002_b.SQL", "0004_d.sql", "0007_g.sql", "more/"]
    assert warning["paths"] == [f"{image.folder}/{name}" for name in ignored]
    assert image.database.query("SELECT migration_id FROM _yoyo_migration") == [("0001_a",)]


def test_files_left_out_are_not_mentioned_when_nothing_is_pending(image: Image) -> None:
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
def test_no_named_database_is_an_error_at_once(
    initmig: Initmig, folder: Path, command: tuple[str, ...]
) -> None:
    write(folder, A)
    # a port on which no local server has its socket
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
        {"DATABASE_URL": "service=there"},
        {"PGSERVICE": "there"},
    ],
    ids=lambda env: " ".join(f"{name}={value}" for name, value in env.items()),
)
@pytest.mark.parametrize("python", [False, True], ids=["SQL", "Python"])
def test_host_from_any_source_is_waited_for(
    initmig: Initmig, folder: Path, env: dict[str, str], python: bool
) -> None:
    step = {"0002_b.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')"} if python else {}
    write(folder, A | step | {"../pg_service.conf": "[there]\nhost=127.0.0.1\n"})
    env = {
        "PGPORT": "1",
        "INITMIG_WAIT_TIMEOUT": "100ms",
        "PGSERVICEFILE": str(folder.parent / "pg_service.conf"),
        **env,
    }
    assert initmig(folder=folder, env=env).code == 3


# --- secrets ---


class Secret:
    """A secret file, beside variables that lead to a database that works: it must not be used."""

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
def test_empty_secret_is_waited_for_and_then_refused(
    image: Image, initmig: Initmig, secret: Secret, command: tuple[str, ...]
) -> None:
    secret.path.write_text("")
    assert refused_over_an_empty_secret(initmig(*command, folder=image.folder, env=secret.env))
    assert image.is_untouched


@pytest.mark.parametrize("content", ["\n", " \r\n", "\ufeff"], ids=ascii)
def test_blank_secret_is_an_empty_one(
    image: Image, initmig: Initmig, secret: Secret, content: str
) -> None:
    secret.path.write_text(content, newline="")
    assert refused_over_an_empty_secret(initmig(folder=image.folder, env=secret.env))
    assert image.is_untouched


@pytest.mark.parametrize("variable", ["DATABASE_URL_FILE", "PGPASSWORD_FILE"])
def test_secret_that_is_filled_meanwhile_is_used(
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


def test_secret_that_a_pipe_gives_only_once_is_kept(
    image: Image, initmig: Initmig, tmp_path: Path
) -> None:
    image.write(A | {"0002_b.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')"})
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    # one writer, once; a run that has something in Python to apply connects twice
    writer = threading.Thread(target=pipe.write_text, args=(f"{image.database.url}\n",))
    writer.start()
    result = initmig(folder=image.folder, env={"DATABASE_URL_FILE": str(pipe)}, timeout=30)
    writer.join()
    assert result.code == 0, result.err
    assert "a" in image.database.tables()


# --- what exists already ---

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
def test_error_over_what_exists_names_baseline_while_the_history_is_empty(
    image: Image, kind: str, transactional: bool
) -> None:
    sql, sqlstate = EXISTS[kind]
    image.database.execute(sql)
    directive = "" if transactional else "-- transactional: false\n"
    image.write({"0001_ok.sql": "SELECT 1", "0002_x.sql": directive + sql})
    [error] = image.errors(code=1)
    assert (error["error"], error["sqlstate"]) == ("migration-failed", sqlstate)
    assert "initmig baseline --to ID" in error["next"]


def test_error_over_what_exists_does_not_name_baseline_once_there_is_a_history(
    image: Image,
) -> None:
    image.write(A)
    assert image().code == 0
    image.write({"0002_x.sql": "CREATE TABLE a ()"})
    [error] = image.errors(code=1)
    assert error["sqlstate"] == "42P07"
    assert "baseline" not in error["next"]
