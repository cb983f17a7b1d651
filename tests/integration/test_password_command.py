"""A command provides the password of each connection. Its secrets and processes never stay."""

from __future__ import annotations

import secrets
import shlex
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

import initmig as library
from tests.support.command import JSON, WITHOUT_WAIT
from tests.support.databases import ASLEEP, WAIT_FOR_GATE
from tests.support.migrations import write
from tests.support.namespaces import as_process_1
from tests.support.processes import succeeded
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result, Running
    from tests.support.proxy import Proxy

pytestmark = pytest.mark.any_version

PROBE = "SECRET"
"""A part of each password and argument here, which no output may contain."""
PASSWORD = f"{PROBE} 'quoted' \\ and \" @:/?#% ä"

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    # needs psycopg, and so a second connection
    "0002_c.py": "from yoyo import step\n"
    "step(lambda connection: connection.execute('CREATE TABLE c ()'), 'DROP TABLE c')\n",
}

RECORDING = """#!{python} -IS
import os, sys
facts = os.listdir("/proc/self/fd"), os.getsid(0) == os.getpid(), sys.stdin.read()
with open({log!r}, "a") as log:
    print(sorted(facts[0]), *facts[1:], file=log)
sys.stdout.buffer.write({password!r}.encode() + b"\\n")
"""


class Account(NamedTuple):
    """A role that logs in with PASSWORD."""

    role: str
    url: str
    """Its URL, without the password."""

    def url_with(self, password: str) -> str:
        return self.url.replace("@", f":{quote(password, safe='')}@", 1)


@pytest.fixture
def account(database: Database) -> Account:
    grants = (
        "GRANT ALL ON SCHEMA public TO {role}",
        f"GRANT ALL ON DATABASE {database.name} TO {{role}}",
    )
    parts = urlsplit(database.login_role(*grants, options="CREATEDB"))
    escaped = PASSWORD.replace("'", "''")
    database.execute(f"ALTER ROLE {parts.username} PASSWORD '{escaped}'")
    bare = urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))
    return Account(parts.username or "", bare)


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


class Recording:
    """A command that prints PASSWORD, and records each run."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "runs"
        text = RECORDING.format(python=sys.executable, log=str(self._log), password=PASSWORD)
        self.quoted = shlex.quote(str(program(folder / "get password", text)))

    @property
    def runs(self) -> list[str]:
        """For each run, its file descriptors, whether it leads a session, and its stdin."""
        return self._log.read_text().splitlines() if self._log.exists() else []


def shell(body: str) -> str:
    """A value of --password-command that runs *body*, with a secret among its arguments."""
    return shlex.join(["sh", "-c", body, "sh", PROBE])


def marked_processes(mark: str) -> list[str]:
    """The command lines of all processes with *mark* in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            pass  # it has ended
    return found


def assert_hidden(result: Result, *others: str) -> None:
    for text in (result.out, result.err, *others):
        assert PROBE not in text


# --- every connection ---


