"""On a real terminal, the output fits, has colours, and shows the progress in a line."""

from __future__ import annotations

import re
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from initmig.reporting.terminal.cells import cells
from tests.support.migrations import write
from tests.support.terminal import Terminal, unstyled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.processes import Processes, Result, Running

PHONE = "20261201093000_add_phone_number"
ROLES = "20261201094500_grant_everything_to_the_application_漢字"
FILES = {
    f"{PHONE}.sql": "CREATE TABLE users (id integer, phone text)",
    f"{PHONE}.rollback.sql": "SELECT 'restores nothing'",
}
PENDING = {
    f"{ROLES}.sql": "ALTER TABLE users ADD email text NOT NULL DEFAULT md5(random()::text);\n"
    "INSERT INTO users (id) SELECT generate_series(1, 10)",
}
FAILING = "SELECT 1 AS a, 2 AS b, 3 AS c, 4 AS d, 5 AS e, 6 AS f, 7 AS g, missing, 8 AS h, 9 AS i"
WIDTHS = [40, 80, 120]
SGR = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def terminal_of(
    columns: int, *, streams: Sequence[str] = ("stdout", "stderr")
) -> Iterator[Terminal]:
    terminal = Terminal(columns, streams=streams)
    yield terminal
    terminal.close()


class Runs:
    """Runs the command on a terminal, for one database and folder."""

    def __init__(self, processes: Processes, database: Database, folder: Path) -> None:
        self._processes = processes
        self._env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": folder.name}
        self._cwd = folder.parent

    def start(self, terminal: Terminal, *arguments: str, **env: str) -> Running:
        environ = {**self._env, **env}
        return terminal.start(self._processes, *arguments, env=environ, cwd=self._cwd)

    def on(self, terminal: Terminal, *arguments: str, **env: str) -> Result:
        result = self.start(terminal, *arguments, **env).result()
        time.sleep(0.1)  # time to read the last output
        return result


@pytest.fixture
def runs(processes: Processes, database: Database, folder: Path) -> Runs:
    return Runs(processes, database, folder)


@pytest.fixture
def half_applied(runs: Runs, folder: Path) -> Runs:
    """One migration is applied and another one is pending."""
    write(folder, FILES)
    with terminal_of(80) as terminal:
        assert runs.on(terminal).code == 0
    write(folder, PENDING)
    return runs


def assert_fits(terminal: Terminal) -> None:
    assert_fits_in(terminal, terminal.columns)


def assert_fits_in(terminal: Terminal, columns: int) -> None:
    lines = re.split(r"\r\n|\r|\x1b\[J", unstyled(terminal.raw))
    assert [line for line in lines if cells(line) > columns] == []


SHOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "status": (("status",), ("20261201093000", "applied", "pending")),
    "status --check": (("status", "--check"), ("[migrations-pending]",)),
    "plan": (("plan",), ("-- 20261201094500", "ACCESS EXCLUSIVE")),
    "doctor": (("doctor",), ("ok", "search-path")),
    "rehearse": (("rehearse",), ("ACCESS", "10 rows", "rehearsed 1 of 1")),
    "verify": (("verify",), ("not restored", "[not-restored]", "next:")),
    "targets": (("migrate", "--each-schema", "tenant%"), ("tenant_1", "applied 2")),
    "migrate": (("migrate",), ("applied 2026", "in ")),
}


@pytest.mark.any_version
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", SHOWN)
def test_no_line_is_wider_than_the_terminal(
    half_applied: Runs, database: Database, folder: Path, name: str, columns: int
) -> None:
    arguments, shown = SHOWN[name]
    database.execute("CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2")
    if name == "plan":  # its SQL is shown unchanged
        text = "ALTER TABLE users\n  ADD a int;"
        write(folder, {f"{ROLES}.sql": text})
    with terminal_of(columns) as terminal:
        half_applied.on(terminal, *arguments)
        assert_fits(terminal)
        text = " ".join(" ".join(terminal.lines).split())
        for each in shown:
            assert each in text


@pytest.mark.any_version
@pytest.mark.parametrize("columns", WIDTHS)
def test_error_fits_and_its_caret_is_below_the_position(
    runs: Runs, folder: Path, columns: int
) -> None:
    write(folder, {"20261201095000_漢字.sql": f"SELECT '漢字';\n{FAILING}"})
    with terminal_of(columns) as terminal:
        assert runs.on(terminal).code == 1
        assert_fits(terminal)
        raw = unstyled(terminal.raw).replace("\r", "").split("\n")
        [at] = [number for number, line in enumerate(raw) if line.endswith("^")]
        caret = raw[at].index("^")
        assert raw[at - 1].startswith("     2 | ")
        assert raw[at - 1][caret:].startswith("missing")


