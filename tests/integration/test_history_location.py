"""All commands find the history in the same schema, for any search path and role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from psycopg import sql

from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.fork_server import KillableRuns
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo

YOYO_TABLES = {"_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock"}
HISTORY = YOYO_TABLES | {"_initmig_migration"}
ODD_NAME = 'Odd, "one" $user'


def table(id: str) -> dict[str, str]:
    """A migration that creates a table, named after the end of its id, and its rollback."""
    name = id.rpartition("_")[2]
    return {f"{id}.sql": f"CREATE TABLE {name} ();", f"{id}.rollback.sql": f"DROP TABLE {name};"}


FIRST = table("0001_a")
BOTH = FIRST | table("0002_b")


class Site:
    """A database with the schemas `one` and `two`, and methods that run commands on it."""

    def __init__(
        self, killable_runs: KillableRuns, database: Database, folder: Path, yoyo: Yoyo
    ) -> None:
        self.database = database
        self.folder = write(folder, BOTH)
        self._forking = killable_runs
        self._yoyo = yoyo
        self._first = write(folder.with_name("first"), FIRST)
        self.url = database.url
        with database.connect() as connection:
            for name in ("one", "two", ODD_NAME):
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))

    def set_path(self, path: str) -> None:
        """Set the search path of new connections to *path*."""
        self.database.execute(f"ALTER DATABASE {self.database.name} SET search_path = {path}")

    def run(self, *arguments: str, url: str = "", folder: Path | None = None) -> Result:
        result = self._forking.run(
            *arguments,
            "--log-format=json",
            "--wait-timeout=0",
            "--queue-timeout=10s",
            url=url or self.url,
            folder=folder or self.folder,
        )
        for text in (result.out, result.err):
            assert "Traceback" not in text, text
            assert "internal-error" not in text, text
        return result

    def succeeds(self, *arguments: str, url: str = "", folder: Path | None = None) -> Result:
        result = self.run(*arguments, url=url, folder=folder)
        assert result.code == 0, result.err
        return result

    def error(
        self, *arguments: str, code: int, url: str = "", folder: Path | None = None
    ) -> dict[str, Any]:
        """The only error of a run that exits with *code*."""
        result = self.run(*arguments, url=url, folder=folder)
        assert result.code == code, result.err
        [error] = [event for event in result.events if event["event"] == "failed"]
        return error

    def create_history(self, schema: str, by: str) -> None:
        """Apply `0001_a` in *schema* with the tool *by*: initmig or stock yoyo."""
        if by == "initmig":
            self.succeeds("migrate", f"--schema={_listed(schema)}", folder=self._first)
            return
        self.yoyo("apply", schema=schema, folder=self._first)

    def yoyo(self, *arguments: str, schema: str, folder: Path | None = None) -> Result:
        path = quote(f'-csearch_path="{schema.replace(chr(34), chr(34) * 2)}"'.replace(" ", r"\ "))
        url = f"{self.database.url}?options={path}"
        result = self._yoyo(*arguments, database=url, folder=folder or self.folder)
        assert result.code == 0, result.err
        return result

    def tables(self, schema: str) -> set[str]:
        return self.database.tables(schema)

    def applied(self, schema: str, table: str = "_yoyo_migration") -> list[str]:
        """The ids of a history, sorted."""
        statement = sql.SQL("SELECT migration_id FROM {} ORDER BY 1")
        with self.database.connect() as connection:
            rows = connection.execute(statement.format(sql.Identifier(schema, table)))
            return [id for (id,) in rows.fetchall()]

    def everything(self, schema: str) -> dict[str, list[str]]:
        """Every row of every table of *schema*."""
        with self.database.connect() as connection:
            return {
                name: [
                    text
                    for (text,) in connection.execute(
                        sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(
                            sql.Identifier(schema, name)
                        )
                    )
                ]
                for name in self.tables(schema)
            }

    def states(self, *flags: str, url: str = "", folder: Path | None = None) -> dict[str, str]:
        out = self.succeeds("status", "--json", *flags, url=url, folder=folder).out
        return {row["id"]: row["state"] for row in json.loads(out)["migrations"]}


def _listed(schema: str) -> str:
    """*schema* as a list with one element, as in `search_path`."""
    return '"' + schema.replace('"', '""') + '"'


@pytest.fixture
def site(killable_runs: KillableRuns, database: Database, folder: Path, yoyo: Yoyo) -> Site:
    return Site(killable_runs, database, folder, yoyo)


class Case(NamedTuple):
    """A search path with flags, and the schema where commands must find the history."""

    path: str
    home: str
    flags: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    """The schemas that already have a history."""
    works_in: str = ""
    """The schema where a migration creates its tables, if it differs from `home`."""


CASES = {
    "no history": Case("one, two", "one"),
    "the first has it": Case("one, two", "one", existing=("one",)),
    "the second has it": Case("one, two", "two", existing=("two",), works_in="one"),
    "both have it": Case("one, two", "one", existing=("one", "two")),
    "after a missing schema": Case("missing, one, two", "one"),
    "after a missing schema, the second has it": Case(
        "missing, one, two", "two", existing=("two",), works_in="one"
    ),
    "after the role's own schema, which is missing": Case('"$user", two', "two", existing=("two",)),
    "an odd name": Case(_listed(ODD_NAME), ODD_NAME),
    "an odd name has it": Case(
        f"one, {_listed(ODD_NAME)}", ODD_NAME, existing=(ODD_NAME,), works_in="one"
    ),
    "--schema": Case("one", "two", flags=("--schema=two",)),
    "--schema, another one has it": Case("one", "two", flags=("--schema=two",), existing=("one",)),
    "the first of --schema, the second has it": Case(
        "public", "one", flags=("--schema=one,two",), existing=("two",)
    ),
    "--schema with an odd name": Case(
        "one", ODD_NAME, flags=(f"--schema={_listed(ODD_NAME)}",), existing=(ODD_NAME,)
    ),
    "--history-schema": Case("one", "two", flags=("--history-schema=two",), works_in="one"),
    "--history-schema has it": Case(
        "one", "two", flags=("--history-schema=two",), existing=("two",), works_in="one"
    ),
    "--history-schema, another one has it": Case(
        "one", "two", flags=("--history-schema=two",), existing=("one",), works_in="one"
    ),
    "both flags": Case(
        "public",
        "two",
        flags=("--schema=one", "--history-schema=two"),
        existing=("one",),
        works_in="one",
    ),
}


SCHEMAS = ("one", "two", ODD_NAME, "public")
CASES_BY_TOOL = [
    pytest.param(case, by, id=f"{name}, {by}")
    for name, case in CASES.items()
    for by in (("initmig", "yoyo") if case.existing else ("no tool",))
]


@pytest.mark.any_version
@pytest.mark.parametrize(("case", "before"), CASES_BY_TOOL)
def test_every_command_uses_the_same_history(site: Site, case: Case, before: str) -> None:
    for schema in case.existing:
        site.create_history(schema, before)
    check_every_command(site, case)


@pytest.mark.any_version
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in CASES.items() if "two" in case.existing]
)
def test_every_command_finds_a_history_of_0_1_0(
    site: Site, case: Case, first_release: Initmig
) -> None:
    for schema in case.existing:
        first = site.folder.with_name("first")
        migrated = first_release("migrate", f"--schema={schema}", url=site.url, folder=first)
        assert migrated.code == 0, migrated.err
    check_every_command(site, case)


def check_every_command(site: Site, case: Case) -> None:
    """Assert that every command finds the history of *case* and writes to no other one."""
    site.set_path(case.path)
    works_in = case.works_in or case.home
    if works_in != case.home and works_in in case.existing:
        # the table belongs to the other history, and the migration creates it again
        site.database.execute(f"DROP TABLE {works_in}.a")
    others, before = other_schemas(site, case), site.everything(case.home)
    done = ["0001_a"] if case.home in case.existing else []
    check_reading(site, case, done)
    site.succeeds("doctor", *case.flags)
    site.succeeds("rehearse", *case.flags)
    assert site.everything(case.home) == before
    site.succeeds("migrate", *case.flags)
    check_reading(site, case, ["0001_a", "0002_b"])
    assert site.applied(case.home) == ["0001_a", "0002_b"]
    assert site.tables(case.home) >= HISTORY
    assert "b" in site.tables(works_in)
    site.succeeds("migrate", *case.flags)
    site.succeeds("rollback", "--steps=1", *case.flags)
    check_reading(site, case, ["0001_a"])
    assert "b" not in site.tables(works_in)
    site.succeeds("baseline", "--to=0002_b", *case.flags)
    check_reading(site, case, ["0001_a", "0002_b"])
    site.succeeds("unlock", *case.flags)
    assert other_schemas(site, case) == others


def other_schemas(site: Site, case: Case) -> dict[str, dict[str, list[str]]]:
    """The rows in the schemas other than `home`, without the tables of the migrations."""
    found = {schema: site.everything(schema) for schema in SCHEMAS if schema != case.home}
    for name in ("a", "b"):
        found.get(case.works_in, {}).pop(name, None)
    return found


def check_reading(site: Site, case: Case, applied: list[str]) -> None:
    """Assert that the reading commands report the migrations *applied* as applied."""
    assert site.states(*case.flags) == {
        id: "applied" if id in applied else "pending" for id in ("0001_a", "0002_b")
    }
    planned = json.loads(site.succeeds("plan", "--json", *case.flags).out)["migrations"]
    assert [each["id"] for each in planned] == [
        id for id in ("0001_a", "0002_b") if id not in applied
    ]
    left = 7 if len(planned) else 0
    assert site.run("wait", *case.flags).code == left
    assert site.run("status", "--check", *case.flags).code == left


# --- independent of privileges ---

READER_GRANTS = (
    "GRANT USAGE ON SCHEMA one, two TO {role}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA one, two TO {role}",
)
WRITER_GRANTS = (
    "GRANT USAGE, CREATE ON SCHEMA one, two TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA one, two TO {role}",
)


@pytest.mark.parametrize("before", ["initmig", "yoyo"])
@pytest.mark.parametrize(
    "grants", [READER_GRANTS, WRITER_GRANTS], ids=["SELECT only", "another owner"]
)
@pytest.mark.parametrize(
    ("path", "flags"),
    [
        ("one, two", ()),
        ("two, one", ()),
        ("public", ("--schema=two,one",)),
        ("public", ("--schema=one", "--history-schema=two")),
    ],
)
def test_every_role_finds_the_history_of_the_owner(
    site: Site, path: str, flags: tuple[str, ...], grants: tuple[str, ...], before: str
) -> None:
    site.create_history("two", before)
    site.set_path(path)
    url = site.database.login_role(*grants)
    before_migrate = site.everything("one"), site.everything("two")
    assert site.states(*flags, url=url) == {"0001_a": "applied", "0002_b": "pending"}
    planned = json.loads(site.succeeds("plan", "--json", *flags, url=url).out)["migrations"]
    assert [each["id"] for each in planned] == ["0002_b"]
    assert site.run("wait", *flags, url=url).code == 7
    assert site.run("status", "--check", *flags, url=url).code == 7
    # an image with only the applied migrations
    first = site.folder.with_name("first")
    for command in (("migrate",), ("wait",), ("status", "--check")):
        site.succeeds(*command, *flags, url=url, folder=first)
    assert (site.everything("one"), site.everything("two")) == before_migrate
    if grants == READER_GRANTS:
        assert site.error("migrate", *flags, url=url, code=4)["sqlstate"] == "42501"
        assert (site.everything("one"), site.everything("two")) == before_migrate
        return
    site.succeeds("migrate", *flags, url=url)
    assert site.applied("two") == ["0001_a", "0002_b"]
    assert site.tables("two") >= HISTORY
    assert not HISTORY & site.tables("one")
    site.succeeds("rollback", "--steps=1", *flags, url=url)
    assert site.applied("two") == ["0001_a"]


@pytest.mark.parametrize(
    "revoked",
    [
        "REVOKE USAGE ON SCHEMA one FROM {role}",
        "REVOKE SELECT ON one._yoyo_migration FROM {role}",
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_history_that_the_role_cannot_read_is_an_error(
    site: Site, elsewhere: bool, revoked: str
) -> None:
    site.create_history("one", "initmig")
    if elsewhere:
        site.create_history("two", "initmig")
    site.set_path("one, two")
    before = site.everything("one"), site.everything("two")
    url = site.database.login_role(*WRITER_GRANTS, revoked)
    for command in (
        ("migrate",),
        ("status",),
        ("wait",),
        ("plan",),
        ("rehearse",),
        ("rollback", "--all"),
        ("baseline", "--to=0001_a"),
    ):
        error = site.error(*command, url=url, code=4)
        assert error["sqlstate"] == "42501"
        assert "permission denied" in error["message"]
    assert (site.everything("one"), site.everything("two")) == before


@pytest.mark.parametrize("creatable", ["one", "two"])
def test_missing_create_privilege_does_not_move_the_history(site: Site, creatable: str) -> None:
    site.create_history("two", "yoyo")
    site.set_path("one, two")
    url = site.database.login_role(
        *WRITER_GRANTS,
        "REVOKE CREATE ON SCHEMA one, two FROM {role}",
        f"GRANT CREATE ON SCHEMA {creatable} TO {{role}}",
    )
    error = site.error("migrate", url=url, code=4 if creatable == "one" else 1)
    assert error["sqlstate"] in ("42501", "3F000")
    assert not HISTORY & site.tables("one")
    assert site.applied("two") == ["0001_a"]
    assert ("_initmig_migration" in site.tables("two")) == (creatable == "two")


def test_roles_with_their_own_schemas_share_the_history(site: Site) -> None:
    write(
        site.folder,
        {
            "0002_b.sql": "-- transactional: false\nCREATE TABLE public.b (n int);\n"
            "INSERT INTO public.b VALUES (1);\nSELECT 1 / count(*) FROM public.gate;\n"
        },
    )
    site.database.execute("CREATE TABLE gate (); GRANT CREATE ON SCHEMA public TO PUBLIC")
    site.create_history("public", "yoyo")
    site.database.execute(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;"
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"
    )
    site.set_path('"$user", public')
    urls = [site.database.login_role() for _ in range(2)]
    for url in urls:
        role = urlsplit(url).username
        site.database.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}")
    first, second = urls
    for url in (first, first):
        assert site.run("migrate", url=url).code == 1
    site.database.execute(
        f"GRANT {urlsplit(first).username} TO {urlsplit(second).username};"
        "ALTER TABLE gate ADD n int; INSERT INTO gate VALUES (1)"
    )
    assert site.states(url=second) == {"0001_a": "applied", "0002_b": "applying"}
    site.succeeds("migrate", url=second)
    assert site.database.query("SELECT n FROM b") == [(1,)]
    for url in urls:
        assert not HISTORY & site.tables(str(urlsplit(url).username))
        site.succeeds("wait", url=url)


# --- a history in another schema ---


def test_tenant_without_a_history_does_not_use_the_history_of_public(site: Site) -> None:
    site.succeeds("migrate")
    public = site.everything("public")
    assert {*public} == HISTORY | {"a", "b"}
    flags = ("--schema=one,public",)
    assert {*site.states(*flags).values()} == {"pending"}
    site.succeeds("migrate", *flags)
    assert site.tables("one") == HISTORY | {"a", "b"}
    site.succeeds("rollback", "--all", *flags)
    assert site.tables("one") == HISTORY
    assert site.applied("one") == []
    assert site.everything("public") == public


@pytest.mark.parametrize("command", [("migrate",), ("baseline", "--to=0002_b")])
@pytest.mark.parametrize("before", ["initmig", "yoyo"])
def test_changed_search_path_is_refused_instead_of_applying_twice(
    site: Site, before: str, command: tuple[str, ...]
) -> None:
    site.create_history("one", before)
    one = site.everything("one")
    site.set_path("two, public")
    error = site.error(*command, code=6)
    assert error["error"] == "history-elsewhere"
    for word in ("one", "two"):
        assert word in error["message"]
    assert "--history-schema" in error["next"]
    assert site.everything("one") == one
    for schema in ("two", "public"):
        assert site.tables(schema) == set()
    for reading in (("rehearse",), ("plan",), ("doctor",), ("status", "--check"), ("wait",)):
        site.run(*reading)
        assert site.tables("two") == set()
    site.succeeds("migrate", "--history-schema=one")
    assert site.applied("one") == ["0001_a", "0002_b"]
    assert site.tables("two") == {"b"}


@pytest.mark.parametrize("flag", ["--schema=two", "--history-schema=two"])
def test_explicit_schema_is_used_despite_a_history_elsewhere(site: Site, flag: str) -> None:
    site.create_history("one", "initmig")
    site.set_path("two")
    site.succeeds("migrate", flag)
    assert site.tables("two") == HISTORY | {"a", "b"}


def test_tenants_may_have_equal_ids(site: Site) -> None:
    site.create_history("one", "initmig")
    site.succeeds("migrate", "--each-schema=t%")
    assert site.tables("two") == HISTORY | {"a", "b"}


@pytest.mark.parametrize(
    "elsewhere",
    {
        "another application's": {"0001_x.sql": "CREATE TABLE x ()"},
        "a history without rows": {},
    }.values(),
)
def test_history_elsewhere_without_these_ids_is_ignored(
    site: Site, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    if elsewhere:
        other = write(tmp_path / "other", elsewhere)
        site.succeeds("migrate", "--schema=one", folder=other)
    else:
        site.create_history("one", "initmig")
        site.succeeds("rollback", "--all", "--schema=one")
    site.set_path("two")
    site.succeeds("migrate")
    assert site.tables("two") == HISTORY | {"a", "b"}


@pytest.mark.parametrize("role", ["the owner", "a role that cannot read it"])
def test_history_elsewhere_is_refused_only_if_the_role_can_read_it(site: Site, role: str) -> None:
    site.create_history("one", "initmig")
    site.set_path("two")
    url = site.database.login_role("GRANT USAGE, CREATE ON SCHEMA two TO {role}")
    if role == "the owner":
        assert site.error("migrate", code=6)["error"] == "history-elsewhere"
        return
    # a history that the role cannot read might belong to another application
    site.succeeds("migrate", url=url)
    assert site.tables("two") == HISTORY | {"a", "b"}


def test_existing_history_is_used_despite_a_history_elsewhere(site: Site) -> None:
    site.set_path("two")
    site.succeeds("migrate", folder=site.folder.with_name("first"))
    site.create_history("one", "initmig")
    site.succeeds("migrate")
    assert site.applied("two") == ["0001_a", "0002_b"]


# --- one history for each application ---

OURS = ("--history-table=app_b",)
DEFAULT = ("--history-table=_yoyo_migration",)
"""Explicit, because the other history table already exists."""


@pytest.fixture
def folder_b(site: Site, tmp_path: Path) -> Path:
    """Another application with the same ids as the first."""
    del site
    return write(
        tmp_path / "b",
        {
            "0001_a.sql": "CREATE TABLE x ();",
            "0001_a.rollback.sql": "DROP TABLE x;",
            "0002_b.sql": "CREATE TABLE y ();",
            "0002_b.rollback.sql": "DROP TABLE y;",
        },
    )


def test_other_history_table_shares_the_log_version_and_lock(site: Site, folder_b: Path) -> None:
    site.succeeds("migrate", *OURS, folder=folder_b)
    assert site.tables("public") == {
        "app_b", "app_b_initmig", "_yoyo_log", "_yoyo_version", "yoyo_lock", "x", "y",
    }  # fmt: skip


@pytest.mark.parametrize("order", ["the default first", "the default last"])
def test_applications_with_equal_ids_have_separate_histories(
    site: Site, folder_b: Path, order: str
) -> None:
    runs: list[tuple[tuple[str, ...], Path]] = [((), site.folder), (OURS, folder_b)]
    if order == "the default last":
        runs = [(OURS, folder_b), (DEFAULT, site.folder)]
    for flags, folder in runs:
        assert {*site.states(*flags, folder=folder).values()} == {"pending"}
        site.succeeds("migrate", *flags, folder=folder)
        assert {*site.states(*flags, folder=folder).values()} == {"applied"}
    assert site.tables("public") >= HISTORY | {"app_b", "app_b_initmig", "a", "b", "x", "y"}
    before = site.everything("public")
    site.succeeds("rollback", "--steps=1", *OURS, folder=folder_b)
    assert site.applied("public", "app_b") == ["0001_a"]
    assert site.states() == {"0001_a": "applied", "0002_b": "applied"}
    site.succeeds("rollback", "--all", *OURS, folder=folder_b)
    after = site.everything("public")
    for name in ("_yoyo_migration", "_initmig_migration", "a", "b"):
        assert after[name] == before[name]
    site.succeeds("migrate")
    site.succeeds("wait")
    site.succeeds("rollback", "--all")
    assert not {"a", "b"} & site.tables("public")
    site.succeeds("migrate", *OURS, folder=folder_b)
    assert {*site.states().values()} == {"pending"}
    assert {"x", "y"} <= site.tables("public")


@pytest.mark.parametrize("direction", ["apply", "rollback"])
@pytest.mark.parametrize("flags", [(), OURS], ids=["the default", "the other"])
def test_half_applied_state_is_separate_for_each_application(
    site: Site, folder_b: Path, flags: tuple[str, ...], direction: str
) -> None:
    """The applications share yoyo's log, which then has a later entry for the same id."""
    mine, other = (site.folder, folder_b) if flags == () else (folder_b, site.folder)
    others = OURS if flags == () else DEFAULT
    whole = "-- transactional: false\nINSERT INTO ran VALUES (1);\n"
    stops = f"{whole}SELECT 1 / count(*) FROM gate;\n"
    files = {"0002_b.sql": stops, "0002_b.rollback.sql": "SELECT 1;"}
    if direction == "rollback":
        files = {"0002_b.sql": "-- transactional: false\nSELECT 1;", "0002_b.rollback.sql": stops}
    write(mine, files)
    site.database.execute("CREATE TABLE ran (n int); CREATE TABLE gate ()")
    command = ("migrate",) if direction == "apply" else ("rollback", "--steps=1")
    if direction == "rollback":
        site.succeeds("migrate", *flags, folder=mine)
    assert site.run(*command, *flags, folder=mine).code == 1
    state = "applying" if direction == "apply" else "rolling back"
    assert site.states(*flags, folder=mine)["0002_b"] == state
    site.succeeds("migrate", *others, folder=other)
    assert site.states(*flags, folder=mine)["0002_b"] == state
    site.succeeds("rollback", "--steps=1", *others, folder=other)
    assert site.states(*flags, folder=mine)["0002_b"] == state
    site.database.execute("ALTER TABLE gate ADD n int; INSERT INTO gate VALUES (1)")
    site.succeeds(*command, *flags, folder=mine)
    assert site.database.query("SELECT n FROM ran") == [(1,)]


