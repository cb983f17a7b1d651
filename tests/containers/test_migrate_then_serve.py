"""The unchanged image of an application migrates before it serves, rolled out by a real swarm."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.docker import REPOSITORY, docker, docker_out
from tests.support.docker_images import app_folder, built_image, image_id
from tests.support.migrations import write
from tests.support.swarm import Stack, new_stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EXAMPLE = REPOSITORY / "examples/migrate-then-serve"
PAGE = REPOSITORY / "docs/how-to/migrate-then-serve.md"
DB, EXEC = REPOSITORY / "swarm/db.yaml", REPOSITORY / "swarm/exec.yaml"
# Slow enough that one instance waits for the other.
EMAIL = {"0002_email.sql": "SELECT pg_sleep(3);\nALTER TABLE users ADD COLUMN email text;\n"}


class Images(NamedTuple):
    """Two releases of an application that migrates before it serves."""

    first: str
    second: str
    """Its application needs its migration."""


@pytest.fixture(scope="module")
def images(
    image: str, app_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Images]:
    folder = tmp_path_factory.mktemp("images")
    with ExitStack() as stack:

        def build(path: Path) -> str:
            return stack.enter_context(built_image(path))

        query = "SELECT count(email) FROM users"
        email_app = build(app_folder(folder / "email-app", base=app_image, query=query))
        first = build(_example(folder / "first", app_image, image))
        second = build(_example(folder / "second", email_app, image, EMAIL))
        yield Images(image_id(first), image_id(second))


def _example(
    folder: Path, app: str, initmig: str, migrations: Mapping[str, str] | None = None
) -> Path:
    """The example, with the images of this test run and more *migrations*."""
    shutil.copytree(EXAMPLE, folder)
    dockerfile = folder / "Dockerfile"
    text = dockerfile.read_text()
    assert {"FROM shop", "COPY --from=initmig /opt/initmig /opt/initmig"} < {*text.splitlines()}
    dockerfile.write_text(
        text.replace("FROM shop", f"FROM {app}").replace("--from=initmig", f"--from={initmig}")
    )
    write(folder / "migrations", migrations or {})
    return folder


@pytest.fixture
def stack(swarm: None, postgres_image: str) -> Iterator[Stack]:  # noqa: ARG001
    postgres = image_id(postgres_image)
    times = {"APP_MONITOR": "2s", "APP_TIMEOUT": "90"}
    passwords = {"owner": "nowhere-to-be-seen", "app": "not-to-be-seen-either"}
    with new_stack(passwords, POSTGRES_IMAGE=postgres, **times) as new:
        yield new


def test_two_instances_migrate_once_and_serve(stack: Stack, images: Images) -> None:
    done = stack.deploy(DB, EXEC, APP_IMAGE=images.first)
    assert done.code == 0, done.err
    assert stack.applied() == ["0001_users"]
    assert stack.logs("app").count("applied 0001_users") == 1

    both = ("--update-parallelism=2", "--no-resolve-image", "--detach=false")
    service = f"{stack.name}_app"
    docker_out("service", "update", *both, f"--image={images.second}", service, timeout=300)

    assert stack.inspect("app")["UpdateStatus"]["State"] == "completed"
    assert [task.image for task in stack.running("app")] == [images.second] * 2
    assert stack.applied() == ["0001_users", "0002_email"]
    logs = [_log_of(task.id) for task in stack.running("app")]
    assert sorted(log.count("applied 0002_email") for log in logs) == [0, 1]
    assert all("users: 0" in log for log in logs)
    shown = {_event(line) for line in _shown_log()}
    assert shown <= {_event(line) for log in logs for line in log.splitlines()}
    assert "users: 0" in shown


def _log_of(task: str) -> str:
    done = docker("service", "logs", "--raw", task)
    return done.err + done.out


def _shown_log() -> list[str]:
    """The lines of the log on the page."""
    [log] = re.findall(r"service logs .*\n((?: .*\n)+?) *```", PAGE.read_text())
    return [line.strip() for line in log.splitlines()]


def _event(line: str) -> str:
    """The first words of an event, without its time. Times and ids of processes follow them."""
    return re.sub(r"^\S+Z ((?:\S+ +){3}\S+).*", r"\1", line)


def test_dockerfile_of_the_page_is_the_example() -> None:
    [shown] = re.findall(r"```dockerfile\n(.*?) *```", PAGE.read_text(), re.DOTALL)
    lines = (EXAMPLE / "Dockerfile").read_text().splitlines()
    assert [line.strip() for line in shown.splitlines()] == [
        line for line in lines if not line.startswith("#")
    ]
