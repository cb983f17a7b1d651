"""`serve` answers probes while other clients misbehave."""

from __future__ import annotations

import resource
import signal
import socket
import struct
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.serve_process import ServeProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes

    Serve = Callable[..., ServeProcess]
    Crowd = Callable[[ServeProcess, ExitStack], None]

MOST_CONNECTIONS = 512
OTHER_DESCRIPTORS = 32
"""More than the descriptors that `serve` uses in addition to its connections."""
MEMORY = 16 * 1024
"""The memory that clients may use, in KiB."""
HEADERS = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 100) for number in range(50_000))
TLS_GREETING = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 500
RST_ON_CLOSE = struct.pack("ii", 1, 0)
TAKING_ALL_DESCRIPTORS = """
import os, resource, signal, threading, time
wanted = threading.Event()
def take():
    taken = []
    while True:
        try:
            while wanted.is_set():
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        while taken and not wanted.is_set():
            os.close(taken.pop())
        time.sleep(0.01)
signal.signal(signal.SIGUSR1, lambda *_: wanted.set())
signal.signal(signal.SIGUSR2, lambda *_: wanted.clear())
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
threading.Thread(target=take, daemon=True).start()
from initmig.cli.process import run
run()
"""


@pytest.fixture
def serve(initmig: Initmig, folder: Path) -> Serve:
    """Starts the installed command, which waits for an unreachable database."""
    write(folder, {"0001_a.sql": "SELECT 1"})
    url = f"postgresql://127.0.0.1:{closed_port()}/shop"

    def start(*prefix: str) -> ServeProcess:
        words = ("serve", "--listen=127.0.0.1:0", "--wait-timeout=10m")
        return ServeProcess(initmig.start(*words, url=url, folder=folder, prefix=prefix))

    return start


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    """Raises the limit for the clients in this process; `serve` inherits it."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


# --- misbehaving clients ---


def sending(data: bytes, many: int) -> Crowd:
    """*many* clients that send *data* and then nothing."""

    def start(site: ServeProcess, stack: ExitStack) -> None:
        for _ in range(many):
            with suppress(ConnectionError):  # this connection was closed to make room
                stack.enter_context(site.connect(data))

    return start


def repeating(data: bytes, many: int, first: bytes = b"") -> Crowd:
    """*many* clients that send *first*, then *data* repeatedly, and never read."""

    def start(site: ServeProcess, stack: ExitStack) -> None:
        stack.enter_context(_repeated(site, data, many, first))

    return start


@contextmanager
def _repeated(site: ServeProcess, data: bytes, many: int, first: bytes) -> Iterator[None]:
    ended = Event()
    with ExitStack() as stack:
        clients = [stack.enter_context(site.connect(first)) for _ in range(many)]

        def send() -> None:
            while not ended.wait(0.01):
                for client in clients:
                    client.settimeout(0)
                    with suppress(OSError):  # the buffers are full, or the connection was closed
                        client.sendall(data)

        thread = Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def resetting(many: int) -> Crowd:
    """*many* clients that reset the connection in the middle of a request."""

    def start(site: ServeProcess, _stack: ExitStack) -> None:
        for _ in range(many):
            with suppress(ConnectionError), site.connect(b"GET /metr") as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)

    return start


def half_closed(data: bytes, many: int) -> Crowd:
    """*many* clients that close their sending side and stay connected."""

    def start(site: ServeProcess, stack: ExitStack) -> None:
        for _ in range(many):
            with suppress(OSError):
                stack.enter_context(site.connect(data)).shutdown(socket.SHUT_WR)

    return start


CROWDS = {
    "64 that send nothing": sending(b"", 64),
    "500 that send nothing": sending(b"", 500),
    "2000 that send nothing": sending(b"", 2000),
    "600 with half a request": sending(b"GET /readyz HT", 600),
    "600 with a whole request, that never read": sending(b"GET /metrics HTTP/1.1\r\n\r\n", 600),
    "600 with a TLS greeting": sending(
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 500, 600
    ),
    "100 that drip a request line": repeating(b"x", 100, b"GET /"),
    "100 that drip headers": repeating(b"X: y\r\n", 100, b"GET / HTTP/1.1\r\n"),
    "100 that drip empty lines": repeating(b"\r\n", 100),
    "20 that send headers without end": repeating(HEADERS[:1_000_000], 20, b"GET / HTTP/1.1\r\n"),
    "20 that send a body without end": repeating(b"x" * 1_000_000, 20, b"POST / HTTP/1.1\r\n\r\n"),
    "20 with one request after the other": repeating(b"GET /metrics HTTP/1.1\r\n\r\n" * 1000, 20),
    "600 that reset": resetting(600),
    "600 half closed, with a request": half_closed(b"GET /healthz HTTP/1.1\r\n\r\n", 600),
    "600 half closed, without": half_closed(b"GET /heal", 600),
}


@pytest.mark.parametrize("start", CROWDS.values(), ids=CROWDS)
def test_probe_gets_an_answer_among_misbehaving_clients(start: Crowd, serve: Serve) -> None:
    site = serve()
    assert site.ask("/metrics").status == 200
    memory = site.most_memory()
    with ExitStack() as stack:
        start(site, stack)
        for source in ("127.0.0.1", "127.0.0.2"):
            assert site.ask("/healthz", source=source).status == 200
            assert site.ask("/readyz", source=source).status == 503
        assert site.descriptors() <= MOST_CONNECTIONS + OTHER_DESCRIPTORS
    assert site.most_memory() < memory + MEMORY
    assert "Traceback" not in site.running.err
    wait_until(lambda: site.descriptors() < OTHER_DESCRIPTORS)
    assert site.ask("/healthz").status == 200


@pytest.mark.parametrize("many", [64, 256, 1024])
def test_connections_use_at_most_a_quarter_of_the_descriptors(many: int, serve: Serve) -> None:
    site = serve("sh", "-c", f'ulimit -n {many}; exec "$0" "$@"')
    with ExitStack() as stack:
        sending(b"", 1100)(site, stack)
        assert site.ask("/healthz").status == 200
        assert site.descriptors() <= many // 4 + OTHER_DESCRIPTORS
    assert "Traceback" not in site.running.err


def test_oldest_connection_of_the_busiest_host_is_closed(serve: Serve) -> None:
    site = serve()
    with ExitStack() as stack:
        slow = stack.enter_context(site.connect(b"GET /heal", source="127.0.0.2"))
        clients = [stack.enter_context(site.connect()) for _ in range(MOST_CONNECTIONS)]
        assert clients[0].recv(1) == b""
        slow.sendall(b"thz HTTP/1.1\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.0 200"
        clients[-1].sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert clients[-1].recv(12) == b"HTTP/1.0 200"


@pytest.mark.any_version
def test_survives_descriptor_exhaustion_and_answers_afterwards(
    processes: Processes, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1"})
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    argv = [sys.executable, "-c", TAKING_ALL_DESCRIPTORS, "serve", "--listen=127.0.0.1:0"]
    site = ServeProcess(processes.start(argv, env=env))
    wait_until(site.is_ready)
    site.running.send(signal.SIGUSR1)
    wait_until(lambda: site.descriptors() == 256)
    with site.connect(b"GET /healthz HTTP/1.1\r\n\r\n") as probe:
        before, begun = site.cpu_seconds(), time.monotonic()
        time.sleep(2)
        assert site.cpu_seconds() - before < (time.monotonic() - begun) / 4
        site.running.send(signal.SIGUSR2)
        assert probe.recv(12) == b"HTTP/1.0 200"
    result = site.stop()
    assert result.code == 0
    assert "Traceback" not in result.err


@pytest.mark.parametrize("more", [b"", b"x", b"\r\n"])
def test_slow_client_is_disconnected_even_if_it_keeps_sending(more: bytes, serve: Serve) -> None:
    site = serve()
    with site.half_a_request() if more != b"\r\n" else site.connect() as client:
        client.settimeout(0.1)
        wait_until(lambda: is_disconnected_after(client, more))
    assert site.ask("/healthz").status == 200


def is_disconnected_after(client: socket.socket, more: bytes) -> bool:
    try:
        client.sendall(more)
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


# --- requests of every form ---

OK, BAD, NOT_ALLOWED = b"200 OK", b"400 Bad Request", b"405 Method Not Allowed"
LONG_URI, LONG_HEADERS = b"414 Request-URI Too Long", b"431 Request Header Fields Too Large"
REQUESTS = {
    "1.1": ([b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], OK),
    "1.0": ([b"GET /healthz HTTP/1.0\r\n\r\n"], OK),
    "keep-alive": ([b"GET /healthz HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"], OK),
    "1.0 keep-alive": ([b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"], OK),
    "an upgrade": ([b"GET /healthz HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"], OK),
    "in pieces": ([b"GET /hea", b"lthz HTTP/1.1\r", b"\nHost: x\r\n", b"\r", b"\n"], OK),
    "newlines alone": ([b"GET /healthz HTTP/1.1\nHost: x\n\n"], OK),
    "after empty lines": ([b"\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n"], OK),
    "two at once": ([b"GET /healthz HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n"], OK),
    "100 headers": ([b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 150 + b"\r\n"], OK),
    "broken headers": ([b"GET /healthz HTTP/1.1\r\n: \0\xff\r\n\r\n"], OK),
    "a length and no body": ([b"POST /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\n"], NOT_ALLOWED),
    "expecting": ([b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"], NOT_ALLOWED),
    "chunks": ([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\n"], NOT_ALLOWED),
    "a proxy's": ([b"CONNECT db:5432 HTTP/1.1\r\n\r\n"], NOT_ALLOWED),
    "HTTP/2": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], b"505 HTTP Version Not Supported"),
    "no HTTP": ([b"\x16\x03\x01\0\r\n\r\n"], BAD),
    "blanks": ([b" \t \r\n\r\n"], BAD),
    "a version of letters": ([b"GET / HTTP/\xb2.\xb3\r\n\r\n"], BAD),
    "a long path": ([b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n"], LONG_URI),
    "long headers": ([b"GET / HTTP/1.1\r\n", HEADERS[:1_000_000]], LONG_HEADERS),
}


@pytest.fixture
def site(serve: Serve) -> ServeProcess:
    return serve()


@pytest.mark.parametrize(("parts", "status"), REQUESTS.values(), ids=REQUESTS)
def test_any_request_gets_one_answer_and_the_connection_is_closed(
    parts: list[bytes], status: bytes, site: ServeProcess
) -> None:
    answer = site.say(*parts)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.0 " + status
    assert b"Connection: close" in head.splitlines()
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()
    assert site.running.err.count("\n") <= 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", OK),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", BAD),
        (b"GET /healthz", BAD),
        (b"x" * 5000, BAD),
    ],
)
def test_half_closed_client_gets_an_answer(data: bytes, status: bytes, site: ServeProcess) -> None:
    answer = site.say(data, is_over=True)
    assert answer.splitlines()[0] == b"HTTP/1.0 " + status


def test_client_that_sends_nothing_gets_no_answer(site: ServeProcess) -> None:
    assert site.say(is_over=True) == b""
