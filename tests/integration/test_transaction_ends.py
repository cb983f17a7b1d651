"""A migration whose transaction block ends without a commit never counts as applied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from initmig.core.quoting import quote_literal
from tests.faults.test_journal import IN_PARTS, Image
from tests.support.databases import create_database
from tests.support.migrations import write
from tests.support.servers import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo

STEPS = "from yoyo import group, step\n__transactional__ = False\n"
PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid"


@pytest.fixture(scope="module")
def two_phase_server(cluster: Path) -> Iterator[Server]:
    """A server that allows prepared transactions."""
    with running_server(cluster, settings={"max_prepared_transactions": "5"}) as server:
        yield server


@pytest.fixture
def database(two_phase_server: Server) -> Iterator[Database]:
    """An empty database. Prepared transactions are rolled back after the test."""
    empty = create_database(two_phase_server)
    yield empty
    for gid in prepared(empty):
        empty.execute(f"ROLLBACK PREPARED {quote_literal(gid)}")
    empty.drop(two_phase_server)


@pytest.fixture
def image(initmig: Initmig, database: Database, folder: Path) -> Image:
    return Image(initmig, database, folder)


def prepared(database: Database) -> list[str]:
    return [gid for (gid,) in database.query(PREPARED)]


def migrate(image: Image, *arguments: str) -> tuple[Result, dict[str, Any]]:
    """The result of `migrate` and its last event."""
    result = image.run("migrate", "--log-format=json", *arguments)
    return result, result.events[-1]


def is_recorded(image: Image, id: str = "a") -> bool:
    query = "SELECT count(*) FROM _yoyo_migration WHERE migration_id = %s"
    return bool(image.database.value(query, [id]))


def steps(*statements: str) -> str:
    """A file with each of *statements* as a separate step."""
    return STEPS + "".join(f"step({statement!r})\n" for statement in statements)


# --- refused before anything runs ---


class Refused(NamedTuple):
    files: Mapping[str, str]
    place: str
    error: str
    fix: tuple[str, str]
    """The replaced text, and its replacement."""


PREPARE = "PREPARE TRANSACTION 'x'"
COMMITS = (PREPARE, "COMMIT")
BLOCK = f"BEGIN;\nCREATE TABLE t ();\n{PREPARE};\n"
DELETE = (f"{PREPARE};", "")
FINE = {"a.sql": "SELECT 1;"}

REFUSED = {
    "file": Refused({"a.sql": IN_PARTS + BLOCK}, "a.sql:4:1", "prepare-transaction", COMMITS),
    "file, in other words": Refused(
        {"a.sql": f"{IN_PARTS}begin;\n create table t (); prepare /* c */ transaction 'x';"},
        "a.sql:3:21",
        "prepare-transaction",
        ("prepare /* c */ transaction 'x'", "end"),
    ),
    "file without a block": Refused(
        {"a.sql": f"{IN_PARTS}CREATE TABLE t ();\n{PREPARE};"},
        "a.sql:3:1",
        "prepare-transaction",
        DELETE,
    ),
    "rollback file": Refused(
        {
            "a.sql": f"{IN_PARTS}CREATE TABLE t ();",
            "a.rollback.sql": f"BEGIN; SELECT 1;\n{PREPARE};",
        },
        "a.rollback.sql:2:1",
        "prepare-transaction",
        COMMITS,
    ),
    "hook": Refused(
        {**FINE, "post-apply.sql": IN_PARTS + BLOCK},
        "post-apply.sql:4:1",
        "prepare-transaction",
        COMMITS,
    ),
    "step": Refused(
        {"a.py": steps("BEGIN", "CREATE TABLE t ()", PREPARE)},
        "a.py:5:7",
        "prepare-transaction",
        COMMITS,
    ),
    "step that ignores errors": Refused(
        {"a.py": f'{steps("BEGIN")}step("{PREPARE}", ignore_errors="all")\n'},
        "a.py:4:7",
        "prepare-transaction",
        COMMITS,
    ),
    "step with the whole block": Refused(
        {"a.py": f'{STEPS}step("""{BLOCK}""")\n'}, "a.py:5:1", "prepare-transaction", COMMITS
    ),
    "step of a group": Refused(
        {"a.py": f'{STEPS}group(step("BEGIN"), step("{PREPARE}"), ignore_errors="all")\n'},
        "a.py:3:28",
        "prepare-transaction",
        COMMITS,
    ),
    "rollback step": Refused(
        {"a.py": f'{STEPS}step("SELECT 1", "{PREPARE}")\nstep("SELECT 2", "BEGIN")\n'},
        "a.py:3:19",
        "prepare-transaction",
        COMMITS,
    ),
    "transactional file": Refused(
        {"a.sql": f"CREATE TABLE t ();\n{PREPARE};"}, "a.sql:2:1", "transaction-command", DELETE
    ),
    "transactional rollback file": Refused(
        {"a.sql": "SELECT 1;", "a.rollback.sql": f"SELECT 1;\n{PREPARE};"},
        "a.rollback.sql:2:1",
        "transaction-command",
        DELETE,
    ),
    "transactional hook": Refused(
        {**FINE, "post-apply.sql": f"CREATE TABLE t ();\n{PREPARE};"},
        "post-apply.sql:2:1",
        "transaction-command",
        DELETE,
    ),
    "transactional step": Refused(
        {"a.py": f'from yoyo import step\nstep("SELECT 1")\nstep("{PREPARE};")\n'},
        "a.py:3:7",
        "transaction-command",
        (PREPARE, "SELECT 2"),
    ),
    "block without a COMMIT": Refused(
        {"a.sql": f"{IN_PARTS}SELECT 1;\nBEGIN; SELECT 2;"},
        "a.sql:3:1",
        "transaction-not-committed",
        ("SELECT 2;", "COMMIT;"),
    ),
    "block of steps without a COMMIT": Refused(
        {"a.py": steps("BEGIN", "SELECT 1")},
        "a.py:3:7",
        "transaction-not-committed",
        ("SELECT 1", "COMMIT"),
    ),
    "block of one step without a COMMIT": Refused(
        {"a.py": steps("BEGIN; SELECT 1", "COMMIT")},
        "a.py:3",
        "transaction-not-committed",
        ("; SELECT 1", ""),
    ),
    "end of a block among other statements": Refused(
        {"a.py": steps("BEGIN", "SELECT 1; COMMIT")},
        "a.py:4",
        "transaction-command",
        ("SELECT 1; ", ""),
    ),
    **{
        f"{end} AND CHAIN in a {kind}": Refused(
            {f"a.{kind}": f"{IN_PARTS}BEGIN;\n{end} AND CHAIN;\nCOMMIT;"}
            if kind == "sql"
            else {"a.py": steps("BEGIN", f"{end} AND CHAIN", "COMMIT")},
            "a.sql:3:1" if kind == "sql" else "a.py:4:7",
            "commit-and-chain",
            (" AND CHAIN", ""),
        )
        for end in ("COMMIT", "ROLLBACK", "END WORK", "ABORT TRANSACTION")
        for kind in ("sql", "py")
    },
    "AND CHAIN without a block": Refused(
        {"a.sql": f"{IN_PARTS}CREATE TABLE t ();\nCOMMIT AND CHAIN;"},
        "a.sql:3:1",
        "commit-and-chain",
        (" AND CHAIN", ""),
    ),
}


@pytest.mark.any_version
@pytest.mark.parametrize("name", REFUSED)
def test_file_that_would_not_commit_its_block_is_refused_before_anything_runs(
    image: Image, name: str
) -> None:
    case = REFUSED[name]
    write(image.folder, {"0.sql": "CREATE TABLE first ();", **case.files})
    result, last = migrate(image)
    assert (result.code, last["error"]) == (2, case.error), result.err
    assert case.place in f"{last['path']}:{last.get('line')}:{last.get('column')}"
    assert last["next"]
    assert image.database.tables() == set()
    assert prepared(image.database) == []
    fixed = {file: text.replace(*case.fix) for file, text in case.files.items()}
    write(image.folder, fixed)
    image.apply()
    assert image.status("a")["state"] == "applied"
    assert prepared(image.database) == []


# --- accepted, with the same result as yoyo ---

ONE, TWO = "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"

ACCEPTED: dict[str, tuple[Sequence[str], list[int]]] = {
    "commit": (["BEGIN", ONE, "COMMIT"], [1]),
    "commit and no chain": (["BEGIN WORK", ONE, "COMMIT AND NO CHAIN"], [1]),
    "end": (["START TRANSACTION", ONE, "END TRANSACTION"], [1]),
    "rollback": (["BEGIN", ONE, "ROLLBACK", TWO], [2]),
    "rollback transaction": (["BEGIN", ONE, "ROLLBACK TRANSACTION"], []),
    "abort work": (["BEGIN", ONE, "ABORT WORK", TWO], [2]),
    "a second BEGIN in a block": (["BEGIN", ONE, "BEGIN", TWO, "COMMIT"], [1, 2]),
    "start in a block that is rolled back": (["BEGIN", ONE, "START TRANSACTION", "ROLLBACK"], []),
    "commit without a block": ([ONE, "COMMIT", TWO], [1, 2]),
    "rollback without a block": ([ONE, "ROLLBACK", TWO], [1, 2]),
    "commit twice": (["BEGIN", ONE, "COMMIT", "END"], [1]),
    "savepoint": (["BEGIN", "SAVEPOINT s", ONE, "ROLLBACK TO s", TWO, "COMMIT"], [2]),
    "commit of a transaction prepared by another session": (
        ["COMMIT PREPARED 'other'", TWO],
        [2, 9],
    ),
    "rollback of a transaction prepared by another session": (
        ["ROLLBACK PREPARED 'other'", TWO],
        [2],
    ),
}


def prepare_elsewhere(database: Database) -> None:
    database.execute("CREATE TABLE t (a int)")
    database.execute("BEGIN; INSERT INTO t VALUES (9); PREPARE TRANSACTION 'other'")


def rows(database: Database) -> list[int]:
    return [a for (a,) in database.query("SELECT a FROM t ORDER BY a")]


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("kind", ["file", "rollback", "hook", "steps"])
def test_blocks_in_a_file_are_committed_and_rolled_back_as_written(
    image: Image, kind: str, name: str
) -> None:
    statements, expected = ACCEPTED[name]
    text = IN_PARTS + ";\n".join(statements)
    files = {
        "file": {"a.sql": text},
        "rollback": {"a.sql": f"{IN_PARTS}SELECT 1", "a.rollback.sql": text},
        "hook": {**FINE, "post-apply.sql": text},
        "steps": {"a.py": steps(*statements)},
    }
    prepare_elsewhere(image.database)
    write(image.folder, files[kind])
    image.apply()
    assert is_recorded(image)
    if kind == "rollback":
        image.roll_back("--all")
        assert not is_recorded(image)
    assert rows(image.database) == expected
    assert prepared(image.database) == ([] if "PREPARED" in text else ["other"])


@pytest.mark.any_version
@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("together", [False, True], ids=["each a step", "all one step"])
def test_blocks_in_steps_have_the_same_result_as_in_yoyo(
    image: Image, yoyo: Yoyo, two_phase_server: Server, name: str, *, together: bool
) -> None:
    statements, _ = ACCEPTED[name]
    if together and "PREPARED" in statements[0]:
        statements = statements[:1]  # it must be the only statement in its message
    write(image.folder, {"a.py": steps("; ".join(statements)) if together else steps(*statements)})
    prepare_elsewhere(image.database)
    image.apply()
    found, left = rows(image.database), prepared(image.database)
    if left:
        image.database.execute("ROLLBACK PREPARED 'other'")
    stock = create_database(two_phase_server)
    prepare_elsewhere(stock)
    result = yoyo("apply", database=stock, folder=image.folder)
    assert result.code == 0, result.err
    assert (found, left) == (rows(stock), prepared(stock))
    if left:
        stock.execute("ROLLBACK PREPARED 'other'")


def test_failed_block_of_steps_is_rolled_back_and_runs_once_after_a_fix(
    image: Image,
) -> None:
    broken = steps("CREATE TABLE t (a int)", "BEGIN", ONE, "SELECT 1 / 0", TWO, "COMMIT")
    write(image.folder, {"a.py": broken})
    result, last = migrate(image)
    assert (result.code, last["line"]) == (1, 6), result.err
    assert rows(image.database) == []
    assert not is_recorded(image)
    assert image.status("a")["parts_done"] == 1
    write(image.folder, {"a.py": broken.replace("1 / 0", "1 / 1")})
    image.apply("--changed=allow")
    assert rows(image.database) == [1, 2]


def test_block_of_rollback_steps_is_one_transaction(image: Image) -> None:
    text = (
        f'{STEPS}step("CREATE TABLE t (a int)", "SELECT 1")\nstep("SELECT 1", "COMMIT")\n'
        f'step("SELECT 1", "SELECT 1 / count(*) FROM gate")\nstep("SELECT 1", "{ONE}")\n'
        'step("SELECT 1", "BEGIN")\n'
    )
    image.database.execute("CREATE TABLE gate (a int)")
    write(image.folder, {"a.py": text})
    image.apply()
    assert image.run("rollback", "--all").code == 1
    assert rows(image.database) == []
    image.database.execute("INSERT INTO gate VALUES (1)")
    image.roll_back("--all")
    assert rows(image.database) == [1]


def test_ignored_error_in_a_block_fails_the_migration_and_rolls_back_the_block(
    image: Image,
) -> None:
    ignored = 'step("SELECT 1 / 0", ignore_errors="all")\n'
    text = steps("CREATE TABLE t (a int)", "BEGIN", ONE) + ignored + 'step("COMMIT")\n'
    write(image.folder, {"a.py": text})
    result, last = migrate(image)
    assert result.code == 1
    assert "current transaction is aborted" in last["message"]
    assert rows(image.database) == []
    assert not is_recorded(image)
    write(image.folder, {"a.py": text.replace(ignored, "")})
    image.apply("--changed=allow")
    assert rows(image.database) == [1]


# --- detected after the statement ran ---

# tests/integration/test_python_steps.py tests commands that a cursor refuses before sending them
FUNCTION = """
def f(connection):
    connection.execute("CREATE TABLE t ()")
    connection.pgconn.exec_({command!r}.encode())
