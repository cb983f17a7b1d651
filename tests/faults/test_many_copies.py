"""Many copies, some of them killed: the others continue, and each migration is applied once."""

from __future__ import annotations

import random
import time
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import create_database
from tests.support.fork_server import ForkServer, KillableRuns
from tests.support.kill_trial import KillTrial, Run
from tests.support.migrations import write
from tests.support.statements import calls
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Processes, Result, Running
    from tests.support.proxy import MakeProxy, Message
    from tests.support.servers import MakeServer

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

COPIES = 8
# No migration here can be applied twice.
MIXED = {
    "0001_t.sql": "CREATE TABLE t (a int); INSERT INTO t VALUES (1);",
    "0002_i.sql": "-- transactional: false\nINSERT INTO t VALUES (2);\n"
    "CREATE INDEX CONCURRENTLY ON t (a);\nINSERT INTO t VALUES (3);",
    "0003_u.sql": "CREATE TABLE u (); INSERT INTO t VALUES (4);",
    "post-apply.sql": "INSERT INTO t VALUES (0);",
}


@pytest.mark.long
@pytest.mark.parametrize("copies", [64, 256])
def test_more_copies_than_connection_slots_all_succeed(
    make_server: MakeServer, initmig: Initmig, folder: Path, copies: int
) -> None:
    server = make_server()
    database = create_database(server)
    assert database.value("SHOW max_connections") == "100"
    ids = [f"{number:04}" for number in range(1, 51)]
    write(folder, {f"{id}.sql": f"CREATE TABLE t{id} ()" for id in ids})
    running = [initmig.start(url=database.url, folder=folder) for _ in range(copies)]
    results = [copy.result(timeout=120) for copy in running]
    assert [result.err for result in results if result.code != 0] == []
    assert sum(result.err.count(" applied 0") for result in results) == len(ids)
    applied = "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc"
    assert [id for (id,) in database.query(applied)] == ids


class Waiter:
    """A run in a separate process that waits for the leader."""

    def __init__(self, killable_runs: KillableRuns, *, url: str, folder: Path) -> None:
        self._runs = killable_runs
        self._url = url
        self._folder = folder
        self._thread: Thread | None = None
        self._result: Result | None = None

    def start(self) -> None:
        self._result = None
        thread = self._thread = Thread(target=self._run)
        thread.start()
        # it does not wait if everything is applied already
        wait_until(
            lambda: "waiting for another" in self._runs.err or not thread.is_alive(),
        )

    def _run(self) -> None:
        self._result = self._runs.run("migrate", url=self._url, folder=self._folder)

    def result(self) -> Result:
        assert self._thread
        self._thread.join(30)
        assert self._result, "it is still waiting"
        return self._result


@pytest.fixture
def waiters(
    processes: Processes, fork: ForkServer, database: Database, folder: Path
) -> list[Waiter]:
    return [
        Waiter(KillableRuns(processes, fork), url=database.url, folder=folder) for _ in range(2)
    ]


@pytest.fixture
def trial(
    killable_runs: KillableRuns,
    database: Database,
    server: DatabaseServer,
    make_proxy: MakeProxy,
    folder: Path,
) -> KillTrial:
    return KillTrial(
        Run(("migrate",), MIXED),
        database=database,
        proxy=make_proxy(server),
        killable_runs=killable_runs,
        folder=folder,
    )


@pytest.mark.parametrize(
    ("answered", "step"),
    [
        pytest.param(False, 4, id="before"),
        pytest.param(True, 4, id="after"),
        pytest.param(False, 1, id="every one before", marks=pytest.mark.long),
        pytest.param(True, 1, id="every one after", marks=pytest.mark.long),
    ],
)
def test_waiting_copies_take_over_when_the_leader_is_killed(
    trial: KillTrial, waiters: list[Waiter], answered: bool, step: int
) -> None:
    def wait() -> None:
        for waiter in waiters:
            waiter.start()

    for message in holding_the_lock(trial.messages_to_interrupt(answered=answered))[::step]:
        trial.kill(message, answered=answered, first=wait)
        assert [waiter.result().code for waiter in waiters] == [0, 0], message
        assert trial.snapshot() == trial.undisturbed, message


def holding_the_lock(messages: list[Message]) -> list[Message]:
    """The messages that the leader sends while it holds the migration lock."""
    queries = [message.query if message.type == "Q" else "" for message in messages]
    taken = next(n for n, query in enumerate(queries) if calls(query, "pg_try_advisory_lock"))
    given = max(n for n, query in enumerate(queries) if calls(query, "pg_advisory_unlock_all"))
    return messages[taken + 1 : given + 1]


@pytest.mark.parametrize(
    "seconds", [6, pytest.param(30, marks=pytest.mark.long)], ids="{} s".format
)
def test_each_migration_is_applied_once_while_a_copy_is_killed_every_second(
    database: Database, initmig: Initmig, folder: Path, seconds: int
) -> None:
    migrations = seconds * 3
    table = {"0000_t.sql": "CREATE TABLE t (a int)"}
    # every third migration is not transactional; no migration can be applied twice
    insert = "INSERT INTO t VALUES ({n}); SELECT pg_sleep(0.2);"
    write(
        folder,
        table
        | {
            f"{n:04}_m.sql": (
                f"-- transactional: false\nCREATE INDEX CONCURRENTLY i{n} ON t (a); {insert}"
                if n % 3 == 0
                else insert + " CREATE TABLE t{n} ();"
            ).replace("{n}", str(n))
            for n in range(1, migrations + 1)
        },
    )

    def start() -> Running:
        return initmig.start(url=database.url, folder=folder)

    seed = random.randrange(10**9)
    chance = random.Random(seed)
    copies: list[Running] = [start() for _ in range(COPIES)]
    killed = 0
    while any(copy.is_running() for copy in copies):
        time.sleep(1)
        running = [copy for copy in copies if copy.is_running()]
        # on a machine so slow that copies hardly start within a second, let them finish
        if running and killed < 5 * seconds:
            victim = chance.choice(running)
            victim.kill()
            killed += 1
            copies[copies.index(victim)] = start()  # as any orchestrator does
    assert killed >= 3
    ends = [copy.result() for copy in copies]
    assert [end.code for end in ends] == [0] * COPIES, (seed, [end.err for end in ends if end.code])
    ids = database.query("SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc")
    assert ids == sorted(ids)
    assert len(ids) == migrations + 1, seed
    numbers = database.query("SELECT a FROM t ORDER BY a")
    assert numbers == [(n,) for n in range(1, migrations + 1)], seed
    assert database.query("SELECT FROM pg_index WHERE NOT indisvalid") == []
    assert database.query("SELECT FROM _initmig_migration WHERE state <> 'applied'") == []
