import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.command import Initmig
from tests.support.databases import Database
from tests.support.migrations import write

FILES = {
    "0001_a.sql": "CREATE TABLE a ();\n",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.sql": "-- transactional: false\n-- depends: 0001_a\nCREATE TABLE b ();\n",
    "0003_c.py": "from yoyo import step\ndef f(connection):\n    pass\nstep(f)\nstep('SELECT 3')",
}


@pytest.fixture
def partly_migrated(initmig: Initmig, database: Database, folder: Path) -> Database:
    """A database with the first of FILES applied, one migration changed and one unknown."""
    write(folder, FILES | {"0000_x.sql": "SELECT 1", "0000_y.sql": "SELECT 1"})
    assert initmig("migrate", "--to", "0001", url=database.url, folder=folder).code == 0
    (folder / "0000_x.sql").unlink()
    (folder / "0000_y.sql").write_text("SELECT 2")
    return database


def test_status_is_a_table_of_every_migration(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    result = initmig("status", url=partly_migrated.url, folder=folder)
    heading, *lines = result.out.splitlines()
    assert heading.split("  ")[0] == "migration"
    assert [line.split()[:2] for line in lines] == [
        ["0000_y", "changed"],
        ["0001_a", "applied"],
        ["0002_b", "pending"],
        ["0003_c", "pending"],
        ["0000_x", "unknown"],
    ]
    assert all("@" in line and line.endswith(" s") for line in (lines[0], lines[1], lines[4]))
    assert (result.code, result.err) == (0, "")


def test_status_as_json_has_state_path_and_history(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    result = initmig("status", "--json", url=partly_migrated.url, folder=folder)
    rows = {row["id"]: row for row in json.loads(result.out)["migrations"]}
    assert rows["0002_b"] == {
        "id": "0002_b",
        "state": "pending",
        "path": f"{folder}/0002_b.sql",
    }
    applied = rows["0001_a"]
    age = datetime.now(UTC) - datetime.fromisoformat(applied["applied_at"])
    assert timedelta(0) < age < timedelta(minutes=5)
    assert applied["duration_seconds"] > 0
    assert (rows["0000_x"]["state"], rows["0000_x"]["path"]) == ("unknown", None)


def test_status_check_fails_while_something_is_pending(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    before = initmig("status", "--check", url=partly_migrated.url, folder=folder)
    assert (
        "2 pending: 0002_b, 0003_c [migrations-pending]\n  next: run `initmig migrate`"
        in before.err
    )
    assert before.code == 7
    assert before.out.startswith("migration")
    assert initmig(url=partly_migrated.url, folder=folder).code == 0
    after = initmig("status", "--check", url=partly_migrated.url, folder=folder)
    assert (after.code, after.err) == (0, "")


def test_status_of_an_empty_database_writes_nothing(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig("status", url=database.url, folder=write(folder, FILES))
    assert result.out.count("pending") == 3
    assert (result.code, database.tables()) == (0, set())


def test_plan_prints_the_pending_sql_and_writes_nothing(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig("plan", url=database.url, folder=write(folder, FILES))
    assert result.out == (
        f"-- 0001_a ({folder}/0001_a.sql)\n"
        "CREATE TABLE a ();\n\n"
        f"-- 0002_b ({folder}/0002_b.sql; not transactional; depends on 0001_a)\n"
        "-- transactional: false\n-- depends: 0001_a\nCREATE TABLE b ();\n\n"
        f"-- 0003_c ({folder}/0003_c.py)\n"
        "-- 2: not analysed: the Python function f\n"
        f"-- Python: f at {folder}/0003_c.py:2\nSELECT 3\n"
    )
    assert (result.code, database.tables()) == (0, set())


def test_plan_stops_at_the_given_id_and_reports_if_nothing_is_pending(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    some = initmig("plan", "--to", "0002", url=partly_migrated.url, folder=folder)
    assert ("0002_b" in some.out, "0003_c" in some.out) == (True, False)
    none = initmig("plan", "--to", "0001", url=partly_migrated.url, folder=folder)
    assert (none.code, none.out) == (0, "-- nothing is pending\n")


def test_migrating_to_an_applied_id_reports_the_pending_migrations(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    result = initmig("migrate", "--to", "0001_a", url=partly_migrated.url, folder=folder)
    assert "nothing to do up to" in result.err
    assert "2 of 4 migrations pending" in result.err
    assert result.code == 0


def test_wait_ends_once_everything_is_applied(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    waiting = initmig.start("wait", url=database.url, folder=folder)
    line = waiting.wait_for_line("waiting up to 1 m for migrations: 3 pending")
    assert line.endswith("0001_a, 0002_b, 0003_c")
    assert initmig(url=database.url, folder=folder).code == 0
    result = waiting.result()
    assert "nothing to do: 3 migrations, all applied" in result.err
    assert (result.code, result.out) == (0, "")


def test_wait_that_times_out_names_the_pending_migrations(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    result = initmig("wait", "--wait-timeout", "0", url=partly_migrated.url, folder=folder)
    assert "2 pending: 0002_b, 0003_c" in result.err
    assert result.code == 7


def test_waiting_only_for_the_database_needs_no_folder(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig("wait", "--for", "database", url=database.url, folder=folder)
    assert (result.code, result.out) == (0, "")


def test_new_needs_no_database_and_writes_files_that_migrate_accepts(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    sql = initmig("new", "Add E-mail", folder=folder)
    python = initmig("new", "--python", "fill", folder=folder)
    assert (sql.code, python.code) == (0, 0)
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(Path(path).name for path in (sql.out + python.out).split()) == names
    assert [name[14:] for name in names] == [
        "_add_e_mail.rollback.sql",
        "_add_e_mail.sql",
        "_fill.py",
    ]
    for path in folder.iterdir():  # the unchanged template is refused
        path.write_text(path.read_text() + ("# done\n" if path.suffix == ".py" else "SELECT 1;\n"))
    assert initmig(url=database.url, folder=folder).code == 0


def test_unlock_removes_the_lock_rows_of_yoyo_and_of_an_ended_initmig(
    initmig: Initmig, database: Database
) -> None:
    none = initmig("unlock", url=database.url)
    assert "nothing to do: " in none.err
    database.execute(
        "CREATE TABLE yoyo_lock (locked int DEFAULT 1, ctime timestamp, pid int NOT NULL,"
        " PRIMARY KEY (locked))"
    )
    for pid in (42, -42):
        database.execute(f"INSERT INTO yoyo_lock VALUES (1, '2026-01-02 03:04:05', {pid})")
        result = initmig("unlock", url=database.url)
        assert "process 42, held since 2026-01-02 03:04:05 UTC" in result.err
        assert result.code == 0
        assert database.query("SELECT * FROM yoyo_lock") == []


def test_unlock_keeps_the_lock_row_of_a_running_initmig(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"1_slow.sql": "SELECT pg_sleep(60)"})
    running = initmig.start("--log-level=debug", url=database.url, folder=folder)
    running.wait_for_line("acquired the migration lock")
    result = initmig("unlock", url=database.url)
    assert "nothing to do: " in result.err
    assert len(database.query("SELECT * FROM yoyo_lock")) == 1
    running.kill()


def test_outcome_is_written_to_the_termination_log(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    outcome = folder.with_name("outcome")
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    flag = ("--termination-log", str(outcome))
    assert initmig(*flag, url=database.url, folder=folder).code == 0
    assert outcome.read_text().startswith("applied 1 migration in ")
    assert initmig(*flag, url=database.url, folder=folder).code == 0
    assert outcome.read_text() == "nothing to do: 1 migration, all applied"
    write(folder, {"0002_b.sql": f"SELECT '{'漢' * 4096}', missing"})
    assert initmig(*flag, url=database.url, folder=folder).code == 1
    assert 'column "missing" does not exist' in outcome.read_text()
    assert len(outcome.read_bytes()) <= 4096
    assert initmig(*flag, "--nonsense", url=database.url, folder=folder).code == 2
    assert outcome.read_text().startswith("unknown flag --nonsense")


def test_full_stdout_is_an_error_but_a_closed_pipe_is_not(
    initmig: Initmig, partly_migrated: Database, folder: Path
) -> None:
    to_full = ["sh", "-c", 'exec "$@" >/dev/full', "sh"]
    full = initmig("status", url=partly_migrated.url, folder=folder, prefix=to_full)
    assert "cannot write to stdout: No space left on device" in full.err
    assert full.code == 2
    to_closed_pipe = ["sh", "-c", '{ "$@"; echo "code $?" >&2; } | :', "sh"]
    closed_pipe = initmig("status", url=partly_migrated.url, folder=folder, prefix=to_closed_pipe)
    assert closed_pipe.err == "code 0\n"


def test_log_without_a_reader_does_not_stop_the_migrations(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    shell = ["sh", "-c", 'exec 3>&1; { "$@" 2>&1 >&3; echo "code $?" >&3; } | :', "sh"]
    result = initmig(url=database.url, folder=folder, prefix=shell)
    assert result.out == "code 0\n"
    assert {"a", "b"} <= database.tables()


def test_wait_reports_once_that_the_database_is_ahead(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"1_a.sql": "SELECT 1", "2_b.sql": "SELECT 2"})
    assert initmig(url=database.url, folder=folder).code == 0
    (folder / "1_a.sql").rename(folder / "3_c.sql")
    late = initmig("wait", "--wait-timeout=700ms", url=database.url, folder=folder)
    assert (late.code, late.err.count("ahead")) == (7, 0)
    assert initmig(url=database.url, folder=folder).code == 0
    done = initmig("wait", url=database.url, folder=folder)
    assert (done.code, done.err.count("ahead")) == (0, 1)
