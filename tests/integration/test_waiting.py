"""initmig waits for a database that is not ready, and fails if the database refuses."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from initmig.config.options import Secret
from initmig.core.errors import DatabaseUnavailable
from initmig.postgres import Settings, connect
from tests.support.command import JSON, WITHOUT_WAIT
from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.ports import closed_port, silent_port
from tests.support.processes import succeeded
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import DatabaseServer
    from tests.support.processes import Result
    from tests.support.servers import MakeServer, MakeStandby


@pytest.fixture
def folder(folder: Path) -> Path:
    """A folder with one migration."""
    return write(folder, {"0001_a.sql": "CREATE TABLE a ()"})


def with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}"))


def waits_for(result: Result) -> list[str]:
    """The logged reasons for waiting, in order."""
    kinds = ("waiting_for_database", "waiting_for_migrations")
    return [event["reason"] for event in result.events if event["event"] in kinds]


def refusal(url: str) -> str:
    """The server's error for a new client. Empty if the client can connect."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def failure(result: Result) -> str:
    [event] = [event for event in result.events if event["event"] == "failed"]
    return str(event["message"])


# --- no answer ---


def test_closed_port_exits_3_with_the_reason_after_the_timeout(
    initmig: Initmig, folder: Path
) -> None:
    url = f"postgresql://u:p@127.0.0.1:{closed_port()}/x"
    result = initmig("--wait-timeout", "1s", url=url, folder=folder, env=JSON)
    assert result.code == 3
    assert 1 <= result.seconds < 40
    [reason] = waits_for(result)
    assert "Connection refused" in reason
    assert re.fullmatch(rf"{re.escape(reason)} \(waited 1(\.\d)? s\)", failure(result))


def test_port_that_does_not_answer_exits_3_after_the_timeout(
    initmig: Initmig, folder: Path
) -> None:
    with silent_port() as port:
        url = f"postgresql://u:p@127.0.0.1:{port}/x"
        result = initmig("--wait-timeout", "2s", url=url, folder=folder, env=JSON)
    assert result.code == 3
    assert "timeout expired" in failure(result)
    assert 2 <= result.seconds < 40


def test_unresolvable_host_name_exits_3_after_the_timeout(initmig: Initmig, folder: Path) -> None:
    url = "postgresql://u:p@authentication-db.invalid/x"
    result = initmig("--wait-timeout", "1s", url=url, folder=folder, env=JSON)
    assert result.code == 3
    assert len(waits_for(result)) == 1
    assert "authentication-db.invalid" in failure(result)


def test_timeout_of_zero_makes_one_attempt(initmig: Initmig, folder: Path) -> None:
    url = f"postgresql://u:p@127.0.0.1:{closed_port()}/x"
    result = initmig(url=url, folder=folder, env=JSON | WITHOUT_WAIT)
    assert result.code == 3
    assert [event["event"] for event in result.events] == ["failed"]


def test_refusal_by_the_second_host_is_reported(
    initmig: Initmig, server: DatabaseServer, folder: Path
) -> None:
    address = urlsplit(server.url()).netloc.rpartition("@")[2]
    url = f"postgresql://u:p@127.0.0.1:{closed_port()},{address}/x"
    result = initmig(url=url, folder=folder, env=JSON | WITHOUT_WAIT)
    assert result.code == 4
    assert "password authentication failed" in failure(result)