"""
ENDED = {
    "COMMIT": True,
    "ROLLBACK": False,
    "COMMIT; BEGIN": True,
    "ROLLBACK; BEGIN": False,
    "COMMIT AND CHAIN": True,
    "ABORT AND CHAIN": False,
}
"""Whether the table exists afterwards."""


def python(command: str, *calls: str, transactional: bool = True) -> str:
    header = f"from yoyo import step\n__transactional__ = {transactional}\n"
    return header + FUNCTION.format(command=command) + "".join(f"{call}\n" for call in calls)


@pytest.mark.parametrize("command", ENDED)
@pytest.mark.parametrize("transaction", ["each", "all"])
@pytest.mark.parametrize(
    "calls",
    [
        ("step(f)",),
        ("step(f, ignore_errors='all')",),
        ("step(f)", "step('CREATE TABLE u ()', ignore_errors='all')"),
        ("step(f)", "step(lambda connection: None)"),
    ],
)
def test_migration_whose_function_ends_the_transaction_is_not_recorded(
    image: Image, command: str, transaction: str, calls: tuple[str, ...]
) -> None:
    write(image.folder, {"a.py": python(command, *calls)})
    result, last = migrate(image, f"--transaction={transaction}")
    assert (result.code, last["error"]) == (1, "transaction-ended"), result.err
    assert last["message"] == "a ended the transaction that initmig opened for it"
    assert last["path"].endswith("a.py")
    assert not is_recorded(image)
    assert image.database.tables() & {"t", "u"} == ({"t"} if ENDED[command] else set())
    image.database.execute("DROP TABLE IF EXISTS t")
    write(image.folder, {"a.py": python("SELECT 1", *calls)})
    image.apply()
    assert is_recorded(image)
    assert "t" in image.database.tables()


def test_function_that_ends_the_transaction_is_named(image: Image) -> None:
    write(image.folder, {"a.py": python("COMMIT", "step('SELECT 1')", "step(f)")})
    assert migrate(image)[1]["line"] == 4


@pytest.mark.parametrize("after", ["", "; BEGIN", "; BEGIN; SELECT 1"])
@pytest.mark.parametrize("transaction", ["each", "all"])
def test_transaction_that_a_function_prepares_is_reported(
    image: Image, transaction: str, after: str
) -> None:
    write(image.folder, {"a.py": python("PREPARE TRANSACTION 'it''s'" + after, "step(f)")})
    result, last = migrate(image, f"--transaction={transaction}")
    assert (result.code, last["error"]) == (1, "transaction-left-prepared"), result.err
    assert last["message"] == "a left a prepared transaction: 'it''s'"
    assert "ROLLBACK PREPARED 'it''s'" in last["next"]
    assert prepared(image.database) == ["it's"]
    image.database.execute("ROLLBACK PREPARED 'it''s'")
    assert not is_recorded(image)
    write(image.folder, {"a.py": python("SELECT 1", "step(f)")})
    image.apply()
    assert "t" in image.database.tables()


def test_hook_whose_function_prepares_its_transaction_runs_again(image: Image) -> None:
    write(image.folder, {**FINE, "post-apply.py": python(PREPARE, "step(f)")})
    result, last = migrate(image)
    assert (result.code, last["error"]) == (1, "transaction-left-prepared"), result.err
    assert is_recorded(image)
    image.database.execute("ROLLBACK PREPARED 'x'")
    write(image.folder, {"post-apply.py": python("SELECT 1", "step(f)")})
    image.apply()
    assert "t" in image.database.tables()


WHOLE = "BEGIN; CREATE TABLE b (); PREPARE TRANSACTION 'x'"


@pytest.mark.parametrize(
    "calls",
    [("step(f)",), ("group(step(f), ignore_errors='all')",), ("step('SELECT 1')", "step(f)")],
)
def test_prepared_transaction_of_a_non_transactional_function_is_reported(
    image: Image, calls: tuple[str, ...]
) -> None:
    text = python(WHOLE, *calls, transactional=False).replace("import", "import group,")
    write(image.folder, {"a.py": text.replace("CREATE TABLE t", "CREATE TABLE IF NOT EXISTS t")})
    result, last = migrate(image)
    assert (result.code, last["error"]) == (1, "transaction-left-prepared"), result.err
    assert last["path"].endswith("a.py")
    assert last["line"] == 4
    assert prepared(image.database) == ["x"]
    assert not is_recorded(image)
    assert image.status("a")["state"] == "applying"
    image.database.execute("ROLLBACK PREPARED 'x'")
    fixed = text.replace(PREPARE, "COMMIT").replace("TABLE t", "TABLE IF NOT EXISTS t")
    write(image.folder, {"a.py": fixed})
    image.apply("--changed=allow")
    assert image.database.tables() >= {"t", "b"}
    assert is_recorded(image)


def test_prepared_transaction_of_a_rollback_function_is_reported(image: Image) -> None:
    text = python(WHOLE, "step('SELECT 1', f)", transactional=False)
    write(image.folder, {"a.py": text})
    image.apply()
    result = image.run("rollback", "--all", "--log-format=json")
    assert (result.code, result.events[-1]["error"]) == (1, "transaction-left-prepared")
    assert is_recorded(image)
    assert image.status("a")["state"] == "rolling back"


def test_prepared_transactions_of_an_application_are_not_reported(
    image: Image, database: Database
) -> None:
    prepare_elsewhere(database)
    short = "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION ''short'';"
    database.execute("CREATE TABLE other (a int)")
    function = f"""from yoyo import step
