"""Files that change their session, and journals that another version of initmig has written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.faults.test_journal import IN_PARTS, Image, kill_while_waiting, old_transaction

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.yoyo import Yoyo

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

__all__ = ["old_transaction"]


@pytest.fixture
def image(initmig: Initmig, database: Database, folder: Path) -> Image:
    return Image(initmig, database, folder)


def write_hook(image: Image, text: str) -> None:
    (image.folder / "post-apply.sql").write_text(text)


# --- settings that a file changes in its session ---


def test_settings_of_a_transactional_file_affect_neither_its_record_nor_the_next_file(
    image: Image, yoyo: Yoyo
) -> None:
    image.write(
        a_sql="CREATE SCHEMA other; SET work_mem = '7MB'; SET default_transaction_read_only = on;\n"
        "SET ROLE pg_monitor; RESET ROLE;"
        # as pg_dump begins
        " SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.t ();",
        a_rollback_sql="SET search_path = other; DROP TABLE public.t;",
        b_sql="SET LOCAL ROLE pg_monitor;",
        c_sql="SET client_encoding = 'LATIN1';",
        d_sql="CREATE TABLE \"tä\" AS SELECT current_setting('work_mem') AS work_mem,"
        " current_schema() AS schema;",
        d_rollback_sql='DROP TABLE "tä";',
        b_rollback_sql="SELECT 1;",
        c_rollback_sql="SELECT 1;",
    )
    image.apply()
    assert image.database.query('SELECT * FROM "tä"') == [("4MB", "public")]
    assert "t" in image.database.tables()
    assert yoyo("apply", database=image.database, folder=image.folder).code == 0
    image.roll_back("--all")
    assert "t" not in image.database.tables()


def test_settings_of_a_file_do_not_affect_the_next_file_with_transaction_all(
    image: Image,
) -> None:
    image.write(
        a_sql="SET search_path = pg_catalog; SET lock_timeout = 0;",
        b_sql="CREATE TABLE t AS SELECT current_setting('lock_timeout') AS lock_timeout;",
    )
    image.apply("--transaction=all", "--lock-timeout=3s")
    assert image.database.query("SELECT * FROM t") == [("3s",)]


@pytest.mark.parametrize(
    "setting",
    [
        "SELECT set_config('search_path', 'other', false);",
        "BEGIN; SET search_path = other; COMMIT;",
        "BEGIN; SET search_path = other; COMMIT; BEGIN; SET search_path = public; ROLLBACK;",
    ],
)
def test_settings_by_function_or_transaction_are_restored_on_resume(
    image: Image, setting: str
) -> None:
    image.database.execute("CREATE SCHEMA other; CREATE TABLE gate (a int)")
    image.write(
        a_sql=f"{IN_PARTS}{setting} SELECT 1 / count(*) FROM public.gate; CREATE TABLE here ();"
    )
    assert image.run("migrate").code == 1
    image.database.execute("INSERT INTO gate VALUES (1)")
    image.apply()
    assert image.database.value("SELECT to_regclass('other.here') IS NOT NULL")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_file_is_sent_as_utf8_even_if_it_sets_another_encoding(image: Image, encoding: str) -> None:
    image.write(
        a_sql=f"{IN_PARTS}SET client_encoding = '{encoding}'; CREATE TABLE \"tä\" (a int);\n"
        'CREATE INDEX CONCURRENTLY ON "tä" (a);'
    )
    image.apply()
    assert image.database.value("SELECT to_regclass('\"tä\"') IS NOT NULL")


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("DISCARD ALL", "DISCARD ALL"),
        ("SELECT pg_advisory_unlock_all()", "pg_advisory_unlock_all"),
        ("DO $$ BEGIN PERFORM pg_advisory_unlock_all(); END $$", "pg_advisory_unlock_all"),
    ],
)
@pytest.mark.parametrize("header", ["-- one\n", IN_PARTS])
def test_statement_that_would_release_the_migration_lock_is_refused(
    image: Image, header: str, statement: str, name: str
) -> None:
    image.write(a_sql=f"{header}CREATE TABLE t ();\n{statement};")
    refused = image.run("migrate")
    assert refused.code == 2
    assert f"a.sql:3:1: {name} would release the migration lock" in refused.err
    (image.folder / "a.sql").unlink()
    image.write(a_py=f"from yoyo import step\nstep({statement!r})\n")
    refused = image.run("migrate")
    assert refused.code == 2
    assert f"{name} would release the migration lock" in refused.err
    assert image.database.tables() == set()


def test_function_that_releases_all_locks_can_be_defined(image: Image) -> None:
    image.write(
        a_sql="CREATE FUNCTION f() RETURNS void LANGUAGE sql AS"
        " 'SELECT pg_advisory_unlock_all()'; DISCARD PLANS;"
    )
    image.apply()


# --- another version of initmig ---


def test_table_of_the_first_release_is_read_and_then_upgraded(image: Image) -> None:
    image.write(a_sql="CREATE TABLE t (a int);")
    image.apply()
    image.database.execute(
        "ALTER TABLE _initmig_migration DROP before,"
        " DROP position, DROP log_rows, DROP log_rows_at,"
        " DROP CONSTRAINT _initmig_migration_state_check,"
        " ADD CONSTRAINT _initmig_migration_state_check CHECK (state IN ('applying', 'applied'))"
    )
    image.write(b_sql=f"{IN_PARTS}VACUUM t;", b_rollback_sql="SELECT 1; VACUUM t;")
    assert image.status("b")["state"] == "pending"
    assert "VACUUM" in image.run("plan").out
    image.apply()
    image.roll_back("--steps=1")
    assert image.status("a")["state"] == "applied"


def test_status_shows_no_duration_while_a_rollback_is_unfinished(
    image: Image,
) -> None:
    image.write(a_sql=f"{IN_PARTS}CREATE TABLE t ();", a_rollback_sql="SELECT 1; SELECT 1 / 0;")
    image.apply()
    assert image.run("rollback", "--all").code == 1
    assert image.status("a").get("duration_seconds") is None


def test_interrupted_hook_runs_from_the_start_after_the_next_migration(
    image: Image,
) -> None:
    image.write(a_sql="CREATE TABLE ran (a int); CREATE TABLE gate (a int);")
    write_hook(
        image,
        f"{IN_PARTS}INSERT INTO ran VALUES (1); SELECT 1 / count(*) FROM gate;"
        " INSERT INTO ran VALUES (2);",
    )
    assert image.run("migrate").code == 1
    image.write(b_sql="INSERT INTO gate VALUES (1);")
    image.apply()
    assert image.database.query("SELECT a FROM ran") == [(1,), (1,), (2,)]


def test_failed_python_step_reports_that_the_next_run_repeats_it(image: Image) -> None:
    image.write(
        a_py="from yoyo import step\n__transactional__ = False\n"
        "def fail(connection):\n    raise ValueError\nstep(fail)\n"
    )
    assert "the next run repeats this step" in image.run("migrate").err


def test_leftover_reindex_index_in_toast_does_not_block_a_role_that_cannot_drop_it(
    image: Image,
    old_transaction: psycopg.Connection,
) -> None:
    role = urlsplit(image.database.login_role("GRANT CREATE ON SCHEMA public TO {role}")).username
    image.write(
        a_sql="CREATE TABLE t (a int, words text); CREATE INDEX i ON t (a);",
        b_sql=f"{IN_PARTS}REINDEX TABLE CONCURRENTLY t;",
    )
    image.apply("--to=a", f"--role={role}")
    old_transaction.execute("SELECT a FROM t LIMIT 1")
    kill_while_waiting(image, f"--role={role}", query="REINDEX%")
    old_transaction.rollback()
    image.apply(f"--role={role}")
    assert image.indexes() == {"i": True}


def test_interrupted_group_of_steps_resumes_at_the_failed_step(image: Image) -> None:
    image.write(
        a_py="from yoyo import group, step\n__transactional__ = False\n"
        "group([step('CREATE TABLE t (a int)', 'DROP TABLE t'),\n"
        "step('INSERT INTO missing VALUES (1)', 'DELETE FROM missing')])\n"
    )
    assert image.run("migrate").code == 1
    image.database.execute("CREATE TABLE missing (a int)")
    assert "1 of 2 parts done" in image.apply().err
    image.roll_back("--all")
    assert "t" not in image.database.tables()
