"""A real swarm of one node, and stacks on it that are gone with all they made in the end."""

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
from tests.support.images import image_id
from tests.support.processes import Result
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# One engine has one swarm: whoever uses it says so here, whichever test run it belongs to.
_USERS = Path(tempfile.gettempdir()) / "initmig-test-swarm"


@contextmanager
def shared_swarm() -> Iterator[None]:
    """This node is a manager; the last one out leaves the swarm, if it was a test that began it."""
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
    """Nobody else begins or leaves the swarm meanwhile."""
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
    # When it leaves, Docker forgets the names of all running containers, also of other networks.
    wait_until(lambda: docker_out("ps", "--quiet", "--filter=name=initmig-test-") == "", 300)
    docker_out("swarm", "leave", "--force")
    docker("network", "rm", "docker_gwbridge")
    _USERS.unlink()


def _is_active() -> bool:
    return docker_out("info", "--format={{.Swarm.LocalNodeState}}") == "active"


@dataclass(frozen=True, slots=True)
class Task:
    """One container that Swarm started, or wants to start."""

    id: str
    state: str
    wanted: str
    image: str
    created: str
    ended: str
    """When its state was reached, which for one that is over is its end."""


class Stack:
    """Deploys swarm/stack.yaml with swarm/deploy, under a name and a secret of its own."""

    def __init__(self) -> None:
        self.name = unique("stack")
        self.secret = f"{self.name}-password"

    def deploy(self, *, migrations: str, app: str, timeout: float = 120) -> Result:
        """Run the script to its end; *migrations* and *app* are images of this machine."""
        env = {
            **os.environ,
            "MIGRATE_IMAGE": image_id(migrations),
            "APP_IMAGE": image_id(app),
            "POSTGRES_IMAGE": image_id("postgres:17"),
            "DB_PASSWORD_SECRET": self.secret,
            "APP_MONITOR": "1s",
            "JOB_TIMEOUT": "60",
            "RESOLVE_IMAGE": "never",
        }
        started = time.monotonic()
        done = subprocess.run(
            [REPOSITORY / "swarm" / "deploy", self.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=env,
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def tasks(self, service: str) -> list[Task]:
        """All tasks of *service* that Swarm remembers, the oldest first."""
        ids = docker_out("service", "ps", "--quiet", "--no-trunc", f"{self.name}_{service}").split()
        if not ids:
            return []
        found = json.loads(docker_out("inspect", "--type=task", *ids))
        return sorted(map(_task, found), key=lambda task: task.created)

    def running(self, service: str) -> list[Task]:
        """The tasks of *service* that run and are meant to."""
        return [task for task in self.tasks(service) if task.state == task.wanted == "running"]

    def logs(self, service: str) -> str:
        """What all tasks of *service* have written so far."""
        done = docker("service", "logs", "--raw", f"{self.name}_{service}")
        return done.out + done.err

    def applied(self) -> list[str]:
        """The ids of the applied migrations."""
        [db] = docker_out(
            "ps", "--quiet", f"--filter=label=com.docker.swarm.service.name={self.name}_db"
        ).split()
        query = "SELECT migration_id FROM _yoyo_migration ORDER BY migration_id"
        return docker_out("exec", db, "psql", "-XqAt", "-U", "app", "-c", query).split()

    def inspect(self, service: str) -> dict[str, Any]:
        """What Docker knows of *service*."""
        found: dict[str, Any] = json.loads(
            docker_out("service", "inspect", f"{self.name}_{service}")
        )[0]
        return found


@contextmanager
def new_stack(password: str) -> Iterator[Stack]:
    """A stack that has not been deployed, and its secret."""
    stack = Stack()
    _create_secret(stack.secret, password)
    try:
        yield stack
    finally:
        _remove(stack)


def _create_secret(name: str, content: str) -> None:
    command = ["docker", "secret", "create", name, "-"]
    subprocess.run(command, input=content, capture_output=True, check=True, text=True)


def _remove(stack: Stack) -> None:
    docker("stack", "rm", stack.name)
    label = f"--filter=label=com.docker.stack.namespace={stack.name}"
    # Swarm keeps the ended containers of a job that is no more, and they hold the rest.
    while containers := docker_out("ps", "--all", "--quiet", label).split():
        docker("rm", "--force", "--volumes", *containers)
    wait_until(lambda: docker_out("network", "ls", "--quiet", label) == "", 60)
    docker("volume", "rm", f"{stack.name}_data")
    docker("secret", "rm", stack.secret)


def _task(found: dict[str, Any]) -> Task:
    return Task(
        id=found["ID"],
        state=found["Status"]["State"],
        wanted=found["DesiredState"],
        image=found["Spec"]["ContainerSpec"]["Image"],
        created=found["CreatedAt"],
        ended=found["Status"]["Timestamp"],
    )
