"""For any answer of a server, or none, a command ends in time, names the cause, and stays small."""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest

from initmig.commands.serve.serve import check, reading_run
from initmig.config.config import parse_config
from initmig.config.options import Secret
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import DatabaseUnavailable, InitmigError
from initmig.migrations.files import list_files
from initmig.postgres import Settings
from initmig.postgres.connecting import open_connection
from initmig.postgres.notices import MAX_LENGTH, MAX_NOTICES
from tests.support.fake_server import (
    LOGIN,
    QUERY,
    TLS,
    FakeServer,
    notice,
    result,
    says,
)
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.processes import Processes, Result, Running

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

MIB = 1 << 20
MEMORY_LIMIT = 128 * MIB
"""The memory limit in k8s/."""
LOG_LIMIT = MIB // 4
HANG_SECONDS = 90
"""Far more than any command takes on a busy machine."""

LOGIN_SECONDS = 60
"""For a login that a test does not examine."""

WAIT = "--wait-timeout=2s"
COMMANDS = [
    ("status",),
    ("migrate", "--queue-timeout=2s"),
    ("wait",),
    ("plan",),
    ("doctor",),
    ("rehearse", "--queue-timeout=2s"),
    ("baseline", "--to=0001_a"),
    ("rollback", "--all"),
    ("unlock",),
    ("status", "--check"),
    ("wait", "--for=database"),
    ("migrate", "--each-schema=s%"),
]
SATISFIED_BY_ANY_ANSWER = (("wait", "--for=database"), ("migrate", "--each-schema=s%"))
"""The second command finds no schema."""

FILES = {"0001_a.sql": "CREATE TABLE a ();", "0001_a.rollback.sql": "DROP TABLE a;"}
PENDING = {"0002_b.sql": "CREATE TABLE b ();", "0002_b.rollback.sql": "DROP TABLE b;"}
PYTHON = {"0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()', 'DROP TABLE b')\n"}

IDS = {
    1: {"receive-failed", "send-failed", "out-of-memory", "targets-failed"},
    3: {"no-answer", "connection-lost", "database-unavailable", "targets-failed", "standby"},
    4: {
        "answer-too-large",
        "checks-failed",
        "login-refused",
        "missing-privilege",
        "pooler-statement-mode",
        "startup-parameter-unsupported",
        "statement-refused",
        "targets-failed",
        "unexpected-answer",
    },
}
"""The errors of a command that cannot work with a server, by exit code."""

