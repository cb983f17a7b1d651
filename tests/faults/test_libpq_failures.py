"""A call of libpq fails, or memory runs out: the report is correct."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from initmig.config.options import Secret
from initmig.postgres import Settings, StatementFailed
from initmig.postgres.connecting import open_connection
from initmig.postgres.session import Session
from tests.support.databases import ASLEEP
from tests.support.fork_server import ForkServer, KillableRuns
from tests.support.kill_trial import KillTrial, Run
from tests.support.libpq_faults import FAIL, FAILURES, REPORT, Fault, Owner, Report
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes, Result
    from tests.support.proxy import Proxy

# These tests are for the client, whose libpq is the same for each version of the server.
pytestmark = pytest.mark.any_version

MODULE = "tests.support.failing_libpq"
ROWS = "".join(f"{n}\t{'x' * 100}\n" for n in range(1500))
SQL = {
    "0001_small.sql": "CREATE TABLE t (a int, b text);\nINSERT INTO t VALUES (-1, 'small');",
    # too large for one message with its record
    "0002_large.sql": f"CREATE TABLE large AS SELECT length('{'x' * (5 << 18)}') AS length;",
    "0003_copy.sql": f"COPY t FROM stdin;\n{ROWS}\\.\nCOPY t TO STDOUT;\n"
    "INSERT INTO t VALUES (-3);",
    "0004_parts.sql": "-- transactional: false\nINSERT INTO t VALUES (-4);\nVACUUM t;\n"
    "BEGIN;\nINSERT INTO t VALUES (-5);\nCOMMIT;\nCREATE INDEX CONCURRENTLY t_a ON t (a);",
}
SWITCH = {"0005_python.py": "from yoyo import step\nstep('INSERT INTO t VALUES (-6)')\n"}
FUNCTION = """
import io
from yoyo import step

def insert(connection):
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (-7)")
    cursor.copy_expert("COPY t FROM STDIN", io.StringIO("8\\tcopied\\n"))
    cursor.copy_expert("COPY t TO STDOUT", io.StringIO())

