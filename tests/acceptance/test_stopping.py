"""SIGTERM stops a hanging run within 5 s with exit code 143, and releases the lock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import ASLEEP
from tests.support.migrations import write
from tests.support.namespaces import as_process_1, silent_name_server
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Running
    from tests.support.proxy import Message, Proxy, Verdict

FILES = {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": "DROP TABLE a"}

COMMANDS: dict[str, tuple[str, ...]] = {
    "migrate": ("migrate",),
    "migrate as one transaction": ("migrate", "--transaction=all"),
    "migrate each schema": ("migrate", "--each-schema=public"),
    "exec": ("exec", "--", "echo", "served"),
    "serve": ("serve", "--listen=127.0.0.1:0"),
    "rollback": ("rollback", "--all"),
    "rehearse": ("rehearse",),
    "status": ("status", "--json"),
    "plan": ("plan",),
    "wait": ("wait",),
    "baseline": ("baseline", "--to=0001_a"),
    "doctor": ("doctor",),
    "unlock": ("unlock",),
}
"""Every command that connects to the database of DATABASE_URL."""
each_command = pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS)

LEFT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def stopped(running: Running, *, pid: int = 0, reported: bool = True) -> None:
    """Send SIGTERM to *pid* or to *running*; assert that the run stops correctly."""
    os.kill(pid or running.pid, 15)
    result = running.result(timeout=5)
    assert (result.code, result.out) == (143, ""), result.err
    assert "Traceback" not in result.err
    assert "Exception ignored" not in result.err
    if reported:
        assert "stopped by SIGTERM" in result.err


def assert_nothing_left(database: Database) -> None:
    wait_until(lambda: database.value(LEFT) == 0)
    assert database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


def is_writing(pid: int, path: Path) -> bool:
    """Whether the process *pid* is writing to *path* at the moment."""
    try:
        call, file, *_ = Path(f"/proc/{pid}/syscall").read_text().split()
        return call == "1" and os.readlink(f"/proc/{pid}/fd/{int(file, 16)}") == str(path)
    except (OSError, ValueError):
        return False


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


# --- notices from the server ---

NOTICES = "DO $$ BEGIN LOOP RAISE NOTICE 'again and again, %', repeat('x', 100); END LOOP; END $$"
LATER = {"0002_later.sql": "CREATE TABLE later ()"}
FLOODS: dict[str, dict[str, str]] = {
    "SQL": {"0001_a.sql": NOTICES},
    "SQL without transaction": {"0001_a.sql": f"-- transactional: false\n{NOTICES};\nSELECT 1"},
    "SQL as a step": {"0001_a.py": f"from yoyo import step\nstep('''{NOTICES}''')\n"},
    "function": {
        "0001_a.py": "from yoyo import step\n"
        f"step(lambda connection: connection.execute('''{NOTICES}'''))\n"
    },
    "hook": {"post-apply-1.sql": NOTICES, "post-apply-2.sql": "CREATE TABLE later ()"},
}
FLOODED_COMMANDS = ["migrate", "migrate as one transaction", "migrate each schema", "exec", "serve"]


def flood_cases(kinds: list[str], commands: list[str]) -> Iterator[object]:
    for kind in kinds:
        for command in commands:
            if (kind, command) == ("SQL without transaction", "migrate as one transaction"):
                continue  # refused
            yield pytest.param(FLOODS[kind], COMMANDS[command], id=f"{kind}, {command}")


@pytest.mark.parametrize(
    ("files", "argv"),
    [*flood_cases([*FLOODS], ["migrate"]), *flood_cases(["SQL", "function"], FLOODED_COMMANDS[1:])],
)
def test_stops_under_a_flood_of_notices_and_starts_nothing_more(
    database: Database,
    initmig: Initmig,
    folder: Path,
    files: Mapping[str, str],
    argv: tuple[str, ...],
) -> None:
    write(folder, {"0000_first.sql": "CREATE TABLE first ()"})
    if not any("post-apply" in name for name in files):
        write(folder, LATER)
    write(folder, files)
    running = initmig.start(*argv, url=database.url, folder=folder)
    running.wait_for_line("again and again")
    stopped(running)
    assert_nothing_left(database)
    assert "later" not in database.tables()


# --- output ---


@pytest.fixture
def full_fifo(tmp_path: Path) -> Iterator[Path]:
    """A full FIFO that no process reads."""
    path = tmp_path / "full_fifo"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        while True:
            os.write(end, b"x" * 4096)
    except BlockingIOError:
        yield path
    finally:
        os.close(end)


@each_command
def test_stops_while_the_log_is_not_read(
    database: Database, initmig: Initmig, folder: Path, full_fifo: Path, argv: tuple[str, ...]
) -> None:
    write(folder, FILES)
    if argv[0] == "rollback":
        assert initmig(url=database.url, folder=folder).code == 0
    # each command logs something at level debug, or because the role does not exist
    env = {"INITMIG_LOG_LEVEL": "debug", "INITMIG_ROLE": "no_such_role"}
    prefix = ["sh", "-c", 'exec "$@" >"$0" 2>"$0"', str(full_fifo)]
    running = initmig.start(*argv, url=database.url, folder=folder, env=env, prefix=prefix)
    wait_until(
        lambda: any(is_writing(pid, full_fifo) for pid in (running.pid, *children(running.pid)))
    )
    stopped(running, reported=False)
    assert_nothing_left(database)


@pytest.mark.parametrize("files", [FLOODS["SQL"], FLOODS["function"]], ids=["SQL", "function"])
def test_stops_while_notices_are_not_read(
    database: Database, initmig: Initmig, folder: Path, full_fifo: Path, files: Mapping[str, str]
) -> None:
    write(folder, {**files, **LATER})
    prefix = ["sh", "-c", 'exec "$@" 2>"$0"', str(full_fifo)]
    running = initmig.start(url=database.url, folder=folder, prefix=prefix)
    wait_until(lambda: is_writing(running.pid, full_fifo))
    stopped(running, reported=False)
    assert_nothing_left(database)
    assert "later" not in database.tables()


# --- waits ---


@each_command
def test_stops_while_the_name_server_is_silent(
    initmig: Initmig, folder: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    # psycopg resolves a list of hosts itself
    hosts = "first.example,second.example" if argv[0] in ("migrate", "wait") else "one.example"
    url = f"postgresql://x@{hosts}/x"
    with silent_name_server(tmp_path) as prefix:
        running = initmig.start(*argv, url=url, folder=write(folder, FILES), prefix=prefix)
        wait_until(lambda: is_resolving(running.pid))
        stopped(running)


def is_resolving(pid: int) -> bool:
    """Whether the process has a UDP socket, which it uses only to resolve names."""
    try:
        inodes = {each.split()[9] for each in Path("/proc/net/udp").read_text().splitlines()[1:]}
        files = list(Path(f"/proc/{pid}/fd").iterdir())
        return any(os.readlink(file).strip("socket:[]") in inodes for file in files)
    except OSError:
        return False


@each_command
def test_stops_while_the_secret_is_not_written(
    initmig: Initmig, folder: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    secret = tmp_path / "secret"
    os.mkfifo(secret)
    env = {"DATABASE_URL_FILE": str(secret)}
    running = initmig.start(*argv, folder=write(folder, FILES), env=env)
    wait_until(lambda: is_opening(running.pid))
    stopped(running)


def is_opening(pid: int) -> bool:
    """Whether the process waits for another process to open a FIFO."""
    try:
        return "fifo_open" in Path(f"/proc/{pid}/stack").read_text()
    except OSError:
        return False


@each_command
def test_stops_while_the_server_hangs_after_login(
    database: Database, proxy: Proxy, initmig: Initmig, folder: Path, argv: tuple[str, ...]
) -> None:
    hung = []

    def hang(message: Message) -> Verdict:
        if message.type != "Q":
            return "forward"
        hung.append(message)
        proxy.stop_answering()
        return "drop"

    proxy.before = hang
    url = proxy.url(database.name)
    running = initmig.start(*argv, url=url, folder=write(folder, FILES))
    wait_until(lambda: bool(hung))
    stopped(running)


# --- code in migrations ---

STUBBORN = """
import sys, time
from yoyo import step
def stubborn(connection):
    while True:
        try:
            print("busy", file=sys.stderr, flush=True)
            time.sleep(60)
        except BaseException:
            pass
