"""`serve` survives arbitrary bytes from clients, and answers the next probe."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.migrations import write
from tests.support.ports import closed_port
from tests.support.serve_process import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

MEMORY = 16 * 1024
"""The KiB that all requests together may cost."""

REQUESTS = (
    b"GET /healthz HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nUser-Agent: kube-probe/1.36\r\n\r\n",
    b"HEAD /metrics HTTP/1.0\r\nAccept: text/plain;version=0.0.4\r\n\r\n",
    b"POST /readyz?a=b HTTP/1.1\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n0123456789",
    b"GET http://x/healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
)
PIECES = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\0",
        b"HTTP/",
        b"/1.1",
        b":",
        b"//",
        b"%",
        b"\xff",
        b"?",
    ]
)


@st.composite
def mutated_requests(draw: st.DrawFn) -> bytes:
    """A request with some parts removed, doubled or replaced."""
    request = draw(st.sampled_from(REQUESTS))
    for _ in range(draw(st.integers(1, 6))):
        begin, end = sorted(
            (draw(st.integers(0, len(request))), draw(st.integers(0, len(request))))
        )
        part = draw(
            st.one_of(
                st.just(b""),
                st.just(request[begin:end] * 2),
                PIECES,
                st.binary(max_size=20),
                st.builds(lambda piece, times: piece * times, PIECES, st.integers(1, 10_000)),
            )
        )
        request = request[:begin] + part + request[end:]
    return request


REQUEST_PARTS = st.lists(
    st.one_of(st.binary(max_size=200), mutated_requests()), min_size=1, max_size=4
)


@pytest.fixture
def site(initmig: Initmig, folder: Path) -> ServeProcess:
    write(folder, {"0001_a.sql": "SELECT 1"})
    url = f"postgresql://127.0.0.1:{closed_port()}/shop"
    words = ("serve", "--listen=127.0.0.1:0", "--wait-timeout=1h", "--log-level=debug")
    return ServeProcess(initmig.start(*words, url=url, folder=folder))


@pytest.mark.long
def test_serve_answers_the_next_probe_after_any_request(site: ServeProcess) -> None:
    assert site.ask("/metrics").status == 200
    memory = site.most_memory()

    @settings(max_examples=examples(1000), deadline=None, suppress_health_check=list(HealthCheck))
    @given(parts=REQUEST_PARTS, is_over=st.booleans())
    def check(parts: list[bytes], *, is_over: bool) -> None:
        with site.connect() as client, suppress(ConnectionError):
            for part in parts:
                client.sendall(part)
            if is_over:
                assert_is_http(site.say(*parts, is_over=True))
        assert site.ask("/healthz").status == 200

    check()
    assert site.most_memory() < memory + MEMORY
    log = site.running.err
    assert "Traceback" not in log
    assert log.replace("\n", "").isprintable()
    assert site.stop().code == 143


def assert_is_http(answer: bytes) -> None:
    """Assert that it is one response, or nothing, for a client that sent only empty lines."""
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        assert status.startswith(b"HTTP/1.0 ")
        [length] = [line for line in headers if line.startswith(b"Content-Length: ")]
        assert len(body) in (0, int(length.partition(b": ")[2]))
