"""A link to a far server: a proxy that holds everything up, and counts who waits for whom."""

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
    """Carries connections to *server_port*, each way taking *delay* seconds; to use in `with`.

    As on a real link, what is sent close together arrives close together.
    """

    def __init__(self, server_port: int, *, delay: float) -> None:
        self.port = 0
        self.connections = 0
        self.round_trips = 0
        """How often a client sent something, once connected, and then heard of the server."""
        self._server_port = server_port
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def reset(self) -> None:
        """Count from 0."""
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
        server, ask = await asyncio.open_connection("127.0.0.1", self._server_port)
        talk = _Talk(self)
        await asyncio.gather(
            self._carry(client, ask, talk.client_said),
            self._carry(server, answer, talk.server_said),
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


class _Talk:
    """Whose turn it is in one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_connected = False
        self._is_asked = False

    def client_said(self, data: bytes) -> None:
        self._is_asked = self._is_connected and data != _TERMINATE

    def server_said(self, data: bytes) -> None:
        # Only the first answer after a question is worth a wait, the others follow by themselves.
        self._link.round_trips += self._is_asked
        self._is_asked = False
        self._is_connected = self._is_connected or _READY in data
