"""No output shows a secret of a migration, even if the server repeats it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write
from tests.support.secret_forms import CANARY, FORMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.fork_server import KillableRuns

    Outputs = Mapping[str, tuple[list[str], Mapping[str, str]]]

# the server repeats the secret in its error
OF_A_FAILURE: Outputs = {
    "text": (["migrate"], {}),
    "JSON": (["migrate"], {"INITMIG_LOG_FORMAT": "json"}),
    "rehearse": (["rehearse"], {}),
    "rehearse --json": (["rehearse", "--json"], {"INITMIG_LOG_FORMAT": "json"}),
    "rehearse --markdown": (["rehearse", "--markdown"], {}),
}
OF_FILES: Outputs = {
    "plan": (["plan"], {}),
    "plan --json": (["plan", "--json"], {}),
    "doctor": (["doctor"], {}),
    "status": (["status"], {}),
}
FAILING = ("text", "JSON")


class Shown:
    """The outputs of each command and format for a migration."""

    def __init__(self, killable_runs: KillableRuns, database: Database, folder: Path) -> None:
        self._forking, self._database, self._folder = killable_runs, database, folder

    def of(self, files: Mapping[str, str], outputs: Outputs) -> Iterator[tuple[str, str]]:
        write(self._folder, files)
        outcome = self._folder.with_name("outcome")
        for name, (arguments, env) in outputs.items():
            variables = {
                "INITMIG_TERMINATION_LOG": str(outcome),
                "INITMIG_LOG_LEVEL": "debug",
                "INITMIG_WAIT_TIMEOUT": "1s",
                **env,
            }
            result = self._forking.run(
                *arguments, url=self._database.url, folder=self._folder, env=variables
            )
            assert "Traceback" not in result.err
            if name in FAILING:
                assert result.code in (1, 2, 4), result.err
            yield f"{name}: stdout", result.out
            yield f"{name}: stderr", result.err
            yield f"{name}: outcome", outcome.read_text()


@pytest.fixture
def shown(killable_runs: KillableRuns, database: Database, folder: Path) -> Shown:
    return Shown(killable_runs, database, folder)


def in_python(sql: str) -> str:
    return f"from yoyo import step\nstep({sql!r})\nstep('SELECT oops')\n"


def assert_hidden(shown: Shown, files: Mapping[str, str], outputs: Outputs) -> None:
    found = {where: text for where, text in shown.of(files, outputs) if CANARY in text}
    assert found == {}


@pytest.mark.parametrize("name", FORMS)
def test_no_output_shows_the_secret(name: str, shown: Shown) -> None:
    assert_hidden(shown, {"0001_a.sql": f"{FORMS[name]}; SELECT oops"}, OF_A_FAILURE)


NOT_IN_A_STEP = ("COPY data", "behind a stray quote", "comment")
"""Forms that a step cannot have: psql's data, a preceding statement, or only a comment."""
OF_A_STEP = {name: form for name, form in FORMS.items() if name not in NOT_IN_A_STEP}


@pytest.mark.any_version
@pytest.mark.parametrize("name", OF_A_STEP)
def test_no_output_shows_the_secret_of_a_python_step(name: str, shown: Shown) -> None:
    assert_hidden(shown, {"0001_a.py": in_python(OF_A_STEP[name])}, OF_A_FAILURE)


PENDING = {
    "SQL": {f"{n:04}_a.sql": f"{form}; SELECT oops" for n, form in enumerate(FORMS.values())},
    "Python": {f"{n:04}_a.py": in_python(form) for n, form in enumerate(OF_A_STEP.values())},
}


@pytest.mark.parametrize("files", PENDING.values(), ids=PENDING)
def test_no_output_about_pending_files_shows_their_secrets(
    files: Mapping[str, str], shown: Shown
) -> None:
    assert_hidden(shown, files, OF_FILES)
