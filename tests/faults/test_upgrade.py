"""Upgrades from 0.1.0: before, during and after it, both versions work on the same database."""

from __future__ import annotations

import json
import random
import re
import time
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.half_applied import PARTS, missing, take_done
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Result, Running
    from tests.support.yoyo import Yoyo

# Both releases send the same SQL to each version of the server.
pytestmark = pytest.mark.any_version

# Not sorted by name.
IDS = ("0003_c", "0001_a", "0004_d", "0002_b")


class Versions(NamedTuple):
    """0.1.0 and this version, with the same files and on the same database."""

    old: Initmig
    new: Initmig
    database: Database
    folder: Path

    def start(self, version: str, *arguments: str, url: str = "") -> Running:
        """*version* is old or new."""
        env = {"INITMIG_LOG_FORMAT": "json", "INITMIG_LOG_LEVEL": "debug"}
        initmig = self.old if version == "old" else self.new
        return initmig.start(*arguments, url=url or self.database.url, folder=self.folder, env=env)

    def run(self, version: str, *arguments: str) -> Result:
        return self.start(version, *arguments).result()

    def succeed(self, version: str, *arguments: str) -> Result:
        result = self.run(version, *arguments)
        assert result.code == 0, result.err
        return result

    def roll_back(self, version: str, *arguments: str) -> list[str]:
        """The ids that were rolled back, in this order."""
        events = self.succeed(version, "rollback", *arguments).events
        return [event["id"] for event in events if event["event"] == "migration_rolled_back"]

    def states(self, version: str) -> dict[str, str]:
        rows = json.loads(self.succeed(version, "status", "--json").out)["migrations"]
        return {row["id"]: row["state"] for row in rows}

    def add(self, id: str) -> None:
        """Write a migration that creates a table with its name."""
        files = {
            f"{id}.sql": f'CREATE TABLE "{id}" ();',
            f"{id}.rollback.sql": f'DROP TABLE "{id}";',
        }
        write(self.folder, files)


@pytest.fixture
def versions(
    first_release: Initmig, initmig: Initmig, database: Database, folder: Path
) -> Versions:
    return Versions(first_release, initmig, database, folder)


def other(version: str) -> str:
    return "new" if version == "old" else "old"


# --- one after the other ---


@pytest.mark.parametrize("by", ["old", "new"])
@pytest.mark.parametrize("turns", ["ooon", "oonn", "onon", "nono", "nnoo", "nooo"])
def test_both_versions_show_and_roll_back_each_others_migrations_in_order(
    versions: Versions, turns: str, by: str
) -> None:
    for turn, id in zip(turns, IDS, strict=True):
        versions.add(id)
        versions.succeed("old" if turn == "o" else "new", "migrate")
    for version in ("old", "new"):
        assert versions.states(version) == dict.fromkeys(sorted(IDS), "applied")
        versions.succeed(version, "status", "--check")
    assert versions.roll_back(by, "--steps", "1") == [IDS[3]]
    assert versions.roll_back(other(by), "--to", IDS[1]) == [IDS[2]]
    assert versions.roll_back(by, "--all") == [IDS[1], IDS[0]]
    assert versions.database.tables() & {*IDS} == set()
    assert versions.database.query("SELECT * FROM _initmig_migration") == []


def test_each_version_reapplies_migrations_that_the_other_rolled_back(versions: Versions) -> None:
    for id in IDS:
        versions.add(id)
    for version in ("old", "new", "old", "new"):
        versions.succeed(version, "migrate")
        assert len(versions.roll_back(other(version), "--steps", "2")) == 2
        versions.succeed(version, "migrate")
        assert len(versions.roll_back(other(version), "--all")) == len(IDS)


# --- the changes of the upgrade to the tables ---

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%s)
ORDER BY c.relname, a.attnum"""
TABLES = ("_initmig_migration", "_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")
ADDED = {
    ("_initmig_migration", "position", "bigint", False, False),
    ("_initmig_migration", "log_rows", "integer", False, False),
    ("_initmig_migration", "log_rows_at", "timestamp with time zone", False, False),
}
RECORDS = """
SELECT migration_id, checksum, breaking, state, statements_done, started_at, finished_at, username,
    hostname, image_version, before
