"""A link that fails silently: both sides notice it, and a rerun completes the migrations.

The database is on this machine, initmig on a host at the far end of the link.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.support.command import Options
from tests.support.databases import WAIT_FOR_GATE, create_database
from tests.support.migrations import write
from tests.support.network_link import working_link
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.network_link import Link
    from tests.support.processes import Result, Running
    from tests.support.servers import MakeServer

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

NOTICED_SECONDS = 30
"""The documented limit, for either side."""

STOPPED_SECONDS = 5
"""The documented limit after SIGTERM."""

WAIT = "--wait-timeout=5s"
WAITED_SECONDS = 5 + 5
"""The seconds of WAIT, and those of a connection attempt that is running when they end."""

BUSY_SECONDS = 30
"""The additional seconds that a process may take on a busy machine."""

LOST = "the connection was lost"

# No migration here can be applied twice.
FIRST = {"0001_first.sql": "CREATE TABLE first (id int PRIMARY KEY)"}

GATED = f"CREATE TABLE second (id int PRIMARY KEY); {WAIT_FOR_GATE}"

# Waits for the test immediately before initmig sends the COMMIT.
WAITS_BEFORE_COMMIT = """
import pathlib, time
from yoyo import step

def work(connection):
    connection.execute("CREATE TABLE second (id int PRIMARY KEY)")
    here = pathlib.Path(__file__).parent.parent
    (here / "reached").touch()
    while not (here / "go_on").exists():
        time.sleep(0.02)

step(work)
"""

# The COMMIT itself takes the server some seconds.
SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(4); RETURN NULL; END $$;
CREATE TABLE second (id int PRIMARY KEY);
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON second
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
INSERT INTO second VALUES (1)"""

SLEEPS = "wait_event = 'PgSleep'"
APPLIED = """
SELECT migration_id, count(*) FROM _yoyo_migration JOIN _yoyo_log USING (migration_id)
GROUP BY migration_id ORDER BY migration_id"""
FIRST_ONCE = [("0001_first", 1)]
EACH_ONCE = [*FIRST_ONCE, ("0002_second", 1)]


class Far:
    """Runs initmig on the host at the far end of the link."""

    def __init__(self, link: Link, database: Database, initmig: Initmig, options: Options) -> None:
        self.link = link
        self.database = database
        self._initmig = initmig
        self._options = options

    def start(self, *argv: str) -> Running:
        return self._initmig.start(*argv, **self._options)

    def run(self, *argv: str) -> Result:
        return self.start(*argv).result()

    def server_processes(self, state: str = "true") -> set[int]:
        """The server's processes for the far host; only those in *state*, an SQL condition."""
        query = f"SELECT pid FROM pg_stat_activity WHERE client_addr = %s AND {state}"
        return {pid for (pid,) in self.database.query(query, [self.link.far_address])}

    def wait_until_server_is(self, state: str) -> None:
        wait_until(lambda: bool(self.server_processes(state)))

    def applied(self) -> list[tuple[str, int]]:
        """The applied migrations, and how many times each was applied."""
        return [(id, count) for id, count in self.database.query(APPLIED)]


