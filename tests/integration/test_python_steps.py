"""How functions in Python steps use their connection, compared with stock yoyo."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.command import Initmig
from tests.support.migrations import write

if TYPE_CHECKING:
    from tests.support.databases import Database
    from tests.support.fork_server import ForkServer
    from tests.support.processes import Processes, Result
    from tests.support.yoyo import Yoyo

pytestmark = pytest.mark.any_version

ROOT = Path(__file__).parents[2]
ROWS_BY_NAME = "SELECT name, array_agg(a ORDER BY a) FROM added GROUP BY name"


def file(body: str, *, name: str = "", calls: str = "step(f)", transactional: bool = True) -> str:
    """A migration whose function `f` runs *body*. In it, `add(n)` inserts a row for *name*."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return (
        "import io, json, uuid, psycopg, psycopg.rows, psycopg.sql, psycopg.types.json\n"
        f"from yoyo import group, step\n__transactional__ = {transactional}\n"
        "RealDictCursor = object\n"
        "def f(connection):\n    cursor = connection.cursor()\n"
        "    def add(number):\n"
        f"        connection.execute('INSERT INTO added VALUES (%s, %s)', [{name!r}, number])\n"
        f"{lines}{calls}\n"
    )


class Tool(NamedTuple):
    """initmig on one database and one folder."""

    initmig: Initmig
    database: Database
    folder: Path

    def run(self, *arguments: str) -> Result:
        options = ("--log-format=json", "--wait-timeout=2")
        return self.initmig(*arguments, *options, url=self.database.url, folder=self.folder)

    def apply(self) -> list[dict[str, Any]]:
        result = self.run("migrate")
        assert result.code == 0, result.err
        return result.events

    def fails(self, *arguments: str) -> dict[str, Any]:
        """The last event of a run that fails, with its exit code."""
        result = self.run(*arguments)
        assert result.code, result.err
        return {**result.events[-1], "code": result.code}

    def added(self) -> dict[str, list[int]]:
        return dict(self.database.query(ROWS_BY_NAME))

    def applied(self) -> set[str]:
        rows = self.database.query("SELECT migration_id FROM _yoyo_migration")
        return {id for (id,) in rows}


@pytest.fixture
def tool(processes: Processes, fork: ForkServer, database: Database, folder: Path) -> Tool:
    database.execute("CREATE TABLE added (name text, a int)")
    return Tool(Initmig(processes, fork), database, folder)


