"""`serve` is ready once everything is applied, and stops on a signal."""

from __future__ import annotations

import signal
import socket
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.databases import create_database
from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.serve_process import ServeProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database, DatabaseServer
    from tests.support.processes import Processes
    from tests.support.proxy import Proxy
    from tests.support.servers import MakeServer

FILES = {
    "0001_a.sql": "CREATE TABLE a ()",
    "0001_a.rollback.sql": "DROP TABLE a",
    "0002_b.sql": "CREATE TABLE b ()",
    "0002_b.rollback.sql": "DROP TABLE b",
}
GATED = {**FILES, "0002_b.sql": "SELECT pg_advisory_xact_lock(1); CREATE TABLE b ()"}
GATE_MET = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
PATHS = ("/healthz", "/readyz", "/metrics", "/nothing")
PROBE = "SECRET"
CHECKING_OFTEN = """
import os
from initmig.commands.serve import serve
from initmig.config.config import parse_config
from initmig.reporting.logs import Log
from initmig.core.signals import stoppable
config = parse_config(["serve", "--listen=127.0.0.1:0"], os.environ)
with stoppable():
    serve.serve(config, Log(config.log_level, "text"), interval=0.1)
"""
LIMITED_BY_SIGNALS = """
import resource, signal
_, most = resource.getrlimit(resource.RLIMIT_NPROC)
for number, soft in ((signal.SIGUSR1, 1), (signal.SIGUSR2, most)):
    limits = resource.RLIMIT_NPROC, (soft, most)
    signal.signal(number, lambda *_, limits=limits: resource.setrlimit(*limits))
"""
PLACES = ["127.0.0.1:0", "localhost:0", "0.0.0.0:0", ":0"]


@pytest.fixture
def serve(initmig: Initmig, folder: Path) -> Callable[..., ServeProcess]:
    """Starts the installed command with the migrations of `folder`."""

    def start(url: str, *arguments: str, env: dict[str, str] | None = None) -> ServeProcess:
        words = ("serve", "--listen", "127.0.0.1:0", *arguments)
        return ServeProcess(initmig.start(*words, url=url, folder=folder, env=env or {}))

    return start


@pytest.fixture
def checking_often(processes: Processes, folder: Path) -> Callable[[str], ServeProcess]:
    """Starts `serve` with a check every tenth of a second."""

    def start(url: str) -> ServeProcess:
        env = {"DATABASE_URL": url, "INITMIG_MIGRATIONS": str(folder)}
        return ServeProcess(processes.start([sys.executable, "-c", CHECKING_OFTEN], env=env))

    return start


@contextmanager
def closed_gate(database: Database) -> Iterator[Callable[[], None]]:
    """Make the migrations in GATED wait until the yielded function opens the gate."""
    with database.connect() as other:
        other.execute("SELECT pg_advisory_lock(1)")
        yield other.close


# --- few threads ---


@pytest.mark.any_version
def test_checks_and_answers_continue_while_no_thread_can_start(
    processes: Processes, database: Database, folder: Path, nameless_user: list[str]
) -> None:
    write(folder, FILES)
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    argv = [*nameless_user, sys.executable, "-c", LIMITED_BY_SIGNALS + CHECKING_OFTEN]
    site = ServeProcess(processes.start(argv, env=env))
    wait_until(site.is_ready)
    site.running.send(signal.SIGUSR1)
    database.execute("DELETE FROM _yoyo_migration WHERE migration_id = '0002_b'")
    site.running.wait_for_line("warning not ready: 1 pending: 0002_b")
    assert site.ask("/readyz").status == 503
    site.running.send(signal.SIGUSR2)
    result = site.stop()
    assert result.code == 0
    assert "Traceback" not in result.err


# --- ready ---


