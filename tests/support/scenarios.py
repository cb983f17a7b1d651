"""Each command in each scenario that makes it send different statements."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from initmig.config.options import Secret
from initmig.engine import catalog
from initmig.postgres import Settings, connect
from initmig.postgres.setting_sources import setting_hint
from initmig.sql.statements import (
    CreateIndex,
    Creates,
    DetachConcurrently,
    DropIndexConcurrently,
    ReindexConcurrently,
)
from tests.support.migrations import write
from tests.support.releases import FIRST as FIRST_RELEASE
from tests.support.releases import has_commit
from tests.support.statement_log import THEIRS
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import psycopg

    from initmig.sql.statements import Kind
    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result, Running
    from tests.support.yoyo import Yoyo


class Stage(NamedTuple):
    """The environment of a scenario."""

    initmig: Initmig
    first_release: Initmig | None
    yoyo: Yoyo
    database: Database
    folder: Path
    url: str
    """The URL of the migrator."""
    pooled_url: str
    env: Mapping[str, str]
    """Settings of initmig for all its runs."""
    schema: str
    """The schema of the history."""

    def start(self, *arguments: str, url: str = "") -> Running:
        """Start initmig as the migrator."""
        return self.initmig.start(*arguments, url=url or self.url, folder=self.folder, env=self.env)

    def run(self, *arguments: str, url: str = "") -> Result:
        """Run it until it exits."""
        return self.start(*arguments, url=url).result()

    def succeed(self, *arguments: str) -> None:
        """Run it, and assert that it exits with 0."""
        result = self.run(*arguments)
        assert result.code == 0, result.err

    def write(self, files: Mapping[str, str]) -> None:
        """Write *files* into the folder."""
        write(self.folder, files)

    def execute(self, script: str) -> None:
        """Run *script* as superuser; ``{home}`` is the schema of the history."""
        self.database.execute(script.replace("{home}", self.schema))

    def execute_as_migrator(self, script: str) -> None:
        """Run *script* as the role that migrates."""
        role = self.env.get("INITMIG_ROLE")
        self.execute(f"SET ROLE {role}; {script}" if role else script)


class Scenario(NamedTuple):
    """*prepare* creates the initial state; *act* runs initmig."""

    name: str
    act: Callable[[Stage], list[Result]]
    prepare: Callable[[Stage], None]
    codes: tuple[int, ...] = (0,)
    """The exit codes of the runs of *act*."""
    pooled: bool = False


def _marked(sql: str) -> str:
    """*sql* with the comment of a migration in each statement."""
    return sql.replace("!", THEIRS)


FIRST = {
    "0001_a.sql": _marked("CREATE TABLE ! a ();"),
    "0001_a.rollback.sql": _marked("DROP TABLE ! a;"),
}
SECOND = {"0002_b.sql": _marked("CREATE TABLE ! b ();\nCREATE TABLE ! b_2 ();")}
ISOLATED = {
    "0002_b.sql": _marked(
        "SET ! TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nCREATE TABLE ! b ();\n"
        "SET ! DateStyle = 'SQL'"
    )
}
PYTHON = {
    "0002_b.py": _marked(
        "from yoyo import step\n"
        "def apply(connection):\n"
        "    connection.cursor().execute('CREATE TABLE ! c ()')\n"
        "step('CREATE TABLE ! b ()', 'DROP TABLE ! b')\n"
        "step(apply, 'DROP TABLE ! c')\n"
    )
}
IN_PARTS = {
    "0002_b.sql": _marked(
        "-- transactional: false\nCREATE TABLE ! b (n int);\n"
        "CREATE INDEX CONCURRENTLY ! b_n ON b (n);\nVACUUM ! b;\n"
        "REINDEX TABLE ! CONCURRENTLY b;\nDROP INDEX CONCURRENTLY ! b_n;"
    ),
    "0002_b.rollback.sql": _marked("DROP TABLE ! b;"),
}
COPY = {"0002_b.sql": _marked("CREATE TABLE ! b (n int);\nCOPY ! b (n) FROM STDIN;\n1\n2\n\\.\n")}
HOOK = {"post-apply.sql": _marked("CREATE TABLE ! IF NOT EXISTS hooked ();")}
HALF_APPLIED = {
    "0002_b.sql": _marked(
        "-- transactional: false\nCREATE TABLE ! b (n int);\nINSERT INTO ! b VALUES (1), (1);\n"
        "CREATE UNIQUE INDEX CONCURRENTLY ! b_n ON b (n);"
    )
}
HALF_ROLLED_BACK = {
    "0002_b.sql": _marked("-- transactional: false\nCREATE TABLE ! b ();"),
    "0002_b.rollback.sql": _marked("DROP TABLE ! b;\nDROP TABLE ! missing;"),
}
BROKEN = {"0002_b.sql": _marked("CREATE TABLE ! b ();\nDROP TABLE ! missing;")}
BLOCKED = {"0002_b.sql": _marked("DROP TABLE ! a;")}
PREPARED = {
    "0002_b.sql": _marked("-- transactional: false\nBEGIN !;\nCREATE TABLE ! b ();\nROLLBACK !;")
}
EXTENSION = {"0002_b.sql": _marked("CREATE EXTENSION ! plpgsql;")}
CLOCK = {
    "0002_b.sql": _marked(
        "CREATE TABLE ! b (at timestamp with time zone PRIMARY KEY);\n"
        "INSERT INTO ! b VALUES (current_timestamp);"
    ),
    "0003_c.sql": _marked("INSERT INTO ! b VALUES (current_timestamp);"),
}
_NOW = "pg_catalog.to_char(pg_catalog.now(), 'YYYYMMDDHH24MISSUS')"
KEY_OF_CLOCK = {
    "0002_b.sql": _marked(
        f"CREATE TABLE ! b (at varchar(99) PRIMARY KEY);\nINSERT INTO ! b VALUES ({_NOW});"
    ),
    "0003_c.sql": _marked(f"INSERT INTO ! b VALUES ({_NOW});"),
}
_MAKE_BY_CLOCK = _marked(
    "from yoyo import step\n"
    "def apply(connection):\n"
    "    cursor = connection.cursor()\n"
    f'    cursor.execute("SELECT ! {_NOW}")\n'
    "    cursor.execute(f'CREATE TABLE ! b_{cursor.fetchone()[0]} ()')\n"
    "step(apply)\n"
)
NAME_OF_CLOCK = {"0002_b.py": _MAKE_BY_CLOCK, "0003_c.py": _MAKE_BY_CLOCK}
MOOD = "CREATE TYPE {home}.mood AS ENUM ('a')"
ENUM = {
    "0002_b.sql": _marked("ALTER TYPE ! mood ADD VALUE 'b';"),
    "0003_c.sql": _marked("CREATE TABLE ! c (m mood DEFAULT 'b');\nINSERT INTO ! c VALUES ('b');"),
}
TWICE = {
    "0002_b.sql": _marked("CREATE TABLE ! b ();"),
    "0003_c.sql": _marked("CREATE TABLE ! b ();"),
}
# Leaves something in the session, which a pooler shares.
LEAVES = {
    "0002_b.sql": _marked(
        "SET LOCAL ! DateStyle = 'SQL';\nDECLARE ! c CURSOR FOR SELECT 1;\nCREATE TABLE ! b ();"
    ),
    "0003_c.sql": _marked("CREATE TABLE ! c ();"),
}
BEFORE_6 = """
CREATE TABLE {home}._yoyo_migration (
    id pg_catalog.varchar(255) NOT NULL PRIMARY KEY, ctime pg_catalog.timestamp);