class Outage:
    """Cuts the link, and counts the seconds since then."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._server_processes = far.server_processes()
        assert self._server_processes
        far.link.cut()
        self._since = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._since

    def seconds_until_client_notices(self, running: Running, words: str = LOST) -> float:
        """Seconds until it logs *words*. Raises AssertionError after the documented limit."""
        return self._seconds_until(lambda: words in running.err)

    def seconds_until_server_notices(self) -> float:
        """Seconds until its processes have ended, which releases every lock.

        Raises AssertionError after the documented limit.
        """
        return self._seconds_until(
            lambda: not self._server_processes & self._far.server_processes()
        )

    def _seconds_until(self, condition: Callable[[], bool]) -> float:
        wait_until(condition, NOTICED_SECONDS + BUSY_SECONDS - self.seconds())
        seconds = self.seconds()
        assert seconds < NOTICED_SECONDS + BUSY_SECONDS
        return seconds


class Scene:
    """A moment during a run of two migrations."""

    second: ClassVar[dict[str, str]] = {"0002_second.sql": GATED}
    applied_during_outage: ClassVar = FIRST_ONCE
    """The applied migrations once both sides have noticed."""
    logs: ClassVar = (LOST, "timeout expired (waited ", "is running and reachable")
    """Words that the client logs; the first of them when it notices the outage."""

    def __init__(self, far: Far, folder: Path, initmig: Initmig) -> None:
        self.far = far
        self.folder = write(folder, FIRST | self.second)
        self.initmig = initmig

    def reach(self, *argv: str) -> Running:
        """Start initmig, and return at the moment to cut the link."""
        raise NotImplementedError

    def cut(self) -> Outage:
        """Cut the link, and return once the server has done its part after the cut."""
        return Outage(self.far)

    def release(self) -> None:
        """Let the migration finish."""


class Statement(Scene):
    """The server is executing a statement."""

    def reach(self, *argv: str) -> Running:
        self.far.database.execute("CREATE TABLE gate ()")
        running = self.far.start(*argv)
        self.far.wait_until_server_is(SLEEPS)
        return running

    def release(self) -> None:
        self.far.database.execute("DROP TABLE gate")


class Queue(Statement):
    """A migrator on the near side of the link is running; another on the far side waits for it."""

    # it polls, and each of these queries has its own limit
    logs: ClassVar = (
        "no answer to one of initmig's own statements",
        "[no-answer]",
        "check the server",
    )

    def reach(self, *argv: str) -> Running:
        self.far.database.execute("CREATE TABLE gate ()")
        self._holder = self.initmig.start(url=self.far.database.url, folder=self.folder)
        self._holder.wait_for_line("0002_second")
        running = self.far.start(*argv)
        running.wait_for_line("waiting for another migrator")
        return running

    def release(self) -> None:
        super().release()
        assert self._holder.result().code == 0


class CommitUnseen(Scene):
    """initmig is about to send the COMMIT."""

    second: ClassVar = {"0002_second.py": WAITS_BEFORE_COMMIT}

    def reach(self, *argv: str) -> Running:
        running = self.far.start(*argv)
        wait_until(self.folder.parent.joinpath("reached").exists)
        return running

    def cut(self) -> Outage:
        outage = super().cut()
        self.folder.parent.joinpath("go_on").touch()
        return outage


class CommitUnanswered(Scene):
    """The server has received the COMMIT, and will answer while the link is dead."""

    second: ClassVar = {"0002_second.sql": SLOW_COMMIT}
    applied_during_outage: ClassVar = EACH_ONCE

    def reach(self, *argv: str) -> Running:
        running = self.far.start(*argv)
        self.far.wait_until_server_is(SLEEPS)
        return running

    def cut(self) -> Outage:
        outage = super().cut()
        wait_until(lambda: self.far.applied() == EACH_ONCE)
        return outage


@pytest.fixture
def link() -> Iterator[Link]:
    with working_link() as link:
        yield link


@pytest.fixture
def far(link: Link, make_server: MakeServer, initmig: Initmig, folder: Path) -> Far:
    server = make_server(listen_addresses=f"127.0.0.1,{link.near_address}")
    link.let_in(server)
    database = create_database(server)
    options = Options(url=link.url(server, database.name), folder=folder, prefix=link.prefix)
    return Far(link, database, initmig, options)


SCENES: dict[str, type[Scene]] = {
    "queue": Queue,
    "statement": Statement,
    "commit unseen": CommitUnseen,
    "commit unanswered": CommitUnanswered,
}


@pytest.fixture(params=list(SCENES))
def scene(request: pytest.FixtureRequest, far: Far, folder: Path, initmig: Initmig) -> Scene:
    return SCENES[request.param](far, folder, initmig)


def test_dead_link_before_connecting_times_out_with_exit_code_3(far: Far, folder: Path) -> None:
    write(folder, FIRST)
    far.link.cut()
    result = far.run(WAIT)
    assert result.code == 3
    assert "timeout expired" in result.err
    assert result.seconds < WAITED_SECONDS + BUSY_SECONDS
    far.link.restore()
    assert far.run().code == 0
    assert far.applied() == FIRST_ONCE


@pytest.mark.long
def test_run_succeeds_once_a_link_that_was_dead_at_the_start_is_restored(
    far: Far, folder: Path
) -> None:
    write(folder, FIRST)
    far.link.cut()
    running = far.start()
    running.wait_for_line("timeout expired")
    far.link.restore()
    result = running.result()
    assert result.code == 0, result.err
    assert far.applied() == FIRST_ONCE


@pytest.mark.long
def test_dead_link_is_noticed_on_both_sides_and_a_rerun_succeeds(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    running = scene.reach(WAIT)
    outage = scene.cut()
    noticed = outage.seconds_until_client_notices(running, scene.logs[0])
    record_property("client", noticed)
    record_property("server", outage.seconds_until_server_notices())
    result = running.result()
    record_property("exit", outage.seconds())
    assert result.code == 3
    assert all(words in result.err for words in scene.logs), result.err
    assert outage.seconds() < noticed + WAITED_SECONDS + BUSY_SECONDS
    assert scene.far.applied() == scene.applied_during_outage
    scene.far.link.restore()
    scene.release()
    again = scene.far.run()
    assert again.code == 0, again.err
    assert scene.far.applied() == EACH_ONCE


@pytest.mark.long
def test_run_resumes_once_the_dead_link_is_restored(scene: Scene) -> None:
    running = scene.reach()
    outage = scene.cut()
    outage.seconds_until_client_notices(running)
    scene.far.link.restore()
    scene.release()
    result = running.result()
    assert result.code == 0, result.err
    assert scene.far.applied() == EACH_ONCE


@pytest.mark.long
def test_server_notices_in_time_that_its_answer_is_lost_on_a_dead_link(
    far: Far, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    # Shortly before the silence alone would be noticed.
    seconds = 12
    write(folder, FIRST | {"0002_second.sql": f"SELECT pg_sleep({seconds})"})
    running = far.start(WAIT)
    far.wait_until_server_is(SLEEPS)
    outage = Outage(far)
    far.wait_until_server_is("state = 'idle'")  # it has committed, and answered
    record_property("server", outage.seconds_until_server_notices())
    assert running.result().code == 3
    assert far.applied() == EACH_ONCE


def test_short_outage_does_not_interrupt_the_statement(
    far: Far, folder: Path, initmig: Initmig
) -> None:
    scene = Statement(far, folder, initmig)
    running = scene.reach()
    [pid] = far.server_processes(SLEEPS)
    far.link.cut()
    time.sleep(3)
    far.link.restore()
    assert far.server_processes(SLEEPS) == {pid}
    scene.release()
    result = running.result()
    assert result.code == 0
    assert LOST not in result.err
    assert far.applied() == EACH_ONCE


@pytest.mark.parametrize(
    "scene",
    [
        name if name == "statement" else pytest.param(name, marks=pytest.mark.long)
        for name in SCENES
    ],
    indirect=True,
)
def test_sigterm_stops_a_run_on_a_dead_link_in_time(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    # Queries the state of the statement every half second, so a query hangs on the dead link.
    running = scene.reach("--lock-timeout=1s")
    outage = scene.cut()
    time.sleep(1)
    signalled = outage.seconds()
    running.terminate()
    result = running.result()
    seconds = outage.seconds() - signalled
    record_property("seconds", seconds)
    assert result.code == 143
    assert seconds < STOPPED_SECONDS + BUSY_SECONDS


@pytest.mark.long
def test_sigterm_stops_a_connection_attempt_on_a_dead_link_in_time(far: Far, folder: Path) -> None:
    write(folder, FIRST)
    far.link.cut()
    running = far.start()
    # The first attempt has ended, and another begins after a pause of less than a second.
    running.wait_for_line("timeout expired")
    time.sleep(1)
    signalled = time.monotonic()
    running.terminate()
    assert running.result().code == 143
    assert time.monotonic() - signalled < STOPPED_SECONDS + BUSY_SECONDS


@pytest.mark.long
def test_server_drops_the_connections_of_a_run_killed_on_a_dead_link(
    far: Far, folder: Path, initmig: Initmig, record_property: Callable[[str, object], None]
) -> None:
    # Queries the state of the statement every half second, on a connection that it keeps open.
    running = Statement(far, folder, initmig).reach("--lock-timeout=1s")
    wait_until(lambda: len(far.server_processes()) == 2)
    outage = Outage(far)
    running.kill()
    record_property("server", outage.seconds_until_server_notices())


def test_run_over_a_unix_socket_logs_nothing_on_the_server(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server()
    database = create_database(server)
    url = server.url(database.name, host=str(server.socket_dir))
    assert initmig(url=url, folder=write(folder, FIRST)).code == 0
    begin = server.log_size()
    write(folder, {"0002_second.sql": "SELECT 1"})
    assert initmig(url=url, folder=folder).code == 0
    assert server.log_text(since=begin) == ""
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 2