import threading, psycopg
__transactional__ = False
def f(connection):
    app = psycopg.connect({database.url!r}, autocommit=True)
    app.execute("{short.replace("''", "'")}")
    def end():
        app.execute("COMMIT PREPARED 'short'")
        app.close()
    threading.Timer(0.5, end).start()
step(f)
"""
    write(image.folder, {"a.py": function})
    image.apply()
    assert prepared(database) == ["other"]
    assert database.value("SELECT count(*) FROM other") == 1


@pytest.mark.parametrize("command", [*ENDED, PREPARE])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_function_that_ends_the_block_of_other_steps_is_reported(
    image: Image, command: str, end: str
) -> None:
    calls = ("step('BEGIN')", "step(f)", f"step('{end}')")
    write(image.folder, {"a.py": python(command, *calls, transactional=False)})
    result, last = migrate(image)
    error = "transaction-left-prepared" if command == PREPARE else "transaction-ended"
    assert (result.code, last["error"], last["line"]) == (1, error, 4), result.err
    assert ("t" in image.database.tables()) == ENDED.get(command, False)
    assert prepared(image.database) == (["x"] if command == PREPARE else [])
    assert not is_recorded(image)
    for gid in prepared(image.database):
        image.database.execute(f"ROLLBACK PREPARED '{gid}'")
    image.database.execute("DROP TABLE IF EXISTS t")
    write(image.folder, {"a.py": python("SELECT 1", *calls, transactional=False)})
    image.apply("--changed=allow")
    assert is_recorded(image)
    assert ("t" in image.database.tables()) == (end == "COMMIT")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("BEGIN EXECUTE 'PREPARE TRANSACTION ''x'''; END", "not implemented"),
        ("BEGIN EXECUTE 'COMMIT PREPARED ''x'''; END", "not implemented"),
        ("BEGIN EXECUTE 'ROLLBACK'; END", "not implemented"),
        ("BEGIN COMMIT; END", "invalid transaction termination"),
        ("BEGIN ROLLBACK; END", "invalid transaction termination"),
    ],
)
@pytest.mark.parametrize("form", ["transactional", "block", "alone", "procedure"])
def test_do_block_can_only_end_its_own_transaction(
    image: Image, form: str, body: str, message: str
) -> None:
    do = f"DO $$ {body} $$"
    call = f"CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ {body} $$; CALL p()"
    text = {
        "transactional": do,
        "block": f"{IN_PARTS}BEGIN; {do}; COMMIT",
        "alone": IN_PARTS + do,
        "procedure": IN_PARTS + call,
    }[form]
    write(image.folder, {"a.sql": f"{text};"})
    result, last = migrate(image)
    if form in ("alone", "procedure") and "termination" in message:
        assert result.code == 0, result.err
        assert is_recorded(image)
        return
    assert result.code == 1
    assert message in last["message"]
    assert not is_recorded(image)
    assert prepared(image.database) == []


@pytest.mark.parametrize("command", ["COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"])
@pytest.mark.parametrize(
    "files",
    [
        {"a.sql": "CREATE TABLE t ();\n{};"},
        {"a.py": 'from yoyo import step\nstep("CREATE TABLE t ()")\nstep("{}")\n'},
        {"a.sql": IN_PARTS + "BEGIN; CREATE TABLE t ();\n{}; COMMIT;"},
    ],
    ids=["file", "step", "block"],
)
def test_prepared_transaction_cannot_be_ended_inside_another_transaction(
    image: Image, files: dict[str, str], command: str
) -> None:
    image.database.execute("BEGIN; CREATE TABLE u (); PREPARE TRANSACTION 'x'")
    write(image.folder, {name: text.format(command) for name, text in files.items()})
    result, last = migrate(image)
    assert result.code == 1
    assert "cannot run inside a transaction block" in last["message"]
    assert not is_recorded(image)
    assert prepared(image.database) == ["x"]
    assert "t" not in image.database.tables()


def test_prepared_transaction_with_standard_conforming_strings_off_is_reported(
    image: Image,
) -> None:
    name = image.database.name
    image.database.execute(f"ALTER DATABASE {name} SET standard_conforming_strings = off")
    write(image.folder, {"a.sql": f"CREATE TABLE t (); SELECT '\\''; {PREPARE}; --'"})
    result, last = migrate(image)
    assert (result.code, last["error"]) == (1, "transaction-left-prepared"), result.err
    assert prepared(image.database) == ["x"]
    assert not is_recorded(image)


def test_plan_refuses_the_same_files_as_migrate(image: Image) -> None:
    write(image.folder, {"a.sql": IN_PARTS + BLOCK})
    result = image.run("plan", "--json")
    assert result.code == 2
    assert "a.sql:4:1" in result.err
    assert json.loads(image.run("status", "--json").out)["migrations"][0]["state"] == "pending"
