"""What `plan` says that a statement will lock is what PostgreSQL locks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.migrations import write

if TYPE_CHECKING:
    from tests.support.command import Initmig
    from tests.support.databases import Database

TABLES = """
CREATE TABLE users (id int PRIMARY KEY, name text, n int, remark varchar(20),
    CONSTRAINT positive CHECK (n > 0) NOT VALID);
CREATE TABLE orders (id int PRIMARY KEY, user_id int);
CREATE TABLE events (day date) PARTITION BY RANGE (day);
CREATE TABLE events_1 (day date);
CREATE INDEX users_n ON users (n);
CREATE MATERIALIZED VIEW totals AS SELECT user_id, count(*) FROM orders GROUP BY 1;
CREATE UNIQUE INDEX totals_user ON totals (user_id);
CREATE POLICY everybody ON users USING (true);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER quiet BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing();
INSERT INTO users SELECT i, 'x', i, '' FROM generate_series(1, 10) i;
INSERT INTO orders SELECT i, i FROM generate_series(1, 10) i"""

READING = {"ACCESS SHARE", "ROW SHARE"}
"""What a statement takes on tables that it only reads, which `plan` leaves out."""

OF_INDEX = {"users_n": "users", "totals_user": "totals"}


@pytest.fixture
def furnished(database: Database) -> Database:
    database.execute(TABLES)
    return database


BARE = {"PATH": "/usr/bin:/bin"}
WITH_SQUAWK = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


def asked(
    command: str,
    initmig: Initmig,
    database: Database,
    folder: Path,
    env: dict[str, str] = BARE,
) -> list[dict[str, Any]]:
    result = initmig(command, "--json", url=database.url, folder=folder, env=env)
    assert result.code == 0, result.err
    [migration] = json.loads(result.out)["migrations"]
    statements: list[dict[str, Any]] = migration["statements"]
    return statements


@pytest.mark.parametrize(
    ("sql", "advice"),
    [
        ("CREATE TABLE new (id int)", ""),
        ("CREATE TABLE new (user_id int REFERENCES users)", ""),
        ("CREATE TABLE events_2 PARTITION OF events DEFAULT", ""),
        ("CREATE TABLE child () INHERITS (users)", ""),
        ("ALTER TABLE users ADD note text DEFAULT now()", ""),
        ("ALTER TABLE users ADD token float DEFAULT random()", "rewrites the table"),
        ("ALTER TABLE users ADD number bigserial", "rewrites the table"),
        ("ALTER TABLE users ADD twice int GENERATED ALWAYS AS (n * 2) STORED", "rewrites"),
        ("ALTER TABLE users DROP COLUMN remark", "-- breaking: true"),
        ("ALTER TABLE users ALTER n TYPE bigint", "rewrites the table"),
        ("ALTER TABLE users ALTER name SET NOT NULL", "(... IS NOT NULL) NOT VALID"),
        ("ALTER TABLE users ALTER name DROP NOT NULL", ""),
        ("ALTER TABLE users ALTER name SET DEFAULT 'x'", ""),
        ("ALTER TABLE users ALTER name SET STATISTICS 10", ""),
        ("ALTER TABLE users SET (fillfactor = 80)", ""),
        ("ALTER TABLE users ADD CHECK (n < 1000)", "add it NOT VALID"),
        ("ALTER TABLE users ADD CHECK (n < 1000) NOT VALID", ""),
        ("ALTER TABLE users VALIDATE CONSTRAINT positive", ""),
        ("ALTER TABLE users ADD UNIQUE (n)", "ADD ... USING INDEX"),
        ("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users", "add it NOT VALID"),
        ("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID", ""),
        ("ALTER TABLE orders DISABLE TRIGGER quiet", ""),
        ("ALTER TABLE events ATTACH PARTITION events_1 DEFAULT", ""),
        ("ALTER TABLE users RENAME TO people", "-- breaking: true"),
        ("ALTER TABLE users RENAME name TO called", "-- breaking: true"),
        ("ALTER INDEX users_n RENAME TO other", ""),
        ("ALTER TABLE users ENABLE ROW LEVEL SECURITY", ""),
        ("CREATE INDEX ON users (name)", "CREATE INDEX CONCURRENTLY"),
        ("DROP INDEX users_n", "DROP INDEX CONCURRENTLY"),
        ("REINDEX TABLE users", "REINDEX CONCURRENTLY"),
        ("REINDEX (CONCURRENTLY FALSE) TABLE users", "REINDEX CONCURRENTLY"),
        ("CREATE POLICY others ON users USING (true)", ""),
        ("DROP POLICY everybody ON users", ""),
        ("CREATE RULE none AS ON DELETE TO users DO INSTEAD NOTHING", ""),
        ("DROP TRIGGER quiet ON orders", ""),
        (
            "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
            "",
        ),
        ("INSERT INTO orders VALUES (11, 1)", ""),
        ("UPDATE orders SET user_id = 1", "in portions"),
        ("UPDATE orders SET user_id = 1 WHERE id = 1", ""),
        ("DELETE FROM orders", "in portions"),
        ("TRUNCATE orders", ""),
        ("LOCK TABLE orders IN SHARE MODE", ""),
        ("LOCK TABLE orders", ""),
        ("ANALYZE orders", ""),
        ("REFRESH MATERIALIZED VIEW totals", "blocks reads"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY totals", ""),
        ("CLUSTER users USING users_n", ""),
        ("DROP TABLE orders CASCADE", "-- breaking: true"),
    ],
    ids=lambda value: value[:60],
)
def test_the_locks_of_the_plan_are_those_that_the_server_takes(
    furnished: Database, initmig: Initmig, folder: Path, sql: str, advice: str
) -> None:
    write(folder, {"0001_next.sql": f"-- what it is about\n{sql};"})
    [planned] = asked("plan", initmig, furnished, folder)
    assert (planned["line"], planned["column"]) == (2, 1)
    expected = {OF_INDEX.get(each["table"], each["table"]): each for each in planned["locks"]}
    [seen] = asked("rehearse", initmig, furnished, folder)
    real = {
        each["table"]: (each["lock"], each["blocks"])
        for each in seen["tables"]
        if each["lock"] not in READING
    }
    real.pop("totals", None) if "CASCADE" in sql else None  # the statement does not name it
    assert {name: (each["lock"], each["blocks"]) for name, each in expected.items()} == real
    assert any(advice in each for each in planned["advice"]) if advice else not planned["advice"]


def test_the_plan_shows_them_above_the_sql(
    furnished: Database, initmig: Initmig, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.sql": "CREATE TABLE a (id int);\nCREATE INDEX ON a (id);\n"
            "ALTER TABLE users ALTER name SET NOT NULL;",
            "0002_b.sql": "-- depends: 0001_a\nALTER TABLE a ADD CHECK (id > 0);",
            "0003_c.py": "from yoyo import step\nstep('DROP TABLE users')",
        },
    )
    result = initmig("plan", url=furnished.url, folder=folder, env=BARE)
    assert result.code == 0, result.err
    assert result.out.splitlines()[:4] == [
        f"-- 0001_a ({folder}/0001_a.sql)",
        "-- 3:1: ACCESS EXCLUSIVE on users, which blocks reads and writes",
        (
            "--   reads the whole table while nobody else can: ADD CHECK (... IS NOT NULL)"
            " NOT VALID and VALIDATE it in an earlier migration, then it need not"
        ),
        "CREATE TABLE a (id int);",
    ]
    # a table of the plan's own is in nobody's way
    assert f"-- 0002_b ({folder}/0002_b.sql; after 0001_a)\n-- depends" in result.out


def test_what_the_parser_does_not_read_is_left_out(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "ALTER TABLE users FROBNICATE;\nLOCK TABLE users;"})
    result = initmig("plan", url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert result.out.splitlines()[1] == (
        "-- 2:1: ACCESS EXCLUSIVE on users, which blocks reads and writes"
    )


def test_the_findings_of_squawk_are_merged_in(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "-- why\nSELECT 1;\nALTER TABLE users ADD n int NOT NULL;"})
    [one, two] = asked("plan", initmig, database, folder, WITH_SQUAWK)
    assert one["advice"] == []
    assert any("(squawk: adding-required-field)" in advice for advice in two["advice"])
    # what initmig does anyway, and what its own rules say, is not said again
    assert not any("lock-timeout" in advice or "robust" in advice for advice in two["advice"])


def test_without_squawk_there_are_the_rules_of_initmig(
    database: Database, initmig: Initmig, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "ALTER TABLE users ALTER name SET NOT NULL"})
    result = initmig("plan", url=database.url, folder=folder, env=BARE)
    assert result.code == 0, result.err
    assert result.out.count("\n--   ") == 1


def test_a_squawk_that_fails_is_told_and_the_plan_shown(
    database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "squawk"
    program.write_text("#!/bin/sh\necho no JSON")
    program.chmod(0o755)
    write(folder, {"0001_a.sql": "SELECT 1"})
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    result = initmig("plan", url=database.url, folder=folder, env=env)
    assert result.code == 0, result.err
    assert "warning squawk could not be asked" in result.err
    assert "SELECT 1" in result.out
