"""History rows that initmig did not write: by hand, by another tool, duplicate or unusual."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from psycopg import sql

from initmig.commands.serve.serve import check, reading_run
from initmig.config.config import parse_config
from initmig.core.clock import SYSTEM_CLOCK
from initmig.migrations.files import list_files
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.fork_server import KillableRuns
    from tests.support.processes import Result

IDS = ("0001_a", "0002_b", "0003_c")
FILES = {
    name: text
    for id in IDS
    for name, text in {
        f"{id}.sql": f"CREATE TABLE {id[-1]} ();",
        f"{id}.rollback.sql": f"DROP TABLE {id[-1]};",
    }.items()
}
IN_PARTS = {
    "0003_c.sql": "-- transactional: false\nCREATE TABLE c (n int);\n"
    "INSERT INTO c SELECT 1 / count(*) FROM gate;\nCREATE INDEX CONCURRENTLY c_n ON c (n);\n"
}
ALL_READ = ("status", "status --check", "plan", "wait", "doctor", "rehearse")
"""The commands that only read."""


class Odd(NamedTuple):
    """A change to a history where `0001_a` and `0002_b` are applied."""

    script: str
    applied: tuple[str, ...] = ("0001_a", "0002_b")
    """The migrations of the folder that count as applied after the change."""
    unknown: tuple[str, ...] = ()
    """The unknown migrations that `status` shows in addition to those of the folder."""
    refused: tuple[str, ...] = ()
    """The ids of errors that a command may exit with instead of working as usual."""
    states: tuple[str, ...] = ("applied",)
    """The states that `status` may show for `0001_a`."""
    needs_cleanup: bool = False
    """Whether the row looks like an unfinished rollback, which `migrate` cleans up."""


def row(
    id: str | None, *, hash: str = "odd", at: str = "clock_timestamp() AT TIME ZONE 'UTC'"
) -> str:
    """The SQL that adds a row to yoyo's table, with *at* as an expression."""
    insert = sql.SQL("INSERT INTO _yoyo_migration VALUES ({}, {}, {});")
    return insert.format(sql.Literal(hash), sql.Literal(id), sql.SQL(at)).as_string()


def own(id: str, **values: str) -> str:
    """The SQL that adds a row to initmig's own table; *values* are expressions."""
    given = {
        "migration_id": sql.Literal(id).as_string(),
        "checksum": "'x'",
        "breaking": "false",
        "state": "'applied'",
        "statements_done": "1",
        "started_at": "now()",
        "username": "'u'",
        "hostname": "'h'",
        "image_version": "'1'",
    } | values
    return (
        f"INSERT INTO _initmig_migration ({', '.join(given)}) VALUES ({', '.join(given.values())});"
    )


def dated(at: str) -> str:
    return f"UPDATE _yoyo_migration SET applied_at_utc = {at} WHERE migration_id = '0001_a'"


def logged(change: str) -> str:
    return f"UPDATE _yoyo_log SET {change} WHERE migration_id = '0001_a'"


def locked(pid: str, *, at: str = "'2020-01-01'", number: int = 1) -> str:
    return f"INSERT INTO yoyo_lock (locked, ctime, pid) VALUES ({number}, {at}, {pid});"