def test_two_applications_in_one_schema_can_start_concurrently(
    site: Site, folder_b: Path, initmig: Initmig
) -> None:
    """The shared tables are created once, and no copy fails because they exist."""
    started = [
        initmig.start("migrate", *flags, url=site.url, folder=folder)
        for flags, folder in 3 * [(DEFAULT, site.folder), (OURS, folder_b)]
    ]
    for running in started:
        result = running.result()
        assert result.code == 0, result.err
    for table in ("_yoyo_migration", "app_b"):
        assert site.applied("public", table) == ["0001_a", "0002_b"]
    assert site.database.query("SELECT FROM _yoyo_log") == 4 * [()]


# --- stock yoyo with --migration-table ---


def test_stock_yoyo_and_initmig_share_another_history_table(site: Site, folder_b: Path) -> None:
    table = ("--migration-table", "app_b")
    files = {path.name: path.read_text() for path in folder_b.glob("0001*")}
    first = write(site.folder.with_name("first_b"), files)
    site.yoyo("apply", *table, schema="public", folder=first)
    assert site.states(*OURS, folder=folder_b) == {"0001_a": "applied", "0002_b": "pending"}
    site.succeeds("migrate", *OURS, folder=folder_b)
    listed = site.yoyo("list", *table, schema="public", folder=folder_b).out
    assert [line.split()[:2] for line in listed.splitlines()[2:]] == [
        ["A", "0001_a"],
        ["A", "0002_b"],
    ]
    site.yoyo("rollback", "--all", *table, schema="public", folder=folder_b)
    assert {*site.states(*OURS, folder=folder_b).values()} == {"pending"}
    site.succeeds("migrate", *OURS, folder=folder_b)
    site.succeeds("rollback", "--all", *OURS, folder=folder_b)
    assert site.applied("public", "app_b") == []