step(insert)
"""
# The files of each caller of libpq.
FILES: Mapping[Owner, Mapping[str, str]] = {
    "libpq": SQL,
    "psycopg": SQL | SWITCH,
    "step": {"0001_small.sql": SQL["0001_small.sql"], "0005_python.py": FUNCTION},
}
PYTHON = {"0005_python"}
CANCEL = [name for name in FAILURES if name.startswith("PQcancel")]
CALLED: Mapping[Owner, Sequence[str]] = {
    "libpq": [name for name in FAILURES if name not in CANCEL],
    # psycopg itself starts to connect, and its connection's options are never read
    "psycopg": [
        name for name in FAILURES if name not in (*CANCEL, "PQconnectStartParams", "PQconninfo")
    ],
    # the functions whose failure psycopg reports
    "step": ["PQsendQuery", "PQflush", "PQputCopyEnd", "PQgetCopyData", "PQconsumeInput"],
}


class FailingTrial(KillTrial):
    """Runs initmig with one failing call of libpq."""

    def __init__(self, run: Run, **options: object) -> None:
        super().__init__(run, **options)  # type: ignore[arg-type]
        self.report_path = self.folder.parent / "report.json"
        self.begin()
        result, report = self.fail(None)
        assert result.code == 0, result.err
        self.calls = report.calls

    def fail(self, fault: Fault | None) -> tuple[Result, Report]:
        """Run with *fault*."""
        env = {REPORT: str(self.report_path)} | ({FAIL: json.dumps(fault)} if fault else {})
        argv = ("migrate", "--lock-timeout=1m", "--wait-timeout=20s", "--log-format=json")
        result = self._runs.run(*argv, url=self.database.url, folder=self.folder, env=env)
        return result, Report(
            **dict(zip(Report._fields, json.loads(self.report_path.read_text()), strict=True))
        )

    def check(self, fault: Fault) -> bool:
        """Whether *fault* happened. Asserts a correct report, and that a rerun succeeds."""
        self.begin()
        result, report = self.fail(fault)
        check_report(self.database, result)
        assert report.circular == [], fault
        if result.code == 0:
            assert self.snapshot() == self.undisturbed, fault
        assert self.run(self.database.url) == (0, ""), fault
        assert self.snapshot() == self.undisturbed, (fault, result.err)
        return report.happened


def check_report(database: Database, result: Result) -> None:
    """Assert that *result* is a success, or one clear error that is true of *database*."""
    assert "Traceback" not in result.err
    events = result.events
    failures = [event for event in events if event["event"] == "failed"]
    assert [event["exit_code"] for event in failures] == [result.code] * bool(result.code)
    assert result.code in (0, 1), result.err
    for failed in failures:
        assert failed["error"] in ("send-failed", "receive-failed", "out-of-memory"), failed
        id = failed["message"].partition(" failed: ")[0]
        if id in PYTHON and failed["next"].startswith("rolled back"):
            assert id not in recorded(database)


def recorded(database: Database) -> set[str]:
    """The ids of the migrations that are recorded as applied."""
    try:
        return {id for (id,) in database.query("SELECT migration_id FROM _yoyo_migration")}
    except psycopg.errors.UndefinedTable:
        return set()


@pytest.fixture(scope="module")
def fork() -> Iterator[ForkServer]:
    with closing(ForkServer(MODULE)) as fork:
        yield fork


@pytest.fixture(params=FILES)
def owner(request: pytest.FixtureRequest) -> Owner:
    found: Owner = request.param
    return found


@pytest.fixture
def trial(
    owner: Owner, database: Database, proxy: Proxy, killable_runs: KillableRuns, folder: Path
) -> FailingTrial:
    run = Run(("migrate",), FILES[owner])
    return FailingTrial(
        run, database=database, proxy=proxy, killable_runs=killable_runs, folder=folder
    )


def faults(trial: FailingTrial, owner: Owner, *, most: int) -> Iterator[Fault]:
    """The faults for each failure of each function: at most *most* calls of it, evenly spread."""
    for function in CALLED[owner]:
        number = trial.calls[f"{owner} {function}"]
        step = max(1, number // most)
        for failure in FAILURES[function]:
            # from the last call backwards, where the most can be lost
            for each in range(number, 0, -step)[:most]:
                yield Fault(owner, function, failure, each)


@pytest.mark.parametrize("most", [3, pytest.param(25, marks=pytest.mark.exhaustive)])
def test_failed_libpq_call_is_reported_and_a_rerun_succeeds(
    trial: FailingTrial, owner: Owner, most: int
) -> None:
    failed = {
        (fault.function, fault.failure)
        for fault in faults(trial, owner, most=most)
        if trial.check(fault)
    }
    assert failed == {(function, each) for function in CALLED[owner] for each in FAILURES[function]}


# --- SIGTERM ---

HANDLES: Mapping[Owner, Mapping[str, str]] = {
    "libpq": {},
    "psycopg": {"0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()')\n"},
}


@pytest.fixture(params=HANDLES)
def handle(request: pytest.FixtureRequest) -> Owner:
    """Whose connection applies SQL files: initmig's own, or psycopg's because of a Python file."""
    found: Owner = request.param
    return found


@pytest.mark.parametrize("function", CANCEL)
def test_sigterm_stops_the_run_even_if_the_statement_cannot_be_cancelled(
    processes: Processes, database: Database, folder: Path, function: str, handle: Owner
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a (); SELECT pg_sleep(60)", **HANDLES[handle]})
    fault = Fault(handle, function, FAILURES[function][0], 1)
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder), FAIL: json.dumps(fault)}
    running = processes.start([sys.executable, "-m", MODULE, "migrate"], env=env)
    wait_until(lambda: database.value(ASLEEP) == 1, timeout=30)
    running.terminate()
    result = running.result()
    assert (result.code, "Traceback" in result.err) == (128 + signal.SIGTERM, False), result.err
    assert "a" not in database.tables()


# --- COMMIT ---


@pytest.fixture(params=[False, True], ids=["libpq", "psycopg"])
def session(database: Database, request: pytest.FixtureRequest) -> Iterator[Session]:
    settings = Settings(Secret(database.url))
    with closing(open_connection(settings, 30, python=request.param)) as connection:
        yield Session(connection, settings)


def test_commit_answered_with_rollback_is_a_failure(session: Session) -> None:
    with pytest.raises(StatementFailed, match="division by zero"):
        session.run("BEGIN; SELECT 1/0")
    with pytest.raises(StatementFailed) as failed:
        session.run("COMMIT", commits=True)
    assert failed.value.id == "commit-not-confirmed"
    assert not session.in_transaction


def test_commit_that_was_never_executed_is_a_failure(session: Session) -> None:
    with pytest.raises(StatementFailed) as failed:
        session.run("BEGIN; SELECT 1 -- COMMIT", commits=True)
    assert failed.value.id == "commit-not-confirmed"
    assert session.in_transaction


def test_confirmed_commit_is_not_a_failure(session: Session) -> None:
    assert session.run("BEGIN; SELECT 1; COMMIT", commits=True) == []


@pytest.mark.parametrize(
    "commit",
    [
        'connection.execute("COMMIT")',
        'connection.execute("/* done */ end;")',
        "connection.commit()",
        "connection.execute(\"PREPARE TRANSACTION 'x'\")",
    ],
)
def test_step_whose_commit_was_rolled_back_fails(
    initmig: Initmig, database: Database, folder: Path, commit: str
) -> None:
    text = f"""
