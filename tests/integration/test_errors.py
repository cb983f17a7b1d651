"""An error names the file, line and column, and shows the server's message and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import JSON
from tests.support.migrations import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database


class Failing:
    """Runs `initmig migrate` on a folder with a failing migration."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self._database = database
        self._folder = folder

    def text(self, files: dict[str, str | bytes], code: int = 1) -> str:
        """The log from the error to the end, without the time and the level."""
        write(self._folder, files)
        result = self._initmig(cwd=self._folder.parent, url=self._database.url)
        assert result.code == code, result.err
        return result.err.partition(" error   ")[2]

    def event(self, files: dict[str, str | bytes], code: int = 1) -> dict[str, Any]:
        """The error as JSON."""
        write(self._folder, files)
        result = self._initmig(cwd=self._folder.parent, url=self._database.url, env=JSON)
        assert result.code == code, result.err
        [failed] = [event for event in result.events if event["event"] == "failed"]
        return failed

    def place(self, files: dict[str, str | bytes], code: int = 1) -> tuple[int, int, str]:
        """The line, the column and the text of the line."""
        failed = self.event(files, code)
        assert failed["path"].startswith("migrations/")
        return failed["line"], failed["column"], failed["source"]


@pytest.fixture
def failing(initmig: Initmig, database: Database, folder: Path) -> Failing:
    return Failing(initmig, database, folder)


def test_error_shows_the_place_the_caret_the_hint_and_the_next_step(failing: Failing) -> None:
    assert failing.text(
        {
            "0001_users.sql": "CREATE TABLE users (id int, email text)",
            "0003_x.sql": (
                "-- A comment.\n\nINSERT INTO users\nVALUES (1, 'a');\nSELECT emial\nFROM users;\n"
            ),
        }
    ) == (
        'migrations/0003_x.sql:5:8: 0003_x failed: column "emial" does not exist (42703)'
        " [migration-failed]\n"
        "     5 | SELECT emial\n"
        "       |        ^\n"
        '  HINT: Perhaps you meant to reference the column "users.email".\n'
        "  next: rolled back; fix the migration and run again\n"
    )


def test_json_event_has_the_fields_of_the_error(failing: Failing) -> None:
    failed = failing.event(
        {"0001_a.sql": "CREATE TABLE a (id int PRIMARY KEY);\nINSERT INTO a\nVALUES (1), (1);"}
    )
    assert failed["next"]
    shown = failed.keys() - {"time", "level", "event", "next"}
    assert {name: failed[name] for name in shown} == {
        "error": "migration-failed",
        "message": ('0001_a failed: duplicate key value violates unique constraint "a_pkey"'),
        "path": "migrations/0001_a.sql",
        "line": 2,
        "column": 1,
        "source": "INSERT INTO a",
        "sqlstate": "23505",
        "detail": "Key (id)=(1) already exists.",
        "hint": "",
        "context": "",
        "schema": "public",
        "table": "a",
        "constraint": "a_pkey",
        "exit_code": 1,
    }


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("CREATE TABLE t ();\n-- again\n\nCREATE TABLE t ();\nSELECT 1;", 4),
        ("SELECT 1;\nSELECT 2; ;\n\n/* third */ SELECT\n  1/0;\nSELECT 4;", 4),
        (
            "DO $$ BEGIN PERFORM 1; END $$;\nSELECT ';';\nSELECT 1 / (SELECT count(*) WHERE false)",
            3,
        ),
        (
            "CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\nALTER TABLE t\nADD CHECK (a > 1)",
            3,
        ),
    ],
    ids=["duplicate table", "division by zero", "bodies", "check"],
)
def test_error_without_a_position_points_at_the_statement(
    failing: Failing, sql: str, line: int
) -> None:
    found, column, source = failing.place({"0001_a.sql": sql})
    assert (found, source) == (line, sql.splitlines()[line - 1])
    assert column == (1 if "third" not in source else source.index("SELECT") + 1)


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("SELECT 'äöü€𝄞', nowhere;", (1, 17, "SELECT 'äöü€𝄞', nowhere;")),
        ("SELECT\t1,\t\tnowhere", (1, 12, "SELECT\t1,\t\tnowhere")),
        ("SELECT 1;\r\n\r\nSELECT\r\n  nowhere;\r\n", (4, 3, "  nowhere;")),
        ("\ufeffSELECT nowhere", (1, 8, "SELECT nowhere")),
        ("\ufeff-- depends:\r\nSELECT 'é',\r\n\tnowhere", (3, 2, "\tnowhere")),
        ("SELECT 1;\rSELECT nowhere;\r", (2, 8, "SELECT nowhere;")),
        ("-- ünïcödé\nSELECT 1;\nSELEKT 2;", (3, 1, "SELEKT 2;")),
        ("SELECT (1;\nSELECT 2", (1, 10, "SELECT (1;")),
        ("SELECT 1 +", (1, 11, "SELECT 1 +")),
        ("SELECT 'open", (1, 8, "SELECT 'open")),
    ],
    ids=["wide", "tabs", "crlf", "bom", "bom crlf", "cr", "comment", "bracket", "end", "quote"],
)
def test_line_and_column_are_those_of_an_editor(
    failing: Failing, sql: str, place: tuple[int, int, str]
) -> None:
    assert failing.place({"0001_a.sql": sql.encode()}) == place


