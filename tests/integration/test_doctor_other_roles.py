"""`doctor` names roles that could plant objects, change the history or hold the migration lock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from initmig.commands.doctor.other_roles import SUBJECTS
from tests.support.databases import Database
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.servers import MakeServer


class Roles(NamedTuple):
    """The names of roles with LOGIN."""

    migrator: str
    mallory: str
    eve: str
    group: str


class Setting(NamedTuple):
    """A database and its roles."""

    database: Database
    roles: Roles
    url: str
    """The migrator's connection URL."""

    def run(self, script: str, **names: str) -> None:
        """Run *script* as a superuser, after filling in the names of the roles."""
        self.database.execute(self.filled(script, **names))

    def filled(self, text: str, **names: str) -> str:
        """*text* with the names of the roles and the database filled in."""
        return text.format(**self.roles._asdict(), db=self.database.name, **names)


@pytest.fixture
def setting(database: Database) -> Setting:
    """A migrator that can create objects in `public`, and roles without privileges."""
    migrator = database.login_role()
    urls = [migrator, *(database.login_role() for _ in range(3))]
    roles = Roles(*(str(urlsplit(url).username) for url in urls))
    setting = Setting(database, roles, migrator)
    setting.run(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE {db} FROM PUBLIC;"
        "GRANT USAGE, CREATE ON SCHEMA public TO {migrator};"
        "GRANT CONNECT ON DATABASE {db} TO {migrator}"
    )
    return setting


@pytest.fixture
def one_migration(folder: Path) -> Path:
    """A folder with a single migration."""
    return write(folder, {"0001_t.sql": "CREATE TABLE t (a int)"})


def checks(initmig: Initmig, setting: Setting, folder: Path, *options: str) -> list[dict[str, str]]:
    """The checks of other roles."""
    result = initmig("doctor", "--json", *options, url=setting.url, folder=folder)
    assert result.code == 0, result.err
    return [each for each in json.loads(result.out)["checks"] if each["subject"] in SUBJECTS]


def warnings(found: list[dict[str, str]]) -> list[dict[str, str]]:
    return [each for each in found if each["level"] != "ok"]


class Case(NamedTuple):
    """A setup where other roles have privileges, and the warning of `doctor`."""

    setup: str
    subject: str
    found: str
    statement: str
    options: tuple[str, ...] = ()
    by: str = ""
    """The role that runs the statement. The default is a superuser."""


