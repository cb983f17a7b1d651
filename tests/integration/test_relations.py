"""The model of pending statements creates, renames and drops the same objects as PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from initmig.commands.inventory import take_inventory
from initmig.sql.relations import Inventory, Relations
from initmig.sql.statements import read_each
from tests.support.databases import create_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from tests.support.databases import DatabaseServer

pytestmark = pytest.mark.any_version

BEFORE = """
CREATE SCHEMA app;
CREATE TABLE users (id int PRIMARY KEY, code text UNIQUE, name text);
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, code text,
    CONSTRAINT by_code FOREIGN KEY (code) REFERENCES users (code));
CREATE TABLE "Odd.Name" (id int, "Some Column" int REFERENCES users);
CREATE TABLE events (day date, user_id int REFERENCES users, PRIMARY KEY (day))
    PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE TABLE loose (day date NOT NULL, user_id int);
ALTER TABLE loose ADD CONSTRAINT dated CHECK (user_id IS NOT NULL) NOT VALID;
CREATE TABLE notes (day date REFERENCES events);
CREATE TABLE child () INHERITS (users);
CREATE TABLE app.things (id int PRIMARY KEY);
CREATE VIEW names AS SELECT name FROM users;
CREATE VIEW codes AS SELECT code FROM users;
CREATE VIEW names_again AS SELECT * FROM names;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, count(*) FROM orders GROUP BY 1;
CREATE INDEX totals_user ON totals (user_id);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER quiet BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE RULE none AS ON DELETE TO "Odd.Name" DO INSTEAD NOTHING"""

LONG = "a" * 40
UMLAUTS = "ä" * 20

CASES = [
    "CREATE TABLE a (id int)",
    "CREATE TABLE a (id serial PRIMARY KEY, b bigint GENERATED ALWAYS AS IDENTITY, c int UNIQUE)",
    "CREATE TABLE a (b int, c int, UNIQUE (b, c), UNIQUE (c, b))",
    "CREATE TABLE a (user_id int REFERENCES users, other int REFERENCES users (id))",
    "CREATE TABLE a (b int, FOREIGN KEY (b) REFERENCES users, FOREIGN KEY (b) REFERENCES users)",
    f"CREATE TABLE {LONG} ({LONG} int UNIQUE REFERENCES users, b serial)",
    f'CREATE TABLE "{UMLAUTS}" ("{UMLAUTS}" int UNIQUE REFERENCES users)',
    f"CREATE TABLE {LONG}{LONG} (b int UNIQUE)",
    "CREATE TABLE a (b int4range, EXCLUDE USING gist (b WITH &&))",
    "CREATE TABLE IF NOT EXISTS users (x int UNIQUE)",
    "CREATE TABLE app.a (id int REFERENCES app.things)",
    "CREATE TEMP TABLE users (id int); CREATE INDEX ON users (id)",
    "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')",
    "CREATE TABLE a AS SELECT 1 AS b",
    "SELECT 1 AS b INTO a",
    "CREATE TABLE a (id int UNIQUE) PARTITION BY LIST (id)",
    "CREATE SCHEMA extra CREATE TABLE a (id int UNIQUE) CREATE VIEW b AS SELECT * FROM a",
    "CREATE SEQUENCE numbers",
    "CREATE VIEW a AS WITH users AS (SELECT 1 AS n) SELECT * FROM users, orders",
    "CREATE OR REPLACE VIEW names AS SELECT code AS name FROM orders",
    "CREATE MATERIALIZED VIEW a AS SELECT * FROM names",
    "CREATE INDEX ON users (name); CREATE INDEX ON users (name)",
    "CREATE INDEX ON users (lower(name), (id + 1), code)",
    "CREATE INDEX ON events (user_id)",
    "CREATE INDEX ON ONLY events (user_id)",
    "CREATE UNIQUE INDEX a ON users (id); ALTER TABLE users ADD CONSTRAINT b UNIQUE USING INDEX a",
    "ALTER TABLE orders ADD FOREIGN KEY (id) REFERENCES users",
    "ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users (id)",
    "ALTER TABLE orders ADD COLUMN other_id int REFERENCES users (id), ADD UNIQUE (code)",
    "ALTER TABLE orders ADD COLUMN day date, ADD FOREIGN KEY (day) REFERENCES events",
    "ALTER TABLE orders DROP CONSTRAINT by_code",
    "ALTER TABLE orders DROP COLUMN user_id CASCADE",
    "ALTER TABLE users DROP COLUMN code CASCADE",
    "ALTER TABLE users DROP CONSTRAINT users_code_key CASCADE",
    "ALTER TABLE users RENAME code TO label; ALTER TABLE orders RENAME code TO label",
    "ALTER TABLE orders RENAME CONSTRAINT by_code TO by_label",
    "ALTER TABLE users RENAME CONSTRAINT users_pkey TO first",
    "ALTER TABLE users RENAME TO people; CREATE TABLE users (id int)",
    "ALTER INDEX users_pkey RENAME TO first",
    "ALTER VIEW names RENAME TO named",
    "ALTER TABLE users SET SCHEMA app",
    "ALTER SCHEMA app RENAME TO apps",
    "ALTER TABLE events DETACH PARTITION events_1",
    "ALTER TABLE events ATTACH PARTITION loose FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')",
    "ALTER TABLE events DROP CONSTRAINT events_user_id_fkey",
    "ALTER TABLE notes DROP CONSTRAINT notes_day_fkey",
    "ALTER TABLE child NO INHERIT users; ALTER TABLE child INHERIT users",
    "ALTER TRIGGER quiet ON orders RENAME TO silent",
    "DROP TABLE orders CASCADE",
    "DROP TABLE users CASCADE",
    "DROP TABLE events CASCADE",
    "ALTER TABLE notes DROP CONSTRAINT notes_day_fkey; DROP TABLE events_1",
    "DROP TABLE IF EXISTS missing",
    'DROP TABLE "Odd.Name"',
    "DROP VIEW names CASCADE",
    "DROP INDEX totals_user",
    "DROP SCHEMA app CASCADE",
    "DROP SCHEMA public CASCADE",
    "ALTER TABLE orders ADD CONSTRAINT c CHECK (code IS NOT NULL) NOT VALID",
    "ALTER TABLE orders ADD CHECK (code IS NOT NULL), ADD CHECK (code <> '')",
    "ALTER TABLE orders ADD CHECK (code IS NOT NULL OR user_id IS NOT NULL)",
    "ALTER TABLE orders ADD CHECK (lower(code) IS NOT NULL), ADD CHECK (code IS NULL)",
    "ALTER TABLE orders ADD CONSTRAINT c CHECK (code IS NOT NULL) NO INHERIT",
    "ALTER TABLE orders ADD note text CONSTRAINT n CHECK (note IS NOT NULL)",
    "ALTER TABLE loose VALIDATE CONSTRAINT dated",
    "ALTER TABLE loose RENAME CONSTRAINT dated TO with_user",
    "ALTER TABLE loose RENAME user_id TO member",
    "ALTER TABLE loose DROP CONSTRAINT dated",
    "ALTER TABLE loose DROP user_id",
    "ALTER TABLE loose RENAME TO free",
    "DROP TABLE loose",
    "DROP TRIGGER quiet ON orders",
    'DROP RULE none ON "Odd.Name"',
    "DROP MATERIALIZED VIEW totals",
    "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION nothing()",
    "CREATE RULE r AS ON INSERT TO orders DO ALSO DELETE FROM notes",
    "SET search_path = app; CREATE TABLE a (id int); SET search_path = public",
    "SELECT pg_catalog.set_config('search_path', 'app, public', true); CREATE TABLE a (id int)",
    "SELECT pg_catalog.set_config('search_path', '', true); CREATE TABLE app.a (id int)",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION f() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
]


NOTE_PATH = "SELECT set_config('initmig.search_path', current_setting('search_path'), true)"
"""Sets the path as a session does before its queries."""


@pytest.fixture(scope="module")
def connection(server: DatabaseServer) -> Iterator[Connection]:
    """A connection to a database with the tables of `BEFORE`. Each test rolls back."""
    database = create_database(server)
    database.execute(BEFORE)
    with database.connect(autocommit=False) as connection:
        yield connection
    database.drop(server)


def inventory_of(connection: Connection) -> Inventory:
    connection.execute(NOTE_PATH)
    return take_inventory(lambda sql: connection.execute(sql.encode()).fetchall())


def facts_of(found: Relations, names: set[tuple[str, str]]) -> set[tuple[object, ...]]:
    """All facts in *found* about the relations with these schemas and names."""
    facts: set[tuple[object, ...]] = set()
    for schema, name in names:
        relation = found.find(schema, name)
        if relation is None or relation.is_system or relation.schema == "pg_temp":
            continue
        facts.add((schema, name, relation.kind, relation.partition))
        facts.update((name, "index", each.name) for each in found.indexes_of(relation))
        facts.update((name, "child", each.name) for each in found.children_of(relation))
        facts.update((name, "parent", each.name) for each in found.parents_of(relation))
        facts.update((name, "view", each.name) for each in found.views_of(relation))
        facts.update((name, *each[1:]) for each in found.programs_of(relation))
        for key in found.foreign_keys_of(relation):
            ends = [each.name for each in found.ends_of(key)]
            # keys of partitions have the name of the partitioned table's key, or another name
            named = "" if key.parent else key.name
            facts.add((named, *ends, key.columns, key.on_delete, key.on_update))
    return facts


def checks_of(found: Relations) -> set[tuple[object, ...]]:
    """The table, name, column and validity of each check that a column is not null."""
    return {
        (table.schema, table.name, *check[1:])
        for table in found.all()
        for check in found.checks_of(table)
    }


def names_of(inventory: Inventory) -> set[tuple[str, str]]:
    return {
        ("pg_temp" if "temp" in each.schema else each.schema, each.name)
        for each in inventory.relations
    }


@pytest.mark.parametrize("sql", CASES, ids=lambda sql: sql[:60])
def test_model_agrees_with_the_server_after_each_statement(
    connection: Connection, sql: str
) -> None:
    before = inventory_of(connection)
    relations = Relations(before)
    read_each(sql.encode(), relations.follow)
    try:
        connection.execute(sql.encode())
        after = inventory_of(connection)
    finally:
        connection.rollback()
    names = names_of(before) | names_of(after)
    names |= {(each.schema, each.name) for each in relations.all()}
    assert facts_of(relations, names) == facts_of(Relations(after), names)
    assert relations.functions == after.functions
    assert checks_of(relations) == checks_of(Relations(after))
    assert {name for name in after.schemas if relations.has_schema(name)} == set(after.schemas)
