"""SIGTERM at any line of initmig's code: the run stops in order, and a rerun completes it."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from initmig.core.events import StoppedBySignal
from initmig.reporting.logs import event_text
from tests.faults.test_kill import BLOCKS, BY_PSYCOPG, DATA, MIXED, TRANSACTIONAL
from tests.support.fork_server import ForkServer, KillableRuns
from tests.support.kill_trial import KillTrial, Run
from tests.support.sigterm_at_line import AT, REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.proxy import Proxy

pytestmark = pytest.mark.any_version

ENDS = (143, -signal.SIGTERM)
STOPPED = f"{event_text(StoppedBySignal('SIGTERM', 143))}\n"
NOTICES = {"0001_n.sql": "CREATE TABLE t (a int); DO $$ BEGIN RAISE NOTICE 'one'; END $$;"}
RUNS = {
    "each": Run(("migrate",), TRANSACTIONAL),
    "all": Run(("migrate", "--transaction=all"), TRANSACTIONAL),
    "rollback": Run(("rollback", "--all"), TRANSACTIONAL, before=("migrate",)),
    "mixed": Run(("migrate",), MIXED),
    "data": Run(("migrate",), DATA | BY_PSYCOPG),
    "blocks of Python": Run(("migrate",), BLOCKS),
    "notices": Run(("migrate",), NOTICES),
    "notices by psycopg": Run(("migrate",), NOTICES | BY_PSYCOPG),
}


class SignalTrial(KillTrial):
    """Runs that receive a SIGTERM at a given line."""

    def __init__(self, run: Run, **options: object) -> None:
        self.report: Path | None = None
        super().__init__(run, **options)  # type: ignore[arg-type]
        self.begin()
        assert self.stop_at(0) == (0, "")
        assert self.report
        self.lines: int = int(self.report.read_text())

    def stop_at(self, line: int) -> tuple[int, str]:
        """The exit code of a run that gets the signal at *line*, and its errors."""
        self.report = self.folder.parent / "lines"
        env = {AT: str(line), REPORT: str(self.report)}
        argv = [*self._kind.argv, "--log-level=error", "--lock-timeout=1m", "--wait-timeout=20s"]
        done = self._runs.run(*argv, url=self.database.url, folder=self.folder, env=env)
        return done.code, done.err


@pytest.fixture(scope="module")
def fork() -> Iterator[ForkServer]:
    with closing(ForkServer("tests.support.sigterm_at_line")) as fork:
        yield fork


@pytest.fixture(params=RUNS)
def trial(
    request: pytest.FixtureRequest,
    database: Database,
    proxy: Proxy,
    killable_runs: KillableRuns,
    folder: Path,
) -> SignalTrial:
    run = RUNS[request.param]
    return SignalTrial(
        run, database=database, proxy=proxy, killable_runs=killable_runs, folder=folder
    )


@pytest.mark.parametrize("signals", [8, pytest.param(48, marks=pytest.mark.exhaustive)])
def test_rerun_completes_after_sigterm_at_any_line(trial: SignalTrial, signals: int) -> None:
    for line in range(1, trial.lines, max(1, trial.lines // signals)):
        trial.begin()
        code, errors = trial.stop_at(line)
        if code == 0:  # the signal arrived in the last lines
            assert trial.snapshot() == trial.undisturbed, line
            continue
        # before there is anything to clean up, the signal itself kills it
        expected = STOPPED if code == 143 else ""
        assert (code in ENDS, errors.partition("error   ")[2]) == (True, expected), (
            line,
            code,
            errors,
        )
        assert trial.run(trial.database.url) == (0, ""), line
        assert trial.snapshot() == trial.undisturbed, line