def ignored(events: list[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """By migration, the call that the warning reports as without effect, and its line."""
    found = [event for event in events if event["event"] == "commit_ignored"]
    assert len({event["id"] for event in found}) == len(found)
    return {event["id"]: (event["call"], event["line"]) for event in found}


# --- the transaction of a migration ---

BODY = 9
"""The line where a body begins."""
TRY = "add(1)\ntry:\n    with connection:\n        add(2)\n        raise KeyError\nexcept KeyError:"


class Case(NamedTuple):
    body: str
    kept: list[int]
    ignored: str = ""
    line: int = 0
    in_yoyo: bool = True
    """Whether yoyo with psycopg 3 accepts it as the last step."""


ACCEPTED = {
    "commit": Case("add(1)\nconnection.commit()\nadd(2)", [1, 2], "commit()", 1),
    "commit twice": Case("connection.commit()\nconnection.commit()\nadd(1)", [1], "commit()", 0),
    "COMMIT": Case("add(1)\ncursor.execute('COMMIT')", [1], "COMMIT", 1),
    "END": Case("add(1)\nconnection.execute(' end transaction ; ')", [1], "END", 1),
    "BEGIN and COMMIT": Case(
        "cursor.execute('BEGIN')\nadd(1)\ncursor.execute('COMMIT')", [1], "COMMIT", 2
    ),
    "commit in a pipeline": Case(
        "with connection.pipeline():\n    add(1)\n    connection.commit()", [1], "commit()", 2
    ),
    "autocommit on": Case(
        "connection.autocommit = True\nadd(1)", [1], "autocommit = True", 0, False
    ),
    "autocommit off": Case(
        "connection.set_autocommit(False)\nadd(1)", [1], "autocommit = False", 0, False
    ),
    "isolation level 0": Case(
        "connection.set_isolation_level(0)\nadd(1)", [1], "autocommit = True", 0, False
    ),
    "with connection": Case(
        "with connection as same:\n    add(1)\nadd(2)",
        [1, 2],
        "the commit of `with connection:`",
        0,
        False,
    ),
    "with connection and an error": Case(f"{TRY}\n    add(3)", [1, 3], "", 0, False),
    "with connection in another": Case(
        "with connection:\n    with connection:\n        add(1)",
        [1],
        "the commit of `with connection:`",
        1,
        False,
    ),
    "transaction": Case("with connection.transaction():\n    add(1)", [1]),
    "transaction by name": Case("with connection.transaction('x'):\n    add(1)", [1]),
    "transaction in another": Case(
        "with connection.transaction():\n    add(1)\n    with connection.transaction():\n"
        "        add(2)\n        raise psycopg.Rollback",
        [1],
    ),
    "transaction rolled back": Case(
        "add(1)\nwith connection.transaction(force_rollback=True):\n    add(2)", [1]
    ),
    "savepoint": Case(
        "cursor.execute('SAVEPOINT s')\nadd(1)\ncursor.execute('ROLLBACK TO s')\nadd(2)", [2]
    ),
    "COMMIT in a parameter": Case("cursor.execute('SELECT %s', ['x; COMMIT'])\nadd(1)", [1]),
    "COMMIT in a string literal": Case("cursor.execute(\"SELECT '\\n; COMMIT; '\")\nadd(1)", [1]),
    "pipeline": Case("with connection.pipeline() as p:\n    add(1)\n    p.sync()", [1]),
    "cancel": Case("connection.cancel()\nadd(1)", [1]),
    "tpc_recover": Case("connection.tpc_recover()\nadd(1)", [1]),
    "named cursor": Case("connection.cursor('c').execute('SELECT 1')\nadd(1)", [1]),
}


def test_calls_that_yoyo_accepts_are_accepted_and_do_not_commit(tool: Tool, yoyo: Yoyo) -> None:
    files = {f"{name}.py": file(case.body, name=name) for name, case in ACCEPTED.items()}
    write(tool.folder, files)
    events = tool.apply()
    assert tool.added() == {name: case.kept for name, case in ACCEPTED.items()}
    assert ignored(events) == {
        name: (case.ignored, BODY + case.line) for name, case in ACCEPTED.items() if case.ignored
    }
    tool.database.execute("TRUNCATE added, _yoyo_migration")
    for name, case in ACCEPTED.items():
        if not case.in_yoyo:
            (tool.folder / f"{name}.py").unlink()
    assert yoyo("apply", database=tool.database, folder=tool.folder).code == 0
    assert tool.added() == {name: case.kept for name, case in ACCEPTED.items() if case.in_yoyo}


@pytest.mark.parametrize("name", [name for name, case in ACCEPTED.items() if case.ignored])
def test_ignored_commit_is_rolled_back_by_a_later_failure(tool: Tool, name: str) -> None:
    calls = "step(f)\nstep('SELECT 1/0')"
    write(tool.folder, {"a.py": file(ACCEPTED[name].body, calls=calls)})
    assert "division by zero" in tool.fails("migrate")["message"]
    assert (tool.added(), tool.applied()) == ({}, set())


def test_ignored_commits_are_rolled_back_with_transaction_all(tool: Tool) -> None:
    files = {f"{name}.py": file(case.body) for name, case in ACCEPTED.items() if case.ignored}
    write(tool.folder, {**files, "zz.sql": "SELECT 1/0;"})
    failed = tool.fails("migrate", "--transaction=all")
    assert failed["message"].startswith("zz failed")
    assert (tool.added(), tool.applied()) == ({}, set())


def test_rehearsal_of_a_commit_rolls_back(tool: Tool) -> None:
    body = "add(1)\nconnection.commit()\ncursor.execute('COMMIT')"
    write(tool.folder, {"0.sql": "SELECT 1;"})
    tool.apply()
    write(tool.folder, {"a.py": file(body)})
    assert tool.run("rehearse").code == 0
    assert (tool.added(), tool.applied()) == ({}, {"0"})


REFUSED = {
    "rollback": ("connection.rollback()", "ends-transaction", "raise psycopg.Rollback"),
    "ROLLBACK": ("cursor.execute('rollback')", "ends-transaction", "raise psycopg.Rollback"),
    "ABORT": ("cursor.execute('ABORT; BEGIN')", "ends-transaction", "raise psycopg.Rollback"),
    "COMMIT among others": ("cursor.execute('SELECT 1; COMMIT')", "ends-transaction", "remove"),
    "PREPARE": ("cursor.execute(\"PREPARE TRANSACTION 'x'\")", "ends-transaction", "remove"),
    "executemany": ("cursor.executemany('ROLLBACK', [()])", "ends-transaction", "psycopg.Rollback"),
    "stream": ("list(cursor.stream('SELECT 1; END'))", "ends-transaction", "remove END"),
    "close": ("connection.close()", "closes-connection", "remove the call"),
    "isolation": (
        "connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE",
        "migration-failed",
        "set __transactional__ = False",
    ),
    "read only": ("connection.read_only = True", "migration-failed", "SET TRANSACTION"),
    "deferrable": ("connection.set_deferrable(True)", "migration-failed", "SET TRANSACTION"),
    "two phases": ("connection.tpc_begin('x')", "migration-failed", "run again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_call_that_would_end_the_transaction_is_refused_with_advice(tool: Tool, name: str) -> None:
    body, error, advice = REFUSED[name]
    write(tool.folder, {"a.py": file(f"add(1)\n{body}")})
    failed = tool.fails("migrate")
    assert (failed["code"], failed["error"], failed["line"]) == (1, error, BODY + 1), failed
    assert advice in failed["next"]
    assert (tool.added(), tool.applied()) == ({}, set())
    assert tool.database.value("SELECT count(*) FROM pg_prepared_xacts") == 0


BLOCK_OF_STEPS = "step('BEGIN')\nstep(f)\nstep('COMMIT')"
KINDS = {
    "group": "group(step(f))",
    "step that ignores errors": "step(f, ignore_errors='all')",
    "group that ignores errors": "group(step(f), ignore_errors='all')",
    "rollback": "step('SELECT 1', f)",
    "hook": "step(f)",
    "block of steps": BLOCK_OF_STEPS,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["commit()", "rollback()"])
def test_no_kind_of_function_ends_the_transaction(tool: Tool, kind: str, call: str) -> None:
    name = "post-apply.py" if kind == "hook" else "a.py"
    text = file(
        f"add(1)\nconnection.{call}",
        calls=KINDS[kind],
        transactional=kind != "block of steps",
    )
    write(tool.folder, {name: text, "0.sql": "SELECT 1;"})
    command = ["migrate"]
    if kind == "rollback":
        tool.apply()
        command = ["rollback", "--steps=1"]
    result = tool.run(*command)
    if call == "commit()":
        assert result.code == 0, result.err
        assert list(ignored(result.events).values()) == [("commit()", BODY + 1)]
        assert tool.added() == {"": [1]}
    elif "ignores" in kind:
        assert result.code == 0, result.err
        assert "error_ignored" in {event["event"] for event in result.events}
        assert tool.added() == {}
    else:
        assert (result.code, result.events[-1]["error"]) == (1, "ends-transaction")
        assert tool.added() == {}
    assert ("a" in tool.applied()) == is_applied(kind, failed=result.code != 0)


def is_applied(kind: str, *, failed: bool) -> bool:
    return kind != "hook" and failed == (kind == "rollback")


WITHOUT_A_TRANSACTION = {
    "commit": Case("add(1)\nconnection.commit()", [1]),
    "rollback": Case("add(1)\nconnection.rollback()", [1]),
    "begin and rollback": Case("cursor.execute('BEGIN')\nadd(1)\nconnection.rollback()", []),
    "begin and commit": Case("cursor.execute('BEGIN')\nadd(1)\nconnection.commit()", [1]),
    "autocommit off": Case(
        "connection.autocommit = False\nadd(1)\nconnection.rollback()\nadd(2)\nconnection.commit()"
        "\nconnection.autocommit = True",
        [2],
    ),
    "isolation": Case(
        "connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE\n"
        "with connection.transaction():\n    add(1)\n"
        "    [(level,)] = connection.execute('SHOW transaction_isolation')\n"
        "    assert level == 'serializable'\n"
        "connection.isolation_level = None",
        [1],
    ),
    "transaction": Case(
        "with connection.transaction():\n    add(1)\n    raise psycopg.Rollback", []
    ),
    "isolation level 0": Case("connection.set_isolation_level(0)\nadd(1)", [1], in_yoyo=False),
    "with connection": Case("with connection:\n    add(1)\nadd(2)", [1, 2], in_yoyo=False),
    "with connection and an error": Case(f"{TRY}\n    add(3)", [1, 3], in_yoyo=False),
}


def test_non_transactional_migration_controls_its_transactions(tool: Tool, yoyo: Yoyo) -> None:
    write(
        tool.folder,
        {
            f"{name}.py": file(case.body, name=name, transactional=False)
            for name, case in WITHOUT_A_TRANSACTION.items()
        },
    )
    kept = {name: case.kept for name, case in WITHOUT_A_TRANSACTION.items() if case.kept}
    assert ignored(tool.apply()) == {}
    assert tool.added() == kept
    tool.database.execute("TRUNCATE added, _yoyo_migration")
    for name, case in WITHOUT_A_TRANSACTION.items():
        if not case.in_yoyo:
            (tool.folder / f"{name}.py").unlink()
    assert yoyo("apply", database=tool.database, folder=tool.folder).code == 0
    assert tool.added() == {
        name: rows for name, rows in kept.items() if WITHOUT_A_TRANSACTION[name].in_yoyo
    }


CHANGES = """
connection.autocommit = False
connection.row_factory = psycopg.rows.dict_row
connection.cursor_factory = psycopg.ClientCursor
connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
connection.adapters.register_loader("int4", psycopg.types.string.TextLoader)"""
LOOKS = """
assert connection.execute("SELECT 1").fetchone() == (1,)
assert connection.execute("SELECT pg_typeof(%s)::text", [1]).fetchone() == ("smallint",)
with connection.transaction():
    rows = connection.execute("SHOW transaction_isolation").fetchall()
assert rows == [("read committed",)]
connection.execute("VACUUM added")"""


def test_connection_settings_of_a_migration_are_reset_after_it(tool: Tool, yoyo: Yoyo) -> None:
    write(
        tool.folder,
        {
            "a.py": file(CHANGES.strip(), transactional=False),
            "b.py": file(LOOKS.strip(), transactional=False),
        },
    )
    tool.apply()
    tool.database.execute("TRUNCATE _yoyo_migration")
    assert yoyo("apply", database=tool.database, folder=tool.folder).code == 0


def test_non_transactional_migration_that_closes_the_connection_fails_and_runs_once(
    tool: Tool,
) -> None:
    write(tool.folder, {"a.py": file("add(1)\nconnection.close()", transactional=False)})
    failed = tool.fails("migrate")
    assert (failed["error"], failed["line"]) == ("closes-connection", BODY + 1)
    assert tool.added() == {"": [1]}


# --- missing modules ---

IMPORTS = {
    "module": ("import nothing_of_this_name", "module-not-found", "install nothing_of_this_name"),
    "part of one": ("from nothing.models import X", "module-not-found", "install nothing where"),
    "by another": ("import other", "module-not-found", "install nothing_either where"),
    "psycopg2": ("import psycopg2.extras", "module-not-found", "docs/how-to/psycopg2.md"),
    "name in one": ("from json import nothing", "invalid-python", "fix the file"),
    "relative": ("from . import nothing", "invalid-python", "by its full name"),
    "relative to a package": ("from ..app import x", "invalid-python", "by its full name"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_missing_module_is_named_with_the_line_that_imports_it(
    tool: Tool, tmp_path: Path, name: str
) -> None:
    statement, error, advice = IMPORTS[name]
    modules = write(tmp_path / "modules", {"other.py": "import nothing_either"})
    path = f"import sys; sys.path.append({str(modules)!r})"
    write(tool.folder, {"a.py": f"{path}\n{statement}\nstep('SELECT 1')\n"})
    failed = tool.fails("migrate")
    assert (failed["code"], failed["error"], failed["line"]) == (2, error, 2), failed
    assert advice in failed["next"]
    assert failed["path"].endswith("a.py")


def test_missing_module_of_a_step_is_named(tool: Tool) -> None:
    write(tool.folder, {"a.py": file("import nothing_of_this_name")})
    failed = tool.fails("migrate")
    assert (failed["code"], failed["line"]) == (1, BODY)
    assert "install nothing_of_this_name where initmig runs" in failed["next"]


BROKEN = {
    "module": "import nothing_of_this_name",
    "syntax": "def",
    "exception": "1 / 0",
    "dependencies": "__depends__ = {'no such migration'}\nfrom yoyo import step\nstep('SELECT 1')",
    "dependencies that are not a set": "__depends__ = 5",
    "dependencies that are lists": "__depends__ = [['a']]",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_of_an_applied_migration_does_not_block_others(tool: Tool, name: str) -> None:
    good = "from yoyo import step\nstep('SELECT 1', 'SELECT 1')\n"
    write(tool.folder, {"a.py": good, "b.py": good})
    tool.apply()
    write(tool.folder, {"a.py": BROKEN[name], "c.py": good})
    assert tool.run("plan", "--json").code == 0
    tool.apply()
    assert tool.applied() == {"a", "b", "c"}
    assert tool.run("wait").code == 0
    states = json.loads(tool.run("status", "--json").out)["migrations"]
    assert [row["state"] for row in states] == ["changed", "applied", "applied"]
    assert tool.run("rollback", "--steps=1").code == 0
    write(tool.folder, {"c.py": BROKEN[name]})
    assert tool.run("status", "--json").code == 0
    assert tool.run("rollback", "--steps=1").code == 0
    assert tool.applied() == {"a"}
    assert tool.fails("rollback", "--steps=1")["code"] == 2
    assert tool.fails("migrate")["code"] == 2


# --- written for psycopg2 ---

LINES = (ROOT / "docs" / "how-to" / "psycopg2.md").read_text().splitlines()
CELLS = [re.fullmatch(r"\| `(.+?)` \| `(.+?)` \| `?(.+?)`? \|", line) for line in LINES]
ROWS = [cells.groups() for cells in CELLS if cells]
ITEMS_TABLE = """
CREATE TABLE items (id int, name text, key uuid, data jsonb);
INSERT INTO items VALUES (1, 'x', '1b4e28ba-2fa1-11d2-883f-0016d3cca427', '{}')"""


@pytest.fixture
def items(tool: Tool) -> Tool:
    tool.database.execute(ITEMS_TABLE)
    return tool


def test_every_line_of_the_psycopg2_page_is_parsed() -> None:
    assert len(ROWS) == len([line for line in LINES if line.startswith("| `")])


def test_replacements_and_calls_marked_as_working_work(items: Tool) -> None:
    files = {f"{number:02} new.py": file(new) for number, (_, new, _) in enumerate(ROWS)}
    for number, (old, _, outcome) in enumerate(ROWS):
        if outcome == "works":
            files[f"{number:02} old.py"] = file(old)
    write(items.folder, {"0.sql": "ALTER TABLE added ADD b int;", **files})
    items.apply()
    assert len(files) > len(ROWS)


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] != "works"], ids=lambda row: row[0])
def test_call_that_does_not_work_fails_with_the_documented_advice(
    items: Tool, row: tuple[str, str, str]
) -> None:
    old, _, words = row
    at_import = old.startswith(("import ", "from "))
    write(items.folder, {"a.py": f"{old}\n{file('pass')}" if at_import else file(old)})
    failed = items.fails("migrate")
    assert failed["line"] == (1 if at_import else BODY)
    text = f"{failed['message']}; {failed['next']}".replace("`", "")
    assert words in text
    assert "docs/how-to/psycopg2.md" in text or failed["error"] != "migration-failed"


ID = "SELECT id FROM items WHERE "
LITERALLY = {
    f'{ID} id IN %s", [(1, 2)]': "[(1,)]",
    f'{ID} id NOT IN %(x)s", {{"x": (2,)}}': "[(1,)]",
    f'{ID} (id, name) IN %s", [((1, "x"), (2, "y"))]': "[(1,)]",
    f'{ID} name IN %s", [("x\'); DROP TABLE items; --",)]': "[]",
    f'{ID} name IN %s", [("x\\\\", None)]': "[]",
    f'{ID} (id = 1) IS %s", [True]': "[(1,)]",
    f'{ID} data IS %s", [None]': "[]",
    'SELECT date %s - 1 = date %s", ["2020-01-02", "2020-01-01"]': "[(True,)]",
    'SELECT 1; SELECT id -%s FROM items WHERE name = %s", [-5, "x"]': "[(6,)]",
    'CREATE TABLE d (a text DEFAULT %s, b int CHECK (b > %s))", ["it\'s %s", 1]': "",
    'INSERT INTO d (b) VALUES (5) RETURNING a"': '[("it\'s %s",)]',
    'COMMENT ON TABLE items IS %s", ["x"]': "",
    "SELECT obj_description('items'::regclass)\"": "[('x',)]",
}
"""The arguments of execute(), and the rows that psycopg2 returns for them."""

PSYCOPG_3 = {
    f'{ID} key = ANY(%s)", [["11111111-1111-1111-1111-111111111111"]]': "[]",
    'SELECT pg_typeof(%s)::text", [1]': "[('smallint',)]",
    'SELECT %s -- %s", [1, 2]': "[(1,)]",
    "SELECT 'costs $5', %s\", [1]": "[('costs $5', 1)]",
    "SELECT '$1', %s\", [1]": "[('$1', 1)]",
    "SELECT '%%', %s\", [1]": "[('%', 1)]",
    "SELECT '%%'\"": "[('%%',)]",
    'SELECT old.id FROM items AS old WHERE id = %(x)s OR id = %(x)s", {"x": 1}': "[(1,)]",
    'CREATE TABLE e AS SELECT %s::int AS a", [1]': "",
    'EXPLAIN (COSTS false) SELECT %s::int FROM e WHERE false", [1]': (
        "[('Result',), ('  One-Time Filter: false',)]"
    ),
}
"""The same for calls that psycopg 3 runs unchanged."""
CALLS = {**LITERALLY, **PSYCOPG_3}


def test_values_reach_the_server_as_with_psycopg2(items: Tool) -> None:
    for number, (call, rows) in enumerate(CALLS.items()):
        look = "\nassert cursor.fetchall() == eval(ROWS), ROWS" if rows else ""
        look = look.replace("ROWS", repr(rows))
        body = f'cursor.execute("{call})'
        if call.startswith("SELECT 1;"):
            body += "\ncursor.nextset()"
        write(items.folder, {f"{number:02}.py": file(body + look)})
    items.apply()
    assert len(items.applied()) == len(CALLS)


COPIED = """
cursor.copy_expert("COPY items (id, name) FROM STDIN WITH CSV", io.StringIO("7,é\\n"))
cursor.copy_expert("COPY items (id) FROM STDIN", io.BytesIO(b"8\\n"), size=1)
cursor.copy_from(io.StringIO("9;-\\n"), "items", sep=";", null="-", columns=("id", "name"))
text, data = io.StringIO(), io.BytesIO()
cursor.copy_to(text, "items", sep=",", null="", columns=["id", "name"])
cursor.copy_expert("COPY (SELECT name FROM items WHERE id = 7) TO STDOUT", data)
print(repr(text.getvalue()), data.getvalue() == "é\\n".encode())
cursor.execute("SELECT 10, %s UNION ALL SELECT 11, NULL", ["it's"])
rows = b",".join(cursor.mogrify("(%s, %s)", row) for row in cursor)
cursor.execute(b"INSERT INTO items (id, name) VALUES " + rows)
print(cursor.rowcount, connection.encoding)
cursor.executemany("UPDATE items SET name = %s WHERE id IN %s", [("a", (10, 11)), ("b", (11,))])
print(cursor.rowcount)
with connection.cursor("c") as named:
    named.execute("SELECT name FROM items WHERE id IN %s ORDER BY id", [(10, 11)])
    print(named.fetchall())"""


def test_methods_of_psycopg2_behave_as_before(items: Tool) -> None:
    write(items.folder, {"a.py": file(COPIED.strip())})
    printed = [event["text"] for event in items.apply() if event["event"] == "printed"]
    assert printed == ["'1,x\\n7,é\\n8,\\n9,\\n' True", "2 UTF8", "3", "[('a',), ('b',)]"]
