"""Missing tables in pending SQL: only certain findings are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from initmig.sql.missing import Missing, find_missing
from initmig.sql.relations import Inventory, Program, Relation
from tests.support.steps import step_of

if TYPE_CHECKING:
    from initmig.core.model import Step

INVENTORY = Inventory(
    path=("public",),
    schemas=("public", "app"),
    relations=(
        Relation(1, "public", "users", "r"),
        Relation(2, "app", "orders", "r"),
        Relation(3, "public", "orders_total", "v"),
        Relation(4, "public", "audited", "r"),
        Relation(5, "pg_catalog", "pg_class", "r"),
        Relation(6, "public", "users_id_seq", "S"),
        Relation(7, "public", "Mixed", "r"),
    ),
    programs=(Program(4, "trigger", "t", frozenset(("INSERT",)), instead=False),),
    functions=frozenset([("public", "make_tables")]),
)


def missing(*files: str, watched: bool = False) -> list[Missing]:
    migrations = [[in_file(f"{number}.sql", text)] for number, text in enumerate(files, 1)]
    known = ("_yoyo_migration",)
    return list(find_missing(migrations, INVENTORY, known=known, watched=watched))


def in_file(path: str, text: str) -> Step:
    return step_of(path, text.encode())


USES = {
    "insert": "INSERT INTO nope VALUES (1)",
    "insert from a query": "INSERT INTO users SELECT * FROM nope",
    "update": "UPDATE nope SET a = 1",
    "update from": "UPDATE users SET a = 1 FROM nope",
    "delete": "DELETE FROM nope",
    "delete using": "DELETE FROM users USING nope WHERE true",
    "merge": "MERGE INTO nope USING users ON true WHEN MATCHED THEN DELETE",
    "merge using": "MERGE INTO users USING nope ON true WHEN MATCHED THEN DELETE",
    "select": "SELECT 1 FROM users JOIN nope ON true",
    "a subquery": "SELECT (SELECT max(a) FROM nope)",
    "a query of WITH": "WITH x AS (SELECT * FROM nope) SELECT * FROM x",
    "copy": "COPY nope FROM '/x'",
    "copy of a query": "COPY (SELECT * FROM nope) TO '/x'",
    "truncate": "TRUNCATE users, nope",
    "lock": "LOCK TABLE nope",
    "alter": "ALTER TABLE nope ADD a int",
    "alter a view": "ALTER VIEW nope OWNER TO x",
    "rename": "ALTER TABLE nope RENAME TO b",
    "rename a column": "ALTER TABLE nope RENAME a TO b",
    "move": "ALTER TABLE nope SET SCHEMA app",
    "attach": "CREATE TABLE p (a int) PARTITION BY LIST (a); ALTER TABLE p ATTACH PARTITION nope"
    " DEFAULT",
    "inherit": "ALTER TABLE users INHERIT nope",
    "create index": "CREATE INDEX ON nope (a)",
    "create index if not exists": "CREATE INDEX IF NOT EXISTS i ON nope (a)",
    "references": "CREATE TABLE t (a int REFERENCES nope)",
    "a foreign key that is added": "ALTER TABLE users ADD FOREIGN KEY (a) REFERENCES nope",
    "a new column that references": "ALTER TABLE users ADD d int REFERENCES nope",
    "a partition of": "CREATE TABLE t PARTITION OF nope DEFAULT",
    "inherits": "CREATE TABLE t () INHERITS (nope)",
    "like": "CREATE TABLE t (LIKE nope)",
    "create view": "CREATE VIEW v AS SELECT * FROM nope",
    "create materialized view": "CREATE MATERIALIZED VIEW v AS SELECT * FROM nope",
    "create table as": "CREATE TABLE t AS SELECT * FROM nope",
    "select into": "SELECT * INTO t FROM nope",
    "refresh": "REFRESH MATERIALIZED VIEW nope",
    "create trigger": "CREATE TRIGGER g BEFORE INSERT ON nope EXECUTE FUNCTION f()",
    "create rule": "CREATE RULE r AS ON INSERT TO users DO ALSO INSERT INTO nope VALUES (1)",
    "create policy": "CREATE POLICY p ON nope",
    "alter policy": "ALTER POLICY p ON nope TO x",
    "create statistics": "CREATE STATISTICS s ON a, b FROM nope",
    "create publication": "CREATE PUBLICATION p FOR TABLE nope",
    "a body of SQL": "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 FROM nope; END",
    "grant": "GRANT SELECT ON nope TO x",
    "revoke": "REVOKE SELECT ON nope FROM x",
    "analyze": "ANALYZE nope",
    "cluster": "CLUSTER nope",
    "drop": "DROP TABLE nope",
    "drop of several": "DROP TABLE users, nope",
    "drop of a view": "DROP VIEW nope",
    "drop of a trigger": "DROP TRIGGER g ON nope",
    "comment": "COMMENT ON TABLE nope IS 'x'",
    "comment on a policy": "COMMENT ON POLICY p ON nope IS 'x'",
    "behind a table that is there": "CREATE TABLE t (); INSERT INTO t SELECT; DELETE FROM nope",
    "behind an extension without tables": "CREATE EXTENSION citext; DELETE FROM nope",
    "behind a savepoint": "SAVEPOINT s; DELETE FROM nope",
    "behind a function that is not called": "SELECT lower('x'); DELETE FROM nope",
    "behind another search path": "SET search_path = app; DELETE FROM nope",
}


@pytest.mark.parametrize("sql", USES.values(), ids=USES)
def test_a_table_that_is_not_there_is_found(sql: str) -> None:
    [found] = missing(f"SELECT 'é';\n{sql}")
    assert (found.name, found.place.path, found.place.line) == ("nope", "1.sql", 2)
    listed = sql.startswith(("DROP", "COMMENT"))
    assert found.place.column == (1 if listed else sql.index("nope") + 1)
    assert found.removed_at is None


FINE = {
    "a table that is there": "INSERT INTO users VALUES (1); DROP TABLE users",
    "one of another schema": "DELETE FROM app.orders",
    "the server's own": "SELECT * FROM pg_class, pg_catalog.pg_class",
    "a history table of initmig's": "SELECT * FROM _yoyo_migration",
    "created before": "CREATE TABLE t (); INSERT INTO t SELECT",
    "created with its schema": "CREATE TABLE app.t (); ALTER TABLE app.t ADD a int",
    "a temporary table": "CREATE TEMP TABLE t (); DELETE FROM t; DELETE FROM pg_temp.t",
    "created as": "CREATE TABLE t AS SELECT 1; DELETE FROM t",
    "selected into": "SELECT 1 INTO t; DELETE FROM t",
    "selected into by a union": "SELECT 1 INTO t UNION SELECT 2; DELETE FROM t",
    "a view": "CREATE VIEW v AS SELECT 1; GRANT SELECT ON v TO x",
    "a materialized view": "CREATE MATERIALIZED VIEW v AS SELECT 1; REFRESH MATERIALIZED VIEW v",
    "a foreign table": "CREATE FOREIGN TABLE t () SERVER s; SELECT * FROM t",
    "a sequence": "CREATE SEQUENCE s; SELECT last_value FROM s; GRANT ALL ON s TO x",
    "the sequence of a column": "CREATE TABLE t (a serial); SELECT last_value FROM t_a_seq",
    "a sequence of which nobody knows": "SELECT last_value FROM who_knows_seq",
    "a partition": "CREATE TABLE t (a int) PARTITION BY LIST (a);"
    " CREATE TABLE p PARTITION OF t DEFAULT; DELETE FROM p",
    "renamed": "ALTER TABLE users RENAME TO people; DELETE FROM people",
    "moved": "ALTER TABLE users SET SCHEMA app; DELETE FROM app.users",
    "a renamed schema": "ALTER SCHEMA app RENAME TO b; DELETE FROM b.orders",
    "a new schema": "CREATE SCHEMA s CREATE TABLE t () CREATE VIEW v AS SELECT * FROM t;"
    " DELETE FROM s.t",
    "dropped and created again": "DROP TABLE users; CREATE TABLE users (); DELETE FROM users",
    "the name of a query of WITH": "WITH t AS (SELECT 1) SELECT * FROM t",
    "a query of WITH that changes rows": "WITH t AS (DELETE FROM users RETURNING 1)"
    " INSERT INTO users SELECT * FROM t",
    "a recursive query": "WITH RECURSIVE t AS (SELECT 1 UNION SELECT * FROM t) TABLE t",
    "a recursive view": "CREATE RECURSIVE VIEW v (n) AS SELECT 1 UNION SELECT n FROM v",
    "itself": "CREATE TABLE t (a int PRIMARY KEY, b int REFERENCES t)",
    "the words of a rule": "CREATE RULE r AS ON UPDATE TO users DO ALSO"
    " DELETE FROM users WHERE a = old.a",
    "excluded": "INSERT INTO users VALUES (1) ON CONFLICT DO UPDATE SET a = excluded.a",
    "aliases": "UPDATE users AS u SET a = n.a FROM (SELECT 1 AS a) AS n; DELETE FROM users x",
    "functions in FROM": "SELECT * FROM generate_series(1, 2) AS g, unnest(ARRAY[1]) u,"
    " json_to_recordset('[]') AS t (a int)",
    "if it exists": "DROP TABLE IF EXISTS nope; ALTER TABLE IF EXISTS nope ADD a int REFERENCES b;"
    " ALTER TABLE IF EXISTS nope RENAME TO b; DROP TRIGGER IF EXISTS g ON nope;"
    " ALTER TABLE IF EXISTS nope SET SCHEMA app; DROP VIEW IF EXISTS nope",
    "if it does not exist": "CREATE TABLE IF NOT EXISTS users (a int REFERENCES nope)",
    "capitals in quotes": 'DELETE FROM "Mixed"',
    "a name with a dot": 'CREATE TABLE "a.b" (); DELETE FROM "a.b"',
    "a name that PostgreSQL cuts off": f"CREATE TABLE {'a' * 70} (); DELETE FROM {'a' * 66}",
    "types, functions and other objects": "CREATE TYPE k AS (a int); ALTER TYPE k ADD ATTRIBUTE b"
    " int; ALTER TYPE k RENAME ATTRIBUTE b TO c; COMMENT ON TYPE k IS 'x'; COMMENT ON COLUMN k.a IS"
    " 'x'; COMMENT ON FUNCTION f() IS 'x'; DROP FUNCTION f; ALTER ROLE r RENAME TO s;"
    " GRANT USAGE ON SCHEMA app TO x; DROP TYPE k; DROP INDEX i; ALTER INDEX i RENAME TO j;"
    " GRANT SELECT ON ALL TABLES IN SCHEMA app TO x; ALTER SEQUENCE s OWNED BY none",
    "a body that is text": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM nope'",
    "another database": "SELECT * FROM db.public.nope",
    "the path of the file": "SET search_path = app; DELETE FROM orders; RESET search_path;"
    " DELETE FROM users",
    "the path of the transaction": "SET LOCAL search_path TO app, public; DELETE FROM orders",
    "a path set by a function": "SELECT set_config('search_path', 'app', true); DELETE FROM orders",
    "the path of a role": 'SET ROLE x; SET search_path = "$user"; DELETE FROM orders',
    "after a DO block": "DO $$ BEGIN CREATE TABLE nope (); END $$; DELETE FROM nope",
    "after CALL": "CALL p(); DELETE FROM nope",
    "after a function of the user's": "SELECT make_tables(); DELETE FROM nope",
    "after a function that is new": "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1';"
    " SELECT g(); DELETE FROM nope",
    "after EXECUTE": "PREPARE q AS SELECT 1; EXECUTE q; DELETE FROM nope",
    "after an extension": "CREATE EXTENSION postgis; DELETE FROM spatial_ref_sys",
    "after an import": "IMPORT FOREIGN SCHEMA a FROM SERVER s INTO app; DELETE FROM app.nope",
    "after a trigger": "INSERT INTO audited VALUES (1); DELETE FROM nope",
    "after a rollback": "SAVEPOINT s; DROP TABLE users; ROLLBACK TO s; DELETE FROM users",
    "after what is no SQL to the parser": "CREATE TABEL nope (); DELETE FROM nope",
    "after a cascade that drops no more than it must": "CREATE VIEW v AS SELECT 1 FROM users;"
    " ALTER TABLE users DROP a CASCADE; DELETE FROM v",
}


@pytest.mark.parametrize("sql", FINE.values(), ids=FINE)
def test_uncertain_tables_are_not_reported(sql: str) -> None:
    assert missing(sql) == []


def test_a_table_of_one_file_exists_in_the_next_one() -> None:
    assert missing("CREATE TABLE t ()", "DELETE FROM t") == []
    assert missing("DO $$ BEGIN END $$", "DELETE FROM nope") == []
    found = missing("SET search_path = app; SELECT * FROM orders", "DELETE FROM orders")
    assert [(each.name, each.place.path, each.nearest) for each in found] == [
        ("orders", "2.sql", ("app.orders",))
    ]


def test_steps_are_searched_until_one_has_unknown_effects() -> None:
    def names(*steps: Step) -> list[str]:
        return [each.name for each in find_missing([steps], INVENTORY)]

    makes, uses = in_file("1.py", "CREATE TABLE t ()"), in_file("1.py", "TABLE t; TABLE nope")
    assert names(makes, uses) == ["nope"]
    assert names(makes._replace(may_fail=frozenset({"rollback"})), uses) == ["nope"]
    assert names(makes._replace(may_fail=frozenset({"apply"})), uses) == []
    assert names(uses._replace(may_fail=frozenset({"apply"}))) == []
    assert names(makes._replace(function="make_tables"), uses) == []


def test_an_event_trigger_may_make_tables() -> None:
    assert missing("CREATE TABLE t (); DELETE FROM nope", watched=True) == []
    assert len(missing("DELETE FROM nope; CREATE TABLE t ()", watched=True)) == 1


@pytest.mark.parametrize(
    ("sql", "name", "nearest"),
    [
        ("DELETE FROM uesrs", "uesrs", ("users",)),
        ("DELETE FROM orders", "orders", ("app.orders",)),
        ("DELETE FROM public.orders", "public.orders", ("app.orders",)),
        ("DELETE FROM Mixed", "mixed", ('"Mixed"',)),
        ('DELETE FROM "Users"', '"Users"', ("users",)),
        ("DELETE FROM app.zzz", "app.zzz", ()),
    ],
)
def test_a_similar_table_is_suggested(sql: str, name: str, nearest: tuple[str, ...]) -> None:
    [found] = missing(sql)
    assert (found.name, found.nearest) == (name, nearest)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE users",
        "DROP TABLE public.users",
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE users SET SCHEMA app",
    ],
)
def test_a_dropped_or_moved_table_is_reported_with_the_place(sql: str) -> None:
    [found] = missing(f"SELECT 1;\n{sql}", "SELECT 1 FROM users; DELETE FROM users")
    assert found.removed_at is not None
    assert (str(found.removed_at), str(found.place)) == ("1.sql:2:1", "2.sql:1:15")
