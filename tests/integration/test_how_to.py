"""The commands in docs/how-to that move a database to initmig work as written."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.command import COMMAND
from tests.support.databases import create_database
from tests.support.dumps import pg_dump_for
from tests.support.migrations import write
from tests.support.servers import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

USERS = "CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text);\n"
NO_USERS = "DROP TABLE users;\n"
EMAIL = "CREATE INDEX CONCURRENTLY users_email ON users (email);\n"
NO_EMAIL = "DROP INDEX CONCURRENTLY users_email;\n"
ID = "CREATE INDEX users_id ON users (id);\n"
NO_ID = "DROP INDEX CONCURRENTLY users_id;\n"
TOUCH = """\
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEW;
END
$$;
"""
NO_TOUCH = "DROP FUNCTION touch();\n"
NOTE = "COMMENT ON TABLE users IS 'x';\n"
VIEW = "CREATE OR REPLACE VIEW names AS SELECT 1 AS n;\n"
VERSIONS = "CREATE TABLE schema_migrations (version {type} PRIMARY KEY{more});\n"


class Move(NamedTuple):
    """A project of another tool, and the expected result of its page."""

    files: Mapping[str, str]
    """The texts by their path in the project."""
    history: str
    """SQL that creates the tool's own tables after the schema."""
    ids: tuple[str, ...]
    table: str
    """The pattern of the tool's tables, which the page excludes from a dump."""
    rollbacks: bool = True
    more: str = ""
    """SQL of the schema that no file contains."""


def dbmate(up: str, down: str, options: str = "", down_options: str = "") -> str:
    return f"-- migrate:up{options}\n{up}\n-- migrate:down{down_options}\n{down}"


def goose(up: str, down: str, before: str = "") -> str:
    return f"{before}-- +goose Up\n{up}\n-- +goose Down\n{down}"


MOVES = {
    "adopt-a-database": Move({}, "", ("0001_baseline",), "none", rollbacks=False, more=USERS),
    "from-dbmate": Move(
        {
            "db/migrations/20240101000000_users.sql": dbmate(USERS, NO_USERS),
            "db/migrations/20240102000000_touch.sql": dbmate(TOUCH, NO_TOUCH),
            "db/migrations/20240103000000_email.sql": dbmate(EMAIL, NO_EMAIL, " transaction:false"),
            "db/migrations/20240104000000_note.sql": dbmate(NOTE, ""),
            "db/migrations/20240105000000_id.sql": dbmate(ID, NO_ID, "", " transaction:false"),
            "db/migrations/20240106000000_empty.sql": dbmate("", ""),
        },
        VERSIONS.format(type="varchar(128)", more="")
        + "INSERT INTO schema_migrations SELECT '2024010' || n || '000000'"
        " FROM generate_series(1, 6) n",
        tuple(
            f"2024010{number}000000_{name}"
            for number, name in enumerate(("users", "touch", "email", "note", "id", "empty"), 1)
        ),
        "schema_migrations",
    ),
    "from-goose": Move(
        {
            "goose/00001_users.sql": goose(USERS, NO_USERS),
            "goose/00002_touch.sql": goose(
                f"-- +goose StatementBegin\n{TOUCH}-- +goose StatementEnd", NO_TOUCH
            ),
            "goose/20240103000000_email.sql": goose(EMAIL, NO_EMAIL, "-- +goose no transaction\n"),
            "goose/20240104000000_id.sql": goose(
                ID, NO_ID.replace(";", ";\n-- +goose NO TRANSACTION", 1)
            ),
            "goose/20240105000000_empty.sql": goose("", ""),
        },
        """CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL,
            is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now());
        INSERT INTO goose_db_version (version_id, is_applied)
            VALUES (0, true), (1, true), (2, true), (20240103000000, true),
                (20240104000000, true), (20240105000000, true)""",
        (
            *("00000000000001_users", "00000000000002_touch", "20240103000000_email"),
            *("20240104000000_id", "20240105000000_empty"),
        ),
        "goose_db_version*",
    ),
    "from-golang-migrate": Move(
        {
            "db/migrations/1_users.up.sql": f"BEGIN;\n{USERS}COMMIT;\n",
            "db/migrations/1_users.down.sql": NO_USERS,
            "db/migrations/09_touch.up.sql": TOUCH,
            "db/migrations/09_touch.down.sql": NO_TOUCH,
            "db/migrations/10_email.up.sql": EMAIL,
            "db/migrations/10_email.down.sql": NO_EMAIL,
        },
        VERSIONS.format(type="bigint", more=", dirty boolean NOT NULL")
        + "INSERT INTO schema_migrations VALUES (10, false)",
        ("00000000000001_users", "00000000000009_touch", "00000000000010_email"),
        "schema_migrations",
    ),
    "from-flyway": Move(
        {
            "sql/V1.9__users.sql": USERS,
            "sql/U1.9__users.sql": NO_USERS,
            "sql/V1.10__touch.sql": TOUCH,
            "sql/U1.10__touch.sql": NO_TOUCH,
            "sql/V2__email index.sql": EMAIL,
            "sql/U2__email index.sql": NO_EMAIL,
            "sql/R__names.sql": VIEW,
        },
        """CREATE TABLE flyway_schema_history (installed_rank int PRIMARY KEY, version text,
            description text, type text, script text, success boolean);
        INSERT INTO flyway_schema_history VALUES
            (1, '1.9', 'users', 'SQL', 'V1.9__users.sql', true),
            (2, '1.10', 'touch', 'SQL', 'V1.10__touch.sql', true),
            (3, '2', 'email index', 'SQL', 'V2__email index.sql', true),
            (4, NULL, 'names', 'SQL', 'R__names.sql', true)""",
        ("0001_users", "0002_touch", "0003_email index"),
        "flyway_schema_history*",
    ),
    "from-prisma": Move(
        {
            "prisma/migrations/migration_lock.toml": 'provider = "postgresql"\n',
            "prisma/migrations/20240101000000_users/migration.sql": USERS,
            "prisma/migrations/20240102000000_email/migration.sql": EMAIL,
        },
        """CREATE TABLE _prisma_migrations (id text PRIMARY KEY, migration_name text,
            finished_at timestamptz, rolled_back_at timestamptz);
        INSERT INTO _prisma_migrations VALUES
            ('a', '20240101000000_users', now(), NULL), ('c', '20240102000000_email', now(), NULL),
            ('d', '20240103000000_oops', NULL, now())""",
        ("20240101000000_users", "20240102000000_email"),
        "_prisma_migrations",
        rollbacks=False,
    ),
    "from-alembic": Move(
        {},
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);"
        "INSERT INTO alembic_version VALUES ('1975ea83b712')",
        ("0001_baseline",),
        "alembic_version",
        rollbacks=False,
        more=f"{USERS}CREATE TABLE countries (code text); INSERT INTO countries VALUES ('NL');",
    ),
    "from-ecto": Move(
        {"priv/repo/migrations/20240101000000_users.exs": "defmodule Users do\nend\n"},
        VERSIONS.format(type="bigint", more=", inserted_at timestamp(0)")
        + "INSERT INTO schema_migrations VALUES (20240101000000, now())",
        ("0001_baseline",),
        "schema_migrations",
        rollbacks=False,
        more=USERS,
    ),
}


