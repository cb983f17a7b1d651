"""Fixtures for tests with containers; everything that they create is removed after the test."""

from __future__ import annotations

import fcntl
import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.docker import (
    IMAGE,
    POSTGRES_IMAGE,
    Containers,
    Postgres,
    build_repository,
    docker,
    docker_out,
    running_network,
    running_postgres,
    why_no_docker,
)
from tests.support.docker_images import EXAMPLE_APP, built_image
from tests.support.place import Place, running_place
from tests.support.swarm import shared_swarm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.processes import Result


class RunImage(Protocol):
    """Runs `initmig` in its image, e.g. `run_image("status", options=[f"--network={network}"])`."""

    def __call__(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        timeout: float = 60,
    ) -> Result: ...


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skips if no Docker engine answers."""
    if reason := why_no_docker():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def image(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: ARG001
    """The image, built once per test run from the repository."""
    once = _shared_folder(tmp_path_factory) / "image-is-built"
    with once.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not once.exists():
            build_repository(IMAGE)
            once.touch()
    return IMAGE


@pytest.fixture(scope="session")
def postgres_image(docker_engine: None) -> str:  # noqa: ARG001
    """The image of PostgreSQL, pulled if the engine does not have it."""
    if docker("image", "inspect", POSTGRES_IMAGE).code != 0:
        docker_out("pull", "--quiet", POSTGRES_IMAGE, timeout=600)
    return POSTGRES_IMAGE


@pytest.fixture(scope="module")
def app_image(postgres_image: str) -> Iterator[str]:  # noqa: ARG001 - its base image
    """The example app, built."""
    with built_image(EXAMPLE_APP) as name:
        yield name


@pytest.fixture
def network(docker_engine: None) -> Iterator[str]:  # noqa: ARG001
    """A separate network for the test."""
    with running_network() as name:
        yield name


@pytest.fixture
def postgres(network: str, postgres_image: str) -> Iterator[Postgres]:  # noqa: ARG001
    """PostgreSQL on `network`, with a password."""
    with running_postgres(network) as server:
        yield server


@pytest.fixture(scope="session")
def swarm(docker_engine: None) -> Iterator[None]:  # noqa: ARG001
    """The swarm, until this process has finished its tests."""
    with shared_swarm():
        yield


@pytest.fixture(scope="module")
def _place(postgres_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:  # noqa: ARG001
    """A server with a password and TLS."""
    with running_place(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
def place(_place: Place) -> Place:
    """A server in a container, with an empty database for this test."""
    return _place.with_database()


@pytest.fixture
def containers(docker_engine: None) -> Iterator[Containers]:  # noqa: ARG001
    """Starts containers that are removed at the end of the test."""
    started = Containers()
    yield started
    started.clean_up()


@pytest.fixture
def run_image(containers: Containers, image: str) -> RunImage:
    """Runs the image until its program exits."""
    return partial(containers.run, image)


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
