"""`doctor` reports problems of the server, the connection, another migrator and the files."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from initmig.commands.doctor import other_roles
from initmig.commands.doctor.doctor import examine
from initmig.config.config import parse_config
from tests.support.databases import Database
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import DatabaseServer
    from tests.support.processes import Result
    from tests.support.servers import MakeServer, MakeStandby

CREATES_IN_PUBLIC = "GRANT USAGE, CREATE ON SCHEMA public TO {role}"
KEY = "SELECT hashtextextended('public', 20261122)"


def not_ok(result: Result) -> list[tuple[str, str, str]]:
    """The level, subject and finding of each check that is not ok.

    Leaves out the checks of other roles (tests/integration/test_doctor_other_roles.py), because
    other tests also create roles, and a new database's privileges differ between versions.
    """
    checks = json.loads(result.out)["checks"]
    return [
        (check["level"], check["subject"], check["found"])
        for check in checks
        if check["level"] != "ok" and check["subject"] not in other_roles.SUBJECTS
    ]


def found(result: Result, subject: str) -> str:
    [text] = [
        check["found"] for check in json.loads(result.out)["checks"] if check["subject"] == subject
    ]
    return str(text)


@pytest.fixture
def app(database: Database) -> str:
    """The URL of a role that can create objects in `public`."""
    return database.login_role(CREATES_IN_PUBLIC)


@pytest.fixture
def one_migration(folder: Path) -> Path:
    """A folder with a single migration."""
    return write(folder, {"0001_t.sql": "CREATE TABLE t (a int)"})


def test_text_shows_the_statement_and_the_role_that_must_run_it(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    login = database.login_role("REVOKE CREATE ON SCHEMA public FROM {role}, public")
    name = urlsplit(login).username
    result = initmig("doctor", url=login, folder=one_migration)
    lines = result.out.splitlines()
    [index] = [i for i, line in enumerate(lines) if line.startswith("failure")]
    assert lines[index].split()[:2] == ["failure", "table"]
    next_step = f"  next: GRANT CREATE ON SCHEMA public TO {name};  -- as postgres, or a superuser"
    assert lines[index + 1] == next_step
    assert "1 of 17 checks failed [checks-failed]\n  next: follow the next step" in result.err
    assert result.code == 4


def test_message_of_the_server_stays_on_one_line_with_its_secrets_masked(
    initmig: Initmig, database: Database, app: str, one_migration: Path
) -> None:
    database.execute(
        """CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE E'ask\\n\\u2028postgresql://u:hunter2@dba'; END $$;
        CREATE EVENT TRIGGER forbidding ON ddl_command_start EXECUTE FUNCTION forbid()"""
    )
    result = initmig("doctor", url=app, folder=one_migration)
    text = "cannot create a table in public: ask\\n\\u2028postgresql://u:***@dba (P0001)"
    assert text in result.out
    assert result.code == 4


def test_role_without_privileges_is_reported(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    login = database.login_role(
        "REVOKE ALL ON SCHEMA public FROM public",
        f"REVOKE ALL ON DATABASE {database.name} FROM public",
        f"GRANT CONNECT ON DATABASE {database.name} TO {{role}}",
    )
    result = initmig("doctor", "--json", url=login, folder=one_migration)
    name = urlsplit(login).username
    assert not_ok(result) == [("failure", "schema", f"{name} lacks USAGE on the schema public")]
    assert result.code == 4


def test_checks_run_as_the_given_role(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    owner = database.login_role()
    name = urlsplit(owner).username
    login = database.login_role(f"GRANT {name} TO {{role}}")
    database.execute(f"CREATE SCHEMA s AUTHORIZATION {name}")
    result = initmig(
        "doctor", "--json", f"--role={name}", "--schema=s", url=login, folder=one_migration
    )
    assert not_ok(result) == []
    user = urlsplit(login).username
    assert found(result, "role") == f"logs in as {user}, runs migrations as {name}"
    assert found(result, "schema") == "new objects go to s"
    assert (result.code, database.tables("s")) == (0, set())


def test_refused_login_is_a_failed_check_in_the_json_output(
    initmig: Initmig, app: str, one_migration: Path
) -> None:
    parts = urlsplit(app)
    address = parts.netloc.rpartition("@")[2]
    wrong = urlunsplit(parts._replace(netloc=f"{parts.username}:se%63ret@{address}"))
    result = initmig("doctor", "--json", "--wait-timeout=0", url=wrong, folder=one_migration)
    [(level, subject, text)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "login", 4)
    assert "password authentication failed" in text
    assert "secret" not in result.out + result.err


def test_waits_for_a_database_that_does_not_answer(initmig: Initmig, one_migration: Path) -> None:
    nowhere = "postgresql://app@127.0.0.1:1/app"
    result = initmig("doctor", "--json", "--wait-timeout=300ms", url=nowhere, folder=one_migration)
    assert (result.code, result.out) == (3, "")
    assert "waiting up to 0.3 s for the database" in result.err


def test_file_that_does_not_load_exits_2(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "COMMIT", "0002_b.py": "1 +"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert (result.code, result.out) == (2, "")
    assert "COMMIT would" in result.err
    assert "0002_b.py:1:4: " in result.err
    assert initmig("doctor", url=database.url, folder=folder / "none").code == 2


def test_standby_is_a_failure_and_no_statement_is_refused_on_it(
    make_server: MakeServer, make_standby: MakeStandby, initmig: Initmig, one_migration: Path
) -> None:
    primary = make_server()
    assert initmig(url=primary.url(), folder=one_migration).code == 0
    standby = make_standby(primary)
    applied = Database(standby.url()).value
    wait_until(lambda: applied("SELECT to_regclass('_initmig_migration') IS NOT NULL"))
    since = len(standby.log_text())
    result = initmig("doctor", "--json", url=standby.url(), folder=one_migration)
    assert not_ok(result) == [("failure", "writing", "the server is a standby")]
    assert found(result, "plan") == "0 of 1 migrations pending"
    assert result.code == 4
    assert standby.log_lines_above_log(since=since) == []


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_privileges_are_checked_through_a_pooler_and_its_session_is_unchanged(
    server: DatabaseServer, initmig: Initmig, database: Database, one_migration: Path, mode: str
) -> None:
    database.execute(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    )  # the default since PostgreSQL 15
    with running_pgbouncer(server, pool_mode=mode) as pooler:
        url = pooler.url(database.name)
        for _ in range(2):
            result = initmig("doctor", "--json", "--role=pg_monitor", url=url, folder=one_migration)
            assert ("warning", "pooler") in [check[:2] for check in not_ok(result)]
            assert result.code == 4  # pg_monitor lacks CREATE on public
        with Database(url).connect() as connection:
            rows = connection.execute("SELECT current_user, current_setting('lock_timeout')")
            assert rows.fetchall() == [("postgres", "0")]
    assert database.tables() == set()


def test_pooler_in_statement_mode_is_a_failure(
    server: DatabaseServer, initmig: Initmig, database: Database, one_migration: Path
) -> None:
    with running_pgbouncer(server, pool_mode="statement") as pooler:
        result = initmig("doctor", "--json", url=pooler.url(database.name), folder=one_migration)
    [(level, subject, text)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "pooler", 4)
    assert "the pooler is in statement mode" in text


@pytest.mark.parametrize("difference", [-90.0, 90.0])
def test_clock_difference_is_a_warning(
    database: Database, one_migration: Path, difference: float
) -> None:
    environ = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(one_migration)}
    config = parse_config(["doctor"], environ)
    checks = examine(config, lambda _: None, wall=lambda: time.time() + difference)
    [check] = [
        check
        for check in checks
        if check.level != "ok" and check.subject not in other_roles.SUBJECTS
    ]
    assert (check.level, check.subject) == ("warning", "clock")
    assert f" {'behind' if difference > 0 else 'ahead of'} this machine's" in check.found
    assert "1 m 3" in check.found or "1 m 29 s" in check.found


def test_locked_history_is_a_warning_after_the_lock_timeout(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    assert initmig(url=database.url, folder=one_migration).code == 0
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE _yoyo_migration, yoyo_lock")
        result = initmig("doctor", "--json", url=database.url, folder=one_migration)
        found = not_ok(result)
    timeout = "not checked because of a lock timeout: canceling statement due to lock timeout"
    assert found == [("warning", "history", timeout), ("warning", "plan", timeout)]
    assert result.code == 0


def test_rows_locked_by_another_session_do_not_block(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    assert initmig(url=database.url, folder=one_migration).code == 0
    with database.connect(autocommit=False) as other:
        other.execute("UPDATE _yoyo_migration SET migration_id = migration_id")
        other.execute("INSERT INTO yoyo_lock VALUES (1, now(), -1)")
        result = initmig("doctor", "--json", url=database.url, folder=one_migration)
    assert (not_ok(result), result.code) == ([], 0)


def test_holder_of_the_lock_is_named(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    with database.connect() as other:
        other.execute("SET application_name = 'other_app'")
        other.execute(f"SELECT pg_advisory_lock(({KEY}))".encode())
        result = initmig("doctor", "--json", url=database.url, folder=one_migration)
        pid = other.info.backend_pid
    [(level, subject, text)] = not_ok(result)
    assert (level, subject, result.code) == ("warning", "lock", 0)
    holder = f"pid {pid} (other_app, user postgres"
    assert "does not belong to initmig" in text
    assert holder in text


@pytest.mark.parametrize(("pid", "is_reported"), [(4711, True), (-4711, False)])
def test_lock_row_of_stock_yoyo_is_a_warning_and_that_of_a_dead_initmig_is_not(
    initmig: Initmig, database: Database, one_migration: Path, pid: int, is_reported: bool
) -> None:
    assert initmig(url=database.url, folder=one_migration).code == 0
    database.execute(f"INSERT INTO yoyo_lock VALUES (1, '2026-01-02 03:04:05', {pid})")
    result = initmig("doctor", "--json", url=database.url, folder=one_migration)
    text = "yoyo with process id 4711 has held its lock row since 2026-01-02 03:04:05 UTC"
    assert not_ok(result) == ([("warning", "lock", text)] if is_reported else [])
    assert database.query("SELECT pid FROM yoyo_lock") == [(pid,)]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--changed", "0001_a is applied, but {folder}/0001_a.sql has changed since"),
        ("--out-of-order", "0000_z would be applied after 0001_a, which is already applied"),
    ],
)
def test_refusal_by_migrate_is_a_failure_with_fail_and_a_warning_by_default(
    initmig: Initmig, database: Database, folder: Path, flag: str, expected: str
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    late = "0001_a.sql" if flag == "--changed" else "0000_z.sql"
    write(folder, {late: "SELECT 2", "0002_b.sql": "SELECT 3"})
    refused = initmig("doctor", "--json", f"{flag}=fail", url=database.url, folder=folder)
    assert not_ok(refused) == [("failure", "plan", expected.format(folder=folder))]
    assert refused.code == 6
    warned = initmig("doctor", "--json", url=database.url, folder=folder)
    [(level, subject, _)] = not_ok(warned)
    assert (level, subject, warned.code) == ("warning", "plan", 0)
    allowed = initmig("doctor", "--json", f"{flag}=allow", url=database.url, folder=folder)
    assert (not_ok(allowed), allowed.code) == ([], 0)


def test_image_older_than_a_breaking_migration_is_a_failure_and_otherwise_a_warning(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1", "0002_b.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    (folder / "0002_b.sql").unlink()
    older = initmig("doctor", "--json", url=database.url, folder=folder)
    assert [check[:2] for check in not_ok(older)] == [("warning", "plan")]
    assert older.code == 0
    write(folder, {"0003_c.sql": "-- breaking: true\nSELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    (folder / "0003_c.sql").unlink()
    too_old = initmig("doctor", "--json", url=database.url, folder=folder)
    assert ("failure", "plan") in [check[:2] for check in not_ok(too_old)]
    assert ": 0003_c" in too_old.out
    assert too_old.code == 6


def test_half_applied_migration_is_a_failure_only_if_its_file_changed(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "-- transactional: false\nCREATE TABLE a (); SELECT 1/0"})
    assert initmig(url=database.url, folder=folder).code == 1
    unchanged = initmig("doctor", "--json", url=database.url, folder=folder)
    assert (not_ok(unchanged), unchanged.code) == ([], 0)
    write(folder, {"0001_a.sql": "-- transactional: false\nCREATE TABLE a (); SELECT 1"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    [(level, subject, text)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "plan", 6)
    assert text.startswith("0001_a is half-applied, and ")


def test_missing_privilege_determines_the_exit_code_before_the_plan(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1", "0002_b.sql": "CREATE EXTENSION no_such"})
    assert initmig("--to=0001", url=database.url, folder=folder).code == 0
    write(folder, {"0000_z.sql": "SELECT 1"})
    result = initmig("doctor", "--json", "--out-of-order=fail", url=database.url, folder=folder)
    assert [check[1] for check in not_ok(result)] == ["plan", "pending"]
    assert result.code == 4


def test_history_of_another_role_is_fixed_by_the_printed_statements(
    initmig: Initmig, database: Database, app: str, one_migration: Path
) -> None:
    owner = database.login_role(CREATES_IN_PUBLIC)
    assert initmig(url=owner, folder=one_migration).code == 0
    result = initmig("doctor", "--json", url=app, folder=one_migration)
    assert [check[:2] for check in not_ok(result)] == [("failure", "history")] * 5
    assert result.code == 6
    for check in json.loads(result.out)["checks"]:
        if check["subject"] == "history":
            database.execute(check["statement"])
    write(one_migration, {"0002_u.sql": "CREATE TABLE u ()"})
    fixed = initmig("doctor", "--json", url=app, folder=one_migration)
    assert (not_ok(fixed), fixed.code) == ([], 0)
    assert initmig(url=app, folder=one_migration).code == 0


def test_history_of_an_older_yoyo_is_checked_and_left_unchanged(
    initmig: Initmig, database: Database, app: str, one_migration: Path
) -> None:
    database.execute(
        "CREATE TABLE _yoyo_migration (id varchar(191) PRIMARY KEY, ctime timestamp);"
        " INSERT INTO _yoyo_migration VALUES ('0001_t', now())"
    )
    assert initmig("doctor", "--json", url=database.url, folder=one_migration).code == 0
    assert database.query("SELECT id FROM _yoyo_migration") == [("0001_t",)]
    refused = initmig("doctor", "--json", url=app, folder=one_migration)
    assert ("failure", "history") in [check[:2] for check in not_ok(refused)]


def test_unchecked_python_functions_are_reported(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    function = "from yoyo import step\nstep(lambda connection: connection.execute('TABLE no_such'))"
    write(folder, {"0001_p.py": function})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert found(result, "pending").endswith("; Python functions are not checked: 0001_p")
    assert result.code == 0


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DROP TABLE no_such", "uses no_such, which does not exist"),
        ("CREATE EXTENSION no_such", "which is not available"),
    ],
)
def test_sql_in_python_steps_is_checked(
    initmig: Initmig, database: Database, folder: Path, sql: str, expected: str
) -> None:
    write(folder, {"0001_p.py": f"from yoyo import step\nstep('{sql}')"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert f"{folder}/0001_p.py:2:7" in found(result, "pending")
    assert (expected in found(result, "pending"), result.code) == (True, 4)


def test_pending_hook_is_checked(
    initmig: Initmig, database: Database, app: str, one_migration: Path
) -> None:
    database.execute("CREATE TABLE others ()")
    write(one_migration, {"post-apply.sql": "DELETE FROM others"})
    result = initmig("doctor", "--json", url=app, folder=one_migration)
    [(level, subject, text)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "pending", 4)
    assert text.startswith(f"{one_migration}/post-apply.sql:1:1 deletes from public.others")


def test_schema_named_role_is_not_mistaken_for_the_setting(
    initmig: Initmig, database: Database, app: str, folder: Path
) -> None:
    database.execute("CREATE SCHEMA role")
    write(folder, {"0001_t.sql": "CREATE TABLE role.t ()", "0002_u.sql": "RESET ROLE"})
    result = initmig("doctor", "--json", url=app, folder=folder)
    levels = [check[:2] for check in not_ok(result)]
    assert levels == [("failure", "pending"), ("warning", "pending")]


def test_deeply_nested_expression_after_thousands_of_statements_is_a_warning(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    rows = "INSERT INTO t VALUES (1);\n" * 5000
    deep = f"SELECT {'+'.join(['1'] * 200)};\nSELECT {'+'.join(['1'] * 5000)}"
    write(folder, {"0001_t.sql": f"CREATE TABLE t (a int);\n{rows}{deep}"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    [(level, subject, text)] = not_ok(result)
    assert (level, subject, result.code) == ("warning", "pending", 0)
    assert "line 5003: nested too deeply" in text


def test_autovacuum_worker_does_not_count_as_a_connection(
    make_server: MakeServer, initmig: Initmig, one_migration: Path
) -> None:
    # slow enough to run during the whole test
    server = make_server(
        autovacuum_naptime="1s",
        autovacuum_vacuum_cost_delay="100ms",
        autovacuum_vacuum_cost_limit=1,
    )
    database = Database(server.url())
    app = database.login_role(CREATES_IN_PUBLIC)
    database.execute("CREATE TABLE big AS SELECT FROM generate_series(1, 100000)")
    database.execute("DELETE FROM big")
    workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
    wait_until(lambda: database.value(f"{workers} AND datname = current_database()") == 1)
    database.execute("ALTER DATABASE postgres CONNECTION LIMIT 2")
    wait_until(lambda: clients(database) == 1)
    result = initmig("doctor", "--json", url=app, folder=one_migration)
    assert found(result, "connections") == "1 free"
    assert database.value(f"{workers} AND datname = current_database()") == 1


def clients(database: Database) -> int:
    """The number of clients, including those whose server process has not yet exited."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    return int(database.value(query))