def test_first_host_that_answers_is_used(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    parts = urlsplit(database.url)
    account, _, address = parts.netloc.rpartition("@")
    netloc = f"{account}@127.0.0.1:{closed_port()},{address}"
    result = initmig(
        url=urlunsplit(parts._replace(netloc=netloc)), folder=folder, env=JSON | WITHOUT_WAIT
    )
    succeeded(result)
    assert "a" in database.tables()


# --- not ready ---


def test_initmig_waits_for_a_server_that_starts_late(
    initmig: Initmig, make_server: MakeServer, folder: Path
) -> None:
    server = make_server()
    server.stop()
    running = initmig.start(url=server.url(), folder=folder)
    running.wait_for_line("Connection refused")
    server.start()
    result = succeeded(running.result())
    assert "connected to the database after" in result.err
    assert "applied 0001_a" in result.err
    assert result.err.count("Connection refused") == 1


def test_initmig_waits_for_a_server_that_restarts(
    initmig: Initmig, make_server: MakeServer, folder: Path
) -> None:
    server = make_server()
    with ThreadPoolExecutor() as threads:
        with psycopg.connect(server.url()) as last_client:
            stop = threads.submit(server.stop, "smart")
            wait_until(lambda: "shutting down" in refusal(server.url()))
            running = initmig.start(url=server.url(), folder=folder)
            running.wait_for_line("the database system is shutting down")
            assert last_client.execute("SELECT 1").fetchone() == (1,)
        stop.result()
    running.wait_for_line("Connection refused")
    server.start()
    result = succeeded(running.result())
    assert result.err.count("is shutting down") == 1


def test_initmig_waits_for_a_free_connection_of_the_server(
    initmig: Initmig, make_server: MakeServer, folder: Path
) -> None:
    server = make_server(max_connections=3, superuser_reserved_connections=0)
    clients = [psycopg.connect(server.url()) for _ in range(3)]
    try:
        running = initmig.start(url=server.url(), folder=folder)
        running.wait_for_line("too many clients already")
    finally:
        for client in clients:
            client.close()
    result = succeeded(running.result())
    assert result.err.count("too many clients") == 1


def test_initmig_waits_for_a_free_connection_of_the_role(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    url = database.login_role(
        "GRANT CREATE, USAGE ON SCHEMA public TO {role}", options="CONNECTION LIMIT 1"
    )
    with psycopg.connect(url):
        running = initmig.start(url=url, folder=folder)
        running.wait_for_line("too many connections for role")
    succeeded(running.result())


def test_initmig_waits_for_the_promotion_of_a_standby(
    initmig: Initmig, make_server: MakeServer, make_standby: MakeStandby, folder: Path
) -> None:
    standby = make_standby(make_server())
    running = initmig.start(url=standby.url(), folder=folder)
    running.wait_for_line("the server is a standby")
    database = Database(standby.url())
    connects = "SELECT count(*) FROM pg_stat_database WHERE sessions > 3 AND datname = 'postgres'"
    wait_until(lambda: database.value(connects) == 1)
    standby.promote()
    result = succeeded(running.result())
    assert result.err.count("is a standby") == 1
    assert "a" in database.tables()


def test_standby_exits_3_with_the_reason_after_the_timeout(
    initmig: Initmig, make_server: MakeServer, make_standby: MakeStandby, folder: Path
) -> None:
    standby = make_standby(make_server())
    result = initmig("--wait-timeout", "1s", url=standby.url(), folder=folder, env=JSON)
    assert result.code == 3
    [reason] = waits_for(result)
    assert reason.startswith("the server is a standby")
    assert failure(result).startswith(f"{reason} (waited")


def test_initmig_waits_for_a_read_only_database(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    option = f"ALTER DATABASE {database.name} SET default_transaction_read_only"
    database.execute(f"{option} = on")
    running = initmig.start(url=database.url, folder=folder)
    running.wait_for_line("the server is read-only")
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"{option} = off".encode())
    result = succeeded(running.result())
    assert result.err.count("read-only") == 1


# --- refused ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres:wrong@{address}/postgres", 'password authentication failed for user "postgres"'),
        ("nobody:wrong@{address}/postgres", 'password authentication failed for user "nobody"'),
        ("{account}@{address}/nowhere", 'database "nowhere" does not exist'),
    ],
    ids=["password", "user", "database"],
)
def test_refusal_exits_4_and_logs_its_reason_once(
    initmig: Initmig, server: DatabaseServer, folder: Path, url: str, expected: str
) -> None:
    account, _, address = urlsplit(server.url()).netloc.rpartition("@")
    url = f"postgresql://{url.format(account=account, address=address)}"
    result = initmig("--wait-timeout", "1s", url=url, folder=folder, env=JSON)
    assert result.code == 4
    [reason] = waits_for(result)
    assert expected in reason
    assert failure(result) == reason
    assert "wrong" not in result.err
    assert 1 <= result.seconds < 40


