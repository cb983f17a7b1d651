"""A migration that fails or loses its connection is retried or not, depending on the cause."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from initmig.core.causes import DISCONNECT_CAUSES, STATEMENT_CAUSES
from tests.support.databases import WAIT_FOR_GATE, create_database
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.servers import MakeServer

pytestmark = pytest.mark.each_version

TRIES = "SELECT last_value FROM tries"
"""How often a migration has started. A sequence is not rolled back."""

FIRST_TIME = "IF nextval('tries') = 1 THEN {} END IF;"
RAISED = "RAISE EXCEPTION 'spoiled' USING ERRCODE = '{}';"


@pytest.fixture
def database(database: Database) -> Database:
    """A database with a sequence that counts the attempts."""
    database.execute("CREATE SEQUENCE tries")
    return database


def once(statement: str) -> dict[str, str]:
    """A migration that runs the PL/pgSQL *statement* only on its first attempt."""
    return {"0001_a.sql": f"DO $$ BEGIN {FIRST_TIME.format(statement)} END $$;"}


EXITS = {"contention": 0, "lock lost": 0, "read-only": 1, "canceled": 1}
CONNECTION_SURVIVES = {sqlstate: EXITS[cause.kind] for sqlstate, cause in STATEMENT_CAUSES.items()}
NOT_RETRIED = {
    "08001": 1,
    "22012": 1,
    "53100": 1,
    "57P01": 1,
    **dict.fromkeys(DISCONNECT_CAUSES, 1),
}


@pytest.mark.any_version
@pytest.mark.parametrize(("sqlstate", "code"), (CONNECTION_SURVIVES | NOT_RETRIED).items())
def test_failure_on_a_live_connection_is_retried_only_if_other_sessions_caused_it(
    database: Database, initmig: Initmig, folder: Path, sqlstate: str, code: int
) -> None:
    write(folder, once(RAISED.format(sqlstate)))
    result = initmig(url=database.url, folder=folder)
    assert result.code == code, result.err
    assert database.value(TRIES) == (1 if code else 2)
    if code:
        assert f"0001_a failed: spoiled ({sqlstate}) [migration-failed]" in result.err


@pytest.mark.any_version
def test_migration_is_retried_if_its_session_is_terminated(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, once("PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(9);"))
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert database.value(TRIES) == 2


def test_migration_is_retried_after_a_server_crash(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    database = create_database(make_server())
    database.execute("CREATE TABLE gate ()")
    running = initmig.start(url=database.url, folder=write(folder, {"1.sql": WAIT_FOR_GATE}))
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: bool(database.value(sleeping)))
    with database.connect() as other:
        os.kill(other.info.backend_pid, signal.SIGKILL)
    running.wait_for_line("another server process")
    wait_until(lambda: recovered(database))
    database.execute("DROP TABLE gate")
    assert running.result().code == 0


def recovered(database: Database) -> bool:
    try:
        return bool(database.value("SELECT true"))
    except Exception:  # noqa: BLE001 - any error of a server that is still starting
        return False


# --- timeouts ---

IN_PYTHON = """
import time
from yoyo import step
__transactional__ = {transactional}
def work(connection):
    cursor = connection.cursor()
    cursor.execute("SELECT nextval('tries')")
    {first}
    time.sleep(0.25)
    cursor.execute("CREATE TABLE IF NOT EXISTS t ()")