# ru_maxrss would be the maximum of this process and of the process that started it.
MEASURED = """
import os, re, sys
from initmig.cli.main import main
code = main(sys.argv[1:], os.environ)
print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""


class CommandRun(NamedTuple):
    """A command that runs against a mode."""

    name: str
    command: tuple[str, ...]
    running: Running


class CommandRuns:
    """Commands that run at the same time, because most of them only wait."""

    def __init__(self, processes: Processes, folder: Path, home: Path) -> None:
        self._processes = processes
        self._folder = folder
        self._home = home
        self._servers = ExitStack()
        self._runs: list[CommandRun] = []

    def serve(self, **options: object) -> FakeServer:
        """Start a separate fake server."""
        return self._servers.enter_context(FakeServer(self._home, **options))  # type: ignore[arg-type]

    def start(self, name: str, url: str, command: tuple[str, ...]) -> None:
        env = {
            "DATABASE_URL": url,
            "INITMIG_MIGRATIONS": str(self._folder),
            "INITMIG_QUEUE_TIMEOUT": "10s",
        }
        argv = [sys.executable, "-c", MEASURED, *command, WAIT]
        self._runs.append(CommandRun(name, command, self._processes.start(argv, env=env)))

    def ended(self) -> Iterator[tuple[CommandRun, Result]]:
        """Yield each run with its result, and check its log and its peak memory."""
        for run in self._runs:
            ended = run.running.result(HANG_SECONDS)
            problem = f"{run.name}, {' '.join(run.command)}: {ended.code}\n{ended.err[-3000:]}"
            assert "Traceback" not in ended.err, problem
            assert "internal-error" not in ended.err, problem
            assert len(ended.err) < LOG_LIMIT, problem[:2000]
            peak = re.search(r"^peak (\d+)$", ended.err, re.MULTILINE)
            assert peak, problem
            assert int(peak[1]) << 10 < MEMORY_LIMIT, problem
            yield run, ended

    def close(self) -> None:
        self._servers.close()


@pytest.fixture
def runs(processes: Processes, folder: Path, tmp_path: Path) -> Iterator[CommandRuns]:
    running = CommandRuns(processes, write(folder, FILES), tmp_path)
    yield running
    running.close()


def assert_refused(run: CommandRun, ended: Result) -> None:
    problem = f"{run.name}, {' '.join(run.command)}: {ended.code}\n{ended.err[-3000:]}"
    assert ended.code in IDS, problem
    ids = re.findall(r"\[([a-z-]+)\]", ended.err + ended.out)
    if run.command[0] == "doctor" and not ids:
        assert ended.code == 4, problem  # the failed check is in its table
    else:
        assert ids, problem
        assert ids[-1] in IDS[ended.code], problem
    if _only_waits(run.name):
        assert ended.code == 3, problem


def _only_waits(name: str) -> bool:
    return any(word in name for word in ("silent", "drip", "trickle")) and "," not in name


def parts(modes: Mapping[str, object], size: int = 12) -> list[list[str]]:
    """The names of *modes*, *size* in each part; similar modes are in different parts."""
    count = -(-len(modes) // size)
    return [list(modes)[number::count] for number in range(count)]


# --- a fake server ---


def first_name(part: list[str]) -> str:
    return part[0].replace(" ", "-")


@pytest.mark.parametrize("part", parts(LOGIN), ids=first_name)
def test_broken_login_ends_in_time_and_is_reported(runs: CommandRuns, part: list[str]) -> None:
    for name in part:
        turn = list(LOGIN).index(name)
        fake = runs.serve(at_login=LOGIN[name])
        runs.start(name, fake.url(unix=turn % 2 == 1), COMMANDS[turn % len(COMMANDS)])
    for run, ended in runs.ended():
        assert_refused(run, ended)


@pytest.mark.parametrize("part", parts(TLS), ids=first_name)
def test_broken_tls_ends_in_time_and_is_reported(runs: CommandRuns, part: list[str]) -> None:
    for turn, name in enumerate(part):
        fake = runs.serve(at_login=TLS[name])
        runs.start(name, fake.url(sslmode="require"), COMMANDS[turn])
    for run, ended in runs.ended():
        assert_refused(run, ended)


@pytest.mark.parametrize("part", parts(QUERY), ids=first_name)
def test_broken_answer_ends_in_time_and_is_reported(runs: CommandRuns, part: list[str]) -> None:
    for name in part:
        turn = list(QUERY).index(name)
        fake = runs.serve(at_query=QUERY[name])
        runs.start(name, fake.url(unix=turn % 2 == 1), COMMANDS[turn % len(COMMANDS)])
    for run, ended in runs.ended():
        if run.command in SATISFIED_BY_ANY_ANSWER and ended.code == 0:
            continue
        assert_refused(run, ended)


FOR_ALL = ["silent", "drips a row", "closed", "1 columns of 1 rows", "3 columns of NULL"]


@pytest.mark.parametrize("name", FOR_ALL)
def test_each_command_ends_in_time(runs: CommandRuns, name: str) -> None:
    fake = runs.serve(at_query=QUERY[name])
    for command in COMMANDS:
        runs.start(name, fake.url(), command)
    for run, ended in runs.ended():
        if run.command in SATISFIED_BY_ANY_ANSWER and ended.code == 0:
            continue
        assert_refused(run, ended)


# --- a real server, until a certain query ---

POINTS = {
    ("status",): (1, 3),
    ("migrate", "--queue-timeout=2s"): (2, 8, 14, 19, 24),
    ("plan",): (4,),
    ("doctor",): (3, 30, 53),
    ("rehearse", "--queue-timeout=2s"): (5, 18, 27),
    ("baseline", "--to=0002_b"): (12, 20),
    ("rollback", "--all"): (10, 18),
    ("unlock",): (3,),
    ("wait",): (2,),
}
"""By command, the numbers of the queries at which the mode begins."""

DURING_A_COMMAND = ["silent", "endless notices", "no rows", "error without an SQLSTATE"]


@pytest.fixture
def migrated(database: Database, processes: Processes, folder: Path) -> Database:
    """A database on which the first migration is applied."""
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(write(folder, FILES))}
    argv = [sys.executable, "-c", MEASURED]
    assert processes.start(argv, env=env).result().code == 0
    return database


@pytest.mark.parametrize("files", [PENDING, PYTHON], ids=["libpq", "psycopg"])
@pytest.mark.parametrize("name", DURING_A_COMMAND)
def test_server_that_breaks_during_a_command_does_not_block_it(
    migrated: Database, runs: CommandRuns, folder: Path, name: str, files: dict[str, str]
) -> None:
    write(folder, files)
    for command, points in POINTS.items():
        for since in points[::2] if name == "endless notices" else points:
            fake = runs.serve(at_query=QUERY[name], upstream=migrated.url, since=since)
            runs.start(f"{name} since {since}", fake.through(migrated.url), command)
    codes = {ended.code for _, ended in runs.ended()}
    # doctor reports the error, a migration may get it, and "no rows" can look like a migrator
    assert codes <= {0, 1, 3, 4, 5, 7}
    assert codes & {1, 3, 4}


# --- both kinds of connection ---


@pytest.mark.parametrize("part", parts(QUERY, 40), ids=first_name)
@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
def test_exchange_ends_or_times_out_for_any_answer(
    tmp_path: Path, part: list[str], python: bool
) -> None:
    for name in part:
        with FakeServer(tmp_path, at_query=QUERY[name]) as fake:
            connection = open_connection(Settings(Secret(fake.url())), LOGIN_SECONDS, python=python)
            answered = False
            with closing(connection), suppress(InitmigError):
                connection.exchange(b"SELECT 1", 0.3, iter(()))
                answered = True
            assert not (answered and _only_waits(name)), name


@pytest.mark.parametrize("part", parts(LOGIN, 60), ids=first_name)
def test_broken_psycopg_login_raises_only_initmig_errors(tmp_path: Path, part: list[str]) -> None:
    for name in part:
        if any(word in name for word in ("silent", "endless", "drip", "trickle", "ever", "huge")):
            continue  # these take two seconds each; two of them are tested below
        # any other exception than an InitmigError fails the test
        with FakeServer(tmp_path, at_login=LOGIN[name]) as fake, suppress(InitmigError):
            open_connection(Settings(Secret(fake.url())), 2, python=True).close()


@pytest.mark.parametrize("name", ["silent before ready", "drips after authentication"])
def test_silent_psycopg_login_times_out(tmp_path: Path, name: str) -> None:
    with FakeServer(tmp_path, at_login=LOGIN[name]) as fake, pytest.raises(DatabaseUnavailable):
        open_connection(Settings(Secret(fake.url())), 2, python=True)


@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
def test_answer_that_trickles_past_the_deadline_times_out(tmp_path: Path, python: bool) -> None:
    """A separate deadline for each read would never expire."""
    with FakeServer(tmp_path, at_query=QUERY["notices that trickle"]) as fake:
        connection = open_connection(Settings(Secret(fake.url())), LOGIN_SECONDS, python=python)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match=r"no answer in 0\.5 s"):
            connection.exchange(b"SELECT 1", 0.5, iter(()))
        assert time.monotonic() - began >= 0.5
        assert connection.closed


@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
@pytest.mark.parametrize("name", ["huge row", "huge notice", "huge error"])
def test_oversized_answer_to_an_initmig_query_is_refused(
    tmp_path: Path, name: str, python: bool
) -> None:
    with FakeServer(tmp_path, at_query=QUERY[name]) as fake:
        connection = open_connection(Settings(Secret(fake.url())), LOGIN_SECONDS, python=python)
        with pytest.raises(InitmigError) as refused:
            connection.exchange(b"SELECT 1", 60, iter(()))
        assert refused.value.id == "answer-too-large"
        assert connection.closed


@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
def test_value_with_200_000_ids_is_read_completely(database: Database, python: bool) -> None:
    connection = open_connection(Settings(Secret(database.url)), 5, python=python)
    query = b"SELECT string_agg(repeat('x', 90) || n, '/') FROM generate_series(1, 200000) n"
    [(ids,)] = connection.exchange(query, 60, iter(()))
    connection.close()
    assert ids.count("/") == 199_999


@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
def test_notices_beyond_a_limit_are_counted(tmp_path: Path, python: bool) -> None:
    received: list[tuple[str, str]] = []
    many = notice(b"hm") * (MAX_NOTICES + 7) + notice(b"x" * 2 * MAX_LENGTH) + result([b"1"])
    with FakeServer(tmp_path, at_query=says(many)) as fake:
        connection = open_connection(Settings(Secret(fake.url())), LOGIN_SECONDS, python=python)
        connection.set_notice_handler(lambda severity, text: received.append((severity, text)))
        for _ in range(2):  # the limit applies to each message separately
            connection.exchange(b"SELECT 1", 60, iter(()))
            assert len(received) == MAX_NOTICES + 1
            assert received[-1][0] == "NOTICE"
            assert received[-1][1].startswith("8 more notices")
            received.clear()
        connection.close()


@pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
def test_long_notice_is_truncated(tmp_path: Path, python: bool) -> None:
    received: list[str] = []
    with FakeServer(tmp_path, at_query=says(notice(b"x" * 2 * MAX_LENGTH), result([b"1"]))) as fake:
        connection = open_connection(Settings(Secret(fake.url())), LOGIN_SECONDS, python=python)
        connection.set_notice_handler(lambda _, text: received.append(text))
        connection.exchange(b"SELECT 1", 60, iter(()))
        connection.close()
    assert received == [f"{'x' * MAX_LENGTH}... ({MAX_LENGTH} more characters)"]


# --- the check of serve ---

BROKEN_ANSWERS = [
    "closed",
    "no rows",
    "3 columns of NULL",
    "text for integer",
    "huge row",
    "65535 columns",
]


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_serve_check_raises_an_initmig_error_for_any_broken_answer(
    tmp_path: Path, folder: Path, name: str
) -> None:
    write(folder, FILES)
    with FakeServer(tmp_path, at_query=QUERY[name]) as fake:
        config = parse_config(["serve"], {"DATABASE_URL": fake.url()})
        with pytest.raises(InitmigError):
            check(reading_run(config, list_files((str(folder),)), lambda _: None, SYSTEM_CLOCK))


def test_serve_check_times_out_on_a_silent_server(tmp_path: Path, folder: Path) -> None:
    write(folder, FILES)
    with FakeServer(tmp_path, at_query=QUERY["silent"]) as fake:
        config = parse_config(["serve"], {"DATABASE_URL": fake.url()})
        with pytest.raises(DatabaseUnavailable) as failed:
            check(reading_run(config, list_files((str(folder),)), lambda _: None, SYSTEM_CLOCK))
        assert failed.value.id == "no-answer"
