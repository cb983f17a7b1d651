"""Processes that a Python migration starts keep nothing of initmig, and do none of its work."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Running

pytestmark = [pytest.mark.any_version, pytest.mark.installed]

STARTS = {
    "fork": "if not os.fork():\n    sleep()",
    "fork twice": "if not os.fork():\n    os.fork()\n    sleep()",
    "a daemon": "if not os.fork():\n    os.setsid()\n    os.fork()\n    sleep()",
    "multiprocessing": "multiprocessing.get_context('fork').Process(target=sleep).start()",
    "a pool": (
        "pool = multiprocessing.get_context('fork').Pool(2)\n"
        "pool.apply_async(time.sleep, [600])\n"
        "note(*(each.pid for each in pool._pool))"
    ),
    "an executor": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "context = multiprocessing.get_context('fork')\n"
        "executor = ProcessPoolExecutor(1, mp_context=context)\n"
        "executor.submit(time.sleep, 600)\n"
        "note(*executor._processes)"
    ),
    "a program": "subprocess.Popen(sleeping)",
    "a program that inherits": "subprocess.Popen(sleeping, close_fds=False)",
    "a program after a fork": "if not os.fork():\n    os.execvp(sleeping[0], sleeping)",
    "a program by preexec_fn": "subprocess.Popen(sleeping, close_fds=False, preexec_fn=os.getpid)",
    "a program that is spawned": "os.posix_spawnp(sleeping[0], sleeping, os.environ)",
}
"""The ways to start a process that outlives its parent."""

STEP = """
import multiprocessing, os, subprocess, sys, time
from yoyo import step
{header}
sleeping = [sys.executable, "-c",
    "import os, time; open('children', 'a').write(f'{{os.getpid()}}\\\\n'); time.sleep(600)"]
def note(*pids):
    with open("children", "a") as file:
        file.writelines(f"{{pid}}\\n" for pid in pids)
def sleep():
    note(os.getpid())
    time.sleep(600)
def start():
{start}
{at_import}
def work(connection):
    connection.execute("CREATE TABLE a ()")
    if "FIRST" in os.environ:
        {in_step}
        while not os.path.exists("children"):
            time.sleep(0.01)
        print("started", flush=True)
        time.sleep(600)
step(work)
"""


def migration(start: str, *, at_import: bool = False, header: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in STARTS[start].splitlines())
    return STEP.format(
        start=lines,
        header=header,
        at_import="if 'FIRST' in os.environ:\n    start()" if at_import else "",
        in_step="pass" if at_import else "start()",
    )


@pytest.fixture
def place(folder: Path) -> Iterator[Path]:
    """The current folder of the command; remaining children are killed at the end."""
    yield folder.parent
    for pid in children(folder.parent):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children(place: Path) -> list[int]:
    file = place / "children"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def other_sessions(database: Database) -> int:
    """The number of sessions of the database, without the one that queries it."""
    backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    count: int = database.value(f"{backends} AND pid <> pg_backend_pid()")
    return count


def kill_once_it_has_children(running: Running, place: Path) -> None:
    """SIGKILL *running* once its migration has children, and assert that they are alive."""
    running.wait_for_line("started")
    running.kill()
    assert any(is_alive(pid) for pid in children(place))


@pytest.mark.parametrize("start", STARTS)
def test_no_child_keeps_the_lock_of_a_killed_run(
    start: str, initmig: Initmig, database: Database, folder: Path, place: Path
) -> None:
    write(folder, {"0001_a.py": migration(start)})
    # with a timeout so short, the session that finds the blockers of the migration stays open
    argv = ("migrate", "--lock-timeout=100ms")
    env = {"FIRST": "1"}
    running = initmig.start(*argv, url=database.url, folder=folder, cwd=place, env=env)
    kill_once_it_has_children(running, place)
    wait_until(lambda: other_sessions(database) == 0)
    result = initmig("migrate", "--queue-timeout=20s", url=database.url, folder=folder, cwd=place)
    assert result.code == 0, result.err
    assert any(is_alive(pid) for pid in children(place))
    assert "a" in database.tables()


@pytest.mark.parametrize(
    "case",
    [(True, ""), (False, "__transactional__ = False")],
    ids=["at import", "not transactional"],
)
def test_child_started_at_import_or_without_a_transaction_does_not_keep_the_lock(
    case: tuple[bool, str], initmig: Initmig, database: Database, folder: Path, place: Path
) -> None:
    code = migration("fork", at_import=case[0], header=case[1])
    write(folder, {"0001_a.py": code.replace("CREATE TABLE a", "CREATE TABLE IF NOT EXISTS a")})
    env = {"FIRST": "1"}
    running = initmig.start(url=database.url, folder=folder, cwd=place, env=env)
    kill_once_it_has_children(running, place)
    wait_until(lambda: other_sessions(database) == 0)
    result = initmig("migrate", "--queue-timeout=20s", url=database.url, folder=folder, cwd=place)
    assert result.code == 0, result.err
    assert "a" in database.tables()


WAYS = {
    "ends": ("os._exit(3)", 3),
    "exits": ("sys.exit(3)", 3),
    "exits with words": ("sys.exit('words')", 1),
    "exits without": ("sys.exit()", 0),
    "returns": ("return", 0),
    "falls through": ("pass", 0),
    "fails": ("raise ValueError('of the child')", 1),
    "is interrupted": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", 1),
    "is terminated": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -15),
    "uses the connection": ("connection.execute('SELECT 1')", 1),
    "closes the connection": ("connection.close()", 0),
    "opens another connection": (
        "psycopg.connect(os.environ['DATABASE_URL']).execute('SELECT 1')",
        0,
    ),
    "has little room": ("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); os.fork()", 0),
}
"""How a child ends, and the exit code that its parent must get."""


@pytest.mark.parametrize("way", WAYS)
def test_child_exits_when_it_leaves_its_step(
    way: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    code = f"""
