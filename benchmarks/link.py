"""A link to a remote server: a proxy that delays all data, and counts the round trips."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_READY: Final = b"Z\x00\x00\x00\x05"
_TERMINATE: Final = b"X\x00\x00\x00\x04"


class Link:
    """Forwards connections to *server_port*, with *delay* seconds for each direction.

    Data that is sent close together arrives close together, as on a real link. To use in `with`.
    """

    def __init__(self, server_port: int, *, delay: float) -> None:
        self.port = 0
        self.connections = 0
        self.round_trips = 0
        """The number of times that a connected client has sent something and received an answer."""
        self._server_port = server_port
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def reset(self) -> None:
        """Set the counts to 0."""
        self.connections = self.round_trips = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server, request = await asyncio.open_connection("127.0.0.1", self._server_port)
        turns = _Turns(self)
        await asyncio.gather(
            self._carry(client, request, turns.client_sent),
            self._carry(server, answer, turns.server_sent),
        )

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        note: Callable[[bytes], None],
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 20):
                note(data)
                self._loop.call_later(self._delay, target.write, data)
        self._loop.call_later(self._delay, target.close)


class _Turns:
    """Whose turn it is in one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_connected = False
        self._is_waiting = False

    def client_sent(self, data: bytes) -> None:
        self._is_waiting = self._is_connected and data != _TERMINATE

    def server_sent(self, data: bytes) -> None:
        # Only the first answer to a request costs a round trip; the rest follows immediately.
        self._link.round_trips += self._is_waiting
        self._is_waiting = False
        self._is_connected = self._is_connected or _READY in data
