"""A PgBouncer in front of a server: its clients have no database session to themselves."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from dev.postgres import free_port
from dev.programs import find_installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.databases import DatabaseServer

_DEFAULTS = {
    "pool_mode": "transaction",
    "default_pool_size": "20",
    "ignore_startup_parameters": "extra_float_digits",
}


class PgBouncer:
    """A PgBouncer that can be killed, restarted and controlled."""

    def __init__(self, program: str, folder: Path, port: int, account: str) -> None:
        """Run *program* with the configuration in *folder*; *account* is the superuser's."""
        self._program = program
        self._configuration = folder / "pgbouncer.ini"
        self._port = port
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """The superuser's URL of *database* through it; *parameters* are percent-encoded."""
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        address = f"{self._account}@127.0.0.1:{self._port}"
        return f"postgresql://{address}/{database}?sslmode=disable{more}"

    def admin(self, command: str) -> list[tuple[Any, ...]]:
        """The rows that the admin console returns for *command*."""
        # The console supports only the simple protocol, and no transactions.
        with closing(psycopg.connect(self.url("pgbouncer"), autocommit=True)) as connection:
            cursor = psycopg.ClientCursor(connection).execute(command.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start it, and return once it accepts connections."""
        installation = find_installation()
        installation.take(self._configuration.parent)
        # Like PostgreSQL, it refuses to run as root.
        self._process = subprocess.Popen(
            [self._program, "-q", str(self._configuration)],
            **installation.identity,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "pgbouncer ended"
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Stop it with the signal *how*; every connection through it is lost."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("pgbouncer"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_pgbouncer(server: DatabaseServer, **settings: str | int) -> Iterator[PgBouncer]:
    """A PgBouncer in front of *server*, in transaction mode unless *settings* change that.

    Skips the test if there is no such program.
    """
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("needs the program pgbouncer (apt-get install pgbouncer)")
    parts = urlsplit(server.url())
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="initmig-", ignore_cleanup_errors=True) as name:
        address = f"host={parts.hostname} port={parts.port or 5432}"
        lines = [
            "[databases]",
            f"* = {address} user={parts.username} password={parts.password}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = any",
            f"admin_users = {parts.username}",
            *(f"{key} = {value}" for key, value in {**_DEFAULTS, **settings}.items()),
        ]
        (Path(name) / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        bouncer = PgBouncer(program, Path(name), port, parts.netloc.rpartition("@")[0])
        try:
            bouncer.start()
            yield bouncer
        finally:
            bouncer.stop()