@pytest.mark.any_version
def test_sql_of_a_plan_is_not_shortened(runs: Runs, folder: Path) -> None:
    write(folder, {f"{PHONE}.sql": FAILING})
    with terminal_of(40) as terminal:
        runs.on(terminal, "plan")
        assert FAILING in unstyled(terminal.raw)


@pytest.mark.any_version
def test_columns_variable_sets_the_width(half_applied: Runs) -> None:
    with terminal_of(200) as terminal:
        half_applied.on(terminal, "status", COLUMNS="40")
        assert_fits_in(terminal, 40)


@pytest.mark.any_version
def test_terminal_without_a_width_gets_whole_lines_and_no_progress(
    half_applied: Runs, folder: Path
) -> None:
    write(folder, {"20261201095500_sleeps.sql": "SELECT pg_sleep(3)"})
    with terminal_of(0) as terminal:
        half_applied.on(terminal, "status")
        assert half_applied.on(terminal).code == 0
        lines = unstyled(terminal.raw).split("\r\n")
        assert "\x1b" not in "".join(lines)
        assert "\r" not in "".join(lines)
        assert max(map(cells, lines)) > 80


COLOURS: dict[str, tuple[tuple[str, ...], dict[str, str], bool]] = {
    "a terminal": ((), {}, True),
    "NO_COLOR": ((), {"NO_COLOR": "1"}, False),
    "an empty NO_COLOR": ((), {"NO_COLOR": ""}, True),
    "--color=never": (("--color=never",), {}, False),
    "INITMIG_COLOR=never": ((), {"INITMIG_COLOR": "never"}, False),
    "--color=always wins over NO_COLOR": (("--color=always",), {"NO_COLOR": "1"}, True),
    "--color=auto does not": (("--color=auto",), {"NO_COLOR": "1"}, False),
    "TERM=dumb": ((), {"TERM": "dumb"}, False),
    "no TERM": ((), {"TERM": ""}, False),
    "JSON": (("--json", "--log-format=json", "--color=always"), {}, False),
}


@pytest.mark.any_version
@pytest.mark.parametrize("name", COLOURS)
def test_colours_follow_the_flags_and_variables(half_applied: Runs, name: str) -> None:
    flags, env, has_colours = COLOURS[name]
    with terminal_of(80) as terminal:
        assert half_applied.on(terminal, "status", "--check", *flags, **env).code == 7
        assert bool(SGR.search(terminal.raw)) == has_colours
        assert ("\x1b" in terminal.raw) == has_colours
        assert "pending" in terminal.raw


@pytest.mark.any_version
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(("flag", "in_pipe"), [("auto", False), ("always", True)])
def test_each_stream_has_colours_if_it_is_a_terminal(
    half_applied: Runs, stream: str, flag: str, in_pipe: bool
) -> None:
    with terminal_of(80, streams=[stream]) as terminal:
        result = half_applied.on(terminal, "status", "--check", f"--color={flag}")
        other = result.err if stream == "stdout" else result.out
        assert SGR.search(terminal.raw)
        assert bool(SGR.search(other)) == in_pipe
        assert not re.search(r"\x1b\[[^0-9]", other)
        if stream == "stderr":  # a pipe has no limit
            assert max(map(cells, unstyled(other).splitlines())) > 80


@pytest.mark.any_version
def test_usage_error_has_colours(runs: Runs) -> None:
    with terminal_of(80) as terminal:
        assert runs.on(terminal, "--lock-timeout=soon").code == 2
        assert "\x1b[31merror" in terminal.raw
    with terminal_of(80) as terminal:
        assert runs.on(terminal, "--lock-timeout=soon", "--color=never").code == 2
        assert "\x1b" not in terminal.raw


@pytest.mark.any_version
def test_termination_log_has_no_colours(half_applied: Runs, tmp_path: Path) -> None:
    outcome = tmp_path / "outcome"
    with terminal_of(80) as terminal:
        assert half_applied.on(terminal, "--color=always", f"--termination-log={outcome}").code == 0
    assert "applied 1 migration" in outcome.read_text()
    assert "\x1b" not in outcome.read_text()


