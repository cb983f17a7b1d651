"""`doctor --app-role` reports each setup that is broken in one way, and its statements fix it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from initmig.api import migrate
from initmig.commands.doctor.doctor import examine, failure_of
from initmig.config.config import parse_config
from initmig.core.errors import DatabaseRefused
from tests.support.databases import Database
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from initmig.commands.doctor.checks import Check
    from tests.support.command import Initmig
    from tests.support.databases import DatabaseServer
    from tests.support.servers import MakeServer, MakeStandby

MIGRATIONS = {
    "0001_a.sql": """
        CREATE TABLE users (id serial PRIMARY KEY, note text);
        CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, note text);
        CREATE TABLE parted (id serial, note text) PARTITION BY LIST (note);
        CREATE TABLE part PARTITION OF parted DEFAULT;
        CREATE VIEW named AS SELECT note FROM users;
        CREATE SEQUENCE numbers""",
}
ADDED = "CREATE TABLE public.added (id serial PRIMARY KEY, note text)"
HEALTHY = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON users, orders, parted TO {app}",
    "GRANT SELECT ON named TO {app}",
    "GRANT USAGE ON users_id_seq, parted_id_seq, numbers TO {app}",
    "GRANT USAGE ON SCHEMA public TO {app}",
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {mig} IN SCHEMA public"
        " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}"
    ),
    "ALTER DEFAULT PRIVILEGES FOR ROLE {mig} IN SCHEMA public GRANT USAGE ON SEQUENCES TO {app}",
)
APPLICATION = ("app-role", "app-tables", "app-new-tables")
ALL = "SELECT, INSERT, UPDATE, DELETE"


@dataclass(frozen=True)
class Case:
    """A change by the superuser that breaks a healthy setup, and the statements that fix it.

    In all texts, ``{app}`` and ``{mig}`` are the roles of the application and of the migrations,
    ``{other}`` is a third role and ``{db}`` is the database.
    """

    breaks: tuple[str, ...]
    statements: tuple[str, ...]
    level: str = "failure"
    found: str = ""
    """A part of the reported problem."""
    uses: tuple[str, ...] = ("users", "orders", "parted")
    """The tables that the application can use after the fix."""
    reads: tuple[str, ...] = ()
    """The views that the application can only read."""


DEFAULTS = "ALTER DEFAULT PRIVILEGES FOR ROLE {mig} IN SCHEMA public "

CASES = {
    **{
        f"{verb} revoked": Case(
            (f"REVOKE {verb} ON users FROM {{app}}",),
            (f"GRANT {verb} ON public.users TO {{app}};",),
        )
        for verb in ALL.split(", ")
    },
    "everything revoked on two tables": Case(
        ("REVOKE ALL ON users, orders FROM {app}",),
        (f"GRANT {ALL} ON public.orders, public.users TO {{app}};",),
        found=f"{{app}} lacks {ALL} on public.orders, public.users",
    ),
    "a partitioned table revoked, its partition granted": Case(
        ("REVOKE ALL ON parted FROM {app}", "GRANT ALL ON part TO {app}"),
        (f"GRANT {ALL} ON public.parted TO {{app}};",),
    ),
    "a view revoked": Case(
        ("REVOKE ALL ON named FROM {app}",), ("GRANT SELECT ON public.named TO {app};",)
    ),
    "a materialized view without grants": Case(
        ("CREATE MATERIALIZED VIEW counted AS SELECT 1 AS n",),
        ("GRANT SELECT ON public.counted TO {app};",),
        reads=("counted",),
    ),
    "the sequence of a serial column revoked": Case(
        ("REVOKE ALL ON SEQUENCE users_id_seq FROM {app}",),
        ("GRANT USAGE ON SEQUENCE public.users_id_seq TO {app};",),
    ),
    "a sequence without a table revoked": Case(
        ("REVOKE ALL ON SEQUENCE numbers FROM {app}",),
        ("GRANT USAGE ON SEQUENCE public.numbers TO {app};",),
    ),
    "a sequence that can only be read": Case(
        ("REVOKE USAGE ON SEQUENCE numbers FROM {app}", "GRANT SELECT ON numbers TO {app}"),
        ("GRANT USAGE ON SEQUENCE public.numbers TO {app};",),
    ),
    "a default that uses a sequence of another schema": Case(
        (
            "CREATE SCHEMA hidden",
            "CREATE SEQUENCE hidden.s",
            "ALTER TABLE orders ADD number int DEFAULT nextval('hidden.s')",
        ),
        ("GRANT USAGE ON SEQUENCE hidden.s TO {app};",),
    ),
    "the schema not usable": Case(
        ("REVOKE USAGE ON SCHEMA public FROM {app}, PUBLIC",),
        ("GRANT USAGE ON SCHEMA public TO {app};",),
    ),
    "no CONNECT on the database": Case(
        ("REVOKE CONNECT ON DATABASE {db} FROM PUBLIC", "GRANT CONNECT ON DATABASE {db} TO {mig}"),
        ("GRANT CONNECT ON DATABASE {db} TO {app};",),
    ),
    "a role that cannot log in": Case(("ALTER ROLE {app} NOLOGIN",), ("ALTER ROLE {app} LOGIN;",)),
    "a role with a connection limit of 0": Case(
        ("ALTER ROLE {app} CONNECTION LIMIT 0",),
        ("ALTER ROLE {app} CONNECTION LIMIT -1;",),
    ),
    "a password that has expired": Case(
        ("ALTER ROLE {app} VALID UNTIL '2020-01-01'",),
        ("ALTER ROLE {app} VALID UNTIL 'infinity';",),
    ),
    "transactions that are read-only by default": Case(
        ("ALTER ROLE {app} SET default_transaction_read_only = on",),
        ("ALTER ROLE {app} IN DATABASE {db} SET default_transaction_read_only = off;",),
    ),
    "no default privileges on tables": Case(
        (DEFAULTS + "REVOKE ALL ON TABLES FROM {app}",),
        (DEFAULTS + f"GRANT {ALL} ON TABLES TO {{app}};",),
    ),
    "default privileges to read only": Case(
        (DEFAULTS + "REVOKE INSERT, UPDATE, DELETE ON TABLES FROM {app}",),
        (DEFAULTS + "GRANT INSERT, UPDATE, DELETE ON TABLES TO {app};",),
    ),
    "no default privileges on sequences": Case(
        (DEFAULTS + "REVOKE ALL ON SEQUENCES FROM {app}",),
        (DEFAULTS + "GRANT USAGE ON SEQUENCES TO {app};",),
    ),
    "default privileges for tables of another role": Case(
        (
            DEFAULTS + "REVOKE ALL ON TABLES FROM {app}",
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE {other} IN SCHEMA public"
                f" GRANT {ALL} ON TABLES TO {{app}}"
            ),
        ),
        (DEFAULTS + f"GRANT {ALL} ON TABLES TO {{app}};",),
    ),
    "default privileges in another schema": Case(
        (
            DEFAULTS + "REVOKE ALL ON SEQUENCES FROM {app}",
            "CREATE SCHEMA elsewhere",
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE {mig} IN SCHEMA elsewhere"
                " GRANT USAGE ON SEQUENCES TO {app}"
            ),
        ),
        (DEFAULTS + "GRANT USAGE ON SEQUENCES TO {app};",),
    ),
    "some columns only": Case(
        ("REVOKE UPDATE ON users FROM {app}", "GRANT UPDATE (id) ON users TO {app}"),
        ("GRANT UPDATE ON public.users TO {app};",),
        found="{app} lacks UPDATE on public.users (UPDATE: granted on some columns only)",
    ),
    "privileges of a group that are not inherited": Case(
        (
            "REVOKE ALL ON users FROM {app}",
            f"GRANT {ALL} ON users TO {{other}}",
            "ALTER ROLE {app} NOINHERIT",
            "GRANT {other} TO {app}",
        ),
        (f"GRANT {ALL} ON public.users TO {{app}};",),
    ),
    "a table of another role": Case(
        (
            "CREATE TABLE theirs (id int, note text)",
            "ALTER TABLE theirs OWNER TO {other}",
        ),
        (f"GRANT {ALL} ON public.theirs TO {{app}};",),
        uses=("theirs",),
    ),
    "names that need quotes": Case(
        (
            'CREATE SCHEMA "My ""S" AUTHORIZATION {mig}',
            'CREATE TABLE "My ""S"."T.x" ("Id" serial, note text)',
            'ALTER TABLE "My ""S"."T.x" OWNER TO {mig}',
        ),
        (
            'GRANT USAGE ON SCHEMA "My ""S" TO {app};',
            'GRANT USAGE ON SEQUENCE "My ""S"."T.x_Id_seq" TO {app};',
            f'GRANT {ALL} ON "My ""S"."T.x" TO {{app}};',
            (
                'ALTER DEFAULT PRIVILEGES FOR ROLE {mig} IN SCHEMA "My ""S"'
                f" GRANT {ALL} ON TABLES TO {{app}};"
            ),
            (
                'ALTER DEFAULT PRIVILEGES FOR ROLE {mig} IN SCHEMA "My ""S"'
                " GRANT USAGE ON SEQUENCES TO {app};"
            ),
        ),
        uses=('"My ""S"."T.x"',),
    ),
    "a function that a default calls": Case(
        (
            (
                "CREATE FUNCTION note_of(a int, VARIADIC b text[]) RETURNS text LANGUAGE sql"
                " AS $$ SELECT 'x' $$"
            ),
            "REVOKE EXECUTE ON FUNCTION note_of FROM PUBLIC",
            "ALTER TABLE users ALTER note SET DEFAULT note_of(1, 'b')",
        ),
        ("GRANT EXECUTE ON ROUTINE public.note_of(a integer, VARIADIC b text[]) TO {app};",),
        found="which is called by default value for column note of table public.users",
    ),
    "functions of a constraint, an index, a domain, a generated column, a partition key": Case(
        (
            *(
                f"CREATE FUNCTION {name}(text) RETURNS {type} IMMUTABLE LANGUAGE plpgsql"
                f" AS $$ BEGIN RETURN {value}; END $$"
                for name, type, value in (
                    ("fits", "bool", "true"),
                    ("folded", "text", "'x'"),
                    ("valid", "bool", "true"),
                    ("made", "text", "'y'"),
                    ("part_of", "text", "'z'"),
                )
            ),
            "ALTER TABLE users ADD CHECK (fits(note))",
            "CREATE INDEX ON users (folded(note))",
            "CREATE DOMAIN phrase AS text CHECK (valid(value))",
            "ALTER TABLE users ADD motto phrase",
            "ALTER TABLE orders ADD twice text GENERATED ALWAYS AS (made(note)) STORED",
            "CREATE TABLE shares (note text) PARTITION BY LIST (part_of(note))",
            "CREATE TABLE share PARTITION OF shares DEFAULT",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON shares TO {app}",
            "REVOKE EXECUTE ON FUNCTION fits, folded, valid, made, part_of FROM PUBLIC",
        ),
        tuple(
            f"GRANT EXECUTE ON ROUTINE public.{name}(text) TO {{app}};"
            for name in ("fits", "folded", "made", "part_of", "valid")
        ),
        uses=("users", "orders", "shares"),
    ),
    "a function that a policy calls": Case(
        (
            "CREATE FUNCTION mine(text) RETURNS bool LANGUAGE sql AS $$ SELECT true $$",
            "REVOKE EXECUTE ON FUNCTION mine FROM PUBLIC",
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY own ON users USING (mine(note))",
        ),
        ("GRANT EXECUTE ON ROUTINE public.mine(text) TO {app};",),
    ),
    "a view whose owner cannot read its table": Case(
        (
            "CREATE TABLE base (note text)",
            "CREATE VIEW thin AS SELECT * FROM base",
            "ALTER VIEW thin OWNER TO {other}",
            f"GRANT {ALL} ON base, thin TO {{app}}",
        ),
        ("GRANT SELECT ON public.base TO {other};",),
        found="the view public.thin fails: {other} lacks SELECT on public.base",
        reads=("thin",),
    ),
    "a view that reads another schema as its user": Case(
        (
            "CREATE SCHEMA hidden",
            "CREATE TABLE hidden.base (note text)",
            "CREATE VIEW thin WITH (security_invoker) AS SELECT * FROM hidden.base",
            "GRANT SELECT ON thin TO {app}",
        ),
        ("GRANT SELECT ON hidden.base TO {app};",),
        reads=("thin",),
    ),
    "sessions that switch to another role": Case(
        ("GRANT {other} TO {app}", "ALTER ROLE {app} SET role = {other}"),
        (
            (
                "GRANT USAGE ON SEQUENCE public.numbers, public.parted_id_seq, public.users_id_seq"
                " TO {other};"
            ),
            "GRANT SELECT ON public.named TO {other};",
            f"GRANT {ALL} ON public.orders, public.parted, public.users TO {{other}};",
            DEFAULTS + f"GRANT {ALL} ON TABLES TO {{other}};",
            DEFAULTS + "GRANT USAGE ON SEQUENCES TO {other};",
        ),
    ),
    "a search path that does not lead to the tables": Case(
        ("CREATE SCHEMA empty", "ALTER ROLE {app} SET search_path = empty"),
        ("ALTER ROLE {app} IN DATABASE {db} SET search_path = public;",),
        level="warning",
    ),
    "an empty search path": Case(
        ("ALTER ROLE {app} SET search_path = ''",),
        ("ALTER ROLE {app} IN DATABASE {db} SET search_path = public;",),
        level="warning",
    ),
    "a password that expires soon": Case(
        ("DO $$ BEGIN EXECUTE format('ALTER ROLE {app} VALID UNTIL %L', now() + '3 d'); END $$",),
        ("ALTER ROLE {app} VALID UNTIL 'infinity';",),
        level="warning",
    ),
}


@dataclass(frozen=True)
class Setup:
    """An application's database, with the URLs of its administrator, migrations and application."""

    database: Database
    folder: Path
    mig: str
    app: str
    names: Mapping[str, str]

    def checks(self, *flags: str) -> Sequence[Check]:
        """The checks of the application's role that `doctor --app-role` reports."""
        role = f"--app-role={self.names['app']}"
        config = parse_config(
            ["doctor", role, *flags],
            {"DATABASE_URL": self.mig, "INITMIG_MIGRATIONS": str(self.folder)},
        )
        return [each for each in examine(config, lambda _: None) if each.subject in APPLICATION]

    def found(self, *flags: str) -> Sequence[Check]:
        """The checks that are not ok. Asserts that checking changes nothing."""
        before = self.state()
        checks = self.checks(*flags)
        assert self.state() == before
        return [each for each in checks if each.level != "ok"]

    def state(self) -> list[tuple[Any, ...]]:
        """The state that checking must not change: objects, privileges, sequences and locks."""
        return self.database.query(
            "SELECT 'r', relname, concat_ws(',', relacl, relowner) FROM pg_class"
            " UNION ALL SELECT 's', sequencename, last_value::text FROM pg_sequences"
            " UNION ALL SELECT 'd', defaclrole::regrole::text, defaclacl::text FROM pg_default_acl"
            " UNION ALL SELECT 'l', relation::regclass::text, mode FROM pg_locks"
            " WHERE locktype = 'relation' AND pid <> pg_backend_pid()"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " ORDER BY 1, 2, 3"
        )

    def allow_set_role(self) -> None:
        """Let checks run statements as the application: the migrating role can SET ROLE to it."""
        self.database.execute("GRANT {app} TO {mig}".format(**self.names))

    def filled(self, texts: Sequence[str]) -> list[str]:
        return [text.format(**self.names) for text in texts]


