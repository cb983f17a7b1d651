"""Docker, through its command line. Everything started here is removed at the end."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import Result
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("INITMIG_IMAGE", "initmig:test")
POSTGRES_IMAGE = "postgres:17"
BASE_IMAGE = os.environ.get("BASE_IMAGE", "debian:trixie-slim")
"""By tag: a base image that was built on this machine does not have the Dockerfile's digest."""


def docker(
    *arguments: str | Path,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path = REPOSITORY,
) -> Result:
    """Run `docker`, and return its result also if it fails. *env* replaces the environment.

    Raises subprocess.TimeoutExpired after *timeout* seconds.
    """
    started = time.monotonic()
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=cwd,
        env=env,
        text=True,
        timeout=timeout,
    )
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def docker_out(*arguments: str | Path, timeout: float = 120) -> str:
    """The output of `docker`, stripped. Raises AssertionError with its stderr when it fails."""
    done = docker(*arguments, timeout=timeout)
    assert done.code == 0, f"docker {' '.join(map(str, arguments))}\n{done.out}{done.err}"
    return done.out.strip()


def build_repository(name: str, *options: str) -> None:
    """Build the image, or one of its stages, as *name*. Raises AssertionError with the output."""
    base = f"--build-arg=BASE_IMAGE={BASE_IMAGE}"
    build = ("build", "--pull=false", base, f"--tag={name}")
    docker_out(*build, *options, REPOSITORY, timeout=600)


def why_no_docker() -> str:
    """The reason why no Docker engine can be used here; "" if one answers."""
    try:
        done = docker("info", "--format", "{{.ServerVersion}}", timeout=20)
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    if done.code == 0:
        return ""
    return f"no Docker engine answers: {(done.err.strip() or done.out.strip()).splitlines()[-1]}"


def unique(kind: str) -> str:
    """A unique name for a container, network or volume."""
    return f"initmig-test-{kind}-{secrets.token_hex(6)}"


@contextmanager
def running_network(*options: str) -> Iterator[str]:
    """Create a network, and yield its name; *options* are those of `docker network create`."""
    name = unique("net")
    docker_out("network", "create", *options, name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@dataclass
class Containers:
    """Starts containers under unique names, and removes all of them at the end."""

    names: list[str] = field(default_factory=list)

    def run(
        self,
        image: str,
        *command: str,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        timeout: float = 60,
    ) -> Result:
        """Run until it exits; the code is the container's. *options* are those of `docker run`."""
        arguments = self._arguments(image, command, env, options)
        return docker("run", *arguments, timeout=timeout)

    def start(
        self,
        image: str,
        *command: str,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> str:
        """Start it in the background, and return its name. It remains after its exit."""
        docker_out("run", "--detach", *self._arguments(image, command, env, options))
        return self.names[-1]

    def clean_up(self) -> None:
        if self.names:
            docker("rm", "--force", "--volumes", *self.names)

    def _arguments(
        self,
        image: str,
        command: Sequence[str],
        env: Mapping[str, str] | None,
        options: Sequence[str],
    ) -> list[str]:
        self.names.append(unique("run"))
        variables = [f"--env={name}={value}" for name, value in (env or {}).items()]
        name = f"--name={self.names[-1]}"
        return ["--pull=never", name, *variables, *options, image, *command]


def logs(name: str) -> Result:
    """The output of a container so far."""
    return docker("logs", name)


def wait_for_log(name: str, text: str, timeout: float = 60) -> None:
    """Return once *text* is in the container's stderr. Raises AssertionError with its logs."""
    try:
        wait_until(lambda: text in logs(name).err, timeout)
    except AssertionError as error:
        raise AssertionError(f"no {text!r} in the logs of {name}:\n{logs(name).err}") from error


def exit_code(name: str, timeout: float = 300) -> int:
    """The exit code of a container, once it has exited."""
    return int(docker_out("wait", name, timeout=timeout))


@dataclass(frozen=True)
class Postgres:
    """PostgreSQL in a container that is called *name* on its network."""

    name: str
    user: str = "app"
    password: str = "secret"
    database: str = "app"

    @property
    def url(self) -> str:
        """The URL for containers on its network."""
        return f"postgresql://{self.user}:{self.password}@{self.name}:5432/{self.database}"

    def query(self, script: str) -> list[str]:
        """The rows that *script* returns, with columns separated by `|`."""
        psql = ("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", self.user, "-d", self.database)
        return docker_out("exec", self.name, *psql, "-c", script).splitlines()

    def value(self, script: str) -> str:
        """The only row that *script* returns."""
        [row] = self.query(script)
        return row

    def applied(self) -> list[str]:
        """The ids of the applied migrations, in the order applied; empty without a history."""
        if self.value("SELECT to_regclass('_yoyo_migration') IS NULL") == "t":
            return []
        return self.query(
            "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc, migration_id"
        )

    def is_ready(self) -> bool:
        # over TCP, because the temporary server of the initialization listens on its socket only
        return docker("exec", self.name, "pg_isready", "-q", "-h", "127.0.0.1").code == 0


@contextmanager
def running_postgres(
    network: str, *, options: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[Postgres]:
    """PostgreSQL on *network* that accepts connections; *settings* are the server's."""
    containers = Containers()
    postgres = Postgres(unique("db"))
    containers.names.append(postgres.name)
    flags = [f"-c{key}={value}" for key, value in {"fsync": "off", **(settings or {})}.items()]
    try:
        docker_out(
            "run",
            "--detach",
            "--pull=never",
            f"--name={postgres.name}",
            f"--network={network}",
            f"--env=POSTGRES_USER={postgres.user}",
            f"--env=POSTGRES_PASSWORD={postgres.password}",
            f"--env=POSTGRES_DB={postgres.database}",
            *options,
            POSTGRES_IMAGE,
            "postgres",
            *flags,
        )
        wait_until(postgres.is_ready, 120)
        yield postgres
    finally:
        containers.clean_up()
