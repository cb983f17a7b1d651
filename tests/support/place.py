"""A server with TLS in a container, on a network from which no other address is reached."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.support.docker import (
    Postgres,
    docker_out,
    running_network,
    running_postgres,
    unique,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.processes import Result

HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@dataclass(frozen=True)
class Place:
    """A database on an internal network: its containers reach no other address."""

    network: str
    postgres: Postgres
    address: str
    ca: Path

    @property
    def env(self) -> dict[str, str]:
        return {"DATABASE_URL": self.postgres.url}

    def options(self, folder: Path | None = None, *more: str) -> list[str]:
        """The options of `docker run` for the migrations in *folder*."""
        migrations = [f"--volume={folder}:/migrations:ro"] if folder else []
        # When the tests of Swarm leave their swarm, the engine forgets the names of all containers.
        host = f"--add-host={self.postgres.name}:{self.address}"
        return [f"--network={self.network}", host, *migrations, *more]

    def with_database(self) -> Place:
        """The same server, with a new empty database."""
        name = unique("db").replace("-", "_")
        self.postgres.query(f"CREATE DATABASE {name}")
        return replace(self, postgres=replace(self.postgres, database=name))


@contextmanager
def running_place(folder: Path) -> Iterator[Place]:
    """A server with a password and TLS, whose certificates are in *folder*."""
    settings = {"ssl_cert_file": "/tls/server.crt", "ssl_key_file": "/tls/server.key"}
    with (
        running_network("--internal") as network,
        running_postgres(network, settings=settings) as postgres,
    ):
        make_certificates(folder, postgres.name)
        docker_out("cp", folder, f"{postgres.name}:/tls")
        docker_out("exec", postgres.name, "chown", "-R", "postgres", "/tls")
        postgres.query("ALTER SYSTEM SET ssl = on")
        postgres.query("SELECT pg_reload_conf()")
        wait_until(lambda: postgres.value("SHOW ssl") == "on")
        address = f"{{{{(index .NetworkSettings.Networks {json.dumps(network)}).IPAddress}}}}"
        found = docker_out("inspect", f"--format={address}", postgres.name)
        yield Place(network, postgres, found, folder / "ca.crt")


def make_certificates(folder: Path, host: str) -> None:
    """Write ca.crt, other.crt, and server.crt and server.key for *host* into *folder*."""
    for name in ("ca", "other"):
        openssl(folder, *request(name, f"CN=initmig test {name}"), "-x509", f"-out={name}.crt")
    openssl(folder, *request("server", f"CN={host}"), "-out=server.csr")
    (folder / "names").write_text(f"subjectAltName=DNS:{host}")
    ca = ("-CA=ca.crt", "-CAkey=ca.key", "-CAcreateserial", "-extfile=names")
    openssl(folder, "x509", "-req", "-in=server.csr", *ca, "-out=server.crt")
    (folder / "server.key").chmod(0o600)


def request(name: str, subject: str) -> list[str]:
    """The options of `openssl` for a new key *name*.key, and a request that is signed by it."""
    key = ["-newkey=rsa:2048", "-nodes", f"-keyout={name}.key"]
    return ["req", "-new", *key, f"-subj=/{subject}"]


def openssl(folder: Path, *arguments: str) -> str:
    """The output of openssl, with options written as `-name=value`."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    done = subprocess.run(
        ["openssl", *words], cwd=folder, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_applied(result: Result, database: Place, *ids: str) -> None:
    """Check that the run succeeded, and that *ids* are applied."""
    assert result.code == 0, result.err
    assert database.postgres.applied() == list(ids)
