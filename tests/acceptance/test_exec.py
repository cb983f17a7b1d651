import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import Initmig
from tests.support.databases import Database
from tests.support.migrations import write

FILES = {"0001_a.sql": "CREATE TABLE a ()"}


def script(folder: Path, text: str, *, mode: int = 0o755) -> str:
    path = folder.with_name("program")
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_program_replaces_initmig_after_migrating(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    code = (
        "import json, os, sys, signal\n"
        "print(json.dumps([os.getpid(), sys.argv[1:], os.environ['DATABASE_URL'], os.environ['X'],"
        " [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]], default=str))\n"
    )
    program = script(folder, code)
    words = ["exec", "--", sys.executable, program, "--help", "--", "a b"]
    running = initmig.start(
        *words, url=database.url, folder=write(folder, FILES), env={"X": "kept"}
    )
    pid, argv, url, x, (on_term, _) = json.loads(running.result().out)
    assert (pid, argv) == (running.pid, ["--help", "--", "a b"])
    assert (url, x) == (database.url, "kept")
    assert on_term == 0  # SIG_DFL
    assert "a" in database.tables()
    assert "applied 0001_a" in running.err


def test_program_starts_with_the_signal_settings_of_a_shell(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    program = ["grep", "^Sig[IB]", "/proc/self/status"]
    result = initmig("exec", "--", *program, url=database.url, folder=write(folder, FILES))
    # Python ignores SIGPIPE and SIGXFSZ; a program that a shell starts does not
    directly = subprocess.run(program, capture_output=True, text=True, check=True)
    assert result.out == directly.stdout


def test_exit_code_is_that_of_the_program(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    words = ["exec", "--", "sh", "-c", "exit 42"]
    assert initmig(*words, url=database.url, folder=write(folder, FILES)).code == 42


def test_program_handles_its_own_signals(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    words = ["exec", "--", "sh", "-c", "trap 'exit 7' TERM; echo ready >&2; while :; do :; done"]
    running = initmig.start(*words, url=database.url, folder=write(folder, FILES))
    running.wait_for_line("ready")
    running.terminate()
    assert running.result().code == 7


def test_program_inherits_no_connection(initmig: Initmig, database: Database, folder: Path) -> None:
    words = ["exec", "--", "sh", "-c", "ls -l /proc/self/fd | grep -c socket:"]
    result = initmig(*words, url=database.url, folder=write(folder, FILES))
    assert result.out == "0\n"


@pytest.mark.parametrize("program", ["no-such-command", "./nothing", "/", ""])
def test_missing_program_is_reported_before_anything_is_applied(
    program: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    words = ["exec", "--", program]
    result = initmig(*words, url=database.url, folder=write(folder, FILES))
    assert f"cannot run {program}: " in result.err
    assert "[command-not-found]\n" in result.err
    assert "nothing was applied" in result.err
    assert (result.code, database.tables()) == (2, set())


def test_non_executable_program_is_reported_before_anything_is_applied(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    program = script(folder, "#!/bin/sh\n", mode=0o644)
    result = initmig("exec", "--", program, url=database.url, folder=write(folder, FILES))
    assert f"cannot run {program}: " in result.err
    assert "[command-not-found]\n" in result.err
    assert (result.code, database.tables()) == (2, set())


def test_program_that_cannot_start_is_reported_in_log_and_termination_log(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    program = script(folder, "no first line\n")
    outcome = folder.with_name("outcome")
    env = {"INITMIG_TERMINATION_LOG": str(outcome)}
    result = initmig("exec", "--", program, url=database.url, folder=write(folder, FILES), env=env)
    assert outcome.read_text().startswith(
        f"cannot run {program}: Exec format error [command-not-found]\n"
    )
    assert outcome.read_text() in result.err
    assert result.code == 2


def test_program_does_not_start_if_a_migration_fails(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    words = ["exec", "--", "echo", "started"]
    result = initmig(*words, url=database.url, folder=write(folder, {"0001_a.sql": "SELECT x"}))
    assert (result.code, result.out) == (1, "")