def test_each_connection_of_each_command_runs_the_command(
    account: Account, proxy: Proxy, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    recording = Recording(tmp_path)
    write(folder, FILES)
    dump = tmp_path / "dump.sql"
    dump.write_text("CREATE TABLE before_all ()")
    url, quoted = proxy.through(account.url), recording.quoted
    targets = tmp_path / "targets.toml"
    targets.write_text(f'[[target]]\nname = "x"\nurl = "{url}"\npassword_command = "{quoted}"\n')
    settings = {"INITMIG_PASSWORD_COMMAND": quoted, "INITMIG_LOG_LEVEL": "debug"}

    def run(*argv: str, env: Mapping[str, str] = settings) -> None:
        before = proxy.connections, len(recording.runs)
        running = initmig.start(*argv, url=url, folder=folder, env=env)
        if argv[0] == "serve":
            running.wait_for_line("ready: ")
            running.terminate()
        assert_hidden(succeeded(running.result()))
        opened = proxy.connections - before[0]
        assert (argv, len(recording.runs) - before[1]) == (argv, opened)
        assert opened >= (2 if argv[0] in ("migrate", "serve", "verify") else 1)

    run("migrate")
    for again in (
        ("rollback", "--all"),
        ("migrate", "--each-schema=public"),
        ("rollback", "--all"),
    ):
        run(*again)
    run("migrate", f"--targets={targets}", env=settings | {"INITMIG_PASSWORD_COMMAND": ""})
    run("rollback", "--all")
    for argv in (
        *(("status",), ("plan",), ("doctor",), ("rehearse",), ("serve", "--listen=127.0.0.1:0")),
        *(("exec", "--", "true"), ("wait",), ("unlock",), ("baseline", "--to=0002_c")),
        ("verify", f"--from-baseline={dump}"),
    ):
        run(*argv)


def test_long_statement_is_watched_on_one_connection(
    account: Account, proxy: Proxy, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    recording = Recording(tmp_path)
    write(folder, {"0001_a.sql": "SELECT pg_sleep(2.4)"})
    # initmig looks every second, and without a command opens a connection each time
    env = {"INITMIG_PASSWORD_COMMAND": recording.quoted, "INITMIG_LOCK_TIMEOUT": "2s"}
    succeeded(initmig(url=proxy.through(account.url), folder=folder, env=env))
    assert proxy.connections == 2
    # no connection is inherited, there is no terminal, and stdin is empty
    assert recording.runs == ["['0', '1', '2', '3'] True "] * 2


def test_library_takes_the_command(account: Account, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    command = f"cat {file}"
    done = library.migrate(database_url=account.url, migrations=folder, password_command=command)
    assert done.ids == ("0001_a",)


# --- its output and its failures ---


class Case(NamedTuple):
    """A command, and the expected outcome of `initmig wait`."""

    command: str
    code: int = 0
    error: str = ""
    words: str = ""
    """Part of the first problem's message."""
    env: Mapping[str, str] = WITHOUT_WAIT
    url: str = "{url}"


PRINTS = f"cat {PROBE}-file"
SHORT_WAIT = {"INITMIG_WAIT_TIMEOUT": "700ms"}
NOT_STARTED, FAILED = (2, "password-command-not-started"), (3, "password-command-failed")
CASES = {
    # it works
    "prints it": Case(PRINTS),
    "prints it without a line end": Case(f"sh -c 'printf %s \"$(cat {PROBE}-file)\"'"),
    "prints it with CRLF": Case(f"sh -c 'cat {PROBE}-file; printf \"\\r\\n\\n\"'"),
    "prints something else to stderr": Case(shell(f"cat {PROBE}-file; echo {PROBE} >&2")),
    "takes it from the environment": Case(
        shell('printf %s\\\\n "$TOKEN"'), env={**WITHOUT_WAIT, "TOKEN": PASSWORD}
    ),
    "leaves a process that keeps its stdout open": Case(shell(f"sleep 60 & cat {PROBE}-file")),
    "leaves a process": Case(shell(f"sleep 60 >/dev/null & cat {PROBE}-file")),
    "reads its stdin": Case(shell(f"cat; cat {PROBE}-file")),
    "with a password file": Case(PRINTS, env={**WITHOUT_WAIT, "PGPASSFILE": "wrong-passfile"}),
    # it cannot be started
    "is missing": Case("/no/such/program", *NOT_STARTED, "No such file or directory"),
    "is not on PATH": Case("no-such-program x", *NOT_STARTED, "No such file or directory"),
    "is below a file": Case("./not-executable/x", *NOT_STARTED, "Not a directory"),
    "is a folder": Case("./a-folder", *NOT_STARTED, "Permission denied"),
    "is not executable": Case("./not-executable", *NOT_STARTED, "Permission denied"),
    "is no program": Case("./no-program", *NOT_STARTED, "Exec format error"),
    # it fails
    "exits": Case(shell(f"echo {PROBE}; echo {PROBE} >&2; exit 3"), *FAILED, "exited with code 3"),
    "exits and leaves a process": Case(
        shell("sleep 60 >/dev/null & exit 4"), *FAILED, "exited with code 4"
    ),
    "is killed": Case(shell(f"echo {PROBE}; kill -9 $$"), *FAILED, "was ended by signal 9"),
    "prints nothing": Case("true", *FAILED, "printed nothing"),
    "prints blank lines": Case(shell("echo; echo ' '"), *FAILED, "printed nothing"),
    "prints two lines": Case(
        shell(f"cat {PROBE}-file; echo {PROBE}"), *FAILED, "printed more than one line"
    ),
    "prints NUL": Case(
        shell(f"printf '{PROBE}\\0x'"),
        *FAILED,
        "printed text that is not UTF-8, or contains NUL",
    ),
    "prints other bytes": Case(
        shell(f"printf '{PROBE}\\377'"),
        *FAILED,
        "printed text that is not UTF-8, or contains NUL",
    ),
    "prints a megabyte": Case(
        shell(f"head -c 1000000 /dev/zero | tr '\\0' x; echo {PROBE}"),
        *FAILED,
        "printed more than 65536 bytes",
    ),
    "never stops printing": Case(f"yes {PROBE}", *FAILED, "printed more than 65536 bytes"),
    "hangs": Case(
        shell(f"trap '' TERM INT HUP; echo {PROBE}; sleep 60"),
        *FAILED,
        "did not end within 0.",
        env=SHORT_WAIT,
    ),
    "closes stdout and hangs": Case(
        shell(f"echo {PROBE}; exec >&-; sleep 60"),
        *FAILED,
        "did not end within 0.",
        env=SHORT_WAIT,
    ),
    # the password is wrong, or one too many
    "prints another password": Case(shell(f"echo {PROBE}other"), 4, "login-refused"),
    "is not run by a shell": Case("echo $TOKEN", 4, "login-refused"),
    "with a password in the URL": Case(PRINTS, 2, "secret-given-twice", url="{with_password}"),
    "with PGPASSWORD": Case(
        PRINTS, 2, "secret-given-twice", env={**WITHOUT_WAIT, "PGPASSWORD": PROBE}
    ),
    "with a password in the service file": Case(
        PRINTS,
        2,
        "secret-given-twice",
        env={**WITHOUT_WAIT, "PGSERVICEFILE": "service", "PGSERVICE": "mine"},
    ),
}


def test_output_and_failures_of_the_command(
    account: Account, initmig: Initmig, tmp_path: Path
) -> None:
    (tmp_path / f"{PROBE}-file").write_text(f"{PASSWORD}\n", encoding="utf-8")
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    program(tmp_path / "no-program", "neither a script nor a program\n")
    passfile = tmp_path / "wrong-passfile"
    passfile.write_text(f"*:*:*:*:{PROBE}wrong\n")
    passfile.chmod(stat.S_IRUSR)
    (tmp_path / "service").write_text(f"[mine]\npassword={PROBE}\n")
    mark = f"MARK={secrets.token_hex(8)}"
    urls = {"url": account.url, "with_password": account.url_with(PROBE)}

    def start(case: Case, number: int, more: Mapping[str, str]) -> Running:
        env = {
            "DATABASE_URL": case.url.format(**urls),
            "INITMIG_PASSWORD_COMMAND": case.command,
            "INITMIG_LOG_LEVEL": "debug",
            "INITMIG_TERMINATION_LOG": str(tmp_path / f"outcome {number} {len(more)}"),
            "MARK": mark.partition("=")[2],
        }
        return initmig.start(
            "wait", "--for=database", env={**env, **case.env, **more}, cwd=tmp_path
        )

    for begin in range(0, len(CASES), 8):  # several at a time, because some of them wait
        part = list(CASES.items())[begin : begin + 8]
        started = [
            (name, case, [start(case, begin + n, more) for more in ({}, JSON)])
            for n, (name, case) in enumerate(part)
        ]
        for name, case, (in_text, in_json) in started:
            texts, result = in_text.result(), in_json.result()
            failed = [each for each in result.events if each["event"] == "failed"]
            seen = (name, result.code, [each["error"] for each in failed][:1])
            assert seen == (name, case.code, [case.error] if case.error else []), result.err
            assert texts.code == case.code
            if case.words:
                words = failed[0]["message"].partition(" (waited ")[0]
                assert case.words in words
                assert words.startswith("the password command ")
                assert failed[0]["next"]
                assert case.words in texts.err  # the texts differ in the time waited
            assert_hidden(result)
            assert_hidden(texts)
    for outcome in tmp_path.glob("outcome *"):
        assert PROBE not in outcome.read_text()
    wait_until(lambda: marked_processes(mark) == [])


def test_failing_command_and_expired_password_are_retried(
    account: Account, database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    expired = f"ALTER ROLE {account.role} VALID UNTIL '2020-01-01'"
    database.execute(expired)
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    file = tmp_path / "password"
    env = {"INITMIG_PASSWORD_COMMAND": f"cat {file}", **JSON}
    running = initmig.start(url=account.url, folder=folder, env=env)
    line = running.wait_for_line("waiting_for_database")
    assert "the password command cat exited with code 1" in line
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    running.wait_for_line("password authentication failed")
    database.execute(f"ALTER ROLE {account.role} VALID UNTIL 'infinity'")
    assert_hidden(succeeded(running.result()))
    assert "a" in database.tables()


def test_command_can_write_into_the_log_of_initmig(account: Account, initmig: Initmig) -> None:
    """As docs/how-to/short-lived-users.md shows. In a container, stderr is a pipe."""
    command = "sh -c 'exec ls /no-such-folder 2>>/proc/$PPID/fd/2'"
    env = {"INITMIG_PASSWORD_COMMAND": command, **WITHOUT_WAIT}
    to_pipe = ["sh", "-c", '"$@" 2>&1 | cat >&2', "sh"]
    result = initmig("wait", "--for=database", url=account.url, env=env, prefix=to_pipe)
    assert "/no-such-folder" in result.err
    assert "the password command sh exited with code 2" in result.err


RENEWING = """#!{python}
import os, psycopg
password = "{probe}" + os.urandom(8).hex()
with psycopg.connect({superuser!r}, autocommit=True) as connection:
    connection.execute(f"ALTER ROLE {role} PASSWORD '{{password}}'")
print(password)
"""


def test_each_connection_uses_a_new_password(
    account: Account, database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    text = RENEWING.format(
        python=sys.executable, probe=PROBE, superuser=database.url, role=account.role
    )
    renewing = program(tmp_path / "renew", text)
    step = "from yoyo import step\nstep(lambda connection: print(connection.info.password))\n"
    write(folder, FILES | {"0003_shows_it.py": step})
    env = {"INITMIG_PASSWORD_COMMAND": str(renewing), "INITMIG_LOG_LEVEL": "debug"}
    result = succeeded(initmig(url=account.url, folder=folder, env=env))
    assert_hidden(result)
    assert "0003_shows_it" in result.err
    assert "***" in result.err  # printed by the migration


# --- signals ---

HANGS_LATER = """#!/bin/sh
trap '' TERM INT HUP
echo >>{log}
if [ "$(wc -l <{log})" -gt {after} ]; then sleep 61 & sleep 60; fi
cat {file}
"""


def has_more_lines(file: Path, number: int) -> bool:
    return file.exists() and len(file.read_text()) > number


STOPPED: dict[str, tuple[tuple[str, ...], int]] = {
    "the first connection": (("migrate",), 0),
    "waiting": (("wait",), 0),
    "serving": (("serve", "--listen=127.0.0.1:0"), 0),
    "many": (("migrate", "--each-schema=public"), 1),
    "the connection that watches, in a thread": (("migrate",), 1),
}


def test_sigterm_ends_the_command(
    account: Account, database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD, encoding="utf-8")
    write(folder, {"0001_a.sql": "SELECT pg_sleep(60)"})
    mark = secrets.token_hex(8)
    started = []
    for number, (argv, after) in enumerate(STOPPED.values()):
        log = tmp_path / f"log{number}"
        hanging = program(
            tmp_path / f"hang{number}", HANGS_LATER.format(log=log, after=after, file=file)
        )
        env = {
            "INITMIG_PASSWORD_COMMAND": str(hanging),
            "INITMIG_LOCK_TIMEOUT": "200ms",
            "INITMIG_HISTORY_SCHEMA": "" if "--each-schema=public" in argv else f"h{number}",
            "MARK": mark,
        }
        database.execute(f"CREATE SCHEMA h{number} AUTHORIZATION {account.role}")
        started.append((initmig.start(*argv, url=account.url, folder=folder, env=env), log, after))
    for running, log, after in started:
        wait_until(partial(has_more_lines, log, after))
        running.terminate()
    for running, *_ in started:
        result = running.result(timeout=5)
        assert result.code == 143, result.err
        assert "stopped by SIGTERM" in result.err
        assert_hidden(result)
    wait_until(lambda: marked_processes(mark) == [])


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def test_process_1_keeps_no_zombies_of_the_command(
    account: Account, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD, encoding="utf-8")
    write(folder, FILES)
    command = shlex.join(["sh", "-c", f"sleep 60 & sleep 60 >/dev/null & cat {file}"])
    env = {"INITMIG_PASSWORD_COMMAND": command}
    argv = ("exec", "--", "sleep", "60")
    running = initmig.start(*argv, url=account.url, folder=folder, env=env, prefix=as_process_1())
    wait_until(lambda: len(children(running.pid)) == 1)
    [inner] = children(running.pid)
    wait_until(lambda: Path(f"/proc/{inner}/cmdline").read_text() == "sleep\x0060\x00")
    assert children(inner) == []


# --- short-lived users ---


def test_short_lived_users_own_nothing(
    database: Database, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    """As with Vault: an agent writes the URL of a new user, and the last user is dropped."""
    suffix = secrets.token_hex(4)
    owner, users = f"owner_{suffix}", [f"v-{n}-{suffix}" for n in range(3)]
    parts = urlsplit(database.url)
    database.execute(
        f"CREATE ROLE {owner}; GRANT ALL ON SCHEMA public TO {owner};"
        f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC;"
        f"GRANT ALL ON DATABASE {database.name} TO {owner}; CREATE TABLE gate ()"
    )
    file = tmp_path / "url"
    env = {"DATABASE_URL_FILE": str(file), "INITMIG_ROLE": owner}

    def create(user: str, membership: str = f"IN ROLE {owner}") -> None:
        password = f"'{PROBE}{user}' VALID UNTIL '2099-01-01'"
        database.execute(f'CREATE ROLE "{user}" LOGIN PASSWORD {password} {membership}')
        address = parts.netloc.rpartition("@")[2]
        file.write_text(urlunsplit(parts._replace(netloc=f"{user}:{PROBE}{user}@{address}")))

    try:
        create(users[0])
        write(folder, {"0001_a.sql": "CREATE TABLE a (id serial); CREATE TYPE t AS ENUM ()"})
        assert_hidden(succeeded(initmig(folder=folder, env=env)))

        # the user changes during a run, which then connects again
        write(folder, {"0002_b.sql": f"{WAIT_FOR_GATE} CREATE VIEW b AS SELECT 1"})
        write(folder, {"0002_c.py": FILES["0002_c.py"]})
        running = initmig.start(folder=folder, env=env)
        wait_until(lambda: database.value(ASLEEP) == 1)
        create(users[1])
        database.execute(f'ALTER ROLE "{users[0]}" NOLOGIN; DROP TABLE gate')
        changed = succeeded(running.result())
        assert_hidden(changed)
        assert "waiting" not in changed.err  # the first user was never refused

        owned = database.query(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace"
        )
        assert owned == [(owner,)]
        assert {"a", "c", "_yoyo_migration"} <= database.tables()
        database.execute(f'DROP ROLE "{users[0]}"; DROP ROLE "{users[1]}"')  # they own nothing

        database.execute(f"GRANT CONNECT ON DATABASE {database.name} TO PUBLIC")
        create(users[2], membership="")
        refused = initmig(folder=folder, env={**env, **JSON, **WITHOUT_WAIT})
        assert (refused.code, refused.events[-1]["error"]) == (4, "missing-privilege")
        assert refused.events[-1]["message"] == f'permission denied to set role "{owner}"'
        assert_hidden(refused)
    finally:
        database.execute(f"DROP OWNED BY {owner} CASCADE")
        for user in (*users, owner):
            database.execute(f'DROP ROLE IF EXISTS "{user}"')