def test_ready_once_the_migrations_are_applied(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = serve(database.url)
    wait_until(site.is_ready)
    assert database.tables() >= {"a", "b"}
    assert site.ask("/readyz").body == "ready\n"
    assert site.ask("/healthz").body == "ok\n"
    assert "ready: 2 migrations, all applied" in site.running.err


def test_answers_before_the_database_is_reachable(
    serve: Callable[..., ServeProcess], folder: Path
) -> None:
    write(folder, FILES)
    site = serve(f"postgresql://127.0.0.1:{closed_port()}/shop")
    wait_until(lambda: "Connection refused" in site.ask("/readyz").body)
    assert site.ask("/readyz").status == 503
    assert site.ask("/healthz").status == 200
    assert site.metrics()["initmig_database_up"] == 0
    assert "initmig_migrations_pending" not in site.metrics()
    assert site.stop().code == 143


def test_reports_another_running_migrator_and_the_pending_migrations(
    serve: Callable[..., ServeProcess], initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, GATED)
    with closed_gate(database) as open_gate:
        leader = initmig.start(url=database.url, folder=folder)
        wait_until(lambda: bool(database.value(GATE_MET)))
        site = serve(database.url)
        wait_until(lambda: "waiting for another migrator" in site.ask("/readyz").body)
        reply = site.ask("/readyz")
        assert reply.status == 503
        assert reply.body.splitlines()[-1] == "1 pending: 0002_b"
        assert site.metrics()["initmig_last_run_outcome/running"] == 1
        open_gate()
        wait_until(site.is_ready)
    assert leader.result().code == 0
    metrics = site.metrics()
    assert metrics["initmig_last_run_outcome/applied_elsewhere"] == 1
    assert 0 < metrics["initmig_waited_seconds/migrator"] < 60
    assert metrics["initmig_migrations_applied"] == 2


def test_reports_progress_while_it_migrates(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, GATED)
    with closed_gate(database) as open_gate:
        site = serve(database.url)
        wait_until(lambda: bool(database.value(GATE_MET)))
        lines = site.ask("/readyz").body.splitlines()
        assert lines == ["not ready", f"[2/2] 0002_b ({folder}/0002_b.sql)", "1 pending: 0002_b"]
        metrics = site.metrics()
        assert metrics["initmig_migrations_applied"] == metrics["initmig_migrations_pending"] == 1
        open_gate()
        wait_until(site.is_ready)


def test_not_ready_while_the_database_is_down_and_ready_again_afterwards(
    checking_often: Callable[[str], ServeProcess], make_server: MakeServer, folder: Path
) -> None:
    server = make_server()
    write(folder, FILES)
    site = checking_often(create_database(server).url)
    wait_until(site.is_ready)
    server.stop()
    wait_until(lambda: "Connection refused" in site.ask("/readyz").body)
    assert site.ask("/readyz").status == 503
    assert site.ask("/healthz").status == 200
    assert site.metrics()["initmig_database_up"] == 0
    server.start()
    wait_until(site.is_ready)
    assert site.metrics()["initmig_database_up"] == 1
    assert site.stop().code == 0
    lines = [line for line in site.running.err.splitlines() if "ready: " in line]
    levels = [line.split()[1] for line in lines]
    assert (levels[0], {*levels[1:-1]}, levels[-1]) == ("info", {"warning"}, "info")


def test_not_ready_after_a_migration_is_rolled_back(
    checking_often: Callable[[str], ServeProcess],
    initmig: Initmig,
    database: Database,
    folder: Path,
) -> None:
    write(folder, FILES)
    site = checking_often(database.url)
    wait_until(site.is_ready)
    assert initmig("rollback", "--steps=1", url=database.url, folder=folder).code == 0
    wait_until(lambda: not site.is_ready())
    assert site.ask("/readyz").body == "not ready\n1 pending: 0002_b\n"
    site.running.wait_for_line("warning not ready: 1 pending: 0002_b")
    assert "b" not in database.tables()


def test_stays_ready_after_a_newer_image_applies_more_migrations(
    checking_often: Callable[[str], ServeProcess],
    initmig: Initmig,
    database: Database,
    folder: Path,
    tmp_path: Path,
) -> None:
    write(folder, FILES)
    site = checking_often(database.url)
    wait_until(site.is_ready)
    newer = write(tmp_path / "newer", {**FILES, "0003_c.sql": "SELECT 1"})
    assert initmig(url=database.url, folder=newer).code == 0
    wait_until(lambda: site.metrics()["initmig_migrations_unknown"] == 1)
    assert site.is_ready()


def test_not_ready_after_a_newer_image_applies_a_breaking_migration(
    checking_often: Callable[[str], ServeProcess],
    initmig: Initmig,
    database: Database,
    folder: Path,
    tmp_path: Path,
) -> None:
    write(folder, FILES)
    site = checking_often(database.url)
    wait_until(site.is_ready)
    files = {"0003_c.sql": "-- breaking: true\nSELECT 1", "0003_c.rollback.sql": "SELECT 1"}
    newer = write(tmp_path / "newer", {**FILES, **files})
    assert initmig(url=database.url, folder=newer).code == 0
    wait_until(lambda: not site.is_ready())
    body = site.ask("/readyz").body
    assert "this image is too old" in body
    assert "0003_c" in body
    metrics = site.metrics()
    assert metrics["initmig_database_up"] == 1
    assert metrics["initmig_migrations_pending"] == 0
    assert initmig("rollback", "--steps=1", url=database.url, folder=newer).code == 0
    wait_until(site.is_ready)


def test_each_check_is_one_query(
    checking_often: Callable[[str], ServeProcess],
    initmig: Initmig,
    database: Database,
    proxy: Proxy,
    folder: Path,
) -> None:
    assert initmig(url=database.url, folder=write(folder, FILES)).code == 0
    site = checking_often(proxy.url(database.name))
    wait_until(lambda: proxy.connections > 5)
    assert site.stop().code == 0
    reads = [query for query in proxy.queries if "_yoyo_migration" in query]
    assert len(reads) == len(proxy.queries) > 4
    assert len(set(reads)) == 2  # the first read, by `migrate`, checks more


# --- answers ---


def test_metrics_are_gauges_with_help_and_the_values_of_the_run(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = serve(database.url)
    wait_until(site.is_ready)
    reply = site.ask("/metrics")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(reply.body))
    assert {(family.type, bool(family.documentation)) for family in families} == {("gauge", True)}
    metrics = site.metrics()
    duration = metrics.pop("initmig_last_run_duration_seconds")
    assert 0 < duration < 20
    assert 0 <= metrics.pop("initmig_waited_seconds/migrator") < duration
    assert metrics == {
        "initmig_migrations_pending": 0,
        "initmig_migrations_applied": 2,
        "initmig_migrations_unknown": 0,
        "initmig_database_up": 1,
        "initmig_last_run_outcome/running": 0,
        "initmig_last_run_outcome/applied": 1,
        "initmig_last_run_outcome/applied_elsewhere": 0,
        "initmig_last_run_outcome/nothing_pending": 0,
        "initmig_waited_seconds/database": 0,
    }


def test_head_returns_the_same_headers_without_a_body(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = serve(database.url)
    wait_until(site.is_ready)
    for path, status in zip(PATHS, (200, 200, 200, 404), strict=True):
        head, whole = site.ask(path, method="HEAD"), site.ask(path)
        assert (head.status, head.body) == (whole.status, "") == (status, "")
        assert int(head.headers["Content-Length"]) == len(whole.body) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_get_405_with_the_allowed_methods(
    method: str, serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = serve(database.url)
    reply = site.ask("/readyz", method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
    assert reply.body == "Method Not Allowed\n"


def test_request_with_an_unread_body_gets_an_answer(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = serve(database.url)
    assert site.ask("/readyz", method="POST", body=b"x" * 1_000_000).status == 405


def test_malformed_request_gets_a_text_answer_and_no_log_line(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = serve(database.url)
    wait_until(site.is_ready)
    before = site.running.err
    for nonsense in (b"\x16\x03\x01\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        answer = site.say(nonsense)
        assert b"<html" not in answer.lower()
        assert answer
    assert site.is_ready()
    assert site.running.err == before


def test_requests_are_logged_only_at_debug_level_and_without_the_query(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, FILES)
    quiet, verbose = serve(database.url), serve(database.url, "--log-level=debug")
    for site in (quiet, verbose):
        assert site.ask(f"/readyz?token={PROBE}").status in (200, 503)
        assert site.ask("/healthz").status == 200
    verbose.running.wait_for_line("debug   GET /readyz ")
    verbose.running.wait_for_line("debug   GET /healthz 200")
    assert "GET" not in quiet.running.err
    assert PROBE not in verbose.running.err


def test_no_answer_shows_a_password_or_the_python_version(
    serve: Callable[..., ServeProcess], server: DatabaseServer, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    host = server.url().rpartition("@")[2].partition("/")[0]
    site = serve(f"postgresql://no{database.name}:{PROBE}@{host}/{database.name}")
    wait_until(lambda: f"no{database.name}" in site.ask("/readyz").body)
    for path in PATHS:
        reply = site.ask(path)
        assert PROBE not in reply.body + str(reply.headers)
        assert reply.headers["Server"] == "initmig"
    assert PROBE not in site.running.err


# --- shutdown ---


@pytest.mark.parametrize("way", ["terminate", "interrupt"])
def test_signal_stops_it_with_exit_code_0_despite_an_open_request(
    way: str, serve: Callable[..., ServeProcess], database: Database, folder: Path, tmp_path: Path
) -> None:
    write(folder, FILES)
    outcome = tmp_path / "outcome"
    site = serve(database.url, env={"INITMIG_TERMINATION_LOG": str(outcome)})
    wait_until(site.is_ready)
    with site.half_a_request():
        sent = time.monotonic()
        getattr(site.running, way)()
        result = site.running.result()
        assert time.monotonic() - sent < 30
    assert result.code == 0
    name = {"terminate": "SIGTERM", "interrupt": "SIGINT"}[way]
    assert name in outcome.read_text()
    assert "Traceback" not in result.err


def test_signal_stops_it_while_a_check_hangs(
    checking_often: Callable[[str], ServeProcess],
    database: Database,
    proxy: Proxy,
    folder: Path,
) -> None:
    write(folder, FILES)
    site = checking_often(proxy.url(database.name))
    wait_until(site.is_ready)
    proxy.pause()
    before = proxy.connections
    wait_until(lambda: proxy.connections > before)
    assert site.stop().code == 0


def test_signal_during_a_migration_stops_it_like_migrate(
    serve: Callable[..., ServeProcess], database: Database, folder: Path
) -> None:
    write(folder, GATED)
    with closed_gate(database):
        site = serve(database.url)
        wait_until(lambda: bool(database.value(GATE_MET)))
        site.running.terminate()
        result = site.running.result(5)
    assert result.code == 143
    assert "stopped by SIGTERM" in result.err
    assert database.tables() >= {"a"}
    assert "b" not in database.tables()


# --- failures before serving ---


def test_failing_migration_stops_it_like_migrate(
    initmig: Initmig, database: Database, folder: Path, tmp_path: Path
) -> None:
    write(folder, {"0001_x.sql": "SELECT missing"})
    outcome = tmp_path / "outcome"
    env = {"INITMIG_TERMINATION_LOG": str(outcome)}
    result = initmig("serve", "--listen=127.0.0.1:0", url=database.url, folder=folder, env=env)
    assert result.code == 1
    assert outcome.read_text() in result.err
    assert 'column "missing" does not exist' in outcome.read_text()


def test_address_in_use_is_reported_before_anything_is_applied(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        result = initmig("serve", url=database.url, folder=folder, env={"INITMIG_LISTEN": place})
    assert f"cannot listen on {place}: Address already in use" in result.err
    assert "[cannot-listen]\n" in result.err
    assert (result.code, database.tables()) == (2, set())


@pytest.mark.parametrize("place", ["no.such.host.invalid:0", "203.0.113.1:0", f"{'x' * 70}:0"])
def test_address_of_another_host_is_reported_before_anything_is_applied(
    place: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    result = initmig("serve", "--listen", place, url=database.url, folder=folder)
    assert f"cannot listen on {place}: " in result.err
    assert (result.code, database.tables()) == (2, set())


@pytest.mark.parametrize("place", PLACES)
def test_listens_on_the_given_address(
    place: str, initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    site = ServeProcess(initmig.start("serve", "--listen", place, url=database.url, folder=folder))
    assert site.ask("/healthz", host=place.partition(":")[0] or "127.0.0.1").status == 200


def test_listens_on_ipv6_if_the_host_has_it(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(folder, FILES)
    has_ipv6 = can_bind("::1")
    running = initmig.start("serve", "--listen", "[::1]:0", url=database.url, folder=folder)
    if has_ipv6:
        site = ServeProcess(running)
        assert "listening on [::1]:" in running.err
        assert site.ask("/healthz", host="::1").status == 200
    else:
        assert running.result().code == 2


def can_bind(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