CREATORS = {
    "PUBLIC, as on PostgreSQL 14": Case(
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "search-path",
        "PUBLIC can create objects in public",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
    ),
    "two roles": Case(
        "GRANT ALL ON SCHEMA public TO {mallory}, {eve}",
        "search-path",
        "can create objects in public",
        "REVOKE CREATE ON SCHEMA public FROM {both};",
    ),
    "a role with the grant option": Case(
        "GRANT CREATE ON SCHEMA public TO {migrator} WITH GRANT OPTION;"
        "SET ROLE {migrator}; GRANT CREATE ON SCHEMA public TO {eve}",
        "search-path",
        "{eve} can create objects in public",
        "REVOKE CREATE ON SCHEMA public FROM {eve};",
        by="{migrator}",
    ),
    "members of a group that the migrator belongs to": Case(
        "GRANT {group} TO {migrator}, {mallory}; GRANT CREATE ON SCHEMA public TO {group}",
        "search-path",
        "{mallory} can create objects in public, which migrations can then run as {migrator},"
        " as a member of {group}",
        "REVOKE {group} FROM {mallory};",
    ),
    "a later schema of the search path": Case(
        'CREATE SCHEMA "My Ext"; GRANT USAGE ON SCHEMA "My Ext" TO {migrator};'
        'GRANT CREATE ON SCHEMA "My Ext" TO {eve}',
        "search-path",
        '{eve} can create objects in "My Ext"',
        'REVOKE CREATE ON SCHEMA "My Ext" FROM {eve};',
        ("--schema=public,My Ext",),
    ),
    "the path of the database": Case(
        "CREATE SCHEMA a; GRANT CREATE ON SCHEMA a TO {eve};"
        "ALTER DATABASE {db} SET search_path = public, a",
        "search-path",
        "{eve} can create objects in a",
        "REVOKE CREATE ON SCHEMA a FROM {eve};",
    ),
    "the path of the role": Case(
        "CREATE SCHEMA a; GRANT CREATE ON SCHEMA a TO {eve};"
        "ALTER ROLE {migrator} SET search_path = public, a",
        "search-path",
        "{eve} can create objects in a",
        "REVOKE CREATE ON SCHEMA a FROM {eve};",
    ),
    "the schema of the history, which is not in the path": Case(
        "CREATE SCHEMA h; GRANT USAGE, CREATE ON SCHEMA h TO {migrator}, {eve}",
        "search-path",
        "{eve} can create objects in h",
        "REVOKE CREATE ON SCHEMA h FROM {eve};",
        ("--history-schema=h",),
    ),
    "$user, which another role owns": Case(
        "CREATE SCHEMA {migrator} AUTHORIZATION {eve};"
        "GRANT USAGE, CREATE ON SCHEMA {migrator} TO {migrator}",
        "search-path",
        "{migrator} is in the search path as $user and is owned by {eve}",
        "ALTER SCHEMA {migrator} OWNER TO {migrator};",
    ),
    "$user, which does not exist": Case(
        "GRANT CREATE ON DATABASE {db} TO {mallory}",
        "search-path",
        "{mallory} can create the missing schema {migrator} of the search path",
        "REVOKE CREATE ON DATABASE {db} FROM {mallory};",
    ),
    "$user of --role": Case(
        "GRANT {group} TO {migrator}; GRANT USAGE, CREATE ON SCHEMA public TO {group};"
        "GRANT CREATE ON DATABASE {db} TO PUBLIC",
        "search-path",
        "PUBLIC can create the missing schema {group} of the search path",
        "REVOKE CREATE ON DATABASE {db} FROM PUBLIC;",
        ("--role={group}",),
    ),
    "a schema of the path that does not exist": Case(
        "GRANT CREATE ON DATABASE {db} TO {mallory}",
        "search-path",
        "{mallory} can create the missing schema gone of the search path",
        "REVOKE CREATE ON DATABASE {db} FROM {mallory};",
        ("--schema=public,gone",),
    ),
}

MIGRATED = "the history exists"

WRITERS = {
    "default privileges, as on Supabase": Case(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA public"
        " GRANT ALL ON TABLES TO {mallory}, {eve}",
        "history-privileges",
        "can change public._initmig_migration, public._yoyo_log, public._yoyo_migration,"
        " public._yoyo_version, public.yoyo_lock (DELETE, INSERT, REFERENCES, TRIGGER, TRUNCATE,"
        " UPDATE)",
        "REVOKE DELETE, INSERT, REFERENCES, TRIGGER, TRUNCATE, UPDATE ON public._initmig_migration,"
        " public._yoyo_log, public._yoyo_migration, public._yoyo_version, public.yoyo_lock"
        " FROM {both};",
    ),
    **{
        privilege: Case(
            f"{MIGRATED}; GRANT {privilege} ON _yoyo_migration TO {{eve}}",
            "history-privileges",
            f"{{eve}} can change public._yoyo_migration ({privilege})",
            f"REVOKE {privilege} ON public._yoyo_migration FROM {{eve}};",
        )
        for privilege in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES")
    },
    "a single column": Case(
        f"{MIGRATED}; GRANT UPDATE (checksum) ON _initmig_migration TO {{eve}}",
        "history-privileges",
        "{eve} can change public._initmig_migration (UPDATE)",
        "REVOKE UPDATE ON public._initmig_migration FROM {eve};",
    ),
    "PUBLIC": Case(
        f"{MIGRATED}; GRANT INSERT, SELECT ON yoyo_lock TO PUBLIC",
        "history-privileges",
        "PUBLIC can change public.yoyo_lock (INSERT)",
        "REVOKE INSERT ON public.yoyo_lock FROM PUBLIC;",
    ),
    "another history of the schema": Case(
        f"{MIGRATED}; CREATE TABLE _yoyo_shop AS TABLE _yoyo_migration;"
        "GRANT DELETE ON _yoyo_shop TO {eve}",
        "history-privileges",
        "{eve} can change public._yoyo_shop (DELETE)",
        "REVOKE DELETE ON public._yoyo_shop FROM {eve};",
    ),
    "a member of pg_write_all_data": Case(
        f"{MIGRATED}; GRANT pg_write_all_data TO {{eve}}",
        "history-privileges",
        "as a member of pg_write_all_data",
        "REVOKE pg_write_all_data FROM {eve};",
    ),
}