HALF_APPLIED = ("half-applied", "changed-half-applied")
CHECKSUM_OF_C = sha256(FILES["0003_c.sql"].encode()).hexdigest()
MADE_C = "CREATE TABLE c ();"
ALL = IDS
ODD_IDS = {
    "empty": "",
    "a slash": "0001_a/0003_c",
    "a slash first": "/0003_c",
    "a slash last": "0003_c/",
    "only a slash": "/",
    "a line end": "0003_c\n",
    "a line end inside": "0003_c\n0004_d",
    "a carriage return": "0003_c\r",
    "a tab": "0003_c\t",
    "an escape": "0003_c\x1b[2J",
    "a control character": "\x01",
    "quotes": 'it\'s "odd"',
    "a backslash": "0003\\_c\\",
    "percent": "%",
    "percent and more": "0003_c%s%(id)s",
    "braces": "{id}{0}{",
    "a colon": ":id",
    "an underscore": "0003__",
    "an emoji": "0003_c_🦆",
    "a letter that is two": "0003_c\u0308",
    "a bidirectional mark": "\u202e0003_c",
    "a byte order mark": "\ufeff0003_c",
    "255 characters": "🦆" * 255,
    "a leading blank": " 0003_c",
    "a trailing blank": "0003_c ",
    "blanks alone": "   ",
    "another letter case": "0003_C",
    "its suffix": "0003_c.sql",
    "its rollback": "0003_c.rollback",
    "a comma": "0001_a,0003_c",
    "NULL as text": "NULL",
}
ODD_TIMES = {
    "no time": "NULL",
    "infinity": "'infinity'",
    "before everything": "'-infinity'",
    "before Christ": "'4713-01-01 BC'",
    "the year 10000": "'10000-01-01'",
    "the last year": "'294276-12-31 23:59:59.999999'",
    "the epoch": "'1970-01-01'",
}
ODD = {
    # --- an id with several rows, or with another hash ---
    "an id twice": Odd(row("0001_a")),
    "an id twice, the other one older": Odd(row("0001_a", at="'2000-01-01'")),
    "an id twice at the same time": Odd(
        "INSERT INTO _yoyo_migration SELECT 'odd', migration_id, applied_at_utc"
        " FROM _yoyo_migration WHERE migration_id = '0001_a'"
    ),
    "an id three times": Odd(row("0001_a") + row("0001_a", hash="")),
    "each id twice": Odd(
        "INSERT INTO _yoyo_migration SELECT migration_id, migration_id, applied_at_utc"
        " FROM _yoyo_migration"
    ),
    "another hash": Odd("UPDATE _yoyo_migration SET migration_hash = migration_id"),
    "the hash of another migration": Odd(
        "UPDATE _yoyo_migration a SET migration_hash = 'x' WHERE migration_id = '0001_a';"
        "UPDATE _yoyo_migration SET migration_hash = encode(sha256('0001_a'), 'hex')"
        " WHERE migration_id = '0002_b'"
    ),
    "an unknown migration with the hash of a pending one": Odd(
        row("0009_unknown").replace("'odd'", "encode(sha256('0003_c'), 'hex')"),
        unknown=("0009_unknown",),
        refused=("migration-failed", "statement-refused"),  # the message names the existing key
    ),
    "a pending migration by hand": Odd(MADE_C + row("0003_c"), applied=ALL),
    "a pending migration by hand, twice": Odd(
        MADE_C + row("0003_c") + row("0003_c", hash="x", at="NULL"), applied=ALL
    ),
    "a pending migration by hand, correct hash": Odd(
        MADE_C + row("0003_c").replace("'odd'", "encode(sha256('0003_c'), 'hex')"), applied=ALL
    ),
    "no row": Odd(
        "DELETE FROM _yoyo_migration WHERE migration_id = '0002_b'; DROP TABLE b",
        applied=("0001_a",),
    ),
    "no row at all": Odd("DELETE FROM _yoyo_migration; DROP TABLE a, b", applied=()),
    # --- odd ids ---
    "no id": Odd(row(None)),
    "no id, twice": Odd(row(None) + row(None, hash="x", at="NULL")),
    **{f"an id with {name}": Odd(row(id), unknown=(id,)) for name, id in ODD_IDS.items()},
    "an unknown id twice": Odd(
        row("0009_unknown") + row("0009_unknown", hash="x"), unknown=("0009_unknown",)
    ),
    # --- rows that look like unfinished work ---
    "a hook without a file": Odd(row("post-apply-unknown")),
    "a hook": Odd(row("post-apply")),
    "a hook twice": Odd(row("post-apply") + row("post-apply", hash="x")),
    "a rollback that was never started": Odd(row("rolling back 0001_a"), needs_cleanup=True),
    "a rollback that was never started, twice": Odd(
        row("rolling back 0001_a") + row("rolling back 0001_a", hash="x"), needs_cleanup=True
    ),
    "a rollback of a pending one": Odd(row("rolling back 0003_c"), needs_cleanup=True),
    "a rollback of an unknown one": Odd(row("rolling back 0009_unknown"), needs_cleanup=True),
    "a rollback of nothing": Odd(row("rolling back "), needs_cleanup=True),
    "a rollback of a quote": Odd(row("rolling back it's / \n")),
    # --- odd times ---
    **{f"{name}, of an applied migration": Odd(dated(at)) for name, at in ODD_TIMES.items()},
    **{
        f"{name}, of an unknown migration": Odd(
            row("0009_unknown", at=at), unknown=("0009_unknown",)
        )
        for name, at in ODD_TIMES.items()
    },
    "no time anywhere": Odd("UPDATE _yoyo_migration SET applied_at_utc = NULL"),
    "one time for all": Odd("UPDATE _yoyo_migration SET applied_at_utc = '2020-01-01'"),
    # --- initmig's own rows ---
    "only our row": Odd(own("0003_c")),
    "only our row, with a time": Odd(own("0003_c", finished_at="now()")),
    "our row of an unknown one": Odd(own("0009_unknown")),
    "our row, half-applied, of one transaction": Odd(
        own("0003_c", state="'applying'"), refused=HALF_APPLIED
    ),
    "our row, half-applied, of one transaction, the same file": Odd(
        own("0003_c", state="'applying'", checksum=f"'{CHECKSUM_OF_C}'"), refused=HALF_APPLIED
    ),
    "our row, half-applied, of an applied one": Odd(
        "UPDATE _initmig_migration SET state = 'applying' WHERE migration_id = '0001_a'",
        refused=HALF_APPLIED,
        states=("applied", "applying"),
    ),
    "our row, half rolled back": Odd(
        "UPDATE _initmig_migration SET state = 'rolling back' WHERE migration_id = '0001_a'",
        refused=HALF_APPLIED,
        states=("applied", "rolling back"),
    ),
    "our row, in an unknown state": Odd(
        "ALTER TABLE _initmig_migration DROP CONSTRAINT _initmig_migration_state_check;"
        "UPDATE _initmig_migration SET state = 'odd' WHERE migration_id = '0001_a'",
        refused=HALF_APPLIED,
        states=("applied", "rolling back"),
    ),
    "our row without a time": Odd("UPDATE _initmig_migration SET finished_at = NULL"),
    "our row, of infinity": Odd(
        "UPDATE _initmig_migration SET started_at = '-infinity', finished_at = 'infinity';"
        "UPDATE _yoyo_migration SET applied_at_utc = 'infinity'"
    ),
    "our row, fewer statements than none": Odd(
        "UPDATE _initmig_migration SET statements_done = -1"
    ),
    "our row, the most statements": Odd(
        "UPDATE _initmig_migration SET statements_done = 2147483647"
    ),
    "our row without a checksum": Odd("UPDATE _initmig_migration SET checksum = ''"),
    "our row with % as its checksum": Odd(
        "UPDATE _initmig_migration SET checksum = '%' WHERE migration_id = '0001_a'",
        states=("changed",),
    ),
    "our row in doubt": Odd("UPDATE _initmig_migration SET before = 'odd'"),
    "none of our rows": Odd("DELETE FROM _initmig_migration"),
    "no table of ours": Odd("DROP TABLE _initmig_migration"),
    # --- the log ---
    "a log without a user": Odd(logged("username = NULL, hostname = NULL, comment = NULL")),
    "a log without an operation": Odd(
        logged("operation = NULL, created_at_utc = NULL, migration_hash = NULL")
    ),
    "a log without an id": Odd(logged("migration_id = NULL")),
    "a log of another operation": Odd(logged("operation = 'odd'")),
    "a log of infinity": Odd(logged("created_at_utc = 'infinity'")),
    "a log of odd names": Odd(logged("username = E'\\n''\"%', hostname = '🦆'")),
    "an empty log": Odd("DELETE FROM _yoyo_log"),
    # --- the version of yoyo's tables ---
    "no version": Odd("DELETE FROM _yoyo_version"),
    "two versions": Odd("INSERT INTO _yoyo_version VALUES (1, now())"),
    "a future version": Odd("INSERT INTO _yoyo_version VALUES (3, now())", refused=("newer-yoyo",)),
    "NULL as its version": Odd(
        "ALTER TABLE _yoyo_version DROP CONSTRAINT _yoyo_version_pkey;"
        "ALTER TABLE _yoyo_version ALTER version DROP NOT NULL;"
        "UPDATE _yoyo_version SET version = NULL",
    ),
    "a version without time": Odd("UPDATE _yoyo_version SET installed_at_utc = NULL"),
    # --- yoyo's lock ---
    "a lock with process id 0": Odd(locked("0"), refused=("queue-timeout",)),
    "a lock of yoyo": Odd(locked("4711"), refused=("queue-timeout",)),
    "a lock of yoyo without time": Odd(locked("4711", at="NULL"), refused=("queue-timeout",)),
    "a lock of yoyo, of infinity": Odd(locked("4711", at="'infinity'"), refused=("queue-timeout",)),
    "a lock of a running initmig": Odd(
        "INSERT INTO yoyo_lock SELECT 1, NULL, -min(pid) FROM pg_stat_activity"
    ),
    "a lock of a dead initmig": Odd(locked("-2147483647")),
    "the lowest process id": Odd(locked("-2147483648")),
    "two locks": Odd(locked("-4711") + locked("-4712", number=2)),
    "only a second lock": Odd(locked("4711", number=2)),
    # --- tables of another shape ---
    "more columns": Odd(
        "ALTER TABLE _yoyo_migration ADD note text, ADD id text DEFAULT 'x', ADD ctime int;"
        "ALTER TABLE _yoyo_log ADD note text; ALTER TABLE yoyo_lock ADD note text;"
        "ALTER TABLE _initmig_migration ADD note text, ADD applied_at_utc timestamp"
    ),
    "text for varchar": Odd(
        "ALTER TABLE _yoyo_migration ALTER migration_id TYPE text, ALTER migration_hash TYPE text;"
        "ALTER TABLE _yoyo_log ALTER migration_id TYPE text, ALTER migration_hash TYPE text;"
        "ALTER TABLE _initmig_migration ALTER migration_id TYPE text"
    ),
    "times to the second": Odd(
        "ALTER TABLE _yoyo_migration ALTER applied_at_utc TYPE timestamp(0);"
        "ALTER TABLE _yoyo_log ALTER created_at_utc TYPE timestamp(0)"
    ),
}


