"""A connection behaves the same over initmig's own handle of libpq and over psycopg's."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import threading
import time
from contextlib import closing
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from initmig.config.options import Secret
from initmig.core.errors import DatabaseUnavailable
from initmig.core.signals import Stopped, stoppable
from initmig.postgres import Settings, StatementFailed
from initmig.postgres.connecting import open_connection
from initmig.postgres.connection import LibpqConnection
from initmig.postgres.dbapi import PsycopgConnection
from initmig.postgres.libpq import Library
from tests.support.databases import ASLEEP
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initmig.postgres.connection import Connection
    from tests.support.databases import Database
    from tests.support.processes import Processes

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

NO_LIMIT = float("inf")
SLEEPS = b"SELECT 1; SELECT pg_sleep(60)"


def by_libpq(url: str) -> Connection:
    return open_connection(Settings(Secret(url)), 10)


def by_psycopg(url: str) -> Connection:
    return open_connection(Settings(Secret(url)), 10, python=True)


def by_libpq_of_the_system(url: str) -> Connection:
    """Debian's libpq may be older than 17, and lack chunked mode and nonblocking cancel."""
    path = find_library("pq")
    if path is None:
        pytest.skip("needs the system's libpq (Debian: libpq5)")
    connection = LibpqConnection(Library(path), {"dbname": url})
    connection.finish_connecting(10)
    return connection


@pytest.fixture(params=[by_libpq, by_psycopg, by_libpq_of_the_system])
def connection(database: Database, request: pytest.FixtureRequest) -> Iterator[Connection]:
    opens: Callable[[str], Connection] = request.param
    with closing(opens(database.url)) as connection:
        yield connection


def rows(connection: Connection, sql: str, timeout: float = 60) -> list[tuple[object, ...]]:
    return connection.exchange(sql.encode(), timeout, iter(()))


# --- interrupts ---


@pytest.fixture
def interrupts(database: Database) -> Iterator[Callable[[signal.Signals], None]]:
    """A function that sends this process a signal as soon as a statement sleeps."""
    threads: list[threading.Thread] = []

    def send(number: signal.Signals) -> None:
        wait_until(lambda: database.value(ASLEEP) == 1)
        os.kill(os.getpid(), number)

    def start(number: signal.Signals) -> None:
        threads.append(threading.Thread(target=send, args=(number,)))
        threads[-1].start()

    yield start
    for each in threads:
        each.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("discards", [False, True])
def test_signal_cancels_the_statement_and_the_session_remains_usable(
    connection: Connection,
    database: Database,
    interrupts: Callable[[signal.Signals], None],
    number: signal.Signals,
    discards: bool,
) -> None:
    rows(connection, "BEGIN; CREATE TABLE half_done ()")
    interrupts(number)
    with stoppable(), pytest.raises(Stopped) as stopped:
        connection.exchange(SLEEPS, NO_LIMIT, iter(()), discards=discards)
    assert stopped.value.exit_code == 128 + number
    assert database.value(ASLEEP) == 0
    assert (connection.closed, connection.in_transaction) == (False, True)
    rows(connection, "ROLLBACK")
    assert rows(connection, "SELECT to_regclass('half_done') IS NULL") == [(True,)]


def test_interrupt_during_a_step_cancels_its_statement(
    database: Database, interrupts: Callable[[signal.Signals], None]
) -> None:
    with closing(by_psycopg(database.url)) as connection:
        assert isinstance(connection, PsycopgConnection)
        interrupts(signal.SIGTERM)
        with stoppable(), pytest.raises(Stopped):
            connection.sample("SELECT pg_sleep(60)")
        assert database.value(ASLEEP) == 0
        assert rows(connection, "SELECT 1") == [(1,)]


