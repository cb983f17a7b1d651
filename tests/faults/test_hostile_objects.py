"""initmig's statements never use objects that other roles create on the search path."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from tests.support.command import Initmig
from tests.support.databases import Database, create_database
from tests.support.hostile_history import TABLES
from tests.support.hostile_objects import executed, hostile_objects_for
from tests.support.pgbouncer import running_pgbouncer
from tests.support.releases import FIRST, has_commit
from tests.support.scenarios import SCENARIOS, Scenario, Stage
from tests.support.servers import running_server
from tests.support.statement_log import SETTINGS, sent_by_initmig
from tests.support.unqualified_names import unqualified_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dev.postgres import Server
    from tests.support.fork_server import ForkServer
    from tests.support.pgbouncer import PgBouncer
    from tests.support.processes import Processes
    from tests.support.unqualified_names import UnqualifiedName
    from tests.support.yoyo import Yoyo

_numbers = count()


class LoggingServer:
    """A server that logs each statement, with objects that many tests share."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self._stack = stack
        self._pooler: PgBouncer | None = None
        self._template = ""

    def pooled_url(self, database: str) -> str:
        """The URL of *database* through a PgBouncer."""
        if self._pooler is None:
            self._pooler = self._stack.enter_context(running_pgbouncer(self.server))
        return self._pooler.url(database)

    def template(self) -> str:
        """The name of a database whose schema `hostile` has all hostile objects."""
        if not self._template:
            database = create_database(self.server)
            with database.connect() as connection:
                script = hostile_objects_for(connection, "hostile")
                connection.execute("CREATE ROLE attacker; CREATE ROLE owner")
                connection.execute("CREATE SCHEMA hostile AUTHORIZATION attacker")
                connection.execute("GRANT USAGE ON SCHEMA hostile TO PUBLIC")
                connection.execute(f"SET ROLE attacker; {script}".encode())
            self._template = database.name
        return self._template


@pytest.fixture(scope="session")
def logging_server(cluster: Path) -> Iterator[LoggingServer]:
    with ExitStack() as stack:
        yield LoggingServer(stack.enter_context(running_server(cluster, settings=SETTINGS)), stack)


class Programs(NamedTuple):
    """The programs that run on a stage."""

    initmig: Initmig
    first_release: Initmig | None
    yoyo: Yoyo
    folder: Path


@pytest.fixture
def programs(
    request: pytest.FixtureRequest, processes: Processes, fork: ForkServer, yoyo: Yoyo, folder: Path
) -> Programs:
    folder.mkdir()
    old = request.getfixturevalue("first_release") if has_commit(FIRST) else None
    return Programs(Initmig(processes, fork), old, yoyo, folder)


class SearchPath(NamedTuple):
    """A way to put the schema `hostile` into the search path, before or after pg_catalog."""

    name: str
    script: str
    """Run after the scenario is prepared."""
    env: Mapping[str, str] = {}
    schema: str = "public"
    codes: Mapping[str, tuple[int, ...]] = {}
    """The exit codes that differ with these settings, by scenario."""


DEFAULT_PATH = SearchPath("none", "SELECT")


def stage_on(
    logging_server: LoggingServer,
    programs: Programs,
    scenario: Scenario,
    database: Database,
    path: SearchPath,
) -> Stage:
    # the database for the test's queries
    pinned = Database(f"{database.url}?options=-csearch_path%3Dpg_catalog")
    return Stage(
        **programs._asdict(),
        database=pinned,
        url=database.url,
        pooled_url=logging_server.pooled_url(database.name) if scenario.pooled else "",
        env=path.env,
        schema=path.schema,
    )


# Tables and indexes that initmig leaves to the search path on purpose. They run no code.
ALLOWED = {
    # the history that is found if no schema is named; see test_hostile_history.py
    *TABLES,
    # the objects of a migration's statement, which PostgreSQL looks up for that statement, too
    *("a", "b", "b_n", "b_1"),
}


def _unexpected(unqualified: set[UnqualifiedName]) -> set[UnqualifiedName]:
    return {
        each
        for each in unqualified
        if each.what not in ("relation", "name in a text") or each.name.strip('"') not in ALLOWED
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_statements_have_no_name_that_depends_on_the_search_path(
    logging_server: LoggingServer, programs: Programs, scenario: Scenario
) -> None:
    stage = stage_on(
        logging_server, programs, scenario, create_database(logging_server.server), DEFAULT_PATH
    )
    scenario.prepare(stage)
    since = logging_server.server.log_size()
    results = scenario.act(stage)
    assert [result.code for result in results] == list(scenario.codes), [r.err for r in results]
    sent = sent_by_initmig(logging_server.server.log_text(since=since))
    assert sent
    assert [each.text for each in sent if each.tree is None] == []
    unqualified = {
        each.text: sorted(map(str, found))
        for each in sent
        if each.tree and not each.pinned and (found := _unexpected(unqualified_names(each.tree)))
    }
    assert unqualified == {}


# A schema named in the settings is initmig's own; a pooler keeps no session with the path.
_NAMED = {"elsewhere": (1, 0), "pooled-in-parts": (6,)}
_FIRST = "ALTER DATABASE {database} SET search_path = public, hostile, pg_catalog"
SEARCH_PATHS = (
    SearchPath("before-pg_catalog", _FIRST),
    SearchPath("after-pg_catalog", "ALTER DATABASE {database} SET search_path = public, hostile"),
    # the home schema, as long as there is no history
    SearchPath(
        "user-schema", "ALTER SCHEMA hostile RENAME TO postgres", codes={"foreign": (0, 0, 0)}
    ),
    SearchPath(
        "schema-before-pg_catalog",
        "SELECT",
        {"INITMIG_SCHEMA": "app,hostile,pg_catalog"},
        "app",
        # 0.1.0 creates its table with the hostile types
        {**_NAMED, "0.1.0": (6, 6)},
    ),
    SearchPath("role", _FIRST, {"INITMIG_ROLE": "owner"}, codes={"pooled-in-parts": (6,)}),
)


def combinations() -> Iterator[Any]:
    for path in SEARCH_PATHS:
        for scenario in SCENARIOS:
            marks = [] if path is SEARCH_PATHS[0] else [pytest.mark.long]
            yield pytest.param(path, scenario, id=f"{path.name}-{scenario.name}", marks=marks)


@pytest.mark.parametrize(("path", "scenario"), list(combinations()))
def test_no_object_planted_by_another_role_runs(
    logging_server: LoggingServer, programs: Programs, path: SearchPath, scenario: Scenario
) -> None:
    database = copy_of(logging_server, logging_server.template())
    database.execute(
        f"CREATE SCHEMA app; GRANT ALL ON SCHEMA app, public TO owner;"
        f"GRANT CREATE ON DATABASE {database.name} TO owner"
    )
    stage = stage_on(logging_server, programs, scenario, database, path)
    scenario.prepare(stage)
    stage.execute(path.script.replace("{database}", database.name))
    since = logging_server.server.log_size()
    results = scenario.act(stage)
    assert executed(logging_server.server.log_text(since=since)) == set()
    codes = path.codes.get(scenario.name, scenario.codes)
    assert [result.code for result in results] == list(codes), [r.err for r in results]


def copy_of(logging_server: LoggingServer, template: str) -> Database:
    name = f"{template}_{next(_numbers)}"
    with psycopg.connect(logging_server.server.url(), autocommit=True) as connection:
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(make.format(sql.Identifier(name), sql.Identifier(template)))
    return Database(logging_server.server.url(name))
