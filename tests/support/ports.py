"""Ports that do not answer."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dev.postgres import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


def closed_port() -> int:
    """A port of 127.0.0.1 that refuses connections."""
    return free_port()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 that accepts connections and never answers."""
    # The kernel completes the handshake for a listening socket, even if accept is never called.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port: int = listener.getsockname()[1]
        yield port