@pytest.mark.parametrize(
    "command",
    [("migrate",), ("baseline", "--to=0002_b"), ("rehearse",), ("plan",)],
)
@pytest.mark.parametrize("by", ["initmig", "yoyo"])
def test_history_in_another_table_is_refused_and_named(
    site: Site, folder_b: Path, by: str, command: tuple[str, ...]
) -> None:
    if by == "yoyo":
        site.yoyo("apply", "--migration-table", "app_b", schema="public", folder=folder_b)
    else:
        site.succeeds("migrate", *OURS, folder=folder_b)
    before = site.everything("public")
    error = site.error(*command, code=6)
    assert error["error"] == "other-history-table"
    assert "app_b" in error["message"]
    assert "app_b_initmig" not in error["message"]
    assert "--history-table" in error["next"]
    assert site.everything("public") == before
    assert {*site.states().values()} == {"pending"}
    assert site.run("wait").code in (6, 7)
    assert site.run("rollback", "--all").code in (0, 6)
    assert site.everything("public") == before


def test_only_tables_with_the_columns_of_a_history_are_named(site: Site, folder_b: Path) -> None:
    site.database.execute(
        "CREATE TABLE audit (migration_hash text, note text);"
        "CREATE VIEW seen AS SELECT 1 AS migration_hash, 2 AS migration_id, 3 AS applied_at_utc"
    )
    for name in ("app_b", "Odd name"):
        site.succeeds("migrate", f"--history-table={name}", folder=write(folder_b, {}))
        site.succeeds("rollback", "--all", f"--history-table={name}", folder=folder_b)
    error = site.error("migrate", code=6)
    assert "app_b" in error["message"]
    assert "Odd name" in error["message"]
    assert "audit" not in error["message"]
    assert "seen" not in error["message"]