@pytest.mark.any_version
def test_escape_sequences_in_messages_do_not_reach_the_terminal(runs: Runs, folder: Path) -> None:
    hostile = "DO $$ BEGIN RAISE WARNING E'\\x1b[2J\\x1b[31mred\\ninfo: forged'; END $$"
    write(folder, {f"{PHONE}.sql": f"-- \x1b[2J\n{hostile}"})
    with terminal_of(80) as terminal:
        runs.on(terminal, "plan")
        assert runs.on(terminal).code == 0
        assert "\x1b[2J" not in terminal.raw
        assert "\x1b[31mred" not in terminal.raw
        assert "\\x1b[2J\\x1b[31mred" in unstyled(terminal.raw)
        assert "    | info: forged" in terminal.lines


# --- progress ---


SLEEPY = "-- transactional: false\nSELECT 1;\n\nSELECT pg_sleep(6);\n"


def assert_only_whole_lines(terminal: Terminal) -> None:
    """Assert that the terminal shows only the log, without a remainder of the progress line."""
    stamped = re.compile(r"\d{4}-\d\d-\d\dT\S+Z (debug|info|warning|error) |    |  next: |\^C")
    assert [line for line in terminal.lines if not stamped.match(line)] == []


def test_progress_names_the_statement_the_time_and_the_wait_event(runs: Runs, folder: Path) -> None:
    write(folder, {"0001_a.sql": "SELECT 1", "0002_sleeps.sql": SLEEPY})
    with terminal_of(100) as terminal:
        running = runs.start(terminal)
        terminal.wait_for(re.compile(r"\[2/2\] 0002_sleeps\.sql:4 [2-5] s: .*PgSleep"))
        assert running.result().code == 0
        time.sleep(0.1)
        assert_only_whole_lines(terminal)
        assert terminal.raw.count("info ") == 3
        assert_fits(terminal)


def test_progress_names_the_step_of_a_python_migration(runs: Runs, folder: Path) -> None:
    steps = "from yoyo import step\n\nstep('SELECT 1')\nstep('SELECT pg_sleep(4)')\n"
    write(folder, {"0001_steps.py": steps})
    with terminal_of(100) as terminal:
        running = runs.start(terminal)
        terminal.wait_for("[1/1] 0001_steps.py:4 ")
        assert running.result().code == 0


def test_progress_of_several_statements_in_one_message_names_only_the_file(
    runs: Runs, folder: Path
) -> None:
    write(folder, {"0001_several.sql": "SELECT 1;\nSELECT pg_sleep(4)"})
    with terminal_of(100) as terminal:
        running = runs.start(terminal)
        terminal.wait_for(re.compile(r"\[1/1\] 0001_several\.sql [2-4] s: .*PgSleep"))
        assert running.result().code == 0


def test_progress_names_the_blocker(runs: Runs, database: Database, folder: Path) -> None:
    database.execute("CREATE TABLE busy ()")
    write(folder, {"0001_busy.sql": "ALTER TABLE busy ADD x int"})
    with terminal_of(120) as terminal, database.connect() as app:
        app.execute("SET application_name = 'the app'; BEGIN; LOCK TABLE busy")
        pid = app.info.backend_pid
        running = runs.start(terminal, "--lock-timeout=0")
        terminal.wait_for(f"blocked by pid {pid} (the app")
        app.execute("COMMIT")
        assert running.result().code == 0
        time.sleep(0.1)
        assert_only_whole_lines(terminal)


@pytest.mark.any_version
def test_many_migrations_leave_whole_lines(runs: Runs, folder: Path) -> None:
    write(folder, {f"{n:04}_a.sql": "SELECT pg_sleep(0.05)" for n in range(60)})
    with terminal_of(60) as terminal:
        assert runs.on(terminal).code == 0
        assert_only_whole_lines(terminal)
        assert_fits(terminal)


@pytest.mark.any_version
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_signal_leaves_whole_lines(runs: Runs, folder: Path, how: str) -> None:
    write(folder, {"0001_sleeps.sql": "SELECT pg_sleep(60)"})
    with terminal_of(80) as terminal:
        running = runs.start(terminal)
        terminal.wait_for("PgSleep")
        if how == "Ctrl-C":
            terminal.type("\x03")
        else:
            running.send(signal.SIGTERM)
        result = running.result()
        time.sleep(0.1)
        assert result.code == (130 if how == "Ctrl-C" else 143)
        assert_only_whole_lines(terminal)
        assert "SIGINT" in terminal.raw or "SIGTERM" in terminal.raw


