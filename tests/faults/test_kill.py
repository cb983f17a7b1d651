"""A run killed at any message, and a plain re-run: nothing is half done."""

from __future__ import annotations

import re
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.databases import create_database
from tests.support.forking import Blow, Forking
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Processes
    from tests.support.proxy import MakeProxy, Proxy
    from tests.support.servers import MakeServer

FILES = {
    # None of them can be applied twice.
    "0001_users.sql": "CREATE TABLE users (id int PRIMARY KEY);\nINSERT INTO users VALUES (1);",
    "0001_users.rollback.sql": "DROP TABLE users;",
    "0002_number.py": 'from yoyo import step\nstep("INSERT INTO users VALUES (3)",'
    ' "DELETE FROM users WHERE id = 3")\n',
    "0003_name.sql": "-- depends: 0002_number\nALTER TABLE users ADD name text DEFAULT 'x;''';",
    "0003_name.rollback.sql": "ALTER TABLE users DROP name;",
}
IDS = ["0001_users", "0002_number", "0003_name"]

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public'
ORDER BY table_name, column_name"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexdef"
RECORDED = (
    "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc",
    "SELECT migration_id, operation FROM _yoyo_log ORDER BY created_at_utc",
    "SELECT migration_id, checksum, state FROM _initmig_migration ORDER BY finished_at",
    "SELECT version FROM _yoyo_version ORDER BY version",
    # A dead initmig's row has a negative one, and is in the way of nobody but a stock yoyo.
    "SELECT pid FROM yoyo_lock WHERE pid > 0",
)
SLEEPING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'"""
EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


@pytest.fixture
def forking(processes: Processes) -> Iterator[Forking]:
    with closing(Forking(processes)) as forking:
        yield forking


@pytest.fixture
def proxy(server: DatabaseServer, make_proxy: MakeProxy) -> Proxy:
    return make_proxy(server)


def picture(database: Database) -> list[list[tuple[Any, ...]]]:
    """All that two runs must have in common: schema, data, and what is recorded how often."""
    queries = [COLUMNS, INDEXES, *RECORDED]
    if "users" in database.tables():
        queries.append("SELECT * FROM users ORDER BY id")
    with database.connect() as connection:
        return [connection.execute(query.encode()).fetchall() for query in queries]


class Trial:
    """One kind of run, done undisturbed and then disturbed at each of its messages."""

    def __init__(
        self,
        *argv: str,
        database: Database,
        proxy: Proxy,
        forking: Forking,
        folder: Path,
        before: Sequence[str] = (),
    ) -> None:
        self.argv = argv
        self.database = database
        self.proxy = proxy
        self.forking = forking
        self.folder = write(folder, FILES)
        self._before = before
        self.begin()
        assert self.run(proxy.url(database.name)) == (0, "")
        proxy.wait_until_quiet()
        self.messages = proxy.messages
        self.undisturbed = picture(database)

    def begin(self) -> None:
        """An empty database, or what the runs begin with."""
        self.proxy.before = lambda _: "forward"
        self.proxy.after = lambda _: None
        self.database.execute(EMPTY)
        if self._before:
            done = self.forking.run(*self._before, url=self.database.url, folder=self.folder)
            assert done.code == 0, done.err

    def run(self, url: str) -> tuple[int, str]:
        """The exit code, and what it says at level error."""
        argv = [*self.argv, "--log-level=error", "--wait-timeout=20s"]
        done = self.forking.run(*argv, url=url, folder=self.folder)
        return done.code, done.err

    @property
    def blows(self) -> list[int]:
        """The messages to strike at: all but the farewell, which nobody waits for.

        Where another kind of run begins in the same way, those of the beginning are left out.
        """
        assert self.messages[-1].type == "X"
        begin = 0 if self.argv == ("migrate",) else self._last("FROM _yoyo_migration y")
        return [message.number for message in self.messages[begin:-1]]

    @property
    def answered_blows(self) -> list[int]:
        """Those that the server answers by themselves, or as the last of several."""
        return [n for n in self.blows if self.messages[n - 1].type in ("Q", "S")]

    def _last(self, text: str) -> int:
        return max(n for n, m in enumerate(self.messages) if m.type == "Q" and text in m.query)


@pytest.fixture(params=["each", "all", "rollback"])
def trial(
    request: pytest.FixtureRequest,
    database: Database,
    proxy: Proxy,
    forking: Forking,
    folder: Path,
) -> Trial:
    runs: dict[str, tuple[list[str], list[str]]] = {
        "each": ([], ["migrate"]),
        "all": ([], ["migrate", "--transaction=all"]),
        "rollback": (["migrate"], ["rollback", "--all"]),
    }
    before, argv = runs[request.param]
    return Trial(
        *argv, database=database, proxy=proxy, forking=forking, folder=folder, before=before
    )


def test_rerun_converges_after_sigkill_before_the_server_has_seen_a_message(trial: Trial) -> None:
    for number in trial.blows:
        trial.begin()
        blow = Blow(trial.proxy, number)
        blow.kill_before(trial.forking)
        code, _ = trial.run(trial.proxy.url(trial.database.name))
        assert (blow.struck, code) == (True, -signal.SIGKILL), trial.messages[number - 1]
        assert trial.run(trial.database.url) == (0, ""), trial.messages[number - 1]
        assert picture(trial.database) == trial.undisturbed, trial.messages[number - 1]


