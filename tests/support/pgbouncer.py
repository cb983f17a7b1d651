"""A PgBouncer before a server, as in many a cluster: no session of one's own behind it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from dev.postgres import find_installation, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.databases import DatabaseServer

_CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
"""


class PgBouncer:
    """A started PgBouncer in transaction mode."""

    def __init__(self, port: int, account: str) -> None:
        self._port = port
        self._account = account

    def url(self, database: str) -> str:
        """The superuser's URL of *database* through it."""
        return f"postgresql://{self._account}@127.0.0.1:{self._port}/{database}?sslmode=disable"


@contextmanager
def running_pgbouncer(server: DatabaseServer) -> Iterator[PgBouncer]:
    """A PgBouncer before *server*; skips the test if there is no such program."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("needs the program pgbouncer (apt-get install pgbouncer)")
    parts = urlsplit(server.url())
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="initmig-", ignore_cleanup_errors=True) as name:
        configuration = Path(name) / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(
                host=parts.hostname,
                port=parts.port or 5432,
                user=parts.username,
                password=parts.password,
                own_port=port,
            )
        )
        installation = find_installation()
        installation.take(Path(name))
        # Like PostgreSQL, it refuses to run as root.
        process = subprocess.Popen(
            [program, "-q", str(configuration)],
            **installation.identity,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        try:
            bouncer = PgBouncer(port, parts.netloc.rpartition("@")[0])
            _wait_for(bouncer, process)
            yield bouncer
        finally:
            process.kill()
            process.wait()


def _wait_for(bouncer: PgBouncer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(bouncer.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, "pgbouncer ended"
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.02)
        else:
            return
