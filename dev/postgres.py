"""A PostgreSQL server for `make run`, `make db` and the tests."""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from dev.locks import one_at_a_time
from dev.programs import (
    DEFAULT_VERSION,
    REPOSITORY,
    clients_of,
    find_installation,
    own_temporary_folder,
    programs_of,
)
from initmig.commands.verify.embedded import PostgresError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from initmig.commands.verify.embedded import Installation

StopMode = Literal["fast", "immediate", "smart"]

# Below the ephemeral ports, so that no outgoing connection takes a chosen port before the server.
PORTS: Final = range(15000, 30000)
# The smallest limit of the supported systems is 104 bytes, for the whole path.
LONGEST_SOCKET_PATH: Final = 100
START_TIMEOUT_SECONDS: Final = 60

FAST_SETTINGS: Final[Mapping[str, str]] = {
    # synchronous_commit stays on: without fsync it is cheap, and an immediate stop loses nothing.
    "fsync": "off",
    "full_page_writes": "off",
    "log_checkpoints": "off",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %q%a ",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_wal_size": "64MB",
    "min_wal_size": "8MB",
}

_SEVERITY = re.compile(
    r"\b(DEBUG\d?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC"
    r"|STATEMENT|DETAIL|HINT|CONTEXT|QUERY|LOCATION):  "
)
_ABOVE_LOG = frozenset({"WARNING", "ERROR", "FATAL", "PANIC"})


