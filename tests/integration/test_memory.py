"""The memory and time that a file and the rows returned by the server take."""

from __future__ import annotations

import re
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.databases import Database
    from tests.support.processes import Processes

# The tests measure the client, which does not depend on the server's version.
pytestmark = pytest.mark.any_version

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
DOCS, MANIFESTS = ROOT / "docs", ROOT / "k8s"
LIMIT = 128 * MIB
"""The memory limit in k8s/."""
LONG = pytest.mark.long
SIZE = 30 * MIB
"""The size of the large files. One more copy would exceed the 20 MiB that a run may take extra."""

# VmHWM is the peak of this process. ru_maxrss would include the process that started it.
MEASURED = """
import os, re, sys
from initmig.cli.main import main
code = main(sys.argv[1:], os.environ)
print("measured", code, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1],
    os.times().user + os.times().system)
"""
PYTHON = {"0000_p.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')\n"}
"""A file that makes initmig connect with psycopg."""


class Cost(NamedTuple):
    """The resources that a run took."""

    code: int
    memory: int
    """The peak memory in bytes."""
    seconds: float
    """The processor time without that of PostgreSQL."""


class Runs:
    """Runs in one database, on files of one folder."""

    def __init__(self, processes: Processes, database: Database, folder: Path) -> None:
        self._processes = processes
        self.database = database
        self._folder = folder

    def cost(
        self, files: Mapping[str, str | bytes], *argv: str, env: Mapping[str, str] | None = None
    ) -> Cost:
        """The cost of a run with *argv* and these *files*."""
        for path in self._folder.iterdir():
            path.unlink()
        write(self._folder, files)
        settings = {"DATABASE_URL": self.database.url, "INITMIG_MIGRATIONS": str(self._folder)}
        command = [sys.executable, "-c", MEASURED, *argv]
        result = self._processes.start(command, env=settings | dict(env or {})).result(240)
        measured = re.search(r"measured (\d+) (\d+) (\S+)", result.out)
        assert measured, result.err
        code, kilobytes, seconds = measured.groups()
        return Cost(int(code), int(kilobytes) << 10, float(seconds))

    def forget(self) -> None:
        """Delete the history, so that all migrations are pending."""
        self.database.execute("DELETE FROM _yoyo_migration; DELETE FROM _initmig_migration")


@pytest.fixture
def runs(processes: Processes, database: Database, folder: Path) -> Runs:
    folder.mkdir(exist_ok=True)
    return Runs(processes, database, folder)


# --- a file ---


def one_statement(letter: str = "x", size: int = SIZE) -> str:
    return f"SELECT length('{letter * (size // len(letter.encode()))}');\n"