@pytest.mark.parametrize("case", [*CREATORS.values(), *WRITERS.values()], ids=[*CREATORS, *WRITERS])
def test_privilege_of_another_role_is_reported_and_the_printed_statement_revokes_it(
    initmig: Initmig, setting: Setting, one_migration: Path, case: Case
) -> None:
    options = [setting.filled(option) for option in case.options]
    both = ", ".join(sorted(setting.roles[1:3]))
    setup = case.setup.removeprefix(f"{MIGRATED}; ")
    if setup == case.setup:
        setting.run(setup)
    if case.subject == "history-privileges":
        assert initmig(url=setting.url, folder=one_migration).code == 0
    if setup != case.setup:
        setting.run(setup)
    [warning] = warnings(checks(initmig, setting, one_migration, *options))
    assert warning["subject"] == case.subject
    assert setting.filled(case.found) in warning["found"]
    assert warning["statement"] == setting.filled(case.statement, both=both)
    assert "\n" not in warning["statement"]
    by = setting.filled(case.by)
    assert by == warning["by"] if by else "superuser" in warning["by"]
    with setting.database.connect() as connection:
        if by:
            connection.execute(f"SET ROLE {by}".encode())
        connection.execute(warning["statement"].encode())
    assert warnings(checks(initmig, setting, one_migration, *options)) == []


TRUSTED = {
    "no other role": "SELECT",
    "the role of the run": "GRANT ALL ON SCHEMA public TO {migrator}",
    "a role granted to it": "GRANT {group} TO {migrator}; GRANT ALL ON SCHEMA public TO {group}",
    "a role granted to it indirectly": "GRANT {group} TO {eve}; GRANT {eve} TO {migrator};"
    "GRANT ALL ON SCHEMA public TO {group}",
    "a member of the role of the run": "GRANT {migrator} TO {eve};"
    "GRANT ALL ON SCHEMA public TO {eve}",
    "the owner of the database": "ALTER DATABASE {db} OWNER TO {eve};"
    "GRANT ALL ON SCHEMA public TO {eve}",
    "a member of the owner of the database": "ALTER DATABASE {db} OWNER TO {group};"
    "GRANT {group} TO {eve}; GRANT ALL ON SCHEMA public TO {eve}",
    "the owner of the schema": "ALTER SCHEMA public OWNER TO {eve};"
    "GRANT USAGE, CREATE ON SCHEMA public TO {migrator}",
    "a superuser": "ALTER ROLE {eve} SUPERUSER; GRANT ALL ON SCHEMA public TO {eve}",
    "USAGE only": "GRANT USAGE ON SCHEMA public TO PUBLIC",
    "another schema": "CREATE SCHEMA a; GRANT CREATE ON SCHEMA a TO PUBLIC",
    "$user owned by the role of the run": "CREATE SCHEMA {migrator} AUTHORIZATION {migrator};"
    "GRANT CREATE ON DATABASE {db} TO {eve}",
}


@pytest.mark.any_version
@pytest.mark.parametrize("setup", TRUSTED.values(), ids=TRUSTED)
def test_trusted_roles_cause_no_warning(
    initmig: Initmig, setting: Setting, one_migration: Path, setup: str
) -> None:
    setting.run(setup)
    assert warnings(checks(initmig, setting, one_migration)) == []
    assert initmig(url=setting.url, folder=one_migration).code == 0
    found = checks(initmig, setting, one_migration)
    assert [each["level"] for each in found] == ["ok"] * 3


