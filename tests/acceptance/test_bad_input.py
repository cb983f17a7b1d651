import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.command import Initmig
from tests.support.databases import Database
from tests.support.migrations import write

GOOD = {"0001_good.sql": "CREATE TABLE good ()", "0001_good.rollback.sql": "DROP TABLE good"}


@dataclass(frozen=True)
class Fault:
    """Faulty *files*, and the error that reports the fault."""

    files: Mapping[str, str | bytes]
    message: str
    next: str
    place: str = ""
    source: str = ""
    code: int = 2
    arguments: tuple[str, ...] = field(default=())


DURATIONS = "write 500ms, 5s, 2m, 1h, or seconds such as 5 or 0.5"
PYTHON = "from yoyo import step\n"
FAULTS = {
    "the same id twice": Fault(
        {"0002_x.sql": "SELECT 1", "0002_x.py": PYTHON},
        "FOLDER/0002_x.py and FOLDER/0002_x.sql have the same id, 0002_x",
        "rename the one that is not applied yet",
    ),
    "a dependency that does not exist": Fault(
        {"0002_x.sql": "-- depends: 0001_god\nSELECT 1"},
        "0002_x depends on 0001_god, which does not exist",
        "correct the name, or add the migration",
        "0002_x.sql",
    ),
    "a dependency of Python that does not exist": Fault(
        {"0002_x.py": f"{PYTHON}__depends__ = {{'0001_god'}}\nstep('SELECT 1')"},
        "0002_x depends on 0001_god, which does not exist",
        "correct the name, or add the migration",
        "0002_x.py",
    ),
    "a cycle": Fault(
        {"0002_x.sql": "-- depends: 0003_y", "0003_y.sql": "-- depends: 0002_x"},
        "these migrations depend on each other: ",
        "remove one of the dependencies",
        "000",
    ),
    "a migration that depends on itself": Fault(
        {"0002_x.sql": "-- depends: 0002_x"},
        "these migrations depend on each other: 0002_x",
        "remove one of the dependencies",
        "0002_x.sql",
    ),
    "a rollback without its migration": Fault(
        {"0002_x.rollback.sql": "SELECT 1"},
        "FOLDER/0002_x.rollback.sql is the rollback of 0002_x.sql, which does not exist",
        "add 0002_x.sql, or remove the rollback file",
    ),
    "a file that is not UTF-8": Fault(
        {"0002_x.sql": b"SELECT 1;\nSELECT 'caf\xe9';\n"},
        "byte 0xe9 is not valid UTF-8",
        "save the file as UTF-8, for example: iconv -f LATIN1 -t UTF-8 ",
        "0002_x.sql:2:12",
    ),
    "a Python file that is not UTF-8": Fault(
        {"0002_x.py": PYTHON.encode() + b"step('SELECT \xe9')\n"},
        "0002_x is not valid Python: (unicode error) 'utf-8' codec can't decode byte 0xe9",
        "fix the file; nothing was changed",
        "0002_x.py",
    ),
    "a misspelt directive": Fault(
        {"0002_x.sql": "-- transational: false\nVACUUM"},
        "unknown directive 'transational'",
        "write `-- transactional: false`",
        "0002_x.sql:1:4",
        "-- transational: false",
    ),
    "a misspelt value": Fault(
        {"0002_x.sql": "-- transactional: off\nVACUUM"},
        "directive 'transactional' is 'off', but must be true or false",
        "write `-- transactional: true` or `-- transactional: false`, once",
        "0002_x.sql:1:4",
        "-- transactional: off",
    ),
    "Python that does not parse": Fault(
        {"0002_x.py": f"{PYTHON}step('SELECT 1'))\n"},
        "0002_x is not valid Python: unmatched ')'",
        "fix the file; nothing was changed",
        "0002_x.py:2:17",
        "step('SELECT 1'))",
    ),
    "Python that raises at import": Fault(
        {"0002_x.py": f"{PYTHON}import os\nos.environ['NOT_SET']\nstep('SELECT 1')"},
        "0002_x raised KeyError: 'NOT_SET' when it was imported",
        "fix the file; nothing was changed",
        "0002_x.py:3",
        "os.environ['NOT_SET']",
    ),
    "Python that exits at import": Fault(
        {"0002_x.py": f"{PYTHON}raise SystemExit(0)"},
        "0002_x raised SystemExit: 0 when it was imported",
        "fix the file; nothing was changed",
        "0002_x.py:2",
        "raise SystemExit(0)",
    ),
    "Python with an invalid dependency": Fault(
        {"0002_x.py": f"{PYTHON}__depends__ = 1\nstep('SELECT 1')"},
        "0002_x",
        "fix the file; nothing was changed",
        "0002_x.py",
    ),
    "COMMIT": Fault(
        {"0002_x.sql": "SELECT 1;\n  commit;\nSELECT 2"},
        "COMMIT would end the transaction",
        "delete it",
        "0002_x.sql:2:3",
        "  commit;",
    ),
    "BEGIN": Fault(
        {"0002_x.sql": "BEGIN;\nSELECT 1;"},
        "BEGIN would begin a transaction",
        "delete it",
        "0002_x.sql:1:1",
        "BEGIN;",
    ),
    "COMMIT in a rollback": Fault(
        {"0002_x.sql": "SELECT 1", "0002_x.rollback.sql": "SELECT 1; COMMIT"},
        "COMMIT would end the transaction",
        "delete it",
        "0002_x.rollback.sql:1:11",
        "SELECT 1; COMMIT",
    ),
    "a command of psql": Fault(
        {"0002_x.sql": "SELECT 1;\n\\i other.sql\n"},
        r"\i is a psql command, not SQL",
        "make that file a separate migration",
        "0002_x.sql:2:1",
        r"\i other.sql",
    ),
    "a dangling symlink": Fault(
        {}, "cannot read FOLDER/0002_x.sql: No such file", "correct the path"
    ),
    "an id that is unknown": Fault(
        {"0002_x.sql": "SELECT 1"},
        "no migration has the id '0001_goood'",
        "did you mean 0001_good?",
        code=6,
        arguments=("--to", "0001_goood"),
    ),
    "an id that is ambiguous": Fault(
        {"0002_x.sql": "SELECT 1"},
        "'000' matches several migrations: 0001_good, 0002_x",
        "write more of the id",
        code=6,
        arguments=("--to", "000"),
    ),
}  # fmt: skip


