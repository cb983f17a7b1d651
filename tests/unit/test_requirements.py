"""The requirements of a migration's statements, by PostgreSQL's parser."""

from __future__ import annotations

import pytest

from initmig.sql.requirements import (
    Creates,
    Fills,
    Makes,
    Obscures,
    Relation,
    Requirement,
    Requires,
    Uses,
    outstanding,
    read_requirements,
)
from tests.support.steps import step_of

T = Relation("", "t")


def needs(text: str) -> list[Requirement]:
    stated, fell_back = read_requirements("a.sql", step_of("a.sql", text.encode()))
    assert fell_back == ""
    return [each.requirement for each in stated]


def left(*texts: str, home: str = "public") -> list[Requirement]:
    """The requirements of files with these *texts*, in order, that earlier files do not meet."""
    stated = [
        each
        for i, text in enumerate(texts)
        for each in read_requirements(f"{i}.sql", step_of(f"{i}.sql", text.encode()))[0]
    ]
    return [each.requirement for each in outstanding(stated, home)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ALTER TABLE t ADD a int", [Uses(T, "owner", "alters")]),
        ('ALTER TABLE S."T" ADD a int', [Uses(Relation("s", "T"), "owner", "alters")]),
        ("ALTER SEQUENCE t RESTART", []),
        ("DROP VIEW IF EXISTS t", [Uses(T, "drop", "drops")]),
        ("DROP TRIGGER g ON s.t", [Uses(Relation("s", "t"), "owner", "drops a trigger of")]),
        ("DROP FUNCTION f()", []),
        ("DROP SCHEMA t", []),
        ("ALTER TABLE t RENAME COLUMN a TO b", [Uses(T, "owner", "renames")]),
        ("ALTER TABLE t RENAME TO u", [Uses(T, "index", "renames"), Makes(Relation("", "u"))]),
        (
            "ALTER TABLE t SET SCHEMA s",
            [Uses(T, "owner", "moves"), Fills("s"), Makes(Relation("s", "t"))],
        ),
        ("ALTER FUNCTION f() RENAME TO g", []),
        ("CREATE INDEX CONCURRENTLY ON t (a)", [Uses(T, "index", "indexes")]),
        ("CREATE INDEX i ON s.t (a)", [
            Uses(Relation("s", "t"), "index", "indexes"), Makes(Relation("s", "i")),
        ]),
        ("CREATE TABLE t ()", [Makes(T)]),
        ("CREATE TABLE t AS SELECT 1 AS a", [Makes(T)]),
        ("CREATE MATERIALIZED VIEW t AS SELECT 1 AS a", [Makes(T)]),
        ("CREATE TABLE IF NOT EXISTS t ()", []),
        ("CREATE VIEW t AS SELECT 1 AS a", [Makes(T)]),
        ("CREATE OR REPLACE VIEW t AS SELECT 1 AS a", [Uses(T, "owner", "replaces"), Makes(T)]),
        ("UPDATE t SET a = 1", [Uses(T, "UPDATE", "updates")]),
        ("DELETE FROM t", [Uses(T, "DELETE", "deletes from")]),
        ("CREATE POLICY p ON t", [Uses(T, "owner", "creates a policy on")]),
        (
            "ALTER TABLE t ATTACH PARTITION p DEFAULT",
            [Uses(T, "owner", "alters"), Uses(Relation("", "p"), "owner", "attaches")],
        ),
        ("CREATE EXTENSION e VERSION '2'", [Creates("extension", "e", "2")]),
        ("CREATE SCHEMA AUTHORIZATION r", []),
        ("CREATE USER r", [Creates("role", "r")]),
        ("SET LOCAL search_path = s", [Obscures("search_path")]),
        ("RESET ROLE", [Obscures("role")]),
        ("SET lock_timeout = 1", []),
        ("SELECT 'DROP TABLE t'", []),
        ("DO $$ BEGIN DROP TABLE t; END $$", []),
    ],
)  # fmt: skip
def test_statement_needs(text: str, expected: list[Requirement]) -> None:
    assert needs(text) == expected


