"""The Compose tutorial, followed from start to finish."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.compose import compose_command
from tests.support.docker import POSTGRES_IMAGE, docker, unique
from tests.support.docker_images import image_id
from tests.support.tutorial import assert_done, follow, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DOCKER = """\
#!/bin/sh
# The image is built already, and Compose may be a separate program here.
case "$1" in
build) exit 0 ;;
compose) shift; exec {compose} --file=compose.yaml --file={override} "$@" ;;
*) exec {docker} "$@" ;;
esac
"""


@pytest.fixture
def reader(image: str, postgres_image: str, tmp_path: Path) -> Iterator[dict[str, str]]:  # noqa: ARG001
    """The environment of a reader whose `docker compose` uses the images of this test run."""
    compose = compose_command()
    if not compose:
        pytest.skip("there is no Compose: neither `docker compose` nor `docker-compose`")
    override = tmp_path / "override.json"
    postgres = {"image": POSTGRES_IMAGE, "pull_policy": "never"}
    migrate = {"image": image_id(image), "pull_policy": "never"}
    override.write_text(
        json.dumps({"services": {"db": postgres, "app": postgres, "migrate": migrate}})
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "docker"
    real = shutil.which("docker")
    program.write_text(_DOCKER.format(compose=shlex.join(compose), override=override, docker=real))
    program.chmod(0o755)
    project = unique("tutorial")
    yield {"PATH": f"{programs}:{os.environ['PATH']}", "COMPOSE_PROJECT_NAME": project}
    label = f"--filter=label=com.docker.compose.project={project}"
    for kind, remove in (
        ("container", ("rm", "--force", "--volumes")),
        ("network", ("rm",)),
        ("volume", ("rm",)),
    ):
        everything = ("--all",) if kind == "container" else ()
        if left := docker(kind, "ls", "--quiet", *everything, label).out.split():
            docker(kind, *remove, *left)


def test_compose_tutorial_works_as_written(reader: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    done = follow(steps_of("tutorial/compose.md"), folder, env=reader)
    assert_done(done)
    outputs = {each.step.command: each.output for each in done}
    assert "app" in outputs["docker compose ps app"]
    assert "running" in outputs["docker compose ps app"] or "Up" in outputs["docker compose ps app"]
    states = outputs["docker compose run --rm migrate status"]  # of the last run
    assert [line.split()[:2] for line in states.splitlines() if line.startswith("000")] == [
        ["0001_users", "applied"],
        ["0002_phone", "applied"],
        ["0003_verified", "pending"],
    ]
