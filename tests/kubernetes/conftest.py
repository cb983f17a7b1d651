"""A cluster to test on, named by KUBECONFIG; INITMIG_TEST_CLUSTER loads images into it."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import IMAGE, POSTGRES_IMAGE
from tests.support.example_app import App
from tests.support.kubernetes import (
    MIGRATIONS_IMAGE,
    DatabasePod,
    Namespaces,
    cluster_script,
    load_image,
    start_database,
    why_no_cluster,
)
from tests.support.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_V1 = {"0001_users.sql": "CREATE TABLE users (email text NOT NULL);\n"}
_V2 = {**_V1, "0002_orders.sql": "CREATE TABLE orders (paid boolean NOT NULL);\n"}
_BAD = {**_V2, "0003_bad.sql": "ALTER TABLE users ADD phone text;\nUPDATE users SET nme = '';\n"}
IMAGES = {"v1": _V1, "v2": _V2, "bad": _BAD}
"""The tags of the app's migrations image, with the files of each."""


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips without a cluster; otherwise loads the images into it."""
    if reason := why_no_cluster():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("images")
    with _one_at_a_time(tmp_path_factory) as shared:
        loaded = shared / "images-are-loaded"
        if not loaded.exists():
            cluster_script("load", IMAGE, POSTGRES_IMAGE)
            for tag, files in IMAGES.items():
                load_image(f"{MIGRATIONS_IMAGE}:{tag}", files, folder / tag)
            loaded.touch()


@pytest.fixture(autouse=True)
def _share_of_the_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Other tests use the cluster at the same time, but not those marked `alone`."""
    is_alone = request.node.get_closest_marker("alone") is not None
    with _lock(tmp_path_factory, "node", fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH):
        yield


@pytest.fixture(scope="session")
def _namespaces(_cluster: None) -> Iterator[Namespaces]:
    made = Namespaces()
    yield made
    made.clean_up()


@pytest.fixture(scope="session")
def database_pod(
    _namespaces: Namespaces, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DatabasePod]:
    """The PostgreSQL server for the apps of this test run."""
    processes = Processes(tmp_path_factory.mktemp("database"))
    try:
        pod = start_database(_namespaces.create(), processes)
        _name_services(tmp_path_factory)
        yield pod
    finally:
        processes.clean_up()


@pytest.fixture
def app(database_pod: DatabasePod, _namespaces: Namespaces, tmp_path: Path) -> Iterator[App]:
    """The example app, not yet applied to the cluster."""
    with _new_app(database_pod, _namespaces, tmp_path) as app:
        yield app


@pytest.fixture
def start_own_database(
    _namespaces: Namespaces, tmp_path: Path, processes: Processes
) -> Callable[[], DatabasePod]:
    """Starts PostgreSQL for this test only: each time a new pod, with the data of the last one."""
    namespace = _namespaces.create()
    volume = f"hostPath: {{path: {tmp_path / 'data'}, type: DirectoryOrCreate}}"
    return partial(start_database, namespace, processes, volume=volume)


@pytest.fixture
def app_on_own_database(
    start_own_database: Callable[[], DatabasePod],
    _namespaces: Namespaces,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> Iterator[App]:
    """The example app on the first pod of that server, not yet applied to the cluster."""
    server = start_own_database()
    _name_services(tmp_path_factory)
    with _new_app(server, _namespaces, tmp_path) as app:
        yield app


@contextmanager
def _new_app(server: DatabasePod, namespaces: Namespaces, folder: Path) -> Iterator[App]:
    namespace = namespaces.create()
    database = server.create_database(f"app_{secrets.token_hex(4)}")
    yield App(namespace, database, server, folder)
    namespaces.begin_to_delete(namespace)


def _name_services(factory: pytest.TempPathFactory) -> None:
    with _one_at_a_time(factory):
        cluster_script("dns")


def _one_at_a_time(factory: pytest.TempPathFactory) -> AbstractContextManager[Path]:
    return _lock(factory, "kubernetes", fcntl.LOCK_EX)


@contextmanager
def _lock(factory: pytest.TempPathFactory, name: str, kind: int) -> Iterator[Path]:
    """Lock *name* for the processes of this test run, and yield a folder that they share."""
    folder = factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, kind)
        yield shared
