"""PostgreSQL takes the locks that `plan` predicts for a statement."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from initmig.commands.inventory import take_inventory
from initmig.config.options import Secret
from initmig.core.model import Migration, MigrationFile, Step
from initmig.postgres import Settings, connect
from initmig.sql.lines import Lines
from initmig.sql.lock_forecast import Forecast, forecast_of
from initmig.sql.locks import LOCK_MODES, strongest
from tests.support.databases import create_database
from tests.support.migrations import NO_CODE
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.sql.relations import Inventory
    from tests.support.databases import Database, DatabaseServer

pytestmark = pytest.mark.each_version

TABLES = """
CREATE SCHEMA app;
CREATE TABLE users (id int PRIMARY KEY, name text, n int, remark varchar(20), code text UNIQUE,
    CONSTRAINT positive CHECK (n > 0) NOT VALID);
CREATE TABLE orders (id int PRIMARY KEY, user_id int, day date);
CREATE TABLE invoices (id int PRIMARY KEY, user_id int REFERENCES users, code text,
    CONSTRAINT by_code FOREIGN KEY (code) REFERENCES users (code) ON UPDATE CASCADE);
CREATE TABLE lines (id int, invoice_id int REFERENCES invoices ON DELETE CASCADE,
    late int, CONSTRAINT late FOREIGN KEY (late) REFERENCES users NOT VALID);
CREATE TABLE letters (user_id int REFERENCES users ON DELETE SET NULL DEFERRABLE);
CREATE TABLE figures (id int NOT NULL, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)
    PARTITION BY LIST (n);
CREATE TABLE figures_1 PARTITION OF figures DEFAULT;
CREATE TABLE "Odd.Name" (id int, "User" int REFERENCES users);
CREATE TABLE app.things (id int PRIMARY KEY);
CREATE TABLE app.parts (thing_id int REFERENCES app.things, user_id int REFERENCES users);
CREATE TABLE events (day date) PARTITION BY RANGE (day);
CREATE TABLE events_1 (day date);
CREATE TABLE logs (day date PRIMARY KEY, user_id int REFERENCES orders, n int)
    PARTITION BY RANGE (day);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2018-01-01') TO ('2019-01-01');