def test_interrupt_while_data_is_sent_ends_the_copy(connection: Connection) -> None:
    def data() -> Iterator[bytes]:
        yield b"1\n"
        raise KeyboardInterrupt

    rows(connection, "CREATE TABLE t (a int)")
    with pytest.raises(KeyboardInterrupt):
        connection.exchange(b"COPY t FROM STDIN", NO_LIMIT, iter([data()]))
    assert rows(connection, "SELECT count(*) FROM t") == [(0,)]


def test_timeout_cancels_the_statement_and_closes_the_connection(
    connection: Connection, database: Database
) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"no answer in 0\.5 s") as lost:
        connection.exchange(SLEEPS, 0.5, iter(()))
    assert connection.closed
    wait_until(lambda: database.value(ASLEEP) == 0)
    with pytest.raises(DatabaseUnavailable) as again:
        rows(connection, "ROLLBACK")
    assert again.value is lost.value


# --- notices ---

NOTICE = "DO $$ BEGIN RAISE {level} '{text}'; END $$;"


def test_notices_are_delivered_in_order(connection: Connection) -> None:
    received: list[tuple[str, str]] = []
    connection.set_notice_handler(lambda severity, text: received.append((severity, text)))
    sent = [("NOTICE", "first"), ("WARNING", "second"), ("NOTICE", "third")]
    sql = "".join(NOTICE.format(level=level, text=text) for level, text in sent)
    assert rows(connection, f"{sql} SELECT 1") == [(1,)]
    assert received == sent


def test_notices_before_a_failure_are_delivered(connection: Connection) -> None:
    received: list[str] = []
    connection.set_notice_handler(lambda _, text: received.append(text))
    with pytest.raises(StatementFailed):
        rows(connection, f"{NOTICE.format(level='NOTICE', text='before')} SELECT 1/0")
    assert received == ["before"]


def test_notice_is_delivered_while_the_server_is_silent_afterwards(connection: Connection) -> None:
    received: list[float] = []
    silences: list[float] = []
    connection.set_notice_handler(lambda *_: received.append(time.monotonic()))
    connection.silence_seconds = 0.2
    connection.on_silence = lambda: silences.append(time.monotonic())
    sql = f"SELECT pg_sleep(0.5); {NOTICE.format(level='NOTICE', text='now')} SELECT pg_sleep(1)"
    rows(connection, sql)
    assert [len(received), silences[0] < received[0] < silences[-1]] == [1, True]


# --- answers ---


def test_values_have_the_same_types(connection: Connection) -> None:
    sql = """SELECT true, 1::int, 2::bigint, 3::oid, 0.5::float8, ARRAY[4, 5], 'text', NULL,
        '', date '2024-02-29', 1.50::numeric, '{"a": 1}'::jsonb"""
    values = (True, 1, 2, 3, 0.5, [4, 5], "text", None, "", "2024-02-29", "1.50", '{"a": 1}')
    assert rows(connection, sql) == [values]


def test_discarded_rows_are_not_returned(connection: Connection) -> None:
    sql = b"SELECT g FROM generate_series(1, 1000) g"
    assert connection.exchange(sql, 60, iter(()), discards=True) == []
    assert len(rows(connection, sql.decode())) == 1000


def test_error_has_the_fields_of_the_server(connection: Connection) -> None:
    rows(connection, "CREATE TABLE t (a int CONSTRAINT positive CHECK (a > 0))")
    with pytest.raises(StatementFailed) as failed:
        rows(connection, "SELECT 1; INSERT INTO t VALUES (-1)")
    server = failed.value.server
    assert (server.sqlstate, server.schema, server.table) == ("23514", "public", "t")
    assert (server.constraint, failed.value.completed) == ("positive", 1)
    with pytest.raises(StatementFailed) as failed:
        rows(connection, "SELECT 1; SELECT missing")
    assert failed.value.position == 18


def test_notifications_are_kept_for_a_step(database: Database) -> None:
    with closing(by_psycopg(database.url)) as connection:
        rows(connection, "LISTEN news; NOTIFY news, 'first'")
        rows(connection, "NOTIFY news, 'second'")
        received = connection.dbapi.notifies(timeout=5, stop_after=2)
        assert [each.payload for each in received] == ["first", "second"]


