"""Options and fixtures for all tests. CONTRIBUTING.md describes the layout of the tests."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.clocks import SteppedClock, stepped_clock
from tests.support.command import Initmig
from tests.support.databases import Database, DatabaseServer, ExternalServer, create_database
from tests.support.examples import examples, take_turns
from tests.support.fork_server import ForkServer, KillableRuns
from tests.support.processes import Processes
from tests.support.proxy import MakeProxy, Proxy
from tests.support.releases import FIRST, command_in, has_commit, lay_out
from tests.support.servers import (
    MakeServer,
    MakeStandby,
    is_version_chosen,
    running_server,
    running_standby,
    shared_cluster,
)
from tests.support.users import as_uid, uid_without_passwd_entry
from tests.support.yoyo import Yoyo

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from dev.postgres import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail skipped tests")
    parser.addoption("--long", action="store_true", help="also run the tests marked `long`")
    parser.addoption(
        "--exhaustive", action="store_true", help="also run the tests marked `long` or `exhaustive`"
    )
    parser.addoption(
        "--sample",
        metavar="PART/PARTS",
        help="run every case of the tests marked `each_version`,"
        " and one case of each of the others in this part of them, such as 1/3",
    )
    parser.addoption(
        "--turn",
        metavar="PART/PARTS",
        help="of the cases of each test, run only this part, such as every sixth, from the first;"
        " try as many times fewer random examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; not in `make test`, but in CI")
    config.addinivalue_line("markers", "exhaustive: more cases; only in `make test-faults`")
    config.addinivalue_line(
        "markers", "any_version: has the same result on each version of PostgreSQL"
    )
    config.addinivalue_line("markers", "each_version: a table of the server's behaviour")
    config.addinivalue_line("markers", "alone: no other test uses the cluster at the same time")
    config.addinivalue_line(
        "markers", "installed: runs the installed command, because a fork would differ"
    )
    if turn := config.getoption("--turn"):
        take_turns(int(turn.partition("/")[2]))
    # in each of the eight parallel parts of tests/faults/test_sequences.py
    sequences = 50 if config.getoption("--exhaustive") else 4
    # a busy machine must not fail a test
    too_slow = [HealthCheck.too_slow]
    settings.register_profile(
        "busy",
        max_examples=examples(100),
        deadline=None,
        suppress_health_check=too_slow,
        print_blob=True,
    )
    settings.load_profile("busy")
    settings.register_profile("faults", max_examples=sequences)
    alongside_yoyo = 40 if config.getoption("--exhaustive") else 5
    settings.register_profile(
        "beside yoyo", settings.get_profile("faults"), max_examples=alongside_yoyo
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if not _is_left_out(item)]
    if sample := config.getoption("--sample"):
        kept = _sample(kept, *map(int, sample.split("/")))
    if turn := config.getoption("--turn"):
        kept = _turn(kept, *map(int, turn.split("/")))
    remaining = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in remaining])
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = _long_ones_first(kept, workers)


def _long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Begin each worker's share with its part of the long tests.

    Otherwise one worker would run them alone at the end. With pytest-xdist (worksteal), each worker
    begins with the same number of tests, in this order.
    """
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    share = -(-len(others) // workers)
    return [
        item
        for n in range(workers)
        for item in (*long[n::workers], *others[n * share : (n + 1) * share])
    ]


def _sample(items: list[pytest.Item], part: int, parts: int) -> list[pytest.Item]:
    """Every case of the tests marked `each_version`, one case of every *parts*-th other test."""
    complete = [item for item in items if item.get_closest_marker("each_version")]
    first: dict[str, pytest.Item] = {}
    for item in items:
        if not item.get_closest_marker("each_version"):
            first.setdefault(item.nodeid.partition("[")[0], item)
    return [*complete, *list(first.values())[part - 1 :: parts]]


def _turn(items: list[pytest.Item], part: int, parts: int) -> list[pytest.Item]:
    """Every *parts*-th case of each test, from case number *part*; one case if there are fewer."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return [item for each in cases.values() for item in each[(part - 1) % len(each) :: parts]]


def _is_left_out(item: pytest.Item) -> bool:
    exhaustive = item.config.getoption("--exhaustive")
    if item.get_closest_marker("exhaustive") and not exhaustive:
        return True
    if item.get_closest_marker("long") and not (exhaustive or item.config.getoption("--long")):
        return True
    if "first_release" in getattr(item, "fixturenames", ()) and not _has_first_release():
        return True
    # With a chosen version (`make test POSTGRES=14`), run only tests that depend on the version.
    return is_version_chosen() and not _depends_on_version(item)


def _depends_on_version(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    return "cluster" in item.fixturenames and not item.get_closest_marker("any_version")


def pytest_report_header() -> str:
    if _has_first_release():
        return ""
    return f"without the tests of the upgrade from 0.1.0: commit {FIRST} is not in the repository"


@cache
def _has_first_release() -> bool:
    return has_commit(FIRST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    del call
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips does not allow: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that this run's servers are copied from."""
    folder = tmp_path_factory.getbasetemp()
    under_xdist = "PYTEST_XDIST_WORKER" in os.environ
    return shared_cluster(folder.parent if under_xdist else folder)


@pytest.fixture(scope="session")
def server(cluster: Path) -> Iterator[DatabaseServer]:
    """The server of `database`. Other tests share it, so a test must not stop it."""
    external = os.environ.get("INITMIG_TEST_DATABASE_URL")
    if external:
        yield ExternalServer(external)
        return
    with running_server(cluster) as own:
        yield own


@pytest.fixture
def database(server: DatabaseServer) -> Iterator[Database]:
    """An empty database."""
    empty = create_database(server)
    yield empty
    empty.drop(server)


@pytest.fixture
def make_server(cluster: Path) -> Iterator[MakeServer]:
    """Starts servers that the test may stop, break and configure."""
    with ExitStack() as stack:

        def make(**settings: str | int) -> Server:
            texts = {name: str(value) for name, value in settings.items()}
            return stack.enter_context(running_server(cluster, settings=texts))

        yield make


@pytest.fixture(scope="session")
def clocked_server(cluster: Path) -> Iterator[tuple[Server, SteppedClock]]:
    """A server with its own clock."""
    with (
        stepped_clock() as clock,
        running_server(cluster, environment=clock.environment) as server,
    ):
        yield server, clock


@pytest.fixture
def clock(clocked_server: tuple[Server, SteppedClock]) -> SteppedClock:
    """The clock of `clocked`, right until the test steps it."""
    _, clock = clocked_server
    clock.set_to(0)
    return clock


@pytest.fixture
def clocked(clock: SteppedClock, clocked_server: tuple[Server, SteppedClock]) -> Iterator[Database]:
    """An empty database on the server whose clock is `clock`."""
    server, _ = clocked_server
    empty = create_database(server)
    yield empty
    clock.set_to(0)
    empty.drop(server)


@pytest.fixture
def third_clock() -> Iterator[SteppedClock]:
    """A clock for a client: neither this process's nor the server's."""
    with stepped_clock() as clock:
        yield clock


@pytest.fixture
def make_standby(make_server: MakeServer) -> Iterator[MakeStandby]:  # noqa: ARG001 it outlives the standbys
    """Starts streaming standbys of servers from `make_server`."""
    with ExitStack() as stack:
        yield lambda primary: stack.enter_context(running_standby(primary))


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    """Starts proxies in front of a server, e.g. `make_proxy(server).url(database.name)`."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(Proxy(server))


@pytest.fixture
def proxy(server: DatabaseServer, make_proxy: MakeProxy) -> Proxy:
    """A proxy in front of the server of `database`."""
    return make_proxy(server)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The path of a migrations folder, which `write` creates."""
    return tmp_path / "migrations"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes that end with the test."""
    home = tmp_path / "home"
    home.mkdir()
    started = Processes(home)
    yield started
    started.clean_up()


@pytest.fixture(scope="session")
def fork() -> Iterator[ForkServer]:
    """Runs the command in forks of a process that has imported it."""
    with closing(ForkServer()) as fork:
        yield fork


@pytest.fixture
def killable_runs(processes: Processes, fork: ForkServer) -> KillableRuns:
    """Runs the command, and kills it, hundreds of times in a test."""
    return KillableRuns(processes, fork)


@pytest.fixture
def initmig(request: pytest.FixtureRequest, processes: Processes) -> Initmig:
    """Runs forks of the command, or the installed command if the test has the mark `installed`."""
    if request.node.get_closest_marker("installed"):
        return Initmig(processes)
    return Initmig(processes, request.getfixturevalue("fork"))


@pytest.fixture
def yoyo(processes: Processes) -> Yoyo:
    """Runs the stock yoyo command."""
    return Yoyo(processes)


@pytest.fixture(scope="session")
def first_release_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of release 0.1.0."""
    return lay_out(FIRST, tmp_path_factory.mktemp("first-release"))


@pytest.fixture
def first_release(processes: Processes, first_release_folder: Path) -> Initmig:
    """Runs the command of release 0.1.0."""
    return Initmig(processes, command=command_in(first_release_folder))


@pytest.fixture
def nameless_user() -> list[str]:
    """The `prefix` that runs a command as a user id without a passwd entry; skips unless root."""
    return as_uid(uid_without_passwd_entry())