from contextlib import suppress
from yoyo import step

__transactional__ = False

def lose(connection):
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE lost ()")
    with suppress(Exception):
        connection.execute("SELECT 1/0")
    {commit}

step(lose)
"""
    write(folder, {"0001_a.py": text})
    result = initmig("--log-format=json", url=database.url, folder=folder)
    assert result.code == 1, result.err
    assert "COMMIT with ROLLBACK" in result.events[-1]["message"]
    assert recorded(database) == set()


@pytest.mark.parametrize("rollback", ['execute("ROLLBACK")', "rollback()", 'execute("abort;")'])
def test_step_that_rolls_back_deliberately_succeeds(
    initmig: Initmig, database: Database, folder: Path, rollback: str
) -> None:
    text = f"""
from contextlib import suppress
from yoyo import step

__transactional__ = False

def look(connection):
    connection.execute("BEGIN")
    with suppress(Exception):
        connection.execute("SELECT 1/0")
    connection.{rollback}

step(look)
"""
    write(folder, {"0001_a.py": text})
    result = initmig(url=database.url, folder=folder)
    assert (result.code, recorded(database)) == (0, {"0001_a"}), result.err


# --- memory ---

SIZE = 40 << 20
LIMITED = {
    "INSERT": "CREATE TABLE limited AS SELECT length('{data}') AS length;",
    "COPY": "CREATE TABLE limited (a text);\nCOPY limited FROM stdin;\n{lines}\\.\n",
    "part": "-- transactional: false\nCREATE TABLE limited (length int);\n"
    "INSERT INTO limited SELECT length('{data}');\nVACUUM limited;",
    # more than the memory of a libpq that keeps all rows
    "SELECT": "CREATE TABLE limited ();\n"
    "SELECT repeat('x', 1000) FROM generate_series(1, {size} / 250);",
}
# At 225,000 PQsendQuery runs out of memory, at the lower limits Python does.
LIMITS = [190_000, 225_000]
MORE_LIMITS = [130_000, 160_000, 300_000]


@pytest.fixture(params=LIMITED)
def kind(request: pytest.FixtureRequest, folder: Path, handle: Owner) -> str:
    """A kind of large migration, whose file is in *folder*, and a second file for *handle*."""
    kind = str(request.param)
    line = "x" * 999 + "\n"
    data = {"data": "x" * SIZE, "lines": line * (SIZE // 1000), "size": SIZE}
    needed = {key: value for key, value in data.items() if f"{{{key}}}" in LIMITED[kind]}
    write(folder, {"0001_a.sql": LIMITED[kind].format(**needed), **HANDLES[handle]})
    return kind


@pytest.mark.parametrize(
    "limit", [*LIMITS, *(pytest.param(each, marks=pytest.mark.exhaustive) for each in MORE_LIMITS)]
)
def test_run_with_too_little_memory_reports_correctly_whether_the_migration_is_applied(
    initmig: Initmig, database: Database, folder: Path, kind: str, limit: int
) -> None:
    prefix = ["sh", "-c", f'ulimit -v {limit}; exec "$@"', "sh"]
    argv = ("--log-format=json", "--wait-timeout=5s")
    result = initmig(*argv, url=database.url, folder=folder, prefix=prefix, timeout=240)
    check_report(database, result)
    done = "0001_a" in recorded(database)
    assert done or result.code
    assert ("limited" in database.tables()) == done or kind == "part"
    rerun = initmig(url=database.url, folder=folder, timeout=240)
    assert (rerun.code, "limited" in database.tables()) == (0, True), rerun.err
