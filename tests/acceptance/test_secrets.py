import json
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.support.command import JSON, Initmig
from tests.support.databases import Database, DatabaseServer
from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.processes import Result
from tests.support.proxy import MakeProxy

PROBE = "SECRET"
"""A part of each password here. No encoding or quoting changes it."""

FAILING = {"0001_x.sql": "SELECT 1;\nSELECT missing;"}


def secret(kind: str) -> str:
    """A password whose parts occur in no other text."""
    return {
        "plain": PROBE,
        "with everything": f"{PROBE}@{PROBE}:{PROBE}/{PROBE}?{PROBE}#{PROBE}%{PROBE}",
    }[kind]


def quoted(password: str) -> str:
    return "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"


def address(server: DatabaseServer) -> tuple[str, int]:
    parts = urlsplit(server.url())
    return parts.hostname or "localhost", parts.port or 5432


# How users may write the password, with and without the required encoding.
FORMS = {
    "URL": "{scheme}://nobody:{encoded}@{host}:{port}/{name}",
    "URL, not encoded": "{scheme}://nobody:{raw}@{host}:{port}/{name}",
    "URL with it as parameter": "{scheme}://{host}:{port}/{name}?user=nobody&password={encoded}",
    "URL with it as parameter, not encoded": "{scheme}://{host}:{port}/{name}?password={raw}",
    "key=value": "host={host} port={port} dbname={name} user=nobody password={quoted}",
    "key=value, not quoted": "host={host} port={port} user=nobody password={raw} word",
    "URL with a wrong port": "{scheme}://nobody:{encoded}@{host}:port/{name}",
    "URL with an unknown parameter": "{scheme}://nobody:{encoded}@{host}/{name}?{encoded}=1",
    "URL of another database": "mysql://nobody:{raw}@{host}/{name}",
}
SCHEMES = {
    "URL": "postgres",
    "URL, not encoded": "postgresql",
    "URL with it as parameter": "ecto",
    "URL with it as parameter, not encoded": "postgresql+psycopg",
}


def connection_string(form: str, kind: str, host: str, port: int, name: str) -> str:
    password = secret(kind)
    return FORMS[form].format(
        scheme=SCHEMES.get(form, "postgres"),
        encoded=quote(password, safe=""),
        raw=password,
        quoted=quoted(password),
        host=host,
        port=port,
        name=name,
    )


def assert_no_secret(result: Result, *files: Path) -> None:
    """Assert that neither the output nor *files* contain a part of the secret."""
    for text in (result.out, result.err, *(file.read_text() for file in files)):
        assert PROBE not in text


@pytest.mark.parametrize("kind", ["plain", "with everything"])
@pytest.mark.parametrize("form", FORMS)
def test_no_error_shows_a_password(
    form: str, kind: str, initmig: Initmig, folder: Path, tmp_path: Path
) -> None:
    text = connection_string(form, kind, "127.0.0.1", closed_port(), "shop")
    outcome = tmp_path / "outcome"
    file = tmp_path / "url"
    file.write_text(text)
    env = {
        "INITMIG_TERMINATION_LOG": str(outcome),
        "INITMIG_WAIT_TIMEOUT": "0",
        "INITMIG_LOG_LEVEL": "debug",
    }
    write(folder, FAILING)
    as_json = initmig(folder=folder, env={**env, "DATABASE_URL_FILE": str(file)} | JSON)
    assert_no_secret(as_json, outcome)
    assert as_json.code in (2, 3)
    assert as_json.events[-1]["event"] == "failed"
    in_text = initmig("--database-url", text, folder=folder, env=env)
    assert_no_secret(in_text, outcome)
    assert in_text.code == as_json.code
    assert outcome.read_text() in in_text.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--database-ur", "URL"],
        ["--database-url=URL", "nonsense"],
        ["URL"],
        ["migrate", "URL"],
        ["exec", "URL"],
        ["--schema", "x", "--pasword", "URL"],
        ["--log-format", "URL"],
        ["--wait-timeout", "URL"],
        ["rollback", "--steps", "URL"],
        ["status", "--check=URL"],
        ["exec", "--", "URL"],
        ["new", "URL", "URL"],
    ],
    ids=str,
)
def test_misplaced_url_is_not_repeated(
    arguments: list[str], initmig: Initmig, folder: Path
) -> None:
    url = f"postgres://me:{PROBE}@127.0.0.1/shop"
    words = [word.replace("URL", url) for word in arguments]
    result = initmig(*words, folder=write(folder, FAILING))
    assert_no_secret(result)
    assert result.code == 2
    assert " error " in result.err


@pytest.mark.parametrize("arguments", [["--help"], ["migrate", "--help"], ["--version"]], ids=str)
def test_help_shows_no_current_setting(arguments: list[str], initmig: Initmig) -> None:
    env = {"PGPASSWORD": PROBE, "INITMIG_SCHEMA": PROBE}
    result = initmig(*arguments, url=f"postgres://me:{PROBE}@h/d", env=env)
    assert_no_secret(result)
    assert (result.code, result.err) == (0, "")
    assert result.out


