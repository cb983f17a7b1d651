"""`serve` answers probes whatever its other clients do."""

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

from tests.support.hosts import closed_port
from tests.support.migrations import write
from tests.support.sites import Site
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Processes

    Serve = Callable[..., Site]
    Crowd = Callable[[Site, ExitStack], None]

MOST_CONNECTIONS = 512
OTHER_DESCRIPTORS = 32
"""More than `serve` has open besides its connections."""
MEMORY = 16 * 1024
"""KiB that clients may cost."""
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
from initmig.cli.main import run
run()
"""


@pytest.fixture
def serve(initmig: Initmig, folder: Path) -> Serve:
    """Starts the installed command, which waits for a database that is not there."""
    write(folder, {"0001_a.sql": "SELECT 1"})
    url = f"postgresql://127.0.0.1:{closed_port()}/shop"

    def start(*prefix: str) -> Site:
        words = ("serve", "--listen=127.0.0.1:0", "--wait-timeout=10m")
        return Site(initmig.start(*words, url=url, folder=folder, prefix=prefix))

    return start


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    """For the clients, which are here; `serve` inherits them."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


# --- clients that do harm, as long as they are there ---


def saying(said: bytes, many: int) -> Crowd:
    """*many* clients that say *said*, and then nothing."""

    def start(site: Site, stack: ExitStack) -> None:
        for _ in range(many):
            with suppress(ConnectionError):  # it was the one that had to make room
                stack.enter_context(site.connect(said))

    return start


def repeating(said: bytes, many: int, first: bytes = b"") -> Crowd:
    """*many* clients that say *first*, and then *said* again and again; they never read."""

    def start(site: Site, stack: ExitStack) -> None:
        stack.enter_context(_repeated(site, said, many, first))

    return start


@contextmanager
def _repeated(site: Site, said: bytes, many: int, first: bytes) -> Iterator[None]:
    ended = Event()
    with ExitStack() as stack:
        clients = [stack.enter_context(site.connect(first)) for _ in range(many)]

        def say() -> None:
            while not ended.wait(0.01):
                for client in clients:
                    client.settimeout(0)
                    with suppress(OSError):  # its buffers are full, or it was cut off
                        client.sendall(said)

        thread = Thread(target=say)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def coming_and_going(many: int) -> Crowd:
    """*many* clients that go in the middle of their request, with a reset."""

    def start(site: Site, _stack: ExitStack) -> None:
        for _ in range(many):
            with suppress(ConnectionError), site.connect(b"GET /metr") as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)

    return start


def half_closed(said: bytes, many: int) -> Crowd:
    """*many* clients that say that they send no more, and stay."""

    def start(site: Site, stack: ExitStack) -> None:
        for _ in range(many):
            with suppress(OSError):
                stack.enter_context(site.connect(said)).shutdown(socket.SHUT_WR)

    return start


CROWDS = {
    "64 that say nothing": saying(b"", 64),
    "500 that say nothing": saying(b"", 500),
    "2000 that say nothing": saying(b"", 2000),
    "600 with half a request": saying(b"GET /readyz HT", 600),
    "600 with a whole request, that never read": saying(b"GET /metrics HTTP/1.1\r\n\r\n", 600),
    "600 with a TLS greeting": saying(
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 500, 600
    ),
    "100 that drip a request line": repeating(b"x", 100, b"GET /"),
    "100 that drip headers": repeating(b"X: y\r\n", 100, b"GET / HTTP/1.1\r\n"),
    "100 that drip empty lines": repeating(b"\r\n", 100),
    "20 that send headers without end": repeating(HEADERS[:1_000_000], 20, b"GET / HTTP/1.1\r\n"),
    "20 that send a body without end": repeating(b"x" * 1_000_000, 20, b"POST / HTTP/1.1\r\n\r\n"),
    "20 with one request after the other": repeating(b"GET /metrics HTTP/1.1\r\n\r\n" * 1000, 20),
    "600 that reset": coming_and_going(600),
    "600 half closed, with a request": half_closed(b"GET /healthz HTTP/1.1\r\n\r\n", 600),
    "600 half closed, without": half_closed(b"GET /heal", 600),
}


@pytest.mark.parametrize("start", CROWDS.values(), ids=CROWDS)
def test_a_probe_gets_its_answer_whoever_else_is_there(start: Crowd, serve: Serve) -> None:
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
def test_connections_have_a_part_of_the_descriptors_of_the_process(many: int, serve: Serve) -> None:
    site = serve("sh", "-c", f'ulimit -n {many}; exec "$0" "$@"')
    with ExitStack() as stack:
        saying(b"", 1100)(site, stack)
        assert site.ask("/healthz").status == 200
        assert site.descriptors() <= many // 4 + OTHER_DESCRIPTORS
    assert "Traceback" not in site.running.err


def test_the_oldest_of_the_host_with_the_most_connections_makes_room(serve: Serve) -> None:
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
def test_it_lives_while_others_have_all_descriptors_and_answers_once_there_are_some(
    processes: Processes, database: Database, folder: Path
) -> None:
    write(folder, {"0001_a.sql": "SELECT 1"})
    env = {"DATABASE_URL": database.url, "INITMIG_MIGRATIONS": str(folder)}
    argv = [sys.executable, "-c", TAKING_ALL_DESCRIPTORS, "serve", "--listen=127.0.0.1:0"]
    site = Site(processes.start(argv, env=env))
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
def test_a_client_has_had_its_time_whether_it_says_something_or_not(
    more: bytes, serve: Serve
) -> None:
    site = serve()
    with site.half_a_request() if more != b"\r\n" else site.connect() as client:
        client.settimeout(0.1)
        wait_until(lambda: is_cut_off_after(client, more))
    assert site.ask("/healthz").status == 200


def is_cut_off_after(client: socket.socket, more: bytes) -> bool:
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
def site(serve: Serve) -> Site:
    return serve()


@pytest.mark.parametrize(("parts", "status"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_of_any_form_gets_one_answer_and_the_end_of_the_connection(
    parts: list[bytes], status: bytes, site: Site
) -> None:
    answer = site.say(*parts)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.0 " + status
    assert b"Connection: close" in head.splitlines()
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()
    assert site.running.err.count("\n") <= 2


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", OK),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", BAD),
        (b"GET /healthz", BAD),
        (b"x" * 5000, BAD),
    ],
)
def test_a_client_that_sends_no_more_gets_its_answer(
    said: bytes, status: bytes, site: Site
) -> None:
    answer = site.say(said, is_over=True)
    assert answer.splitlines()[0] == b"HTTP/1.0 " + status


def test_a_client_that_says_nothing_gets_nothing(site: Site) -> None:
    assert site.say(is_over=True) == b""
