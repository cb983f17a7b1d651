"""The server crashes, restarts, is full, disconnects initmig or fails over: initmig resumes."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.support.command import JSON
from tests.support.databases import ASLEEP, Database, create_database
from tests.support.disks import SmallDisk, small_disk
from tests.support.migrations import write
from tests.support.processes import succeeded
from tests.support.servers import debian_server
from tests.support.statements import commits
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from dev.postgres import Server, StopMode
    from tests.support.command import Initmig
    from tests.support.processes import Result, Running
    from tests.support.proxy import MakeProxy, Message, Proxy, Verdict
    from tests.support.servers import MakeServer, MakeStandby

# No migration here can be applied twice.
FILES = {
    "0001_a.sql": "CREATE TABLE a (n int PRIMARY KEY);\nINSERT INTO a VALUES (1);",
    "0002_b.sql": "CREATE TABLE b ();\nSELECT pg_sleep(3);\nINSERT INTO a VALUES (2);",
    "0003_c.sql": "ALTER TABLE a ADD c int;\nINSERT INTO a VALUES (3, 3);",
}
IDS = ["0001_a", "0002_b", "0003_c"]

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
HOLDERS = """
SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.application_name = 'initmig'"""

# The same as a Python step: between its messages the connection is idle in the transaction.
IN_PYTHON = f'from yoyo import step\nstep("""{FILES["0002_b.sql"]}""")\n'


def slower(seconds: float) -> str:
    """0002_b, with a sleep of *seconds*."""
    return FILES["0002_b.sql"].replace("pg_sleep(3)", f"pg_sleep({seconds})")


def recorded(database: Database) -> list[str]:
    """The ids in yoyo's table. Raises AssertionError if initmig's table has other ids."""
    rows = database.query("SELECT migration_id FROM _yoyo_migration ORDER BY migration_id")
    own = database.query("SELECT migration_id FROM _initmig_migration ORDER BY migration_id")
    assert rows == own
    return [id for (id,) in rows]


def assert_complete(database: Database) -> None:
    """Assert that each of FILES was applied and recorded once, and that nothing else remains."""
    assert recorded(database) == IDS
    assert schema(database) == {"a": ["n", "c"], "b": []}
    assert database.query("SELECT n, c FROM a ORDER BY n") == [(1, None), (2, None), (3, 3)]
    assert database.query("SELECT pid FROM yoyo_lock WHERE pid > 0") == []
    assert database.query(HOLDERS) == []


def assert_only_the_first(database: Database) -> None:
    """Assert that only 0001_a was applied and recorded; the failed migration was rolled back."""
    assert recorded(database) == IDS[:1]
    assert schema(database) == {"a": ["n"]}
    assert database.query("SELECT n FROM a") == [(1,)]
    assert database.query("SELECT pid FROM yoyo_lock WHERE pid > 0") == []


def schema(database: Database) -> dict[str, list[str]]:
    """The columns of each table that the migrations created."""
    return {
        table: [
            name
            for (name,) in database.query(
                "SELECT attname::text FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
                [table],
            )
        ]
        for table in database.tables()
        if not table.startswith(("_", "yoyo_"))
    }


def applied_by(results: list[Result]) -> list[str]:
    """The ids that all the runs together report as applied."""
    events = [event for result in results for event in result.events]
    return sorted(event["id"] for event in events if event["event"] == "migration_applied")


class Stage(NamedTuple):
    """A server that a test may stop, and the proxy in front of it."""

    server: Server
    database: Database
    proxy: Proxy

    @property
    def url(self) -> str:
        """The URL of the database, through the proxy."""
        return self.proxy.url(self.database.name)


@pytest.fixture
def stage(make_server: MakeServer, make_proxy: MakeProxy) -> Stage:
    server = make_server()
    return Stage(server, create_database(server), make_proxy(server))


@pytest.fixture
def folder(folder: Path) -> Path:
    return write(folder, FILES)


# --- when to interrupt a run ---

IDLE: Final = "idle in the transaction"
Moment = Literal["between two", "in mid-statement", "idle in the transaction", "at COMMIT"]
MOMENTS: tuple[Moment, ...] = (
    "between two",
    "in mid-statement",
    IDLE,
    "at COMMIT",
)
AFTER_COMMIT = "after COMMIT, unheard"


def long(*values: object) -> ParameterSet:
    """A case that only `make test-faults` runs."""
    return pytest.param(*values, marks=pytest.mark.long)


class Interruption:
    """Calls *action* once, at a moment of the migration 0002_b that the proxy sees.

    Before that, the run is delayed until *prepare* returns. For the moment "idle in the
    transaction", 0002_b in *folder* is replaced by a Python migration.
    """

    def __init__(
        self,
        proxy: Proxy,
        action: Callable[[], object],
        moment: str,
        folder: Path,
        *,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self._proxy = proxy
        self._prepare = prepare
        self._action = action
        self._committed = False
        self._happened = False
        self.done = threading.Event()
        if moment == IDLE:
            (folder / "0002_b.sql").unlink()
            write(folder, {"0002_b.py": IN_PYTHON})
        if moment == AFTER_COMMIT:
            proxy.after = self._after
            proxy.withholds = True
        else:
            proxy.before = self._before
        self._is_moment = {
            "between two": self._between,
            "in mid-statement": _runs_b,
            IDLE: _runs_b,
            "at COMMIT": _commits_b,
            AFTER_COMMIT: _commits_b,
        }[moment]
        self._act = self._act_when_sleeping if moment == "in mid-statement" else self._act_now

    def _between(self, query: str) -> bool:
        committed, self._committed = self._committed, self._committed or _commits("0001_a", query)
        return committed

    def _before(self, message: Message) -> Verdict:
        if not self._happened and message.type == "Q" and self._is_moment(message.query):
            self._happened = True
            self._prepare()
            self._act()
        return "forward"

    def _after(self, message: Message) -> None:
        if not self._happened and message.type == "Q" and self._is_moment(message.query):
            self._happened = True
            self._prepare()
            self._act()
            self._proxy.cut()  # otherwise the client would still receive the answer

    def _act_now(self) -> None:
        self._action()
        self.done.set()

    def _act_when_sleeping(self) -> None:
        connection = psycopg.connect(self._proxy._server_url, autocommit=True)

        def wait_and_act() -> None:
            with closing(connection):
                wait_until(lambda: connection.execute(SLEEPING.encode()).fetchone() == (1,))
            self._act_now()

        threading.Thread(target=wait_and_act).start()


def _commits(id: str, query: str) -> bool:
    return commits(query) and f"'{id}'" in query


def _runs_b(query: str) -> bool:
    return FILES["0002_b.sql"] in query


def _commits_b(query: str) -> bool:
    return _commits("0002_b", query)


# --- the server crashes or restarts ---


def stopped_for(seconds: float, server: Server, mode: StopMode) -> Callable[[], object]:
    """Stop *server*, and start it again after *seconds* in the background."""

    def action() -> None:
        server.stop(mode)
        threading.Timer(seconds, server.start).start()

    return action


@pytest.mark.parametrize(
    ("moment", "mode"),
    [
        *((moment, "immediate") for moment in [*MOMENTS, AFTER_COMMIT]),
        ("in mid-statement", "fast"),
        *(long(moment, "fast") for moment in [*MOMENTS, AFTER_COMMIT] if "mid" not in moment),
    ],
)
def test_run_resumes_after_the_server_was_stopped(
    stage: Stage, initmig: Initmig, folder: Path, moment: str, mode: StopMode
) -> None:
    interruption = Interruption(stage.proxy, stopped_for(1, stage.server, mode), moment, folder)
    result = succeeded(initmig(url=stage.url, folder=folder, env=JSON))
    assert interruption.done.is_set()
    names = [event["event"] for event in result.events]
    assert names.count("waiting_for_database") >= 1
    assert "connected" in names
    assert_complete(stage.database)


@pytest.mark.parametrize(
    "moment",
    ["in mid-statement", AFTER_COMMIT, *(long(m) for m in MOMENTS if "mid" not in m)],
)
def test_server_that_returns_too_late_exits_3_and_a_rerun_completes(
    stage: Stage, initmig: Initmig, folder: Path, moment: str
) -> None:
    server, database = stage.server, stage.database
    interruption = Interruption(stage.proxy, lambda: server.stop("immediate"), moment, folder)
    result = initmig("--wait-timeout=1s", url=stage.url, folder=folder)
    assert interruption.done.is_set()
    assert result.code == 3, result.err
    assert result.err.count("applied 0001_a") == 1
    assert "applied 0002_b" not in result.err
    assert "server closed the connection unexpectedly" in result.err
    assert "(waited 1" in result.err
    assert "--wait-timeout sets how long to wait" in result.err
    server.start()
    if moment == AFTER_COMMIT:
        assert recorded(database) == IDS[:2]
    else:
        assert_only_the_first(database)
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


@pytest.mark.any_version
@pytest.mark.long
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_run_resumes_after_twenty_seconds_without_the_server(
    make_server: MakeServer, initmig: Initmig, folder: Path, mode: StopMode
) -> None:
    server = make_server()
    database = create_database(server)
    write(folder, {"0002_b.sql": slower(5)})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    server.stop(mode)
    time.sleep(20)
    server.start()
    result = succeeded(running.result())
    assert result.err.count("Connection refused") == 1
    assert_complete(database)


@pytest.mark.any_version
@pytest.mark.long
def test_outages_add_up_to_the_wait_timeout(stage: Stage, initmig: Initmig, folder: Path) -> None:
    # A migration that crashes the server each time must not keep a run forever.
    server, database, proxy = stage
    outages: list[int] = []

    def before(message: Message) -> Verdict:
        if message.type == "Q" and "pg_sleep" in message.query:
            outages.append(message.number)
            server.stop("immediate")
            threading.Timer(1, server.start).start()
        return "forward"

    proxy.before = before
    result = initmig("--wait-timeout=4s", url=stage.url, folder=folder)
    assert result.code == 3, result.err
    assert len(outages) > 1, "each is shorter than the timeout"
    wait_until(server.is_running)
    proxy.before = lambda _: "forward"
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


@pytest.mark.any_version
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_queued_copies_resume_after_the_server_was_stopped(
    stage: Stage, initmig: Initmig, folder: Path, mode: StopMode
) -> None:
    copies: list[Running] = []

    def start_three_waiting_copies() -> None:
        url = stage.database.url
        copies.extend(initmig.start(url=url, folder=folder, env=JSON) for _ in range(3))
        for copy in copies:
            copy.wait_for_line('"waiting_in_queue"')

    action = stopped_for(0.5, stage.server, mode)
    interruption = Interruption(
        stage.proxy, action, "in mid-statement", folder, prepare=start_three_waiting_copies
    )
    first = succeeded(initmig(url=stage.url, folder=folder, env=JSON))
    assert interruption.done.is_set()
    results = [first, *(succeeded(copy.result()) for copy in copies)]
    assert applied_by(results) == IDS
    assert_complete(stage.database)


@pytest.mark.any_version
def test_queued_copy_exits_3_if_the_server_stays_down(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server()
    database = create_database(server)
    write(folder, {"0002_b.sql": slower(60)})
    argv = ["--wait-timeout=1s", "--queue-timeout=30s"]
    copies = [initmig.start(*argv, url=database.url, folder=folder, env=JSON) for _ in range(2)]
    wait_until(lambda: sum('"waiting_in_queue"' in copy.err for copy in copies) == 1)
    wait_until(lambda: database.value(ASLEEP) == 1)
    server.stop("fast")
    for copy in copies:
        result = copy.result()
        assert result.code == 3, result.err
        assert "Connection refused" in result.events[-1]["message"]
    server.start()
    assert_only_the_first(database)
    write(folder, FILES)
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


def test_run_waits_until_a_server_that_returned_read_only_is_writable(
    stage: Stage, initmig: Initmig, folder: Path
) -> None:
    server, database, proxy = stage

    def restart_read_only() -> None:
        server.stop("immediate")
        with (server.data / "postgresql.auto.conf").open("a") as file:
            file.write("default_transaction_read_only = on\n")
        server.start()

    Interruption(proxy, restart_read_only, "in mid-statement", folder)
    running = initmig.start(url=stage.url, folder=folder)
    running.wait_for_line("the server is read-only (default_transaction_read_only")
    assert_only_the_first(database)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
    succeeded(running.result())
    assert_complete(database)


# --- another session disconnects it ---


def disconnected(database: Database) -> Callable[[], object]:
    """Terminate the connection that holds the migration lock, and wait until it has ended."""

    def action() -> None:
        [(pid,)] = database.query(HOLDERS)
        assert database.value("SELECT pg_terminate_backend(%s, 5000)", [pid])

    return action


@pytest.mark.any_version
@pytest.mark.parametrize("moment", MOMENTS)
def test_disconnected_migrator_and_queued_copy_both_exit_zero(
    database: Database, proxy: Proxy, initmig: Initmig, folder: Path, moment: Moment
) -> None:
    waiting: list[Running] = []

    def start_waiting_copy() -> None:
        waiting.append(initmig.start(url=database.url, folder=folder, env=JSON))
        waiting[0].wait_for_line('"waiting_in_queue"')

    interruption = Interruption(
        proxy, disconnected(database), moment, folder, prepare=start_waiting_copy
    )
    first = succeeded(initmig(url=proxy.url(database.name), folder=folder, env=JSON))
    assert interruption.done.is_set()
    second = succeeded(waiting[0].result())
    lost = [event for event in first.events if event["event"] == "waiting_for_database"]
    assert "terminating connection due to administrator command" in lost[0]["reason"]
    assert applied_by([first, second]) == IDS
    assert_complete(database)


@pytest.mark.any_version
def test_disconnected_queued_copies_rejoin_the_queue(
    database: Database, proxy: Proxy, initmig: Initmig, folder: Path
) -> None:
    waiting: list[Running] = []

    def disconnect_two_more() -> None:
        # by a different name, because the first run may have a second connection
        url = f"{database.url}?application_name=waiting"
        waiting.extend(initmig.start(url=url, folder=folder, env=JSON) for _ in range(2))
        for copy in waiting:
            copy.wait_for_line('"waiting_in_queue"')
        ended = database.query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'waiting' AND datname = current_database()"
        )
        assert ended == [(True,)] * 2
        for copy in waiting:
            copy.wait_for_line("terminating connection due to administrator command")

    interruption = Interruption(proxy, disconnect_two_more, IDLE, folder)
    first = succeeded(initmig(url=proxy.url(database.name), folder=folder, env=JSON))
    assert interruption.done.is_set()
    results = [first, *(succeeded(copy.result()) for copy in waiting)]
    assert applied_by(results) == IDS
    assert_complete(database)


def test_cancelled_migration_fails_and_is_rolled_back(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0002_b.sql": slower(60)})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(ASLEEP) == 1)
    [(pid,)] = database.query(HOLDERS)
    assert database.value("SELECT pg_cancel_backend(%s)", [pid])
    result = running.result()
    assert result.code == 1
    assert "0002_b failed: canceling statement due to user request" in result.err
    assert "next: rolled back; " in result.err
    assert_only_the_first(database)
    write(folder, FILES)
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


def test_statement_timeout_is_reported_as_a_timeout(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    result = initmig("--statement-timeout=300ms", url=database.url, folder=folder)
    assert result.code == 1
    assert "0002_b failed: canceling statement due to statement timeout" in result.err
    assert_only_the_first(database)
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


# --- no free connection slot ---

FEW_SLOTS = {"superuser_reserved_connections": "0", "autovacuum": "off"}


def test_server_without_a_free_slot_exits_3_after_the_wait_timeout(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server(max_connections=3, **FEW_SLOTS)
    database = create_database(server)
    with ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(closing(psycopg.connect(server.url())))
        result = initmig("--wait-timeout=1s", url=database.url, folder=folder, env=JSON)
    assert result.code == 3
    assert "too many clients already (waited 1" in result.events[-1]["message"]
    assert database.tables() == set()
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


def test_migration_completes_without_a_free_slot_for_the_blocker_query(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server(max_connections=2, **FEW_SLOTS)
    database = create_database(server)
    write(folder, {"0002_b.sql": slower(3)})
    with database.connect():
        before = server.log_size()
        # With a lock timeout of 1 s, it looks for blockers after half a second.
        running = initmig.start("--lock-timeout=1s", url=database.url, folder=folder)
        result = succeeded(running.result())
    assert "too many clients already" in server.log_text(since=before)
    assert "too many clients" not in result.err
    assert_complete(database)


@pytest.mark.any_version
@pytest.mark.parametrize(("copies", "slots"), [(8, 3), long(32, 10)])
def test_more_copies_than_connection_slots_all_exit_zero(
    make_server: MakeServer, initmig: Initmig, folder: Path, copies: int, slots: int
) -> None:
    server = make_server(max_connections=slots, **FEW_SLOTS)
    database = create_database(server)
    running_copies = [
        initmig.start(url=database.url, folder=folder, env=JSON) for _ in range(copies)
    ]
    results = [succeeded(one.result(120)) for one in running_copies]
    assert "too many clients" in server.log_text()
    assert applied_by(results) == IDS
    assert_complete(database)


# --- a server with German messages ---


@pytest.fixture
def german() -> Iterator[Server]:
    """A server with three slots, all for superusers, whose messages are in German."""
    settings = {"max_connections": "3", "lc_messages": "C.UTF-8", **FEW_SLOTS}
    with debian_server(language="de", settings=settings) as server:
        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(server.url("nowhere"))
        if "does not exist" in str(refused.value):
            pytest.skip("Debian's server was installed without its translations")
        yield server


def test_run_waits_for_a_free_slot_in_any_language(
    german: Server, initmig: Initmig, folder: Path
) -> None:
    database = create_database(german)
    with ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(closing(psycopg.connect(german.url())))
        result = initmig("--wait-timeout=1s", url=database.url, folder=folder, env=JSON)
        assert result.code == 3, result.err
        assert "zu viele Verbindungen (waited 1" in result.events[-1]["message"]
        running = initmig.start(url=database.url, folder=folder)
        running.wait_for_line("zu viele Verbindungen")
    succeeded(running.result())
    assert_complete(database)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres:wrong@{address}/postgres", "Passwort-Authentifizierung"),
        ("{account}@{address}/nowhere", "nowhere"),
        ("{account}@{address}/recovery", "recovery"),
        ("{account}@{address}/shut", "shut"),
    ],
    ids=["password", "database", "database called as what is waited for", "pg_hba"],
)
def test_refused_login_exits_4_in_any_language(
    german: Server, initmig: Initmig, folder: Path, url: str, expected: str
) -> None:
    hba = german.data / "pg_hba.conf"
    hba.write_text(f"host shut all 127.0.0.1/32 reject\n{hba.read_text()}")
    german.restart()
    account, _, address = urlsplit(german.url()).netloc.rpartition("@")
    url = f"postgresql://{url.format(account=account, address=address)}"
    result = initmig("--wait-timeout=0", url=url, folder=folder, env=JSON)
    assert result.code == 4, result.err
    assert expected in result.events[-1]["message"]
    assert "wrong" not in result.err


def test_run_waits_for_a_server_that_shuts_down_in_any_language(
    german: Server, initmig: Initmig, folder: Path
) -> None:
    database = create_database(german)
    stop = threading.Thread(target=german.stop, args=["smart"])
    with psycopg.connect(german.url()):
        stop.start()
        wait_until(lambda: not lets_in(german))
        running = initmig.start(url=database.url, folder=folder)
        running.wait_for_line("Datenbanksystem")
    stop.join()
    running.wait_for_line("Connection refused")
    german.start()
    succeeded(running.result())
    assert_complete(database)


def lets_in(server: Server) -> bool:
    try:
        psycopg.connect(server.url()).close()
    except psycopg.OperationalError:
        return False
    return True


# --- the disk is full ---

FILLING = """
CREATE TABLE b ();
CREATE TABLE big AS SELECT repeat(md5(n::text), 8) FROM generate_series(1, 100000) AS n;
DROP TABLE big;
INSERT INTO a VALUES (2);"""


@pytest.fixture
def full_disk(make_server: MakeServer) -> Iterator[tuple[Database, SmallDisk]]:
    """A database whose tables are on a disk that is too small for FILLING."""
    server = make_server()
    with small_disk(24) as disk:
        server.installation.take(disk.path)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'".encode())
            connection.execute("CREATE DATABASE full_disk TEMPLATE template0 TABLESPACE small")
        yield Database(server.url("full_disk")), disk
        server.stop("immediate")


@pytest.fixture
def full_wal(make_server: MakeServer) -> Iterator[tuple[Server, SmallDisk]]:
    """A server whose write-ahead log is on a disk that is too small for FILLING."""
    server = make_server()
    server.stop()
    with small_disk(16) as disk:
        shutil.move(server.data / "pg_wal", disk.path / "pg_wal")
        (server.data / "pg_wal").symlink_to(disk.path / "pg_wal")
        server.installation.take(disk.path)
        server.start()
        yield server, disk
        server.stop("immediate")


def test_migration_that_fills_the_disk_fails_and_a_rerun_with_more_space_completes(
    full_disk: tuple[Database, SmallDisk], initmig: Initmig, folder: Path
) -> None:
    database, disk = full_disk
    write(folder, {"0002_b.sql": FILLING})
    result = initmig(url=database.url, folder=folder, env=JSON)
    assert result.code == 1, result.err
    failed = result.events[-1]
    assert "0002_b failed: could not extend file" in failed["message"]
    # the server reports "wrote only" if a part of the page still had room
    assert "No space left on device" in failed["message"] or "wrote only" in failed["message"]
    assert (failed["sqlstate"], failed["path"]) == ("53100", str(folder / "0002_b.sql"))
    assert "Check free disk space" in failed["hint"]
    assert failed["next"].startswith("rolled back; ")
    assert_only_the_first(database)
    disk.resize(64)
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


def test_server_that_cannot_write_its_wal_exits_3_and_a_rerun_completes(
    full_wal: tuple[Server, SmallDisk], initmig: Initmig, folder: Path
) -> None:
    server, disk = full_wal
    database = create_database(server)
    write(folder, {"0002_b.sql": FILLING})
    result = initmig("--wait-timeout=2s", url=database.url, folder=folder, env=JSON)
    assert "PANIC" in server.log_text()
    assert result.code == 3, result.err
    assert result.seconds < 90
    disk.resize(128)
    if not server.is_running():
        server.start()
    succeeded(initmig(url=database.url, folder=folder))
    assert_complete(database)


def test_run_resumes_once_the_server_can_write_its_wal_again(
    full_wal: tuple[Server, SmallDisk], initmig: Initmig, folder: Path
) -> None:
    server, disk = full_wal
    database = create_database(server)
    write(folder, {"0002_b.sql": FILLING})
    running = initmig.start(url=database.url, folder=folder)
    running.wait_for_line("the connection was lost")
    disk.resize(128)
    wait_until(lambda: not server.is_running() or lets_in(server))
    if not server.is_running():
        server.start()
    succeeded(running.result())
    assert_complete(database)


# --- a standby takes over ---


def with_two_hosts(database: Database, first: int, second: int, *options: str) -> str:
    parts = urlsplit(database.url)
    account = parts.netloc.rpartition("@")[0]
    query = "&".join(["sslmode=disable", "gssencmode=disable", *options])
    netloc = f"{account}@127.0.0.1:{first},127.0.0.1:{second}"
    return urlunsplit(parts._replace(netloc=netloc, query=query))


class Pair(NamedTuple):
    """A primary with a proxy in front of it, and its standby."""

    primary: Server
    standby: Server
    database: Database
    proxy: Proxy

    def url(self, *options: str) -> str:
        """The URL of the database on both servers, the primary first."""
        parts = urlsplit(self.database.url)
        account = parts.netloc.rpartition("@")[0]
        query = "&".join(["sslmode=disable", "gssencmode=disable", *options])
        netloc = f"{account}@127.0.0.1:{self.proxy.port},127.0.0.1:{self.standby.port}"
        return urlunsplit(parts._replace(netloc=netloc, query=query))

    @property
    def promoted(self) -> Database:
        """The database on the standby."""
        return Database(self.standby.url(self.database.name))

    def make_synchronous(self) -> None:
        """From now on, a commit waits until the standby has received it."""
        with self.database.connect() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: self.database.value(synchronous) == 1)

    def catch_up(self) -> None:
        """Wait until the standby has replayed all commits."""
        lsn = self.database.value("SELECT pg_current_wal_flush_lsn()::text")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"
        wait_until(lambda: bool(self.promoted.value(replayed)))


@pytest.fixture
def pair(make_server: MakeServer, make_standby: MakeStandby, make_proxy: MakeProxy) -> Pair:
    primary = make_server()
    database = create_database(primary)
    return Pair(primary, make_standby(primary), database, make_proxy(primary))


READ_WRITE = "target_session_attrs=read-write"


@pytest.mark.parametrize(
    ("moment", "option"),
    [
        ("in mid-statement", READ_WRITE),
        (AFTER_COMMIT, READ_WRITE),
        *(long(m, READ_WRITE) for m in MOMENTS if "mid" not in m),
        *(long(m, "target_session_attrs=any") for m in [*MOMENTS, AFTER_COMMIT]),
    ],
)
def test_run_resumes_when_a_synchronous_standby_takes_over(
    pair: Pair, initmig: Initmig, folder: Path, moment: str, option: str
) -> None:
    pair.make_synchronous()

    def take_over() -> None:
        pair.primary.stop("immediate")
        pair.standby.promote()

    interruption = Interruption(pair.proxy, take_over, moment, folder)
    result = succeeded(initmig(url=pair.url(option), folder=folder, env=JSON))
    assert interruption.done.is_set()
    # A migration whose COMMIT was not answered is not reported as applied, nor applied again.
    assert applied_by([result]) == [id for id in IDS if (moment, id) != (AFTER_COMMIT, "0002_b")]
    assert_complete(pair.promoted)


def test_run_waits_for_a_standby_that_is_promoted_late(
    pair: Pair, initmig: Initmig, folder: Path
) -> None:
    Interruption(
        pair.proxy,
        lambda: pair.primary.stop("immediate"),
        IDLE,
        folder,
        prepare=pair.catch_up,
    )
    running = initmig.start(url=pair.url(), folder=folder)
    running.wait_for_line("the server is a standby")
    pair.standby.promote()
    succeeded(running.result())
    assert_complete(pair.promoted)


def test_migrations_lost_with_the_primary_are_applied_again_on_the_standby(
    pair: Pair, initmig: Initmig, folder: Path
) -> None:
    def before(message: Message) -> Verdict:
        if message.type == "Q" and _runs_b(message.query):
            pair.catch_up()
            pair.standby.stop()
        if message.type == "Q" and FILES["0003_c.sql"] in message.query:
            pair.primary.stop("immediate")
            pair.standby.start()
            pair.standby.promote()
            pair.proxy.before = lambda _: "forward"
        return "forward"

    pair.proxy.before = before
    result = succeeded(initmig(url=pair.url(), folder=folder, env=JSON))
    assert applied_by([result]) == ["0001_a", "0002_b", "0002_b", "0003_c"]
    assert_complete(pair.promoted)
