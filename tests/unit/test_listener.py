"""Who makes room, when a request is complete, and answers that are larger than a socket takes."""

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
def test_the_oldest_of_the_host_with_the_most_connections_makes_room(
    hosts: str, index: int
) -> None:
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
def test_a_request_is_complete_or_refused_or_goes_on(
    request_: bytes, is_over: bool, status: HTTPStatus
) -> None:
    assert completeness(request_, is_over=is_over) is status


@pytest.mark.parametrize(
    ("descriptors", "most"), [(3, 1), (64, 16), (1024, 256), (2048, 512), (4096, 512)]
)
def test_connections_are_a_quarter_of_the_descriptors(descriptors: int, most: int) -> None:
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
    """Where `reply` answers."""
    with listening(Address("127.0.0.1", 0), reply, events.append):
        [event] = events
        assert isinstance(event, Listening)
        host, _, port = event.address.rpartition(":")
        yield host, int(port)


def test_a_large_answer_arrives_and_others_need_not_wait_for_it(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=20) as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        first = slow.recv(1)
        assert said(place, b"GET /small HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\nok\n")
        assert (first + slow.makefile("rb").read()).endswith(b"\r\n\r\n" + LARGE)


def test_an_idle_client_makes_room_where_the_process_has_no_descriptor_left(
    place: tuple[str, int],
) -> None:
    with socket.create_connection(place, timeout=20) as idle, socket.socket() as probe:
        assert said(place, b"GET /small HTTP/1.1\r\n\r\n").endswith(b"ok\n")
        with no_descriptors():
            probe.connect(place)
            probe.sendall(b"GET /small HTTP/1.1\r\n\r\n")
            assert probe.recv(12) == b"HTTP/1.0 200"
            assert idle.recv(1) == b""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Inside, this process can open no file."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # the numbers that are free between those in use come first
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


def test_an_exception_in_an_answer_is_one_event_and_the_next_answer_comes(
    place: tuple[str, int], events: list[Event]
) -> None:
    assert said(place, b"GET /bug HTTP/1.1\r\n\r\n") == b""
    assert said(place, b"GET /small HTTP/1.1\r\n\r\n").endswith(b"ok\n")
    [failed] = [event for event in events if isinstance(event, RequestFailed)]
    assert "KeyError: '/bug'" in failed.traceback


def said(place: tuple[str, int], request: bytes) -> bytes:
    """All that comes back for *request*."""
    with socket.create_connection(place, timeout=20) as client:
        client.sendall(request)
        return client.makefile("rb").read()
