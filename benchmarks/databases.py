"""The benchmark's PostgreSQL server with its default settings, and its databases."""

from __future__ import annotations

import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg import sql

from dev.postgres import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

# PostgreSQL's defaults, instead of the fast settings of the tests: a commit is on the disk.
SETTINGS: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "log_checkpoints": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "max_connections": "100",
}
ROLE: Final = "bench"
TRUSTED: Final = "_trust"
"""The end of the name of a database that the role can use without a password."""


@contextmanager
def running_databases() -> Iterator[Databases]:
    """A started server, removed with its folder when the block ends."""
    # short, because of the socket's path, and reachable for the user that runs PostgreSQL
    root = Path(tempfile.mkdtemp(prefix="initmig-bench-"))
    try:
        server = Server.create(root, settings=SETTINGS)
        _trust(server)
        server.start()
        try:
            yield Databases(server)
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _trust(server: Server) -> None:
    """Accept connections to databases with the suffix `TRUSTED` without a password."""
    rules = server.data / "pg_hba.conf"
    # The first rule that matches applies. A name with a slash is a regular expression.
    rules.write_text(f'host "/{TRUSTED}$" {ROLE} 127.0.0.1/32 trust\n{rules.read_text()}')


class Databases:
    """Creates databases that an ordinary role owns, as a migrator's role should."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._run(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'")

    def url(self, name: str, *, port: int | None = None) -> str:
        """The URL of database *name*, through another *port* if given."""
        address = f"{ROLE}:{ROLE}@127.0.0.1:{port or self.server.port}"
        # This server has no TLS, so the tools do not ask for it.
        return f"postgresql://{address}/{name}?sslmode=disable"

    def create(self, name: str, *, template: str = "template0") -> str:
        """Create database *name* in place of an older one, and return its URL."""
        self.drop(name)
        create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
        self._run(create.format(*map(sql.Identifier, (name, ROLE, template))))
        # so that no measurement is disturbed by the checkpoint of earlier work
        self._run("CHECKPOINT")
        return self.url(name)

    def drop(self, name: str) -> None:
        """Drop database *name*, and disconnect its clients."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def clear(self) -> None:
        """Drop all databases that were created here."""
        names = "SELECT datname FROM pg_database WHERE datdba = %s::regrole"
        with psycopg.connect(self.server.url()) as connection:
            made = connection.execute(names, [ROLE]).fetchall()
        for (name,) in made:
            self.drop(name)

    def execute(self, name: str, script: str) -> None:
        """Run *script* in database *name*, as the role that owns it."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(script.encode())

    def tables(self, name: str) -> int:
        """The number of tables in database *name* that the migrations created."""
        count = r"SELECT count(*) FROM pg_tables WHERE tablename ~ '^bench_'"
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            [(tables,)] = connection.execute(count).fetchall()
        return int(tables)

    def _run(self, statement: str | sql.Composed) -> None:
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(statement.encode() if isinstance(statement, str) else statement)


class Watch:
    """Counts the connections to database *name* repeatedly; to use in `with`."""

    def __init__(self, databases: Databases, name: str) -> None:
        self.most = 0
        """The most connections that were open at the same time."""
        self._name = name
        # as superuser: a slot is reserved for it when all others are taken
        self._connection = psycopg.connect(databases.server.url(), autocommit=True)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._connection.close()

    def _look(self) -> None:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        while not self._is_over.wait(0.05):
            [(now,)] = self._connection.execute(count, [self._name]).fetchall()
            self.most = max(self.most, now)