step(work)
"""
SLEEPS = {"0002_b.sql": "SELECT pg_sleep(0.25);"}

ROLE_SETTINGS = {
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "100ms",
    "transaction_timeout": "100ms",
    "statement_timeout": "100ms",
    "lock_timeout": "100ms",
    "tcp_user_timeout": "1ms",
    "client_connection_check_interval": "1ms",
}


def has_setting(database: Database, name: str) -> bool:
    """Whether the server has the setting. Only one of them is newer than PostgreSQL 14."""
    exists = bool(database.query("SELECT FROM pg_settings WHERE name = %s", [name]))
    major = database.value("SELECT current_setting('server_version_num')::int / 10000")
    assert exists == (name != "transaction_timeout" or major >= 17)
    return exists


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("name", ROLE_SETTINGS)
def test_timeout_set_for_the_database_does_not_stop_a_migration(
    database: Database, initmig: Initmig, folder: Path, name: str, transactional: bool
) -> None:
    if not has_setting(database, name):
        return  # the server lacks this timeout
    database.execute(f"ALTER DATABASE {database.name} SET {name} = '{ROLE_SETTINGS[name]}'")
    write(folder, {"0001_a.py": IN_PYTHON.format(transactional=transactional, first="")} | SLEEPS)
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert database.value(TRIES) == 1
    assert "retr" not in result.err


OWN_TIMEOUTS = {
    "idle_in_transaction_session_timeout": (True, "cursor.execute('SET {} = 50')"),
    "idle_session_timeout": (False, "cursor.execute('SET {} = 50')"),
    "transaction_timeout": (True, "cursor.execute('SET {} = 50; SELECT pg_sleep(9)')"),
}


@pytest.mark.parametrize("sqlstate", DISCONNECT_CAUSES)
def test_timeout_set_by_the_migration_itself_fails_it_without_a_retry_and_is_named(
    database: Database, initmig: Initmig, folder: Path, sqlstate: str
) -> None:
    name = DISCONNECT_CAUSES[sqlstate].name
    if not has_setting(database, name):
        return
    transactional, first = OWN_TIMEOUTS[name]
    code = IN_PYTHON.format(transactional=transactional, first=first.format(name))
    write(folder, {"0001_a.py": code})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 1, result.err
    assert database.value(TRIES) == 1
    assert "0001_a.py:" in result.err
    assert f"({sqlstate}) [ended-by-timeout]" in result.err
    assert f"next: do not set {name} in the migration" in result.err


SOURCES = [
    ("ALTER ROLE {role} SET {name} = 50", "ALTER ROLE {role}"),
    ("ALTER DATABASE {db} SET {name} = 50", "ALTER DATABASE {db}"),
    (
        "ALTER ROLE {role} IN DATABASE {db} SET {name} = 50",
        "ALTER ROLE {role} IN DATABASE {db}",
    ),
]


@pytest.mark.any_version
@pytest.mark.parametrize(("statement", "source"), SOURCES, ids=["role", "database", "both"])
def test_timeout_restored_by_reset_is_named_with_its_source(
    database: Database, initmig: Initmig, folder: Path, statement: str, source: str
) -> None:
    url = database.login_role(
        "GRANT ALL ON SCHEMA public TO {role}", "GRANT ALL ON SEQUENCE tries TO {role}"
    )
    role = url.partition("//")[2].partition(":")[0]
    name = "idle_in_transaction_session_timeout"
    database.execute(statement.format(role=role, db=database.name, name=name))
    reset = f"cursor.execute('RESET {name}')"
    write(folder, {"0001_a.py": IN_PYTHON.format(transactional=True, first=reset)})
    result = initmig(url=url, folder=folder)
    assert result.code == 1, result.err
    assert database.value(TRIES) == 1
    assert f"it is 50ms, set by {source.format(role=role, db=database.name)}\n" in result.err


@pytest.mark.any_version
@pytest.mark.parametrize("command", [["baseline", "--to=0001_a"], ["rehearse"], ["migrate"]])
def test_idle_timeout_does_not_expire_while_files_are_loaded(
    database: Database, initmig: Initmig, folder: Path, command: list[str]
) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET idle_session_timeout = '500ms'")
    slow = "import time\nfrom yoyo import step\ntime.sleep(2)\nstep('CREATE TABLE a ()')\n"
    result = initmig(*command, url=database.url, folder=write(folder, {"0001_a.py": slow}))
    assert result.code == 0, result.err