def test_rerun_converges_after_sigkill_between_an_answer_and_its_hearing(trial: Trial) -> None:
    for number in trial.answered_blows:
        trial.begin()
        blow = Blow(trial.proxy, number)
        blow.kill_after(trial.forking)
        code, _ = trial.run(trial.proxy.url(trial.database.name))
        assert (blow.struck, code) == (True, -signal.SIGKILL), trial.messages[number - 1]
        assert trial.run(trial.database.url) == (0, ""), trial.messages[number - 1]
        assert picture(trial.database) == trial.undisturbed, trial.messages[number - 1]


def test_one_run_converges_by_itself_when_the_connection_is_cut_before_a_message(
    trial: Trial,
) -> None:
    # Every other one: each costs a pause before the next attempt to connect.
    for number in [n for n in trial.blows if n > 3][::2]:
        trial.begin()
        blow = Blow(trial.proxy, number)
        blow.cut_before()
        ended = trial.run(trial.proxy.url(trial.database.name))
        assert (blow.struck, ended) == (True, (0, "")), trial.messages[number - 1]
        assert picture(trial.database) == trial.undisturbed, trial.messages[number - 1]


def test_one_run_converges_by_itself_when_the_answer_to_a_commit_is_lost(
    database: Database, proxy: Proxy, forking: Forking, folder: Path
) -> None:
    trial = Trial("migrate", database=database, proxy=proxy, forking=forking, folder=folder)
    commits = [m.number for m in trial.messages if m.type == "Q" and m.query.endswith("COMMIT")]
    assert len(commits) == 1 + len(IDS)
    for number in commits:
        trial.begin()
        blow = Blow(proxy, number)
        blow.cut_after()
        ended = trial.run(proxy.url(database.name))
        assert (blow.struck, ended) == (True, (0, "")), trial.messages[number - 1]
        assert picture(database) == trial.undisturbed, trial.messages[number - 1]


def test_each_sql_migration_is_three_messages_with_its_file_whole(
    database: Database,
    proxy: Proxy,
    initmig: Initmig,
    folder: Path,
) -> None:
    first = (
        "\ufeff-- one; two\r\nCREATE TABLE a (t text DEFAULT $x$;\r\n$x$);\n/* ; */ SELECT 1;\n\n"
    )
    second = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END"
    write(folder, {"0001_a.sql": first, "0002_b.sql": second})
    assert initmig(url=proxy.url(database.name), folder=folder).code == 0
    proxy.wait_until_quiet()
    queries = proxy.queries
    for id, text in (("0001_a", first.removeprefix("\ufeff")), ("0002_b", second)):
        at = queries.index(text)
        begin, _, end = queries[at - 1 : at + 2]
        assert re.fullmatch(r"BEGIN;(SET LOCAL [a-z_]+ = [^;]+;?)+", begin)
        records = end.split(";")
        assert records[-1] == "COMMIT"
        assert [re.findall(r"INSERT INTO \W?(\w+)", record) for record in records[:-1]] == [
            ["_yoyo_log"],
            ["_yoyo_migration"],
            ["_initmig_migration"],
        ]
        assert end.count(f"'{id}'") == 3
    assert (
        database.value(
            "SELECT column_default FROM information_schema.columns WHERE table_name = 'a'"
        )
        == "';\r\n'::text"
    )


def test_rerun_at_once_after_sigkill_in_mid_statement_waits_for_the_server_and_converges(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    sleeping = "CREATE TABLE a (); SELECT pg_sleep(60)"
    write(folder, {"0001_a.sql": sleeping})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(SLEEPING) == 1)
    running.kill()
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0
    assert result.seconds < 10
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 1
    assert database.value(SLEEPING) == 0


def test_rerun_removes_the_lock_row_of_a_killed_run_and_says_so(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT pg_sleep(60)"})
    running = initmig.start(url=database.url, folder=folder)
    wait_until(lambda: database.value(SLEEPING) == 1)
    [(pid,)] = database.query("SELECT pid FROM yoyo_lock")
    assert pid < 0
    running.kill()
    write(folder, {"0001_a.sql": "SELECT 1"})
    result = initmig(url=database.url, folder=folder)
    assert f"removed the lock row of an initmig that is no more (pid {-pid})" in result.err
    assert database.query("SELECT pid FROM yoyo_lock") == []


@pytest.mark.parametrize("mode", ["each", "all"])
def test_server_that_crashes_in_mid_migration_gets_it_once_it_is_back(
    make_server: MakeServer, initmig: Initmig, folder: Path, mode: str
) -> None:
    server = make_server()
    database = create_database(server)
    write(
        folder,
        {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": "CREATE TABLE b (); SELECT pg_sleep(2)"},
    )
    running = initmig.start(f"--transaction={mode}", url=database.url, folder=folder)
    wait_until(lambda: database.value(SLEEPING) == 1)
    server.restart("immediate")
    result = running.result()
    assert result.code == 0, result.err
    assert {"a", "b"} < database.tables()
    assert database.query("SELECT migration_id FROM _yoyo_migration ORDER BY 1") == [
        ("0001_a",),
        ("0002_b",),
    ]