def test_refused_password_is_not_in_the_log_or_the_termination_log(
    initmig: Initmig, server: DatabaseServer, database: Database, folder: Path, tmp_path: Path
) -> None:
    host, port = address(server)
    outcome = tmp_path / "outcome"
    env = {
        "INITMIG_TERMINATION_LOG": str(outcome),
        "INITMIG_WAIT_TIMEOUT": "0",
        "PGPASSWORD": secret("with everything"),
    }
    url = f"postgresql://no{database.name}@{host}:{port}/{database.name}"
    result = initmig(url=url, folder=write(folder, FAILING), env=env)
    assert_no_secret(result, outcome)
    assert result.code == 4
    assert f"no{database.name}" in outcome.read_text()


@pytest.mark.parametrize(
    "way", ["URL", "key=value", "PGPASSWORD", "file of it", "file of the URL", "command"]
)
def test_password_with_special_characters_works_and_is_not_shown(
    way: str, initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    role_url = urlsplit(database.login_role("GRANT ALL ON SCHEMA public TO {role}"))
    role, password = role_url.username, secret("with everything") + "='\\ &"
    database.execute(f"ALTER ROLE {role} PASSWORD {quoted_sql(password)}")
    bare = f"postgresql://{role}@{role_url.hostname}:{role_url.port}/{database.name}"
    url = bare.replace("@", f":{quote(password, safe='')}@", 1)
    pairs = f"host={role_url.hostname} port={role_url.port} dbname={database.name} user={role}"
    file = tmp_path / "secret"
    file.write_text((url if way == "file of the URL" else password) + "\n")
    outcome = tmp_path / "outcome"
    env = {
        "URL": {"DATABASE_URL": url},
        "key=value": {"DATABASE_URL": f"{pairs} password={quoted(password)}"},
        "PGPASSWORD": {"DATABASE_URL": bare, "PGPASSWORD": password},
        "file of it": {"DATABASE_URL": bare, "PGPASSWORD_FILE": str(file)},
        "file of the URL": {"DATABASE_URL_FILE": str(file)},
        "command": {"DATABASE_URL": bare, "INITMIG_PASSWORD_COMMAND": f"cat {file}"},
    }[way]
    env |= {"INITMIG_LOG_LEVEL": "debug", "INITMIG_TERMINATION_LOG": str(outcome)}
    result = initmig(folder=write(folder, FAILING), env=env)
    assert_no_secret(result, outcome)
    assert 'column "missing" does not exist' in result.err
    assert result.code == 1


def quoted_sql(text: str) -> str:
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'"


def test_url_in_an_exception_of_a_migration_is_masked(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    code = (
        "from yoyo import step\nimport os\ndef f(connection):\n    raise ValueError(X)\nstep(f)\n"
    )
    write(folder, {"0001_x.py": code.replace("X", "os.environ['URL_OF_OTHER']")})
    outcome = tmp_path / "outcome"
    env = {
        "URL_OF_OTHER": f"amqp://me:{PROBE}@h/{PROBE}@h\npassword={PROBE}",
        "INITMIG_TERMINATION_LOG": str(outcome),
        **JSON,
    }
    result = initmig(url=database.url, folder=folder, env=env)
    assert_no_secret(result, outcome)
    assert result.code == 1
    assert "raised ValueError: amqp://me:***@h" in result.events[-1]["message"]


def test_crash_is_one_event_with_a_traceback_and_no_secret(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    # a journal that initmig never writes
    write(folder, {"0001_a.sql": f"-- transactional: false\nSELECT 1;\nSELECT '{PROBE}'::int"})
    initmig(url=database.url, folder=folder)
    database.execute(
        "ALTER TABLE _initmig_migration ALTER statements_done TYPE numeric;"
        "UPDATE _initmig_migration SET statements_done = 0.5"
    )
    outcome = tmp_path / "outcome"
    env = {"INITMIG_TERMINATION_LOG": str(outcome), **JSON}
    result = initmig("status", url=database.url, folder=folder, env=env)
    assert_no_secret(result, outcome)
    [failed] = result.events
    assert failed["error"] == "internal-error"
    assert failed["message"].startswith("internal error: Traceback")
    assert "Error: " in failed["message"].splitlines()[-1]
    assert failed["next"].startswith("report this as a bug")
    assert result.code == 1
    assert "[internal-error]" in outcome.read_text()


@pytest.mark.parametrize("way", ["environment", "file"])
def test_process_list_shows_no_secret_from_environment_or_file(
    way: str, initmig: Initmig, server: DatabaseServer, make_proxy: MakeProxy, folder: Path
) -> None:
    proxy = make_proxy(server)
    proxy.stop_answering()
    url = f"postgres://me:{PROBE}@127.0.0.1:{proxy.port}/shop"
    file = folder.with_name("url")
    file.write_text(url)
    env = {"environment": {"DATABASE_URL": url}, "file": {"DATABASE_URL_FILE": str(file)}}[way]
    running = initmig.start("migrate", folder=write(folder, FAILING), env=env)
    while not proxy.connections:  # initmig reads its settings before it connects
        assert running.is_running()
    words = Path(f"/proc/{running.pid}/cmdline").read_bytes().split(b"\0")
    assert words[-2:] == [b"migrate", b""]
    assert not [word for word in words if PROBE.encode() in word]


def test_events_of_a_failed_connection_are_valid_json(initmig: Initmig, folder: Path) -> None:
    url = f"postgres://h.invalid/d?password={PROBE}&user=me"
    env = {"INITMIG_WAIT_TIMEOUT": "0", **JSON}
    result = initmig(url=url, folder=write(folder, FAILING), env=env)
    assert_no_secret(result)
    assert json.loads(result.err.splitlines()[-1])["exit_code"] == result.code == 3
