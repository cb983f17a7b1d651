"""A history is refused if its tables could run another role's code, and otherwise accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.command import Initmig
from tests.support.databases import Database, create_database
from tests.support.hostile_history import (
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
from tests.support.hostile_objects import executed
from tests.support.migrations import write
from tests.support.servers import running_server
from tests.support.statement_log import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dev.postgres import Server
    from tests.support.fork_server import ForkServer
    from tests.support.processes import Processes, Result

# The client refuses such tables. It asks catalogs that are the same in each version.
pytestmark = pytest.mark.any_version

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


class History:
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

    def executed(self) -> set[str]:
        return executed(self._server.log_text(since=self._since))


@pytest.fixture
def history(logging: Server, processes: Processes, fork: ForkServer, folder: Path) -> History:
    return History(logging, Initmig(processes, fork), folder)


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


def _refusals(history: History, *commands: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    """The exit codes and errors of the *commands* that did not refuse the history."""
    results = {" ".join(command): history.run(*command) for command in commands}
    return {
        command: (result.code, result.err)
        for command, result in results.items()
        if result.code != REFUSED or ID not in result.err
    }


@pytest.mark.parametrize(("table", "script"), _in_each_table(IN_ITS_PLACE))
def test_all_commands_refuse_a_relation_that_is_not_a_plain_table(
    history: History, table: str, script: str
) -> None:
    history.plant(replace, table, script)
    others = _refusals(history, ("migrate",))
    history.add_migration()
    others |= _refusals(history, *WRITING, *READING)
    assert (others, history.executed()) == ({}, set())


@pytest.mark.parametrize(("table", "script"), _in_each_table(WITH_CODE))
def test_writing_commands_refuse_a_table_of_another_role(
    history: History, table: str, script: str
) -> None:
    history.plant(replace, table, script)
    others = _refusals(history, ("migrate",))
    for command in READING:
        history.run(*command)
    history.add_migration()
    others |= _refusals(history, *WRITING)
    assert (others, history.executed()) == ({}, set())


@pytest.mark.parametrize(
    ("table", "script"),
    _in_each_table({name: script for name, script in WITH_CODE.items() if name != "plain"}),
)
def test_writing_commands_refuse_a_table_with_code_of_any_owner(
    history: History, table: str, script: str
) -> None:
    history.plant(replace, table, script)
    history.database.execute(f"ALTER TABLE public.{table} OWNER TO postgres")
    # without pending migrations it may accept the table, but must not run its code
    for command in (("migrate",), *READING):
        history.run(*command)
    history.add_migration()
    others = _refusals(history, *WRITING)
    assert (others, history.executed()) == ({}, set())


@pytest.mark.parametrize(("table", "script"), _in_each_table(ON_TRUE_TABLE))
def test_code_added_with_privileges_on_the_table_does_not_run(
    history: History, table: str, script: str
) -> None:
    history.plant(add, table, script)
    for command in (*READING, ("migrate",)):
        history.run(*command)
    history.add_migration()
    for command in (("rehearse",), ("migrate",), ("rollback", "--all")):
        history.run(*command)
    assert history.executed() == set()


IN_FIRST_SCHEMA = {
    "type": "CREATE TABLE {t} AS SELECT ROW(migration_id::text)::own AS migration_id FROM {true}",
    "policy": "CREATE TABLE {t} AS SELECT * FROM {true}; ALTER TABLE {t} ENABLE ROW LEVEL SECURITY;"
    " CREATE POLICY p ON {t} USING (strike('policy'))",
    "index": "CREATE TABLE {t} AS SELECT * FROM {true};"
    " CREATE INDEX ON {t} (migration_id) WHERE calmly('index')",
    "view": "CREATE VIEW {t} AS SELECT * FROM {true} WHERE strike('view')",
}
"""Objects that another role creates in its own schema, which is first in the search path."""


@pytest.mark.parametrize("name", IN_FIRST_SCHEMA)
def test_history_in_a_schema_of_another_role_is_refused_and_runs_nothing(
    logging: Server, processes: Processes, fork: ForkServer, folder: Path, name: str
) -> None:
    history = History(logging, Initmig(processes, fork), folder)
    migrator = history.database.login_role(
        "GRANT ALL ON SCHEMA public TO {role}",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        *(f"ALTER TABLE {table} OWNER TO {{role}}" for table in TABLES),
    )
    role = Database(migrator).value("SELECT current_user")
    history.database.execute(f"CREATE SCHEMA {role}; SET search_path = {role}; {STRIKE}")
    script = IN_FIRST_SCHEMA[name].format(t="_yoyo_migration", true="public._yoyo_migration")
    history.database.execute(
        f"SET search_path = {role}; {script}; GRANT USAGE ON SCHEMA {role} TO PUBLIC;"
        f" GRANT SELECT ON {role}._yoyo_migration TO PUBLIC;"
        f" ALTER SCHEMA {role} OWNER TO attacker"
    )
    kind = "VIEW" if name == "view" else "TABLE"
    history.database.execute(f"ALTER {kind} {role}._yoyo_migration OWNER TO attacker")
    history.begin()
    for command in (*READING, *WRITING):
        assert ID in history.run(*command, url=migrator).err
    assert history.executed() == set()


@pytest.mark.parametrize(("table", "script"), _in_each_table(HARMLESS))
def test_harmless_changes_of_the_history_tables_are_accepted(
    history: History, table: str, script: str
) -> None:
    history.plant(change, table, script)
    assert history.run("migrate").code == 0
    history.add_migration()
    others = {}
    for command in (
        ("rehearse",),
        ("migrate",),
        ("status", "--check"),
        ("wait",),
        ("rollback", "--all"),
    ):
        result = history.run(*command)
        if result.code != 0:
            others[command] = result.err
    assert others == {}