def statements(size: int = SIZE) -> str:
    return one_statement(size=20_000) * (size // 20_000)


def copied(letter: str = "x") -> str:
    row = letter * (4000 // len(letter.encode())) + "\n"
    return "CREATE TEMP TABLE t (a text);\nCOPY t FROM stdin;\n" + row * (SIZE // 4000) + "\\.\n"


NON_TRANSACTIONAL = "-- transactional: false\n"
# file, exit code
LARGE: dict[str, tuple[Callable[[], str | bytes], int]] = {
    "one statement": (one_statement, 0),
    "accents": (lambda: one_statement("é"), 0),
    "elephants": (lambda: one_statement("🐘"), 0),
    "one elephant": (lambda: "-- 🐘\n" + one_statement(), 0),
    "byte order mark": (lambda: "\ufeff" + one_statement(), 0),
    "statements": (statements, 0),
    # an object for each would take more memory than the file
    "short statements": (lambda: "SET a.b = 1;\n" * 400_000, 0),
    "function": (
        lambda: f"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$\n{one_statement()}$$;",
        0,
    ),
    "comment": (lambda: f"/* {'words ' * (SIZE // 6)} */ SELECT 1;", 0),
    "COPY": (copied, 0),
    "COPY of elephants": (lambda: copied("🐘"), 0),
    "COPY, not transactional": (lambda: NON_TRANSACTIONAL + copied(), 0),
    "not transactional": (lambda: NON_TRANSACTIONAL + statements(), 0),
    "not transactional, one statement": (lambda: NON_TRANSACTIONAL + one_statement(), 0),
    "not transactional, large statements": (
        lambda: NON_TRANSACTIONAL + one_statement(size=SIZE // 8) * 8,
        0,
    ),
    "transaction block": (lambda: f"{NON_TRANSACTIONAL}BEGIN;\n{statements()}COMMIT;\n", 0),
    "failure in the last statement": (lambda: f"{one_statement()}SELECT 1/0;", 1),
    "failure in the last statement, not transactional": (
        lambda: f"{NON_TRANSACTIONAL}{one_statement()}SELECT 1/0;",
        1,
    ),
    "LATIN1": (lambda: one_statement().encode() + b"SELECT '\xe9'", 2),
    "BEGIN and COMMIT around it": (lambda: f"BEGIN;\n{one_statement()}COMMIT;\n", 0),
    "COMMIT as the last statement": (lambda: f"{one_statement()}COMMIT;", 2),
}


USUAL = [
    *("one statement", "one elephant", "short statements", "COPY of elephants"),
    *("not transactional", "not transactional, one statement", "failure in the last statement"),
    "BEGIN and COMMIT around it",
]
"""The others differ only in the scanner, so they run with the long tests."""
BY_PSYCOPG = ["one statement", "COPY", "not transactional, one statement"]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *(pytest.param(kind, {}, marks=[] if kind in USUAL else LONG) for kind in LARGE),
        *((kind, PYTHON) for kind in BY_PSYCOPG),
    ],
    ids=[*LARGE, *(f"{kind}, by psycopg" for kind in BY_PSYCOPG)],
)
def test_file_takes_less_than_three_times_its_size_plus_20_mib(
    runs: Runs, kind: str, more: Mapping[str, str]
) -> None:
    small = runs.cost({"0001_a.sql": "SELECT 1", **more})
    runs.forget()
    make, code = LARGE[kind]
    text = make()
    data = text if isinstance(text, bytes) else text.encode()
    large = runs.cost({"0001_a.sql": data, **more})
    assert (small.code, large.code) == (0, code)
    assert large.memory - small.memory < 3 * len(data) + 20 * MIB


def test_error_with_a_position_takes_one_more_copy(runs: Runs) -> None:
    small = runs.cost({"0001_a.sql": "SELECT 1"})
    runs.forget()
    text = f"{one_statement('é')}SELEKT;".encode()
    large = runs.cost({"0001_a.sql": text})
    assert (small.code, large.code) == (0, 1)
    # libpq keeps the message with the error, too
    assert large.memory - small.memory < 4 * len(text) + 20 * MIB


def test_rollback_of_a_large_file_takes_no_more_than_a_migration(runs: Runs) -> None:
    files = {"0001_a.sql": "SELECT 1", "0001_a.rollback.sql": one_statement()}
    small = runs.cost({**files, "0001_a.rollback.sql": "SELECT 1"})
    large = runs.cost(files, "rollback", "--all")
    assert (small.code, large.code) == (0, 0)
    assert large.memory - small.memory < 3 * SIZE + 20 * MIB


def limits() -> dict[int, int]:
    """The memory limits in the docs by file size, both in bytes."""
    rows = re.findall(
        r"(?m)^\| (\d+) MB \| (\d+)Mi \|$", (DOCS / "reference" / "memory.md").read_text()
    )
    return {int(size) * 1_000_000: int(limit) * MIB for size, limit in rows}


@pytest.mark.parametrize("size", [20, *(pytest.param(each, marks=LONG) for each in (50, 100))])
def test_limits_in_the_docs_suffice(runs: Runs, size: int) -> None:
    text = one_statement("é", size * 1_000_000)
    cost = runs.cost({"0001_a.sql": text, **PYTHON})
    assert cost.code == 0
    assert cost.memory < limits()[size * 1_000_000]


def test_memory_limit_of_the_manifests_is_128_mib() -> None:
    for name in ("component/init-container", "migrate/job", "many/job", "sidecar/sidecar"):
        [limit] = re.findall(r"limits: {memory: (\d+)Mi}", (MANIFESTS / f"{name}.yaml").read_text())
        assert int(limit) * MIB == LIMIT


# --- rows that the server returns ---

ROWS = 2_000_000
SELECT = f"SELECT g, repeat('x', 50) FROM generate_series(1, {ROWS}) g"
STEP = f'from yoyo import step\nstep("{SELECT}", "{SELECT}")\n'
UNDONE = {"0001_a.sql": "SELECT 1", "0001_a.rollback.sql": SELECT}
RETURNING: dict[str, tuple[Mapping[str, str], list[tuple[str, ...]]]] = {
    "file": ({"0001_a.sql": SELECT}, [("migrate",)]),
    "one of several": ({"0001_a.sql": f"SELECT 1; {SELECT}; SELECT 2"}, [("migrate",)]),
    "RETURNING": (
        {"0001_a.sql": f"CREATE TABLE t (a int, b text); INSERT INTO t {SELECT} RETURNING *"},
        [("migrate",)],
    ),
    "COPY TO": ({"0001_a.sql": f"COPY ({SELECT}) TO STDOUT"}, [("migrate",)]),
    "with Python": ({"0001_a.sql": SELECT, **PYTHON}, [("migrate",)]),
    "not transactional": ({"0001_a.sql": f"{NON_TRANSACTIONAL}{SELECT}"}, [("migrate",)]),
    "transaction block": (
        {"0001_a.sql": f"{NON_TRANSACTIONAL}BEGIN; {SELECT}; COMMIT"},
        [("migrate",)],
    ),
    "hook": ({"0001_a.sql": "SELECT 1", "post-apply.sql": SELECT}, [("migrate",)]),
    "rollback": (UNDONE, [("migrate",), ("rollback", "--all")]),
    "step in SQL": ({"0001_a.py": STEP}, [("migrate",), ("rollback", "--all")]),
    "step without a transaction": (
        {"0001_a.py": f"__transactional__ = False\n{STEP}"},
        [("migrate",)],
    ),
    "one transaction": (
        {"0001_a.sql": SELECT, "0002_b.sql": SELECT},
        [("migrate", "--transaction=all")],
    ),
    "rehearse": ({"0001_a.sql": SELECT}, [("rehearse",)]),
    "verify": (UNDONE, [("verify",)]),
}


USUAL_RETURNING = [
    *("one of several", "COPY TO", "with Python", "not transactional", "rollback"),
    *("step in SQL", "rehearse"),
]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in USUAL_RETURNING else LONG) for kind in RETURNING],
)
def test_two_million_rows_fit_in_the_limit_of_the_manifests(runs: Runs, kind: str) -> None:
    files, commands = RETURNING[kind]
    for argv in commands:
        cost = runs.cost(files, *argv)
        assert cost.code == 0
        assert cost.memory < LIMIT