@pytest.mark.parametrize(
    ("text", "what", "major"),
    [
        ("CREATE UNIQUE INDEX ON t (a) NULLS NOT DISTINCT", "NULLS NOT DISTINCT", 15),
        ("ALTER TABLE t ADD UNIQUE NULLS NOT DISTINCT (a)", "NULLS NOT DISTINCT", 15),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", "MERGE", 15),
        (
            "CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES u ON DELETE SET NULL (a))",
            "ON DELETE SET with a list of columns",
            15,
        ),
        (
            "CREATE VIEW v WITH (security_invoker) AS SELECT 1",
            "a view with security_invoker",
            15,
        ),
        ("ALTER TABLE t SET ACCESS METHOD heap", "ALTER TABLE ... SET ACCESS METHOD", 15),
        ("SELECT FROM (SELECT 1)", "a subquery in FROM without an alias", 16),
        ("SELECT JSON_OBJECT('a': 1)", "a JSON constructor of the SQL standard", 16),
        (
            "WITH m AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING 1) TABLE m",
            "MERGE ... RETURNING",
            17,
        ),
        (
            "MERGE INTO t USING u ON true WHEN NOT MATCHED BY SOURCE THEN DELETE",
            "MERGE ... WHEN NOT MATCHED BY SOURCE",
            17,
        ),
        ("ALTER TABLE t ALTER a SET EXPRESSION AS (1)", "ALTER COLUMN ... SET EXPRESSION", 17),
        ("SELECT * FROM JSON_TABLE('1', '$' COLUMNS (a int PATH '$')) j", "JSON_TABLE", 17),
    ],
)
def test_statement_requires_a_version(text: str, what: str, major: int) -> None:
    assert Requires(what, major) in needs(text)


def test_syntax_of_every_supported_server_requires_no_version() -> None:
    text = (
        "CREATE OR REPLACE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f();"
        " CREATE UNIQUE INDEX ON t (a); SELECT FROM (SELECT 1) AS s;"
        " CREATE TABLE v (a int GENERATED ALWAYS AS (1) STORED REFERENCES u ON DELETE SET NULL)"
    )
    assert [need for need in needs(text) if isinstance(need, Requires)] == []


def test_a_statement_has_its_place() -> None:
    [stated] = read_requirements(
        "a.sql", step_of("a.sql", "SELECT 1; -- é\n  DROP TABLE t;".encode())
    )[0]
    assert str(stated.place) == "a.sql:2:3"


def test_unparsed_statements_are_reported_and_the_others_are_read() -> None:
    unread = step_of("a.sql", b"DROP TABLE t;\nCREATE TABEL t ();\nDROP VIEW v")
    stated, fell_back = read_requirements("a.sql", unread)
    assert fell_back == 'line 2: syntax error at or near "TABEL"'
    assert [each.requirement for each in stated] == [
        Uses(T, "drop", "drops"),
        Uses(Relation("", "v"), "drop", "drops"),
    ]


def test_objects_of_earlier_migrations_belong_to_them() -> None:
    made = "CREATE TABLE t (a int PRIMARY KEY, b int REFERENCES t)"
    assert left(made, "ALTER TABLE t ADD c int; DROP TABLE public.t") == []
    assert left("CREATE TABLE public.t ()", "DROP TABLE t") == [Fills("public")]
    drop = Uses(Relation("s", "t"), "drop", "drops")
    assert left(made, "DROP TABLE s.t") == [drop]
    again = left("DROP TABLE s.t", "CREATE TABLE s.t ()", "DROP TABLE s.t")
    assert again == [drop, Fills("s")]
    assert left("ALTER TABLE t RENAME TO u", "DROP TABLE u") == [Uses(T, "index", "renames")]


def test_a_schema_that_the_migrations_have_made_is_theirs_to_fill() -> None:
    made = Creates("schema", "s")
    assert left("CREATE SCHEMA s; CREATE TABLE s.t ()", "CREATE VIEW s.v AS SELECT 1") == [made]
    assert left("CREATE TABLE s.t (); CREATE SCHEMA s") == [Fills("s"), made]


def test_if_not_exists_claims_no_ownership() -> None:
    assert left("CREATE TABLE IF NOT EXISTS t (); DROP TABLE t") == [Uses(T, "drop", "drops")]


def test_after_another_role_or_search_path_names_are_unknown_until_the_file_ends() -> None:
    drop_s = Uses(Relation("s", "t"), "drop", "drops")
    dropping = "DROP TABLE s.t, t; CREATE EXTENSION e; SELECT FROM (SELECT 1)"
    extension, requires = (
        Creates("extension", "e"),
        Requires("a subquery in FROM without an alias", 16),
    )
    role, path = Obscures("role"), Obscures("search_path")
    assert left(f"SET ROLE r; {dropping}") == [role, requires]
    assert left(f"SET search_path = x; {dropping}") == [path, drop_s, extension, requires]
    assert left("SET ROLE r", "DROP TABLE s.t") == [role, drop_s]


def test_a_temporary_table_needs_no_right() -> None:
    assert needs("CREATE TEMP TABLE t (a int)") == [Makes(T)]
