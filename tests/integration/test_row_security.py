"""Row level security on the history is never switched off, and named if it might hide rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import JSON
from tests.support.databases import Database
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.processes import Result

pytestmark = pytest.mark.any_version

APPLIED = {"0001_a.sql": "CREATE TABLE a ()"}
PENDING = {"0002_b.sql": "CREATE TABLE b ()"}
ENABLE = "ALTER TABLE _yoyo_migration ENABLE ROW LEVEL SECURITY"
FORCE = "ALTER TABLE _yoyo_migration FORCE ROW LEVEL SECURITY"
SEE_ALL = "CREATE POLICY see_all ON _yoyo_migration FOR SELECT USING (true)"
READ = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT ON _yoyo_migration, _initmig_migration, _yoyo_log TO {role}",
)
OWN = (
    "GRANT ALL ON SCHEMA public TO {role}",
    *(
        f"ALTER TABLE {table} OWNER TO {{role}}"
        for table in (
            "_yoyo_migration",
            "_yoyo_log",
            "_yoyo_version",
            "yoyo_lock",
            "_initmig_migration",
        )
    ),
)


class Case:
    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self._folder = folder
        self.database = database
        write(folder, APPLIED)
        assert initmig(url=database.url, folder=folder).code == 0

    def write(self, files: dict[str, str]) -> None:
        write(self._folder, files)

    def run(self, *words: str, url: str) -> Result:
        return self._initmig(*words, url=url, folder=self._folder, env=JSON, timeout=60)


@pytest.fixture
def case(initmig: Initmig, database: Database, folder: Path) -> Case:
    return Case(initmig, database, folder)


def events(result: Result, kind: str) -> list[dict[str, Any]]:
    return [event for event in result.events if event["event"] == kind]


def test_no_warning_for_roles_that_row_security_does_not_apply_to(case: Case) -> None:
    case.database.execute(ENABLE)
    owner = case.database.login_role(*OWN)
    case.write(PENDING)
    for url in (owner, case.database.url):
        result = case.run("status", url=url)
        assert (result.code, events(result, "row_security_active")) == (0, []), result.err
    result = case.run("migrate", url=owner)
    assert (result.code, events(result, "row_security_active")) == (0, []), result.err
    assert {"a", "b"} <= case.database.tables()


WAIT = ("wait", "--wait-timeout=1s")


@pytest.mark.parametrize("command", [WAIT, ("status",), ("status", "--check")])
def test_hidden_history_is_an_error_instead_of_all_pending(
    case: Case, command: tuple[str, ...]
) -> None:
    case.database.execute(ENABLE)
    reader = case.database.login_role(*READ)
    result = case.run(*command, url=reader)
    [error] = events(result, "failed")
    assert (result.code, error["error"]) == (6, "history-hidden")
    assert "_yoyo_migration" in error["message"]
    assert "CREATE POLICY" in error["next"]


@pytest.mark.parametrize(
    "command", ["migrate", "rehearse", "plan", "baseline --to=0001_a", "rollback --all"]
)
def test_nothing_runs_if_all_rows_are_hidden_from_the_owner(case: Case, command: str) -> None:
    case.database.execute(f"{ENABLE}; {FORCE}")
    owner = case.database.login_role(*OWN)
    case.write(PENDING)
    result = case.run(*command.split(), url=owner)
    [error] = events(result, "failed")
    assert (result.code, error["error"]) == (6, "history-hidden")
    assert "b" not in case.database.tables()


def test_policy_that_shows_all_rows_is_named_once_if_something_is_pending(case: Case) -> None:
    case.database.execute(f"{ENABLE}; {SEE_ALL}")
    reader = case.database.login_role(*READ)
    result = case.run(*WAIT, url=reader)
    assert (result.code, events(result, "row_security_active")) == (0, []), result.err
    case.write(PENDING)
    for command, code in ((WAIT, 7), (("status",), 0), (("status", "--check"), 7)):
        result = case.run(*command, url=reader)
        [event] = events(result, "row_security_active")[:1]
        assert (result.code, event["policies"]) == (code, ["see_all"]), result.err
    assert len(events(case.run(*WAIT, url=reader), "row_security_active")) == 1


def test_policy_for_another_role_shows_no_rows(case: Case) -> None:
    other = Database(case.database.login_role()).value("SELECT current_user")
    policy = f"CREATE POLICY theirs ON _yoyo_migration FOR SELECT TO {other} USING (true)"
    case.database.execute(f"{ENABLE}; {policy}")
    result = case.run("status", url=case.database.login_role(*READ))
    [error] = events(result, "failed")
    assert (result.code, error["error"]) == (6, "history-hidden")


def test_writers_trust_no_policy_and_readers_none_that_calls_a_function(case: Case) -> None:
    case.database.execute(f"{ENABLE}; {SEE_ALL}")
    owner = case.database.login_role(*OWN)
    result = case.run("migrate", url=owner)
    [error] = events(result, "failed")
    assert (result.code, error["error"]) == (6, "untrusted-history")
    assert "see_all" in error["message"]
    case.database.execute(
        "CREATE POLICY calls ON _yoyo_migration FOR SELECT USING (pg_sleep(0) IS NOT NULL)"
    )
    result = case.run("status", url=case.database.login_role(*READ))
    [error] = events(result, "failed")
    assert (result.code, error["error"]) == (6, "untrusted-history")
    assert "calls" in error["message"]
