"""A real server's answers with random mistakes: a command ends, names the cause, and stays small.

The seed differs each time. `INITMIG_TEST_FUZZ_SEED` sets the first seed, and
`INITMIG_TEST_FUZZ_EXAMPLES` the number of seeds. A failure names the seed that reproduces it.
"""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import ExitStack, closing
from random import Random, SystemRandom
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.command import Initmig
from tests.support.fake_server import FakeServer
from tests.support.fork_server import ForkServer
from tests.support.migrations import write
from tests.support.recorded_sessions import Player, Recorder, corrupt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.processes import Processes, Running

# These tests are for the client, so one version of the server is enough.
pytestmark = [pytest.mark.any_version, pytest.mark.long]

EXAMPLES = int(os.environ.get("INITMIG_TEST_FUZZ_EXAMPLES", "50"))
"""The number of seeds for each command."""
PARALLEL = 12
"""The number of commands that run at the same time: slow ones mostly wait."""
HANG_SECONDS = 90
"""Far more than any command takes on a busy machine."""
MIB = 1 << 20
MEMORY_LIMIT = 128 * MIB
"""The memory limit in k8s/."""
LOG_LIMIT = MIB // 4
SECRET = "Kanari3nVogel"

SQL = {"0001_a.sql": "CREATE TABLE a ();"}

IDS = {
    # the first three are errors of libpq: a message can claim to have 2 GB
    1: {"receive-failed", "send-failed", "out-of-memory", "migration-failed"},
    3: {"no-answer", "connection-lost", "database-unavailable", "standby"},
}
"""The errors that a command may report, for exit codes with several causes."""


class Case(NamedTuple):
    """A command, and its pending migrations."""

    command: tuple[str, ...]
    files: dict[str, str] = SQL
    idle_timeout: float | None = None
    """The seconds of silence after which the server closes the connection.

    None if initmig has to end by itself; a migration's statement has no limit.
    """


CASES = {
    "status": Case(("status",)),
    "nothing pending": Case(("migrate", "--queue-timeout=2s")),
    "wait": Case(("wait", "--for=database")),
    "plan": Case(("plan",)),
}


class Example(NamedTuple):
    """A running command."""

    description: str
    running: Running
    server: ExitStack


@pytest.fixture(scope="module")
def measured() -> Iterator[ForkServer]:
    with closing(ForkServer("tests.support.peak_memory")) as fork:
        yield fork


@pytest.mark.parametrize("name", CASES)
def test_corrupted_answers_end_in_time_and_are_reported(
    database: Database, processes: Processes, measured: ForkServer, folder: Path, name: str
) -> None:
    case, home = CASES[name], folder.parent
    initmig = Initmig(processes, measured)

    def start(url: str) -> Running:
        return initmig.start(*case.command, "--wait-timeout=2s", url=url, folder=folder)

    assert initmig(url=database.url, folder=write(folder, SQL)).code == 0
    write(folder, case.files)
    recorder = Recorder(database.url)
    with FakeServer(home, at_login=recorder) as server:
        recorded = start(server.through(database.url)).result(HANG_SECONDS)
    assert recorded.code == 0, recorded.err
    with FakeServer(home, at_login=Player(recorder.connections)) as server:
        played = start(_secret(server)).result(HANG_SECONDS)
    assert played.code == 0, played.err

    first = int(os.environ.get("INITMIG_TEST_FUZZ_SEED") or SystemRandom().randrange(1 << 40))
    running: deque[Example] = deque()
    with ExitStack() as servers:
        for seed in range(first, first + EXAMPLES):
            random = Random(seed)
            example = corrupt(
                recorder.connections, recorder.passwords, random, idle_timeout=case.idle_timeout
            )
            own = servers.enter_context(ExitStack())
            server = own.enter_context(FakeServer(home, at_login=example.player))
            description = f"INITMIG_TEST_FUZZ_SEED={seed}, {example.description}"
            running.append(Example(description, start(_secret(server)), own))
            if len(running) == PARALLEL:
                check(running.popleft())
        for each in running:
            check(each)


def _secret(server: FakeServer) -> str:
    return server.url().replace(":secret@", f":{SECRET}@")


def check(example: Example) -> None:
    """Assert that it has ended as it should."""
    try:
        ended = example.running.result(HANG_SECONDS)
    except AssertionError as hang:
        raise AssertionError(f"{example.description}: {hang}") from None
    example.server.close()
    output = ended.err + ended.out
    problem = f"{example.description}: {ended.code}\n{output[-3000:]}"
    assert "Traceback" not in output, problem
    assert "internal-error" not in output, problem
    assert SECRET not in output, problem
    assert len(output) < LOG_LIMIT, problem
    peak = re.search(r"^peak (\d+)$", ended.err, re.MULTILINE)
    assert peak, problem
    assert int(peak[1]) << 10 < MEMORY_LIMIT, problem
    # not 2: the settings and the files are valid
    assert ended.code in {0, 1, 3, 4, 5, 6}, problem
    ids = re.findall(r"\[([a-z-]+)\]", output)
    assert ids or ended.code == 0, problem
    assert ended.code not in IDS or ids[-1] in IDS[ended.code], problem
