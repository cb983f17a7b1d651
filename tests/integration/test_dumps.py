"""The output of pg_dump is a valid migration: the first one for an existing database."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from initmig.commands.verify.embedded import clean_environment
from tests.support.command import COMMAND
from tests.support.databases import create_database
from tests.support.dumps import pg_dump_for
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.servers import debian_server, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes
    from tests.support.yoyo import Yoyo

pytestmark = pytest.mark.each_version

# Contains everything that could be mistaken for the end of a statement or of COPY data.
EXISTING = r"""
CREATE SCHEMA app AUTHORIZATION app_owner;
SET ROLE app_owner;
CREATE TYPE app.mood AS ENUM ('sad', 'it''s; \.');
CREATE TABLE app.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL DEFAULT 'x;''\',
    mood app.mood,
    bytes bytea,
    document jsonb,
    touched int DEFAULT 0
);
CREATE TABLE app."odd "" (name;" ("from stdin;" int REFERENCES app.users (id));
CREATE TABLE app.empty (id int);
CREATE TABLE app.parts (id int) PARTITION BY RANGE (id);
CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES FROM (1) TO (10);
CREATE SEQUENCE app.numbers START 42;
SELECT nextval('app.numbers');
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- COPY t FROM stdin; $$
    NEW.touched := NEW.touched + 1;
    RETURN NEW;
END
$body$;
CREATE FUNCTION app.two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
CREATE TRIGGER touch BEFORE INSERT ON app.users FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE VIEW app.happy AS SELECT id, name FROM app.users WHERE mood <> 'sad';
CREATE MATERIALIZED VIEW app.counted AS SELECT count(*) FROM app.users;
CREATE INDEX users_name ON app.users (lower(name));
COMMENT ON TABLE app.users IS E'of the team;\n\\.\nCOPY t FROM stdin;\n\\restrict x\n';
GRANT SELECT ON app.users TO app_reader;
GRANT USAGE ON SCHEMA app TO app_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO app_reader;
RESET ROLE;
INSERT INTO app.users (name, mood, bytes, document) VALUES
    (E'tab\tnewline\nreturn\rbackslash\\', 'sad', '\x00ff5c2e0a', '{"a": [1, "\\."]}'),
    (E'\\.', 'it''s; \.', '', 'null'),
    (E'\nCOMMIT;\nBEGIN;\n\\.\n\\i x', NULL, NULL, NULL),
    ('', 'sad', '\x', '""'),
    ('é漢🐘''"$$', NULL, NULL, NULL);
