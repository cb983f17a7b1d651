"""A history is refused if its tables could run another role's code, and otherwise accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.command import Initmig
from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.planted import struck
from tests.support.planted_history import (
    HARMLESS,
    IN_ITS_PLACE,
    ON_TRUE_TABLE,
    STRIKE,
    TABLES,
    WITH_CODE,
    add,
    change,
    replace,
)
from tests.support.servers import running_server
from tests.support.statement_log import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dev.postgres import Server
    from tests.support.forking import Fork
    from tests.support.processes import Processes, Result

FIRST = {"0001_a.sql": "CREATE TABLE a ();", "0001_a.rollback.sql": "DROP TABLE a;"}
SECOND = {"0002_b.sql": "CREATE TABLE b ();", "0002_b.rollback.sql": "DROP TABLE b;"}

WRITING = (
    ("migrate",),
    ("migrate", "--transaction=all"),
    ("rollback", "--all"),
    ("baseline", "--to=0002_b"),
    ("rehearse",),
    ("plan",),
    ("unlock",),
)
READING = (("status",), ("status", "--check"), ("wait",))
REFUSED = 6
ID = "[untrusted-history]"


@pytest.fixture(scope="session")
def logging(cluster: Path) -> Iterator[Server]:
    with running_server(cluster, settings=SETTINGS) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE attacker")
        yield server


class Town:
    """A database on which the first migration is applied, and the command."""

    def __init__(self, server: Server, initmig: Initmig, folder: Path) -> None:
        self.database: Database = create_database(server)
        self._server = server
        self._initmig = initmig
        self._folder = write(folder, FIRST)
        assert self.run("migrate").code == 0
        self._since = 0

    def run(self, *arguments: str, url: str = "") -> Result:
        env = {"INITMIG_WAIT_TIMEOUT": "10s", "INITMIG_QUEUE_TIMEOUT": "10s"}
        return self._initmig(*arguments, url=url or self.database.url, folder=self._folder, env=env)

    def add_migration(self) -> None:
        write(self._folder, SECOND)

    def plant(self, how: Callable[[Database, str, str], None], table: str, script: str) -> None:
        how(self.database, table, script)
        self.begin()

    def begin(self) -> None:
        """Count hostile code that runs from now on."""
        self._since = self._server.log_size()

    def struck(self) -> set[str]:
        return struck(self._server.log_text(since=self._since))


@pytest.fixture
def town(logging: Server, processes: Processes, fork: Fork, folder: Path) -> Town:
    return Town(logging, Initmig(processes, fork), folder)


def _in_each_table(scripts: dict[str, str]) -> list[object]:
    """Each of *scripts* for one table; in the long tests, also for the other tables."""
    return [
        pytest.param(
            table,
            script,
            id=f"{table}-{name}",
            marks=[] if table == TABLES[number % len(TABLES)] else [pytest.mark.long],
        )
        for number, (name, script) in enumerate(scripts.items())
        for table in TABLES
    ]


def _refusals(town: Town, *commands: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    """The exit codes and errors of the *commands* that did not refuse the history."""
    results = {" ".join(command): town.run(*command) for command in commands}
    return {
        command: (result.code, result.err)
        for command, result in results.items()
        if result.code != REFUSED or ID not in result.err
    }


@pytest.mark.parametrize(("table", "script"), _in_each_table(IN_ITS_PLACE))
def test_what_is_no_plain_table_is_refused_by_all_commands(
    town: Town, table: str, script: str
) -> None:
    town.plant(replace, table, script)
    others = _refusals(town, ("migrate",))
    town.add_migration()
    others |= _refusals(town, *WRITING, *READING)
    assert (others, town.struck()) == ({}, set())


@pytest.mark.parametrize(("table", "script"), _in_each_table(WITH_CODE))
def test_table_of_another_role_is_refused_by_all_that_write(
    town: Town, table: str, script: str
) -> None:
    town.plant(replace, table, script)
    others = _refusals(town, ("migrate",))
    for command in READING:
        town.run(*command)
    town.add_migration()
    others |= _refusals(town, *WRITING)
    assert (others, town.struck()) == ({}, set())


@pytest.mark.parametrize(
    ("table", "script"),
    _in_each_table({name: script for name, script in WITH_CODE.items() if name != "plain"}),
)
def test_table_with_code_is_refused_whoever_owns_it(town: Town, table: str, script: str) -> None:
    town.plant(replace, table, script)
    town.database.execute(f"ALTER TABLE public.{table} OWNER TO postgres")
    # without pending migrations it may accept the table, but must not run its code
    for command in (("migrate",), *READING):
        town.run(*command)
    town.add_migration()
    others = _refusals(town, *WRITING)
    assert (others, town.struck()) == ({}, set())


@pytest.mark.parametrize(("table", "script"), _in_each_table(ON_TRUE_TABLE))
def test_what_privileges_on_the_table_allow_does_not_run(
    town: Town, table: str, script: str
) -> None:
    town.plant(add, table, script)
    for command in (*READING, ("migrate",)):
        town.run(*command)
    town.add_migration()
    for command in (("rehearse",), ("migrate",), ("rollback", "--all")):
        town.run(*command)
    assert town.struck() == set()


IN_OWN_SCHEMA = {
    "type": "CREATE TABLE {t} AS SELECT ROW(migration_id::text)::own AS migration_id FROM {true}",
    "policy": "CREATE TABLE {t} AS SELECT * FROM {true}; ALTER TABLE {t} ENABLE ROW LEVEL SECURITY;"
    " CREATE POLICY p ON {t} USING (strike('policy'))",
    "index": "CREATE TABLE {t} AS SELECT * FROM {true};"
    " CREATE INDEX ON {t} (migration_id) WHERE calmly('index')",
    "view": "CREATE VIEW {t} AS SELECT * FROM {true} WHERE strike('view')",
}
"""Objects that another role creates in its own schema, which is first in the search path."""


@pytest.mark.parametrize("name", IN_OWN_SCHEMA)
def test_history_in_a_schema_where_only_another_role_may_create_runs_nothing(
    logging: Server, processes: Processes, fork: Fork, folder: Path, name: str
) -> None:
    town = Town(logging, Initmig(processes, fork), folder)
    migrator = town.database.login_role(
        "GRANT ALL ON SCHEMA public TO {role}",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        *(f"ALTER TABLE {table} OWNER TO {{role}}" for table in TABLES),
    )
    role = Database(migrator).value("SELECT current_user")
    town.database.execute(f"CREATE SCHEMA {role}; SET search_path = {role}; {STRIKE}")
    script = IN_OWN_SCHEMA[name].format(t="_yoyo_migration", true="public._yoyo_migration")
    town.database.execute(
        f"SET search_path = {role}; {script}; GRANT USAGE ON SCHEMA {role} TO PUBLIC;"
        f" GRANT SELECT ON {role}._yoyo_migration TO PUBLIC;"
        f" ALTER SCHEMA {role} OWNER TO attacker"
    )
    kind = "VIEW" if name == "view" else "TABLE"
    town.database.execute(f"ALTER {kind} {role}._yoyo_migration OWNER TO attacker")
    town.begin()
    for command in (*READING, *WRITING):
        assert ID in town.run(*command, url=migrator).err
    assert town.struck() == set()


@pytest.mark.parametrize(("table", "script"), _in_each_table(HARMLESS))
def test_history_that_runs_nobodys_code_is_accepted(town: Town, table: str, script: str) -> None:
    town.plant(change, table, script)
    assert town.run("migrate").code == 0
    town.add_migration()
    others = {}
    for command in (
        ("rehearse",),
        ("migrate",),
        ("status", "--check"),
        ("wait",),
        ("rollback", "--all"),
    ):
        result = town.run(*command)
        if result.code != 0:
            others[command] = result.err
    assert others == {}
