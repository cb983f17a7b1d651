"""roles.sql grants privileges to the owner and the app, and revokes those of other roles."""

from __future__ import annotations

import secrets
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors, sql

from dev.programs import clients_of, find_installation
from tests.support.docker import REPOSITORY
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database

CREATED = {
    "a table": "CREATE TABLE {schema}.planted ()",
    "a function": "CREATE FUNCTION {schema}.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "an operator": "CREATE OPERATOR {schema}.= (FUNCTION=texteq, LEFTARG=text, RIGHTARG=text)",
    "a type": "CREATE TYPE {schema}.planted AS ENUM ()",
    "a view": "CREATE VIEW {schema}.planted AS SELECT 1",
    "a sequence": "CREATE SEQUENCE {schema}.planted",
    "an aggregate": "CREATE AGGREGATE {schema}.count(text) (SFUNC = textcat, STYPE = text)",
    "a schema": "CREATE SCHEMA planted",
    "a schema named after the role": "CREATE SCHEMA AUTHORIZATION CURRENT_USER",
    "a temporary table": "CREATE TEMPORARY TABLE planted ()",
}


class Roles(NamedTuple):
    """The created roles, as URLs of the same database."""

    schema: str
    owner: str
    app: str
    stranger: str
    """A role that the script does not mention."""


@pytest.fixture(params=["public", "shop"])
def roles(request: pytest.FixtureRequest, database: Database) -> Iterator[Roles]:
    """The roles after a run of the script, with its default schema and with a separate schema."""
    # the default of PostgreSQL 14, and of databases upgraded from it
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    schema: str = request.param
    with created_roles(database, **({} if schema == "public" else {"schema": schema})) as created:
        yield created


@contextmanager
def created_roles(database: Database, **optional: str) -> Iterator[Roles]:
    """The roles after a run of the script with *optional* variables; dropped at the end."""
    suffix = secrets.token_hex(4)
    owner, app = f"owner_{suffix}", f"app_{suffix}"
    names = {"database": database.name, "owner": owner, "app": app}
    passwords = {"owner_password": "it's", "app_password": "secret"}
    run_script(database.url, names | passwords | optional)
    stranger = database.login_role()
    yield Roles(
        optional.get("schema", "public"),
        as_role(database, owner, "it's"),
        as_role(database, app, "secret"),
        stranger,
    )
    with database.connect() as connection:
        for name in (owner, app):
            role = sql.Identifier(name)
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def run_script(url: str, variables: dict[str, str]) -> None:
    script = REPOSITORY / "examples" / "database" / "roles.sql"
    options = [f"--set={name}={value}" for name, value in variables.items()]
    command = [
        str(clients_of(find_installation()).programs / "psql"),
        "-Xq",
        f"--dbname={url}",
        *options,
        f"--file={script}",
    ]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def as_role(database: Database, name: str, password: str) -> str:
    parts = urlsplit(database.url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{address}"))


@pytest.mark.parametrize("statement", CREATED.values(), ids=CREATED)
def test_app_cannot_create_any_object(statement: str, roles: Roles) -> None:
    for schema in {roles.schema, "public"}:
        with (
            psycopg.connect(roles.app) as connection,
            pytest.raises(errors.InsufficientPrivilege),
        ):
            connection.execute(statement.format(schema=schema).encode())


def test_other_roles_cannot_connect(roles: Roles) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(roles.stranger)


def test_owner_can_migrate_and_app_can_read_and_wait(
    roles: Roles, initmig: Initmig, folder: Path, database: Database
) -> None:
    write(folder, {"0001_users.sql": "CREATE TABLE users (name text)"})
    result = initmig(url=roles.owner, folder=folder)
    assert result.code == 0, result.err
    assert {"users", "_yoyo_migration"} <= database.tables(roles.schema)
    assert initmig("wait", "--wait-timeout=0", url=roles.app, folder=folder).code == 0
    with psycopg.connect(roles.app) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)
        assert connection.execute("SHOW search_path").fetchone() == (roles.schema,)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("INSERT INTO users VALUES ('x')")


@pytest.mark.parametrize("optional", [{}, {"schema": "shop"}], ids=["public", "shop"])
def test_app_can_write_to_tables_but_not_to_a_separate_history(
    optional: dict[str, str], database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_users.sql": "CREATE TABLE users (id serial, name text)"})
    history = {"INITMIG_HISTORY_SCHEMA": "initmig"}
    with created_roles(database, history="initmig", **optional) as roles:
        done = initmig(url=roles.owner, folder=folder, env=history)
        waited = initmig("wait", "--wait-timeout=0", url=roles.app, folder=folder, env=history)

        assert (done.code, waited.code) == (0, 0), done.err + waited.err
        with psycopg.connect(roles.app, autocommit=True) as connection:
            connection.execute("INSERT INTO users (name) VALUES ('x')")
            connection.execute("UPDATE users SET name = 'y'")
            connection.execute("DELETE FROM users")
            for statement in ("DELETE FROM initmig._yoyo_migration", "DROP TABLE users"):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
        env = history | {"INITMIG_APP_ROLE": urlsplit(roles.app).username or ""}
        checked = initmig("doctor", url=roles.owner, folder=folder, env=env)
    assert checked.code == 0, checked.out
    assert [line for line in checked.out.splitlines() if not line.startswith("ok ")] == []


def test_second_run_fails_and_changes_nothing(roles: Roles, database: Database) -> None:
    owner, app = (urlsplit(url).username or "" for url in (roles.owner, roles.app))
    variables = {"owner": owner, "app": app, "owner_password": "x", "app_password": "x"}
    with pytest.raises(AssertionError, match="already exists"):
        run_script(database.url, {"database": database.name, "schema": "other", **variables})
    assert not database.query("SELECT FROM pg_namespace WHERE nspname = 'other'")
    psycopg.connect(roles.owner).close()
