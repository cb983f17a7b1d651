"""Which connection is closed for a new one, when a request is complete, and large answers."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from initmig.commands.serve.listener import (
    Answer,
    _Client,
    completeness,
    listening,
    most_connections,
    plain,
    to_close,
)
from initmig.config.options import Address
from initmig.core.events import Listening, RequestFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.core.events import Event

LARGE = b"x" * 30_000_000
LINE = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("hosts", "index"),
    [
        ("a", 0),
        ("abc", 0),
        ("abb", 1),
        ("abab", 0),
        ("abcbc", 1),
        ("a" + "b" * 511, 1),
    ],
)
def test_oldest_connection_of_the_busiest_host_is_closed(hosts: str, index: int) -> None:
    with socket.socket() as unused:
        clients = [_Client(unused, host, 0) for host in hosts]
        assert clients.index(to_close(clients)) == index


@pytest.mark.parametrize(
    ("request_", "is_over", "status"),
    [
        (b"", False, HTTPStatus.CONTINUE),
        (b"GET /", False, HTTPStatus.CONTINUE),
        (LINE, False, HTTPStatus.CONTINUE),
        (LINE + b"\r", False, HTTPStatus.CONTINUE),
        (LINE + b"\r\n", False, HTTPStatus.OK),
        (LINE + b"\n", False, HTTPStatus.OK),
        (LINE + b"\r\n", True, HTTPStatus.OK),
        (LINE + b"X: y\r\n\r\nmore", False, HTTPStatus.OK),
        (LINE, True, HTTPStatus.BAD_REQUEST),
        (b"G" * 8191, False, HTTPStatus.CONTINUE),
        (b"G" * 8192, False, HTTPStatus.REQUEST_URI_TOO_LONG),
        (LINE + b"G" * 8192, False, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_request_is_complete_refused_or_unfinished(
    request_: bytes, is_over: bool, status: HTTPStatus
) -> None:
    assert completeness(request_, is_over=is_over) is status


@pytest.mark.parametrize(
    ("descriptors", "most"), [(3, 1), (64, 16), (1024, 256), (2048, 512), (4096, 512)]
)
def test_connection_limit_is_a_quarter_of_the_descriptors_up_to_512(
    descriptors: int, most: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        assert most_connections() == most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def reply(path: str) -> Answer:
    if path == "/bug":
        raise KeyError(path)
    return (
        Answer(HTTPStatus.OK, LARGE, "text/plain")
        if path == "/large"
        else plain(HTTPStatus.OK, "ok")
    )


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def place(events: list[Event]) -> Iterator[tuple[str, int]]:
    """The address at which `reply` answers."""
    with listening(Address("127.0.0.1", 0), reply, events.append):
        [event] = events
        assert isinstance(event, Listening)
        host, _, port = event.address.rpartition(":")
        yield host, int(port)


def test_large_answer_arrives_without_delaying_others(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=20) as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        first = slow.recv(1)
        assert answer_to(place, b"GET /small HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\nok\n")
        assert (first + slow.makefile("rb").read()).endswith(b"\r\n\r\n" + LARGE)


def test_idle_client_is_disconnected_if_no_descriptor_is_free(
    place: tuple[str, int],
) -> None:
    with socket.create_connection(place, timeout=20) as idle, socket.socket() as probe:
        assert answer_to(place, b"GET /small HTTP/1.1\r\n\r\n").endswith(b"ok\n")
        with no_descriptors():
            probe.connect(place)
            probe.sendall(b"GET /small HTTP/1.1\r\n\r\n")
            assert probe.recv(12) == b"HTTP/1.0 200"
            assert idle.recv(1) == b""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Inside this context, the process cannot open any file."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # use up the free numbers below the highest one in use
    highest = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] <= highest:
            taken.append(os.dup(taken[0]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)


def test_exception_in_a_handler_is_one_event_and_serving_continues(
    place: tuple[str, int], events: list[Event]
) -> None:
    assert answer_to(place, b"GET /bug HTTP/1.1\r\n\r\n") == b""
    assert answer_to(place, b"GET /small HTTP/1.1\r\n\r\n").endswith(b"ok\n")
    [failed] = [event for event in events if isinstance(event, RequestFailed)]
    assert "KeyError: '/bug'" in failed.traceback


def answer_to(place: tuple[str, int], request: bytes) -> bytes:
    """Everything that the server sends after *request*."""
    with socket.create_connection(place, timeout=20) as client:
        client.sendall(request)
        return client.makefile("rb").read()
