"""A migration, its record and its COMMIT are one message, without any other difference."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.command import JSON
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Processes
    from tests.support.proxy import MakeProxy, Proxy

ALL = ("migrate", "--transaction=all")
EACH = ("migrate",)
BACK = ("rollback", "--all")


class Counting:
    """Counts the messages of runs through a proxy."""

    def __init__(self, initmig: Initmig, database: Database, proxy: Proxy, folder: Path) -> None:
        self._initmig = initmig
        self._database = database
        self._proxy = proxy
        self._folder = folder

    def run(self, *argv: str, files: Mapping[str, str] | None = None) -> int:
        """The number of messages that *argv* sends, with *files* added to the folder."""
        write(self._folder, files or {})
        before = len(self._proxy.messages)
        url = self._proxy.url(self._database.name)
        result = self._initmig(*argv, url=url, folder=self._folder)
        assert result.code == 0, result.err
        self._proxy.wait_until_quiet()
        return len(self._proxy.messages) - before

    def each(self, *argv: str, name: str, text: str) -> float:
        """The number of messages that *argv* sends for each migration with *name* and *text*.

        In both, `{n}` is a number.
        """

        def files(first: int, last: int) -> dict[str, str]:
            return {name.format(n=n): text.format(n=n) for n in range(first, last + 1)}

        self.run(*argv, files=files(100, 100))  # creates the tables of the history
        one = self.run(*argv, files=files(101, 101))
        return (self.run(*argv, files=files(102, 106)) - one) / 4


@pytest.fixture
def counting(initmig: Initmig, database: Database, proxy: Proxy, folder: Path) -> Counting:
    return Counting(initmig, database, proxy, folder)


@pytest.fixture
def counting_pooled(
    initmig: Initmig,
    database: Database,
    server: DatabaseServer,
    make_proxy: MakeProxy,
    folder: Path,
) -> Iterator[Counting]:
    with running_pgbouncer(server) as bouncer:
        yield Counting(initmig, database, make_proxy(bouncer), folder)


# --- number of messages ---


@pytest.mark.parametrize(
    ("argv", "name", "text", "expected"),
    [
        (EACH, "{n}.sql", "CREATE TABLE t{n} ();", 1),
        (EACH, "{n}.sql", "SET search_path = pg_catalog; CREATE TABLE public.t{n} ()", 1),
        (EACH, "{n}.sql", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT {n}", 1),
        (EACH, "{n}.py", "from yoyo import step\nstep('CREATE TABLE t{n} ()')", 3),
        (EACH, "{n}.py", "from yoyo import step\nstep(lambda c: c.execute('SELECT {n}'))", 3),
        (ALL, "{n}.sql", "CREATE TABLE t{n} ();", 4),
        (ALL, "{n}.py", "from yoyo import step\nstep('CREATE TABLE t{n} ()')", 4),
    ],
    ids=["SQL", "settings", "isolation", "Python", "function", "all", "all in Python"],
)
def test_each_migration_takes_the_expected_number_of_messages(
    counting: Counting, argv: tuple[str, ...], name: str, text: str, expected: int
) -> None:
    assert counting.each(*argv, name=name, text=text) == expected


def test_rollback_of_a_migration_is_one_message(counting: Counting) -> None:
    files = {f"{n}.sql": f"CREATE TABLE t{n} ()" for n in range(6)}
    back = {f"{n}.rollback.sql": f"DROP TABLE t{n}" for n in range(6)}
    counting.run(*EACH, files=files | back)
    one = counting.run("rollback", "--steps=1")
    assert counting.run("rollback", "--steps=5") - one == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE TABLE t{n} ();", 1),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT {n}", 1),
    ],
    ids=["SQL", "isolation"],
)
def test_lock_check_through_a_pooler_takes_no_extra_message(
    counting_pooled: Counting, text: str, expected: int
) -> None:
    assert counting_pooled.each(*EACH, name="{n}.sql", text=text) == expected


# --- errors and results of the server ---


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;\nSELECT 'open",
        "SELECT 1;\nSELECT 'open''",
        "SELECT E'open\\",
        "SELECT E'open\\'",
        "SELECT U&'open\\0061",
        "SELECT 'one'\n'open",
        'SELECT 1 AS "open',
        'SELECT 1 AS U&"open\\',
        "SELECT B'01",
        "SELECT 1;\nSELECT $$open; $",
        "SELECT $initmig$ open",
        "SELECT $a$ open $b$",
        "CREATE TABLE t (); /* open",
        "/* /* one of two */ SELECT 1",
        "SELECT (1;",
        "SELECT 1 +",
        "CREATE TABLE t (",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
        "CREATE TABLE t (); CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2",
        "SELEKT 1; SELECT 'é",
        "SELECT U&'\\d83d'",
    ],
)
@pytest.mark.parametrize("transaction", ["each", "all"])
def test_syntax_error_is_the_same_as_without_the_record_in_the_message(
    initmig: Initmig, database: Database, folder: Path, sql: str, transaction: str
) -> None:
    with database.connect() as connection, pytest.raises(psycopg.Error) as direct:
        connection.execute(sql.encode())
    diagnostics = direct.value.diag
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    assert initmig(url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": f"-- one\r\n{sql}"})
    env = JSON | {"INITMIG_TRANSACTION": transaction}
    result = initmig(url=database.url, folder=folder, env=env)
    assert result.code == 1
    [failed] = [event for event in result.events if event["event"] == "failed"]
    assert failed["message"] == f"0002_b failed: {diagnostics.message_primary}"
    assert failed["sqlstate"] == direct.value.sqlstate
    if diagnostics.statement_position:
        before = sql[: int(diagnostics.statement_position) - 1].split("\n")
        assert (failed["line"], failed["column"]) == (len(before) + 1, len(before[-1]) + 1)
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 1
    assert database.value("SELECT count(*) FROM _yoyo_log") == 1
    assert "t" not in database.tables()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (); -- the end",
        "CREATE TABLE t () /* ' \" $$ */",
        "CREATE TABLE t ();\r\n-- 'not open\r",
        "CREATE TABLE t (); SELECT '/*', $$'$$, E'\\'', '\\', \"t\" FROM (SELECT 1) t (\"t\")",
        "CREATE TABLE t (); SELECT 'one'\n",
        "\ufeffCREATE TABLE t ();;;",
    ],
    ids=["comment", "quotes in a comment", "CR", "quotes", "string", "empty ones"],
)
def test_record_is_written_after_any_end_of_a_file(
    initmig: Initmig, database: Database, folder: Path, sql: str
) -> None:
    odd = "0002_$b$_'c'.sql"
    write(folder, {"0001_a.sql": sql, odd: sql.replace("TABLE t", "TABLE u")})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert {"t", "u"} < database.tables()
    assert database.value("SELECT count(*) FROM _initmig_migration WHERE state = 'applied'") == 2


def test_record_is_written_with_standard_conforming_strings_off(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET standard_conforming_strings = off")
    database.execute(f"ALTER DATABASE {database.name} SET escape_string_warning = off")
    write(folder, {"0001_\\.sql": "CREATE TABLE t AS SELECT '\\'' AS it"})
    result = initmig(url=database.url, folder=folder)
    assert result.code == 0, result.err
    assert database.value("SELECT it FROM t") == "'"
    assert database.value("SELECT migration_id FROM _yoyo_migration") == "0001_\\"
    write(folder, {"0002_b.sql": "SELECT 'open\\'"})
    result = initmig(url=database.url, folder=folder)
    assert (result.code, "unterminated quoted string" in result.err) == (1, True)


@pytest.mark.parametrize("command", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("transaction", ["each", "all"])
def test_migration_that_ends_its_transaction_is_not_recorded(
    initmig: Initmig, database: Database, folder: Path, command: str, transaction: str
) -> None:
    database.execute(f"ALTER DATABASE {database.name} SET standard_conforming_strings = off")
    # initmig sees one string here, this server sees the end of a string and then the command
    write(folder, {"0001_a.sql": f"CREATE TABLE a (); SELECT '\\''; {command}; --'"})
    argv = f"--transaction={transaction}"
    result = initmig("migrate", argv, url=database.url, folder=folder, env=JSON)
    assert result.code == 1
    failed = result.events[-1]
    assert failed["message"] == "0001_a ended the transaction that initmig opened for it"
    assert failed["path"].endswith("0001_a.sql")
    assert failed["error"] == "transaction-ended"
    assert failed["next"].startswith("undo what it has committed")
    assert ("a" in database.tables()) == (command == "COMMIT")
    for table in ("_yoyo_migration", "_yoyo_log", "_initmig_migration"):
        assert database.value(f"SELECT count(*) FROM {table}") == 0


COMMITTING = """
from yoyo import step

