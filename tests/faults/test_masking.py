"""SQL with secrets, in all quotes, comments and line breaks: no output contains a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from initmig.sql.lines import Lines
from initmig.sql.masking import mask_sql
from tests.support.examples import examples
from tests.support.migrations import write
from tests.support.secret_forms import CANARY, secret_sql

if TYPE_CHECKING:
    from tests.support.databases import Database
    from tests.support.fork_server import KillableRuns

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version


@pytest.mark.long
@settings(max_examples=examples(1000))
@given(secret_sql(quotes=False), secret_sql(quotes=True))
def test_masked_sql_hides_only_the_secrets(first: tuple[str, str], second: tuple[str, str]) -> None:
    assert mask_sql(first[0]) == first[1]
    both = f"{second[0]};\n{first[0]}"
    assert CANARY not in mask_sql(both)
    lines = Lines("a.sql", both.encode())
    for offset in range(0, len(both.encode()), 7):
        assert CANARY not in lines.place(offset).source


@pytest.mark.parametrize(
    "number", [2, pytest.param(120, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_no_run_prints_a_secret(
    number: int,
    killable_runs: KillableRuns,
    database: Database,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(
        max_examples=examples(number),
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(secret_sql(quotes=True))
    def check(sql: tuple[str, str]) -> None:
        folder = tmp_path_factory.mktemp("migrations")
        # the last statement fails if the statement with the secret succeeds
        write(folder, {"0001_a.sql": f"{sql[0]}; SELECT oops"})
        outcome = folder.with_suffix(".outcome")
        env = {"INITMIG_TERMINATION_LOG": str(outcome), "INITMIG_LOG_LEVEL": "debug"}
        for words in (["migrate"], ["plan"], ["rehearse", "--json"]):
            result = killable_runs.run(*words, url=database.url, folder=folder, env=env)
            assert CANARY not in result.out + result.err + outcome.read_text()

    check()
