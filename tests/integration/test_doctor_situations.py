"""`doctor` where the server, the way to it, another migrator or the files are what is broken."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from initmig.commands.doctor import other_roles
from initmig.commands.doctor.doctor import doctor
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
    """Level, subject and what was found, of the checks that are not ok.

    Without those about other roles (tests/integration/test_doctor_outsiders.py): other tests have
    roles, too, and the privileges of a new database differ between versions.
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
    """The URL of a role that may create in `public`."""
    return database.login_role(CREATES_IN_PUBLIC)


@pytest.fixture
def one(folder: Path) -> Path:
    """A folder with one migration."""
    return write(folder, {"0001_t.sql": "CREATE TABLE t (a int)"})


def test_text_has_the_statement_below_its_line_and_who_must_run_it(
    initmig: Initmig, database: Database, one: Path
) -> None:
    nobody = database.login_role("REVOKE CREATE ON SCHEMA public FROM {role}, public")
    name = urlsplit(nobody).username
    result = initmig("doctor", url=nobody, folder=one)
    lines = result.out.splitlines()
    [index] = [i for i, line in enumerate(lines) if line.startswith("failure")]
    assert lines[index].split()[:2] == ["failure", "table"]
    next_step = f"  next: GRANT CREATE ON SCHEMA public TO {name};  -- as postgres, or a superuser"
    assert lines[index + 1] == next_step
    assert "1 of 17 checks failed [checks-failed]\n  next: follow the next step" in result.err
    assert result.code == 4


def test_one_line_is_one_line_whatever_the_server_says(
    initmig: Initmig, database: Database, app: str, one: Path
) -> None:
    database.execute(
        """CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE E'ask\\n\\u2028postgresql://u:hunter2@dba'; END $$;
        CREATE EVENT TRIGGER forbidding ON ddl_command_start EXECUTE FUNCTION forbid()"""
    )
    result = initmig("doctor", url=app, folder=one)
    said = "cannot create a table in public: ask\\n\\u2028postgresql://u:***@dba (P0001)"
    assert said in result.out
    assert result.code == 4


def test_a_role_that_may_do_nothing_is_told_all_the_same(
    initmig: Initmig, database: Database, one: Path
) -> None:
    nobody = database.login_role(
        "REVOKE ALL ON SCHEMA public FROM public",
        f"REVOKE ALL ON DATABASE {database.name} FROM public",
        f"GRANT CONNECT ON DATABASE {database.name} TO {{role}}",
    )
    result = initmig("doctor", "--json", url=nobody, folder=one)
    name = urlsplit(nobody).username
    assert not_ok(result) == [("failure", "schema", f"{name} lacks USAGE on the schema public")]
    assert result.code == 4


def test_a_role_that_helps_is_worked_as(initmig: Initmig, database: Database, one: Path) -> None:
    owner = database.login_role()
    name = urlsplit(owner).username
    login = database.login_role(f"GRANT {name} TO {{role}}")
    database.execute(f"CREATE SCHEMA s AUTHORIZATION {name}")
    result = initmig("doctor", "--json", f"--role={name}", "--schema=s", url=login, folder=one)
    assert not_ok(result) == []
    user = urlsplit(login).username
    assert found(result, "role") == f"logs in as {user}, runs migrations as {name}"
    assert found(result, "schema") == "new objects go to s"
    assert (result.code, database.tables("s")) == (0, set())


def test_a_refused_login_is_a_failure_in_the_document(
    initmig: Initmig, app: str, one: Path
) -> None:
    parts = urlsplit(app)
    address = parts.netloc.rpartition("@")[2]
    wrong = urlunsplit(parts._replace(netloc=f"{parts.username}:se%63ret@{address}"))
    result = initmig("doctor", "--json", "--wait-timeout=0", url=wrong, folder=one)
    [(level, subject, said)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "login", 4)
    assert "password authentication failed" in said
    assert "secret" not in result.out + result.err


def test_a_database_that_does_not_answer_is_waited_for_as_everywhere(
    initmig: Initmig, one: Path
) -> None:
    nowhere = "postgresql://app@127.0.0.1:1/app"
    result = initmig("doctor", "--json", "--wait-timeout=300ms", url=nowhere, folder=one)
    assert (result.code, result.out) == (3, "")
    assert "waiting up to 0.3 s for the database" in result.err


