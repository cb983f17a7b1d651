"""`doctor` reports each database that is broken in one way, and its statement fixes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from initmig.commands.doctor import other_roles
from tests.support.databases import Database
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.processes import Result

HEALTHY = {
    "0001_users.sql": "CREATE TABLE users (id int PRIMARY KEY, boss int REFERENCES users);"
    " CREATE INDEX users_boss ON users (boss); ALTER TABLE public.users ADD name text;"
    " ALTER TABLE users RENAME TO people; DROP TABLE people",
}
SUBJECTS = {
    *("server", "tls", "clock", "writing", "timeouts", "settings", "connections", "pooler", "role"),
    *("schema", "table", "history", *other_roles.SUBJECTS, "lock", "plan", "pending"),
}
# A digest of every catalog that a check can change. It shows a check that was not rolled back.
CATALOG = """
SELECT md5(string_agg(line, ';' ORDER BY line)) FROM (
    SELECT concat_ws(',', 'class', oid, relname, relowner, relacl) FROM pg_class
    UNION ALL SELECT concat_ws(',', 'column', attrelid, attname, attacl) FROM pg_attribute
    UNION ALL SELECT concat_ws(',', 'schema', oid, nspname, nspowner, nspacl) FROM pg_namespace
    UNION ALL SELECT concat_ws(',', 'type', oid, typname) FROM pg_type
    UNION ALL SELECT concat_ws(',', 'constraint', oid, conname) FROM pg_constraint
    UNION ALL SELECT concat_ws(',', 'function', oid, proname) FROM pg_proc
    UNION ALL SELECT concat_ws(',', 'extension', oid, extname) FROM pg_extension
    UNION ALL SELECT concat_ws(',', 'setting', setdatabase, setrole, setconfig)
        FROM pg_db_role_setting
    UNION ALL SELECT concat_ws(',', 'statistic', oid, stxname) FROM pg_statistic_ext
) AS catalog (line)"""


@dataclass(frozen=True)
class Case:
    """A database that the superuser has broken, and the check that reports it.

    In all texts, ``{app}`` is the role in DATABASE_URL, ``{other}`` is another role and ``{db}``
    is the database.
    """

    breaks: tuple[str, ...]
    subject: str
    found: str
    statement: str = ""
    by: str = "superuser"
    """The role that runs *statement*: superuser, app or other."""
    hint: str = ""
    level: str = "failure"
    code: int = 4
    """The exit code of a failure."""
    flags: tuple[str, ...] = ()
    sql: str = "SELECT 1"
    """The text of the pending migration."""
    is_applied: bool = True
    """Whether the test applies the migration. If not, it creates objects outside the database."""


OTHERS_TABLE = ("CREATE TABLE t (id int PRIMARY KEY)", "ALTER TABLE t OWNER TO {other}")
SUPERUSERS_TABLE = ("CREATE TABLE t (id int PRIMARY KEY)",)
OTHERS_SCHEMA = ("CREATE SCHEMA s AUTHORIZATION {other}",)

CASES = {
    "public without CREATE, the default since PostgreSQL 15": Case(
        ("REVOKE CREATE ON SCHEMA public FROM {app}, public",),
        "table",
        "{app} cannot create a table in public: permission denied for schema public (42501)",
        "GRANT CREATE ON SCHEMA public TO {app};",
    ),
    "public not usable": Case(
        ("REVOKE ALL ON SCHEMA public FROM {app}, public",),
        "schema",
        "{app} lacks USAGE on the schema public",
        "GRANT USAGE, CREATE ON SCHEMA public TO {app};",
    ),
    "a schema that does not exist, and cannot be created": Case(
        (),
        "schema",
        "the schema s does not exist",
        "CREATE SCHEMA s AUTHORIZATION {app};",
        flags=("--schema=s",),
    ),
    "a schema that does not exist, and can be created": Case(
        ("GRANT CREATE ON DATABASE {db} TO {app}",),
        "schema",
        "the schema s does not exist",
        "CREATE SCHEMA s;",
        by="app",
        flags=("--schema=s",),
    ),
    "a schema whose name needs quotes": Case(
        (),
        "schema",
        'the schema "a ""b" does not exist',
        'CREATE SCHEMA "a ""b" AUTHORIZATION {app};',
        flags=('--schema=a "b',),
    ),
    "another's schema": Case(
        OTHERS_SCHEMA,
        "schema",
        "{app} lacks USAGE on the schema s",
        "GRANT USAGE, CREATE ON SCHEMA s TO {app};",
        by="other",
        flags=("--schema=s",),
    ),
    "another's schema, usable": Case(
        (*OTHERS_SCHEMA, "GRANT USAGE ON SCHEMA s TO {app}"),
        "table",
        "{app} cannot create a table in s: permission denied for schema s (42501)",
        "GRANT CREATE ON SCHEMA s TO {app};",
        by="other",
        flags=("--schema=s",),
    ),
    "the first of two schemas does not exist": Case(
        (),
        "schema",
        "the schema s does not exist",
        "CREATE SCHEMA s AUTHORIZATION {app};",
        flags=("--schema=s,public",),
    ),
    "an empty search path": Case(
        ("ALTER ROLE {app} SET search_path = ''",),
        "schema",
        "the search path is empty",
        hint="set --schema",
    ),
    "a role that the login role is not a member of": Case(
        ("GRANT CREATE ON SCHEMA public TO {other}",),
        "role",
        'permission denied to set role "{other}" (42501)',
        "GRANT {other} TO {app}{with_set};",
        flags=("--role={other}",),
    ),
    "a role that does not exist": Case(
        (),
        "role",
        'role "no such" does not exist (22023)',
        hint="create the role, or correct --role",
        flags=("--role=no such",),
    ),
    "read-only by default": Case(
        ("ALTER ROLE {app} SET default_transaction_read_only = on",),
        "writing",
        "transactions are read-only (default_transaction_read_only)",
        "ALTER ROLE {app} IN DATABASE {db} SET default_transaction_read_only = off;",
    ),
    "history tables of another role": Case(
        (
            "CREATE TABLE yoyo_lock (locked int PRIMARY KEY, ctime timestamp, pid int)",
            "ALTER TABLE yoyo_lock OWNER TO {other}",
        ),
        "history",
        "public.yoyo_lock belongs to {other}",
        "ALTER TABLE public.yoyo_lock OWNER TO {app};",
        code=6,
    ),
    "an event trigger that raises an error": Case(
        (
            """CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE 'ask\nthe DBA' USING HINT = 'by mail'; END$$""",
            """CREATE EVENT TRIGGER forbidding ON ddl_command_start
                WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION forbid()""",
        ),
        "table",
        "{app} cannot index a table in public: ask\nthe DBA (P0001)",
        hint="by mail",
    ),
    "another's table altered": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 alters public.t, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="ALTER TABLE t ADD a int",
    ),
    "another's table altered by a member that does not inherit": Case(
        (*OTHERS_TABLE, "ALTER ROLE {app} NOINHERIT", "GRANT {other} TO {app}"),
        "pending",
        "{file}:1:1 alters public.t, which is owned by {other}",
        "{inheriting}",
        hint="or run with --role={other}",
        sql="ALTER TABLE t ADD a int",
    ),
    "a superuser's table altered": Case(
        SUPERUSERS_TABLE,
        "pending",
        "{file}:1:1 alters public.t, which is owned by postgres",
        "ALTER TABLE public.t OWNER TO {app};",
        sql="ALTER TABLE t ADD a int",
    ),
    "another's table dropped": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:2:1 drops public.t, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="SELECT 1;\nDROP TABLE IF EXISTS nothing, t",
    ),
    "another's table indexed": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 indexes public.t, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="CREATE INDEX ON t (id)",
    ),
    "another's index dropped": Case(
        (*OTHERS_TABLE, "CREATE INDEX i ON t (id)"),
        "pending",
        "{file}:1:1 drops public.t, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="DROP INDEX i",
    ),
    "another's table renamed": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 renames public.t, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="ALTER TABLE t RENAME TO u",
    ),
    "another's view replaced": Case(
        ("CREATE VIEW v AS SELECT 1 AS a", "ALTER VIEW v OWNER TO {other}"),
        "pending",
        "{file}:1:1 replaces public.v, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="CREATE OR REPLACE VIEW v AS SELECT 2 AS a",
    ),
    "a partition for another's table": Case(
        ("CREATE TABLE t (a int) PARTITION BY LIST (a)", "ALTER TABLE t OWNER TO {other}"),
        "pending",
        "{file}:1:1 attaches a table to public.t, which is owned by {other}",
        "GRANT {other} TO {app}{with_inherit};",
        sql="CREATE TABLE p PARTITION OF t FOR VALUES IN (1)",
    ),
    "the role's table indexed in a schema without CREATE": Case(
        (
            *OTHERS_SCHEMA,
            "CREATE TABLE s.t (a int)",
            "ALTER TABLE s.t OWNER TO {app}",
            "GRANT USAGE ON SCHEMA s TO {app}",
        ),
        "pending",
        "{file}:1:1 indexes s.t, but {app} lacks CREATE on the schema s",
        "GRANT CREATE ON SCHEMA s TO {app};",
        by="other",
        sql="CREATE INDEX ON s.t (a)",
    ),
    "the role's table in a schema without USAGE": Case(
        (*OTHERS_SCHEMA, "CREATE TABLE s.t (a int)", "ALTER TABLE s.t OWNER TO {app}"),
        "pending",
        "{file}:1:1 alters s.t, but {app} lacks USAGE on the schema s",
        "GRANT USAGE ON SCHEMA s TO {app};",
        by="other",
        sql="ALTER TABLE s.t ADD b int",
    ),
    "another's table referenced": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 references public.t, but {app} lacks REFERENCES on it",
        "GRANT REFERENCES ON public.t TO {app};",
        by="other",
        sql="CREATE TABLE mine (t int REFERENCES t)",
    ),
    "another's table referenced by a constraint that is added": Case(
        (*OTHERS_TABLE, "CREATE TABLE mine (t int)", "ALTER TABLE mine OWNER TO {app}"),
        "pending",
        "{file}:1:1 references public.t, but {app} lacks REFERENCES on it",
        "GRANT REFERENCES ON public.t TO {app};",
        by="other",
        sql="ALTER TABLE mine ADD FOREIGN KEY (t) REFERENCES t",
    ),
    "another's table filled": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 inserts into public.t, but {app} lacks INSERT on it",
        "GRANT INSERT ON public.t TO {app};",
        by="other",
        sql="INSERT INTO t VALUES (1)",
    ),
    "another's table truncated": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 truncates public.t, but {app} lacks TRUNCATE on it",
        "GRANT TRUNCATE ON public.t TO {app};",
        by="other",
        sql="TRUNCATE t",
    ),
    "a trigger on another's table": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 creates a trigger on public.t, but {app} lacks TRIGGER on it",
        "GRANT TRIGGER ON public.t TO {app};",
        by="other",
        sql="CREATE TRIGGER g BEFORE UPDATE ON t EXECUTE FUNCTION"
        " suppress_redundant_updates_trigger()",
    ),
    "a table created in another's schema": Case(
        (*OTHERS_SCHEMA, "GRANT USAGE ON SCHEMA s TO {app}"),
        "pending",
        "{file}:1:1 creates an object in s, but {app} lacks CREATE on this schema",
        "GRANT USAGE, CREATE ON SCHEMA s TO {app};",
        by="other",
        sql="CREATE TABLE s.t (a int)",
    ),
    "a table moved to another's schema": Case(
        (*OTHERS_SCHEMA, "CREATE TABLE t ()", "ALTER TABLE t OWNER TO {app}"),
        "pending",
        "{file}:1:1 creates an object in s, but {app} lacks USAGE and CREATE on this schema",
        "GRANT USAGE, CREATE ON SCHEMA s TO {app};",
        by="other",
        sql="ALTER TABLE t SET SCHEMA s",
    ),
    "an extension that is not available": Case(
        (),
        "pending",
        "{file}:1:1 creates the extension no_such, which is not available on the server",
        hint="install the extension's package on the database server",
        sql="CREATE EXTENSION no_such",
    ),
    "an extension for superusers": Case(
        ("GRANT CREATE ON DATABASE {db} TO {app}",),
        "pending",
        "{file}:1:1 creates the extension pageinspect, which only a superuser can create",
        "CREATE EXTENSION pageinspect;",
        hint="then write IF NOT EXISTS in the migration",
        sql="CREATE EXTENSION IF NOT EXISTS pageinspect",
    ),
    "a trusted extension without CREATE on the database": Case(
        (),
        "pending",
        "{file}:1:1 creates the extension citext, but {app} lacks CREATE on the database {db}",
        "GRANT CREATE ON DATABASE {db} TO {app};",
        sql="CREATE EXTENSION IF NOT EXISTS citext",
    ),
    "a schema without CREATE on the database": Case(
        (),
        "pending",
        "{file}:1:1 creates the schema s, but {app} lacks CREATE on the database {db}",
        "GRANT CREATE ON DATABASE {db} TO {app};",
        sql="CREATE SCHEMA IF NOT EXISTS s",
    ),
    "a database without CREATEDB": Case(
        (),
        "pending",
        "{file}:2:1 creates the database d, but {app} lacks CREATEDB",
        "ALTER ROLE {app} CREATEDB;",
        sql="-- transactional: false\nCREATE DATABASE d",
        is_applied=False,
    ),
    "a role without CREATEROLE": Case(
        (),
        "pending",
        "{file}:1:1 creates the role r, but {app} lacks CREATEROLE",
        "ALTER ROLE {app} CREATEROLE;",
        sql="CREATE USER r",
        is_applied=False,
    ),
    "one connection for the role": Case(
        ("ALTER ROLE {app} CONNECTION LIMIT 1",),
        "connections",
        "the role has no free connection besides this one: 1 of 1 are in use",
        "ALTER ROLE {app} CONNECTION LIMIT 2;",
        level="warning",
    ),
    "one connection for the database": Case(
        ("ALTER DATABASE {db} CONNECTION LIMIT 1",),
        "connections",
        "the database has no free connection besides this one: 1 of 1 are in use",
        "ALTER DATABASE {db} CONNECTION LIMIT 2;",
        level="warning",
    ),
    "a password that expires soon": Case(
        ("DO $$ BEGIN EXECUTE format('ALTER ROLE {app} VALID UNTIL %L', now() + '7 d'); END $$",),
        "login",
        "the password of {app} expires within 7 days (VALID UNTIL)",
        "ALTER ROLE {app} VALID UNTIL 'infinity';",
        level="warning",
    ),
    "little space for temporary files": Case(
        (
            "ALTER ROLE {app} SET temp_file_limit = '100kB'",
            "ALTER ROLE {app} IN DATABASE {db} SET work_mem = '64kB'",
        ),
        "settings",
        "temp_file_limit is 100kB, set by ALTER ROLE {app}: a statement fails if it needs more"
        " temporary disk space, as large sorts do",
        "ALTER ROLE {app} IN DATABASE {db} SET temp_file_limit = -1;",
        level="warning",
        sql="CREATE TABLE t AS SELECT md5(g::text) FROM generate_series(1, 20000) AS g ORDER BY 1",
    ),
    "strings with backslash escapes": Case(
        ("ALTER DATABASE {db} SET standard_conforming_strings = off",),
        "settings",
        "standard_conforming_strings is off, set by ALTER DATABASE {db}: a backslash in an"
        " ordinary string is an escape character",
        "ALTER ROLE {app} IN DATABASE {db} SET standard_conforming_strings = on;",
        by="app",
        level="warning",
        sql="SELECT 'C:\\'",
    ),
    "row_security turned off": Case(
        ("ALTER ROLE {app} IN DATABASE {db} SET row_security = off",),
        "settings",
        "row_security is off, set by ALTER ROLE {app} IN DATABASE {db}: a statement fails if"
        " row level security applies to the role on its table",
        "ALTER ROLE {app} IN DATABASE {db} SET row_security = on;",
        by="app",
        level="warning",
        sql="CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL"
        " SECURITY; CREATE POLICY p ON t USING (true); UPDATE t SET a = 1",
    ),
    "sessions that end with their first error": Case(
        ("ALTER ROLE {app} SET exit_on_error = on",),
        "settings",
        "exit_on_error is on, set by ALTER ROLE {app}: every error ends the connection, even"
        " an expected one",
        "ALTER ROLE {app} IN DATABASE {db} SET exit_on_error = off;",
        by="app",
    ),
    "a misspelled table": Case(
        ("CREATE TABLE users ()",),
        "pending",
        "{file}:2:3 uses uesrs, which does not exist and is not created earlier",
        hint="did you mean users?",
        sql="TABLE\n  uesrs",
    ),
    "a table in another schema": Case(
        ("CREATE SCHEMA s", 'CREATE TABLE s."T" ()'),
        "pending",
        '{file}:1:13 uses "T", which does not exist and is not created earlier',
        hint='did you mean s."T"?',
        sql='DELETE FROM "T"',
    ),
    "a table that has been renamed": Case(
        ("CREATE TABLE t ()", "ALTER TABLE t OWNER TO {app}"),
        "pending",
        "{file}:2:17 uses t, which no longer exists after {file}:1:1",
        hint="fix the migration",
        sql="ALTER TABLE t RENAME TO u;\nCREATE INDEX ON t (a)",
    ),
    "a file that switches to another role": Case(
        OTHERS_TABLE,
        "pending",
        "{file}:1:1 sets role, so not all privileges that the rest of the file needs are checked",
        hint="test the migration on a copy of the database",
        level="warning",
        sql="SET LOCAL ROLE x; ALTER TABLE t ADD a int",
    ),
    "a file that the parser cannot read": Case(
        (),
        "pending",
        "not all privileges that {file} needs are checked: PostgreSQL 17's parser cannot read"
        ' line 2: syntax error at or near "TABEL"',
        hint="ignore this if the syntax is newer and your server supports it",
        level="warning",
        sql="SELECT 1;\nCREATE TABEL t ()",
    ),
}


@dataclass(frozen=True)
class Roles:
    """The URL of the migrating role, which can create in `public`, and of another role."""

    app: str
    other: str
    names: Mapping[str, str]


@pytest.fixture
def roles(database: Database) -> Roles:
    app = database.login_role("GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    other = database.login_role()
    names = {"app": str(urlsplit(app).username), "other": str(urlsplit(other).username)}
    return Roles(app, other, {**names, "db": database.name})


def report(result: Result) -> list[dict[str, Any]]:
    checks = json.loads(result.out)["checks"]
    assert isinstance(checks, list)
    return checks


def not_ok(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # tests/integration/test_doctor_other_roles.py tests the checks of other roles
    return [
        check
        for check in checks
        if check["level"] != "ok" and check["subject"] not in other_roles.SUBJECTS
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_problem_is_reported_and_the_printed_statement_fixes_it(
    initmig: Initmig, database: Database, roles: Roles, folder: Path, case: Case
) -> None:
    write(folder, {"0001_m.sql": case.sql})
    new = database.value("SELECT current_setting('server_version_num')::int >= 160000")
    words = {
        **roles.names,
        "file": str(folder / "0001_m.sql"),
        "with_set": " WITH SET TRUE" if new else "",
        "with_inherit": " WITH INHERIT TRUE" if new else "",
        "inheriting": f"GRANT {roles.names['other']} TO {roles.names['app']} WITH INHERIT TRUE;"
        if new
        else f"ALTER ROLE {roles.names['app']} INHERIT;",
    }
    for statement in case.breaks:
        database.execute(statement.format(**words))
    flags = [flag.format(**words) for flag in case.flags]
    before = database.value(CATALOG)

    def examined() -> Result:
        wait_until(lambda: connections(database) == 0)
        return initmig("doctor", "--json", *flags, url=roles.app, folder=folder)

    broken = examined()
    [check] = not_ok(report(broken))
    assert (check["level"], check["subject"]) == (case.level, case.subject)
    assert check["found"] == case.found.format(**words)
    assert (check["statement"] or "") == case.statement.format(**words)
    assert (check["hint"] or "") == case.hint.format(**words)
    assert broken.code == (case.code if case.level == "failure" else 0), broken.err
    if case.subject == "pending" and case.level == "failure":
        with Database(roles.app).connect(autocommit=False) as connection:
            with pytest.raises(psycopg.Error):
                connection.execute(case.sql.encode())
            connection.rollback()
    assert database.value(CATALOG) == before
    if case.subject == "settings":
        assert initmig("--wait-timeout=0", url=roles.app, folder=folder).code in (1, 3)
    if not case.statement:
        return

    url = {"superuser": database.url, "app": roles.app, "other": roles.other}[case.by]
    roles_of = {"superuser": ("superuser", "postgres"), "app": (words["app"],)}
    assert any(role in check["by"] for role in roles_of.get(case.by, (words["other"],)))
    Database(url).execute(check["statement"])
    before = database.value(CATALOG)
    fixed = examined()
    assert not_ok(report(fixed)) == []
    assert (fixed.code, fixed.err) == (0, "")
    assert database.value(CATALOG) == before
    if case.is_applied:
        migrated = initmig(*flags, url=roles.app, folder=folder)
        assert migrated.code == 0, migrated.err


def connections(database: Database) -> int:
    """The number of client connections to *database*, counted from another database.

    A server process outlives its client for a moment.
    """
    elsewhere = Database(database.url.removesuffix(database.name) + "postgres")
    to_it = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    to_it += " AND backend_type = 'client backend'"
    return int(elsewhere.value(to_it, [database.name]))


def test_all_checks_of_a_healthy_database_are_ok(
    initmig: Initmig, database: Database, roles: Roles, folder: Path
) -> None:
    write(folder, HEALTHY)
    before = database.value(CATALOG)
    for _ in range(2):
        result = initmig("doctor", url=roles.app, folder=folder)
        assert (result.code, result.err) == (0, "")
        lines = [line.split() for line in result.out.splitlines() if "next:" not in line]
        assert {level for level, subject, *_ in lines if subject not in other_roles.SUBJECTS} == {
            "ok"
        }
        assert list(dict.fromkeys(subject for _, subject, *_ in lines)) == [
            *("server", "tls", "clock", "writing", "timeouts", "settings", "connections", "pooler"),
            *(
                "role",
                "schema",
                "table",
                "history",
                *other_roles.SUBJECTS,
                "lock",
                "plan",
                "pending",
            ),
        ]
        assert database.value(CATALOG) == before
    migrated = initmig(url=roles.app, folder=folder)
    assert migrated.code == 0, migrated.err
    before = database.value(CATALOG), database.query("TABLE _yoyo_log")
    again = initmig("doctor", "--json", url=roles.app, folder=folder)
    assert {check["subject"] for check in report(again)} == SUBJECTS
    assert not_ok(report(again)) == []
    assert (database.value(CATALOG), database.query("TABLE _yoyo_log")) == before