CREATE TABLE logs_rest PARTITION OF logs DEFAULT;
CREATE TABLE loose (day date NOT NULL, user_id int, n int);
CREATE TABLE pages (day date REFERENCES logs, n int);
CREATE TABLE animals (id int, name text, CONSTRAINT named CHECK (name <> ''));
CREATE TABLE cats () INHERITS (animals);
CREATE INDEX users_n ON users (n);
CREATE INDEX logs_n ON logs (n);
CREATE INDEX logs_late ON ONLY logs (day, n);
CREATE INDEX logs_1_late ON logs_1 (day, n);
CREATE TABLE shops (id int) PARTITION BY LIST (id);
CREATE TABLE shops_1 PARTITION OF shops FOR VALUES IN (1);
CREATE INDEX shops_id ON shops (id);
CREATE INDEX users_name ON users USING gin (to_tsvector('simple', name));
CREATE VIEW names AS SELECT id, name FROM users;
CREATE VIEW names_again AS SELECT * FROM names;
CREATE VIEW both_of_them AS SELECT u.id FROM users u JOIN orders o ON o.user_id = u.id;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, count(*) FROM orders GROUP BY 1;
CREATE UNIQUE INDEX totals_user ON totals (user_id);
CREATE POLICY everybody ON users USING (true);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER quiet BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER loud BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER logged BEFORE TRUNCATE ON lines EXECUTE FUNCTION nothing();
CREATE RULE none AS ON DELETE TO animals WHERE false DO INSTEAD NOTHING;
CREATE SEQUENCE numbers OWNED BY users.n;
CREATE PUBLICATION news FOR TABLE orders;
CREATE STATISTICS related ON n, name FROM users;
CREATE FUNCTION fill(n int) RETURNS int LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n * 2';
CREATE PROCEDURE app.tidy() LANGUAGE sql AS '';
CREATE DOMAIN age AS int;
INSERT INTO users SELECT i, 'x', i, '', i FROM generate_series(1, 10) i;
INSERT INTO orders SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO invoices SELECT i, i, i FROM generate_series(1, 10) i;
INSERT INTO lines SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO letters SELECT i FROM generate_series(1, 10) i;
INSERT INTO logs SELECT '2020-05-01'"""

READING = {"ACCESS SHARE", "ROW SHARE"}
"""The modes for tables that a statement only reads. `plan` leaves them out."""

STATEMENTS = [
    # creating tables
    ("CREATE TABLE new (id int)", ""),
    ("CREATE TABLE new (user_id int REFERENCES users)", ""),
    ("CREATE TABLE new (day date, FOREIGN KEY (day) REFERENCES logs)", ""),
    ("CREATE TABLE IF NOT EXISTS users (user_id int REFERENCES orders)", ""),
    ("CREATE TABLE events_2 PARTITION OF events DEFAULT", ""),
    ("CREATE TABLE logs_3 PARTITION OF logs FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')", ""),
    ("CREATE TABLE child () INHERITS (users)", ""),
    ("CREATE TABLE new (LIKE users INCLUDING ALL)", ""),
    ("CREATE TABLE new AS SELECT * FROM users", ""),
    ("CREATE TEMP TABLE users (id int) ON COMMIT DROP", ""),
    ("CREATE SCHEMA extra CREATE TABLE new (id int REFERENCES public.users)", ""),
    # columns
    ("ALTER TABLE users ADD note text DEFAULT now()", ""),
    ("ALTER TABLE users ADD token float DEFAULT random()", "rewrites the table"),
    ("ALTER TABLE users ADD number bigserial", "rewrites the table"),
    ("ALTER TABLE users ADD twice int GENERATED ALWAYS AS (n * 2) STORED", "rewrites"),
    ("ALTER TABLE users ADD other int REFERENCES orders", ""),
    ("ALTER TABLE animals ADD age int", ""),
    ("ALTER TABLE logs ADD note text", ""),
    ("ALTER TABLE users DROP COLUMN remark", "-- breaking: true"),
    ("ALTER TABLE invoices DROP COLUMN user_id", "-- breaking: true"),
    ("ALTER TABLE users DROP COLUMN code CASCADE", "-- breaking: true"),
    ("ALTER TABLE users DROP COLUMN name CASCADE", "-- breaking: true"),
    ("ALTER TABLE ONLY animals DROP COLUMN name", "-- breaking: true"),
    ("ALTER TABLE users ALTER n TYPE bigint", "rewrites the table"),
    ("ALTER TABLE invoices ALTER user_id TYPE bigint", "rewrites the table"),
    ("ALTER TABLE users ALTER code TYPE varchar", "rewrites the table"),
    ("ALTER TABLE animals ALTER id TYPE bigint", "rewrites the table"),
    ("ALTER TABLE users ALTER remark SET NOT NULL", "(... IS NOT NULL) NOT VALID"),
    ("ALTER TABLE animals ALTER id SET NOT NULL", "(... IS NOT NULL) NOT VALID"),
    ("ALTER TABLE users ALTER name DROP NOT NULL", ""),
    ("ALTER TABLE users ALTER name SET DEFAULT 'x'", ""),
    ("ALTER TABLE animals ALTER name SET DEFAULT 'x'", ""),
    ("ALTER TABLE users ALTER name SET STATISTICS 10", ""),
    ("ALTER TABLE users ALTER name SET STORAGE EXTERNAL", ""),
    ("ALTER TABLE animals ALTER name SET STORAGE EXTERNAL", ""),
    ("ALTER TABLE users ALTER name SET (n_distinct = 5)", ""),
    ("ALTER TABLE users RENAME name TO called", "-- breaking: true"),
    ("ALTER TABLE animals RENAME name TO called", "-- breaking: true"),
    # options
    ("ALTER TABLE users SET (fillfactor = 80)", ""),
    ("ALTER TABLE users SET (user_catalog_table = false)", ""),
    ("ALTER TABLE users RESET (autovacuum_enabled), SET (fillfactor = 90)", ""),
    ("ALTER INDEX users_n SET (fillfactor = 80)", ""),
    ("ALTER INDEX users_name SET (fastupdate = off)", ""),
    ("ALTER VIEW names SET (security_barrier)", ""),
    ("ALTER TABLE letters SET UNLOGGED", ""),
    ("ALTER TABLE app.things SET LOGGED", ""),
    ("ALTER TABLE users CLUSTER ON users_n", ""),
    ("ALTER TABLE users REPLICA IDENTITY FULL", ""),
    ("ALTER TABLE users OWNER TO CURRENT_USER", ""),
    ("ALTER TABLE users ENABLE ROW LEVEL SECURITY", ""),
    # constraints
    ("ALTER TABLE users ADD CHECK (n < 1000)", "add it NOT VALID"),
    ("ALTER TABLE users ADD CHECK (n < 1000) NOT VALID", ""),
    ("ALTER TABLE animals ADD CHECK (id > 0) NOT VALID", ""),
    ("ALTER TABLE users VALIDATE CONSTRAINT positive", ""),
    ("ALTER TABLE lines VALIDATE CONSTRAINT late", ""),
    ("ALTER TABLE users ADD UNIQUE (n)", "ADD ... USING INDEX"),
    ("ALTER TABLE logs ADD UNIQUE (day)", "ADD ... USING INDEX"),
    ("ALTER TABLE events ADD PRIMARY KEY (day)", "ADD ... USING INDEX"),
    ("ALTER TABLE logs ALTER CONSTRAINT logs_user_id_fkey DEFERRABLE", ""),
    ("ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE", ""),
    ("ALTER TABLE animals ADD PRIMARY KEY (id)", "ADD ... USING INDEX"),
    ("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users", "add it NOT VALID"),
    ("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID", ""),
    ("ALTER TABLE orders ADD FOREIGN KEY (day) REFERENCES logs", "add it NOT VALID"),
    ("ALTER TABLE logs ADD FOREIGN KEY (n) REFERENCES users", "add it NOT VALID"),
    ("ALTER TABLE invoices DROP CONSTRAINT invoices_user_id_fkey", ""),
    ('ALTER TABLE "Odd.Name" DROP CONSTRAINT "Odd.Name_User_fkey"', ""),
    ("ALTER TABLE logs DROP CONSTRAINT logs_user_id_fkey", ""),
    ("ALTER TABLE pages DROP CONSTRAINT pages_day_fkey", ""),
    ("ALTER TABLE users DROP CONSTRAINT positive", ""),
    ("ALTER TABLE animals DROP CONSTRAINT named", ""),
    ("ALTER TABLE users DROP CONSTRAINT users_code_key CASCADE", ""),
    ("ALTER TABLE letters ALTER CONSTRAINT letters_user_id_fkey NOT DEFERRABLE", ""),
    ("ALTER TABLE users RENAME CONSTRAINT positive TO above_zero", ""),
    ("ALTER TABLE users RENAME CONSTRAINT users_pkey TO first", ""),
    ("ALTER TABLE invoices RENAME CONSTRAINT by_code TO by_label", ""),
    ("ALTER TABLE animals RENAME CONSTRAINT named TO called", ""),
    # triggers, policies, rules
    ("ALTER TABLE orders DISABLE TRIGGER quiet", ""),
    ("ALTER TABLE logs DISABLE TRIGGER loud", ""),
    ("ALTER TABLE invoices DISABLE TRIGGER ALL", ""),
    (
        "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
        "",
    ),
    ("CREATE TRIGGER t BEFORE UPDATE ON logs FOR EACH ROW EXECUTE FUNCTION nothing()", ""),
    ("CREATE TRIGGER t AFTER INSERT ON logs EXECUTE FUNCTION nothing()", ""),
    ("ALTER TRIGGER quiet ON orders RENAME TO silent", ""),
    ("ALTER TRIGGER loud ON logs RENAME TO noisy", ""),
    ("DROP TRIGGER quiet ON orders", ""),
    ("DROP TRIGGER loud ON logs", ""),
    ("CREATE POLICY others ON users USING (true)", ""),
    ("ALTER POLICY everybody ON users USING (false)", ""),
    ("DROP POLICY everybody ON users", ""),
    ("CREATE RULE none AS ON DELETE TO users DO INSTEAD NOTHING", ""),
    ("DROP RULE none ON animals", ""),
    # partitions and children
    ("ALTER TABLE events ATTACH PARTITION events_1 DEFAULT", ""),
    (
        "ALTER TABLE logs ATTACH PARTITION loose FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')",
        "",
    ),
    ("ALTER TABLE logs DETACH PARTITION logs_1", ""),
    ("DROP TABLE logs_1 CASCADE", "-- breaking: true"),
    ("ALTER INDEX logs_late ATTACH PARTITION logs_1_late", ""),
    ("ALTER TABLE cats NO INHERIT animals", ""),
    ("ALTER TABLE cats ADD age int", ""),
    # names and schemas
    ("ALTER TABLE users RENAME TO people", "-- breaking: true"),
    ("ALTER INDEX users_n RENAME TO other", ""),
    ("ALTER VIEW names RENAME TO named", ""),
    ("ALTER TABLE users SET SCHEMA app", ""),
    ("ALTER VIEW names SET SCHEMA app", ""),
    ("ALTER SEQUENCE numbers RENAME TO digits", ""),
    # indexes
    ("CREATE INDEX ON users (name)", "CREATE INDEX CONCURRENTLY"),
    ("CREATE INDEX ON logs (user_id)", "CREATE INDEX CONCURRENTLY"),
    ("CREATE INDEX ON ONLY logs (user_id)", "CREATE INDEX CONCURRENTLY"),
    ("DROP INDEX users_n", "DROP INDEX CONCURRENTLY"),
    ("DROP INDEX logs_n", "DROP INDEX CONCURRENTLY"),
    ("REINDEX TABLE users", "REINDEX CONCURRENTLY"),
    ("REINDEX TABLE letters", "REINDEX CONCURRENTLY"),
    ("REINDEX INDEX users_n", "REINDEX CONCURRENTLY"),
    ("REINDEX (CONCURRENTLY FALSE) TABLE users", "REINDEX CONCURRENTLY"),
    ("CLUSTER users USING users_n", ""),
    ("CREATE STATISTICS more ON n, code FROM users", ""),
    # rows
    ("INSERT INTO invoices VALUES (11, 1)", ""),
    ("INSERT INTO names VALUES (11, 'y')", ""),
    ("INSERT INTO names_again VALUES (11, 'y')", ""),
    ("INSERT INTO users (id, code) VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET code = 'y'", ""),
    ("UPDATE orders SET user_id = 1", "in batches"),
    ("UPDATE orders SET user_id = 1 WHERE id = 1", ""),
    ("UPDATE users SET code = code || 'x'", "in batches"),
    ("UPDATE logs SET n = 1", "in batches"),
    ("UPDATE ONLY animals SET id = 1", "in batches"),
    ("DELETE FROM orders WHERE id > 100", ""),
    ("DELETE FROM invoices", "in batches"),
    ("DELETE FROM animals", "in batches"),
    (
        "WITH gone AS (DELETE FROM lines RETURNING id) INSERT INTO orders SELECT id + 99 FROM gone",
        "",
    ),
    ("SELECT * FROM users FOR UPDATE", ""),
    ("EXPLAIN DELETE FROM orders", ""),
    ("COPY orders (id) FROM PROGRAM 'echo 77'", ""),
    ("TRUNCATE orders CASCADE", ""),
    ("TRUNCATE lines, letters", ""),
    ("TRUNCATE users CASCADE", ""),
    ("TRUNCATE ONLY animals", ""),
    ("LOCK TABLE orders IN SHARE MODE", ""),
    ("LOCK TABLE orders", ""),
    ("LOCK TABLE animals IN EXCLUSIVE MODE", ""),
    ("LOCK TABLE ONLY animals", ""),
    ("LOCK TABLE names_again", ""),
    ("ANALYZE orders", ""),
    ("ANALYZE logs", ""),
    ("ANALYZE animals", ""),
    # views
    ("CREATE VIEW more AS SELECT * FROM users", ""),
    ("CREATE OR REPLACE VIEW names_again AS SELECT * FROM names WHERE true", ""),
    ("REFRESH MATERIALIZED VIEW totals", "blocks reads"),
    ("REFRESH MATERIALIZED VIEW CONCURRENTLY totals", ""),
    ("DROP VIEW names CASCADE", ""),
    ("DROP MATERIALIZED VIEW totals", ""),
    # comments, grants and publications
    ("COMMENT ON TABLE users IS 'people'", ""),
    ("COMMENT ON COLUMN users.name IS 'called'", ""),
    ("COMMENT ON INDEX users_n IS 'number'", ""),
    ("COMMENT ON CONSTRAINT positive ON users IS 'above 0'", ""),
    ("GRANT SELECT ON users TO PUBLIC", ""),
    ("CREATE PUBLICATION extra FOR TABLE users", ""),
    ("ALTER PUBLICATION news ADD TABLE users", ""),
    ("ALTER PUBLICATION news DROP TABLE orders", ""),
    # dropped objects
    ("DROP TABLE orders CASCADE", "-- breaking: true"),
    ("DROP TABLE users CASCADE", "-- breaking: true"),
    ("DROP TABLE lines", "-- breaking: true"),
    ("DROP TABLE app.parts", "-- breaking: true"),
    ("DROP TABLE logs CASCADE", "-- breaking: true"),
    ("DROP TABLE animals CASCADE", "-- breaking: true"),
    ("DROP TABLE cats", "-- breaking: true"),
    ("DROP SCHEMA app CASCADE", ""),
    ("DROP SEQUENCE numbers", ""),
    ("DROP STATISTICS related", ""),
    # several actions in one statement
    ("ALTER TABLE users ALTER n SET STATISTICS 5, ADD more int", ""),
    ("ALTER TABLE users SET (fillfactor = 80), VALIDATE CONSTRAINT positive", ""),
    ("DROP TABLE lines, letters", "-- breaking: true"),
    # objects that do not exist
    ("DROP TABLE IF EXISTS missing", ""),
    ("DROP INDEX IF EXISTS missing", ""),
    ("ALTER TABLE IF EXISTS missing ADD n int", ""),
    ("ALTER TABLE IF EXISTS missing RENAME TO users_2", ""),
    ("DROP TRIGGER IF EXISTS missing ON missing", ""),
]

SINCE = {
    15: [
        ("MERGE INTO orders o USING users u ON o.id = u.id WHEN MATCHED THEN DELETE", ""),
        ("MERGE INTO logs l USING users u ON l.n = u.id WHEN MATCHED THEN DO NOTHING", ""),
        ("ALTER TABLE users SET ACCESS METHOD heap", ""),
        ("CREATE TABLE new (id int REFERENCES users ON DELETE SET NULL (id))", ""),
        ("CREATE UNIQUE INDEX ON users (n) NULLS NOT DISTINCT", "CREATE INDEX CONCURRENTLY"),
        ("CREATE PUBLICATION extra FOR TABLE logs, TABLES IN SCHEMA app", ""),
    ],
    17: [
        ("ALTER TABLE figures ALTER twice SET EXPRESSION AS (n * 3)", ""),
        ("ALTER TABLE figures ALTER id ADD GENERATED ALWAYS AS IDENTITY", ""),
    ],
}
"""Statements by the version that introduced them."""

# Each statement with the table where the test makes it wait before it does anything.
NOT_IN_A_TRANSACTION = [
    ("CREATE INDEX CONCURRENTLY more ON users (name)", "users"),
    ("DROP INDEX CONCURRENTLY users_n", "users"),
    ("REINDEX INDEX CONCURRENTLY users_n", "users"),
    ("REINDEX TABLE CONCURRENTLY users", "users"),
    ("VACUUM users", "users"),
    ("VACUUM (FULL) users", "users"),
    ("ALTER TABLE shops DETACH PARTITION shops_1 CONCURRENTLY", "shops_1"),
]

MODES = {f"{mode.title().replace(' ', '')}Lock": mode for mode in LOCK_MODES}

TABLES_OF = """
SELECT c.oid::bigint, coalesce(i.indrelid, c.oid)::regclass::text
FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relkind NOT IN ('S', 't') AND c.relnamespace::regnamespace::text
    NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"""

IS_WAITING = "SELECT bool_or(NOT granted) FROM pg_locks WHERE pid = %s"

LOCKS = """
SELECT relation::bigint, mode FROM pg_locks
WHERE pid = %s AND locktype = 'relation' AND database <> 0"""


def migration(id: str, sql: str) -> Migration:
    """A migration with one SQL file."""
    file = MigrationFile(id, f"{id}.sql")
    step = Step(sql.encode(), b"", place_at=Lines(file.path, sql.encode()).numbers)
    return Migration(file, "", True, False, frozenset(), (step,), NO_CODE)


class PopulatedDatabase:
    """A database with the tables of `TABLES`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.execute(TABLES)
        self.tables = dict(database.query(TABLES_OF))
        with closing(connect(Settings(Secret(database.url)))) as session:
            self.inventory: Inventory = take_inventory(session.query)

    def planned(self, sql: str) -> list[Forecast]:
        """The forecast of `plan` for a file with this *sql*."""
        return list(forecast_of([migration("0001_next", sql)], self.inventory)["0001_next"])

    def locked_by(self, sql: str) -> dict[str, str]:
        """The strongest lock mode of a transaction with *sql*, by table."""
        with self.database.connect(autocommit=False) as connection:
            connection.execute(sql.encode())
            locks = self.locks_of(connection)
            connection.rollback()
            return locks

    @contextmanager
    def waiting(self, sql: str, at: str) -> Iterator[dict[str, str]]:
        """The locks that *sql* has or waits for, while another session holds the table *at*."""
        with (
            self.database.connect(autocommit=False) as holder,
            self.database.connect() as worker,
            ThreadPoolExecutor(1) as executor,
        ):
            holder.execute(f"LOCK TABLE {at} IN SHARE UPDATE EXCLUSIVE MODE".encode())
            pid = worker.info.backend_pid
            done = executor.submit(worker.execute, sql.encode())
            try:
                wait_until(lambda: holder.execute(IS_WAITING, [pid]).fetchone() == (True,))
                yield self.locks_of(holder, pid)
            finally:
                worker.cancel_safe()
                with suppress(psycopg.errors.QueryCanceled):
                    done.result()

    def locks_of(self, connection: psycopg.Connection, pid: int = 0) -> dict[str, str]:
        found: dict[str, list[str]] = {}
        for oid, mode in connection.execute(LOCKS, [pid or connection.info.backend_pid]):
            if (table := self.tables.get(oid)) and MODES[mode] not in READING:
                found.setdefault(table, []).append(MODES[mode])
        return {table: strongest(modes) for table, modes in found.items()}