def test_sample_has_the_values_that_a_cursor_returns(database: Database) -> None:
    sql = """SELECT 1 AS a, 1.50 AS b, date '2024-02-29' AS c, NULL AS d, '{"a": [1]}'::jsonb AS e,
        ARRAY['x', NULL] AS f, '\\x00ff'::bytea AS g, '' AS h"""
    with closing(by_psycopg(database.url)) as connection:
        assert isinstance(connection, PsycopgConnection)
        sample = connection.sample(f"{sql}; SELECT 'last'")
        cursor = connection.dbapi.execute(sql)
        assert sample.columns == tuple(column.name for column in cursor.description)
        assert (sample.rows, sample.total) == (tuple(cursor.fetchall()), 1)
        assert sample.rows[0][2] == dt.date(2024, 2, 29)


@pytest.mark.parametrize("sql", ["SELECT missing", "SELECT 1/0", "DO $$ BEGIN RAISE 'x'; END $$"])
def test_sample_raises_the_error_that_a_cursor_raises(database: Database, sql: str) -> None:
    with closing(by_psycopg(database.url)) as connection:
        assert isinstance(connection, PsycopgConnection)
        with pytest.raises(connection.dbapi.Error) as sampled:
            connection.sample(sql)
        with pytest.raises(connection.dbapi.Error) as executed:
            connection.dbapi.execute(sql)
    assert (type(sampled.value), str(sampled.value)) == (type(executed.value), str(executed.value))
    for field in ("sqlstate", "message_primary", "context", "source_function"):
        assert getattr(sampled.value.diag, field) == getattr(executed.value.diag, field)


@pytest.mark.parametrize("deallocates", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_statement_is_prepared_again_after_sql_has_deallocated_it(
    database: Database, deallocates: str
) -> None:
    with closing(by_psycopg(database.url)) as connection:
        assert isinstance(connection, PsycopgConnection)
        for _ in range(2):
            with connection.lent("0001_a", None):
                connection.dbapi.prepare_threshold = 0
                prepared = connection.dbapi.execute("SELECT %s::int", [1])
                assert prepared.fetchall() == [(1,)]
            rows(connection, deallocates)
        with connection.lent("0001_a", None):
            connection.dbapi.execute("SELECT %s::int", [1])
            connection.sample(deallocates)
            assert connection.dbapi.execute("SELECT %s::int", [1]).fetchall() == [(1,)]


# --- psycopg without its binary package ---

APPLY = """
import os, sys
sys.path[:] = {path}
from initmig.cli.main import main
code = main(["migrate"], os.environ)
assert "psycopg_binary" not in sys.modules
sys.exit(code)
"""


@pytest.mark.skipif(not find_library("pq"), reason="needs the system's libpq (Debian: libpq5)")
def test_migrations_are_applied_without_the_binary_package_of_psycopg(
    database: Database, processes: Processes, folder: Path, tmp_path: Path
) -> None:
    packages, installed = tmp_path / "packages", Path(psycopg.__file__).parents[1]
    packages.mkdir()
    for each in installed.iterdir():
        if not each.name.startswith("psycopg_binary"):
            (packages / each.name).symlink_to(each)
    path = [str(packages) if each == str(installed) else each for each in sys.path]
    step = "from yoyo import step\nstep('INSERT INTO a VALUES (2)')\n"
    write(folder, {"0001_a.sql": "CREATE TABLE a (a int);\nCOPY a FROM stdin;\n1\n\\.\n"})
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    command = [sys.executable, "-I", "-S", "-c", APPLY.format(path=path)]
    for more in ({}, {"0002_b.py": step}):
        write(folder, more)
        result = processes.start(command, env=env).result()
        assert result.code == 0, result.err
    assert database.query("SELECT a FROM a ORDER BY a") == [(1,), (2,)]