def test_caret_is_aligned_in_a_line_with_tabs(failing: Failing) -> None:
    text = failing.text({"0001_a.sql": "SELECT\t1,\t\tnowhere"}).splitlines()
    assert text[1:3] == ["     1 | SELECT\t1,\t\tnowhere", "       |       \t  \t\t^"]


def test_excerpt_of_a_long_line_surrounds_the_position(failing: Failing) -> None:
    sql = f"SELECT '{'x' * 5000}', nowhere, '{'y' * 5000}'"
    text = failing.text({"0001_a.sql": sql}).splitlines()
    assert text[0].startswith(f"migrations/0001_a.sql:1:{sql.index('nowhere') + 1}: ")
    assert len(text[1]) < 200
    assert text[1][text[2].index("^") :].startswith("nowhere")


def test_error_in_a_function_shows_its_context(failing: Failing) -> None:
    text = failing.text(
        {
            "0001_a.sql": (
                "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\n"
                "BEGIN\n  RAISE EXCEPTION 'not %', 'this' USING DETAIL = 'why', HINT = 'how';\n"
                "END $$;\nSELECT f();\n"
            )
        }
    )
    assert text.startswith(
        "migrations/0001_a.sql:5:1: 0001_a failed: not this (P0001) [migration-failed]\n"
    )
    assert "  DETAIL: why\n  HINT: how\n  CONTEXT: PL/pgSQL function f() line 3 at RAISE\n" in text


def test_error_in_a_query_of_a_do_block_points_at_the_block(failing: Failing) -> None:
    failed = failing.event(
        {"0001_a.sql": "SELECT 1;\n\nDO $$\nBEGIN\n  SELECT * FROM nowhere;\nEND $$;"}
    )
    assert (failed["line"], failed["sqlstate"]) == (3, "42P01")
    assert "line 3 at SQL statement" in failed["context"]


def test_syntax_error_in_a_function_body_points_into_the_body(failing: Failing) -> None:
    sql = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETRUN 1;\nEND $$;"
    assert failing.place({"0001_a.sql": sql}) == (3, 3, "  RETRUN 1;")


def test_violation_of_a_deferred_constraint_names_the_file(
    failing: Failing, database: Database
) -> None:
    text = failing.text(
        {
            "0001_a.sql": (
                "CREATE TABLE p (id int PRIMARY KEY);\nCREATE TABLE c"
                " (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO c VALUES (1);"
            )
        }
    )
    assert text.startswith("migrations/0001_a.sql: 0001_a failed: insert or update on table")
    assert 'DETAIL: Key (id)=(1) is not present in table "p".' in text
    assert "next: rolled back; " in text
    assert database.tables() & {"p", "c"} == set()
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 0


def test_error_in_a_non_transactional_file_suggests_changed_allow(failing: Failing) -> None:
    text = failing.text(
        {
            "0001_a.sql": (
                "-- transactional: false\nCREATE TABLE kept ();\n"
                "VACUUM kept;\n  CREATE INDEX CONCURRENTLY ON kept (nothing);\n"
            )
        }
    )
    assert text.startswith("migrations/0001_a.sql:4:3: 0001_a failed: column")
    assert "4 |   CREATE INDEX CONCURRENTLY ON kept (nothing);" in text
    assert "[migration-failed]\n" in text
    assert "--changed=allow" in text


# --- Python ---


def test_python_error_points_at_its_line(failing: Failing) -> None:
    text = failing.text(
        {
            "0001_a.py": (
                "from yoyo import step\n\ndef fill(connection):\n"
                "    names = {}\n    return names['missing']\n\nstep(fill)\n"
            )
        }
    )
    assert text.startswith(
        "migrations/0001_a.py:5: 0001_a raised KeyError: 'missing' [migration-failed]\n"
    )
    assert "5 | return names['missing']" in text
    assert "next: rolled back; " in text