class Server:
    """A PostgreSQL server in its own folder, which listens only on 127.0.0.1."""

    def __init__(
        self,
        root: Path,
        *,
        installation: Installation,
        password: str,
        port: int,
        socket_dir: Path,
    ) -> None:
        self.root = root
        self.installation = installation
        self.password = password
        self.port = port
        self.socket_dir = socket_dir

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        settings: Mapping[str, str] = {},
        password: str = "postgres",
        cluster: Path | None = None,
        installation: Installation | None = None,
    ) -> Server:
        """Create a server in *root*, without starting it.

        With *cluster*, it begins as a copy of that data folder, whose superuser has *password*.
        Raises PostgresError if *root* has a server, or PostgreSQL's account cannot reach *root*.
        """
        installation = installation or find_installation()
        _prepare_root(root, installation)
        if (root / "data").exists():
            raise PostgresError(f"{root} already holds a server")
        _write_password(root, password, installation)
        if cluster is None:
            _initdb(root, installation)
        else:
            _copy_cluster(cluster, root, installation)
        _configure(root / "data", {**FAST_SETTINGS, **settings})
        return cls._at(root, installation=installation, password=password)

    @classmethod
    def open(cls, root: Path, *, installation: Installation | None = None) -> Server:
        """Find the server that was created in *root*, running or not."""
        password = (root / "password").read_text()
        return cls._at(root, installation=installation or find_installation(), password=password)

    @classmethod
    def _at(cls, root: Path, *, installation: Installation, password: str) -> Server:
        running = _where_it_listens(root / "data")
        port, socket_dir = running or (free_port(), _socket_dir(root, installation))
        server = cls(
            root, installation=installation, password=password, port=port, socket_dir=socket_dir
        )
        if running and not server.is_running():
            # A pid file survives a crash, and another process may use its port.
            server.port = free_port()
        return server

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.root / "data"

    @property
    def log_path(self) -> Path:
        """The server's log, over all its starts."""
        return self.root / "log"

    def start(self) -> None:
        """Return once connections are accepted. Raises PostgresError with the end of the log."""
        self.socket_dir.mkdir(exist_ok=True)
        listen = f'-p {self.port} -k "{self.socket_dir}"'
        try:
            self._control(
                "start", "-w", "-t", str(START_TIMEOUT_SECONDS), "-l", self.log_path, "-o", listen
            )
        except PostgresError as error:
            raise PostgresError(f"{error}\n{self.log_text()[-2000:]}") from error

    def stop(self, mode: StopMode = "fast") -> None:
        """Return once the server has stopped."""
        if self.is_running():
            self._control("stop", "-w", "-m", mode)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop, and start on the same port."""
        self.stop(mode)
        self.start()

    def promote(self) -> None:
        """Return once this standby accepts writes."""
        self._control("promote", "-w")

    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self.installation.attempt("pg_ctl", "-D", self.data, "status").returncode == 0

    def standby(self, root: Path) -> Server:
        """Create a streaming standby of this running server in *root*, without starting it."""
        _prepare_root(root, self.installation)
        _write_password(root, self.password, self.installation)
        clients_of(self.installation).run(
            "pg_basebackup", "-D", root / "data", "-d", self.url(), "-c", "fast", "--no-sync"
        )
        # Not with its -R: a newer pg_basebackup writes options that older servers refuse.
        (root / "data" / "standby.signal").touch()
        _configure(root / "data", {"primary_conninfo": self.url()})
        self.installation.take(root / "data")
        return self._at(root, installation=self.installation, password=self.password)

    def url(
        self,
        database: str = "postgres",
        *,
        user: str = "postgres",
        password: str | None = None,
        host: str = "127.0.0.1",
    ) -> str:
        """Return a connection URL; without *password*, the superuser's."""
        secret = self.password if password is None else password
        account = f"{quote(user, safe='')}:{quote(secret, safe='')}"
        address = f"{quote(host, safe='')}:{self.port}"
        return f"postgresql://{account}@{address}/{quote(database, safe='')}"

    def ensure_database(self, name: str) -> None:
        """Create database *name* unless it exists."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            known = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(known, [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def log_size(self) -> int:
        """The length of the log so far in characters, for *since*."""
        return len(self.log_text())

    def log_text(self, *, since: int = 0) -> str:
        """Return the log, from character *since* on."""
        if not self.log_path.exists():
            return ""
        return self.log_path.read_text(encoding="utf-8", errors="replace")[since:]

    def log_lines_above_log(self, *, since: int = 0) -> list[str]:
        """Return the lines of severity WARNING, ERROR, FATAL or PANIC."""
        return [line for line in self.log_text(since=since).splitlines() if _is_above_log(line)]

    def _control(self, *arguments: str | Path) -> None:
        self.installation.run("pg_ctl", "-D", self.data, *arguments)


def free_port() -> int:
    """Pick an unused TCP port of 127.0.0.1. Raises PostgresError if all are used."""
    for port in random.sample(PORTS, 1000):
        if _is_free(port):
            return port
    raise PostgresError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _prepare_root(root: Path, installation: Installation) -> None:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    installation.take(root)
    if not _is_reachable(root, installation):
        raise PostgresError(f"{root} cannot be reached by the user that runs PostgreSQL")
    # Any user who can open its socket can connect.
    root.chmod(0o700)


def _is_reachable(folder: Path, installation: Installation) -> bool:
    probe = ["/bin/sh", "-c", 'cd "$0"', str(folder)]
    done = subprocess.run(probe, **installation.identity, capture_output=True, check=False, cwd="/")
    return done.returncode == 0


def _write_password(root: Path, password: str, installation: Installation) -> None:
    path = root / "password"
    path.touch(mode=0o600)
    path.write_text(password)
    installation.take(path)


def _initdb(root: Path, installation: Installation) -> None:
    installation.run(
        *("initdb", "-D", root / "data", "-U", "postgres", "--pwfile", root / "password"),
        *("--auth-local=trust", "--auth-host=scram-sha-256"),
        *("-E", "UTF8", "--locale=C", "--wal-segsize=1", "--no-sync"),
    )


def _copy_cluster(cluster: Path, root: Path, installation: Installation) -> None:
    # Much faster than shutil.copytree: a cluster is a thousand files.
    subprocess.run(["cp", "-R", cluster, root / "data"], check=True)
    installation.take(root / "data")


def _configure(data: Path, settings: Mapping[str, str]) -> None:
    lines = [f"{name} = {_quoted(value)}" for name, value in settings.items()]
    with (data / "postgresql.conf").open("a") as file:
        file.write("\n".join(["", *lines, ""]))


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _socket_dir(root: Path, installation: Installation) -> Path:
    if len(os.fsencode(root / ".s.PGSQL.65535.lock")) <= LONGEST_SOCKET_PATH:
        return root
    folder = Path(tempfile.mkdtemp(prefix="initmig-", dir="/tmp"))
    installation.take(folder)
    return folder


def _where_it_listens(data: Path) -> tuple[int, Path] | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return int(lines[3]), Path(lines[4])


def _is_above_log(line: str) -> bool:
    severity = _SEVERITY.search(line)
    return severity is not None and severity[1] in _ABOVE_LOG


# --- python -m dev.postgres ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a result goes to stdout, everything else to stderr."""
    parser = argparse.ArgumentParser(prog="python -m dev.postgres", description=__doc__)
    parser.add_argument("command", choices=["url", "stop", "programs"])
    parser.add_argument("version", nargs="?", default=DEFAULT_VERSION)
    parser.add_argument("--database", default="initmig", help="for url; created if missing")
    command, version, database = vars(parser.parse_args(arguments)).values()
    try:
        if command == "programs":
            print(programs_of(version))
            return 0
        with one_at_a_time(REPOSITORY / ".run"):
            if command == "url":
                server = _running_server(REPOSITORY / ".run" / "postgres")
                server.ensure_database(database)
                print(server.url(database))
            else:
                _stop_server(REPOSITORY / ".run" / "postgres")
    except PostgresError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _running_server(pointer: Path) -> Server:
    root = _data_folder(pointer)
    if (root / "data" / "PG_VERSION").exists():
        server = Server.open(root)
    else:
        _say(f"creating a PostgreSQL server in {root}")
        shutil.rmtree(root / "data", ignore_errors=True)
        server = Server.create(root, password=secrets.token_hex(12))
    if not server.is_running():
        server.start()
        _say(f"PostgreSQL listens on 127.0.0.1:{server.port}, `make db-stop` stops it")
    return server


def _stop_server(pointer: Path) -> None:
    if (pointer / "data" / "PG_VERSION").exists():
        Server.open(pointer.resolve()).stop()


def _data_folder(pointer: Path) -> Path:
    """The folder of the data: *pointer*, or a linked folder if PostgreSQL cannot reach it."""
    installation = find_installation()
    if pointer.is_symlink() and not pointer.exists():
        pointer.unlink()
    pointer.mkdir(exist_ok=True)
    if pointer.is_symlink() or _is_reachable(pointer, installation):
        return pointer.resolve()
    pointer.rmdir()
    folder = own_temporary_folder("initmig-db", str(REPOSITORY), account=installation.account)
    pointer.symlink_to(folder)
    return folder


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