def test_first_rows_returned_by_a_step_are_printed(
    processes: Processes, database: Database, folder: Path
) -> None:
    sql = "CREATE TABLE a (); SELECT 0; SELECT g FROM generate_series(1, 3000) g"
    first = "SELECT g FROM generate_series(1, 3000) g; SELECT 0"
    write(folder, {"0001_a.py": f"from yoyo import step\nstep('{sql}')\nstep('{first}')\n"})
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    command = [sys.executable, "-c", MEASURED, "migrate", "--log-format=json"]
    events = processes.start(command, env=env).result().events
    printed = [event["text"].strip() for event in events if event["event"] == "printed"]
    assert printed[:4] == ["3000 rows, of which these are the first:", "g", "------", "1"]
    assert printed[-2:] == ["1024", "(1024 rows)"]


@pytest.mark.skipif(not find_library("pq"), reason="needs the system's libpq (Debian: libpq5)")
def test_rows_are_discarded_with_the_libpq_of_the_system(runs: Runs) -> None:
    # psycopg in pure Python uses the system's libpq, which has no chunked mode before 17
    env = {"PSYCOPG_IMPL": "python"}
    cost = runs.cost({"0001_a.sql": SELECT.replace("2000000", "300000"), **PYTHON}, env=env)
    assert cost.code == 0
    assert cost.memory < 60 * MIB


# --- time ---


def test_time_is_linear_in_the_number_of_parts(runs: Runs) -> None:
    def seconds(parts: int) -> float:
        inserts = "INSERT INTO t VALUES (1, 'some words of the usual length');\n" * parts
        text = f"{NON_TRANSACTIONAL}CREATE TABLE t (a int, b text);\n{inserts}"
        cost = runs.cost({"0001_a.sql": text}, "migrate")
        assert (cost.code, runs.database.value("SELECT count(*) FROM t")) == (0, parts)
        runs.database.execute("DROP TABLE t")
        runs.forget()
        return cost.seconds

    nothing = seconds(1)
    few, many = seconds(2_500) - nothing, seconds(25_000) - nothing
    assert many < 30 * few, "linear is ten times as much, quadratic a hundred times"
