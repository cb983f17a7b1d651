"""Help, version and unknown words of the installed command, without a database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from initmig.cli.help import help_text
from initmig.config.options import COMMANDS, TOPICS
from initmig.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.processes import Processes

# All of these values are invalid, and the help ignores them.
WRONG = {
    "DATABASE_URL": "mysql://h",
    "INITMIG_WAIT_TIMEOUT": "soon",
    "INITMIG_MIGRATIONS": "/nowhere",
    "INITMIG_LOG_LEVEL": "loud",
}


@pytest.mark.parametrize(
    ("argv", "topic"),
    [
        (["--help"], ""),
        (["-h"], ""),
        (["help"], ""),
        (["--schema", "status", "-h"], ""),
        (["migrate", "--help"], "migrate"),
        (["--help", "status"], "status"),
        (["status", "-h", "--nonsense"], "status"),
        (["--log-format", "json", "wait", "--help"], "wait"),
        (["exec", "--help", "--", "server"], "exec"),
        (["help", "--help"], "help"),
        *((["help", topic], topic) for topic in (*COMMANDS, *TOPICS)),
    ],
    ids=str,
)
def test_help_goes_to_stdout_despite_invalid_settings(
    argv: list[str], topic: str, initmig: Initmig
) -> None:
    result = initmig(*argv, env=WRONG)
    assert (result.code, result.err) == (0, "")
    assert result.out == help_text(topic) + "\n"


def test_python_runs_the_package_as_the_command(processes: Processes) -> None:
    result = processes.start([sys.executable, "-m", "initmig", "--version"]).result()
    assert (result.code, result.out) == (0, f"initmig {__version__}\n")


@pytest.mark.parametrize("argv", [["version"], ["--version"], ["status", "--version"]], ids=str)
def test_version_is_printed(argv: list[str], initmig: Initmig) -> None:
    result = initmig(*argv, env=WRONG)
    assert (result.code, result.out, result.err) == (0, f"initmig {__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "id", "named"),
    [
        (["up"], "unknown-command", "`initmig migrate`"),
        (["up", "--help"], "unknown-command", "`initmig migrate`"),
        (["help", "up"], "unknown-command", "`initmig migrate`"),
        (["help", "setings"], "unknown-command", "settings"),
        (["help", "settings", "status"], "unexpected-argument", "--help"),
        (["migrate", "--dry-run"], "unknown-flag", "`initmig plan`"),
        (["--verbose"], "unknown-flag", "--log-level"),
        (["version", "--json"], "misplaced-flag", "status"),
        (["completion"], "missing-argument", "initmig completion bash"),
        (["completion", "tcsh"], "missing-argument", "initmig completion bash"),
    ],
    ids=str,
)
def test_invalid_command_line_runs_nothing_and_names_the_next_step(
    argv: list[str], id: str, named: str, initmig: Initmig, folder: Path
) -> None:
    result = initmig("--log-format=json", *argv, folder=folder)
    assert (result.code, result.out) == (2, "")
    [event] = result.events
    assert (event["event"], event["error"]) == ("failed", id)
    assert named in event["next"]