class Scene:
    """A history with an odd row, and methods that run commands on it."""

    def __init__(
        self, odd: Odd, killable_runs: KillableRuns, database: Database, folder: Path
    ) -> None:
        self.odd = odd
        self.database = database
        self.folder = write(
            folder, FILES | {path.name: path.read_text() for path in folder.glob("*")}
        )
        self._forking = killable_runs
        self.succeeds("migrate", "--to=0002_b")
        database.execute(odd.script)

    @property
    def pending(self) -> list[str]:
        return [id for id in IDS if id not in self.odd.applied]

    def run(self, *arguments: str) -> Result:
        """Run a command, and assert that it shows no traceback and that its log is valid JSON."""
        result = self._forking.run(
            *arguments,
            "--log-format=json",
            "--wait-timeout=0",
            # keeps the wait for a lock row short
            *(["--queue-timeout=1ms"] if "yoyo_lock" in self.odd.script else []),
            url=self.database.url,
            folder=self.folder,
        )
        assert result.code in (0, 1, 2, 4, 5, 6, 7), result.err
        for text in (result.out, result.err):
            assert "Traceback" not in text, text
            assert "internal-error" not in text
            assert "None" not in text
        assert all(event["event"] for event in result.events)
        return result

    def succeeds(self, *arguments: str, code: int = 0) -> Result:
        """A run that exits with *code*, as it would without the odd row."""
        result = self.run(*arguments)
        assert result.code == code, result.err
        return result

    def may_refuse(self, *arguments: str, code: int = 0) -> bool:
        """Whether a run exits with *code*. If not, asserts that its errors are expected ones."""
        result = self.run(*arguments)
        if result.code == code:
            return True
        errors = [event["error"] for event in result.events if event["event"] == "failed"]
        assert errors, result.err
        assert {*errors} <= {*self.odd.refused}, result.err
        return False

    def statuses(self) -> dict[str, str]:
        rows = self.json("status", "--json")["migrations"]
        states = {each["id"]: each["state"] for each in rows}
        assert len(states) == len(rows)
        return states

    def json(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not valid JSON")

        result = self.run(*arguments)
        assert result.code in codes, result.err
        return json.loads(result.out, parse_constant=refuse)

    def history(self) -> list[list[tuple[Any, ...]]]:
        tables = sorted(self.database.tables() & {"_yoyo_migration", "_initmig_migration"})
        return [
            self.database.query(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables
        ]

    def rows_of(self, *ids: str) -> list[tuple[Any, ...]]:
        """The rows for *ids* in both tables."""
        found = self.database.query(
            "SELECT migration_id FROM _yoyo_migration WHERE migration_id = ANY (%s)", [list(ids)]
        )
        return found + self.database.query(
            "SELECT migration_id FROM _initmig_migration WHERE migration_id = ANY (%s)", [list(ids)]
        )

    def forget_unknown(self) -> None:
        """Delete the unknown migrations, because `rollback --all` refuses ids without a file."""
        with self.database.connect() as connection:
            connection.execute(
                "DELETE FROM _yoyo_migration WHERE migration_id = ANY (%s)",
                [list(self.odd.unknown)],
            )

    @property
    def created(self) -> set[str]:
        return {table for table in self.database.tables() if len(table) == 1}


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, killable_runs: KillableRuns, database: Database, folder: Path
) -> Scene:
    return Scene(request.param, killable_runs, database, folder)


every_odd_row = pytest.mark.parametrize("scene", ODD.values(), ids=ODD, indirect=True)


def check_reading(scene: Scene) -> None:
    """Assert that the reading commands show the row, decide correctly and change nothing."""
    odd, pending = scene.odd, scene.pending
    before = scene.history()
    states = scene.statuses()
    assert states.pop("0001_a") in (odd.states if "0001_a" in odd.applied else ["pending"])
    assert [id for id, state in states.items() if state == "unknown"] == [*odd.unknown]
    if not odd.refused:
        assert [id for id, state in states.items() if state == "pending"] == [
            id for id in pending if id != "0001_a"
        ]
    scene.succeeds("status")
    left = 7 if pending else 0
    scene.may_refuse("status", "--check", code=left)
    scene.may_refuse("wait", code=7 if pending or odd.needs_cleanup else 0)
    if scene.may_refuse("plan", "--json"):
        assert [each["id"] for each in scene.json("plan", "--json")["migrations"]] == pending
    scene.json("doctor", "--json", codes=(0, 6) if odd.refused else (0,))
    if scene.may_refuse("rehearse", "--json"):
        rehearsed = scene.json("rehearse", "--json")["migrations"]
        assert [each["id"] for each in rehearsed] == pending
    config = parse_config(["serve"], {"DATABASE_URL": scene.database.url})
    check(reading_run(config, list_files((str(scene.folder),)), lambda _: None, SYSTEM_CLOCK))
    scene.succeeds("unlock")
    assert scene.history() == before


@every_odd_row
@pytest.mark.any_version
def test_odd_row_is_shown_and_pending_migrations_are_applied_once(scene: Scene) -> None:
    check_reading(scene)
    if not scene.may_refuse("migrate"):
        assert scene.created == {id[-1] for id in scene.odd.applied}
        assert scene.may_refuse("migrate") is False
        return
    assert scene.created == {"a", "b", "c"}
    states = scene.statuses()
    assert all(states[id] in ("applied", *scene.odd.states) for id in IDS)
    assert [id for id in states if id not in IDS] == [*scene.odd.unknown]
    scene.succeeds("wait")
    scene.succeeds("status", "--check")
    before = scene.history()
    scene.succeeds("migrate")
    assert scene.history() == before


@every_odd_row
@pytest.mark.any_version
def test_migration_with_an_odd_row_is_rolled_back_and_leaves_no_row(scene: Scene) -> None:
    adopt_c(scene)
    done = [*IDS] if scene.statuses()["0003_c"] == "applied" else [*scene.odd.applied]
    if scene.odd.unknown:
        result = scene.succeeds("rollback", "--all", code=6)
        errors = {event["error"] for event in result.events if event["event"] == "failed"}
        assert errors == {"unknown-migration"}
        assert scene.created == {id[-1] for id in done}
        scene.forget_unknown()
    if done and scene.may_refuse("rollback", "--steps=1"):
        left = [id for id in done if id[-1] in scene.created]
        assert len(left) == len(done) - 1
        assert scene.rows_of(*({*done} - {*left})) == []
    if not scene.may_refuse("rollback", "--all"):
        return
    assert scene.created == set()
    assert scene.rows_of(*done) == []
    assert not {"applied", "changed", "unknown"} & {*scene.statuses().values()}
    if scene.may_refuse("migrate"):
        assert scene.created == {"a", "b", "c"}
        assert scene.statuses() == dict.fromkeys(IDS, "applied")


def adopt_c(scene: Scene) -> None:
    """Create the pending tables by hand, and record the migrations with `baseline`."""
    pending = scene.pending
    if not scene.may_refuse("baseline", "--to=0003_c"):
        return
    for id in pending:
        scene.database.execute(f"CREATE TABLE {id[-1]} ()")
    assert all(scene.statuses()[id] in ("applied", *scene.odd.states) for id in IDS)
    scene.succeeds("wait", code=7 if scene.odd.needs_cleanup else 0)


TWINS = {
    "newer": row("0002_b"),
    "older": row("0002_b", at="'2000-01-01'"),
    "without a time": row("0002_b", at="NULL"),
    "with the same time": "INSERT INTO _yoyo_migration SELECT 'odd', migration_id, applied_at_utc"
    " FROM _yoyo_migration WHERE migration_id = '0002_b'",
}


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_second_row_does_not_hide_that_a_migration_changed_or_is_breaking(
    twin: str, killable_runs: KillableRuns, database: Database, folder: Path
) -> None:
    write(folder, {"0002_b.sql": "-- breaking: true\nCREATE TABLE b ();"})
    scene = Scene(Odd(twin), killable_runs, database, folder)
    scene.succeeds("status")
    (folder / "0002_b.sql").write_text("-- breaking: true\nCREATE TABLE b (n int);")
    assert scene.statuses()["0002_b"] == "changed"
    for path in folder.glob("0002_b*"):
        path.unlink()
    for command in ("migrate", "wait", "plan", "status --check", "rehearse"):
        result = scene.succeeds(*command.split(), code=6)
        assert "image-too-old" in [event.get("error") for event in result.events]
    assert scene.created == {"a", "b"}


# --- the progress of a non-transactional migration ---

ODD_JOURNALS = {
    "unchanged": "",
    "fewer parts than none": "statements_done = -1",
    "far fewer parts than none": "statements_done = -2147483648",
    "one part more than there are": "statements_done = 4",
    "the most parts": "statements_done = 2147483647",
    "no checksum": "checksum = ''",
    "another checksum": "checksum = '%'",
    "in doubt, of nothing": "before = ''",
    "in doubt, of something odd": "before = E'it''s / \\n % 9'",
    "started before all times": "started_at = '-infinity'",
    "started after all times": "started_at = 'infinity'",
    "finished": "finished_at = now()",
    "rolling back": "state = 'rolling back'",
    "done": "state = 'applied', finished_at = now()",
}


@pytest.mark.parametrize("change", ODD_JOURNALS.values(), ids=ODD_JOURNALS)
def test_odd_journal_values_never_skip_a_part(
    change: str, killable_runs: KillableRuns, database: Database, folder: Path
) -> None:
    scene = Scene(Odd("CREATE TABLE gate ()"), killable_runs, database, folder)
    write(folder, IN_PARTS)
    scene.succeeds("migrate", code=1)
    if change:
        database.execute(f"UPDATE _initmig_migration SET {change} WHERE migration_id = '0003_c'")
    database.execute("ALTER TABLE gate ADD n int; INSERT INTO gate VALUES (1)")
    for command in ALL_READ:
        scene.run(*command.split())
    result = scene.run("migrate")
    whole = database.query("SELECT n FROM c") == [(1,)] and "c_n" in {
        name for (name,) in database.query("SELECT indexname FROM pg_indexes")
    }
    if result.code == 0:
        assert whole
        assert scene.statuses()["0003_c"] == "applied"
        return
    [error] = [event for event in result.events if event["event"] == "failed"]
    assert (result.code, error["error"]) in [
        (1, "migration-failed"),  # it runs from the start, and its table exists
        (6, "changed-half-applied"),
        (6, "half-applied"),
    ]
    assert scene.rows_of("0003_c") in ([], [("0003_c",)])
    assert scene.statuses()["0003_c"] != "applied"
