"""A real swarm of one node, and stacks on it that are removed with everything they created."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.support.docker import REPOSITORY, docker, docker_out, unique
from tests.support.processes import Result
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.processes import Processes, Running

DEPLOY = REPOSITORY / "swarm" / "deploy"

# One engine has one swarm: each user of it locks this file, across test runs.
_USERS = Path(tempfile.gettempdir()) / "initmig-test-swarm"


@contextmanager
def shared_swarm() -> Iterator[None]:
    """Make this node a manager. The last user leaves the swarm, if a test created it."""
    with _USERS.with_suffix(".users").open("w") as users:
        with _alone():
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _is_active():
                docker_out("swarm", "init", "--advertise-addr", "127.0.0.1")
                _USERS.touch()
        try:
            yield
        finally:
            with _alone():
                if _USERS.exists() and _is_last(users):
                    _leave()


@contextmanager
def _alone() -> Iterator[None]:
    """Inside, no other process creates or leaves the swarm."""
    with _USERS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leave() -> None:
    # On leaving, Docker forgets the names of all running containers, also of other networks.
    wait_until(lambda: docker_out("ps", "--quiet", "--filter=name=initmig-test-") == "", 300)
    docker_out("swarm", "leave", "--force")
    docker("network", "rm", "docker_gwbridge")
    _USERS.unlink()


def _is_active() -> bool:
    return docker_out("info", "--format={{.Swarm.LocalNodeState}}") == "active"


@dataclass(frozen=True, slots=True)
class Task:
    """A container that Swarm has started, or will start."""

    id: str
    slot: int
    state: str
    wanted: str
    image: str
    created: str
    ended: str
    """The time when its state was reached; for a task that has ended, the time of its exit."""


class Stack:
    """Deploys stack files with swarm/deploy, under a unique name and with separate secrets."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """*variables* are in the environment of every deploy."""
        self.name = unique("stack")
        self.secrets = {role: f"{self.name}-{role}" for role in ("owner", "app")}
        self._variables = {
            "RESOLVE_IMAGE": "never",
            **{
                f"{prefix}{role.upper()}_PASSWORD_SECRET": name
                for prefix in ("FIRST_", "")
                for role, name in self.secrets.items()
            },
            **variables,
        }

    def deploy(self, *files: str | Path, **variables: str) -> Result:
        """Run the program until it exits."""
        started = time.monotonic()
        done = subprocess.run(
            self._command(files),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=self.environment(**variables),
            text=True,
            timeout=120,
        )
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def start_deploy(self, processes: Processes, *files: str | Path, **variables: str) -> Running:
        """Start the program in the background."""
        return processes.start(self._command(files), env=self.environment(**variables))

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of the program."""
        return {**os.environ, **self._variables, **variables}

    def _command(self, files: Sequence[str | Path]) -> list[str]:
        return [str(DEPLOY), self.name, *map(str, files)]

    def tasks(self, service: str) -> list[Task]:
        """All tasks of *service* that Swarm remembers, oldest first."""
        name = f"{self.name}_{service}"
        if docker_out("service", "ls", "--quiet", f"--filter=name={name}") == "":
            return []
        while ids := docker_out("service", "ps", "--quiet", "--no-trunc", name).split():
            found = docker("inspect", "--type=task", *ids)
            if found.code == 0:  # or Swarm has forgotten a task in between
                return sorted(map(_task, json.loads(found.out)), key=lambda task: task.created)
        return []

    def running(self, service: str) -> list[Task]:
        """The tasks of *service* that run and should run."""
        return [task for task in self.tasks(service) if task.state == task.wanted == "running"]

    def replicas(self, service: str) -> int:
        """The number of running replicas of *service*. Swarm may have two tasks for one of them."""
        return len({task.slot for task in self.running(service)})

    def logs(self, service: str) -> str:
        """The output so far of all tasks of *service*."""
        done = docker("service", "logs", "--raw", f"{self.name}_{service}")
        return done.out + done.err

    def applied(self) -> list[str]:
        """The ids of the applied migrations."""
        return self.query("SELECT migration_id FROM initmig._yoyo_migration ORDER BY migration_id")

    def query(self, script: str) -> list[str]:
        """The words that *script* returns in the database of swarm/db.yaml."""
        [db] = self.containers("db")
        psql = ("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "app")
        return docker_out("exec", db, *psql, "-c", script).split()

    def containers(self, service: str) -> list[str]:
        """The ids of the running containers of *service*."""
        label = f"--filter=label=com.docker.swarm.service.name={self.name}_{service}"
        return docker_out("ps", "--quiet", label).split()

    def inspect(self, service: str) -> dict[str, Any]:
        """The output of `docker service inspect` for *service*."""
        found: dict[str, Any] = json.loads(
            docker_out("service", "inspect", f"{self.name}_{service}")
        )[0]
        return found

    def container(self, service: str) -> dict[str, Any]:
        """The container specification of *service*."""
        made: dict[str, Any] = self.inspect(service)["Spec"]["TaskTemplate"]["ContainerSpec"]
        return made


@contextmanager
def new_stack(passwords: Mapping[str, str], **variables: str) -> Iterator[Stack]:
    """A stack that has not been deployed, with a secret for the password of each role.

    Each deploy has *variables*.
    """
    stack = Stack(variables)
    for role, name in stack.secrets.items():
        _create_secret(name, passwords[role])
    try:
        yield stack
    finally:
        _remove(stack)


def _create_secret(name: str, content: str) -> None:
    command = ["docker", "secret", "create", name, "-"]
    subprocess.run(command, input=content, capture_output=True, check=True, text=True)


def _remove(stack: Stack) -> None:
    docker("stack", "rm", stack.name)
    wait_until(lambda: _is_removed(stack), 300)
    docker("volume", "rm", f"{stack.name}_data")
    secrets = docker_out("secret", "ls", "--quiet", f"--filter=name={stack.name}").split()
    docker("secret", "rm", *secrets)


def _is_removed(stack: Stack) -> bool:
    """Whether its networks are removed; removes the containers that use them."""
    label = f"--filter=label=com.docker.stack.namespace={stack.name}"
    # Swarm keeps the ended containers of a removed job, and a network that was in use.
    if containers := docker_out("ps", "--all", "--quiet", label).split():
        docker("rm", "--force", "--volumes", *containers)
    if networks := docker_out("network", "ls", "--quiet", label).split():
        docker("network", "rm", *networks)
    return not containers and not networks


def _task(found: dict[str, Any]) -> Task:
    return Task(
        id=found["ID"],
        slot=found.get("Slot", 0),
        state=found["Status"]["State"],
        wanted=found["DesiredState"],
        image=found["Spec"]["ContainerSpec"]["Image"],
        created=found["CreatedAt"],
        ended=found["Status"]["Timestamp"],
    )