import os, psycopg, resource, signal, sys, time
from yoyo import step
def work(connection):
    connection.execute("CREATE TABLE ends (code integer)")
    child = os.fork()
    if not child:
        {WAYS[way][0]}
    else:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.execute("INSERT INTO ends VALUES (%s)", [code])
step(work)
step("CREATE TABLE behind ()")
"""
    env = {"INITMIG_LOG_FORMAT": "json", "INITMIG_WAIT_TIMEOUT": "0"}
    outcome = folder.with_name("outcome")
    result = initmig(
        "migrate",
        f"--termination-log={outcome}",
        url=database.url,
        folder=write(folder, {"0001_a.py": code}),
        env=env,
    )
    assert result.code == 0, result.err
    assert database.query("SELECT * FROM ends") == [(WAYS[way][1],)]
    # a run may wait until the server has ended the session used before it read the Python file
    ignored = ("printed", "waiting_in_queue")
    events = [event["event"] for event in result.events if event["event"] not in ignored]
    assert events == ["migration_applied", "finished"]
    assert outcome.read_text().startswith("applied 1 migration")
    if way == "fails":
        assert "ValueError: of the child" in result.err


def test_child_can_be_terminated_by_multiprocessing(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    code = """
import multiprocessing, time
from yoyo import step
def work(connection):
    for _ in range(30):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        assert child.exitcode == -15, child.exitcode
step(work)
"""
    result = initmig(url=database.url, folder=write(folder, {"0001_a.py": code}))
    assert result.code == 0, result.err


def test_no_child_keeps_the_lock_of_a_killed_run_behind_a_pooler(
    initmig: Initmig, server: DatabaseServer, database: Database, folder: Path, place: Path
) -> None:
    write(folder, {"0001_a.py": migration("fork")})
    # two connections; one only holds the lock
    open_transactions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    )
    with running_pgbouncer(server) as pooler:
        url = pooler.url(database.name)
        running = initmig.start(url=url, folder=folder, cwd=place, env={"FIRST": "1"})
        running.wait_for_line("started")
        assert database.value(open_transactions) == 2
        kill_once_it_has_children(running, place)
        wait_until(lambda: database.value(open_transactions) == 0)
        result = initmig("migrate", "--queue-timeout=20s", url=url, folder=folder, cwd=place)
        assert result.code == 0, result.err


def test_child_forked_by_a_thread_after_its_step_does_not_keep_the_lock(
    initmig: Initmig, database: Database, folder: Path, place: Path
) -> None:
    code = """
import os, threading, time
from yoyo import step
def fork():
    while not os.path.exists("go"):
        time.sleep(0.01)
    if not os.fork():
        with open("children", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
def work(connection):
    threading.Thread(target=fork, daemon=True).start()
if "FIRST" in os.environ:
    step(work)
step("SELECT 1")
"""
    later = "DO $$BEGIN RAISE NOTICE 'waiting'; PERFORM pg_sleep(600); END$$"
    write(folder, {"0001_a.py": code, "0002_b.sql": later})
    env = {"FIRST": "1"}
    running = initmig.start(url=database.url, folder=folder, cwd=place, env=env)
    running.wait_for_line("waiting")
    (place / "go").touch()
    wait_until(lambda: bool(children(place)))
    running.kill()
    wait_until(lambda: other_sessions(database) == 0)
    assert all(is_alive(pid) for pid in children(place))


def test_killed_process_of_a_target_is_reported_even_if_it_has_a_child(
    initmig: Initmig, database: Database, folder: Path, place: Path
) -> None:
    database.execute("CREATE SCHEMA t1; CREATE SCHEMA t2")
    env = {"FIRST": "1"}
    write(folder, {"0001_a.py": migration("fork").replace('"started"', '"started", os.getpid()')})
    flags = ("--each-schema=t_", "--parallel=1", "--json")
    running = initmig.start("migrate", *flags, url=database.url, folder=folder, cwd=place, env=env)
    line = running.wait_for_line("started")
    os.kill(int(line.rpartition(" ")[2]), signal.SIGKILL)
    result = running.result()
    assert result.code == 1
    [reported] = [json.loads(line) for line in result.out.splitlines()]
    assert reported["message"] == "its process was killed"
    assert "[targets-failed]" in result.err
    again = initmig("migrate", *flags, url=database.url, folder=folder, cwd=place)
    assert again.code == 0, again.err


def test_child_does_not_keep_the_port_of_serve(
    initmig: Initmig, database: Database, folder: Path, place: Path
) -> None:
    write(folder, {"0001_a.py": migration("fork")})
    argv = ("serve", f"--listen=127.0.0.1:{closed_port()}")
    env = {"FIRST": "1"}
    running = initmig.start(*argv, url=database.url, folder=folder, cwd=place, env=env)
    kill_once_it_has_children(running, place)
    again = initmig.start(*argv, url=database.url, folder=folder, cwd=place)
    again.wait_for_line("ready: 1 migration")
    again.terminate()
    assert again.result().code == 0