INSERT INTO app."odd "" (name;" VALUES (1), (NULL);
INSERT INTO app.parts VALUES (1), (9);
REFRESH MATERIALIZED VIEW app.counted;
"""
# If the folder has a Python step, initmig connects with psycopg.
PYTHON = {"0002.py": "from yoyo import step\nstep('SELECT 1')\n"}
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "adopt-a-database.md").read_text()
STEPS = PAGE.partition("## Steps\n")[2].partition("\n## ")[0]
HISTORY = ("_initmig_migration", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")


@pytest.fixture(
    scope="module", params=["this", pytest.param("Debian's", marks=pytest.mark.any_version)]
)
def own_server(request: pytest.FixtureRequest, cluster: Path) -> Iterator[Server]:
    """A server with the roles of `EXISTING`: this run's version, and Debian's with its tools."""
    with running_server(cluster) if request.param == "this" else debian_server() as server:
        database = create_database(server)
        database.execute("CREATE ROLE app_owner; CREATE ROLE app_reader")
        yield server


def pg_dump_of(server: Server) -> Path:
    """The path of pg_dump for *server*, in the directory of the server."""
    return pg_dump_for(server.installation, server.root / "bin")


def dump(server: Server, database: Database, *options: str) -> bytes:
    """The output of pg_dump, as bytes, because a line ending inside a string is data."""
    return subprocess.run(
        [pg_dump_of(server), *options, database.url],
        check=True,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    ).stdout


def comparable(server: Server, database: Database, *options: str) -> list[bytes]:
    """The dump without the history and without the lines that contain a random key."""
    excluded = [f"--exclude-table=*.{table}" for table in HISTORY]
    lines = dump(server, database, *options, *excluded).split(b"\n")
    return [line for line in lines if not line.startswith((b"\\restrict", b"\\unrestrict"))]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ((), {}),
        ((), PYTHON),
        (("--schema-only",), {}),
        (("--inserts",), {}),
        (("--column-inserts", "--rows-per-insert=2"), {}),
    ],
    ids=["data", "data by psycopg", "schema", "inserts", "columns"],
)
def test_dump_recreates_the_same_database(
    own_server: Server,
    initmig: Initmig,
    folder: Path,
    options: tuple[str, ...],
    more: dict[str, str],
) -> None:
    existing, new = create_database(own_server), create_database(own_server)
    existing.execute(EXISTING)
    write(folder, {"0001_baseline.sql": dump(own_server, existing, *options), **more})

    adopted = initmig("baseline", "--to=0001_baseline", url=existing.url, folder=folder)
    assert adopted.code == 0, adopted.err
    migrated = initmig("migrate", url=new.url, folder=folder)
    assert migrated.code == 0, migrated.err

    kind = ["--schema-only"] if "--schema-only" in options else []
    assert comparable(own_server, new, *kind) == comparable(own_server, existing, *kind)
    for database, operation in ((existing, "mark"), (new, "apply")):
        logged = "SELECT migration_id FROM _yoyo_log WHERE operation = %s"
        assert ("0001_baseline",) in database.query(logged, [operation])
        assert "_yoyo_migration" in database.tables()
    again = initmig("status", "--check", url=new.url, folder=folder)
    assert again.code == 0, again.out


def test_documented_commands_adopt_a_database_and_recreate_it(
    own_server: Server, processes: Processes, folder: Path
) -> None:
    existing, new = create_database(own_server), create_database(own_server)
    existing.execute(EXISTING)
    folder.mkdir()

    def run(command: str, database: Database) -> None:
        paths = [pg_dump_of(own_server).parent, COMMAND.parent, "/usr/bin", "/bin"]
        env = {"DATABASE_URL": database.url, "PATH": ":".join(map(str, paths))}
        result = processes.start(["sh", "-c", command], env=env, cwd=folder.parent).result()
        assert result.code == 0, result.err

    commands = re.findall(r"(?m)^ +((?:pg_dump|initmig baseline) .*)", STEPS)
    assert [command.split()[0] for command in commands] == ["pg_dump", "initmig"]
    for command in commands:
        run(command, existing)
    run("initmig migrate", new)
    options = ["--schema-only", "--no-owner", "--no-privileges"]
    assert comparable(own_server, new, *options) == comparable(own_server, existing, *options)
    recorded = "SELECT migration_id FROM _yoyo_migration"
    assert existing.query(recorded) == [("0001_baseline",)]


def test_stock_yoyo_applies_migrations_after_a_recorded_dump(
    own_server: Server, initmig: Initmig, yoyo: Yoyo, folder: Path
) -> None:
    existing = create_database(own_server)
    existing.execute(EXISTING)
    write(
        folder, {"0001_baseline.sql": dump(own_server, existing), "0002.sql": "CREATE TABLE n ()"}
    )
    adopted = initmig("baseline", "--to=0001", url=existing.url, folder=folder)
    assert adopted.code == 0, adopted.err
    applied = yoyo("apply", database=existing, folder=folder)
    assert applied.code == 0, applied.err
    assert "n" in existing.tables()
    assert existing.value("SELECT count(*) FROM app.users") == 5


def test_role_without_superuser_applies_a_dump_without_owners(
    own_server: Server, initmig: Initmig, folder: Path
) -> None:
    existing, new = create_database(own_server), create_database(own_server)
    existing.execute(EXISTING)
    options = ("--no-owner", "--no-privileges")
    write(folder, {"0001_baseline.sql": dump(own_server, existing, *options)})
    url = new.login_role(
        f"GRANT CREATE ON DATABASE {new.name} TO {{role}}",
        "GRANT CREATE, USAGE ON SCHEMA public TO {role}",
    )
    result = initmig("migrate", url=url, folder=folder)
    assert result.code == 0, result.err
    assert comparable(own_server, new, *options) == comparable(own_server, existing, *options)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_dump_is_applied_through_a_pooler(
    own_server: Server, initmig: Initmig, folder: Path, mode: str
) -> None:
    existing, new = create_database(own_server), create_database(own_server)
    existing.execute(EXISTING)
    write(folder, {"0001_baseline.sql": dump(own_server, existing)})
    with running_pgbouncer(own_server, pool_mode=mode, default_pool_size=2) as bouncer:
        result = initmig("migrate", url=bouncer.url(new.name), folder=folder)
        assert result.code == 0, result.err
    assert comparable(own_server, new) == comparable(own_server, existing)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--create", r"\\connect .*\[psql-command\]"),
        ("--blobs", r"BEGIN .*\[transaction-command\]"),
    ],
)
def test_dump_that_connects_or_begins_a_transaction_is_refused_with_its_line(
    own_server: Server, initmig: Initmig, folder: Path, option: str, expected: str
) -> None:
    existing, new = create_database(own_server), create_database(own_server)
    existing.execute("SELECT lo_from_bytea(0, 'large')")
    write(folder, {"0001_baseline.sql": dump(own_server, existing, option)})
    result = initmig("migrate", url=new.url, folder=folder)
    assert result.code == 2
    assert re.search(rf"0001_baseline\.sql:\d+:1: {expected}", result.err)
    assert new.tables() == set()
