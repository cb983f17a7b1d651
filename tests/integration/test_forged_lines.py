"""Text from any source cannot forge a line or control the terminal, in any output."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import category
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from initmig.core.visible import CONTINUATION
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database

pytestmark = pytest.mark.any_version

STAMP = "2026-11-30T00:00:00.000Z"
"""A time at which no test logs an event."""

FORGED = f"{STAMP} info    FORGED nothing to do"
TERMINAL = "\x1b[2J\x9b2J\x7f\b\u202e\u2066\u200e\u061c\u200b\u200d\ufeff\u2060\U000e0041\ue000"
TEXT = "\n".join(
    (
        f"x FORGED\n{FORGED}\r{FORGED}\r\n{FORGED}\v{FORGED}\x85{FORGED}\u2028{FORGED}",
        "  next: FORGED",
        TERMINAL,
    )
)
NAME = "n\nFORGED\r\x1b[2J\x9b\x7f\u202e\u2028\u200b"
MIGRATION_NAME = "n FORGED\u202e\u2066\u200b\ufeff"
"""A name that is valid for a migration, because it has no control characters."""

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:debug  |info   |warning|error  ) "
    r"|  (?:DETAIL|HINT|CONTEXT|next): | {4}\| | *\d* \| "
)
"""The beginning of each line of the log."""

FINE = {"0001_a.sql": "CREATE TABLE a (n int)", "0001_a.rollback.sql": "DROP TABLE a"}


def as_literal(text: str) -> str:
    """*text* as an SQL string literal in ASCII."""
    return "E'" + "".join(f"\\U{ord(c):08x}" for c in text) + "'"


LITERAL = as_literal(TEXT)
IN_ROWS = as_literal(TEXT[:200] + TERMINAL)
"""A shorter text, because the columns of the history have 255 characters."""

IDENTIFIER = sql.Identifier(NAME).as_string()
IN_ONE_LINE = 'U&"' + "".join(f"\\{ord(c):04x}" for c in NAME) + '"'
READING = (("status",), ("plan",), ("wait", "--wait-timeout=1s"), ("doctor",), ("rehearse",))


def raising(level: str, options: str = "") -> str:
    using = f" USING {options}" if options else ""
    return f"DO $do$ BEGIN RAISE {level} '%', {LITERAL}{using}; END $do$"


class Source(NamedTuple):
    """A source of text, and the commands that show it."""

    files: Mapping[str, str | bytes] = FINE
    applied: Mapping[str, str] = {}
    """Migrations that are applied first."""
    script: str = ""
    """SQL that the superuser runs first."""
    env: Mapping[str, str] = {}
    commands: tuple[tuple[str, ...], ...] = (("migrate",),)
    folder: str = "m"


SERVER = {
    "an error": Source({"1.sql": raising("EXCEPTION")}, commands=(("migrate",), ("rehearse",))),
    "a notice": Source({"1.sql": raising("NOTICE")}, commands=(("rehearse",), ("migrate",))),
    "a warning": Source({"1.sql": raising("WARNING")}),
    "DETAIL and HINT": Source(
        {"1.sql": raising("EXCEPTION", f"DETAIL = {LITERAL}, HINT = {LITERAL}")}
    ),
    "a value that is not unique": Source(
        {"1.sql": f"CREATE TABLE t (a text UNIQUE); INSERT INTO t VALUES ({LITERAL}), ({LITERAL})"}
    ),
    "a constraint": Source(
        {
            "1.sql": f"CREATE TABLE {IDENTIFIER} (a int, CONSTRAINT {IDENTIFIER} CHECK (a = 1));"
            f"INSERT INTO {IDENTIFIER} VALUES (2)"
        }
    ),
    "a line of COPY": Source(
        {"1.sql": f"CREATE TABLE t (a int);\nCOPY t FROM stdin;\nx FORGED{TERMINAL}\n\\.\n"}
    ),
    "escapes of COPY": Source(
        {"1.sql": "CREATE TABLE t (a int);\nCOPY t FROM stdin;\nFORGED\\nFORGED\\r\\x1b\n\\.\n"}
    ),
    "a table that is missing": Source(
        {"1.sql": f"SELECT FROM {IDENTIFIER}"}, commands=(("migrate",), ("doctor",))
    ),
    "an error that a step ignores": Source(
        {"1.py": f"from yoyo import step\nstep({raising('EXCEPTION')!r}, ignore_errors='all')"}
    ),
    "an event trigger": Source(
        script=f"CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE '%', {LITERAL}; END $$;"
        " CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION f()",
        commands=(("migrate",), ("doctor",), ("rehearse",)),
    ),
}
ROWS = {
    "an unknown id": Source(
        applied=FINE,
        script="INSERT INTO _yoyo_migration SELECT 'x', {text}, now();"
        "INSERT INTO _initmig_migration (migration_id, checksum, breaking, state, statements_done,"
        " started_at, username, hostname, image_version)"
        " VALUES ({text}, 'x', true, 'applied', 1, now(), 'u', 'h', '1')",
        commands=(("migrate",), *READING, ("rollback", "--steps=1")),
    ),
    "a half-applied id": Source(
        applied=FINE,
        script="INSERT INTO _initmig_migration (migration_id, checksum, breaking, state,"
        " statements_done, started_at, username, hostname, image_version)"
        " VALUES ({text}, 'x', true, 'applying', 1, now(), {text}, {text}, {text})",
        commands=(("status",),),
    ),
    "the user and host that applied it": Source(
        applied=FINE,
        script="UPDATE _yoyo_log SET username = {text}, hostname = {text};"
        "UPDATE _initmig_migration"
        " SET username = {text}, hostname = {text}, image_version = {text}",
        commands=(("status",),),
    ),
}
NAMES = {
    "a migration": Source(
        {f"{MIGRATION_NAME}.sql": "-- depends: 0001_a\nCREATE TABLE b ()", **FINE},
        commands=(*READING, ("migrate",), ("rollback", "--steps=2", "--irreversible=skip")),
    ),
    "a migration that fails": Source({f"{MIGRATION_NAME}.sql": "SELECT x"}),
    "a migration in Python": Source({f"{MIGRATION_NAME}.py": "raise ValueError('FORGED')"}),
    "a migration that is refused": Source({f"{NAME}.sql": "SELECT 1"}, commands=READING),
    "bytes": Source({b"FORGED\xff\x9b.sql".decode(errors="surrogateescape"): "SELECT 1"}),
    "a folder": Source({"1.sql": "SELECT x"}, folder=NAME, commands=(("migrate",), ("rehearse",))),
    "a folder that is missing": Source(
        {}, folder="m", commands=(("migrate", f"--migrations={NAME}"),)
    ),
    "a file that is ignored": Source({**FINE, f"{NAME}.SQL": "SELECT 1"}),
    "a new migration's folder": Source(commands=(("new", "x", f"--migrations={NAME}"),)),
    "a dependency": Source({"1.sql": f"-- depends: {MIGRATION_NAME.replace(' ', '')}\nSELECT 1"}),
    "a schema": Source(
        script=f"CREATE SCHEMA {IDENTIFIER}",
        commands=(
            ("doctor", f"--schema={NAME}"),
            ("migrate", "--each-schema=n%"),
            ("migrate", "--each-schema=n%", "--json"),
        ),
    ),
    "a schema that fails": Source(
        {"1.sql": raising("EXCEPTION")},
        script=f"CREATE SCHEMA {IDENTIFIER}",
        commands=(("migrate", "--each-schema=n%"),),
    ),
    "a schema that is missing": Source(
        commands=(("migrate", f"--schema={NAME}"), ("doctor", f"--schema={NAME}"))
    ),
    "a role": Source(commands=(("migrate", f"--role={NAME}"), ("doctor", f"--role={NAME}"))),
    "an application's role": Source(commands=(("doctor", f"--app-role={NAME}"),)),
    "a table": Source(
        {"1.sql": f"ALTER TABLE {IN_ONE_LINE} ADD a int"},
        script=f"CREATE TABLE {IDENTIFIER} ()",
        commands=(("plan",), ("rehearse",), ("rehearse", "--markdown")),
    ),
    "SQL": Source(
        {"1.sql": f"SELECT 'FORGED{TERMINAL}'"},
        commands=(("plan",), ("rehearse",), ("rehearse", "--markdown")),
    ),
    "a line with a mistake": Source({"1.sql": f"/* FORGED\t{TERMINAL} */ SELECT missing"}),
    "a line that is not a directive": Source(
        {"1.sql": f"/* x */\n-- depends: FORGED{TERMINAL}\nSELECT 1"}
    ),
    "output of Python": Source({"1.py": f"print({TEXT!r})\nsteps = []"}),
    "an exception of Python": Source({"1.py": f"raise ValueError({TEXT!r})"}),
    "an exception of a Python step": Source(
        {"1.py": f"from yoyo import step\ndef f(c):\n    raise ValueError({TEXT!r})\nstep(f)"}
    ),
    "an error of psycopg": Source(
        {
            "1.py": "from yoyo import step\n"
            f"step(lambda c: c.cursor().execute({raising('EXCEPTION')!r}))"
        }
    ),
    "a target": Source(
        {**FINE, "targets.toml": f"[[target]]\nname = {json.dumps(NAME)}\nmigrations = ['m']\n"},
        commands=tuple(
            ("migrate", "--targets=m/targets.toml", *flags) for flags in ((), ("--json",))
        ),
    ),
}
SETTINGS = {
    "an option": Source(commands=((f"--{TEXT}",), (f"--{TEXT}=x",))),
    "a command": Source(commands=((TEXT,), ("migrate", TEXT))),
    "a value": Source(
        commands=(
            ("migrate", f"--to={TEXT}"),
            ("migrate", f"--wait-timeout={TEXT}"),
            ("migrate", f"--transaction={TEXT}"),
            ("migrate", f"--targets={TEXT}"),
            ("exec", "--", f"/{TEXT}"),
            ("new", "--", TEXT),
            ("serve", f"--listen={TEXT}"),
        )
    ),
    "bytes": Source(commands=((b"--FORGED\xff\xed\xa0\x80".decode(errors="surrogateescape"),),)),
    **{
        name: Source(env={name: TEXT})
        for name in ("INITMIG_LOG_LEVEL", "INITMIG_QUEUE_TIMEOUT", "INITMIG_ROLE", "INITMIG_SCHEMA")
    },
    **{
        f"{name} of libpq": Source(
            env={"DATABASE_URL": "", name: TEXT, "INITMIG_WAIT_TIMEOUT": "1s"}
        )
        for name in ("PGHOST", "PGPORT", "PGSERVICE", "PGSSLMODE", "PGTARGETSESSIONATTRS")
    },
    "a URL": Source(env={"DATABASE_URL": f"postgres://u@127.0.0.1/d?sslmode={quote(NAME)}"}),
    "a connection string": Source(env={"DATABASE_URL": f"host=127.0.0.1 sslmode='{NAME}'"}),
    "a host": Source(
        env={"DATABASE_URL": f"host='{NAME}' user=u dbname=d", "INITMIG_WAIT_TIMEOUT": "1s"}
    ),
    "a socket": Source(
        env={"DATABASE_URL": f"host='/{NAME}' user=u dbname=d", "INITMIG_WAIT_TIMEOUT": "1s"}
    ),
    "a file with the URL": Source(env={"DATABASE_URL": "", "DATABASE_URL_FILE": f"/{NAME}"}),
}
SOURCES = {
    f"{kind}: {name}": source
    for kind, sources in (
        ("server", SERVER),
        ("rows", ROWS),
        ("names", NAMES),
        ("settings", SETTINGS),
    )
    for name, source in sources.items()
}


class Shown(NamedTuple):
    """The outputs of a command."""

    out: str
    err: str
    termination: str


def run(initmig: Initmig, *argv: str, folder: Path, env: Mapping[str, str]) -> Shown:
    outcome = folder.parent / "outcome"
    outcome.write_bytes(b"")
    names = {"INITMIG_MIGRATIONS": str(folder), "INITMIG_TERMINATION_LOG": str(outcome)}
    running = initmig.start(*argv, env=names | dict(env), cwd=folder.parent)
    running.result(120)
    # decoded strictly, with the original line endings
    files = (running._out, running._err, outcome)
    return Shown(*(path.read_bytes().decode() for path in files))


def assert_visible(shown: Shown) -> None:
    for text in shown:
        assert {f"{ord(c):x}" for c in text if is_hidden(c)} == set()
        for line in text.split("\n"):
            assert not line.startswith((STAMP, "FORGED", "  next: FORGED"))


def is_hidden(character: str) -> bool:
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return character not in "\n\t" and category(character) in hidden


def assert_forges_nothing(shown: Shown) -> None:
    assert_visible(shown)
    *lines, rest = shown.err.split("\n")
    assert rest == ""
    assert [line for line in lines if not LINE.match(line)] == []


def assert_is_json(shown: Shown) -> None:
    assert_visible(shown)
    assert shown.err.splitlines() == shown.err.split("\n")[:-1]
    for line in shown.err.splitlines():
        assert json.loads(line)["level"]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_text_from_any_source_forges_no_line(
    source: Source, form: str, initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": database.url, "INITMIG_LOG_FORMAT": form}
    if source.applied:
        folder = write(tmp_path / source.folder, source.applied)
        run(initmig, "migrate", folder=folder, env=env)
    if source.script:
        database.execute(source.script.replace("{text}", IN_ROWS))
    folder = write(tmp_path / source.folder, source.files)
    for argv in source.commands:
        shown = run(initmig, *argv, folder=folder, env={**env, **source.env})
        assert "FORGED" in "".join(shown), (argv, shown)
        assert "internal-error" not in shown.err, (argv, shown.err)
        (assert_is_json if form == "json" else assert_forges_nothing)(shown)


def test_query_of_a_blocker_forges_no_line(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    database.execute("CREATE TABLE a ()")
    write(folder, {"1.sql": "ALTER TABLE a ADD n int"})
    env = {"DATABASE_URL": database.url}
    flags = ("--lock-timeout=2s", "--lock-retries=1")
    with database.connect(autocommit=False) as blocker:
        blocker.execute("LOCK TABLE a")
        blocker.execute(f"SET application_name = {IN_ROWS}")
        blocker.execute(f"/* {TEXT} */ SELECT 1".encode())
        shown = run(initmig, "migrate", *flags, folder=folder, env=env)
        in_json = run(initmig, "migrate", *flags, "--log-format=json", folder=folder, env=env)
    for each, check in ((shown, assert_forges_nothing), (in_json, assert_is_json)):
        assert "x FORGED" in each.err
        assert "lock timeout" in each.err
        check(each)


def test_name_of_the_lock_holder_forges_no_line(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FINE)
    env = {"DATABASE_URL": database.url}
    database.execute(f"CREATE ROLE {IDENTIFIER} SUPERUSER LOGIN PASSWORD 'x'")
    database._roles.append(NAME)
    with psycopg.connect(database.url, user=NAME, password="x", autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(hashtextextended('public', 20261122))")
        holder.execute(f"SET application_name = {IN_ROWS}".encode())
        shown = run(initmig, "migrate", "--queue-timeout=1s", folder=folder, env=env)
    assert "x FORGED" in shown.err
    assert f"user n\n{CONTINUATION}FORGED" in shown.err
    assert_forges_nothing(shown)


def test_names_that_verify_shows_forge_no_line(initmig: Initmig, folder: Path) -> None:
    write(
        folder,
        {
            f"{MIGRATION_NAME}.sql": f"CREATE TABLE {IDENTIFIER} (a text DEFAULT {LITERAL})",
            f"{MIGRATION_NAME}.rollback.sql": "SELECT 1",
        },
    )
    for flags in ((), ("--json",)):
        shown = run(initmig, "verify", *flags, folder=folder, env={})
        assert "not restored" in shown.out
        assert_forges_nothing(shown)
