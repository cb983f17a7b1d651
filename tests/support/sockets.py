"""Sockets that threads share."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def clients_of(listener: socket.socket) -> Iterator[socket.socket]:
    """Each client that connects, until *listener* is closed."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        yield client


def shut(each: socket.socket) -> None:
    """Close *each*, and wake the threads that wait for it: closing alone does not."""
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