@pytest.fixture(scope="module")
def populated(server: DatabaseServer) -> Iterator[PopulatedDatabase]:
    database = create_database(server)
    yield PopulatedDatabase(database)
    database.drop(server)


@pytest.mark.parametrize(
    ("sql", "advice", "since"),
    [
        *((*each, 14) for each in STATEMENTS),
        *((*each, since) for since, statements in SINCE.items() for each in statements),
    ],
    ids=lambda value: str(value)[:60],
)
def test_server_takes_the_predicted_locks(
    populated: PopulatedDatabase, sql: str, advice: str, since: int
) -> None:
    [planned] = populated.planned(f"-- a comment\n{sql};")
    assert (planned.place.line, planned.place.column) == (2, 1)
    assert any(advice in each for each in planned.advice) if advice else not planned.advice
    if populated.inventory.server >= since:
        assert dict(planned.locks) == populated.locked_by(sql)


@pytest.mark.parametrize(("sql", "at"), NOT_IN_A_TRANSACTION, ids=lambda value: value[:60])
def test_server_takes_the_predicted_locks_outside_transactions(
    populated: PopulatedDatabase, sql: str, at: str
) -> None:
    [planned] = populated.planned(sql)
    with populated.waiting(sql, at) as seen:
        assert dict(planned.locks) == seen


