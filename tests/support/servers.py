"""Servers that never outlive the test run."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
from psycopg import sql

from dev.postgres import Server
from dev.programs import (
    find_debian_installation,
    find_installation,
    installation_for,
    programs_of,
)
from initmig.commands.verify.embedded import PostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The pipe is closed however this process ends; then the server and its folder are removed.
_KEEPER = """
read -r _
"$1" -D "$2/data" -m immediate stop
rm -rf "$2" "$3"
"""


def is_version_chosen() -> bool:
    """Whether the run tests a certain version, as `make test POSTGRES=14`."""
    return "INITMIG_POSTGRES_BIN" in os.environ


class MakeServer(Protocol):
    """Starts a separate server, e.g. `make_server(log_statement="all")`."""

    def __call__(self, **settings: str | int) -> Server: ...


class MakeStandby(Protocol):
    """Starts a streaming standby of *primary*."""

    def __call__(self, primary: Server) -> Server: ...


@contextmanager
def running_server(
    cluster: Path,
    *,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A started server whose data is a copy of *cluster*."""
    installation = find_installation()._replace(environment=environment or {})
    with _server_folder() as root:
        server = Server.create(
            root, settings=settings or {}, cluster=cluster, installation=installation
        )
        with _kept(server):
            server.start()
            yield server


@contextmanager
def debian_server(
    *, language: str = "", settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A started server of Debian's package, which has translations; skips if not installed."""
    installation = find_debian_installation()
    if installation is None:
        pytest.skip("needs Debian's server: apt-get install postgresql")
    speaking = installation._replace(environment={"LANGUAGE": language})
    with _server_folder() as root:
        server = Server.create(root, installation=speaking, settings=settings or {})
        with _kept(server):
            server.start()
            yield server


@contextmanager
def server_of(version: str) -> Iterator[Server]:
    """A started server of the major *version*, independent of POSTGRES; skips if not installed."""
    try:
        installation = installation_for(programs_of(version))
    except PostgresError as error:
        pytest.skip(str(error))
    with _server_folder() as root:
        server = Server.create(root, installation=installation)
        with _kept(server):
            server.start()
            yield server


@contextmanager
def running_standby(primary: Server) -> Iterator[Server]:
    """A started streaming standby of *primary*."""
    with _server_folder() as root:
        server = primary.standby(root)
        with _kept(server):
            server.start()
            yield server


def shared_cluster(folder: Path) -> Path:
    """The data folder below *folder* to copy servers from, created by the first process."""
    cluster = folder / "cluster"
    with (folder / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cluster.exists():
            _make_cluster(cluster)
    return cluster


def _make_cluster(cluster: Path) -> None:
    unfinished = cluster.with_name("unfinished")
    # The user that runs PostgreSQL cannot read pytest's folders.
    with _server_folder() as root:
        server = Server.create(root)
        with _kept(server):
            server.start()
            _make_login_cheap(server)
            server.stop()
            shutil.copytree(server.data, unfinished, copy_function=shutil.copyfile)
    unfinished.rename(cluster)


def _make_login_cheap(server: Server) -> None:
    """Hash the superuser's password once: the default 4096 rounds take half of a login."""
    salt = b"salt of the tests"
    salted = hashlib.pbkdf2_hmac("sha256", server.password.encode(), salt, 1)
    client, own = (
        hmac.digest(salted, b"%s Key" % each, "sha256") for each in (b"Client", b"Server")
    )
    salt_text, stored, own_text = (
        base64.b64encode(each).decode() for each in (salt, hashlib.sha256(client).digest(), own)
    )
    verifier = f"SCRAM-SHA-256$1:{salt_text}${stored}:{own_text}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(verifier))


@contextmanager
def _server_folder() -> Iterator[Path]:
    # short, because of the socket's path, and readable by the user that runs PostgreSQL
    folder = Path(tempfile.mkdtemp(prefix="initmig-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _kept(server: Server) -> Iterator[None]:
    installation = server.installation
    stop = [installation.programs / "pg_ctl", server.root, server.socket_dir]
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", *map(str, stop)],
        **installation.identity,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        # so that Ctrl-C does not stop the keeper too early
        start_new_session=True,
    )
    try:
        yield
    finally:
        keeper.communicate()