def test_sql_error_in_a_python_function_points_at_its_line(failing: Failing) -> None:
    failed = failing.event(
        {
            "0001_a.py": (
                "from yoyo import step\n\ndef fill(connection):\n"
                "    with connection.cursor() as cursor:\n"
                "        cursor.execute('SELECT nowhere')\n\nstep(fill)\n"
            )
        }
    )
    assert (failed["path"], failed["line"]) == ("migrations/0001_a.py", 5)
    assert failed["source"].strip() == "cursor.execute('SELECT nowhere')"
    assert failed["message"] == '0001_a failed: column "nowhere" does not exist'


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("step('SELECT 1')\nstep('SELECT nowhere')\n", (2, 14, "step('SELECT nowhere')")),
        ('step("""\n  SELECT 1,\n    nowhere\n""")\n', (3, 5, "    nowhere")),
        ("step('SELECT 1')\nstep('SELECT 1/0')\n", (2, 7, "step('SELECT 1/0')")),
        ("step('SELECT '\n     'nowhere')\n", (1, 0, "step('SELECT '")),
        (
            "group(step('SELECT 1'),\n  step('SELECT nowhere'))\n",
            (2, 16, "  step('SELECT nowhere'))"),
        ),
        ("step('SELECT ' + 'nowhere')\n", (0, 0, "")),
    ],
    ids=["column", "several lines", "no position", "joined", "group", "computed"],
)
def test_sql_error_in_a_python_step_points_into_the_sql(
    failing: Failing, source: str, place: tuple[int, int, str]
) -> None:
    assert failing.place({"0001_a.py": source}) == place


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "from yoyo import step\n\ndef broken(:\n    pass\n",
            (
                "migrations/0001_a.py:3:12: 0001_a is not valid Python: invalid syntax"
                " [invalid-python]\n     3 | def broken(:\n       |            ^\n"
            ),
        ),
        (
            "from yoyo import step\nimport no_such_module\n",
            "migrations/0001_a.py:2: 0001_a imports no_such_module, which is not installed [module",
        ),
        (
            "def load():\n    raise SystemExit(0)\nload()\n",
            "migrations/0001_a.py:2: 0001_a raised SystemExit: 0 when it was imported [",
        ),
    ],
    ids=["syntax", "import", "exit"],
)
def test_python_that_cannot_be_imported_is_refused_with_its_line(
    failing: Failing, database: Database, source: str, expected: str
) -> None:
    text = failing.text({"0000_first.sql": "CREATE TABLE no ()", "0001_a.py": source}, code=2)
    assert text.startswith(expected)
    assert "nothing was changed" in text
    assert database.tables() == set()


# --- not errors of a migration ---


def test_byte_order_mark_and_crlf_are_accepted_and_crlf_in_a_string_is_kept(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_a.sql": b"\xef\xbb\xbf-- depends:\r\nCREATE TABLE kept (word text);\r\n"
            b"INSERT INTO kept VALUES ('a\r\nb');\r\n-- the end\r\n",
            "0001_a.rollback.sql": b"\xef\xbb\xbfDROP TABLE kept;\r\n",
            "0002_b.sql": b"\xef\xbb\xbf-- transactional: false\r\n"
            b"INSERT INTO kept VALUES ('c\r\nd');\r\nVACUUM kept;\r\n",
            "0002_b.rollback.sql": b"DELETE FROM kept;\r\nVACUUM kept;\r\n",
        },
    )
    assert initmig("migrate", url=database.url, folder=folder).code == 0
    assert database.query("SELECT word FROM kept ORDER BY 1") == [("a\r\nb",), ("c\r\nd",)]
    assert initmig("rollback", "--all", url=database.url, folder=folder).code == 0
    assert "kept" not in database.tables()


def test_file_without_statements_is_recorded(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "-- later\n", "0002_b.sql": ";;\n"})
    assert initmig("migrate", url=database.url, folder=folder).code == 0
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 2


@pytest.mark.parametrize("transaction", ["each", "all"])
@pytest.mark.parametrize(
    "name_and_text",
    [
        ("0002_b.sql", "SELECT pg_terminate_backend(pg_backend_pid())"),
        ("0002_b.py", "step('SELECT pg_terminate_backend(pg_backend_pid())')"),
        ("0002_b.py", "step('SELECT pg_terminate_backend(pg_backend_pid())', None, 'all')"),
    ],
    ids=["sql", "python", "python ignoring errors"],
)
def test_connection_lost_in_a_migration_exits_3(
    initmig: Initmig,
    database: Database,
    folder: Path,
    transaction: str,
    name_and_text: tuple[str, str],
) -> None:
    name, text = name_and_text
    write(folder, {"0001_a.sql": "CREATE TABLE a ()", name: text})
    env = {"INITMIG_WAIT_TIMEOUT": "0", "INITMIG_TRANSACTION": transaction}
    result = initmig(url=database.url, folder=folder, env=JSON | env)
    assert result.code == 3
    assert "the connection was lost" in result.events[-1]["message"]
    assert ("a" in database.tables()) == (transaction == "each")
    assert database.value("SELECT count(*) FROM _yoyo_migration") == (transaction == "each")