def blocks(page: str, language: str) -> list[str]:
    """The code blocks in *language* on a *page*, without the indentation of a list."""
    text = (PAGES / f"{page}.md").read_text()
    return [dedent(code) for _, name, code in FENCE.findall(text) if name == language]


[COMPARING] = [code for code in blocks("adopt-a-database", "sh") if "diff " in code]


@pytest.fixture(scope="module")
def own_server(cluster: Path) -> Iterator[Server]:
    with running_server(cluster) as server:
        yield server


class Project:
    """A folder with another tool's files, the database that they created, and an empty one."""

    def __init__(self, folder: Path, server: Server, processes: Processes) -> None:
        self.folder = folder
        self.existing = create_database(server)
        self.empty = create_database(server)
        self._programs = pg_dump_for(server.installation, server.root / "bin").parent
        self._psql = server.installation.programs
        self._processes = processes

    def run(self, script: str, database: Database | None = None) -> str:
        """Run the *script* in the folder, assert that it exits 0, and return stdout and stderr."""
        paths = [self._programs, self._psql, COMMAND.parent, "/usr/bin", "/bin"]
        env = {
            "DATABASE_URL": (database or self.existing).url,
            "EMPTY_DATABASE_URL": self.empty.url,
            "PATH": ":".join(map(str, paths)),
        }
        shell = ["sh", "-eu", "-c", script]
        result = self._processes.start(shell, env=env, cwd=self.folder).result()
        assert result.code == 0, result.out + result.err
        return result.out + result.err


@pytest.fixture
def project(tmp_path: Path, own_server: Server, processes: Processes) -> Project:
    return Project(tmp_path, own_server, processes)


def statements(move: Move) -> Iterator[str]:
    """The SQL that the other tool ran, one statement at a time because of CONCURRENTLY."""
    if move.more:
        yield move.more
    for sql in (USERS, TOUCH, EMAIL, ID, NOTE, VIEW):
        if any(sql in text for text in move.files.values()):
            yield sql
    if move.history:
        yield move.history


def test_each_page_for_another_tool_is_tested() -> None:
    assert {path.stem for path in PAGES.glob("from-*.md")} == set(MOVES) - {"adopt-a-database"}