def test_initmig_waits_for_a_database_that_is_created_late(
    initmig: Initmig, server: DatabaseServer, folder: Path
) -> None:
    name = f"late_{time.monotonic_ns()}"
    running = initmig.start(url=server.url(name), folder=folder)
    running.wait_for_line(f'database "{name}" does not exist')
    database = create_database(server, name=name)
    try:
        succeeded(running.result())
    finally:
        database.drop(server)


def test_role_without_login_exits_4(initmig: Initmig, database: Database, folder: Path) -> None:
    url = database.login_role("ALTER ROLE {role} NOLOGIN")
    result = initmig(url=url, folder=folder, env=JSON | WITHOUT_WAIT)
    assert result.code == 4
    assert "is not permitted to log in" in failure(result)


# --- secrets and settings ---


def test_password_file_is_read_again_at_each_attempt(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    parts = urlsplit(database.url)
    user, password = parts.username, parts.password
    url = urlunsplit(parts._replace(netloc=f"{user}@{parts.hostname}:{parts.port}"))
    secret = tmp_path / "password"
    secret.write_text("yesterday's\n")
    running = initmig.start(url=url, folder=folder, env={"PGPASSWORD_FILE": str(secret)})
    running.wait_for_line("password authentication failed")
    secret.write_text(f"{password}\n")
    result = succeeded(running.result())
    assert "yesterday" not in result.err


def test_url_file_is_read_again_at_each_attempt(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    secret.write_text(with_port(database.url, closed_port()))
    running = initmig.start(folder=folder, env={"DATABASE_URL_FILE": str(secret)})
    running.wait_for_line("Connection refused")
    secret.write_text(f"{database.url}\n")
    succeeded(running.result())


@pytest.mark.parametrize(
    "url",
    [
        "host=127.0.0.1 prot=5432",
        "host=127.0.0.1 port=fivethousand",
        "host=127.0.0.1 password=se cret",
        "postgresql://u:secret@127.0.0.1:5432/x?sslmode=sometimes",
        "postgresql://u:secret@127.0.0.1:5432/x?no_such_option=1",
    ],
)
def test_malformed_connection_string_exits_2_without_waiting(
    initmig: Initmig, folder: Path, url: str
) -> None:
    result = initmig(url=url, folder=folder, env=JSON)
    assert result.code == 2
    assert waits_for(result) == []
    assert "cret" not in result.err
    assert result.seconds < 40


# --- `initmig wait` ---


def test_wait_for_database_needs_no_migration(initmig: Initmig, database: Database) -> None:
    assert succeeded(initmig("wait", "--for", "database", url=database.url)).code == 0
    assert database.tables() == set()


def test_wait_exits_once_another_process_has_applied_everything(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    running = initmig.start("wait", url=database.url, folder=folder)
    running.wait_for_line("1 pending: 0001_a")
    succeeded(initmig("migrate", url=database.url, folder=folder))
    result = succeeded(running.result())
    assert result.err.count("pending") == 1


def test_wait_names_the_pending_migrations_after_the_timeout(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig("wait", "--wait-timeout", "1s", url=database.url, folder=folder, env=JSON)
    assert result.code == 7
    assert waits_for(result) == ["1 pending: 0001_a"]
    assert failure(result) == "1 pending: 0001_a"
    assert 1 <= result.seconds < 40


def test_answer_after_the_timeout_counts_as_unavailable(
    database: Database,
) -> None:
    session = connect(Settings(Secret(database.url)))
    session.answer_timeout = 0.3
    assert session.query("SELECT 1") == [(1,)]
    with pytest.raises(DatabaseUnavailable, match=r"no answer in 0\.3 s"):
        session.query("SELECT pg_sleep(60)")
    assert not session.usable
