"""A non-transactional migration that was interrupted: the next run resumes it at the same part."""

from __future__ import annotations

import json
import re
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result, Running
    from tests.support.yoyo import Yoyo

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

IN_PARTS = "-- transactional: false\n"
NUMBERS = "CREATE TABLE t (a int, b int); INSERT INTO t SELECT n, n FROM generate_series(1, 99) n;"
INDEXES = (
    "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 't'::regclass"
)


class Image:
    """initmig with its files, on one database."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self.database = database
        self.folder = folder

    def write(self, **files: str) -> None:
        """Write files, each given as `ID_sql="..."`, `ID_rollback_sql="..."` or `ID_py="..."`."""
        names = {
            re.sub("_(rollback_)?(sql|py)$", _suffix, name): text for name, text in files.items()
        }
        write(self.folder, names)

    def run(self, *arguments: str) -> Result:
        return self._initmig(*arguments, url=self.database.url, folder=self.folder)

    def start(self, *arguments: str) -> Running:
        return self._initmig.start(*arguments, url=self.database.url, folder=self.folder)

    def apply(self, *arguments: str) -> Result:
        return self._succeed("migrate", *arguments)

    def roll_back(self, *arguments: str) -> Result:
        return self._succeed("rollback", *arguments)

    def _succeed(self, *arguments: str) -> Result:
        result = self.run(*arguments)
        assert result.code == 0, result.err
        return result

    def status(self, id: str) -> dict[str, Any]:
        rows = json.loads(self.run("status", "--json").out)["migrations"]
        return next(row for row in rows if row["id"] == id)

    def indexes(self) -> dict[str, bool]:
        return dict(self.database.query(INDEXES))


def _suffix(match: re.Match[str]) -> str:
    return match[0].replace("_", ".")


@pytest.fixture
def image(initmig: Initmig, database: Database, folder: Path) -> Image:
    return Image(initmig, database, folder)


@pytest.fixture
def old_transaction(database: Database) -> Iterator[psycopg.Connection]:
    """A transaction that every concurrent index statement waits for."""
    with database.connect(autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT txid_current()")
        yield connection
        connection.rollback()


def kill_while_waiting(image: Image, *arguments: str, query: str) -> None:
    """Kill a run while *query* waits for another session, and wait until its process has ended."""
    active = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        f" AND query LIKE '{query}' AND state = 'active' AND pid <> pg_backend_pid()"
    )
    running = image.start(*arguments)
    wait_until(lambda: image.database.value(f"{active} AND wait_event_type = 'Lock'") == 1)
    running.kill()
    wait_until(lambda: image.database.value(active) == 0)


# --- where a run resumes ---


def test_parts_before_a_failure_are_kept_and_the_next_run_resumes_after_them(image: Image) -> None:
    image.write(
        a_sql=f"{IN_PARTS}CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\nVACUUM t;\n"
        "INSERT INTO missing VALUES (1);\nINSERT INTO t VALUES (2);"
    )
    failed = image.run("migrate")
    assert failed.code == 1
    assert "a.sql:5:13: a failed" in failed.err
    assert "[migration-failed]" in failed.err
    assert image.database.query("SELECT a FROM t") == [(1,)]
    image.database.execute("CREATE TABLE missing (a int)")
    resumed = image.apply()
    assert "a: 3 of 5 parts done" in resumed.err
    assert image.database.query("SELECT a FROM t") == [(1,), (2,)]
    assert image.database.query("SELECT a FROM missing") == [(1,)]


def test_transaction_in_a_file_is_applied_completely_or_not_at_all(image: Image) -> None:
    image.write(
        a_sql=f"{IN_PARTS}CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);\n"
        "BEGIN;\nINSERT INTO t VALUES (1);\nINSERT INTO t VALUES (1);\nCOMMIT;\n"
        "INSERT INTO t VALUES (2);"
    )
    failed = image.run("migrate")
    assert failed.code == 1
    assert "a.sql:3:1: a failed: duplicate key" in failed.err
    assert image.database.query("SELECT a FROM t") == []
    image.database.execute("ALTER TABLE t DROP CONSTRAINT t_a_key")
    image.apply()
    assert image.database.query("SELECT a FROM t") == [(1,), (1,), (2,)]


def test_session_settings_of_a_file_are_restored_on_resume_and_reset_after_it(
    image: Image,
) -> None:
    image.write(
        a_sql=f"{IN_PARTS}CREATE SCHEMA other; SET search_path = other; SET work_mem = '7MB';\n"
        "CREATE TABLE here (a int); SELECT 1 / a FROM here;\n"
        "CREATE TABLE told AS SELECT current_setting('work_mem') AS work_mem;",
        b_sql=f"{IN_PARTS}CREATE TABLE public.then AS"
        " SELECT current_setting('work_mem') AS work_mem, current_schema() AS schema;",
    )
    image.write(a_sql=(image.folder / "a.sql").read_text().replace("SELECT 1", "SELECT 1 / 0 + 1"))
    assert image.run("migrate").code == 1
    image.write(a_sql=(image.folder / "a.sql").read_text().replace("SELECT 1 / 0 + 1", "SELECT 1"))
    image.apply("--changed=allow")
    assert image.database.query("SELECT work_mem FROM other.told") == [("7MB",)]
    assert image.database.query("SELECT * FROM public.then") == [("4MB", "public")]


def test_file_can_set_another_role(image: Image) -> None:
    role = urlsplit(image.database.login_role("GRANT CREATE ON SCHEMA public TO {role}")).username
    image.write(a_sql=f"{IN_PARTS}SET ROLE {role}; CREATE TABLE t (a int); VACUUM t;")
    image.apply()
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 't'"
    assert image.database.value(owner) == role


def test_statement_can_use_the_committed_result_of_the_previous_one(image: Image) -> None:
    image.write(
        a_sql=f"{IN_PARTS}CREATE TYPE mood AS ENUM ('sad'); ALTER TYPE mood ADD VALUE 'happy';"
        " CREATE TABLE moods (mood mood DEFAULT 'happy'); INSERT INTO moods DEFAULT VALUES;"
    )
    image.apply()
    assert image.database.query("SELECT mood::text FROM moods") == [("happy",)]


def test_statement_with_a_lock_timeout_is_retried_without_the_parts_before_it(image: Image) -> None:
    image.write(a_sql=f"{IN_PARTS}{NUMBERS}")
    image.apply()
    image.write(
        b_sql=f"{IN_PARTS}INSERT INTO t VALUES (-1, 0);\nALTER TABLE t ADD c int;\nVACUUM t;"
    )
    with image.database.connect(autocommit=False) as other:
        other.execute("SELECT count(*) FROM t")
        running = image.start("--lock-timeout=1s")
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(
            lambda: image.database.value(f"{blocked} AND query LIKE '%ALTER TABLE t ADD%'") == 1
        )
        wait_until(
            lambda: image.database.value(f"{blocked} AND query LIKE '%ALTER TABLE t ADD%'") == 0
        )
    result = running.result()
    assert result.code == 0, result.err
    assert "b: lock timeout; retry 1 of " in result.err
    assert image.database.value("SELECT count(*) FROM t WHERE a = -1") == 1


# --- an interrupted migration is reported, and nothing else runs ---


def leave_b_half_applied(image: Image) -> None:
    image.write(
        a_sql="CREATE TABLE before ();",
        b_sql=f"{IN_PARTS}CREATE TABLE t (a int);\nVACUUM t;\n  SELECT 1 / 0;\n"
        "INSERT INTO t VALUES (1);",
        a_rollback_sql="DROP TABLE before;",
        b_rollback_sql="DROP TABLE t;",
    )
    assert image.run("migrate").code == 1


def test_status_shows_the_next_statement_of_a_half_applied_migration(image: Image) -> None:
    leave_b_half_applied(image)
    place = f"{image.folder}/b.sql:4:3"
    assert image.status("b") == {
        "id": "b",
        "state": "applying",
        "path": f"{image.folder}/b.sql",
        "parts_done": 2,
        "parts": 4,
        "next": place,
    }
    shown = image.run("status")
    assert shown.code == 0
    assert f"half-applied: 2 of 4 parts done, next {place}" in shown.out
    assert image.run("status", "--check").code == 7


def test_half_applied_migration_whose_file_changed_is_refused(image: Image) -> None:
    leave_b_half_applied(image)
    whole = (image.folder / "b.sql").read_text()
    image.write(b_sql=whole.replace("1 / 0", "1 / 1"))
    refused = image.run("migrate")
    assert refused.code == 6
    assert "[changed-half-applied]" in refused.err
    assert "b.sql has changed since: 2 parts done, 2 parts left" in refused.err
    assert "b.sql:4:3" in refused.err
    assert "--changed=allow" in refused.err
    assert image.database.query("SELECT a FROM t") == []
    image.apply("--changed=allow")
    assert image.database.query("SELECT a FROM t") == [(1,)]
    assert image.status("b")["state"] == "applied"
    image.apply()


def test_rollback_is_refused_while_a_migration_is_half_applied(image: Image) -> None:
    leave_b_half_applied(image)
    refused = image.run("rollback", "--steps=1")
    assert refused.code == 6
    assert "b is half-applied: interrupted after 2 parts [half-applied]" in refused.err
    assert "`initmig migrate`" in refused.err
    assert image.database.tables() >= {"before", "t"}


def test_interrupted_rollback_must_be_resumed_before_a_new_migration(
    image: Image,
) -> None:
    image.write(
        a_sql=f"{IN_PARTS}CREATE TABLE t (a int); CREATE TABLE u (); VACUUM t;",
        a_rollback_sql="DROP TABLE u;\nSELECT 1 / 0;\nDROP TABLE t;",
    )
    image.apply()
    assert image.run("rollback", "--all").code == 1
    assert image.status("a") | {"applied_at": "", "applied_by": "", "duration_seconds": 0} == {
        "id": "a",
        "state": "rolling back",
        "path": f"{image.folder}/a.sql",
        "parts_done": 1,
        "parts": 3,
        "next": f"{image.folder}/a.rollback.sql:2:1",
        "applied_at": "",
        "applied_by": "",
        "duration_seconds": 0,
        "breaking": False,
    }
    for pending in (0, 1):
        refused = image.run("migrate")
        assert refused.code == 6
        assert "a is half-applied: its rollback was interrupted after 1 part [" in refused.err
        waiting = image.run("wait", "--wait-timeout=0")
        assert waiting.code == 7
        assert f"{pending + 1} pending: " in waiting.err
        image.write(b_sql="CREATE TABLE v ();")
    refused = image.run("migrate")
    assert "[half-applied]" in refused.err
    image.write(a_rollback_sql="DROP TABLE u;\nSELECT 1 / 1;\nDROP TABLE t;")
    assert "a.rollback.sql has changed since" in image.run("rollback", "--all").err
    image.roll_back("--all", "--changed=allow")
    assert not image.database.tables() & {"t", "u"}
    image.apply()
    assert image.database.tables() >= {"t", "u", "v"}


def test_migration_that_yoyo_finished_is_not_half_applied(image: Image, yoyo: Yoyo) -> None:
    image.write(
        a_sql=f"{IN_PARTS}CREATE TABLE IF NOT EXISTS t (a int);\n"
        "SELECT 1 / (SELECT count(*) FROM u);",
        a_rollback_sql="DROP TABLE t;",
    )
    image.database.execute("CREATE TABLE u (); ")
    assert image.run("migrate").code == 1
    assert image.status("a")["state"] == "applying"
    image.database.execute("ALTER TABLE u ADD a int; INSERT INTO u VALUES (1)")
    assert yoyo("apply", database=image.database, folder=image.folder).code == 0
    assert image.status("a")["state"] == "applied"
    assert yoyo("rollback", "--all", database=image.database, folder=image.folder).code == 0
    assert image.status("a")["state"] == "pending"
    image.apply()  # from its first part
    assert "t" in image.database.tables()


@pytest.mark.parametrize("command", ["BEGIN; SELECT 1;", "BEGIN; SELECT 1; COMMIT AND CHAIN;"])
def test_unfinished_transaction_in_a_file_is_refused_before_anything_runs(
    image: Image, command: str
) -> None:
    image.write(a_sql=f"{IN_PARTS}CREATE TABLE t ();\n{command}")
    result = image.run("migrate")
    assert result.code == 2
    assert "a.sql:3:" in result.err
    assert image.database.tables() == set()


# --- the catalog shows whether a statement was done ---


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "i"),
        ("CREATE INDEX CONCURRENTLY ON t (a)", "t_a_idx"),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", "i"),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", "i"),
        ('CREATE INDEX CONCURRENTLY "an Index" ON public.t (a)', '"an Index"'),
    ],
)
def test_index_left_invalid_by_a_kill_is_rebuilt(
    image: Image, old_transaction: psycopg.Connection, statement: str, index: str
) -> None:
    image.write(a_sql=NUMBERS, b_sql=f"{IN_PARTS}{statement}; INSERT INTO t VALUES (0, 0);")
    image.apply("--to=a")
    old_transaction.execute("SELECT a FROM t LIMIT 1")
    kill_while_waiting(image, query="CREATE %INDEX%")
    old_transaction.rollback()
    assert image.indexes() == {index: False}
    resumed = image.apply()
    assert f"removed the invalid index public.{index}, " in resumed.err
    assert image.indexes() == {index: True}
    assert image.database.value("SELECT count(*) FROM t WHERE a = 0") == 1


def test_unique_index_is_rebuilt_once_the_duplicates_are_removed(image: Image) -> None:
    image.write(
        a_sql="CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1);",
        b_sql=f"{IN_PARTS}CREATE UNIQUE INDEX CONCURRENTLY ON t (a);",
    )
    assert image.run("migrate").code == 1
    assert image.indexes() == {"t_a_idx": False}
    image.database.execute("DELETE FROM t WHERE ctid = '(0,1)'")
    image.apply()
    assert image.indexes() == {"t_a_idx": True}


def test_if_not_exists_does_not_accept_an_invalid_index_of_another_tool(image: Image) -> None:
    image.database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1);")
    with (
        image.database.connect() as other,
        pytest.raises(psycopg.Error, match="could not create unique"),
    ):
        other.execute("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)")
    assert image.indexes() == {"i": False}
    image.write(a_sql=f"{IN_PARTS}CREATE INDEX IF NOT EXISTS i ON t (a);")
    image.apply()
    assert image.indexes() == {"i": True}


def test_unrelated_invalid_index_is_not_changed(image: Image) -> None:
    image.database.execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1), (1);")
    with (
        image.database.connect() as other,
        pytest.raises(psycopg.Error, match="could not create unique"),
    ):
        other.execute("CREATE UNIQUE INDEX CONCURRENTLY theirs ON t (a)")
    image.write(
        a_sql=f"{IN_PARTS}CREATE INDEX CONCURRENTLY ON t (b); CREATE INDEX CONCURRENTLY i ON t (b);"
    )
    image.apply()
    assert image.indexes() == {"theirs": False, "t_b_idx": True, "i": True}


def test_migration_waits_for_an_index_that_another_session_is_building(
    image: Image, old_transaction: psycopg.Connection
) -> None:
    image.database.execute("CREATE TABLE t (a int)")
    image.write(a_sql=f"{IN_PARTS}CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);")
    old_transaction.execute("SELECT a FROM t")
    build = "CREATE INDEX CONCURRENTLY i ON t (a)"
    thread = Thread(target=image.database.execute, args=[build])
    thread.start()
    wait_until(lambda: image.indexes() == {"i": False})
    running = image.start("migrate")
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
    wait_until(lambda: image.database.value(waits) == 1)
    old_transaction.rollback()
    result = running.result()
    thread.join()
    assert result.code == 0, result.err
    assert "removed" not in result.err
    assert image.indexes() == {"i": True}


@pytest.mark.parametrize(
    "what", ["INDEX CONCURRENTLY i", "TABLE CONCURRENTLY t", "SCHEMA CONCURRENTLY public"]
)
def test_leftovers_of_an_interrupted_reindex_are_removed(
    image: Image, old_transaction: psycopg.Connection, what: str
) -> None:
    image.write(
        a_sql="CREATE TABLE t (a int, words text); CREATE INDEX i ON t (a);",
        b_sql=f"{IN_PARTS}REINDEX {what};",
    )
    image.apply("--to=a")
    old_transaction.execute("SELECT a FROM t LIMIT 1")
    kill_while_waiting(image, query="REINDEX%")
    old_transaction.rollback()
    assert image.database.query("SELECT FROM pg_index WHERE NOT indisvalid")
    image.apply()
    assert (
        image.database.query("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
    )
    assert image.indexes() == {"i": True}


def test_interrupted_drop_of_an_index_is_completed(
    image: Image, old_transaction: psycopg.Connection
) -> None:
    image.write(
        a_sql="CREATE TABLE t (a int); CREATE INDEX i ON t (a);",
        b_sql=f"{IN_PARTS}DROP INDEX CONCURRENTLY i; INSERT INTO t VALUES (0);",
    )
    image.apply("--to=a")
    old_transaction.execute("SELECT a FROM t LIMIT 1")
    kill_while_waiting(image, query="DROP INDEX%")
    old_transaction.rollback()
    assert image.indexes() == {"i": False}
    image.apply()
    assert image.indexes() == {}


def test_interrupted_detach_of_a_partition_is_completed(
    image: Image, old_transaction: psycopg.Connection
) -> None:
    image.write(
        a_sql="CREATE TABLE p (a int) PARTITION BY RANGE (a);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (9); INSERT INTO p VALUES (1);",
        b_sql=f"{IN_PARTS}ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY; DROP TABLE p1;",
    )
    image.apply("--to=a")
    old_transaction.execute("SELECT a FROM p LIMIT 1")
    kill_while_waiting(image, query="ALTER TABLE%")
    old_transaction.rollback()
    assert image.database.query("SELECT inhdetachpending FROM pg_inherits") == [(True,)]
    assert "half-detached" in image.apply().err
    assert image.database.query("SELECT FROM pg_inherits") == []
    assert "p1" not in image.database.tables()


def test_python_step_that_leaves_a_transaction_open_fails(image: Image) -> None:
    image.write(
        a_py="from yoyo import step\n__transactional__ = False\n"
        "step('CREATE TABLE t (a int)')\n"
        "step(lambda connection: connection.execute('BEGIN; INSERT INTO t VALUES (1)'))\n"
    )
    result = image.run("migrate")
    assert result.code == 1
    assert "a.py:4: a left a transaction open" in result.err
    assert image.database.query("SELECT a FROM t") == []