@pytest.mark.any_version
def test_run_as_a_superuser_does_not_trust_every_role(
    initmig: Initmig, setting: Setting, one_migration: Path
) -> None:
    setting.run("GRANT CREATE ON SCHEMA public TO {eve}")
    as_superuser = setting._replace(url=setting.database.url)
    [warning] = warnings(checks(initmig, as_superuser, one_migration))
    roles = ", ".join(sorted([setting.roles.migrator, setting.roles.eve]))
    assert warning["statement"] == f"REVOKE CREATE ON SCHEMA public FROM {roles};"


def test_new_database_before_postgresql_15_warns_that_public_can_create_objects(
    initmig: Initmig, database: Database, one_migration: Path
) -> None:
    names = Roles("", "", "", "")
    found = warnings(checks(initmig, Setting(database, names, database.url), one_migration))
    statements = [each["statement"] for each in found if each["subject"] == "search-path"]
    old = database.value("SELECT current_setting('server_version_num')::int < 150000")
    assert statements == (["REVOKE CREATE ON SCHEMA public FROM PUBLIC;"] if old else [])


@pytest.mark.any_version
def test_planted_function_does_not_hide_a_privilege(
    initmig: Initmig, setting: Setting, one_migration: Path
) -> None:
    setting.run(
        "GRANT CREATE ON SCHEMA public TO {eve};"
        "CREATE FUNCTION public.aclexplode(aclitem[], OUT grantor oid, OUT grantee oid,"
        " OUT privilege_type text, OUT is_grantable bool) RETURNS SETOF record LANGUAGE sql"
        " AS 'SELECT NULL::oid, NULL::oid, NULL, NULL::bool WHERE false';"
        "ALTER ROLE {migrator} SET search_path = public, pg_catalog"
    )
    [warning] = warnings(checks(initmig, setting, one_migration))
    assert warning["statement"] == setting.filled("REVOKE CREATE ON SCHEMA public FROM {eve};")


def lock_key_check(initmig: Initmig, setting: Setting, folder: Path) -> Mapping[str, str]:
    found = checks(initmig, setting, folder)
    [check] = [each for each in found if each["subject"] == "lock-key"]
    return check


@pytest.fixture
def separate_database(make_server: MakeServer) -> Database:
    """A database on a server without the roles of other tests."""
    return Database(make_server().url())


@pytest.mark.any_version
def test_roles_that_can_connect_could_hold_the_migration_lock(
    initmig: Initmig, separate_database: Database, one_migration: Path
) -> None:
    login = separate_database.login_role("GRANT ALL ON SCHEMA public TO {role}")
    migrator = str(urlsplit(login).username)
    mine = Setting(separate_database, Roles(migrator, "mallory", "eve", "devs"), login)
    mine.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    check = lock_key_check(initmig, mine, one_migration)
    assert check["level"] == "ok"
    assert check["found"] == "no other role can connect, so none can hold the migration lock"

    mine.run(
        "CREATE ROLE mallory LOGIN PASSWORD 'mallory'; CREATE ROLE eve LOGIN; CREATE ROLE devs"
    )
    check = lock_key_check(initmig, mine, one_migration)
    assert check["level"] == "warning"
    assert check["found"].endswith("hold the migration lock: eve, mallory")
    assert check["hint"] == "GRANT CONNECT to your application's roles first"
    assert check["statement"] == (
        f"GRANT CONNECT ON DATABASE postgres TO {migrator};"
        " REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;"
    )

    mine.run("GRANT devs TO eve; GRANT CONNECT ON DATABASE postgres TO devs")
    mine.run(check["statement"])
    check = lock_key_check(initmig, mine, one_migration)
    assert check["level"] == "ok"
    assert check["found"].endswith("could hold the migration lock: eve")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(separate_database.url, user="mallory", password="mallory")
