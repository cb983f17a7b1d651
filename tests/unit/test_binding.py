"""Which statements accept parameters, according to PostgreSQL's parser."""

from __future__ import annotations

import pytest

from initmig.sql.binding import has_parameter_in_string, has_values, takes_parameters

TAKES = [
    "SELECT $1",
    "SELECT * FROM t WHERE a = ANY($1) AND b = $2",
    "SELECT $1::interval, CAST($2 AS date), position('a' IN $3)",
    "WITH x AS (SELECT $1) SELECT * FROM x LIMIT $2;",
    "INSERT INTO t VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING a",
    "MERGE INTO t USING u ON t.a = u.a AND t.b = $1 WHEN MATCHED THEN DELETE",
    "EXPLAIN SELECT $1",
    "DECLARE c CURSOR FOR SELECT $1",
    "CREATE TABLE t AS SELECT $1",
    "CALL p($1)",
    "VALUES ($1)",
    # with their own parameters
    "PREPARE p AS SELECT $1",
    "CREATE FUNCTION f(int) RETURNS int BEGIN ATOMIC SELECT $1; END",
    # no parameter for the server, only text that looks like one
    "SELECT 1 -- $1",
    "CREATE TABLE t () -- $1",
    "DO $$ BEGIN PERFORM $1; END $$",
    # too long to parse
    f"SELECT * FROM t WHERE a IN $1 {'-- ' * 30000}",
]
REFUSES = [
    "SELECT * FROM t WHERE a IN $1",
    "SELECT * FROM t WHERE a IS $1",
    "SELECT interval $1",
    "SELECT now() - interval $1, $2::int",
    "SELECT $1; SELECT $2",
    "INSERT INTO t VALUES ($1); COMMIT",
    "ALTER TABLE t ALTER a SET DEFAULT $1",
    "CREATE TABLE t (a int CHECK (a > $1))",
    "CREATE VIEW v AS SELECT $1",
    "CREATE MATERIALIZED VIEW v AS SELECT $1",
    "CREATE TABLE t PARTITION OF u FOR VALUES IN ($1)",
    "COMMENT ON TABLE t IS $1",
    "CREATE ROLE r PASSWORD $1",
    "COPY (SELECT $1) TO STDOUT",
    "SET work_mem = $1",
    "NOTIFY c, $1",
    "DO $1",
    "EXECUTE p($1)",
    "SELECT * FROM $1",
]


@pytest.mark.parametrize("sql", TAKES)
def test_statement_can_take_parameters(sql: str) -> None:
    assert takes_parameters(sql.encode())


@pytest.mark.parametrize("sql", REFUSES)
def test_statement_cannot_take_parameters(sql: str) -> None:
    assert not takes_parameters(sql.encode())


@pytest.mark.parametrize(
    ("sql", "count", "is_inside"),
    [
        ("SELECT interval '$1 days'", 1, True),
        ("SELECT $2, '$1'", 2, True),
        ("SELECT '$1', $1", 1, False),
        ("SELECT 'costs $5', $1", 1, False),
        ("SELECT '$10', $1", 9, False),
        ("SELECT 1 -- $1", 1, False),
        ('SELECT 1 AS "$1"', 1, False),
        ("SELECT '$1", 1, False),
    ],
)
def test_parameter_inside_a_string_is_detected(sql: str, count: int, is_inside: bool) -> None:
    assert has_parameter_in_string(sql.encode(), count) == is_inside


@pytest.mark.parametrize(
    ("sql", "has"),
    [
        ("SELECT * FROM t WHERE a IN ('x 1')", True),
        ("ALTER TABLE t ALTER a SET DEFAULT 'x 1'", True),
        ("COMMENT ON TABLE t IS 'x 1'", True),
        ("SELECT 1; SELECT 'x 1'", True),
        ("SELECT 1; SELECT 2 -- 'x 1'", False),
        ("SELECT 1; SELECT 2 /* 'x 1' */", False),
        ("SELECT '''x 1'' days'", False),
        ("SELECT ''x 1' days'", False),
        ("DO $$ BEGIN PERFORM 'x 1'; END $$", False),
    ],
)
def test_value_is_found_only_as_a_separate_literal(sql: str, has: bool) -> None:
    assert has_values(sql.encode(), ["x 1"]) == has