def test_a_file_that_does_not_load_is_exit_2_as_everywhere(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "COMMIT", "0002_b.py": "1 +"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert (result.code, result.out) == (2, "")
    assert "COMMIT would" in result.err
    assert "0002_b.py:1:4: " in result.err
    assert initmig("doctor", url=database.url, folder=folder / "none").code == 2


def test_a_standby_is_told_and_nothing_is_tried_there(
    make_server: MakeServer, make_standby: MakeStandby, initmig: Initmig, one: Path
) -> None:
    primary = make_server()
    assert initmig(url=primary.url(), folder=one).code == 0
    standby = make_standby(primary)
    applied = Database(standby.url()).value
    wait_until(lambda: applied("SELECT to_regclass('_initmig_migration') IS NOT NULL"))
    since = len(standby.log_text())
    result = initmig("doctor", "--json", url=standby.url(), folder=one)
    assert not_ok(result) == [("failure", "writing", "the server is a standby")]
    assert found(result, "plan") == "0 of 1 migrations pending"
    assert result.code == 4
    assert standby.log_lines_above_log(since=since) == []


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_behind_a_pooler_rights_are_tried_and_nothing_stays(
    server: DatabaseServer, initmig: Initmig, database: Database, one: Path, mode: str
) -> None:
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as PostgreSQL 15 begins
    with running_pgbouncer(server, pool_mode=mode) as pooler:
        url = pooler.url(database.name)
        for _ in range(2):
            result = initmig("doctor", "--json", "--role=pg_monitor", url=url, folder=one)
            assert ("warning", "pooler") in [check[:2] for check in not_ok(result)]
            assert result.code == 4  # pg_monitor lacks CREATE on public
        with Database(url).connect() as connection:
            rows = connection.execute("SELECT current_user, current_setting('lock_timeout')")
            assert rows.fetchall() == [("postgres", "0")]
    assert database.tables() == set()


def test_a_pooler_in_statement_mode_is_refused(
    server: DatabaseServer, initmig: Initmig, database: Database, one: Path
) -> None:
    with running_pgbouncer(server, pool_mode="statement") as pooler:
        result = initmig("doctor", "--json", url=pooler.url(database.name), folder=one)
    [(level, subject, said)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "pooler", 4)
    assert "the pooler is in statement mode" in said


@pytest.mark.parametrize("apart", [-90.0, 90.0])
def test_clocks_that_are_apart_are_a_warning(database: Database, one: Path, apart: float) -> None:
    environ = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(one)}
    config = parse_config(["doctor"], environ)
    checks = doctor(config, lambda _: None, wall=lambda: time.time() + apart)
    [check] = [
        check
        for check in checks
        if check.level != "ok" and check.subject not in other_roles.SUBJECTS
    ]
    assert (check.level, check.subject) == ("warning", "clock")
    assert f" {'behind' if apart > 0 else 'ahead of'} this machine's" in check.found
    assert "1 m 3" in check.found or "1 m 29 s" in check.found


def test_no_lock_is_waited_for(initmig: Initmig, database: Database, one: Path) -> None:
    assert initmig(url=database.url, folder=one).code == 0
    with database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE _yoyo_migration, yoyo_lock")
        result = initmig("doctor", "--json", url=database.url, folder=one)
        told = not_ok(result)
    timeout = "not checked because of a lock timeout: canceling statement due to lock timeout"
    assert told == [("warning", "history", timeout), ("warning", "plan", timeout)]
    assert result.code == 0


def test_a_row_that_somebody_else_has_locked_is_no_obstacle(
    initmig: Initmig, database: Database, one: Path
) -> None:
    assert initmig(url=database.url, folder=one).code == 0
    with database.connect(autocommit=False) as other:
        other.execute("UPDATE _yoyo_migration SET migration_id = migration_id")
        other.execute("INSERT INTO yoyo_lock VALUES (1, now(), -1)")
        result = initmig("doctor", "--json", url=database.url, folder=one)
    assert (not_ok(result), result.code) == ([], 0)


