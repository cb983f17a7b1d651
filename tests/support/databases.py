"""Databases that last for one test."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import LiteralString


ASLEEP = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'"""
"""The number of sessions of the database that are in pg_sleep."""


WAIT_FOR_GATE = """
DO $$ BEGIN
    WHILE EXISTS (SELECT FROM pg_class WHERE relname = 'gate') LOOP
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
"""
"""SQL that waits until the test has dropped the table `gate`."""


_ATTEMPTS = 100


class DatabaseServer(Protocol):
    """A server on which a test can create databases."""

    def url(self, database: str = "postgres") -> str:
        """The superuser's URL of *database*."""
        ...


class ExternalServer:
    """A server that is already running: the one of INITMIG_TEST_DATABASE_URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, database: str = "postgres") -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))


class Database:
    """A database, reached with *url* as superuser."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = urlsplit(url).path.removeprefix("/")
        self._roles: list[str] = []

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection:
        """Open a connection; the caller closes it, or uses it in `with`."""
        for _ in range(_ATTEMPTS):
            try:
                return psycopg.connect(self.url, autocommit=autocommit)
            except psycopg.OperationalError as error:
                # the server processes of closed connections take a moment to exit
                if "too many clients" not in str(error):
                    raise
                time.sleep(0.05)
        return psycopg.connect(self.url, autocommit=autocommit)

    def query(
        self, statement: str, parameters: Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows of *statement*, run on a new connection."""
        with self.connect() as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    def value(self, statement: str, parameters: Sequence[Any] | None = None) -> Any:
        """The first column of the only row of *statement*."""
        [(value, *_)] = self.query(statement, parameters)
        return value

    def execute(self, script: str) -> None:
        """Run *script*, of any number of statements, on a new connection."""
        with self.connect() as connection:
            connection.execute(script.encode())

    def tables(self, schema: str = "public") -> set[str]:
        """The names of the tables of *schema*."""
        names = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        return {name for (name,) in self.query(names, [schema])}

    def login_role(self, *statements: str, options: str = "") -> str:
        """Create a role, run *statements*, and return the role's URL.

        In *statements*, `{role}` is the name of the role.

        >>> reader = database.login_role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        """
        name = f"role_{secrets.token_hex(6)}"
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' {options}")
        self._roles.append(name)
        for statement in statements:
            self.execute(statement.format(role=name))
        parts = urlsplit(self.url)
        address = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{name}:{name}@{address}"))

    def drop(self, server: DatabaseServer) -> None:
        """Drop the database and its roles, and disconnect all clients."""
        with psycopg.connect(server.url(), autocommit=True) as connection:
            identifier = sql.Identifier(self.name)
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
            )
            for role in self._roles:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def create_database(
    server: DatabaseServer, *, name: str | None = None, options: LiteralString = ""
) -> Database:
    """Create an empty database on *server*. It lasts as long as the server unless dropped."""
    name = name or f"test_{secrets.token_hex(6)}"
    # template0 is as empty as a database can be, and no session can be connected to it
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
    with psycopg.connect(server.url(), autocommit=True) as connection:
        # By default, 15 and newer write each page to the WAL, which takes twice as long.
        files = connection.info.server_version >= 150000
        connection.execute(
            create + sql.SQL(" STRATEGY file_copy " if files else " ") + sql.SQL(options)
        )
    return Database(server.url(name))
