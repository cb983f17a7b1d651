"""A server that lacks or refuses one of initmig's settings: initmig logs it once and continues.

PostgreSQL 13 lacks one. To imitate the other servers, a proxy rewrites the SET statements of
initmig so that the real server refuses them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from initmig.postgres.parameters import OPTIONAL_SETTINGS
from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.pgbouncer import running_pgbouncer
from tests.support.servers import server_of
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.processes import Result
    from tests.support.proxy import Proxy

    Refuse: TypeAlias = Callable[[Sequence[str], str], str]

pytestmark = pytest.mark.any_version

CHECK = "client_connection_check_interval"
[KILLED] = [each.effect for each in OPTIONAL_SETTINGS if each.name == CHECK]
NAMES = [each.name for each in OPTIONAL_SETTINGS]
MATTER = [each.name for each in OPTIONAL_SETTINGS if each.warn_if_missing]


def left_out(result: Result) -> list[dict[str, Any]]:
    return [each for each in result.events if each["event"] == "setting_left_out"]


# --- PostgreSQL 13 ---


@pytest.fixture(scope="module")
def old_server() -> Iterator[Server]:
    """A PostgreSQL 13 server, which lacks `CHECK` and idle_session_timeout."""
    with server_of("13") as server:
        yield server


@pytest.fixture
def old(old_server: Server) -> Iterator[Database]:
    """An empty database on the PostgreSQL 13 server."""
    database = create_database(old_server)
    yield database
    database.drop(old_server)


FILES = {
    "0001_a.sql": "CREATE TABLE a (b int)",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.py": "from yoyo import step\nstep(lambda c: c.cursor().execute('CREATE TABLE b ()'),"
    " 'DROP TABLE b')",
    "0003_c.sql": "-- transactional: false\nCREATE INDEX CONCURRENTLY c ON a (b);",
    "0003_c.rollback.sql": "DROP INDEX c",
}
COMMANDS: dict[str, tuple[Sequence[str], ...]] = {
    "migrate": (["migrate"],),
    "rehearse": (["rehearse"],),
    "baseline": (["baseline", "--to=0003_c"],),
    "rollback": (["migrate"], ["rollback", "--all"]),
    "transaction": (["migrate", "--to=0002_b", "--transaction=all"],),
}


@pytest.fixture(params=["direct", "pooled"])
def old_url(request: pytest.FixtureRequest, old_server: Server, old: Database) -> Iterator[str]:
    """The URL of the database on PostgreSQL 13: direct, and through a pooler."""
    if request.param == "direct":
        yield old.url
    else:
        with running_pgbouncer(old_server) as pooler:
            yield pooler.url(old.name)


@pytest.mark.parametrize("commands", COMMANDS.values(), ids=COMMANDS)
def test_each_command_runs_without_the_setting_that_postgresql_13_lacks(
    initmig: Initmig, old_url: str, folder: Path, commands: Sequence[Sequence[str]]
) -> None:
    write(folder, FILES)
    for command in commands:
        result = initmig(*command, "--log-format=json", url=old_url, folder=folder)
        assert result.code == 0, result.err
        [event] = left_out(result)
        assert (event["name"], event["level"]) == (CHECK, "warning")
        assert event["reason"] == "this server does not have this setting"
        assert event["effect"].startswith(KILLED)


def test_commands_with_nothing_to_do_do_not_log_the_missing_setting(
    initmig: Initmig, old: Database, folder: Path
) -> None:
    write(folder, FILES)
    assert initmig(url=old.url, folder=folder).code == 0
    for command in ("migrate", "status", "wait"):
        result = initmig(command, "--log-format=json", url=old.url, folder=folder)
        assert (result.code, left_out(result)) == (0, [])


def test_doctor_reports_an_old_server_and_the_missing_setting(
    initmig: Initmig, old: Database, folder: Path
) -> None:
    write(folder, FILES)
    result = initmig("doctor", "--json", url=old.url, folder=folder)
    checks = json.loads(result.out)["checks"]
    found = {check["subject"]: check["found"] for check in checks if check["level"] != "ok"}
    assert "needs 14" in found["server"]
    assert found["settings"].startswith(
        f"{CHECK} cannot be set (this server does not have this setting):"
    )
    assert (result.code, "could not set" in result.err) == (4, False)


# --- servers that refuse a setting ---

REFUSALS: dict[str, tuple[Callable[[str, str], str], str]] = {
    "42704": (lambda verb, name: f"{verb} no_{name} = 0", "unrecognized configuration parameter"),
    "22023": (lambda verb, _: f"{verb} lock_timeout = 'never'", "invalid value for parameter"),
    "42501": (lambda verb, _: f"{verb} log_statement = 'all'", "permission denied"),
    "55P02": (lambda verb, _: f"{verb} port = 1", "cannot be changed without restarting"),
    "0A000": (lambda verb, _: f"{verb} password_encryption = 'none'", "invalid value"),
}


def refusing(names: Sequence[str], refusal: Callable[[str, str], str]) -> Callable[[str], str]:
    """Rewrites each SET of a setting in *names* so that the server refuses it."""

    def rewrite(query: str) -> str:
        for each in statements(query):
            verb, _, name = each.kind.rpartition(" ")
            if verb.startswith("SET") and name in names:
                query = query.replace(each.text, refusal(verb, name))
        return query

    return rewrite


@pytest.fixture
def refuse(database: Database, proxy: Proxy) -> Refuse:
    """Makes the server refuse some settings. Returns the URL of a role that is not a superuser."""
    url = proxy.through(database.login_role("GRANT USAGE, CREATE ON SCHEMA public TO {role}"))

    def refuse(names: Sequence[str], sqlstate: str) -> str:
        proxy.rewrite = refusing(names, REFUSALS[sqlstate][0])
        return url

    return refuse


@pytest.mark.parametrize(
    ("name", "sqlstate"),
    [
        *((name, sqlstate) for name in NAMES for sqlstate in ("42704", "22023")),
        *((name, sqlstate) for name in (CHECK, "all") for sqlstate in ("42501", "55P02", "0A000")),
        ("all", "42704"),
    ],
)
def test_refused_settings_are_left_out(
    initmig: Initmig, refuse: Refuse, folder: Path, name: str, sqlstate: str
) -> None:
    names = NAMES if name == "all" else [name]
    url = refuse(names, sqlstate)
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    result = initmig("--log-format=json", url=url, folder=folder)
    assert result.code == 0, result.err
    events = left_out(result)
    expected = [name for name in names if name in MATTER or sqlstate != "42704"]
    assert [each["name"] for each in events] == expected
    assert all(REFUSALS[sqlstate][1] in each["reason"] for each in events)
    assert all(each["effect"] for each in events)


# the pooler logs in as a superuser, so no permission is denied
@pytest.mark.parametrize("sqlstate", sorted(REFUSALS.keys() - {"42501"}))
def test_refused_setting_is_left_out_through_a_pooler(
    initmig: Initmig, database: Database, proxy: Proxy, folder: Path, sqlstate: str
) -> None:
    refusal, reason = REFUSALS[sqlstate]
    proxy.rewrite = refusing([CHECK], refusal)
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    with running_pgbouncer(proxy) as pooler:
        result = initmig("--log-format=json", url=pooler.url(database.name), folder=folder)
    assert result.code == 0, result.err
    [event] = left_out(result)
    assert event["name"] == CHECK
    assert reason in event["reason"]


@pytest.mark.parametrize("name", ["lock_timeout", "statement_timeout"])
def test_refused_timeout_is_an_error(
    initmig: Initmig, database: Database, proxy: Proxy, folder: Path, name: str
) -> None:
    proxy.rewrite = refusing([name], REFUSALS["42704"][0])
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    result = initmig("--log-format=json", url=proxy.url(database.name), folder=folder)
    [failed] = [each for each in result.events if each["event"] == "failed"]
    assert (result.code, failed["error"], failed["sqlstate"]) == (4, "statement-refused", "42704")
    assert f"no_{name}" in failed["message"]
    assert left_out(result) == []
    assert database.tables() == set()


def test_refused_setting_is_logged_once_after_lost_connections(
    initmig: Initmig, database: Database, proxy: Proxy, folder: Path
) -> None:
    proxy.rewrite = refusing([CHECK], REFUSALS["42704"][0])
    write(folder, {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": "CREATE TABLE b ()"})
    lost: list[int] = []

    def before(message: Any) -> Any:
        if message.type == "Q" and "CREATE TABLE" in message.query and len(lost) < 2:
            lost.append(message.number)
            return "cut"
        return "forward"

    proxy.before = before
    result = initmig("--log-format=json", url=proxy.url(database.name), folder=folder)
    assert result.code == 0, result.err
    assert len(lost) == 2
    assert [each["name"] for each in left_out(result)] == [CHECK]