step(stubborn)
"""
IN_C = """
import sys, _thread
from yoyo import step
def in_c(connection):
    from ctypes import CDLL
    print("busy", file=sys.stderr, flush=True)
    # continues to sleep after a signal, as a resolver does
    libc = CDLL(None)
    for _ in range(60):
        libc.poll(None, 0, 1000)
step(in_c)
"""
IN_THREADS = """
import sys, threading, time
from yoyo import step
def in_threads(connection):
    threading.Thread(target=time.sleep, args=[60]).start()
    print("busy", file=sys.stderr, flush=True)
    time.sleep(60)
step(in_threads)
"""


@pytest.mark.parametrize(
    "argv", [COMMANDS[name] for name in FLOODED_COMMANDS], ids=FLOODED_COMMANDS
)
@pytest.mark.parametrize("code", [STUBBORN, IN_C, IN_THREADS], ids=["stubborn", "in C", "threads"])
def test_stops_in_code_that_ignores_exceptions(
    database: Database, initmig: Initmig, folder: Path, code: str, argv: tuple[str, ...]
) -> None:
    write(folder, {"0001_a.py": code, **LATER})
    running = initmig.start(*argv, url=database.url, folder=folder)
    running.wait_for_line("busy")
    stopped(running)
    assert_nothing_left(database)
    assert "later" not in database.tables()


def test_stops_many_targets_in_code_that_ignores_exceptions(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute("CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2; CREATE SCHEMA tenant_3")
    write(folder, {"0001_a.py": STUBBORN})
    argv = ("migrate", "--each-schema=tenant_%", "--parallel=2")
    running = initmig.start(*argv, url=database.url, folder=folder)
    wait_until(lambda: running.err.count("busy") == 2)
    stopped(running)
    assert_nothing_left(database)


# --- as process 1 ---


@pytest.mark.parametrize(
    "files",
    [
        FLOODS["SQL"],
        FLOODS["function"],
        {"0001_a.py": STUBBORN},
        {"0001_a.sql": "SELECT pg_sleep(60)"},
    ],
    ids=["notices", "notices to a function", "stubborn", "asleep"],
)
def test_stops_as_process_1(
    database: Database, initmig: Initmig, folder: Path, files: Mapping[str, str]
) -> None:
    write(folder, {**files, **LATER})
    running = initmig.start(url=database.url, folder=folder, prefix=as_process_1())
    wait_until(
        lambda: database.value(ASLEEP) == 1 or "again" in running.err or "busy" in running.err
    )
    [inner] = children(running.pid)
    stopped(running, pid=inner)
    assert_nothing_left(database)
    assert "later" not in database.tables()
