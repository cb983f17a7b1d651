"""From 0.1.0 to this version: before, beside and after it, on one database."""

from __future__ import annotations

import json
import random
import time
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result, Running
    from tests.support.yoyo import Yoyo

# Not as the names are sorted.
IDS = ("0003_c", "0001_a", "0004_d", "0002_b")


class Versions(NamedTuple):
    """0.1.0 and this version, with the same files and on one database."""

    old: Initmig
    new: Initmig
    database: Database
    folder: Path

    def start(self, version: str, *arguments: str) -> Running:
        """*version* is old or new."""
        env = {"INITMIG_LOG_FORMAT": "json", "INITMIG_LOG_LEVEL": "debug"}
        initmig = self.old if version == "old" else self.new
        return initmig.start(*arguments, url=self.database.url, folder=self.folder, env=env)

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
        """A migration that makes a table of its name."""
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
def test_what_both_applied_both_show_and_roll_back_in_its_order(
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


def test_each_applies_again_what_the_other_has_rolled_back(versions: Versions) -> None:
    for id in IDS:
        versions.add(id)
    for version in ("old", "new", "old", "new"):
        versions.succeed(version, "migrate")
        assert len(versions.roll_back(other(version), "--steps", "2")) == 2
        versions.succeed(version, "migrate")
        assert len(versions.roll_back(other(version), "--all")) == len(IDS)


def test_what_0_1_0_had_recorded_is_the_same_after_the_upgrade(versions: Versions) -> None:
    rows = (
        "SELECT migration_id, checksum, breaking, state, statements_done, started_at, finished_at,"
        " username, hostname, image_version, before FROM _initmig_migration ORDER BY started_at"
    )
    for id in IDS[:3]:
        versions.add(id)
        versions.succeed("old", "migrate")
    recorded = versions.database.query(rows)
    versions.add(IDS[3])
    versions.succeed("new", "migrate")
    assert versions.database.query(rows)[:3] == recorded
    write(versions.folder, {f"{IDS[0]}.sql": "SELECT 'another one'"})
    assert versions.states("new")[IDS[0]] == "changed"


# --- a journal that one begins, and the other ends ---

PARTS = {
    "0001_a.sql": "-- transactional: false\nCREATE TABLE IF NOT EXISTS done (n int);\n"
    "INSERT INTO done VALUES (1);\nINSERT INTO done SELECT 2 FROM needed;\n"
    "INSERT INTO done VALUES (3);",
    "0001_a.rollback.sql": "INSERT INTO done VALUES (-1);\nINSERT INTO done SELECT -2 FROM needed;"
    "\nINSERT INTO done VALUES (-3);",
}
COURSE = ("migrate", "rollback --all", "migrate")
DONE = ([1, 2, 3], [-1, -2, -3], [1, 2, 3])


class HalfWay(NamedTuple):
    """A migration in parts that stops at its third one where the table `needed` is missing."""

    versions: Versions

    def stop(self, version: str, command: str) -> None:
        """Let *version* begin *command*, which fails half way."""
        self.versions.database.execute("DROP TABLE IF EXISTS needed")
        assert self.versions.run(version, *command.split()).code == 1
        self.versions.database.execute("CREATE TABLE needed AS SELECT 1")

    def done(self) -> list[int]:
        """What the parts have written since this was asked for last, in the order written."""
        rows = self.versions.database.query("SELECT n FROM done ORDER BY ctid")
        self.versions.database.execute("TRUNCATE done")
        return [n for (n,) in rows]


@pytest.fixture
def half_way(versions: Versions) -> HalfWay:
    write(versions.folder, PARTS)
    return HalfWay(versions)


@pytest.mark.parametrize("begun_by", [*product(["old", "new"], repeat=len(COURSE))], ids="-".join)
def test_what_one_begins_the_other_ends(half_way: HalfWay, begun_by: Sequence[str]) -> None:
    versions = half_way.versions
    for command, version, done in zip(COURSE, begun_by, DONE, strict=True):
        half_way.stop(version, command)
        state = "applying" if command == "migrate" else "rolling back"
        for each in ("old", "new"):
            assert versions.states(each) == {"0001_a": state}
        versions.succeed(other(version), *command.split())
        assert half_way.done() == done
        state = "applied" if command == "migrate" else "pending"
        for each in ("old", "new"):
            assert versions.states(each) == {"0001_a": state}


@pytest.mark.parametrize("began", ["old", "new"])
@pytest.mark.parametrize("seen_by", ["old", "new"])
def test_what_yoyo_has_ended_since_is_not_half_way(
    half_way: HalfWay, yoyo: Yoyo, began: str, seen_by: str
) -> None:
    versions = half_way.versions
    half_way.stop(began, "migrate")
    assert yoyo("apply", database=versions.database, folder=versions.folder).code == 0
    half_way.done()
    assert versions.states(seen_by) == {"0001_a": "applied"}
    versions.succeed(seen_by, "migrate")
    assert half_way.done() == []
    half_way.stop(began, "rollback --all")
    assert yoyo("rollback", database=versions.database, folder=versions.folder).code == 0
    half_way.done()
    assert versions.states(seen_by) == {"0001_a": "pending"}
    versions.succeed(seen_by, "migrate")
    assert half_way.done() == [1, 2, 3]


# --- a crowd of both ---

COPIES = 3
"""Of each version."""
MIGRATIONS = 12
KILLS = 8
PAUSE_SECONDS = 0.3
"""The longest before somebody is killed."""


def write_crowd_files(folder: Path) -> set[int]:
    """Migrations that leave a row for each of their parts; gives what is to be there in the end."""
    rows = set()
    for number in range(1, MIGRATIONS + 1):
        first, second = number * 10 + 1, number * 10 + 2
        rows |= {first, second}
        insert = "INSERT INTO done VALUES ({}); SELECT pg_sleep(0.05);\n"
        lines = [insert.format(first), insert.format(second)]
        undo = [insert.format(-second), insert.format(-first)]
        if number % 3 == 0:
            lines = ["-- transactional: false\n", lines[0]]
            lines += [f"CREATE INDEX CONCURRENTLY i{number} ON done (n);\n", insert.format(second)]
            undo = [undo[0], f"DROP INDEX CONCURRENTLY i{number};\n", undo[1]]
        files = {
            f"{number:04}_a.sql": "".join(lines),
            f"{number:04}_a.rollback.sql": "".join(undo),
        }
        write(folder, files)
    return rows


class Crowd:
    """Copies of both versions that do the same *command*; those that are killed come again."""

    def __init__(self, versions: Versions, command: str, random: random.Random) -> None:
        self._versions = versions
        self._command = command
        self._random = random
        self._running: list[tuple[str, Running]] = []

    def add(self, version: str) -> None:
        self._running += [(version, self._start(version)) for _ in range(COPIES)]

    def _start(self, version: str) -> Running:
        return self._versions.start(version, *self._command.split(), "--lock-retries=100")

    def kill_one(self) -> bool:
        """After a pause, kill a copy and start it again; false where all have ended."""
        time.sleep(self._random.uniform(0, PAUSE_SECONDS))
        alive = [place for place, (_, copy) in enumerate(self._running) if copy.is_running()]
        if not alive:
            return False
        at_work = [place for place in alive if '"lock_acquired"' in self._running[place][1].err]
        # half of the time the one that has something to lose
        place = self._random.choice(at_work if at_work and self._random.random() < 0.5 else alive)
        version, copy = self._running[place]
        copy.kill()
        if copy.result().code < 0:
            self._running[place] = version, self._start(version)
        return True

    def end(self) -> None:
        """Wait until each has ended, which it must do well."""
        results = [copy.result() for _, copy in self._running]
        assert [result.code for result in results] == [0] * len(results), "\n".join(
            result.err for result in results if result.code
        )


SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 11))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("first", ["old", "new", ""], ids=["old first", "new first", "together"])
def test_crowd_of_both_does_each_migration_once_whoever_is_killed(
    versions: Versions, seed: int, first: str
) -> None:
    database = versions.database
    rows = write_crowd_files(versions.folder)
    database.execute("CREATE TABLE done (n int)")
    chance = random.Random(seed)
    for command, done in (("migrate", rows), ("rollback --all", {-row for row in rows})):
        crowd = Crowd(versions, command, chance)
        if first:
            crowd.add(first)
            wait_for_some(database)
            crowd.add(other(first))
        else:
            crowd.add("old")
            crowd.add("new")
        for _ in range(KILLS):
            if not crowd.kill_one():
                break
        crowd.end()
        found = sorted(n for (n,) in database.query("SELECT n FROM done"))
        assert found == sorted(done)
        assert_recorded_once(database, command)
        database.execute("TRUNCATE done")


def wait_for_some(database: Database) -> None:
    """Until the crowd is at work."""
    wait_until(lambda: database.value("SELECT count(*) FROM done") >= 2)


def assert_recorded_once(database: Database, command: str) -> None:
    operation = "apply" if command == "migrate" else "rollback"
    ids = sorted(f"{number:04}_a" for number in range(1, MIGRATIONS + 1))
    logged = f"SELECT migration_id FROM _yoyo_log WHERE operation = '{operation}' ORDER BY 1"
    assert [id for (id,) in database.query(logged)] == ids
    for table in ("_yoyo_migration", "_initmig_migration"):
        rows = database.query(f"SELECT migration_id FROM {table} ORDER BY 1")
        assert [id for (id,) in rows] == (ids if operation == "apply" else [])
    indexes = database.query("SELECT indisvalid FROM pg_index WHERE indrelid = 'done'::regclass")
    assert indexes == ([(True,)] * (MIGRATIONS // 3) if operation == "apply" else [])
    # a dead initmig's row has a negative pid, and is in the way of no initmig
    assert database.query("SELECT pid FROM yoyo_lock WHERE pid > 0") == []
