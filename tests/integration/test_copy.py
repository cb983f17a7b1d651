"""COPY ... FROM STDIN with its data in the file works as in psql, inside the transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.databases import ASLEEP
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.statements import kinds
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Result, Running
    from tests.support.proxy import MakeProxy

TABLE = "CREATE TABLE t (id int, name text);\n"
GATE = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WHILE EXISTS (SELECT FROM pg_class WHERE relname = 'gate') LOOP
        PERFORM pg_sleep(0.05);
    END LOOP;
    RETURN NEW;
END $$;
"""
GATED = f"""{GATE}
CREATE TABLE t (id int, name text);
CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait();
COPY t FROM stdin;
1\tone
2\ttwo
\\.
CREATE TABLE after ();
"""
REFUSING = """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.id = 2 THEN RAISE 'no, line 9'; END IF; RETURN NEW; END $$;
CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no();
"""
# If the folder has a Python step, initmig connects with psycopg.
PYTHON = {"0000.py": "from yoyo import step\nstep('SELECT 1', 'SELECT 1')\n"}


class Files:
    """The folder for the migration of a test, and the commands that use it."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self._initmig = initmig

    def write(self, text: str, name: str = "0001_data.sql") -> None:
        write(self.folder, {name: text})

    def run(self, *argv: str, url: str = "") -> Result:
        return self._initmig(*argv, url=url or self.database.url, folder=self.folder)

    def start(self, *argv: str) -> Running:
        return self._initmig.start(*argv, url=self.database.url, folder=self.folder)

    def apply(self, text: str, *argv: str) -> None:
        self.write(text)
        result = self.run("migrate", *argv)
        assert result.code == 0, result.err

    def fails(self, text: str, *, code: int = 1) -> str:
        """The error output. Asserts that the migration was rolled back."""
        self.write(text)
        result = self.run("migrate")
        assert result.code == code, result.err
        assert "t" not in self.database.tables()
        assert "0001_data" not in self.recorded()
        return result.err

    def recorded(self) -> list[str]:
        if "_yoyo_migration" not in self.database.tables():
            return []
        return [id for (id,) in self.database.query("SELECT migration_id FROM _yoyo_migration")]


@pytest.fixture(params=[{}, PYTHON], ids=["libpq", "psycopg"])
def files(
    request: pytest.FixtureRequest, initmig: Initmig, database: Database, folder: Path
) -> Files:
    write(folder, request.param)
    return Files(initmig, database, folder)


# --- accepted data ---


@pytest.mark.parametrize(
    ("copy", "rows"),
    [
        ("COPY t FROM stdin;\n1\tone\n2\t\\N\n\\.\n", [(1, "one"), (2, None)]),
        ("COPY t FROM stdin;\n\\.\n", []),
        ("COPY t FROM stdin;\n1\ta\\nb\\\\.\n\\.\n", [(1, "a\nb\\.")]),
        ("COPY t FROM stdin;\r\n1\tone\r\n\\.\r\n", [(1, "one")]),
        ("copy t (name, id) from stdin (format csv, header);\nx,y\né🐘',1\n\\.\n", [(1, "é🐘'")]),
        ('COPY t FROM stdin CSV;\n1,"a\n\\i;b"\n\\.\n', [(1, "a\n\\i;b")]),
        (
            "COPY t FROM stdin;\n1\tCOMMIT;\n\\.\nCOPY t FROM stdin;\n2\t$$'\n\\.\n",
            [(1, "COMMIT;"), (2, "$$'")],
        ),
    ],
    ids=["text", "empty", "escapes", "crlf", "header", "line end in a value", "two"],
)
def test_data_is_inserted(files: Files, copy: str, rows: list[tuple[int, str | None]]) -> None:
    files.apply(f"{TABLE}{copy}INSERT INTO t VALUES (9, 'after');")
    assert files.database.query("SELECT * FROM t ORDER BY id") == [*rows, (9, "after")]


@pytest.mark.parametrize("transactional", ["", "-- transactional: false\n"])
def test_copy_to_stdout_is_read_and_discarded(files: Files, transactional: str) -> None:
    rows = "SELECT n, repeat('x', 900) FROM generate_series(1, 20000) AS n"
    files.apply(
        f"{transactional}{TABLE}COPY ({rows}) TO STDOUT;\nCOPY t TO STDOUT;\n"
        "COPY t FROM stdin;\n1\tone\n\\.\nCOPY t TO STDOUT (FORMAT binary);"
    )
    assert files.database.query("SELECT * FROM t") == [(1, "one")]


def test_failure_during_copy_to_stdout_names_its_line(files: Files) -> None:
    failing = "COPY (SELECT 1 / (5000 - n) FROM generate_series(1, 10000) AS n) TO STDOUT;"
    err = files.fails(f"{TABLE}{failing}\nSELECT 1;")
    assert "division by zero" in err
    assert "0001_data.sql:2:1" in err


def test_sigterm_during_copy_to_stdout_rolls_back(files: Files) -> None:
    rows = "SELECT n, pg_sleep(0.01) FROM generate_series(1, 100000) AS n"
    files.write(f"{TABLE}COPY ({rows}) TO STDOUT;")
    running = files.start()
    wait_until(lambda: files.database.value(ASLEEP) == 1)
    running.terminate()
    assert running.result(timeout=10).code == 143
    assert "t" not in files.database.tables()


def test_connection_lost_during_copy_to_stdout_is_retried(files: Files) -> None:
    files.database.execute("CREATE TABLE gate ()")
    gated = "SELECT pg_sleep(0.01) FROM generate_series(1, 100000) WHERE to_regclass('gate') > 0"
    files.write(f"{TABLE}COPY ({gated}) TO STDOUT;")
    running = files.start()
    wait_until(lambda: files.database.value(ASLEEP) == 1)
    # before the connection is cut, because the next attempt can start immediately
    files.database.execute("DROP TABLE gate")
    cut = ASLEEP.replace("count(*)", "pg_terminate_backend(pid)")
    wait_until(lambda: bool(files.database.query(cut)))  # it is not asleep between two rows
    running.wait_for_line("the connection was lost")
    assert running.result().code == 0
    assert "t" in files.database.tables()


def test_data_may_end_without_a_newline(files: Files) -> None:
    files.apply(f"{TABLE}COPY t FROM stdin;\n1\tone\n\\.")
    assert files.database.query("SELECT * FROM t") == [(1, "one")]


def test_rollback_file_may_contain_data(files: Files) -> None:
    files.write(f"{TABLE}COPY t FROM stdin;\n1\tone\n\\.\n", "0001_data.rollback.sql")
    files.apply("CREATE TABLE u ()")
    back = files.run("rollback", "--steps=1")
    assert back.code == 0, back.err
    assert files.database.query("SELECT * FROM t") == [(1, "one")]
    assert "0001_data" not in files.recorded()


def test_data_is_inserted_with_transaction_all(files: Files) -> None:
    data = f"{TABLE}COPY t FROM stdin;\n1\tone\n\\.\n"
    files.write("SELECT 1 / 0", "0002_fails.sql")
    files.write(data)
    failed = files.run("migrate", "--transaction=all")
    assert failed.code == 1
    assert "t" not in files.database.tables()
    files.write("SELECT 1", "0002_fails.sql")
    files.apply(data, "--transaction=all")
    assert files.database.query("SELECT * FROM t") == [(1, "one")]


def test_non_transactional_migration_resumes_after_its_data(files: Files) -> None:
    text = (
        "-- transactional: false\nCREATE TABLE t (id int, name text);\nVACUUM t;\n"
        "COPY t FROM stdin;\n1\tone\n\\.\nVACUUM t;\n"
        "BEGIN;\nCOPY t FROM stdin;\n2\t{}\n\\.\nCOMMIT;\n"
    )
    files.write(text.format("two\tand more"))
    failed = files.run("migrate")
    assert failed.code == 1
    assert "0001_data.sql:10:1: 0001_data failed: extra data after last expected col" in failed.err
    assert "0001_data" not in files.recorded()
    files.apply(text.format("two"), "--changed=allow")
    assert files.database.query("SELECT * FROM t ORDER BY 1") == [(1, "one"), (2, "two")]


def test_statement_unknown_to_the_parser_does_not_turn_data_into_sql(files: Files) -> None:
    files.write(
        "-- transactional: false\nCREATE TABLE t (name text);\nCOPY t FROM stdin;\n"
        "SELECT 1;\n\\.\nSELEKT 2;"
    )
    failed = files.run("migrate")
    assert failed.code == 1
    assert '0001_data.sql:6:1: 0001_data failed: syntax error at or near "SELEKT"' in failed.err
    assert files.database.query("SELECT * FROM t") == [("SELECT 1;",)]


def test_notices_of_a_trigger_do_not_block_the_data(files: Files) -> None:
    rows = "".join(f"{n}\t{'x' * 1000}\n" for n in range(3000))
    files.apply(
        "CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE NOTICE '%', NEW.name; RETURN NEW; END $$;\n"
        f"{TABLE}CREATE TRIGGER say BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION say();\n"
        f"COPY t FROM stdin;\n{rows}\\.\n",
        "--log-level=warning",
    )
    assert files.database.value("SELECT count(*) FROM t") == 3000


def test_settings_of_a_file_affect_neither_its_record_nor_the_next_file(files: Files) -> None:
    files.write("CREATE TABLE next ()", "0002_next.sql")
    files.apply(
        "SELECT pg_catalog.set_config('search_path', '', false);\nSET statement_timeout = 1;\n"
        "SET statement_timeout = 0;\nCREATE TABLE public.t (id int);\n"
        "COPY public.t FROM stdin;\n1\n\\.\n"
    )
    assert {"t", "next", "_yoyo_migration"} < files.database.tables()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_data_is_inserted_through_a_pooler(files: Files, server: DatabaseServer, mode: str) -> None:
    files.write(
        "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.t (id int);\n"
        "COPY public.t FROM stdin;\n1\n\\.\n"
    )
    with running_pgbouncer(server, pool_mode=mode, default_pool_size=2) as bouncer:
        result = files.run("migrate", url=bouncer.url(files.database.name))
    assert result.code == 0, result.err
    assert files.database.query("SELECT * FROM t") == [(1,)]
    assert "0001_data" in files.recorded()


def test_role_without_superuser_can_copy(files: Files) -> None:
    url = files.database.login_role("GRANT CREATE, USAGE ON SCHEMA public TO {role}")
    files.write(f"{TABLE}COPY t FROM stdin;\n1\tone\n\\.\n")
    result = files.run("migrate", url=url)
    assert result.code == 0, result.err
    assert files.database.query("SELECT * FROM t") == [(1, "one")]


# --- failures ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY t FROM stdin;\n1\tone\nx\ttwo\n3\tthree\n\\.\n", ":4:1: 0001_data failed: invalid"),
        ("COPY t FROM stdin;\n1\n\\.\n", ":3:1: 0001_data failed: missing data for column"),
        ('COPY t FROM stdin CSV HEADER;\na,b\n1,"\n"\nx,y\n\\.\n', ":6:1: 0001_data failed: inv"),
        (
            "COPY t FROM stdin;\n1\t1\n2\t2\n\\.\nSELECT 1;\nCOPY t FROM stdin;\n1\t1\ny\t\n\\.\n",
            ":9:1: 0001_data failed: invalid input syntax for type integer",
        ),
        ("COPY u FROM stdin;\n1\n\\.\n", ':2:1: 0001_data failed: relation "u" does not exist'),
        (
            "COPY t FROM stdin;\n1\t1\n\\.\n\nSELECT  missing;",
            ':6:9: 0001_data failed: column "missing" does not exist',
        ),
        (
            "COPY t FROM stdin;\n1\t1\n\\.\n\n  SELECT id / 0 FROM t;",
            ":6:3: 0001_data failed: division by zero",
        ),
        (
            f"{REFUSING}COPY t FROM stdin;\n1\t1\n2\t2\n\\.\n",
            ":7:1: 0001_data failed: no, line 9",
        ),
        (
            "ALTER TABLE t ADD UNIQUE (id) DEFERRABLE;\nCOPY t FROM stdin;\n1\t\n1\t\n\\.\n",
            ":3:1: 0001_data failed: duplicate key value",
        ),
        (
            "COPY t FROM stdin (FORMAT binary);\n1\n\\.\n",
            ":2:1: 0001_data failed: COPY file signature not recognized",
        ),
        (
            "COPY t FROM stdin;\n1\t1\n\\.\nCOMMENT ON TABLE t IS 'open",
            ":5:23: 0001_data failed: un",
        ),
    ],
    ids=[
        *("line", "first line", "physical line", "second", "no data requested", "after, position"),
        *("after, statement", "trigger", "end of the data", "binary", "cannot be read"),
    ],
)
def test_failure_names_its_line(files: Files, text: str, expected: str) -> None:
    err = files.fails(TABLE + text)
    assert f"0001_data.sql{expected}" in err


def test_failure_shows_the_line_of_the_data(files: Files) -> None:
    err = files.fails(f"{TABLE}COPY t FROM stdin;\n1\tone\nx\ttwo\n\\.\n")
    assert "     4 | x\ttwo\n       | ^\n" in err
    assert 'CONTEXT: COPY t, line 2, column id: "x"' in err
    assert "[migration-failed]" in err
    assert "next: rolled back; " in err


@pytest.mark.parametrize(
    ("text", "expected", "id"),
    [
        ("COPY t FROM stdin;\n1\tone\n", ":2:1: COPY ... FROM STDIN", "copy-without-data"),
        ("\\restrict x\n\\i other.sql\n", ":3:1: \\i ", "psql-command"),
        ("COPY t FROM stdin;\n\\.\n\\connect x\n", ":4:1: \\connect ", "psql-command"),
        ("COPY t FROM stdin;\n\\.\n\\.\n", ":4:1: \\. ", "psql-command"),
        ("\\unrestricted x\n", ":2:1: \\unrestricted ", "psql-command"),
        ("COPY t FROM stdin;\n\\.\nCOMMIT;", ":4:1: COMMIT ", "transaction-command"),
    ],
)
def test_psql_commands_and_transaction_commands_are_refused(
    files: Files, text: str, expected: str, id: str
) -> None:
    err = files.fails(TABLE + text, code=2)
    assert f"0001_data.sql{expected}" in err
    assert f"[{id}]" in err


def test_data_that_the_server_does_not_request_is_an_error(files: Files) -> None:
    files.database.execute(
        f"ALTER DATABASE {files.database.name} SET standard_conforming_strings = off"
    )
    # the server reads everything from the first quote as one string
    err = files.fails(f"{TABLE}SELECT '\\';\nCOPY t FROM stdin;\n1\t1\n\\.\n--';")
    assert "the server did not ask for the data of each COPY ... FROM STDIN" in err


# --- stopped, disconnected, delayed by a lock ---


def test_sigterm_during_the_data_rolls_back(files: Files) -> None:
    files.database.execute("CREATE TABLE gate ()")
    rows = "".join(f"{n}\t{'x' * 1000}\n" for n in range(20_000))  # exceeds all buffers
    files.write(GATED.replace("1\tone\n", f"1\tone\n{rows}"))
    running = files.start("migrate")
    wait_until(lambda: files.database.value(ASLEEP) == 1)
    running.terminate()
    result = running.result(timeout=20)
    assert result.code == 143, result.err
    wait_until(lambda: files.database.value(ASLEEP) == 0)
    assert "t" not in files.database.tables()
    assert "0001_data" not in files.recorded()
    assert files.database.query("SELECT * FROM yoyo_lock") == []


def test_connection_lost_during_the_data_is_retried(files: Files) -> None:
    files.database.execute("CREATE TABLE gate ()")
    rows = "".join(f"{n}\t{'x' * 1000}\n" for n in range(20_000))
    files.write(GATED.replace("1\tone\n", rows))
    running = files.start("migrate")
    wait_until(lambda: files.database.value(ASLEEP) == 1)
    files.database.query(ASLEEP.replace("count(*)", "pg_terminate_backend(pid)"))
    files.database.execute("DROP TABLE gate")
    result = running.result()
    assert result.code == 0, result.err
    assert files.database.value("SELECT count(*) FROM t") == 20_001
    assert {"after"} < files.database.tables()


def test_retry_after_a_lock_timeout_sends_the_data_again(files: Files) -> None:
    files.database.execute(TABLE)
    files.write("COPY t FROM stdin;\n1\tone\n\\.\n")
    with files.database.connect() as other:
        other.execute("BEGIN; LOCK TABLE t")
        running = files.start("migrate", "--lock-timeout=100ms")
        running.wait_for_line("0001_data: lock timeout; retry 1")
        other.execute("ROLLBACK")
    result = running.result()
    assert result.code == 0, result.err
    assert files.database.query("SELECT * FROM t") == [(1, "one")]


# --- messages ---


def test_file_without_data_is_one_message_without_psql_restrictions(
    initmig: Initmig,
    server: DatabaseServer,
    database: Database,
    make_proxy: MakeProxy,
    folder: Path,
) -> None:
    write(folder, {"0001_data.sql": f"\\restrict aB3\n\n{TABLE}\n\\unrestrict aB3\n"})
    proxy = make_proxy(server)
    assert initmig(url=proxy.url(database.name), folder=folder).code == 0
    [message] = [query for query in proxy.queries if TABLE in query]
    first, *others = kinds(message)
    assert first == "BEGIN"
    assert "COMMIT" in others
    assert "'0001_data'" in message
    assert "restrict" not in message
