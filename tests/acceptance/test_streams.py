"""Closed, full and ASCII-only streams affect only the output, not the work."""

from __future__ import annotations

import json
import os
import signal
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result

pytestmark = pytest.mark.any_version

FILES = {
    "0001_ä.sql": 'CREATE TABLE "ä" ()',
    "0002_b.py": """
import sys
from yoyo import step
print("€ imported")
def work(connection):
    print("€ printed")
    print("€ printed to stderr", file=sys.stderr, flush=True)
    connection.execute("CREATE TABLE b ()")
step(work, "DROP TABLE b")
""",
}
APPLIED = {"ä", "b"}


class Streams(NamedTuple):
    """How the command is started, and which of its streams are writable."""

    redirection: str = ""
    env: tuple[str, ...] = ()
    out: bool = True
    err: bool = True


STREAMS = {
    "stdout closed": Streams(">&-", out=False),
    "stderr closed": Streams("2>&-", err=False),
    "all closed": Streams("<&- >&- 2>&-", out=False, err=False),
    "stdout full": Streams(">/dev/full", out=False),
    "stderr full": Streams("2>/dev/full", err=False),
    "both full": Streams(">/dev/full 2>&1", out=False, err=False),
    "ASCII streams": Streams(env=("PYTHONIOENCODING=ascii",)),
    "C locale": Streams(env=("LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0")),
    "C locale and ASCII streams": Streams(
        env=("LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0", "PYTHONIOENCODING=ascii:strict")
    ),
}
SHOWING = [
    ("status",),
    ("status", "--json"),
    ("plan",),
    ("plan", "--json"),
    ("doctor", "--json"),
    ("rehearse", "--json"),
]
DOING = [
    ("migrate",),
    ("exec", "--", "true"),
    ("migrate", "--targets=targets.toml"),
    ("migrate", "--targets=targets.toml", "--json"),
]


@pytest.fixture(params=STREAMS)
def streams(request: pytest.FixtureRequest) -> Streams:
    return STREAMS[request.param]


def started(
    streams: Streams, initmig: Initmig, *argv: str, database: Database, folder: Path
) -> Result:
    env = dict(each.split("=", 1) for each in streams.env) | {"INITMIG_LOG_FORMAT": "json"}
    prefix = ("sh", "-c", f'exec "$0" "$@" {streams.redirection}')
    return initmig(
        *argv, url=database.url, folder=folder, env=env, prefix=prefix, cwd=folder.parent
    )


def events_of(result: Result, streams: Streams) -> list[str]:
    """The names of the events; asserts that stderr contains nothing else."""
    assert streams.err or result.err == ""
    return [event["event"] for event in result.events]


@pytest.mark.parametrize("argv", SHOWING, ids=" ".join)
def test_unwritable_result_is_an_error(
    argv: tuple[str, ...], streams: Streams, initmig: Initmig, database: Database, folder: Path
) -> None:
    result = started(streams, initmig, *argv, database=database, folder=write(folder, FILES))
    events = events_of(result, streams)
    if not streams.out:
        assert result.code == 2
        assert not streams.err or result.events[-1]["error"] == "output-failed"
    else:
        assert result.code == 0, result.err
        assert "failed" not in events
        assert "0002_b" in result.out or argv[0] == "doctor"
        if "--json" in argv:
            document = json.loads(result.out)
            ids = [each["id"] for each in document.get("migrations", [])]
            assert argv[0] == "doctor" or ids == ["0001_ä", "0002_b"]
    assert database.tables() == set()


@pytest.mark.parametrize("argv", DOING, ids=" ".join)
def test_unwritable_output_changes_neither_the_work_nor_the_exit_code(
    argv: tuple[str, ...], streams: Streams, initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder.parent, {"targets.toml": '[[target]]\nname = "a"\n[[target]]\nname = "€"\n'})
    result = started(streams, initmig, *argv, database=database, folder=write(folder, FILES))
    assert result.code == 0, result.err
    assert database.tables() > APPLIED
    events = events_of(result, streams)
    many = "--targets=targets.toml" in argv
    if streams.err:
        printed = [event["text"] for event in result.events if event["event"] == "printed"]
        assert printed.count("€ printed") == printed.count("€ printed to stderr") == 1
        assert events.count("output_lost") == (many and not streams.out)
    if many and "--json" in argv and streams.out:
        outcomes = [json.loads(line) for line in result.out.splitlines()]
        assert {each["target"] for each in outcomes} == {"a", "€"}


def test_serve_runs_until_a_signal(
    streams: Streams, initmig: Initmig, database: Database, folder: Path
) -> None:
    port = closed_port()
    prefix = ("sh", "-c", f'exec "$0" "$@" {streams.redirection}')
    running = initmig.start(
        *("serve", f"--listen=127.0.0.1:{port}"),
        url=database.url,
        folder=write(folder, FILES),
        env=dict(each.split("=", 1) for each in streams.env),
        prefix=prefix,
    )

    def is_ready() -> bool:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False

    wait_until(is_ready)
    running.send(signal.SIGTERM)
    result = running.result()
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert database.tables() > APPLIED