RENAMED = {"people": "users", "app.users": "users", "things": "app.things"}

# Several statements, each with its locks on tables that exist before the first one.
PLANS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "a table that the plan creates": [
        ("CREATE TABLE a (id int)", {}),
        ("ALTER TABLE a ADD n int", {}),
        ("CREATE INDEX ON a (n)", {}),
        ("DROP TABLE a", {}),
    ],
    "a table that the plan creates and that references another": [
        ("CREATE TABLE a (user_id int REFERENCES users)", {"users": "SHARE ROW EXCLUSIVE"}),
        ("DROP TABLE a", {"users": "ACCESS EXCLUSIVE"}),
    ],
    "a foreign key with a name generated by the server": [
        (
            "ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users",
            {"orders": "SHARE ROW EXCLUSIVE", "users": "SHARE ROW EXCLUSIVE"},
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey",
            {"orders": "ACCESS EXCLUSIVE", "users": "ACCESS EXCLUSIVE"},
        ),
    ],
    "an index with a name generated by the server": [
        ("CREATE INDEX ON users (lower(name), n)", {"users": "SHARE"}),
        ("DROP INDEX users_lower_n_idx", {"users": "ACCESS EXCLUSIVE"}),
    ],
    "a renamed table": [
        ("ALTER TABLE users RENAME TO people", {"users": "ACCESS EXCLUSIVE"}),
        ("ALTER TABLE IF EXISTS users ADD m int", {}),
        ("ALTER TABLE people ADD m int", {"people": "ACCESS EXCLUSIVE"}),
        ("CREATE TABLE users (id int)", {}),
        ("DROP TABLE users", {}),
    ],
    "a table moved to another schema": [
        ("ALTER TABLE users SET SCHEMA app", {"users": "ACCESS EXCLUSIVE"}),
        ("LOCK app.users IN SHARE MODE", {"app.users": "SHARE"}),
    ],
    "a table dropped and created again": [
        ("DROP TABLE letters", {"letters": "ACCESS EXCLUSIVE", "users": "ACCESS EXCLUSIVE"}),
        ("CREATE TABLE letters (id int)", {}),
        ("ALTER TABLE letters ADD n int", {}),
    ],
    "another search path": [
        ("SET LOCAL search_path = app", {}),
        ("LOCK things IN SHARE MODE", {"things": "SHARE"}),
        ("DROP TABLE IF EXISTS users", {}),
    ],
    "a temporary table that hides another": [
        ("CREATE TEMP TABLE users (id int)", {}),
        ("ALTER TABLE users ADD n int", {}),
        ("ALTER TABLE public.users ADD m int", {"public.users": "ACCESS EXCLUSIVE"}),
    ],
    "names in another letter case": [
        ('DROP TABLE IF EXISTS "odd.name", "Users"', {}),
        ("LOCK USERS IN SHARE MODE", {"users": "SHARE"}),
        ('LOCK "Odd.Name" IN SHARE MODE', {'"Odd.Name"': "SHARE"}),
    ],
    "a view that the plan creates": [
        ("CREATE VIEW a AS SELECT * FROM orders", {}),
        ("INSERT INTO a VALUES (12)", {"orders": "ROW EXCLUSIVE"}),
        ("DROP VIEW a", {}),
    ],
    "a partition that the plan creates": [
        ("CREATE TABLE shops_2 PARTITION OF shops DEFAULT", {"shops": "ACCESS EXCLUSIVE"}),
        ("DROP TABLE shops_2", {"shops": "ACCESS EXCLUSIVE"}),
    ],
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_objects_that_the_plan_creates_and_renames_are_tracked(
    populated: PopulatedDatabase, plan: list[tuple[str, dict[str, str]]]
) -> None:
    sql = "; ".join(statement for statement, _ in plan)
    found = [dict(each.locks) for each in populated.planned(sql)]
    assert found == [locks for _, locks in plan]
    modes: dict[str, list[str]] = {}
    for each in found:
        for name, mode in each.items():
            old = RENAMED.get(name, name.removeprefix("public."))
            modes.setdefault(old, []).append(mode)
    assert {name: strongest(each) for name, each in modes.items()} == populated.locked_by(sql)