def test_who_holds_the_lock_is_named(initmig: Initmig, database: Database, one: Path) -> None:
    with database.connect() as other:
        other.execute("SET application_name = 'somebody'")
        other.execute(f"SELECT pg_advisory_lock(({KEY}))".encode())
        result = initmig("doctor", "--json", url=database.url, folder=one)
        pid = other.info.backend_pid
    [(level, subject, said)] = not_ok(result)
    assert (level, subject, result.code) == ("warning", "lock", 0)
    who = f"pid {pid} (somebody, user postgres"
    assert "does not belong to initmig" in said
    assert who in said


@pytest.mark.parametrize(("pid", "told"), [(4711, True), (-4711, False)])
def test_the_row_of_a_stock_yoyo_is_told_that_of_a_dead_initmig_is_no_obstacle(
    initmig: Initmig, database: Database, one: Path, pid: int, told: bool
) -> None:
    assert initmig(url=database.url, folder=one).code == 0
    database.execute(f"INSERT INTO yoyo_lock VALUES (1, '2026-01-02 03:04:05', {pid})")
    result = initmig("doctor", "--json", url=database.url, folder=one)
    said = "yoyo with process id 4711 has held its lock row since 2026-01-02 03:04:05 UTC"
    assert not_ok(result) == ([("warning", "lock", said)] if told else [])
    assert database.query("SELECT pid FROM yoyo_lock") == [(pid,)]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--changed", "0001_a is applied, but {folder}/0001_a.sql has changed since"),
        ("--out-of-order", "0000_z would be applied after 0001_a, which is already applied"),
    ],
)
def test_what_migrate_would_refuse_is_a_failure_under_fail_and_a_warning_else(
    initmig: Initmig, database: Database, folder: Path, flag: str, said: str
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    late = "0001_a.sql" if flag == "--changed" else "0000_z.sql"
    write(folder, {late: "SELECT 2", "0002_b.sql": "SELECT 3"})
    refused = initmig("doctor", "--json", f"{flag}=fail", url=database.url, folder=folder)
    assert not_ok(refused) == [("failure", "plan", said.format(folder=folder))]
    assert refused.code == 6
    warned = initmig("doctor", "--json", url=database.url, folder=folder)
    [(level, subject, _)] = not_ok(warned)
    assert (level, subject, warned.code) == ("warning", "plan", 0)
    allowed = initmig("doctor", "--json", f"{flag}=allow", url=database.url, folder=folder)
    assert (not_ok(allowed), allowed.code) == ([], 0)


def test_an_image_that_is_too_old_is_a_failure_and_one_that_is_behind_a_warning(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1", "0002_b.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    (folder / "0002_b.sql").unlink()
    behind = initmig("doctor", "--json", url=database.url, folder=folder)
    assert [check[:2] for check in not_ok(behind)] == [("warning", "plan")]
    assert behind.code == 0
    write(folder, {"0003_c.sql": "-- breaking: true\nSELECT 1"})
    assert initmig(url=database.url, folder=folder).code == 0
    (folder / "0003_c.sql").unlink()
    old = initmig("doctor", "--json", url=database.url, folder=folder)
    assert ("failure", "plan") in [check[:2] for check in not_ok(old)]
    assert ": 0003_c" in old.out
    assert old.code == 6


def test_a_migration_that_stopped_half_way_and_changed_is_a_failure(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "-- transactional: false\nCREATE TABLE a (); SELECT 1/0"})
    assert initmig(url=database.url, folder=folder).code == 1
    going_on = initmig("doctor", "--json", url=database.url, folder=folder)
    assert (not_ok(going_on), going_on.code) == ([], 0)
    write(folder, {"0001_a.sql": "-- transactional: false\nCREATE TABLE a (); SELECT 1"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    [(level, subject, said)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "plan", 6)
    assert said.startswith("0001_a is half-applied, and ")


def test_rights_come_before_the_plan_in_the_exit_code(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1", "0002_b.sql": "CREATE EXTENSION no_such"})
    assert initmig("--to=0001", url=database.url, folder=folder).code == 0
    write(folder, {"0000_z.sql": "SELECT 1"})
    result = initmig("doctor", "--json", "--out-of-order=fail", url=database.url, folder=folder)
    assert [check[1] for check in not_ok(result)] == ["plan", "pending"]
    assert result.code == 4


def test_history_of_another_is_mended_by_a_superuser(
    initmig: Initmig, database: Database, app: str, one: Path
) -> None:
    owner = database.login_role(CREATES_IN_PUBLIC)
    assert initmig(url=owner, folder=one).code == 0
    result = initmig("doctor", "--json", url=app, folder=one)
    assert [check[:2] for check in not_ok(result)] == [("failure", "history")] * 5
    assert result.code == 6
    for check in json.loads(result.out)["checks"]:
        if check["subject"] == "history":
            database.execute(check["statement"])
    write(one, {"0002_u.sql": "CREATE TABLE u ()"})
    mended = initmig("doctor", "--json", url=app, folder=one)
    assert (not_ok(mended), mended.code) == ([], 0)
    assert initmig(url=app, folder=one).code == 0  # and it is as doctor says


def test_history_of_an_older_yoyo_and_of_an_older_initmig_is_tried_and_kept(
    initmig: Initmig, database: Database, app: str, one: Path
) -> None:
    database.execute(
        "CREATE TABLE _yoyo_migration (id varchar(191) PRIMARY KEY, ctime timestamp);"
        " INSERT INTO _yoyo_migration VALUES ('0001_t', now())"
    )
    assert initmig("doctor", "--json", url=database.url, folder=one).code == 0
    assert database.query("SELECT id FROM _yoyo_migration") == [("0001_t",)]
    refused = initmig("doctor", "--json", url=app, folder=one)
    assert ("failure", "history") in [check[:2] for check in not_ok(refused)]


def test_python_is_not_looked_into_and_that_is_said(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    function = "from yoyo import step\nstep(lambda connection: connection.execute('TABLE no_such'))"
    write(folder, {"0001_p.py": function})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert found(result, "pending").endswith("; Python functions are not checked: 0001_p")
    assert result.code == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE no_such", "uses no_such, which does not exist"),
        ("CREATE EXTENSION no_such", "which is not available"),
    ],
)
def test_sql_in_python_is_looked_into(
    initmig: Initmig, database: Database, folder: Path, sql: str, said: str
) -> None:
    write(folder, {"0001_p.py": f"from yoyo import step\nstep('{sql}')"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    assert f"{folder}/0001_p.py:2:7" in found(result, "pending")
    assert (said in found(result, "pending"), result.code) == (True, 4)


def test_a_pending_hook_is_looked_into(
    initmig: Initmig, database: Database, app: str, one: Path
) -> None:
    database.execute("CREATE TABLE others ()")
    write(one, {"post-apply.sql": "DELETE FROM others"})
    result = initmig("doctor", "--json", url=app, folder=one)
    [(level, subject, said)] = not_ok(result)
    assert (level, subject, result.code) == ("failure", "pending", 4)
    assert said.startswith(f"{one}/post-apply.sql:1:1 deletes from public.others")


def test_a_schema_may_have_the_name_of_a_setting(
    initmig: Initmig, database: Database, app: str, folder: Path
) -> None:
    database.execute("CREATE SCHEMA role")
    write(folder, {"0001_t.sql": "CREATE TABLE role.t ()", "0002_u.sql": "RESET ROLE"})
    result = initmig("doctor", "--json", url=app, folder=folder)
    levels = [check[:2] for check in not_ok(result)]
    assert levels == [("failure", "pending"), ("warning", "pending")]


def test_thousands_of_statements_and_deep_expressions_are_read(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    rows = "INSERT INTO t VALUES (1);\n" * 5000
    deep = f"SELECT {'+'.join(['1'] * 200)};\nSELECT {'+'.join(['1'] * 5000)}"
    write(folder, {"0001_t.sql": f"CREATE TABLE t (a int);\n{rows}{deep}"})
    result = initmig("doctor", "--json", url=database.url, folder=folder)
    [(level, subject, said)] = not_ok(result)
    assert (level, subject, result.code) == ("warning", "pending", 0)
    assert "line 5003: nested too deeply" in said


def test_an_autovacuum_worker_takes_nobodys_connection(
    make_server: MakeServer, initmig: Initmig, one: Path
) -> None:
    # slow enough to be there for the whole test
    server = make_server(
        autovacuum_naptime="1s",
        autovacuum_vacuum_cost_delay="100ms",
        autovacuum_vacuum_cost_limit=1,
    )
    database = Database(server.url())
    app = database.login_role(CREATES_IN_PUBLIC)
    database.execute("CREATE TABLE big AS SELECT FROM generate_series(1, 100000)")
    database.execute("DELETE FROM big")
    at_work = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
    wait_until(lambda: database.value(f"{at_work} AND datname = current_database()") == 1)
    database.execute("ALTER DATABASE postgres CONNECTION LIMIT 2")
    wait_until(lambda: clients(database) == 1)
    result = initmig("doctor", "--json", url=app, folder=one)
    assert found(result, "connections") == "1 free"
    assert database.value(f"{at_work} AND datname = current_database()") == 1


def clients(database: Database) -> int:
    """The one that asks, and others whose server process has outlived them for a moment."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    return int(database.value(query))


def test_rights_are_tried_where_the_whole_server_is_read_only_by_default(
    make_server: MakeServer, initmig: Initmig, one: Path
) -> None:
    server = make_server(default_transaction_read_only="on")
    result = initmig("doctor", "--json", url=server.url(), folder=one)
    assert [check[:2] for check in not_ok(result)] == [("failure", "writing")]
    assert found(result, "history") == "can be created and written"
    assert result.code == 4
    assert Database(server.url()).tables() == set()


@pytest.mark.any_version
def test_views_that_are_restricted_are_told(
    initmig: Initmig, database: Database, one: Path
) -> None:
    app = database.login_role(
        CREATES_IN_PUBLIC, "ALTER ROLE {role} SET restrict_nonsystem_relation_kind = 'view'"
    )
    write(one, {"0002_v.sql": "CREATE VIEW v AS SELECT 1; SELECT * FROM v"})
    result = initmig("doctor", "--json", url=app, folder=one)
    [(level, subject, said)] = not_ok(result)
    assert (level, subject) == ("warning", "settings")
    assert said.startswith("restrict_nonsystem_relation_kind is view, set by ALTER ROLE ")
    failed = initmig(url=app, folder=one)
    assert failed.code == 1
    assert "access to non-system view" in failed.err
    [statement] = [c["statement"] for c in json.loads(result.out)["checks"] if c["statement"]]
    Database(app).execute(statement)
    assert not_ok(initmig("doctor", "--json", url=app, folder=one)) == []
    assert initmig(url=app, folder=one).code == 0


@pytest.mark.any_version
def test_commits_that_no_standby_confirms_are_a_failure(
    make_server: MakeServer, make_standby: MakeStandby, initmig: Initmig, one: Path
) -> None:
    """The role of the migrations may not see which standbys are synchronous."""
    server = make_server(synchronous_standby_names="ANY 1 (*)", synchronous_commit="local")
    database = Database(server.url())
    app = database.login_role(CREATES_IN_PUBLIC, "ALTER ROLE {role} SET synchronous_commit = on")
    for url in (app, f"{database.url}?options=-csynchronous_commit%3Don"):
        result = initmig("doctor", "--json", url=url, folder=one)
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
    wait_until(lambda: not_ok(initmig("doctor", "--json", url=app, folder=one)) == [])
    assert initmig(url=app, folder=one).code == 0


@pytest.mark.any_version
def test_a_history_is_found_also_where_a_backslash_escapes(
    initmig: Initmig, database: Database, one: Path
) -> None:
    database.execute("CREATE SCHEMA sales")
    app = database.login_role(
        "GRANT USAGE, CREATE ON SCHEMA sales TO {role}",
        "ALTER ROLE {role} SET search_path = sales, public",
    )
    assert initmig(url=app, folder=one).code == 0
    database.execute(
        f"ALTER ROLE {urlsplit(app).username} SET standard_conforming_strings = off;"
        f" ALTER ROLE {urlsplit(app).username} SET search_path = public, sales"
    )
    result = initmig("status", "--check", url=app, folder=one)
    assert result.code == 0, result.err
