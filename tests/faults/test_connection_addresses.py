"""Several addresses, some of them silent, refusing or standbys: initmig tries each in turn.

A silent address drops packets without an error: its router has no route for them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from initmig.postgres.addresses import attempts
from tests.support.connecting import KINDS, as_pairs, attempt
from tests.support.databases import Database, create_database
from tests.support.migrations import write
from tests.support.network_link import working_link
from tests.support.ports import closed_port, silent_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.postgres import Server
    from tests.support.command import Initmig
    from tests.support.network_link import Link
    from tests.support.processes import Result
    from tests.support.servers import MakeServer, MakeStandby

pytestmark = pytest.mark.any_version

SILENT = "203.0.113.7"
"""An address of a network for documentation (RFC 5737)."""

# psycopg's connection applies it, after libpq's connection has read the history.
PYTHON_STEP = """
from yoyo import step
step(lambda connection: connection.cursor().execute("CREATE TABLE b (id int)"))
"""
FILES = {"0001_a.sql": "CREATE TABLE a (id int)", "0002_b.py": PYTHON_STEP}


class Far(NamedTuple):
    """initmig on a host for which `db.example` has two addresses, the first of them silent."""

    link: Link
    database: Database
    server: Server
    folder: Path
    initmig: Initmig

    def run(self, *arguments: str, conninfo: str, **env: str) -> Result:
        return self.initmig(
            *arguments, url=conninfo, folder=self.folder, env=env, prefix=self.link.prefix
        )

    def pairs(self, **parameters: str) -> str:
        return as_pairs(self.database.url, **{"host": "db.example", **parameters})


@pytest.fixture
def far(make_server: MakeServer, tmp_path: Path, initmig: Initmig) -> Iterator[Far]:
    server = make_server(listen_addresses="*")
    database = create_database(server)
    folder = tmp_path / "migrations"
    write(folder, FILES)
    with working_link() as link:
        link.let_in(server)
        namespace = link.prefix[-1]
        # `ip netns exec` mounts it over /etc/hosts
        etc = Path("/etc/netns") / namespace
        etc.mkdir(parents=True)
        try:
            lines = (f"{SILENT} db.example", f"{link.near_address} db.example", f"{SILENT} silent")
            (etc / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
            link.swallow(SILENT)
            known = subprocess.run(
                [*link.prefix, "getent", "ahostsv4", "db.example"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            assert known.startswith(SILENT), known
            yield Far(link, database, server, folder, initmig)
        finally:
            shutil.rmtree(etc)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ((), {}),
        (("--wait-timeout=5s",), {}),
        (("--wait-timeout=0",), {}),
        ((), {"connect_timeout": "2"}),
        (("--wait-timeout=8s",), {"connect_timeout": "0"}),
        ((), {"host": "silent,db.example", "connect_timeout": "1"}),
        ((), {"host": "silent,db.example", "target_session_attrs": "primary"}),
        ((), {"target_session_attrs": "read-write", "load_balance_hosts": "random"}),
    ],
)
def test_next_address_is_tried_after_a_silent_one(
    far: Far, arguments: tuple[str, ...], parameters: dict[str, str]
) -> None:
    result = far.run(*arguments, conninfo=far.pairs(**parameters))
    assert result.code == 0, result.err
    assert "applied 2 migrations" in result.err
    assert far.database.tables() >= {"a", "b"}


@pytest.mark.parametrize("where", ["string", "variable", "service"])
def test_connect_timeout_from_any_source_is_used(far: Far, tmp_path: Path, where: str) -> None:
    seconds = "7"
    file = tmp_path / "services"
    file.write_text(f"[shop]\nconnect_timeout={seconds}\n")
    conninfo, env = {
        "string": (far.pairs(host="silent", connect_timeout=seconds), {}),
        "variable": (far.pairs(host="silent"), {"PGCONNECT_TIMEOUT": seconds}),
        "service": (
            far.pairs(host="silent"),
            {"PGSERVICEFILE": str(file), "PGSERVICE": "shop"},
        ),
    }[where]
    result = far.run("--wait-timeout=0", conninfo=conninfo, **env)
    assert result.code == 3
    assert f'"silent" ({SILENT}), port {far.server.port} failed: timeout expired' in result.err
    waited = float(result.err.rpartition("(waited ")[2].partition(" s)")[0])
    assert waited >= 7, "more than initmig's default of 5 s"


def test_wait_timeout_limits_all_addresses_together(far: Far) -> None:
    hosts = ",".join(["silent"] * 6)
    result = far.run("--wait-timeout=3s", conninfo=far.pairs(host=hosts, connect_timeout="60"))
    assert result.code == 3
    waited = float(result.err.rpartition("(waited ")[2].partition(" s)")[0])
    assert 3 <= waited < 30, "six addresses get a second at least, and not a minute"


# --- on this host ---


@KINDS
def test_next_address_is_tried_after_a_port_that_never_answers(
    database: Database, *, python: bool
) -> None:
    with silent_port() as port:
        own = database.url.rpartition(":")[2].partition("/")[0]
        hosts = {"host": "127.0.0.1,127.0.0.1", "port": f"{port},{own}"}
        got = attempt(as_pairs(database.url, **hosts, connect_timeout="1"), python=python)
        assert got.id == "", got


@KINDS
def test_next_address_is_tried_after_a_refused_connection(
    database: Database, *, python: bool
) -> None:
    own = database.url.rpartition(":")[2].partition("/")[0]
    for host, port in (
        ("127.0.0.1,127.0.0.1", f"{closed_port()},{own}"),
        ("no.such.invalid,127.0.0.1", own),
        ("/no/such/folder,127.0.0.1", own),
        ("localhost,127.0.0.1", own),
    ):
        got = attempt(as_pairs(database.url, host=host, port=port), python=python)
        assert got.id == "", got


@KINDS
def test_error_names_each_address(python: bool) -> None:
    ports = [closed_port(), closed_port()]
    got = attempt(f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]} user=me", python=python)
    assert (got.id, got.exit_code) == ("database-unavailable", 3)
    assert all(f"port {port} failed: Connection refused" in got.message for port in ports)


@KINDS
@pytest.mark.parametrize("mode", ["primary", "read-write"])
def test_primary_is_found_after_a_standby(
    make_server: MakeServer, make_standby: MakeStandby, mode: str, *, python: bool
) -> None:
    primary = make_server()
    standby = make_standby(primary)
    both = {"host": "127.0.0.1,127.0.0.1", "port": f"{standby.port},{primary.port}"}
    pairs = as_pairs(primary.url(), **both, target_session_attrs=mode)
    assert attempt(pairs, python=python).id == ""
    alone = as_pairs(standby.url(), target_session_attrs=mode)
    got = attempt(alone, python=python)
    assert (got.id, got.exit_code) == ("standby", 3), got
    assert "target_session_attrs=primary or read-write" in got.hint
    prefers = as_pairs(primary.url(), **both, target_session_attrs="prefer-standby")
    assert attempt(prefers, python=python).id == ""


def test_next_step_on_a_standby_is_to_connect_to_the_primary(
    make_server: MakeServer, make_standby: MakeStandby, initmig: Initmig, tmp_path: Path
) -> None:
    write(tmp_path, {"0001_a.sql": "CREATE TABLE a (id int)"})
    primary = make_server()
    standby = make_standby(primary)
    for url in (
        standby.url(),
        as_pairs(standby.url(), target_session_attrs="primary"),
        as_pairs(standby.url(), target_session_attrs="read-write"),
    ):
        result = initmig("--wait-timeout=1s", url=url, folder=tmp_path)
        assert result.code == 3
        assert "[standby]" in result.err
        assert "next: connect to the primary" in result.err
        assert "check that the database is running" not in result.err
    database = create_database(primary)
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    result = initmig("--wait-timeout=1s", url=database.url, folder=tmp_path)
    assert result.code == 3
    assert "[read-only]" in result.err
    assert "target_session_attrs=read-write" in result.err


@pytest.mark.parametrize(
    ("given", "ports", "expected"),
    [
        ({"host": "/run/pg"}, "5432", [{"host": "/run/pg", "port": "5432"}]),
        ({"hostaddr": "::1,::2"}, "", [("::1", "5432"), ("::2", "5432")]),
        (
            {"host": "a,b", "hostaddr": "::1,::2"},
            "1,",
            [
                {"host": "a", "hostaddr": "::1", "port": "1"},
                {"host": "b", "hostaddr": "::2", "port": "5432"},
            ],
        ),
        ({"host": "a,b", "hostaddr": "::1"}, "1", [{}]),
        ({"host": ",b"}, "1", [{}]),
        ({"host": "no.such.invalid"}, "1", [{"host": "no.such.invalid", "port": "1"}]),
    ],
)
def test_attempts_lists_the_parameters_of_each_address(
    given: dict[str, str], ports: str, expected: list[dict[str, str] | tuple[str, str]]
) -> None:
    wanted = [
        each if isinstance(each, dict) else {"hostaddr": each[0], "port": each[1]}
        for each in expected
    ]
    assert attempts(given, ports, ()) == wanted