@pytest.mark.parametrize("argv", [*SHOWING[1::2], *DOING[-1:], ("verify", "--json")], ids=" ".join)
def test_output_of_migrations_is_not_part_of_the_result(
    argv: tuple[str, ...], initmig: Initmig, database: Database, folder: Path
) -> None:
    code = """
import os, subprocess, sys
from yoyo import step
def write(connection=None):
    os.write(1, b"noise\\n")
    subprocess.run(["echo", "noise"])
    sys.__stdout__.write("noise\\n")
    sys.__stdout__.flush()
write()
step(write, write)
"""
    write(folder.parent, {"targets.toml": '[[target]]\nname = "a"\n[[target]]\nname = "b"\n'})
    write(folder, {"0001_a.py": code})
    env = {} if argv[0] == "verify" else {"DATABASE_URL": database.url}
    result = initmig(*argv, folder=folder, cwd=folder.parent, env=env)
    assert result.code == 0, result.err
    if argv[0] == "migrate":
        assert len([json.loads(line) for line in result.out.splitlines()]) == 2
    else:
        assert json.loads(result.out)
    assert (result.err.count("noise") > 0) == (argv[0] not in ("status", "doctor"))


@pytest.mark.parametrize(
    ("argv", "code"),
    [(("status", "--check"), 7), (("rehearse",), 1), (("--help",), 2), (("--version",), 2)],
    ids=str,
)
def test_failure_takes_precedence_over_an_unwritable_result(
    argv: tuple[str, ...], code: int, initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT missing"})
    streams = STREAMS["stdout full"]
    result = started(streams, initmig, *argv, database=database, folder=folder)
    assert (result.code, result.events[-1]["exit_code"]) == (code, code)


def test_new_writes_its_files_despite_a_full_stdout(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, {})
    streams = STREAMS["stdout full"]
    result = started(streams, initmig, "new", "add_x", database=database, folder=folder)
    assert result.code == 0, result.err
    assert len(list(folder.iterdir())) == 2
    assert events_of(result, streams) == ["files_created", "output_lost"]


@pytest.mark.parametrize(
    "doing", ["sys.__stdout__.write('x')", "sys.__stdout__.close()", "sys.__stderr__.close()"]
)
def test_migration_that_uses_the_original_streams_does_not_change_the_exit_code(
    doing: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    code = f"import sys\nfrom yoyo import step\nstep(lambda _: {doing})\n"
    streams = STREAMS["stdout full"]
    result = started(
        streams, initmig, "migrate", database=database, folder=write(folder, {"0001_x.py": code})
    )
    assert result.code == 0, result.err
    assert "failed" not in events_of(result, streams)


def test_migration_that_exhausts_descriptors_succeeds_with_a_full_stderr(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    code = """
import os
from yoyo import step
def work(connection):
    files = []
    try:
        while True:
            files.append(open(os.devnull))
    except OSError:
        print("no more of them")
    connection.execute("CREATE TABLE a ()")
step(work)
"""
    result = started(
        STREAMS["stderr full"],
        initmig,
        "migrate",
        database=database,
        folder=write(folder, {"0001_a.py": code}),
    )
    assert result.code == 0
    assert "a" in database.tables()


def test_closed_stream_stays_closed_for_the_exec_program(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    program = ("sh", "-c", "ls /proc/self/fd >open; true")
    streams = STREAMS["all closed"]
    result = started(
        streams, initmig, "exec", "--", *program, database=database, folder=write(folder, FILES)
    )
    assert result.code == 0
    # `ls` opens the folder that it lists with the lowest free number
    assert (folder.parent / "open").read_text().split() == ["0", "1"]


def test_no_connection_gets_the_number_of_a_closed_stream(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    code = """
import os
from yoyo import step
def work(connection):
    os.write(2, b"not for the server")
    open("streams", "w").write(" ".join(os.readlink(f"/proc/self/fd/{n}") for n in range(3)))
step(work)
"""
    streams = STREAMS["all closed"]
    result = started(
        streams, initmig, "migrate", database=database, folder=write(folder, {"0001_x.py": code})
    )
    assert result.code == 0
    assert (folder.parent / "streams").read_text().split() == [os.devnull] * 3


def test_id_is_the_same_in_every_locale(initmig: Initmig, database: Database, folder: Path) -> None:
    write(folder, FILES)
    for streams in (STREAMS["C locale"], Streams()):
        result = started(streams, initmig, "migrate", database=database, folder=folder)
        assert result.code == 0, result.err
    assert events_of(result, Streams()) == ["nothing_pending"]