@pytest.mark.any_version
@pytest.mark.parametrize("page", MOVES)
def test_commands_of_the_page_move_a_database_to_initmig(page: str, project: Project) -> None:
    move = MOVES[page]
    for path, text in move.files.items():
        (project.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / path).write_text(text)
    for sql in statements(move):
        project.existing.execute(sql)
    commands = blocks(page, "sh")
    assert len(commands) > 2

    for command in commands:
        if command != COMPARING:
            project.run(command)

    recorded = "SELECT migration_id FROM _yoyo_migration ORDER BY 1"
    assert project.existing.query(recorded) == [(id,) for id in move.ids]
    # the file by `new` is a template, which the reader fills in
    for template in (project.folder / "migrations").glob("*_add_phone*"):
        template.unlink()
    project.run("initmig status --check")

    compare = COMPARING.replace("pg_dump ", f"pg_dump --exclude-table='{move.table}' ")
    assert "equal" in project.run(compare).splitlines()
    with pytest.raises(AssertionError, match="no-such-option"):
        project.run(compare.replace("pg_dump ", "pg_dump --no-such-option "))
    project.existing.execute("ALTER TABLE users ADD restricted int")
    with pytest.raises(AssertionError, match=r"< +restricted integer"):
        project.run(compare)

    if move.rollbacks:
        project.run("initmig rollback --all", project.empty)
        assert "users" not in project.empty.tables()


@pytest.mark.any_version
@pytest.mark.parametrize("page", sorted(set(MOVES) - {"adopt-a-database"}))
def test_migration_of_the_page_drops_the_table_of_the_other_tool(
    page: str, project: Project
) -> None:
    [drop] = blocks(page, "sql")
    project.existing.execute(MOVES[page].history)
    before = project.existing.tables()
    write(project.folder / "migrations", {"0001_baseline.sql": "SELECT 1", "9999_drop.sql": drop})

    project.run("initmig baseline --to 0001; initmig migrate")
    project.run("initmig migrate", project.empty)

    assert len(before) == 1
    assert not before & project.existing.tables()


@pytest.mark.any_version
@pytest.mark.parametrize("page", sorted(set(MOVES) - {"adopt-a-database"}))
def test_migrate_refuses_a_database_that_has_not_moved_yet(page: str, project: Project) -> None:
    project.existing.execute(MOVES[page].history)
    write(project.folder / "migrations", {"0001_baseline.sql": USERS})

    with pytest.raises(AssertionError, match=r"\[foreign-history\]"):
        project.run("initmig migrate")

    assert "users" not in project.existing.tables()


def test_verify_prints_the_output_that_its_page_shows(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    write(
        tmp_path / "migrations",
        {
            "0001_users.sql": USERS,
            "0002_phone.sql": "ALTER TABLE users ADD phone text;"
            " CREATE INDEX users_phone ON users (phone)",
            "0002_phone.rollback.sql": "SELECT 1",
            "0003_note.sql": "ALTER TABLE users ADD note text",
            "0003_note.rollback.sql": "ALTER TABLE users DROP note",
        },
    )
    [shown] = [code for code in blocks("verify", "console") if "0001_users" in code]
    result = initmig("verify", url=database.url, cwd=tmp_path)
    assert result.code == 1
    assert shown.splitlines() == ["$ initmig verify", *result.out.splitlines()]


@pytest.mark.any_version
def test_nothing_is_recorded_after_a_failed_migration_of_golang_migrate(
    project: Project,
) -> None:
    project.existing.execute(
        MOVES["from-golang-migrate"].history.replace("(10, false)", "(10, true)")
    )
    write(project.folder / "migrations", {"00000000000010_email.sql": "SELECT 1"})
    [recording] = [code for code in blocks("from-golang-migrate", "sh") if "baseline" in code]

    with pytest.raises(AssertionError, match="no clean row in schema_migrations"):
        project.run(recording)

    assert project.existing.tables() == {"schema_migrations"}


@pytest.mark.any_version
def test_breaking_change_of_the_page_stops_an_older_image(project: Project) -> None:
    folder = project.folder / "migrations"
    *steps, undo = blocks("zero-downtime", "sql")
    users = "CREATE TABLE users (id int, nickname text NOT NULL); INSERT INTO users VALUES (1, 'a')"
    files = {f"{number}.sql": sql for number, sql in enumerate(steps, 1)}
    breaking = max(files)
    rollback = {breaking.replace(".sql", ".rollback.sql"): undo}
    write(folder, {"0.sql": users, **files, **rollback})

    project.run("initmig migrate")
    newer = folder.rename(project.folder / "newer")
    write(folder, {"0.sql": users, **files})
    (folder / breaking).unlink()

    assert project.existing.query("SELECT * FROM users") == [(1, "a")]
    for command in ("migrate", "wait"):
        with pytest.raises(AssertionError, match=r"\[image-too-old\]"):
            project.run(f"initmig {command}")
    project.run(f"initmig rollback --steps 1 --migrations {newer}; initmig migrate")
    assert project.existing.query("SELECT nickname, display_name FROM users") == [("a", "a")]