@pytest.mark.any_version
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT lower('X'), now(), twice(2), count(*) FROM users", []),
        ("DO $$ BEGIN DROP TABLE users; END $$", ["the DO block"]),
        ("CALL app.tidy()", ["the procedure app.tidy"]),
        (
            "SELECT fill(twice(1)), public.fill(2)",
            ["the function fill", "the function public.fill"],
        ),
        ("INSERT INTO users (id) SELECT fill(1)", ["the function fill"]),
        ("ALTER TABLE users ADD m int DEFAULT fill(1)", ["the function fill"]),
        ("CREATE VIEW more AS SELECT fill(1)", []),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", []),
        ("INSERT INTO orders VALUES (12)", ["the trigger quiet on orders"]),
        ("UPDATE orders SET day = NULL WHERE id = 1", []),
        ("COPY orders FROM STDIN", ["the trigger quiet on orders"]),
        ("DELETE FROM animals WHERE id = 1", ["the rule none on animals"]),
        ("TRUNCATE invoices CASCADE", ["the trigger logged on lines"]),
        ("DELETE FROM both_of_them", ["the tables behind the view both_of_them"]),
        ("EXECUTE prepared(1)", ["the prepared statement"]),
        ("CREATE EXTENSION hstore", ["the script of the extension"]),
        ("DROP EXTENSION hstore", ["other objects that are dropped with the extension"]),
        ("DROP TYPE mood CASCADE", ["other objects that are dropped with the type"]),
        ("DROP FUNCTION nothing() CASCADE", ["other objects that are dropped with the function"]),
        ("DROP SEQUENCE numbers CASCADE", ["other objects that are dropped with the sequence"]),
        ("DROP FUNCTION twice(int)", []),
        ("ALTER DOMAIN age ADD CHECK (VALUE > 0)", ["the tables that have a column of the domain"]),
        ("ALTER TYPE pair ADD ATTRIBUTE c int", ["the tables that have a column of the type"]),
        ("DROP OWNED BY old_owner", ["everything that the role owns"]),
        ("ANALYZE", ["every table of the schema or database, one by one"]),
        ("VACUUM users", []),
        ("REINDEX SCHEMA app", ["every table of the schema or database, one by one"]),
        ("CLUSTER", ["every table of the schema or database, one by one"]),
        (
            "ALTER TABLE users FROBNICATE",
            ['PostgreSQL 17\'s parser cannot read it: syntax error at or near "FROBNICATE"'],
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_code_that_a_statement_runs_is_marked_as_not_analysed(
    populated: PopulatedDatabase, sql: str, expected: list[str]
) -> None:
    [planned] = populated.planned(sql)
    assert list(planned.not_analysed) == expected


CHECKED = "ALTER TABLE users ADD CONSTRAINT c CHECK (remark IS NOT NULL)"
VALIDATED = "ALTER TABLE users VALIDATE CONSTRAINT c"
NOT_NULL = "ALTER TABLE users ALTER remark SET NOT NULL"


@pytest.mark.parametrize(
    ("statements", "is_proven"),
    [
        ((CHECKED, NOT_NULL), True),
        ((f"{CHECKED} NOT VALID", VALIDATED, NOT_NULL), True),
        (
            (f"{CHECKED} NOT VALID", VALIDATED, NOT_NULL, "ALTER TABLE users DROP CONSTRAINT c"),
            True,
        ),
        (
            (
                "ALTER TABLE users ADD CHECK (remark IS NOT NULL) NOT VALID",
                "ALTER TABLE users VALIDATE CONSTRAINT users_remark_check",
                NOT_NULL,
            ),
            True,
        ),
        ((f"{CHECKED} NOT VALID", NOT_NULL), False),
        ((f"{CHECKED} NOT VALID", f"{VALIDATED}, ALTER remark SET NOT NULL"), False),
        ((CHECKED, "ALTER TABLE users DROP CONSTRAINT c", NOT_NULL), False),
        ((CHECKED, "ALTER TABLE users ALTER n SET NOT NULL"), False),
        ((NOT_NULL,), False),
    ],
)
def test_set_not_null_has_no_scan_advice_if_a_check_proves_it(
    populated: PopulatedDatabase, statements: tuple[str, ...], is_proven: bool
) -> None:
    notices: list[str | None] = []
    with populated.database.connect(autocommit=False) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute("SET client_min_messages = debug1")
        for sql in statements:
            connection.execute(sql.encode())
        connection.rollback()
    assert any("sufficient to prove" in str(each) for each in notices) == is_proven
    [planned] = [
        each
        for each, sql in zip(populated.planned(";".join(statements)), statements, strict=True)
        if "SET NOT NULL" in sql
    ]
    assert any("(... IS NOT NULL)" in each for each in planned.advice) == (not is_proven)


def test_existing_check_proves_not_null_only_once_it_is_validated(
    populated: PopulatedDatabase,
) -> None:
    with populated.database.connect(autocommit=False) as connection:
        connection.execute(f"{CHECKED} NOT VALID".encode())
        connection.execute("SELECT set_config('initmig.search_path', 'public', true)")
        inventory = take_inventory(lambda sql: connection.execute(sql.encode()).fetchall())
        connection.rollback()
    migrations = [migration(f"{number}", sql) for number, sql in enumerate((VALIDATED, NOT_NULL))]
    for pending, has_advice in ((migrations, False), (migrations[1:], True)):
        [planned] = forecast_of(pending, inventory)["1"]
        assert bool(planned.advice) == has_advice


@pytest.mark.parametrize(
    "sql", ["ALTER TABLE users DROP remark", "ALTER TABLE users RENAME TO u", "DROP TABLE lines"]
)
def test_migration_marked_as_breaking_has_no_advice_to_mark_it(
    populated: PopulatedDatabase, sql: str
) -> None:
    one = migration("1", sql)
    for each, pages in ((one, ["docs/how-to/zero-downtime.md"]), (one._replace(breaking=True), [])):
        [planned] = forecast_of([each], populated.inventory)["1"]
        assert [page for text in planned.advice for page in re.findall(r"docs/\S+\.md", text)] == (
            pages
        )