def test_privileges_are_checked_on_a_server_that_is_read_only_by_default(
    make_server: MakeServer, initmig: Initmig, one_migration: Path
) -> None:
    server = make_server(default_transaction_read_only="on")
    result = initmig("doctor", "--json", url=server.url(), folder=one_migration)
    assert [check[:2] for check in not_ok(result)] == [("failure", "writing")]
    assert found(result, "history") == "can be created and written"
    assert result.code == 4
    assert Database(server.url()).tables() == set()


@pytest.mark.any_version
def test_restricted_views_are_a_warning_and_the_printed_statement_fixes_it(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    app = database.login_role(
        CREATES_IN_PUBLIC, "ALTER ROLE {role} SET restrict_nonsystem_relation_kind = 'view'"
    )
    write(one_migration, {"0002_v.sql": "CREATE VIEW v AS SELECT 1; SELECT * FROM v"})
    result = initmig("doctor", "--json", url=app, folder=one_migration)
    [(level, subject, text)] = not_ok(result)
    assert (level, subject) == ("warning", "settings")
    assert text.startswith("restrict_nonsystem_relation_kind is view, set by ALTER ROLE ")
    failed = initmig(url=app, folder=one_migration)
    assert failed.code == 1
    assert "access to non-system view" in failed.err
    [statement] = [c["statement"] for c in json.loads(result.out)["checks"] if c["statement"]]
    Database(app).execute(statement)
    assert not_ok(initmig("doctor", "--json", url=app, folder=one_migration)) == []
    assert initmig(url=app, folder=one_migration).code == 0


@pytest.mark.any_version
def test_missing_synchronous_standby_is_a_failure(
    make_server: MakeServer, make_standby: MakeStandby, initmig: Initmig, one_migration: Path
) -> None:
    """The migrating role lacks the privilege to see which standbys are synchronous."""
    server = make_server(synchronous_standby_names="ANY 1 (*)", synchronous_commit="local")
    database = Database(server.url())
    app = database.login_role(CREATES_IN_PUBLIC, "ALTER ROLE {role} SET synchronous_commit = on")
    for url in (app, f"{database.url}?options=-csynchronous_commit%3Don"):
        result = initmig("doctor", "--json", url=url, folder=one_migration)
        assert not_ok(result) == [
            (
                "failure",
                "settings",
                (
                    "every COMMIT waits forever: 0 of 1 synchronous standbys are connected"
                    " (synchronous_standby_names is ANY 1 (*))"
                ),
            )
        ]
        assert result.code == 4
    make_standby(server)
    wait_until(lambda: not_ok(initmig("doctor", "--json", url=app, folder=one_migration)) == [])
    assert initmig(url=app, folder=one_migration).code == 0


@pytest.mark.any_version
def test_history_is_found_with_standard_conforming_strings_off(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    database.execute("CREATE SCHEMA sales")
    app = database.login_role(
        "GRANT USAGE, CREATE ON SCHEMA sales TO {role}",
        "ALTER ROLE {role} SET search_path = sales, public",
    )
    assert initmig(url=app, folder=one_migration).code == 0
    database.execute(
        f"ALTER ROLE {urlsplit(app).username} SET standard_conforming_strings = off;"
        f" ALTER ROLE {urlsplit(app).username} SET search_path = public, sales"
    )
    result = initmig("status", "--check", url=app, folder=one_migration)
    assert result.code == 0, result.err