INSERT INTO {home}._yoyo_migration VALUES ('0001_a', '2019-01-01');
CREATE TABLE {home}.a ();
"""
ROW_OF_YOYO = """
CREATE TABLE IF NOT EXISTS {home}.yoyo_lock (
    locked int DEFAULT 1, ctime timestamp, pid int NOT NULL, PRIMARY KEY (locked));
INSERT INTO {home}.yoyo_lock (ctime, pid) VALUES ('2020-01-01', 7);
"""
STALE_ROW = ROW_OF_YOYO.replace("7)", "-7)")
OTHER_TOOL = "CREATE TABLE {home}.schema_migrations (version bigint PRIMARY KEY, dirty boolean)"
NO_LOG = "DROP TABLE {home}._yoyo_log"
# As left by a user's scripts.
ODD_ROWS = """
UPDATE {home}._yoyo_migration SET migration_hash = 'odd';
INSERT INTO {home}._yoyo_migration (migration_hash) VALUES ('none');
DELETE FROM {home}._yoyo_log;
"""


def _nothing(stage: Stage) -> None:
    del stage


def _applied(stage: Stage) -> None:
    stage.write(FIRST)
    stage.succeed("migrate")


def _after(*parts: Mapping[str, str], script: str = "") -> Callable[[Stage], None]:
    """Apply the first migration, run *script*, and add more files."""

    def prepare(stage: Stage) -> None:
        _applied(stage)
        for files in parts:
            stage.write(files)
        stage.execute_as_migrator(script or "SELECT")

    return prepare


def _both(*parts: Mapping[str, str]) -> Callable[[Stage], None]:
    """Apply the first migration, and then the files in *parts*."""

    def prepare(stage: Stage) -> None:
        _after(*parts)(stage)
        stage.succeed("migrate")

    return prepare


def _run(*runs: str) -> Callable[[Stage], list[Result]]:
    """Run initmig with each of the command lines *runs*."""
    return lambda stage: [stage.run(*run.split()) for run in runs]


def _run_pooled(*runs: str) -> Callable[[Stage], list[Result]]:
    return lambda stage: [stage.run(*run.split(), url=stage.pooled_url) for run in runs]


# --- the states before the run ---


def _first_is_written(stage: Stage) -> None:
    stage.write(FIRST)


def _stock_yoyo(stage: Stage) -> None:
    stage.write(FIRST)
    # yoyo has no settings for the schema and the role
    options = f"-csearch_path%3D{stage.schema}"
    if role := stage.env.get("INITMIG_ROLE"):
        options += f"%20-crole%3D{role}"
    url = f"{stage.url}?options={options}"
    done = stage.yoyo("apply", database=url, folder=stage.folder)
    assert done.code == 0, done.err
    stage.write(SECOND)


def _yoyo_before_6(stage: Stage) -> None:
    stage.execute_as_migrator(BEFORE_6)
    stage.write(FIRST | SECOND)


def _release_0_1_0(stage: Stage) -> None:
    assert stage.first_release
    stage.write(FIRST)
    done = stage.first_release(url=stage.url, folder=stage.folder, env=stage.env)
    assert done.code == 0, done.err
    stage.write(SECOND)


def _stopped(*files: Mapping[str, str]) -> Callable[[Stage], None]:
    def prepare(stage: Stage) -> None:
        _after(*files)(stage)
        assert stage.run("migrate").code == 1

    return prepare


def _stopped_in_rollback(stage: Stage) -> None:
    _both(HALF_ROLLED_BACK)(stage)
    assert stage.run("rollback", "--steps=1").code == 1


def _history_elsewhere(stage: Stage) -> None:
    _applied(stage)
    stage.execute_as_migrator(
        "CREATE SCHEMA elsewhere;"
        "ALTER TABLE {home}._yoyo_migration SET SCHEMA elsewhere;"
        "ALTER TABLE {home}._yoyo_log SET SCHEMA elsewhere;"
        "ALTER TABLE {home}._initmig_migration SET SCHEMA elsewhere;"
    )


def _other_tool(stage: Stage) -> None:
    stage.write(FIRST)
    stage.execute(OTHER_TOOL)


def _tenants(stage: Stage) -> None:
    stage.write(FIRST)
    stage.execute(
        "CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2;"
        "GRANT ALL ON SCHEMA tenant_1, tenant_2 TO PUBLIC"
    )


# --- the runs ---


@contextmanager
def _locked(stage: Stage, table: str) -> Iterator[psycopg.Connection]:
    with closing(stage.database.connect(autocommit=False)) as connection:
        connection.execute(f"LOCK TABLE {stage.schema}.{table} IN ACCESS EXCLUSIVE MODE".encode())
        yield connection


_BLOCKED_SECONDS = 1.2


def _blocked(table: str, *arguments: str, pooled: bool = False) -> Callable[[Stage], list[Result]]:
    """Run *arguments* while another session has locked *table*."""

    def act(stage: Stage) -> list[Result]:
        with _locked(stage, table):
            running = stage.start(*arguments, url=stage.pooled_url if pooled else "")
            _wait_until_blocked(stage)
            time.sleep(_BLOCKED_SECONDS)
        return [running.result()]

    return act


def _wait_until_blocked(stage: Stage) -> None:
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    blocked += " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    # on a busy machine, a new connection for each look could miss a short lock timeout
    with stage.database.connect() as connection:
        wait_until(lambda: connection.execute(blocked).fetchone() != (0,))


def _queue(stage: Stage) -> list[Result]:
    with _locked(stage, "a"):
        first = stage.start("migrate", "--lock-timeout=0")
        _wait_until_blocked(stage)
        second = stage.start("migrate")
        second.wait_for_line("waiting for another migrator")
        time.sleep(_BLOCKED_SECONDS)
    return [first.result(), second.result()]


def _blocked_by_prepared(stage: Stage) -> list[Result]:
    gid = f"of_{stage.database.name}"
    stage.execute(f"BEGIN; LOCK TABLE {{home}}.a; PREPARE TRANSACTION '{gid}'")
    running = stage.start("migrate", "--lock-timeout=1s")
    _wait_until_blocked(stage)
    time.sleep(_BLOCKED_SECONDS)
    stage.execute(f"COMMIT PREPARED '{gid}'")
    return [running.result()]


def _waits_for_yoyo(stage: Stage) -> list[Result]:
    running = stage.start("migrate")
    running.wait_for_line("waiting for")
    stage.execute("DELETE FROM {home}.yoyo_lock")
    return [running.result()]


def _serve(stage: Stage) -> list[Result]:
    running = stage.start("serve", "--listen=127.0.0.1:0", "--log-level=debug")
    running.wait_for_line("listening")
    wait_until(lambda: "ready: " in running.err)
    running.terminate()
    return [running.result()]


def _app_role(stage: Stage) -> None:
    _both(IN_PARTS)(stage)
    stage.execute(
        f"CREATE ROLE app_of_{stage.database.name} LOGIN;"
        "CREATE VIEW {home}.seen AS SELECT * FROM {home}.a;"
        f"GRANT ALL ON ALL TABLES IN SCHEMA {{home}} TO app_of_{stage.database.name}"
    )
    stage.write({"0003_c.sql": _marked("CREATE TABLE ! c (id bigint);")})


def _doctor_of_role(stage: Stage) -> list[Result]:
    return [stage.run("doctor", f"--app-role=app_of_{stage.database.name}")]


def _look_in_catalog(stage: Stage) -> list[Result]:
    """Run the queries about interrupted statements, for each kind of statement."""
    kinds: tuple[Kind, ...] = (
        CreateIndex("b_n", "b", concurrently=True),
        CreateIndex("", "b", concurrently=True),
        DropIndexConcurrently(("b_n",)),
        ReindexConcurrently("index", "b"),
        ReindexConcurrently("table", "b"),
        ReindexConcurrently("schema", "b"),
        ReindexConcurrently("database", "b"),
        DetachConcurrently("b", "b_1"),
        Creates("database", "b"),
        Creates("tablespace", "b"),
        Creates("subscription", "b"),
    )
    schemas = stage.env.get("INITMIG_SCHEMA", "")
    settings = Settings(
        Secret(stage.url),
        schema=tuple(schemas.split(",")) if schemas else (),
        role=stage.env.get("INITMIG_ROLE", ""),
    )
    with closing(connect(settings)) as session:
        for kind in kinds:
            before = catalog.snapshot(session, kind)
            catalog.was_done(session, kind, before)
            list(catalog.remove_leftovers(session, kind, before))
        catalog.prepared_transactions(session)
        catalog.recently_prepared(session, 1)
        setting_hint("idle_session_timeout", session.query)
    return []


_BOTH_KINDS = (SECOND, HOOK)

_ALL = (
    Scenario("no-op", _run("migrate"), _applied),
    Scenario("no-op-json", _run("migrate --log-format=json --log-level=debug"), _applied),
    Scenario("first-run", _run("migrate"), _first_is_written),
    Scenario("pending", _run("migrate"), _after(SECOND)),
    Scenario("isolated", _run("migrate"), _after(ISOLATED)),
    Scenario("python", _run("migrate"), _after(PYTHON)),
    Scenario("non-transactional", _run("migrate"), _after(IN_PARTS)),
    Scenario("copy", _run("migrate"), _after(COPY)),
    Scenario("hook", _run("migrate"), _after(*_BOTH_KINDS)),
    Scenario("all", _run("migrate --transaction=all"), _after(*_BOTH_KINDS)),
    Scenario("failing", _run("migrate"), _after(BROKEN), (1,)),
    Scenario("before-yoyo-6", _run("status", "migrate"), _yoyo_before_6, (0, 0)),
    Scenario("stock-yoyo", _run("status", "migrate"), _stock_yoyo, (0, 0)),
    Scenario("0.1.0", _run("status", "migrate"), _release_0_1_0, (0, 0)),
    Scenario("odd-rows", _run("status", "migrate"), _after(SECOND, script=ODD_ROWS), (0, 0)),
    Scenario(
        "no-log",
        _run("status", "migrate"),
        _after(SECOND, script=NO_LOG),
        (0, 0),
    ),
    Scenario("half-applied", _run("status", "migrate"), _stopped(HALF_APPLIED), (0, 1)),
    Scenario("stale-row", _run("migrate"), _after(SECOND, script=STALE_ROW)),
    Scenario("yoyo-holds-lock", _waits_for_yoyo, _after(SECOND, script=ROW_OF_YOYO)),
    Scenario("queue", _queue, _after(BLOCKED), (0, 0)),
    Scenario("blocked-by-prepared", _blocked_by_prepared, _after(BLOCKED)),
    Scenario(
        "pooled-blocked",
        _blocked("a", "migrate", "--lock-timeout=1s", pooled=True),
        _after(BLOCKED),
        pooled=True,
    ),
    Scenario("blocked", _blocked("a", "migrate", "--lock-timeout=1s"), _after(BLOCKED)),
    Scenario(
        "history-locked",
        _blocked("_yoyo_migration", "migrate", "--lock-timeout=1s"),
        _after(SECOND),
    ),
    Scenario("foreign", _run("migrate", "plan", "doctor"), _other_tool, (6, 6, 6)),
    Scenario("elsewhere", _run("migrate", "status"), _history_elsewhere, (6, 0)),
    Scenario(
        "pooled", _run_pooled("migrate", "migrate"), _after(SECOND, HOOK), (0, 0), pooled=True
    ),
    Scenario("pooled-python", _run_pooled("migrate"), _after(PYTHON), pooled=True),
    Scenario("pooled-in-parts", _run_pooled("migrate"), _after(IN_PARTS), pooled=True),
    Scenario("pooled-isolated", _run_pooled("migrate"), _after(ISOLATED), pooled=True),
    Scenario("pooled-rehearse", _run_pooled("rehearse"), _after(LEAVES, HOOK), pooled=True),
    Scenario("rollback", _run("rollback --steps=1"), _applied),
    Scenario("rollback-python", _run("rollback --all"), _both(PYTHON)),
    Scenario("rollback-in-parts", _run("rollback --all"), _both(IN_PARTS)),
    Scenario("half-rolled-back", _run("rollback --steps=1"), _stopped_in_rollback, (1,)),
    Scenario("status", _run("status", "status --json"), _after(SECOND), (0, 0)),
    Scenario("status-check", _run("status --check"), _after(SECOND), (7,)),
    Scenario("status-empty", _run("status"), _first_is_written),
    Scenario("plan", _run("plan", "plan --json"), _after(SECOND, HOOK), (0, 0)),
    Scenario("rehearse", _run("rehearse"), _after(SECOND, HOOK)),
    Scenario("rehearse-python", _run("rehearse"), _after(PYTHON)),
    Scenario("rehearse-in-parts", _run("rehearse --json"), _after(IN_PARTS)),
    Scenario(
        "rehearse-blocked", _blocked("a", "rehearse", "--lock-timeout=1s"), _after(BLOCKED), (1,)
    ),
    Scenario("rehearse-clock", _run("rehearse"), _after(CLOCK)),
    Scenario("rehearse-key-of-clock", _run("rehearse"), _after(KEY_OF_CLOCK)),
    Scenario("rehearse-name-of-clock", _run("rehearse"), _after(NAME_OF_CLOCK)),
    Scenario(
        "rehearse-enum",
        _run("rehearse"),
        _after(ENUM, script=MOOD),
    ),
    Scenario("rehearse-twice", _run("rehearse"), _after(TWICE), (1,)),
    Scenario("rehearse-first", _run("rehearse"), _first_is_written),
    Scenario("wait", _run("wait"), _applied),
    Scenario("wait-for-database", _run("wait --for=database"), _nothing),
    Scenario("doctor", _run("doctor", "doctor --json"), _after(SECOND), (0, 0)),
    Scenario("doctor-extension", _run("doctor"), _after(EXTENSION)),
    Scenario("doctor-first", _run("doctor"), _first_is_written),
    Scenario("doctor-app-role", _doctor_of_role, _app_role, (4,)),
    Scenario("baseline", _run("baseline --to=0002_b"), _after(SECOND)),
    Scenario("baseline-first", _run("baseline --to=0001_a"), _first_is_written),
    Scenario("unlock", _run("unlock"), _after(script=ROW_OF_YOYO)),
    Scenario("serve", _serve, _applied),
    Scenario("each-schema", _run(r"migrate --each-schema=tenant\_%"), _tenants),
    Scenario("catalog", _look_in_catalog, _nothing, ()),
)

SCENARIOS = tuple(each for each in _ALL if each.name != "0.1.0" or has_commit(FIRST_RELEASE))
"""An export of the repository does not have the code of 0.1.0."""