def commit(connection):
    connection.execute("CREATE TABLE a ()")
    connection.pgconn.exec_(b"COMMIT")

def continue_after(connection):
    connection.execute("CREATE TABLE b ()")

step(commit)
"""


@pytest.mark.parametrize("more", ["", "step(continue_after)", "step('CREATE TABLE b ()')"])
def test_nothing_runs_after_a_step_that_ends_its_transaction(
    initmig: Initmig, database: Database, folder: Path, more: str
) -> None:
    write(folder, {"0001_a.py": f"{COMMITTING}{more}"})
    result = initmig(url=database.url, folder=folder, env=JSON)
    assert result.code == 1
    message = "0001_a ended the transaction that initmig opened for it"
    assert result.events[-1]["message"] == message
    assert {"a", "b"} & database.tables() == {"a"}
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 0


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("SELECT 1;\nSELECT 1/0;", 2),
        ("SET ROLE pg_monitor;\nSELECT 1;;\n/* ; */ CREATE TABLE nowhere.t ()", 3),
        ("RESET ALL;\n\nDO $$ BEGIN RAISE 'no' USING ERRCODE = '25P01'; END $$", 3),
    ],
    ids=["no position", "settings", "an SQLSTATE for a missing transaction"],
)
def test_line_of_a_failed_statement_is_counted_from_the_start_of_the_file(
    initmig: Initmig, database: Database, folder: Path, sql: str, line: int
) -> None:
    write(folder, {"0001_a.sql": sql})
    result = initmig("--schema=public", url=database.url, folder=folder, env=JSON)
    assert result.code == 1
    assert result.events[-1]["line"] == line
    assert result.events[-1]["message"].startswith("0001_a failed: ")


def test_refused_record_names_the_file_and_rolls_back(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    assert initmig(url=database.url, folder=folder).code == 0
    database.execute("ALTER TABLE _initmig_migration ADD CHECK (migration_id <> '0002_b')")
    write(folder, {"0002_b.sql": "CREATE TABLE b ();\nSELECT 1;\n"})
    result = initmig(url=database.url, folder=folder, env=JSON)
    failed = result.events[-1]
    assert (result.code, failed["sqlstate"]) == (1, "23514")
    assert (failed["path"], failed["line"]) == (f"{folder}/0002_b.sql", 0)
    assert "violates check constraint" in failed["message"]
    assert "b" not in database.tables()
    assert database.value("SELECT count(*) FROM _yoyo_migration") == 1


def test_statement_timeout_applies_to_each_statement(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT pg_sleep(0.7);\n" * 3})
    argv = ("migrate", "--statement-timeout=1s")
    assert initmig(*argv, url=database.url, folder=folder).code == 0
    write(folder, {"0002_b.sql": "SELECT 1;\nSELECT pg_sleep(5);\n"})
    result = initmig(*argv, url=database.url, folder=folder, env=JSON)
    assert (result.code, result.events[-1]["line"]) == (1, 2)
    assert result.events[-1]["sqlstate"] == "57014"


@pytest.mark.parametrize("transaction", ["each", "all"])
@pytest.mark.parametrize("name", ["0002_b.sql", "0002_b.py"])
def test_record_has_the_duration_of_the_migration(
    initmig: Initmig, database: Database, folder: Path, transaction: str, name: str
) -> None:
    sleeping = "SELECT pg_sleep(0.5)"
    text = f"from yoyo import step\nstep('{sleeping}')" if name.endswith("py") else sleeping
    write(folder, {"0001_a.sql": "SELECT pg_sleep(2)", name: text, "0003_c.sql": "SELECT 1"})
    argv = f"--transaction={transaction}"
    assert initmig("migrate", argv, url=database.url, folder=folder).code == 0
    query = (
        "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM _initmig_migration"
        " ORDER BY migration_id"
    )
    first, second, third = (seconds for (seconds,) in database.query(query))
    assert first >= 2
    assert 0.5 <= second < first
    assert 0 <= third < first


# --- imports ---

LOADED = """
import json, os, sys
from initmig.cli.main import main
print(json.dumps([main(["migrate"], os.environ), sorted(sys.modules)]))
"""


NOT_FOR_SQL = (
    "non_transactional",
    "python_import",
    "python_migration",
    "sql_parts",
    "transaction_blocks",
)


def test_applying_sql_imports_no_modules_for_other_migrations(
    database: Database, processes: Processes, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    result = processes.start([sys.executable, "-c", LOADED], env=env).result()
    code, modules = json.loads(result.out)
    assert code == 0, result.err
    others = {"psycopg", "tenacity", "pgparse", "difflib", "initmig.sql.statements"}
    others |= {f"initmig.engine.{each}" for each in NOT_FOR_SQL}
    assert others & set(modules) == set()