@pytest.fixture
def setup(database: Database, folder: Path) -> Setup:
    """A healthy setup."""
    mig = database.login_role("GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    app, other = database.login_role(), database.login_role()
    urls = {"mig": mig, "app": app, "other": other}
    names = {each: str(urlsplit(url).username) for each, url in urls.items()}
    write(folder, MIGRATIONS)
    migrate(database_url=mig, migrations=str(folder))
    healthy = Setup(database, folder, mig, app, {**names, "db": database.name})
    database.execute(";".join(healthy.filled(HEALTHY)))
    return healthy


def use(url: str, tables: Sequence[str], reads: Sequence[str] = ()) -> None:
    """Log in as the application; read *reads*, and read and write *tables*."""
    with psycopg.connect(url, autocommit=True) as connection:
        for view in ("named", *reads):
            connection.execute(f"SELECT * FROM public.{view}".encode())
        connection.execute("SELECT nextval('public.numbers')")
        for table in tables:
            for statement in (
                f"INSERT INTO {table} DEFAULT VALUES",
                f"SELECT * FROM {table}",
                f"UPDATE {table} SET note = 'two'",
                f"DELETE FROM {table}",
            ):
                connection.execute(statement.encode())


def in_public(tables: Sequence[str]) -> list[str]:
    return [table if "." in table else f"public.{table}" for table in tables]


def fix(setup: Setup, checks: Sequence[Check]) -> None:
    """Run each statement as the first role that the check names for it."""
    for check in checks:
        by_migrations = check.by.startswith(f"{setup.names['mig']},")
        url = setup.mig if by_migrations else setup.database.url
        Database(url).execute(check.statement)


@pytest.mark.any_version
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_missing_privilege_is_reported_and_the_printed_statements_fix_it(
    setup: Setup, case: Case
) -> None:
    setup.database.execute(";".join(setup.filled(case.breaks)))
    found = setup.found()
    assert [each.statement for each in found] == setup.filled(case.statements)
    assert {each.level for each in found} == {case.level}
    assert case.found.format(**setup.names) in found[0].found
    setup.allow_set_role()
    assert setup.found() == found
    if case.level == "failure":
        failure = failure_of(found)
        assert isinstance(failure, DatabaseRefused)
        assert failure.exit_code == 4
        Database(setup.mig).execute(ADDED)
        with pytest.raises(psycopg.Error):
            use(setup.app, in_public((*case.uses, "added")), case.reads)
        setup.database.execute("DROP TABLE added")

    fix(setup, found)
    assert setup.found() == []
    Database(setup.mig).execute(ADDED)
    use(setup.app, in_public((*case.uses, "added")), case.reads)


def test_setup_without_grants_is_fixed_by_the_printed_statements(
    setup: Setup, initmig: Initmig
) -> None:
    """Runs on each version: PostgreSQL 16 changed the rules for SET ROLE."""
    setup.database.execute(
        "DROP OWNED BY {app}; REVOKE ALL ON SCHEMA public FROM PUBLIC;"
        " REVOKE CONNECT ON DATABASE {db} FROM PUBLIC; GRANT CONNECT ON DATABASE {db} TO {mig};"
        " ALTER ROLE {app} NOLOGIN".format(**setup.names)
    )
    role = f"--app-role={setup.names['app']}"
    broken = initmig("doctor", "--json", role, url=setup.mig, folder=setup.folder)
    assert broken.code == 4
    assert " 8 of 27 checks failed [checks-failed]" in broken.err
    for check in json.loads(broken.out)["checks"]:
        if check["level"] != "ok":
            by_migrations = check["by"].startswith(f"{setup.names['mig']},")
            url = setup.mig if by_migrations else setup.database.url
            Database(url).execute(check["statement"])
    write(setup.folder, {"0002_b.sql": ADDED})
    assert initmig(url=setup.mig, folder=setup.folder).code == 0
    fixed = initmig("doctor", role, url=setup.mig, folder=setup.folder)
    assert fixed.code == 0, fixed.out
    name = setup.names["app"]
    assert f"{name}: privileges checked in the catalog" in fixed.out
    use(setup.app, in_public(("users", "orders", "parted", "added")))


@pytest.mark.any_version
def test_all_checks_of_a_healthy_setup_are_ok(setup: Setup) -> None:
    name = setup.names["app"]
    assert [(each.level, each.subject, each.found) for each in setup.checks()] == [
        (
            "ok",
            "app-role",
            f"{name}: privileges checked in the catalog, because SET ROLE is not allowed",
        ),
        ("ok", "app-tables", "can use 3 tables, 1 view, 3 sequences in public"),
        ("ok", "app-new-tables", f"can use new tables that {setup.names['mig']} creates in public"),
    ]
    assert setup.found() == []


def test_set_role_is_used_if_allowed_and_the_catalog_otherwise(setup: Setup) -> None:
    new = setup.database.value("SELECT current_setting('server_version_num')::int >= 160000")
    grant = "GRANT {app} TO {mig}".format(**setup.names)
    ways = {"": "in the catalog", grant: "with SET ROLE"}
    if new:
        ways[f"{grant} WITH SET FALSE"] = "in the catalog"
    for statement, way in ways.items():
        setup.database.execute(statement or "SELECT 1")
        [role, *others] = setup.checks()
        assert f"privileges checked {way}" in role.found
        assert {each.level for each in (role, *others)} == {"ok"}


@pytest.mark.any_version
@pytest.mark.parametrize("tried", [False, True], ids=["looked up", "tried"])
def test_row_security_without_a_policy_is_reported_without_a_statement(
    setup: Setup, tried: bool
) -> None:
    setup.database.execute(
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE orders ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY readable ON orders FOR SELECT TO {app} USING (true);"
        " CREATE POLICY theirs ON orders TO {other} USING (true)".format(**setup.names)
    )
    if tried:
        setup.allow_set_role()
    app, mig = setup.names["app"], setup.names["mig"]
    nothing, reading = f"no policy lets {app}", "insert into, update or delete from it"
    assert [(each.level, each.found, each.statement) for each in setup.found()] == [
        ("failure", f"row level security on public.orders: {nothing} {reading}", ""),
        ("failure", f"row level security on public.users: {nothing} select from, {reading}", ""),
    ]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        use(setup.app, ["users"])
    setup.database.execute(
        f"GRANT {setup.names['other']} TO {app};"
        f" CREATE POLICY own ON users TO {app} USING (true); ALTER TABLE users OWNER TO {mig}"
    )
    assert setup.found() == []
    use(setup.app, ["users", "orders"])


@pytest.mark.any_version
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("ALTER ROLE {app} SUPERUSER", "{app} is a superuser, so it can do everything"),
        (
            "REASSIGN OWNED BY {mig} TO {app}; ALTER ROLE {mig} IN DATABASE {db} SET role = {app}",
            "",
        ),
    ],
)
def test_application_role_with_too_many_privileges_is_a_warning(
    setup: Setup, change: str, found: str
) -> None:
    setup.database.execute(change.format(**setup.names))
    setup.database.execute(
        "GRANT {app} TO {mig}; GRANT CREATE ON SCHEMA public TO {app}".format(**setup.names)
    )
    [check] = setup.found()
    assert (check.level, check.subject, check.statement) == ("warning", "app-role", "")
    expected = found or "{app} is also the role that runs the migrations"
    assert check.found == expected.format(**setup.names)


