"""A non-transactional file runs statement by statement, split as the server splits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result

DIRECTIVE = "-- transactional: false\n"
# This statement fails in a transaction, so each script proves that it runs without one.
LAST = "\nVACUUM;\n"

SCRIPTS: dict[str, tuple[str, str, list[tuple[object, ...]]]] = {
    "columns named begin": (
        """
CREATE TABLE t (begin int, atomic int, "end" int);
INSERT INTO t (begin) VALUES (1);
""",
        "SELECT begin FROM t",
        [(1,)],
    ),
    "label after a column named begin": (
        """
CREATE VIEW v AS SELECT 1 AS begin, 2 AS atomic;
CREATE VIEW w AS SELECT begin atomic FROM v;
""",
        "SELECT atomic FROM w",
        [(1,)],
    ),
    "hash before a string of several lines": (
        """
CREATE TABLE t AS SELECT 5 # '1
' AS a, 'it''s;' AS b;
""",
        "SELECT a, b FROM t",
        [(4, "it's;")],
    ),
    "body with cases": (
        """
CREATE FUNCTION f(a int) RETURNS int BEGIN ATOMIC
  SELECT 1;
  SELECT CASE WHEN a > 0 THEN CASE a WHEN 1 THEN 10 END ELSE 0 END;
END;
CREATE TABLE t AS SELECT f(1) AS a;
""",
        "SELECT a FROM t",
        [(10,)],
    ),
    "body with labels": (
        """
CREATE PROCEDURE p(a int) BEGIN ATOMIC END;
CREATE FUNCTION f() RETURNS int BEGIN /* ; */ ATOMIC SELECT 1 end; SELECT 2 AS "end;"; END;
CREATE TABLE t AS SELECT f();
""",
        "SELECT f FROM t",
        [(2,)],
    ),
    "nested comments": (
        """
/* a /* nested; ' */ comment; */ CREATE /* ; /* /* */ */ */ TABLE t (a int -- ; it's
);
""",
        "SELECT count(*) FROM t",
        [(0,)],
    ),
    "dollar quotes": (
        """
DO $do$
BEGIN
  EXECUTE $$CREATE TABLE t AS SELECT $in$;'$in$::text AS a;$$;
END;
$do$;
INSERT INTO t VALUES ($$a;$b$;$$), ($ä$;$$;$ä$);
""",
        "SELECT a FROM t",
        [(";'",), ("a;$b$;",), (";$$;",)],
    ),
    "strings": (
        r"""
CREATE TABLE t AS SELECT E'\';' AS a, E'a'
'\';' AS b, '\' AS c, U&'\0061;' AS d, U&'!0062;''' UESCAPE '!' AS ";";
""",
        "SELECT * FROM t",
        [("';", "a';", "\\", "a;", "b;'")],
    ),
    "transactions in the file": (
        """
BEGIN; CREATE TABLE t (a int); INSERT INTO t VALUES (1); COMMIT;
INSERT INTO t VALUES (2);
START TRANSACTION;
DELETE FROM t;
ROLLBACK;
BEGIN;
INSERT INTO t VALUES (3);
END;
""",
        "SELECT a FROM t",
        [(1,), (2,), (3,)],
    ),
    "rule with two statements": (
        """
CREATE TABLE t (a int);
CREATE TABLE log (a text);
CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO log VALUES ('a;'); NOTIFY x);
INSERT INTO t VALUES (1);
""",
        "SELECT a FROM log",
        [("a;",)],
    ),
    "empty statements": (
        """
;;
 ; -- ;
 CREATE TABLE "a;b" AS SELECT 'é𝄞;' AS "ü;";;
""",
        'SELECT * FROM "a;b"',
        [("é𝄞;",)],
    ),
}


class Script:
    """Applies a non-transactional file."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self._folder = folder
        self.database = database

    def run(self, text: str) -> Result:
        write(self._folder, {"0001_script.sql": text.encode()})
        return self._initmig(url=self.database.url, folder=self._folder)

    def apply(self, text: str) -> Result:
        result = self.run(text)
        assert result.code == 0, result.err
        assert self.database.value("SELECT count(*) FROM _yoyo_migration") == 1
        return result


@pytest.fixture
def script(initmig: Initmig, database: Database, folder: Path) -> Script:
    return Script(initmig, database, folder)


@pytest.mark.any_version
@pytest.mark.parametrize(("text", "query", "expected"), SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_script_for_psql_has_the_same_result(
    script: Script, text: str, query: str, expected: list[tuple[object, ...]], line_end: str
) -> None:
    script.apply((DIRECTIVE + text + LAST).replace("\n", line_end))
    assert script.database.query(query) == expected


@pytest.mark.parametrize(
    "header",
    [
        "-- owned by the team; it's internal\n" + DIRECTIVE,
        "\n--\n -- /* owned by the team\n" + DIRECTIVE,
        "\ufeff" + DIRECTIVE,
        "\ufeff-- c\r\n\r\n-- depends:\r\n" + DIRECTIVE,
        "-- transactional: false\r",
    ],
    ids=["comment", "comments", "byte order mark", "all", "return"],
)
def test_directive_is_found_after_comments_and_a_byte_order_mark(
    script: Script, header: str
) -> None:
    script.apply(f"{header}VACUUM;\nCREATE TABLE t ();\nVACUUM t;")
    assert "t" in script.database.tables()


@pytest.mark.parametrize("text", ["'a\r\nb\rc\n'", "E'a\r\nb\rc\n'", "$$a\r\nb\rc\n$$"])
def test_line_endings_in_a_string_are_kept(script: Script, text: str) -> None:
    script.apply(f"{DIRECTIVE}VACUUM;\r\nCREATE TABLE t AS\r\nSELECT {text} AS a;\r\n")
    assert script.database.value("SELECT a FROM t") == "a\r\nb\rc\n"


def test_syntax_unknown_to_the_parser_is_logged_and_sent_to_the_server(script: Script) -> None:
    result = script.run(
        f"{DIRECTIVE}CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL);\n"
        "INSERT INTO t VALUES (1);\nCREATE INDEX CONCURRENTLY i ON t (a);\n"
        "BEGIN; INSERT INTO t VALUES (2); COMMIT;\nVACUUM t;"
    )
    assert '0001_script.sql (line 2: syntax error at or near "VIRTUAL"); ' in result.err
    if int(script.database.value("SHOW server_version_num")) < 180000:
        assert result.code == 1
        assert "0001_script.sql:2:" in result.err
        assert "0001_script failed: syntax error" in result.err
    else:
        assert result.code == 0, result.err
        assert script.database.query("SELECT b FROM t") == [(2,), (3,)]


def test_syntax_error_is_reported_with_its_line(script: Script) -> None:
    result = script.run(
        f"{DIRECTIVE}CREATE TABLE t ();\nVACUUM t;\n\nSELEKT 'é';\nCREATE TABLE u ();"
    )
    assert result.code == 1
    assert '0001_script.sql:5:1: 0001_script failed: syntax error at or near "SELEKT"' in result.err
    assert script.database.tables() >= {"t"}
    assert "u" not in script.database.tables()
