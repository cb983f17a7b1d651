"""A Compose project of compose.yaml under a unique name, removed with everything it created."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.docker import REPOSITORY, docker, docker_out, unique
from tests.support.processes import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def compose_command() -> list[str]:
    """The command that runs Compose; empty if Compose is not installed."""
    if docker("compose", "version").code == 0:
        return ["docker", "compose"]
    own = Path(sys.executable).with_name("docker-compose")
    found = str(own) if own.exists() else shutil.which("docker-compose")
    return [found] if found else []


class Project:
    """Runs Compose, e.g. `project("up", "--detach")`."""

    def __init__(self, command: Sequence[str], override: Path) -> None:
        """The file *override* is merged over compose.yaml."""
        self.name = unique("compose")
        files = [f"--file={REPOSITORY / 'compose.yaml'}", f"--file={override}"]
        self._command = [*command, f"--project-name={self.name}", "--progress=plain", *files]

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 90) -> Result:
        """Run until it exits. Raises subprocess.TimeoutExpired after *timeout* seconds."""
        started = time.monotonic()
        done = subprocess.run(
            [*self._command, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env=_environment(),
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def logs(self, service: str) -> str:
        """The output so far of the containers of *service*."""
        return self("logs", "--no-log-prefix", service).out

    def inspect(self, service: str) -> dict[str, Any]:
        """The output of `docker inspect` for the one container of *service*."""
        container = self("ps", "--all", "--quiet", service).out.strip()
        found: dict[str, Any] = json.loads(docker_out("inspect", container))[0]
        return found

    def applied(self) -> list[str]:
        """The ids of the applied migrations."""
        done = self.psql("SELECT migration_id FROM initmig._yoyo_migration ORDER BY migration_id")
        assert done.code == 0, done.err
        return done.out.split()

    def psql(self, script: str, *, role: str = "postgres") -> Result:
        """The result of psql, which reads *script* from its standard input, as *role*."""
        options = ("-XqAt", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", "app")
        return self("exec", "-T", "db", "psql", *options, stdin=script)


@contextmanager
def compose_project(override: Path) -> Iterator[Project]:
    """A project that has not been started."""
    project = Project(compose_command(), override)
    try:
        yield project
    finally:
        project("down", "--volumes", "--remove-orphans", "--timeout=2")


def _environment() -> dict[str, str]:
    ours = ("COMPOSE_", "OWNER_PASSWORD_FILE", "APP_PASSWORD_FILE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