FROM _initmig_migration ORDER BY started_at"""


def columns(database: Database) -> list[tuple[object, ...]]:
    return database.query(COLUMNS, [list(TABLES)])


def rows(database: Database) -> list[list[tuple[object, ...]]]:
    return [database.query(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES]


def apply_all_but_the_last(versions: Versions, version: str) -> None:
    """Apply them one after the other, so that their order is known; leave the last one pending."""
    for id in IDS[:3]:
        versions.add(id)
        versions.succeed(version, "migrate")
    versions.add(IDS[3])


def test_first_writing_run_adds_three_columns_and_numbers_the_rows(versions: Versions) -> None:
    database = versions.database
    apply_all_but_the_last(versions, "old")
    before, records = columns(database), database.query(RECORDS)
    versions.succeed("new", "migrate")
    assert {*columns(database)} - {*before} == ADDED
    assert {*before} <= {*columns(database)}
    assert database.query(RECORDS)[:3] == records
    positions = database.query("SELECT migration_id, position FROM _initmig_migration ORDER BY 2")
    assert positions == [*zip(IDS, range(1, 5), strict=True)]


def test_change_of_a_migration_applied_by_0_1_0_is_detected(versions: Versions) -> None:
    apply_all_but_the_last(versions, "old")
    versions.succeed("new", "migrate")
    write(versions.folder, {f"{IDS[0]}.sql": "SELECT 'another one'"})
    assert versions.states("new")[IDS[0]] == "changed"


@pytest.mark.parametrize("made_by", ["old", "new"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("status --json", 0),
        ("status --check", 7),
        ("plan", 0),
        ("wait --wait-timeout=0", 7),
        ("doctor", 0),
        ("rehearse", 0),
        ("unlock", 0),
    ],
)
def test_reading_commands_work_on_the_other_versions_tables_without_changing_them(
    versions: Versions, made_by: str, command: str, code: int
) -> None:
    database = versions.database
    apply_all_but_the_last(versions, made_by)
    before = columns(database), rows(database)
    for version in (made_by, other(made_by)):
        result = versions.run(version, *command.split())
        assert result.code == code, result.err
    assert (columns(database), rows(database)) == before


@pytest.mark.parametrize("made_by", ["old", "new"])
def test_migration_in_the_other_versions_baseline_is_rolled_back_first(
    versions: Versions, made_by: str
) -> None:
    apply_all_but_the_last(versions, made_by)
    versions.succeed(other(made_by), "baseline", "--to", IDS[3])
    versions.database.execute(f'CREATE TABLE "{IDS[3]}" ()')
    assert versions.roll_back("new", "--all") == [*reversed(IDS)]


READ = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
WRITE = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT CREATE ON SCHEMA public TO {role}",
)


@pytest.mark.parametrize(
    ("command", "code"),
    [("migrate", 0), ("status", 0), ("status --check", 0), ("wait --wait-timeout=0", 0)],
)
def test_noop_needs_only_select_on_the_tables_of_0_1_0(
    versions: Versions, command: str, code: int
) -> None:
    versions.add(IDS[0])
    versions.succeed("old", "migrate")
    url = versions.database.login_role(READ)
    result = versions.new(*command.split(), url=url, folder=versions.folder)
    assert result.code == code, result.err


@pytest.mark.parametrize(
    "command", ["migrate", "rollback --all", f"baseline --to {IDS[3]}", "migrate --transaction=all"]
)
def test_role_that_does_not_own_the_table_gets_the_statement_to_run(
    versions: Versions, command: str
) -> None:
    database = versions.database
    apply_all_but_the_last(versions, "old")
    if command.startswith("rollback"):
        for id in IDS[:3]:
            write(versions.folder, {f"{id}.rollback.sql": ""})
    url = database.login_role(*WRITE)
    before = columns(database), rows(database)
    refused = versions.new(*command.split(), url=url, folder=versions.folder)
    assert refused.code == 4, refused.err
    assert (columns(database), rows(database)) == before
    statement = re.search(r"ALTER TABLE [^;]+;", refused.err)
    assert statement, refused.err
    database.execute(statement[0])
    done = versions.new(*command.split(), url=url, folder=versions.folder)
    assert done.code == 0, done.err
    assert {*columns(database)} - {*before[0]} == ADDED


def test_history_of_0_1_0_in_a_later_schema_is_found_with_history_schema(
    versions: Versions,
) -> None:
    versions.add(IDS[0])
    versions.succeed("old", "migrate")
    versions.database.execute("CREATE SCHEMA app")
    schemas = "--schema=app,public"
    versions.succeed("old", "wait", "--wait-timeout=0", schemas)
    assert versions.run("new", "wait", "--wait-timeout=0", schemas).code == 7
    versions.succeed("new", "wait", "--wait-timeout=0", schemas, "--history-schema=public")
    assert versions.database.tables("app") == set()


# --- mutual exclusion ---


@pytest.mark.parametrize(
    ("schema", "path", "exists"),
    [
        ("public", "public", False),
        ("public", "nowhere, public", True),
        ("postgres", '"$user", public', False),
        ("tenant", "tenant, public", True),
        ("Odd Schema", '"Odd Schema"', False),
        ('a"b', '"a""b"', True),
        ("ähm", "ähm", False),
    ],
)
@pytest.mark.parametrize("first", ["old", "new"])
def test_one_version_waits_for_the_other(
    versions: Versions, schema: str, path: str, exists: bool, first: str
) -> None:
    database = versions.database
    quoted = '"' + schema.replace('"', '""') + '"'
    database.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
    database.execute(f"ALTER DATABASE {database.name} SET search_path = {path}")
    if exists:
        versions.add(IDS[1])
        versions.succeed(other(first), "migrate")
    write(versions.folder, {"0009_waits.sql": "SELECT pg_advisory_xact_lock(7)"})
    with database.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(7)")
        running = versions.start(first, "migrate", "--lock-timeout=0")
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: database.value(waiting) == 1)
        queued = versions.run(other(first), "migrate", "--queue-timeout=300ms")
        assert queued.code == 5, queued.err
        assert "stale_lock_removed" not in queued.err
    assert running.result().code == 0, running.err
    versions.succeed(other(first), "migrate")
    assert database.value(f"SELECT count(*) FROM {quoted}._yoyo_log") == 1 + exists


# --- a journal that one version starts and the other one finishes ---

COMMANDS = ("migrate", "rollback --all", "migrate")
DONE = ([1, 2, 3], [-1, -2, -3], [1, 2, 3])


class HalfApplied(NamedTuple):
    """A migration in parts that stops at its third part if the table `needed` is missing."""

    versions: Versions

    def stop(self, version: str, command: str) -> None:
        """Run *command* with *version*; it fails at the third part."""
        with missing(self.versions.database):
            assert self.versions.run(version, *command.split()).code == 1

    def done(self) -> list[int]:
        """The values that the parts have written since the last call, in the order written."""
        return take_done(self.versions.database)


@pytest.fixture
def half_applied(versions: Versions) -> HalfApplied:
    write(versions.folder, PARTS)
    return HalfApplied(versions)


@pytest.mark.parametrize(
    "started_by", [*product(["old", "new"], repeat=len(COMMANDS))], ids="-".join
)
def test_each_version_finishes_an_interrupted_run_of_the_other(
    half_applied: HalfApplied, started_by: Sequence[str]
) -> None:
    versions = half_applied.versions
    for command, version, done in zip(COMMANDS, started_by, DONE, strict=True):
        half_applied.stop(version, command)
        state = "applying" if command == "migrate" else "rolling back"
        for each in ("old", "new"):
            assert versions.states(each) == {"0001_a": state}
        versions.succeed(other(version), *command.split())
        assert half_applied.done() == done
        state = "applied" if command == "migrate" else "pending"
        for each in ("old", "new"):
            assert versions.states(each) == {"0001_a": state}


@pytest.mark.parametrize("started_by", ["old", "new"])
@pytest.mark.parametrize("seen_by", ["old", "new"])
def test_migration_that_yoyo_finished_is_not_half_applied(
    half_applied: HalfApplied, yoyo: Yoyo, started_by: str, seen_by: str
) -> None:
    versions = half_applied.versions
    half_applied.stop(started_by, "migrate")
    assert yoyo("apply", database=versions.database, folder=versions.folder).code == 0
    half_applied.done()
    assert versions.states(seen_by) == {"0001_a": "applied"}
    versions.succeed(seen_by, "migrate")
    assert half_applied.done() == []
    half_applied.stop(started_by, "rollback --all")
    assert yoyo("rollback", database=versions.database, folder=versions.folder).code == 0
    half_applied.done()
    assert versions.states(seen_by) == {"0001_a": "pending"}
    versions.succeed(seen_by, "migrate")
    assert half_applied.done() == [1, 2, 3]


# --- many copies of both versions ---

COPIES = 3
"""The copies of each version."""
MIGRATIONS = 12
KILLS = 8
PAUSE_SECONDS = 0.3
"""The longest time before a copy is killed."""


def write_copies_files(folder: Path, *, in_parts: bool) -> set[int]:
    """Write migrations that insert a row for each part; return all these rows."""
    rows = set()
    for number in range(1, MIGRATIONS + 1):
        first, second = number * 10 + 1, number * 10 + 2
        rows |= {first, second}
        insert = "INSERT INTO done VALUES ({}); SELECT pg_sleep(0.05);\n"
        lines = [insert.format(first), insert.format(second)]
        undo = [insert.format(-second), insert.format(-first)]
        if in_parts and number % 3 == 0:
            lines = ["-- transactional: false\n", lines[0]]
            lines += [f"CREATE INDEX CONCURRENTLY i{number} ON done (n);\n", insert.format(second)]
            undo = [undo[0], f"DROP INDEX CONCURRENTLY i{number};\n", undo[1]]
        files = {
            f"{number:04}_a.sql": "".join(lines),
            f"{number:04}_a.rollback.sql": "".join(undo),
        }
        write(folder, files)
    return rows


class Copies:
    """Copies of both versions that run the same *command*; killed copies are started again."""

    def __init__(
        self, versions: Versions, command: str, urls: Sequence[str], chance: random.Random
    ) -> None:
        """Each copy takes one of the *urls* of the database."""
        self._versions = versions
        self._command = command
        self._urls = urls
        self._chance = chance
        self._running: list[tuple[str, Running]] = []

    def add(self, version: str) -> None:
        self._running += [(version, self._start(version)) for _ in range(COPIES)]

    def _start(self, version: str) -> Running:
        return self._versions.start(
            version, *self._command.split(), url=self._chance.choice(self._urls)
        )

    def kill_one(self) -> bool:
        """After a pause, kill a copy and start it again; False if all copies have ended."""
        time.sleep(self._chance.uniform(0, PAUSE_SECONDS))
        alive = [place for place, (_, copy) in enumerate(self._running) if copy.is_running()]
        if not alive:
            return False
        migrating = [place for place in alive if '"lock_acquired"' in self._running[place][1].err]
        # half of the time, the copy that is migrating
        place = self._chance.choice(
            migrating if migrating and self._chance.random() < 0.5 else alive
        )
        version, copy = self._running[place]
        copy.kill()
        if copy.result().code < 0:
            self._running[place] = version, self._start(version)
        return True

    def end(self) -> None:
        """Wait until all copies have ended, and assert that they succeeded."""
        results = [copy.result() for _, copy in self._running]
        assert [result.code for result in results] == [0] * len(results), "\n".join(
            result.err for result in results if result.code
        )


SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(3, 11))]


def run_many_copies(
    versions: Versions,
    chance: random.Random,
    *,
    first: str = "old",
    urls: Sequence[str] = ("",),
    in_parts: bool = True,
) -> None:
    """Apply everything, then roll it back, with many copies; assert that nothing was done twice."""
    database = versions.database
    rows = write_copies_files(versions.folder, in_parts=in_parts)
    database.execute("CREATE TABLE done (n int)")
    for command, done in (("migrate", rows), ("rollback --all", {-row for row in rows})):
        copies = Copies(versions, command, urls, chance)
        if first:
            copies.add(first)
            # until it has applied something
            wait_until(lambda: database.value("SELECT count(*) FROM done") >= 2)
            copies.add(other(first))
        else:
            copies.add("old")
            copies.add("new")
        for _ in range(KILLS):
            if not copies.kill_one():
                break
        copies.end()
        found = sorted(n for (n,) in database.query("SELECT n FROM done"))
        assert found == sorted(done)
        assert_recorded_once(database, command, in_parts=in_parts)
        database.execute("TRUNCATE done")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("first", ["old", "new", ""], ids=["old first", "new first", "together"])
def test_copies_of_both_versions_do_each_migration_once_while_some_are_killed(
    versions: Versions, seed: int, first: str
) -> None:
    run_many_copies(versions, random.Random(seed), first=first)


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_of_both_versions_do_each_migration_once_partly_behind_a_pooler(
    versions: Versions, server: DatabaseServer, seed: int
) -> None:
    with running_pgbouncer(server) as bouncer:
        urls = [versions.database.url, bouncer.url(versions.database.name)]
        run_many_copies(versions, random.Random(seed), urls=urls, in_parts=False)


def assert_recorded_once(database: Database, command: str, *, in_parts: bool) -> None:
    operation = "apply" if command == "migrate" else "rollback"
    ids = sorted(f"{number:04}_a" for number in range(1, MIGRATIONS + 1))
    logged = f"SELECT migration_id FROM _yoyo_log WHERE operation = '{operation}' ORDER BY 1"
    assert [id for (id,) in database.query(logged)] == ids
    for table in ("_yoyo_migration", "_initmig_migration"):
        rows = database.query(f"SELECT migration_id FROM {table} ORDER BY 1")
        assert [id for (id,) in rows] == (ids if operation == "apply" else [])
    indexes = database.query("SELECT indisvalid FROM pg_index WHERE indrelid = 'done'::regclass")
    assert indexes == ([(True,)] * (MIGRATIONS // 3) if in_parts and operation == "apply" else [])
    # the row of a dead initmig has a negative pid, and blocks no initmig
    assert database.query("SELECT pid FROM yoyo_lock WHERE pid > 0") == []