def without_permission(path: Path) -> list[str]:
    """Make *path* unreadable; returns the command prefix that makes it unreadable to root too."""
    path.chmod(0)
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv from util-linux")
    capabilities = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_file_is_reported_with_its_location_and_nothing_is_applied(
    name: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    fault = FAULTS[name]
    write(folder, {**GOOD, **fault.files})
    if name == "a dangling symlink":
        (folder / "0002_x.sql").symlink_to("nowhere")
    result = initmig(
        "migrate",
        *fault.arguments,
        url=database.url,
        folder=folder,
        env={"INITMIG_LOG_FORMAT": "json"},
    )
    [failed] = result.events
    assert failed["event"] == "failed"
    assert failed["message"].startswith(fault.message.replace("FOLDER", str(folder)))
    assert failed["next"].startswith(fault.next)
    place = ":".join(str(failed[key]) for key in ("path", "line", "column") if failed[key])
    assert place.startswith(f"{folder}/{fault.place}" if fault.place else "")
    assert bool(place) == bool(fault.place)
    assert failed["source"] == fault.source or not fault.source
    assert failed["exit_code"] == result.code == fault.code
    assert result.out == ""
    assert database.tables() == set()


def test_text_log_shows_the_faulty_line_with_a_caret(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_x.sql": "SELECT 1;\n\tCOMMIT;"})
    result = initmig(url=database.url, folder=folder)
    first, shown, caret, step = result.err.splitlines()
    assert f"error   {folder}/0001_x.sql:2:2: COMMIT would end the transaction" in first
    assert shown == "     2 | \tCOMMIT;"
    assert caret == "       | \t^"
    assert step.startswith("  next: delete it")
    assert result.code == 2


def test_plan_refuses_a_faulty_file(initmig: Initmig, database: Database, folder: Path) -> None:
    write(folder, {**GOOD, "0002_x.sql": "COMMIT"})
    result = initmig("plan", url=database.url, folder=folder)
    assert f"{folder}/0002_x.sql:1:1: COMMIT would end the transaction" in result.err
    assert (result.code, result.out, database.tables()) == (2, "", set())


def test_problems_of_all_files_are_reported_together(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    names = ("a misspelt directive", "Python that raises at import", "a command of psql")
    for number, name in enumerate(names, 2):
        [(file, content)] = FAULTS[name].files.items()
        write(folder, {file.replace("0002_x", f"000{number}_x"): content})
    result = initmig(url=database.url, folder=write(folder, GOOD))
    for number in (2, 3, 4):
        assert f"{folder}/000{number}_x." in result.err
    assert result.err.count(" error ") == 3
    assert (result.code, database.tables()) == (2, set())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mysql://u:hunter2@h/d", "a connection string cannot begin with mysql://"),
        ("postgres://u:hunter2/x@h/d", "must be percent-encoded"),
        ("postgres://u:hunter2@h:port/d", "must be percent-encoded"),
        ("postgres://u:hunter2%zz@h/d", "write % as %25"),
        ("u:hunter2@h/d", "neither a URL"),
        ("host=h password=hunter2 x", "neither a URL"),
    ],
)
def test_malformed_url_is_refused_without_showing_it(
    text: str, reason: str, initmig: Initmig, folder: Path
) -> None:
    folder = write(folder, GOOD)
    by_variable = initmig(url=text, folder=folder)
    secret = folder.parent / "url"
    secret.write_text(text)
    by_file = initmig(folder=folder, env={"DATABASE_URL_FILE": str(secret)})
    for result in (by_variable, by_file, initmig("--database-url", text, folder=folder)):
        assert reason in result.err
        assert "hunter2" not in result.err
        assert result.code == 2
    assert "DATABASE_URL: " in by_variable.err


def test_unknown_url_parameter_is_named_in_the_error(initmig: Initmig, folder: Path) -> None:
    folder = write(folder, GOOD)
    for parameter, message in (
        ("schema", "DATABASE_URL: libpq does not know the parameter schema of the URL: leave it"),
        ("shema", "libpq does not know the parameter shema: if it stands for schema, leave it out"),
    ):
        result = initmig(url=f"postgres://h/d?{parameter}=app", folder=folder)
        assert message in result.err
        assert result.code == 2


def test_invalid_settings_are_reported_together_and_nothing_is_applied(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig(
        "migrate",
        "--lock-timout=1s",
        "--transaction=both",
        "--log-format=json",
        url=database.url,
        folder=write(folder, GOOD),
        env={"INITMIG_WAIT_TIMEOUT": "soon", "INITMIG_LOCK_RETRIES": "-1"},
    )
    assert [(event["message"], event["next"]) for event in result.events] == [
        ("unknown flag --lock-timout", "did you mean --lock-timeout?"),
        (f"INITMIG_WAIT_TIMEOUT: 'soon' is not a duration: {DURATIONS}", ""),
        ("INITMIG_LOCK_RETRIES: '-1' is not a whole number of at least 0", ""),
        ("--transaction: 'both' is not one of each, all", ""),
    ]
    assert (result.code, result.out, database.tables()) == (2, "", set())


def test_unknown_command_is_reported_with_a_suggestion(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig("migrat", url=database.url, folder=write(folder, GOOD))
    assert "unknown command migrat [unknown-command]\n  next: did you mean migrate?\n" in result.err
    assert (result.code, database.tables()) == (2, set())


@pytest.mark.parametrize("command", ["migrate", "status", "plan", "wait"])
def test_folder_that_does_not_exist_is_refused(
    command: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig(command, url=database.url, folder=folder)
    assert f"cannot list the migrations folder {folder}: No such file or directory" in result.err
    assert "next: set --migrations or INITMIG_MIGRATIONS" in result.err
    assert "`initmig new NAME`" in result.err
    assert (result.code, database.tables()) == (2, set())


def test_folder_that_cannot_be_listed_is_refused(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    prefix = without_permission(write(folder, GOOD))
    result = initmig(url=database.url, folder=folder, prefix=prefix)
    folder.chmod(0o755)
    assert f"cannot list the migrations folder {folder}: Permission denied" in result.err
    assert (result.code, database.tables()) == (2, set())


def test_unreadable_file_is_named_and_nothing_is_applied(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {**GOOD, "0002_x.sql": "SELECT 1"})
    prefix = without_permission(folder / "0002_x.sql")
    result = initmig(url=database.url, folder=folder, prefix=prefix)
    assert f"cannot read {folder}/0002_x.sql: Permission denied" in result.err
    assert "next: make it readable" in result.err
    assert (result.code, database.tables()) == (2, set())


def test_empty_folder_is_a_warning_with_allow_empty(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig("--allow-empty", url=database.url, folder=write(folder, {}))
    assert f"warning no migrations in {folder}\n" in result.err
    assert "nothing to do: 0 migrations" in result.err
    assert (result.code, database.tables()) == (0, set())


def test_wildcards_in_the_folder_path_are_literal(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig(url=database.url, folder=write(folder / "v[12] *?", GOOD))
    assert result.code == 0
    assert "good" in database.tables()


def test_byte_order_mark_and_crlf_are_accepted_and_crlf_in_a_string_is_kept(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    sql = "-- why\r\nCREATE TABLE t AS\r\n  SELECT 'a\r\nb' AS text;\r\n"
    write(folder, {"0001_x.sql": b"\xef\xbb\xbf" + sql.encode()})
    assert initmig(url=database.url, folder=folder).code == 0
    assert database.value("SELECT text FROM t") == "a\r\nb"


@pytest.mark.parametrize("to", ["0003_y", "000"])
def test_rollback_to_an_unknown_or_ambiguous_id_changes_nothing(
    to: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder, {**GOOD, "0002_x.sql": "CREATE TABLE x ()", "0002_x.rollback.sql": "DROP TABLE x"}
    )
    assert initmig(url=database.url, folder=folder).code == 0
    result = initmig("rollback", "--to", to, url=database.url, folder=folder)
    assert result.code == 6
    assert {"good", "x"} <= database.tables()
