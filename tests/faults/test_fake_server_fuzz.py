"""A real server's answers, with random mistakes in them: a command ends, says why, stays small.

Another seed each time. `INITMIG_TEST_FUZZ_SEED` and `INITMIG_TEST_FUZZ_EXAMPLES` set the first
seed, and how many follow it; a failure says which one to give to see it again.
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
from tests.support.forking import Fork
from tests.support.migrations import write
from tests.support.recorded import Player, Recorder, mistaken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.processes import Processes, Running

# It is the client that is tested.
pytestmark = [pytest.mark.any_version, pytest.mark.long]

EXAMPLES = int(os.environ.get("INITMIG_TEST_FUZZ_EXAMPLES", "50"))
"""For each of the commands."""
AT_ONCE = 12
"""Most of those that take long only wait."""
HANG_SECONDS = 90
"""Far more than any of it takes on a busy machine."""
MIB = 1 << 20
MEMORY_LIMIT = 128 * MIB
"""That of k8s/."""
LOG_LIMIT = MIB // 4
SECRET = "Kanari3nVogel"

SQL = {"0001_a.sql": "CREATE TABLE a ();"}

IDS = {
    # the first three are libpq's own words: a message may claim to be 2 GB
    1: {"receive-failed", "send-failed", "out-of-memory", "migration-failed"},
    3: {"no-answer", "connection-lost", "database-unavailable", "standby"},
}
"""What a command may say by its exit code, where that leaves a question."""


class Course(NamedTuple):
    """A command, and what it finds pending."""

    command: tuple[str, ...]
    files: dict[str, str] = SQL
    patience: float | None = None
    """After so many seconds without a word from the client, the server closes the connection.

    None where initmig has to end by itself; a migration's own statement may take for ever.
    """


COURSES = {
    "status": Course(("status",)),
    "nothing pending": Course(("migrate", "--queue-timeout=2s")),
    "wait": Course(("wait", "--for=database")),
    "plan": Course(("plan",)),
}


class Example(NamedTuple):
    """A command that is at work."""

    story: str
    running: Running
    server: ExitStack


@pytest.fixture(scope="module")
def measured() -> Iterator[Fork]:
    with closing(Fork("tests.support.measured")) as fork:
        yield fork


@pytest.mark.parametrize("name", COURSES)
def test_mistakes_in_answers_end_in_time_and_are_reported(
    database: Database, processes: Processes, measured: Fork, folder: Path, name: str
) -> None:
    course, home = COURSES[name], folder.parent
    initmig = Initmig(processes, measured)

    def start(url: str) -> Running:
        return initmig.start(*course.command, "--wait-timeout=2s", url=url, folder=folder)

    assert initmig(url=database.url, folder=write(folder, SQL)).code == 0
    write(folder, course.files)
    recorder = Recorder(database.url)
    with FakeServer(home, at_login=recorder) as server:
        recorded = start(server.through(database.url)).result(HANG_SECONDS)
    assert recorded.code == 0, recorded.err
    with FakeServer(home, at_login=Player(recorder.connections)) as server:
        played = start(_secret(server)).result(HANG_SECONDS)
    assert played.code == 0, played.err

    first = int(os.environ.get("INITMIG_TEST_FUZZ_SEED") or SystemRandom().randrange(1 << 40))
    at_work: deque[Example] = deque()
    with ExitStack() as servers:
        for seed in range(first, first + EXAMPLES):
            random = Random(seed)
            example = mistaken(
                recorder.connections, recorder.passwords, random, patience=course.patience
            )
            own = servers.enter_context(ExitStack())
            server = own.enter_context(FakeServer(home, at_login=example.player))
            story = f"INITMIG_TEST_FUZZ_SEED={seed}, {example.story}"
            at_work.append(Example(story, start(_secret(server)), own))
            if len(at_work) == AT_ONCE:
                check(at_work.popleft())
        for each in at_work:
            check(each)


def _secret(server: FakeServer) -> str:
    return server.url().replace(":secret@", f":{SECRET}@")


def check(example: Example) -> None:
    """It has ended, as it may."""
    try:
        ended = example.running.result(HANG_SECONDS)
    except AssertionError as hang:
        raise AssertionError(f"{example.story}: {hang}") from None
    example.server.close()
    said = ended.err + ended.out
    problem = f"{example.story}: {ended.code}\n{said[-3000:]}"
    assert "Traceback" not in said, problem
    assert "internal-error" not in said, problem
    assert SECRET not in said, problem
    assert len(said) < LOG_LIMIT, problem
    peak = re.search(r"^peak (\d+)$", ended.err, re.MULTILINE)
    assert peak, problem
    assert int(peak[1]) << 10 < MEMORY_LIMIT, problem
    # not 2: nothing is wrong with the settings and the files
    assert ended.code in {0, 1, 3, 4, 5, 6}, problem
    ids = re.findall(r"\[([a-z-]+)\]", said)
    assert ids or ended.code == 0, problem
    assert ended.code not in IDS or ids[-1] in IDS[ended.code], problem