@pytest.mark.any_version
def test_signal_stops_a_run_whose_terminal_is_not_read(runs: Runs, folder: Path) -> None:
    write(
        folder, {"0001_sleeps.sql": "SELECT pg_sleep(3)", "0002_sleeps.sql": "SELECT pg_sleep(9)"}
    )
    with terminal_of(80) as terminal:
        running = runs.start(terminal)
        terminal.wait_for("PgSleep")
        terminal.stop_reading()
        time.sleep(3)  # the first statement has ended, but the log line blocks
        running.send(signal.SIGTERM)
        assert running.result(timeout=6).code == 143


@pytest.mark.any_version
def test_output_of_a_forked_process_is_on_a_separate_line(runs: Runs, folder: Path) -> None:
    steps = (
        "import os, time\nfrom yoyo import step\n"
        "def work(c):\n"
        "    time.sleep(2)\n"
        "    if os.fork() == 0:\n"
        "        print('from the child')\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    time.sleep(1)\n"
        "step(work)\n"
    )
    write(folder, {"0001_forks_and_has_a_name_that_is_longer_than_most.py": steps})
    with terminal_of(100) as terminal:
        assert runs.on(terminal).code == 0
        assert "[1/1] 0001_forks" in terminal.raw
        assert terminal.lines[0].endswith("from the child")
        assert_only_whole_lines(terminal)


@pytest.mark.any_version
def test_table_of_rehearse_contains_no_progress(runs: Runs, folder: Path) -> None:
    write(folder, {"0001_sleeps.sql": "SELECT 1;\nSELECT pg_sleep(4)"})
    with terminal_of(100) as terminal:
        running = runs.start(terminal, "rehearse")
        terminal.wait_for(re.compile(r"0001_sleeps\.sql:2 [2-4] s"))
        assert running.result().code == 0
        time.sleep(0.1)
        assert terminal.lines[0].startswith("statement")


@pytest.mark.any_version
def test_progress_shows_the_wait_for_the_database(runs: Runs, folder: Path) -> None:
    write(folder, FILES)
    with terminal_of(80) as terminal:
        url = "postgresql://u@127.0.0.1:1/d"
        running = runs.start(terminal, "--wait-timeout=3s", DATABASE_URL=url)
        terminal.wait_for(re.compile("waiting for the database [1-3] s of 3 s: "))
        assert running.result().code == 3
        time.sleep(0.1)
        assert_only_whole_lines(terminal)


@pytest.mark.any_version
def test_run_succeeds_if_the_terminal_is_resized_not_read_and_closed(
    runs: Runs, database: Database, folder: Path
) -> None:
    write(folder, {"0001_sleeps.sql": "SELECT pg_sleep(8); CREATE TABLE done ()"})
    terminal = Terminal(120, controls=False)
    running = runs.start(terminal)
    terminal.wait_for("PgSleep")
    terminal.resize(40)
    terminal.wait_for("…")
    terminal.stop_reading()
    time.sleep(1)
    terminal.close()
    assert running.result().code == 0
    assert "done" in database.tables()


@pytest.mark.any_version
@pytest.mark.parametrize("flags", [("--log-format=json",), ("--log-level=warning",)], ids=str)
def test_no_progress_with_json_or_warnings_only(
    runs: Runs, folder: Path, flags: tuple[str, ...]
) -> None:
    write(folder, {"0001_sleeps.sql": "SELECT pg_sleep(2.5)"})
    with terminal_of(80) as terminal:
        assert runs.on(terminal, *flags, "--color=never").code == 0
        assert "\x1b" not in terminal.raw
        assert "0001_sleeps.sql" not in terminal.raw


@pytest.mark.any_version
def test_dumb_terminal_gets_log_lines_for_the_progress(runs: Runs, folder: Path) -> None:
    write(folder, {"0001_sleeps.sql": "SELECT pg_sleep(11)"})
    with terminal_of(80) as terminal:
        assert runs.on(terminal, TERM="dumb").code == 0
        assert "\x1b" not in terminal.raw
        text = " ".join(" ".join(terminal.lines).split())
        assert re.search(r"0001_sleeps\.sql:1\W.* 1[01](\.\d)? s\b.*PgSleep", text)