@pytest.mark.any_version
def test_missing_role_is_created_by_the_printed_statements(setup: Setup) -> None:
    name = f'App "{setup.names["app"]}"'
    quoted = '"' + name.replace('"', '""') + '"'
    for _ in range(2):
        found = setup.found(f"--app-role={name}")
        assert {each.level for each in found} == {"failure"}
        assert all(quoted in each.statement for each in found)
        fix(setup, found)
    try:
        assert setup.found(f"--app-role={name}") == []
    finally:
        setup.database.execute(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


@pytest.mark.any_version
def test_checks_cover_the_given_schemas_or_those_of_the_migrating_role(setup: Setup) -> None:
    setup.database.execute(
        "CREATE SCHEMA mine AUTHORIZATION {mig}; CREATE SCHEMA theirs;"
        " CREATE TABLE mine.t (); ALTER TABLE mine.t OWNER TO {mig}; CREATE TABLE theirs.t ();"
        " CREATE TABLE mine._yoyo_migration ()".format(**setup.names)
    )
    assert setup.found("--schema=public") == []
    found = " ".join(each.statement for each in setup.found())
    assert "mine.t " in found
    assert "theirs.t" not in found
    assert "_yoyo_migration" not in found
    assert "IN SCHEMA mine" in found


@pytest.mark.any_version
def test_objects_of_an_extension_are_not_checked(setup: Setup) -> None:
    setup.database.execute("CREATE EXTENSION pg_stat_statements")
    setup.database.execute("REVOKE ALL ON pg_stat_statements FROM PUBLIC")
    assert setup.found() == []


@pytest.mark.any_version
def test_refusal_found_only_by_running_a_statement_is_reported_with_it(
    setup: Setup,
) -> None:
    """The catalog check does not cover built-in functions with a revoked EXECUTE privilege."""
    setup.database.execute("ALTER TABLE orders ADD luck float DEFAULT random()")
    setup.database.execute("REVOKE EXECUTE ON FUNCTION random() FROM PUBLIC")
    assert setup.found() == []
    setup.allow_set_role()
    setup.database.execute("REVOKE DELETE ON users FROM {app}".format(**setup.names))
    [lacking, check] = setup.found()
    assert lacking.statement == "GRANT DELETE ON public.users TO {app};".format(**setup.names)
    refused = "permission denied for function random (42501)"
    name = setup.names["app"]
    assert check.found == f"{name} cannot INSERT INTO public.orders DEFAULT VALUES: {refused}"
    assert check.level == "failure"


@pytest.mark.any_version
def test_locked_table_is_a_warning_after_the_lock_timeout(setup: Setup) -> None:
    setup.allow_set_role()
    with setup.database.connect(autocommit=False) as other:
        other.execute("LOCK TABLE users")
        found = [each for each in setup.checks() if each.level != "ok"]
    assert {(each.level, each.subject) for each in found} == {("warning", "app-tables")}
    assert all("because of a lock timeout" in each.found for each in found)


@pytest.mark.any_version
def test_checks_fire_no_triggers_and_change_no_rows(setup: Setup) -> None:
    setup.allow_set_role()
    setup.database.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER row BEFORE INSERT OR UPDATE OR DELETE ON users
            FOR EACH ROW EXECUTE FUNCTION refuse();
        CREATE TRIGGER statement BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON users
            EXECUTE FUNCTION refuse();
        INSERT INTO orders VALUES (DEFAULT, 'kept')"""
    )
    assert setup.found() == []
    assert setup.database.query("SELECT note FROM orders") == [("kept",)]


@pytest.mark.any_version
def test_each_statement_covers_up_to_a_hundred_tables(setup: Setup) -> None:
    setup.database.execute(
        "DO $$ BEGIN FOR i IN 1..1050 LOOP EXECUTE format('CREATE TABLE many_%s ()', i);"
        " END LOOP; END $$"
    )
    found = setup.found()
    assert len(found) == 11
    assert "public.many_1, public.many_10, public.many_100 and 97 more" in found[0].found
    fix(setup, found)
    setup.allow_set_role()
    assert setup.found() == []


@pytest.mark.any_version
def test_standby_is_checked_without_creating_a_table(
    make_server: MakeServer, make_standby: MakeStandby, folder: Path
) -> None:
    primary = make_server()
    Database(primary.url()).execute(
        "CREATE ROLE app LOGIN; CREATE TABLE t (id serial); GRANT SELECT ON t TO app"
    )
    standby = make_standby(primary)
    environ = {"DATABASE_URL": standby.url(), "INITMIG_MIGRATIONS": str(write(folder, MIGRATIONS))}
    wait_until(lambda: "t" in Database(standby.url()).tables())
    checks = examine(parse_config(["doctor", "--app-role=app"], environ), lambda _: None)
    assert [each.statement for each in checks if each.subject == "app-tables"] == [
        "GRANT USAGE ON SEQUENCE public.t_id_seq TO app;",
        "GRANT INSERT, UPDATE, DELETE ON public.t TO app;",
    ]
    assert "app-new-tables" not in {each.subject for each in checks}


@pytest.mark.any_version
def test_session_of_a_pooler_keeps_neither_the_role_nor_the_settings(
    setup: Setup, server: DatabaseServer
) -> None:
    setup.database.execute(
        "REVOKE INSERT ON users FROM {app}; CREATE TABLE t ();"
        " ALTER SCHEMA public OWNER TO {mig}".format(**setup.names)  # the owner is trusted
    )
    with running_pgbouncer(server, default_pool_size=1) as pooler:
        through = replace(setup, mig=pooler.url(setup.database.name))
        found = [each for each in through.checks() if each.statement]
        with psycopg.connect(through.mig) as connection:
            rows = connection.execute("SELECT current_user, current_setting('lock_timeout')")
            assert rows.fetchall() == [("postgres", "0")]
    assert "GRANT INSERT ON public.users TO {app};".format(**setup.names) in [
        each.statement for each in found
    ]
