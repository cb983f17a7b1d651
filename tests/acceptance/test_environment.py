"""Values and names that are not UTF-8, line ends after values, few descriptors, few threads."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.command import JSON, WITHOUT_WAIT
from tests.support.databases import create_database
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Processes, Result

pytestmark = pytest.mark.any_version

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0002_b.py": "from yoyo import step\nstep('CREATE TABLE b ()', 'DROP TABLE b')",
}
LATIN_1 = os.fsdecode(b"caf\xe9")
JSON_WITHOUT_WAIT = JSON | WITHOUT_WAIT
ENDS = {"LF": "\n", "CR LF": "\r\n", "blanks": " \t", "all of it": " \n\r\n "}


def libpq_variables(database: Database) -> dict[str, str]:
    parts = urlsplit(database.url)
    return {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port),
        "PGUSER": parts.username or "",
        "PGPASSWORD": parts.password or "",
        "PGDATABASE": database.name,
        "PGAPPNAME": "shop",
        "PGSSLMODE": "disable",
        "PGCONNECT_TIMEOUT": "7",
        "PGOPTIONS": "-c statement_timeout=7000",
        "PGTARGETSESSIONATTRS": "any",
    }


def assert_no_internal_error(result: Result) -> None:
    """Assert that each line of stderr is JSON and reports no internal error."""
    assert "internal-error" not in [event.get("error") for event in result.events]


# --- line ends ---


@pytest.mark.parametrize("end", ENDS)
def test_libpq_variables_may_have_trailing_whitespace(
    end: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    given = libpq_variables(database)
    env = {name: value + ENDS[end] for name, value in given.items()}
    env["PGPASSWORD"] = given["PGPASSWORD"] + ENDS[end].replace(" ", "").replace("\t", "")
    write(folder, FILES)
    for argv in (("status",), ("doctor",), ("migrate",), ("wait",)):
        result = initmig(*argv, folder=folder, env=env)
        assert result.code == 0, result.err
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    result = initmig("exec", "--", sys.executable, "-c", code, folder=folder, env=env)
    assert result.code == 0, result.err
    assert env.items() <= json.loads(result.out).items()  # the application gets them unchanged


def test_password_may_end_in_a_space(initmig: Initmig, database: Database, folder: Path) -> None:
    role = urlsplit(database.login_role()).username
    database.execute(f"ALTER ROLE {role} PASSWORD 'secret '")
    env = libpq_variables(database) | {"PGUSER": role or "", "PGPASSWORD": "secret \n"}
    result = initmig("wait", "--for=database", folder=write(folder, FILES), env=env)
    assert result.code == 0, result.err


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", ["DATABASE_URL", "DATABASE_URL_FILE", "content", "url_env"])
def test_url_may_have_trailing_whitespace(
    way: str, end: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    content = database.url + (ENDS[end] if way == "content" else "")
    write(folder.parent, {"secret": content, "targets.toml": '[[target]]\nname="x"\nurl_env="U"\n'})
    env = {
        "DATABASE_URL": {"DATABASE_URL": database.url + ENDS[end]},
        "DATABASE_URL_FILE": {"DATABASE_URL_FILE": f"{folder.parent}/secret{ENDS[end]}"},
        "content": {"DATABASE_URL_FILE": f"{folder.parent}/secret"},
        "url_env": {"INITMIG_TARGETS": "targets.toml" + ENDS[end], "U": database.url + ENDS[end]},
    }[way]
    result = initmig("migrate", folder=write(folder, FILES), env=env, cwd=folder.parent)
    assert result.code == 0, result.err
    assert "a" in database.tables()


# --- bytes that are not UTF-8 ---


@pytest.mark.parametrize("argv", ["migrate", "status", "doctor"])
@pytest.mark.parametrize(
    "case",
    [
        (["--database-url=postgresql://h/{bad}"], {}, 2),
        ([], {"DATABASE_URL": "postgresql://h/{bad}"}, 2),
        ([], {"DATABASE_URL": "dbname={bad}"}, 2),
        ([], {"DATABASE_URL_FILE": "{bad}"}, 2),
        ([], {"DATABASE_URL_FILE": "secret"}, 2),
        ([], {"PGUSER": "{bad}"}, 4),
        ([], {"PGDATABASE": "{bad}"}, 4),
        ([], {"PGHOST": "{bad}"}, 3),
        ([], {"PGHOST": "{bad},{bad}"}, 3),
        ([], {"PGHOST": "a..b,c"}, 3),
        ([], {"PGSERVICE": "{bad}"}, 2),
        (["--schema={bad}"], {}, 2),
        ([], {"INITMIG_ROLE": "{bad}"}, 2),
        (["--migrations={bad}"], {}, 2),
        (["--{bad}"], {}, 2),
        (["--wait-timeout={bad}"], {}, 2),
        (["{bad}"], {}, 2),
    ],
    ids=str,
)
def test_non_utf8_bytes_are_refused(
    case: tuple[list[str], dict[str, str], int],
    argv: str,
    initmig: Initmig,
    database: Database,
    folder: Path,
) -> None:
    flags, env, code = case
    (folder.parent / "secret").write_bytes(b"postgresql://h/caf\xe9")
    given = libpq_variables(database) | JSON_WITHOUT_WAIT | env
    result = initmig(
        argv,
        *(each.replace("{bad}", LATIN_1) for each in flags),
        folder=write(folder, FILES),
        env={name: value.replace("{bad}", LATIN_1) for name, value in given.items()},
        cwd=folder.parent,
    )
    assert result.code == code, result.err
    assert_no_internal_error(result)
    assert database.tables() == set()


@pytest.mark.parametrize(
    ("flags", "code"),
    [(["--to", LATIN_1], 6), (["--targets", LATIN_1], 2), (["--each-schema", LATIN_1], 2)],
    ids=str,
)
def test_non_utf8_arguments_of_migrate_are_refused(
    flags: list[str], code: int, initmig: Initmig, database: Database, folder: Path
) -> None:
    folder = write(folder, FILES)
    result = initmig("migrate", *flags, url=database.url, folder=folder, env=JSON_WITHOUT_WAIT)
    assert result.code == code
    assert_no_internal_error(result)
    assert database.tables() == set()


@pytest.mark.parametrize("key", ["name", "url", "schema", "role"])
def test_nul_character_in_a_target_is_refused_except_in_its_name(
    key: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    values = {"name": "x", key: {"url": database.url}.get(key, "public") + "\\u0000x"}
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    write(folder.parent, {"targets.toml": "\n".join(["[[target]]", *lines])})
    result = initmig(
        *("migrate", f"--targets={folder.parent}/targets.toml"),
        url=database.url,
        folder=write(folder, FILES),
        env=JSON_WITHOUT_WAIT,
    )
    assert result.code == (0 if key == "name" else 2), result.err
    assert ("a" in database.tables()) == (key == "name")
    assert_no_internal_error(result)


def test_folder_and_termination_log_may_have_non_utf8_names(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    folder = write(folder / LATIN_1, FILES)
    outcome = folder / LATIN_1
    env = JSON_WITHOUT_WAIT | {"INITMIG_TERMINATION_LOG": str(outcome)}
    result = initmig("migrate", url=database.url, folder=folder, env=env)
    assert result.code == 0, result.err
    assert_no_internal_error(result)
    assert outcome.read_text().startswith("applied 2 migrations")
    result = initmig("status", "--json", url=database.url, folder=folder)
    paths = [each["path"] for each in json.loads(result.out)["migrations"]]
    shown = os.fsdecode(folder).encode(errors="backslashreplace").decode()
    assert paths == [f"{shown}/{name}" for name in FILES]


@pytest.mark.parametrize("what", ["a full device", "a folder", "a pipe without a reader"])
def test_unwritable_termination_log_does_not_fail_the_run(
    what: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    pipe = folder.with_name("pipe")
    os.mkfifo(pipe)
    path = {"a full device": "/dev/full", "a folder": str(folder)}.get(what, str(pipe))
    result = initmig(f"--termination-log={path}", url=database.url, folder=write(folder, FILES))
    assert result.code == 0, result.err
    assert {"a", "b"} < database.tables()


def test_exec_passes_non_utf8_bytes_unchanged(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    code = "import sys, os; sys.exit(os.fsencode(sys.argv[1] + os.environ['X']) != 2 * b'caf\\xe9')"
    result = initmig(
        *("exec", "--", sys.executable, "-c", code, LATIN_1),
        url=database.url,
        folder=write(folder, FILES),
        env={"X": LATIN_1},
    )
    assert result.code == 0, result.err


def test_non_utf8_schema_names_are_refused(
    initmig: Initmig, server: DatabaseServer, folder: Path
) -> None:
    raw = create_database(server, options="ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    with raw.connect() as connection:
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        connection.execute(b'CREATE SCHEMA "caf\xe9"')
    write(folder, FILES)
    result = initmig(
        "migrate", "--each-schema=c%", url=raw.url, folder=folder, env=JSON_WITHOUT_WAIT
    )
    assert (result.code, result.events[-1]["sqlstate"]) == (4, "22021")
    assert initmig("migrate", url=raw.url, folder=folder).code == 0
    raw.drop(server)


def test_blocker_with_a_non_utf8_name_is_reported(
    initmig: Initmig,
    server: DatabaseServer,
    database: Database,
    processes: Processes,
    folder: Path,
) -> None:
    # A database without an encoding accepts any bytes as a role name; databases share roles.
    raw = create_database(server, options="ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    role = os.fsdecode(f"{raw.name}_caf".encode() + b"\xe9")
    with raw.connect() as connection:
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        connection.execute(os.fsencode(f"CREATE ROLE \"{role}\" LOGIN SUPERUSER PASSWORD 'x'"))
    database.execute("CREATE TABLE t ()")
    code = (
        "import psycopg, time\nc = psycopg.connect()\nc.execute('LOCK t')\n"
        "print('locked', flush=True)\ntime.sleep(60)"
    )
    env = libpq_variables(database) | {"PGUSER": role, "PGPASSWORD": "x"}
    blocker = processes.start([sys.executable, "-c", code], env=env)
    try:
        wait_until(lambda: "locked" in blocker.out)
        result = initmig(
            *("migrate", "--lock-timeout=1s", "--lock-retries=0"),
            url=database.url,
            folder=write(folder, {"0001_a.sql": "ALTER TABLE t ADD c integer"}),
            env=JSON_WITHOUT_WAIT,
        )
        assert result.code == 1
        assert_no_internal_error(result)
        assert f"user {raw.name}_caf" in result.err
    finally:
        blocker.kill()
        with raw.connect() as connection:
            connection.execute("SET client_encoding = 'SQL_ASCII'")
            connection.execute(os.fsencode(f'DROP ROLE "{role}"'))
        raw.drop(server)


# --- few descriptors, processes and threads ---


def with_limit(what: str) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit {what}; exec "$0" "$@"')


@pytest.mark.parametrize("kind", ["0001_a.sql", "0002_b.py"])
@pytest.mark.parametrize("descriptors", [6, 13, 16, 20])
def test_with_few_descriptors_either_all_targets_or_no_target_is_migrated(
    descriptors: int, kind: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    names = [f"t{number}" for number in range(10)]
    database.execute("".join(f"CREATE SCHEMA {name};" for name in names))
    result = initmig(
        *("migrate", "--each-schema=t%", "--parallel=10", "--json"),
        url=database.url,
        folder=write(folder, {kind: FILES[kind]}),
        prefix=with_limit(f"-n {descriptors}"),
        env=JSON_WITHOUT_WAIT,
    )
    assert_no_internal_error(result)
    outcomes = [json.loads(line) for line in result.out.splitlines()]
    done = [each["target"] for each in outcomes if each["exit_code"] == 0]
    assert result.code == {6: 2, 13: result.code}.get(descriptors, 0), result.err
    if result.code == 0:
        assert sorted(done) == names
        [fewer] = [event for event in result.events if event["event"] == "fewer_processes"]
        assert 0 < fewer["processes"] < fewer["asked"] == 10
    else:
        assert (result.code, result.events[-1]["error"]) == (2, "no-process")
        assert done == []
    assert all("_yoyo_migration" in database.tables(name) for name in done)


@pytest.mark.parametrize("argv", [("migrate",), ("exec", "--", "true")], ids=str)
def test_six_descriptors_are_enough_for_one_database(
    argv: tuple[str, ...], initmig: Initmig, database: Database, folder: Path
) -> None:
    result = initmig(
        *argv,
        url=database.url,
        folder=write(folder, FILES),
        prefix=with_limit("-n 6"),
        env=JSON_WITHOUT_WAIT,
    )
    assert result.code == 0, result.err
    assert {"a", "b"} < database.tables()


@pytest.mark.parametrize(
    "case",
    [
        (("migrate",), 0),
        (("exec", "--", "true"), 0),
        (("migrate", "--each-schema=public"), 2),
        (("serve", "--listen=127.0.0.1:0"), 2),
    ],
    ids=str,
)
def test_migration_runs_unmonitored_if_no_thread_can_start(
    case: tuple[tuple[str, ...], int],
    initmig: Initmig,
    database: Database,
    folder: Path,
    nameless_user: list[str],
) -> None:
    argv, code = case
    # only this process, without a second thread
    prefix = (*nameless_user, "prlimit", "--nproc=1")
    result = initmig(
        *argv, url=database.url, folder=write(folder, FILES), prefix=prefix, env=JSON_WITHOUT_WAIT
    )
    assert result.code == code, result.err
    assert_no_internal_error(result)
    events = [event["event"] for event in result.events]
    applied = {"a", "b"} & database.tables()
    if code:
        assert (applied, result.events[-1]["error"][:3]) == (set(), "no-")
    else:
        assert (applied, events.count("not_watched")) == ({"a", "b"}, 1)
