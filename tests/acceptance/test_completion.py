"""Real shells on a terminal complete `initmig` with the installed script."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from initmig.cli.help import settings_of
from initmig.config.options import COMMANDS, SHELLS, TOPICS
from tests.support.command import COMMAND
from tests.support.shells import complete_in_fish, completing_shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Complete = Callable[[str], list[str]]


def script(shell: str) -> str:
    command = [str(COMMAND), "completion", shell]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@pytest.fixture(scope="module", params=SHELLS)
def complete(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Complete]:
    """Returns the words that a shell offers for the end of a line."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    cwd = tmp_path_factory.mktemp(shell)
    path = cwd / "script"
    path.write_text(script(shell))
    (cwd / "db" / "migrations").mkdir(parents=True)
    (cwd / "targets.toml").touch()
    if shell == "fish":
        yield lambda line: complete_in_fish(path, line, cwd=cwd)
        return
    with ExitStack() as stack:
        yield stack.enter_context(completing_shell(shell, path, cwd=cwd))


@pytest.mark.parametrize("shell", SHELLS)
def test_script_has_no_syntax_errors(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(script(shell))
    result = subprocess.run([shell, "-n", path], capture_output=True, check=False, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("initmig sta", ["status"]),
        ("initmig ver", ["verify", "version"]),
        ("initmig --schema a sta", ["status"]),
        ("initmig --schema=a sta", ["status"]),
        ("initmig --allow-empty sta", ["status"]),
        ("initmig rollback --irr", ["--irreversible"]),
        ("initmig status --ch", ["--changed", "--check"]),
        ("initmig status --log-format json --che", ["--check"]),
        ("initmig --par", ["--parallel"]),
        ("initmig new --p", ["--python"]),
        ("initmig --log-format ", ["json", "text"]),
        ("initmig status --log-level deb", ["debug"]),
        ("initmig rollback --irreversible ", ["fail", "skip"]),
        ("initmig wait --for ", ["database", "migrations"]),
        ("initmig migrate --targets targ", ["targets.toml"]),
        ("initmig status --migrations d", ["db"]),
        ("initmig --migrations db/", ["db/migrations"]),
        ("initmig help exi", ["exit-codes"]),
        ("initmig help ", sorted([*COMMANDS, *TOPICS])),
        ("initmig completion ", ["bash", "fish", "zsh"]),
        ("initmig exec -- basena", ["basename"]),
        ("initmig exec --log-format json -- basena", ["basename"]),
        ("initmig exec -- ls targ", ["targets.toml"]),
        ("initmig ", sorted(COMMANDS)),
    ],
)
def test_line_is_completed(line: str, words: list[str], complete: Complete) -> None:
    assert offered(complete, line) == words


def offered(complete: Complete, line: str) -> list[str]:
    """The offered words, sorted; empty if the shell leaves the line unchanged."""
    words = sorted(word.rstrip("/") for word in complete(line))
    typed = "" if line.endswith(" ") else line.rsplit(maxsplit=1)[-1]
    return [] if words == [typed] else words


def test_value_is_completed_after_an_equals_sign(complete: Complete) -> None:
    [word] = complete("initmig --log-format=js")
    assert word == "--log-format=json"
    values = {word.removeprefix("--allow-empty=") for word in complete("initmig --allow-empty=")}
    assert values == {"yes", "no"}


def test_word_on_the_line_is_not_offered_again(complete: Complete) -> None:
    assert not {*SHELLS, *COMMANDS} & set(complete("initmig completion bash "))


def test_only_flags_with_an_effect_are_offered(complete: Complete) -> None:
    flags = {word.rstrip("=") for word in complete("initmig wait --")}
    assert flags == {"--for", "--help", *(option.flag for option in settings_of("wait"))}
