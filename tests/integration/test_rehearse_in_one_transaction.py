"""`rehearse` runs all migrations in one transaction, with the same result as `migrate`."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import create_database
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.servers import MakeServer

BASE = """
CREATE TABLE base (id int PRIMARY KEY);
INSERT INTO base VALUES (1);
CREATE TYPE mood AS ENUM ('a');
CREATE TYPE moody AS ENUM ('a');
"""
PYTHON = "from yoyo import step\ndef run(c):\n"

NAME = "to_char(now(), 'YYYYMMDDHH24MISSUS')"


def named_by_time(statement: str) -> str:
    return f"DO $$ BEGIN EXECUTE format('{statement}', 'log_' || {NAME}); END $$"


def asserting(condition: str) -> str:
    return f"DO $$ BEGIN ASSERT {condition}; END $$"


REHEARSED = "rehearsed"
EARLIER = "rehearsed, with an earlier time for earlier migrations"

# The migrations of each case, and the result of the last one. No two cases share a table.
MIGRATES: dict[str, tuple[tuple[str, ...], str]] = {
    # objects and settings that end with a transaction
    "temporary table": (("CREATE TEMP TABLE t ()",) * 2, REHEARSED),
    "on commit drop": (("CREATE TEMP TABLE t () ON COMMIT DROP",) * 2, REHEARSED),
    "on commit delete rows": (
        ("CREATE TEMP TABLE t ON COMMIT DELETE ROWS AS SELECT 1",) * 2,
        REHEARSED,
    ),
    "temporary table with a deferred constraint": (
        (
            (
                "CREATE TEMP TABLE t (a int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)"
                " ON COMMIT DROP; INSERT INTO t VALUES (1)"
            ),
        )
        * 2,
        REHEARSED,
    ),
    "cursor": (("DECLARE c CURSOR FOR SELECT * FROM base; FETCH c",) * 2, REHEARSED),
    "cursor on a table that is dropped": (
        (
            "CREATE TABLE read AS SELECT 1; DECLARE c CURSOR FOR SELECT * FROM read; FETCH c",
            "DROP TABLE read",
        ),
        REHEARSED,
    ),
    "cursor on a temporary table": (
        (
            (
                "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1;"
                'DECLARE "a C" CURSOR FOR SELECT * FROM t; FETCH "a C"'
            ),
        )
        * 2,
        REHEARSED,
    ),
    "cursor of psycopg": (
        (f"{PYTHON}    c.cursor('n').execute('SELECT * FROM base')\nstep(run)\n",) * 2,
        REHEARSED,
    ),
    "SET LOCAL": (
        (
            (
                "SET LOCAL check_function_bodies = off; SET LOCAL statement_timeout = '1h';"
                "SET LOCAL TimeZone = 'Asia/Tokyo'; SET LOCAL ROLE pg_monitor"
            ),
            asserting(
                "current_setting('check_function_bodies') = 'on'"
                " AND current_setting('statement_timeout') = '0'"
                " AND current_setting('TimeZone') <> 'Asia/Tokyo'"
                " AND current_user = 'postgres'"
            ),
        ),
        REHEARSED,
    ),
    "set_config in a DO block": (
        (
            "DO $$ BEGIN PERFORM set_config('quote_all_identifiers', 'on', true); END $$",
            asserting("current_setting('quote_all_identifiers') = 'off'"),
        ),
        REHEARSED,
    ),
    "savepoint left open": (("SAVEPOINT a; CREATE TABLE saved ()", "SAVEPOINT a"), REHEARSED),
    # checks that are deferred to the COMMIT
    "pending trigger events": (
        (
            (
                "CREATE TABLE pending (id int REFERENCES base DEFERRABLE INITIALLY DEFERRED);"
                "INSERT INTO pending VALUES (1)"
            ),
            "ALTER TABLE pending ADD a int",
        ),
        REHEARSED,
    ),
    "constraint trigger": (
        (
            (
                "CREATE TABLE checked (id int); CREATE FUNCTION check_it() RETURNS trigger"
                " LANGUAGE plpgsql AS 'BEGIN ASSERT EXISTS (SELECT FROM base WHERE id = NEW.id);"
                " RETURN NULL; END'; CREATE CONSTRAINT TRIGGER t AFTER INSERT ON checked"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_it()"
            ),
            "INSERT INTO checked VALUES (11); INSERT INTO base VALUES (11)",
            "DROP TABLE checked",
        ),
        REHEARSED,
    ),
    "one name for a deferred constraint and an immediate one": (
        (
            (
                "CREATE TABLE late (id int CONSTRAINT same REFERENCES base"
                " DEFERRABLE INITIALLY DEFERRED);"
                "CREATE TABLE soon (id int CONSTRAINT same REFERENCES base DEFERRABLE)"
            ),
            "INSERT INTO late VALUES (12); INSERT INTO base VALUES (12)",
        ),
        REHEARSED,
    ),
    "SET CONSTRAINTS": (
        (
            (
                'CREATE TABLE set_late (id int CONSTRAINT "a Fk" REFERENCES base DEFERRABLE);'
                "SET CONSTRAINTS ALL DEFERRED; INSERT INTO set_late VALUES (1)"
            ),
            "INSERT INTO set_late VALUES (1); ALTER TABLE set_late ADD a int",
        ),
        REHEARSED,
    ),
    # effects of earlier migrations
    "record of an earlier migration": (
        (
            "CREATE TABLE recorded ()",
            asserting("EXISTS (SELECT FROM _yoyo_migration WHERE migration_id LIKE '%record_of%')"),
        ),
        REHEARSED,
    ),
    "table emptied and frozen": (
        (
            "CREATE TABLE frozen (a int); COPY frozen FROM STDIN (FREEZE);\n1\n\\.\n",
            "TRUNCATE frozen; COPY frozen FROM STDIN (FREEZE);\n1\n\\.\n",
        ),
        REHEARSED,
    ),
    # one now() for all
    "default now() as a key": (
        (
            (
                "CREATE TABLE default_key (at timestamptz DEFAULT now() PRIMARY KEY, a int);"
                "INSERT INTO default_key (a) VALUES (1)"
            ),
            "INSERT INTO default_key (a) VALUES (2)",
            "INSERT INTO default_key (a) VALUES (3)",
        ),
        EARLIER,
    ),
    "CURRENT_TIMESTAMP as a key in Python": (
        (
            "CREATE TABLE python_key (at timestamptz(3) UNIQUE)",
            *(
                (
                    f"{PYTHON}    c.execute('INSERT INTO python_key SELECT CURRENT_TIMESTAMP')\n"
                    "step(run)\n"
                ),
            )
            * 2,
        ),
        EARLIER,
    ),
    "time in UTC as a key": (
        (
            (
                'CREATE TABLE "an UTC key" ("at it" timestamp PRIMARY KEY);'
                "INSERT INTO \"an UTC key\" VALUES (now() AT TIME ZONE 'UTC')"
            ),
            "INSERT INTO \"an UTC key\" VALUES (now() AT TIME ZONE 'UTC')",
        ),
        EARLIER,
    ),
    "time in a partition as a key": (
        (
            (
                "CREATE TABLE parts (at timestamptz PRIMARY KEY) PARTITION BY RANGE (at);"
                "CREATE TABLE part PARTITION OF parts DEFAULT; INSERT INTO parts VALUES (now())"
            ),
            "INSERT INTO parts VALUES (now())",
        ),
        EARLIER,
    ),
    "exclusion of one time": (
        (
            (
                "CREATE TABLE excluded (at timestamptz, EXCLUDE USING btree (at WITH =));"
                "INSERT INTO excluded VALUES (now())"
            ),
            "INSERT INTO excluded VALUES (now())",
        ),
        EARLIER,
    ),
    "time in a deferred key": (
        (
            (
                "CREATE TABLE deferred (at timestamptz DEFAULT now()"
                " UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO deferred DEFAULT VALUES"
            ),
            "INSERT INTO deferred DEFAULT VALUES",
        ),
        EARLIER,
    ),
    "times of two migrations, made unique": (
        (
            "CREATE TABLE unequal (at timestamptz)",
            "INSERT INTO unequal VALUES (now())",
            "INSERT INTO unequal VALUES (now())",
            "ALTER TABLE unequal ADD UNIQUE (at)",
        ),
        EARLIER,
    ),
    "later than a stored time": (
        (
            (
                "CREATE TABLE stored (a timestamptz DEFAULT now(), b timestamptz, CHECK (b > a));"
                "INSERT INTO stored DEFAULT VALUES"
            ),
            "UPDATE stored SET b = now()",
        ),
        EARLIER,
    ),
    "trigger that requires a later time": (
        (
            (
                "CREATE TABLE raised (at timestamptz DEFAULT now());"
                "INSERT INTO raised DEFAULT VALUES;"
                "CREATE FUNCTION raise_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
                " IF NEW.at <= OLD.at THEN RAISE ''stale''; END IF; RETURN NEW; END';"
                "CREATE TRIGGER t BEFORE UPDATE ON raised FOR EACH ROW EXECUTE FUNCTION raise_it()"
            ),
            "UPDATE raised SET at = now()",
        ),
        EARLIER,
    ),
    "rows from before": (
        (
            "CREATE TABLE older (at timestamptz DEFAULT now()); INSERT INTO older DEFAULT VALUES",
            asserting("(SELECT count(*) FROM older WHERE at < now()) = 1"),
        ),
        EARLIER,
    ),
    "log of an event trigger": (
        (
            (
                "CREATE TABLE ddl (at timestamptz DEFAULT now() PRIMARY KEY);"
                "CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS"
                " 'BEGIN INSERT INTO ddl DEFAULT VALUES; END';"
                "CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl()"
            ),
            "CREATE TABLE logged ()",
            "CREATE INDEX ON base (id)",
            "DROP EVENT TRIGGER log_ddl",
        ),
        REHEARSED,
    ),
    "time in another time zone": (
        (
            (
                "CREATE TABLE zone (at timestamp PRIMARY KEY);"
                "INSERT INTO zone VALUES (now() AT TIME ZONE 'Asia/Kolkata')"
            ),
            "INSERT INTO zone VALUES (now() AT TIME ZONE 'Asia/Kolkata')",
        ),
        "transaction-time",
    ),
    "time in a text": (
        (
            (
                "CREATE TABLE texts (a int, at text, UNIQUE (a, at)); INSERT INTO texts"
                " VALUES (1, 'at ' || now())"
            ),
            "INSERT INTO texts VALUES (1, 'at ' || now())",
        ),
        "transaction-time",
    ),
    "time as a number": (
        (
            (
                "CREATE TABLE number (at bigint PRIMARY KEY);"
                "INSERT INTO number VALUES (extract(epoch FROM now()) * 1000000)"
            ),
            "INSERT INTO number VALUES (extract(epoch FROM now()) * 1000000)",
        ),
        "transaction-time",
    ),
    "time in a range": (
        (
            (
                "CREATE TABLE ranges (at tstzrange, EXCLUDE USING gist (at WITH &&));"
                "INSERT INTO ranges VALUES (tstzrange(now(), now(), '[]'))"
            ),
            "INSERT INTO ranges VALUES (tstzrange(now(), now(), '[]'))",
        ),
        "transaction-time",
    ),
    "id of the transaction": (
        (
            (
                "CREATE TABLE xids (xid bigint DEFAULT txid_current() PRIMARY KEY, a int);"
                "INSERT INTO xids (a) VALUES (1)"
            ),
            "INSERT INTO xids (a) VALUES (2)",
        ),
        "transaction-time",
    ),
    "id of the transaction, written by a trigger": (
        (
            (
                "CREATE TABLE audited (); CREATE TABLE audit (xid xid8 UNIQUE);"
                "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
                " INSERT INTO audit VALUES (pg_current_xact_id()); RETURN NULL; END';"
                "CREATE TRIGGER t AFTER INSERT ON audited EXECUTE FUNCTION audit();"
                "INSERT INTO audited DEFAULT VALUES"
            ),
            "INSERT INTO audited DEFAULT VALUES",
        ),
        "transaction-time",
    ),
    "table named after the time": ((named_by_time("CREATE TABLE %I ()"),) * 2, "transaction-time"),
    "schema named after the time": ((named_by_time("CREATE SCHEMA %I"),) * 2, "transaction-time"),
    "constraint named after the time": (
        (named_by_time("ALTER TABLE base ADD CONSTRAINT %I CHECK (id > 0)"),) * 2,
        "transaction-time",
    ),
    # statements that PostgreSQL allows only after a COMMIT or at the start of a transaction
    "enum value that is inserted": (
        (
            "ALTER TYPE mood ADD VALUE 'b'",
            "CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('b')",
        ),
        "new-enum-value",
    ),
    "enum value as a default": (
        ("ALTER TYPE mood ADD VALUE 'c'", "CREATE TABLE defaults (m mood DEFAULT 'c')"),
        "new-enum-value",
    ),
    "enum value of a new type": (
        (
            'CREATE TYPE "a ""Type" AS ENUM (\'a\')',
            'ALTER TYPE "a ""Type" ADD VALUE \'it\'\'s "b"\'',
            'SELECT \'it\'\'s "b"\'::"a ""Type"',
        ),
        "new-enum-value",
    ),
    "isolation level": (
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE, DEFERRABLE; SELECT 1",),
        "own-transaction",
    ),
    "isolation level as a setting": (
        ("SET LOCAL lock_timeout = '1s'; SET LOCAL transaction_isolation = 'serializable'",),
        "own-transaction",
    ),
    "exported snapshot": (("SELECT pg_export_snapshot()",), "own-transaction"),
    # migrations after those
    "needs no earlier migration": (("CREATE TABLE free ()",), REHEARSED),
    "needs an earlier migration": (("INSERT INTO moods VALUES ('a')",), "after-not-rehearsed"),
}


REFUSED = ("temporary table", "on commit delete rows")
"""Refused through a pooler, because they would stay in the session."""


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).lower()


def suffix_of(sql: str) -> str:
    return "py" if sql.startswith(PYTHON) else "sql"


def files_of(cases: dict[str, tuple[tuple[str, ...], str]]) -> dict[str, str]:
    return {
        f"{number:03}_{slug(name)}_{part}.{suffix_of(sql)}": sql
        for number, (name, (migrations, _)) in enumerate(cases.items(), 100)
        for part, sql in enumerate(migrations)
    }


@pytest.mark.parametrize(
    "pooled",
    [
        pytest.param(False, id="direct"),
        pytest.param(True, id="pooled", marks=pytest.mark.any_version),
    ],
)
def test_migrations_that_migrate_applies_are_rehearsed_or_listed_with_a_reason(
    server: DatabaseServer, database: Database, initmig: Initmig, folder: Path, pooled: bool
) -> None:
    cases = {name: case for name, case in MIGRATES.items() if not (pooled and name in REFUSED)}
    write(folder, {"001_base.sql": BASE, **files_of(cases)})
    with ExitStack() as stack:
        url = database.url
        if pooled:
            url = stack.enter_context(running_pgbouncer(server)).url(database.name)
        assert initmig("migrate", "--to=001", url=url, folder=folder).code == 0
        tables = database.tables()
        rehearsal = initmig("rehearse", "--json", url=url, folder=folder)
        assert rehearsal.code == 0, rehearsal.err
        assert database.tables() == tables
        found = {}
        for each in json.loads(rehearsal.out)["migrations"]:
            last = EARLIER if each["note"] else each["reason"] or each["state"]
            found[each["id"][4:-2]] = last
            assert each["state"] == ("not rehearsed" if each["reason"] else "rehearsed")
            assert bool(each["why_not"]) == bool(each["reason"])
        assert found == {slug(name): expected for name, (_, expected) in cases.items()}
        real = initmig("migrate", url=url, folder=folder)
        assert real.code == 0, real.err


TIMES = "CREATE TABLE times (at timestamptz DEFAULT now() PRIMARY KEY, a int);"

# The last migration of each case also fails in its own transaction.
FAILS: dict[str, tuple[str, ...]] = {
    "one time twice in one migration": (
        f"{TIMES} INSERT INTO times (a) VALUES (1)",
        "INSERT INTO times (a) VALUES (2);\n INSERT INTO times (a) VALUES (3)",
    ),
    "one time for all rows": (
        f"{TIMES} INSERT INTO times VALUES (now()), ('2020-01-01'), ('2020-01-02')",
        "UPDATE times SET at = now()",
    ),
    "a time that is copied": (
        f"{TIMES} INSERT INTO times DEFAULT VALUES; CREATE TABLE copied AS TABLE times",
        "INSERT INTO times TABLE copied",
    ),
    "a text with a time, copied": (
        (
            "CREATE TABLE texts (at text PRIMARY KEY); INSERT INTO texts VALUES ('at ' || now());"
            "CREATE TABLE copied AS TABLE texts"
        ),
        "INSERT INTO texts TABLE copied",
    ),
    "two times of one migration, made unique": (
        (
            f"{PYTHON}    c.execute('CREATE TABLE twice AS SELECT now() AS at')\n"
            "    with c.transaction():\n        c.execute('INSERT INTO twice VALUES (now())')\n"
            "step(run)\n"
        ),
        "ALTER TABLE twice ADD UNIQUE (at)",
    ),
    "one id of a transaction twice in one migration": (
        "CREATE TABLE xids (xid bigint PRIMARY KEY)",
        "INSERT INTO xids VALUES (txid_current()), (txid_current())",
    ),
    "a key that is not a time": (
        (
            "CREATE TABLE keys (id int PRIMARY KEY, at timestamptz DEFAULT now());"
            "INSERT INTO keys VALUES (7)"
        ),
        "INSERT INTO keys VALUES (7)",
    ),
    "an exclusion without a time": (
        (
            "CREATE TABLE keys (id int, at timestamptz DEFAULT now(), EXCLUDE (id WITH =));"
            "INSERT INTO keys VALUES (7)"
        ),
        "INSERT INTO keys VALUES (7)",
    ),
    "a check without a time": (
        f"{TIMES} INSERT INTO times DEFAULT VALUES",
        "ALTER TABLE times ADD CHECK (a > 0); INSERT INTO times VALUES ('2020-01-01', 0)",
    ),
    "an exception": (
        f"{TIMES} INSERT INTO times DEFAULT VALUES",
        "\nDO $$ BEGIN RAISE 'at %', now(); END $$",
    ),
    "one name of the time twice in one migration": (
        "CREATE TABLE log_20200101000000123456 ()",
        f"SELECT 1; {named_by_time('CREATE TABLE %I ()')}; {named_by_time('CREATE TABLE %I ()')}",
    ),
    "a table that exists": ("CREATE TABLE existing ()", "CREATE TABLE existing ()"),
    "an enum value that the migration adds": (
        "ALTER TYPE mood ADD VALUE 'b'",
        "ALTER TYPE moody ADD VALUE 'b'; SELECT 'b'::moody",
    ),
    "a level that is set too late": (
        "CREATE TABLE early ()",
        "SELECT 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ),
    "a level that a query sets": (
        "CREATE TABLE early ()",
        "SELECT set_config('transaction_isolation', 'serializable', true)",
    ),
    "a statement that cannot be in a transaction": (
        "CREATE TABLE early (a int)",
        "CREATE INDEX CONCURRENTLY ON early (a)",
    ),
    "the same in a DO block": (
        "CREATE TABLE early (a int)",
        "DO $$ BEGIN EXECUTE 'CREATE INDEX CONCURRENTLY ON early (a)'; END $$",
    ),
    "the same in a step in Python": (
        "CREATE TABLE early (a int)",
        f"{PYTHON}    pass\nstep('CREATE INDEX CONCURRENTLY ON early (a)')\n",
    ),
    "the same in a Python function": (
        "CREATE TABLE early (a int)",
        f"{PYTHON}    c.execute('CREATE INDEX CONCURRENTLY ON early (a)')\nstep(run)\n",
    ),
    "the same after a migration that is not rehearsed": (
        "-- transactional: false\nCREATE TABLE early (a int)",
        "CREATE INDEX CONCURRENTLY ON early (a)",
    ),
    "a transaction that is read-only": ("SELECT 1", "SET TRANSACTION READ ONLY"),
    "COPY FREEZE into a table of an earlier migration": (
        "CREATE TABLE frozen (a int)",
        "COPY frozen FROM STDIN (FREEZE);\n1\n\\.\n",
    ),
    "a deferred constraint": (
        "CREATE TABLE late (id int REFERENCES base DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO late VALUES (99)",
    ),
}


def failure_in(err: str) -> tuple[str, ...]:
    """The place and SQLSTATE of the failure in the log *err*."""
    found = re.search(r" (\S+\.(?:sql|py)[\d:]*): \w+ failed: .*\((\w{5})\)", err)
    assert found, err
    return found.groups()


@pytest.mark.any_version
@pytest.mark.parametrize("migrations", FAILS.values(), ids=FAILS)
def test_migrations_that_migrate_refuses_fail_at_the_same_place(
    database: Database, initmig: Initmig, folder: Path, migrations: tuple[str, ...]
) -> None:
    database.execute(BASE)
    names = (f"000{n}_m.{suffix_of(sql)}" for n, sql in enumerate(migrations, 1))
    write(folder, dict(zip(names, migrations, strict=True)))
    rehearsal = initmig("rehearse", url=database.url, folder=folder)
    real = initmig("migrate", url=database.url, folder=folder)
    assert (rehearsal.code, real.code) == (1, 1)
    assert failure_in(rehearsal.err) == failure_in(real.err)
    assert f"/000{len(migrations)}_m." in failure_in(real.err)[0]


@pytest.mark.any_version
@pytest.mark.parametrize(
    "name", ["enum value that is inserted", "time in a text", "default now() as a key"]
)
def test_rehearsal_with_transaction_all_fails_like_migrate(
    database: Database, initmig: Initmig, folder: Path, name: str
) -> None:
    database.execute(BASE)
    write(folder, files_of({name: MIGRATES[name]}))
    flag = "--transaction=all"
    rehearsal = initmig("rehearse", flag, url=database.url, folder=folder)
    real = initmig("migrate", flag, url=database.url, folder=folder)
    assert (rehearsal.code, real.code) == (1, 1)
    assert failure_in(rehearsal.err) == failure_in(real.err)


@pytest.mark.any_version
def test_rehearsal_with_transaction_all_checks_deferred_constraints_at_the_end(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(BASE)
    key = "CREATE TABLE late (id int REFERENCES base DEFERRABLE INITIALLY DEFERRED);"
    files = {
        "0001_late.sql": f"{key} INSERT INTO late VALUES (5)",
        "0002_base.sql": "INSERT INTO base VALUES (5)",
        "post-apply.sql": "ALTER TABLE late ADD a int",
    }
    write(folder, files)
    flag = "--transaction=all"
    rehearsal = initmig("rehearse", flag, url=database.url, folder=folder)
    assert rehearsal.code == 0, rehearsal.err
    assert "rehearsed 3 of 3" in rehearsal.out
    assert initmig("rehearse", url=database.url, folder=folder).code == 1
    write(folder, {"0002_base.sql": "INSERT INTO base VALUES (6)"})
    assert initmig("rehearse", flag, url=database.url, folder=folder).code == 1
    write(folder, files)
    assert initmig("migrate", flag, url=database.url, folder=folder).code == 0


@pytest.mark.any_version
def test_reason_is_shown_with_the_place_and_the_error(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    database.execute(BASE)
    cases = ("default now() as a key", "enum value that is inserted", "needs an earlier migration")
    write(folder, files_of({name: MIGRATES[name] for name in cases}))
    for flag in ((), ("--markdown",)):
        shown = initmig("rehearse", *flag, url=database.url, folder=folder)
        assert shown.code == 0, shown.err
        out = shown.out.replace("\\", "").replace("`", "")
        assert "rehearsed 4 of 6 migrations in one transaction" in out
        assert "100_default_now_as_a_key_2: rehearsed with earlier times in the rows" in out
        enum, place = "101_enum_value_that_is_inserted_1", ".sql:1:56"
        assert f"not rehearsed: {enum}: uses an enum value that an earlier" in out
        assert f'/{enum}{place}: {enum} failed: unsafe use of new value "b" of enum' in out
        assert (
            f"not rehearsed: 102_needs_an_earlier_migration_0: may need {enum}, which was not"
            in out
        )


@pytest.mark.any_version
def test_role_that_cannot_disable_triggers_rehearses_with_them(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    url = database.login_role("GRANT ALL ON SCHEMA public TO {role}")
    cases = ("default now() as a key", "trigger that requires a later time")
    write(folder, files_of({name: MIGRATES[name] for name in cases}))
    result = initmig("rehearse", "--json", url=url, folder=folder)
    assert result.code == 1
    states = [(m["state"], bool(m["note"])) for m in json.loads(result.out)["migrations"]]
    assert states == [
        *(("rehearsed", False), ("rehearsed", True), ("rehearsed", True)),
        *(("rehearsed", False), ("failed", False)),
    ]


@pytest.mark.any_version
def test_replication_slot_needs_a_transaction_without_writes(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    database = create_database(make_server(wal_level="logical"))
    slot = "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')"
    write(folder, {"001_early.sql": "CREATE TABLE early ()", "002_slot.sql": slot.format("a")})
    rehearsal = initmig("rehearse", "--json", url=database.url, folder=folder)
    assert rehearsal.code == 0, rehearsal.err
    assert json.loads(rehearsal.out)["migrations"][1]["reason"] == "own-transaction"
    assert database.query("SELECT FROM pg_replication_slots") == []
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"003_late.sql": f"DROP TABLE early; {slot.format('b')}"})
    rehearsal = initmig("rehearse", url=database.url, folder=folder)
    real = initmig("migrate", url=database.url, folder=folder)
    assert (rehearsal.code, real.code) == (1, 1)
    assert failure_in(rehearsal.err) == failure_in(real.err)


@pytest.mark.any_version
def test_full_lock_table_ends_the_rehearsal_with_a_reason(
    make_server: MakeServer, initmig: Initmig, folder: Path
) -> None:
    server = make_server(max_locks_per_transaction=10, max_connections=10, max_wal_senders=0)
    database = create_database(server)
    create = "DO $$ BEGIN FOR i IN 1..{} LOOP EXECUTE format('CREATE TABLE t{}_%s ()', i);"
    tables = f"{create} END LOOP; END $$"
    write(folder, {f"{n:03}_many.sql": tables.format(60, n) for n in range(8)})
    rehearsal = initmig("rehearse", "--json", url=database.url, folder=folder)
    assert rehearsal.code == 0, rehearsal.err
    reasons = [each["reason"] for each in json.loads(rehearsal.out)["migrations"]]
    assert reasons[0] is None
    assert reasons[-1] == "lock-table-full"
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"100_too_many.sql": tables.format(3000, 100)})
    rehearsal = initmig("rehearse", url=database.url, folder=folder)
    real = initmig("migrate", url=database.url, folder=folder)
    assert (rehearsal.code, real.code) == (1, 1)
    assert failure_in(rehearsal.err) == failure_in(real.err)
