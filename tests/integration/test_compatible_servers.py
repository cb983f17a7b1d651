"""A server that lacks a setting of initmig's, or refuses it: initmig goes on, and says it once.

PostgreSQL 13 is such a server. For the others, a proxy changes what initmig sets into something
that the server really refuses.
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
    """A PostgreSQL 13, which has neither that setting nor idle_session_timeout."""
    with server_of("13") as server:
        yield server


@pytest.fixture
def old(old_server: Server) -> Iterator[Database]:
    """An empty database there."""
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
    """The URL of that database, and through a pooler."""
    if request.param == "direct":
        yield old.url
    else:
        with running_pgbouncer(old_server) as pooler:
            yield pooler.url(old.name)


@pytest.mark.parametrize("commands", COMMANDS.values(), ids=COMMANDS)
def test_each_command_goes_on_without_what_postgresql_13_lacks(
    initmig: Initmig, old_url: str, folder: Path, commands: Sequence[Sequence[str]]
) -> None:
    write(folder, FILES)
    for command in commands:
        result = initmig(*command, "--log-format=json", url=old_url, folder=folder)
        assert result.code == 0, result.err
        [told] = left_out(result)
        assert (told["name"], told["level"]) == (CHECK, "warning")
        assert told["reason"] == "this server does not have this setting"
        assert told["effect"].startswith(KILLED)


def test_who_has_nothing_to_do_sets_nothing_and_says_nothing(
    initmig: Initmig, old: Database, folder: Path
) -> None:
    write(folder, FILES)
    assert initmig(url=old.url, folder=folder).code == 0
    for command in ("migrate", "status", "wait"):
        result = initmig(command, "--log-format=json", url=old.url, folder=folder)
        assert (result.code, left_out(result)) == (0, [])


def test_doctor_says_that_the_server_is_too_old_and_what_is_left_out(
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


# --- servers that refuse one ---

REFUSALS: dict[str, tuple[Callable[[str, str], str], str]] = {
    "42704": (lambda verb, name: f"{verb} no_{name} = 0", "unrecognized configuration parameter"),
    "22023": (lambda verb, _: f"{verb} lock_timeout = 'never'", "invalid value for parameter"),
    "42501": (lambda verb, _: f"{verb} log_statement = 'all'", "permission denied"),
    "55P02": (lambda verb, _: f"{verb} port = 1", "cannot be changed without restarting"),
    "0A000": (lambda verb, _: f"{verb} password_encryption = 'none'", "invalid value"),
}


def refusing(names: Sequence[str], refusal: Callable[[str, str], str]) -> Callable[[str], str]:
    """What turns each SET of *names* into one that the server refuses."""

    def rewrite(query: str) -> str:
        for each in statements(query):
            verb, _, name = each.kind.rpartition(" ")
            if verb.startswith("SET") and name in names:
                query = query.replace(each.text, refusal(verb, name))
        return query

    return rewrite


@pytest.fixture
def refuse(database: Database, proxy: Proxy) -> Refuse:
    """Refuses the settings of some names, to a role that may not set everything; the URL of it."""
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
def test_settings_that_the_server_refuses_are_left_out(
    initmig: Initmig, refuse: Refuse, folder: Path, name: str, sqlstate: str
) -> None:
    names = NAMES if name == "all" else [name]
    url = refuse(names, sqlstate)
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    result = initmig("--log-format=json", url=url, folder=folder)
    assert result.code == 0, result.err
    told = left_out(result)
    expected = [name for name in names if name in MATTER or sqlstate != "42704"]
    assert [each["name"] for each in told] == expected
    assert all(REFUSALS[sqlstate][1] in each["reason"] for each in told)
    assert all(each["effect"] for each in told)


# the pooler logs in as a superuser, who is denied nothing
@pytest.mark.parametrize("sqlstate", sorted(REFUSALS.keys() - {"42501"}))
def test_behind_a_pooler_too(
    initmig: Initmig, database: Database, proxy: Proxy, folder: Path, sqlstate: str
) -> None:
    refusal, reason = REFUSALS[sqlstate]
    proxy.rewrite = refusing([CHECK], refusal)
    write(folder, {"0001_a.sql": "CREATE TABLE a ()"})
    with running_pgbouncer(proxy) as pooler:
        result = initmig("--log-format=json", url=pooler.url(database.name), folder=folder)
    assert result.code == 0, result.err
    [told] = left_out(result)
    assert told["name"] == CHECK
    assert reason in told["reason"]


@pytest.mark.parametrize("name", ["lock_timeout", "statement_timeout"])
def test_what_initmig_promises_is_not_left_out(
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


def test_each_is_said_once_however_often_the_connection_is_lost(
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
