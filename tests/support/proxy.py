"""A TCP proxy in front of a PostgreSQL server, which reads the messages and breaks connections."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from dev.postgres import free_port
from tests.support.sockets import clients_of, shut

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.databases import DatabaseServer

Verdict = Literal["forward", "drop", "cut"]

_SSL_REQUEST: Final = 80877103
_GSS_REQUEST: Final = 80877104
_CANCEL_REQUEST: Final = 80877102
_UNTYPED: Final = {
    _SSL_REQUEST: "ssl request",
    _GSS_REQUEST: "gss request",
    _CANCEL_REQUEST: "cancel request",
}
_READY: Final = b"Z"
# The messages that a client waits for: an authentication request, or the end of an answer.
_AWAITED: Final = (b"R", _READY)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of PostgreSQL's protocol.

    *type* is its letter, or "startup", "cancel request", "ssl request" or "gss request".
    *number* counts from 1, over all connections of the proxy, separately for each direction.
    *connection* counts from 1, too.
    """

    number: int
    connection: int
    type: str
    payload: bytes

    @property
    def query(self) -> str:
        """The text of a simple query."""
        return self.payload.rstrip(b"\0").decode()


def _forward(_: Message) -> Verdict:
    return "forward"


def _nothing(_: Message) -> None:
    pass


def _unchanged(query: str) -> str:
    return query


class Proxy:
    """A proxy between clients and a server; to use in `with`.

    `before` is called with each message of a client before it is forwarded, and decides: "drop"
    swallows the message, "cut" closes the connection. To kill a client before the server has seen
    a message, kill it in `before` and drop the message. `after` is called with each message once
    the server is ready for the next, before the client gets the answer. It is not called for a
    message that the server answers by closing the connection. `passed` is called with each message
    of the server once the client has got it, and may "cut". With `withholds` the client gets an
    answer only when it is complete, as a server sends a short one. `rewrite` gets the text of each
    simple query, and returns the text for the server.
    """

    def __init__(self, server: DatabaseServer) -> None:
        self._server_url = server.url()
        parts = urlsplit(self._server_url)
        self._server_address = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self.before: Callable[[Message], Verdict] = _forward
        self.after: Callable[[Message], None] = _nothing
        self.passed: Callable[[Message], Verdict] = _forward
        self.rewrite: Callable[[str], str] = _unchanged
        self.withholds = False
        self.frontend: list[Message] = []
        self.backend: list[Message] = []
        self.frontend_delay_seconds = 0.0
        self.backend_delay_seconds = 0.0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._links: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._connections = 0
        self._is_silent = False
        self._closed = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener: socket.socket | None = None
        self.port = free_port()
        self.start()

    # --- for tests to read ---

    def url(self, database: str = "postgres") -> str:
        """The superuser's URL of *database* through this proxy."""
        return self.through(urlunsplit(urlsplit(self._server_url)._replace(path=f"/{database}")))

    def through(self, url: str) -> str:
        """A *url* of the server, changed to lead through this proxy without encryption."""
        parts = urlsplit(url)
        account = parts.netloc.rpartition("@")[0]
        options = dict(parse_qsl(parts.query)) | {"sslmode": "disable", "gssencmode": "disable"}
        address = f"{account}@127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=address, query=urlencode(options)))

    @property
    def messages(self) -> list[Message]:
        """The messages of the clients so far."""
        with self._lock:
            return list(self.frontend)

    @property
    def answers(self) -> list[Message]:
        """The messages of the server so far."""
        with self._lock:
            return list(self.backend)

    def count(self, kind: str) -> int:
        """The number of messages of type *kind* that clients have sent."""
        return sum(message.type == kind for message in self.messages)

    @property
    def queries(self) -> list[str]:
        """The texts of the clients' simple queries."""
        return [message.query for message in self.messages if message.type == "Q"]

    @property
    def connections(self) -> int:
        """The number of connections that clients have opened."""
        return self._connections

    def wait_until_quiet(self, timeout: float = 20) -> None:
        """Return once every connection has ended, so that `messages` is complete.

        Raises AssertionError if that takes more than *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        for link in list(self._links):
            link.join(max(0, deadline - time.monotonic()))
            assert not link.is_alive(), "a connection is still open"

    # --- for tests to call ---

    def delay(self, *, frontend: float = 0, backend: float = 0) -> None:
        """Delay each message of the clients and each answer by these seconds."""
        self.frontend_delay_seconds = frontend
        self.backend_delay_seconds = backend

    def pause(self) -> None:
        """Forward nothing, and keep the connections."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward again, starting with the messages that were held back."""
        self._flowing.set()

    def stop_answering(self) -> None:
        """Accept new connections, and never answer."""
        self._is_silent = True

    def answer_again(self) -> None:
        """Answer new connections again."""
        self._is_silent = False

    def cut(self) -> None:
        """Close the open connections, on both sides."""
        with self._lock:
            open_now, self._sockets = self._sockets, []
        for each in open_now:
            shut(each)

    def stop(self) -> None:
        """Refuse new connections, and keep the open ones."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        shut(listener)

    def start(self) -> None:
        """Accept connections, on the same port as before."""
        if self._listener is None:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            # accepted sockets inherit it; without it TCP can delay half an answer for 40 ms
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._listener = listener
            self._run(self._accept, listener)

    def close(self) -> None:
        """Close all connections, and stop all threads."""
        self._closed = True
        self.stop()
        self.resume()
        # A new connection can arrive while the open ones are cut.
        while any(thread.is_alive() for thread in self._threads):
            self.cut()
            for thread in list(self._threads):
                thread.join(0.05)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the threads ---

    def _run(self, function: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        for client in clients_of(listener):
            self._connections += 1
            with self._lock:
                self._sockets.append(client)
            if not self._is_silent:
                self._links.append(self._run(_Link(self, client, self._connections).serve))

    def _connect(self) -> socket.socket:
        server = socket.create_connection(self._server_address)
        with self._lock:
            self._sockets.append(server)
        return server

    def _note(self, log: list[Message], connection: int, kind: str, payload: bytes) -> Message:
        with self._lock:
            message = Message(len(log) + 1, connection, kind, payload)
            log.append(message)
        return message

    def _hold(self, seconds: float) -> None:
        if seconds:
            time.sleep(seconds)
        self._flowing.wait()


class MakeProxy(Protocol):
    """Starts a proxy in front of *server*."""

    def __call__(self, server: DatabaseServer) -> Proxy: ...


class _Link:
    """One connection, client to server and back."""

    def __init__(self, proxy: Proxy, client: socket.socket, number: int) -> None:
        self._proxy = proxy
        self._client = client
        self._number = number
        self._unanswered: list[Message] = []
        self._withheld = b""

    def serve(self) -> None:
        """Forward the client's messages, until either side closes the connection."""
        client = self._client
        try:
            server = self._proxy._connect()
        except OSError:
            shut(client)
            return
        self._proxy._run(self._carry_answers, server)
        try:
            if self._open(server):
                while self._pass_on(server, _read(client, 1)):
                    pass
        except (OSError, EOFError):
            pass
        finally:
            # Only this side: the server may send more, and closes the connection itself.
            _end_input(server)

    def _open(self, server: socket.socket) -> bool:
        """Forward the packets without a type; False if the connection ends with them."""
        kind, packet = self._read_untyped()
        while kind in ("ssl request", "gss request"):
            # Declined here, because the proxy cannot read encrypted messages.
            self._proxy._note(self._proxy.frontend, self._number, kind, packet[4:])
            self._client.sendall(b"N")
            kind, packet = self._read_untyped()
        return self._carry(server, kind, packet, packet[4:]) and kind == "startup"

    def _read_untyped(self) -> tuple[str, bytes]:
        head = _read(self._client, 8)
        length, code = struct.unpack("!ii", head)
        return _UNTYPED.get(code, "startup"), head + _read(self._client, length - 8)

    def _pass_on(self, server: socket.socket, kind: bytes) -> bool:
        head = _read(self._client, 4)
        payload = _read(self._client, struct.unpack("!i", head)[0] - 4)
        return self._carry(server, kind.decode(), kind + head + payload, payload)

    def _carry(self, server: socket.socket, kind: str, packet: bytes, payload: bytes) -> bool:
        """Forward a message of the client as `before` decides; False if it ends the connection."""
        proxy = self._proxy
        proxy._hold(proxy.frontend_delay_seconds)
        message = proxy._note(proxy.frontend, self._number, kind, payload)
        verdict = proxy.before(message)
        if verdict == "forward":
            self._unanswered.append(message)
            server.sendall(self._rewritten(message) if kind == "Q" else packet)
        elif verdict == "cut":
            self._unanswered.clear()
            shut(server)
            shut(self._client)
        return verdict != "cut"

    def _rewritten(self, message: Message) -> bytes:
        text = message.payload.decode(errors="surrogateescape")
        payload = self._proxy.rewrite(text).encode(errors="surrogateescape")
        return b"Q" + struct.pack("!i", len(payload) + 4) + payload

    def _carry_answers(self, server: socket.socket) -> None:
        """Forward the server's messages, until either side closes the connection."""
        try:
            while True:
                self._carry_answer(server)
        except (OSError, EOFError):
            pass
        finally:
            shut(self._client)
            shut(server)

    def _carry_answer(self, server: socket.socket) -> None:
        kind = _read(server, 1)
        head = _read(server, 4)
        payload = _read(server, struct.unpack("!i", head)[0] - 4)
        proxy = self._proxy
        proxy._hold(proxy.backend_delay_seconds if kind in _AWAITED else 0)
        noted = proxy._note(proxy.backend, self._number, kind.decode(), payload)
        if kind == _READY:
            answered, self._unanswered = self._unanswered, []
            for message in answered:
                proxy.after(message)
        self._withheld += kind + head + payload
        if proxy.withholds and kind not in _AWAITED:
            return
        withheld, self._withheld = self._withheld, b""
        self._client.sendall(withheld)
        if proxy.passed(noted) == "cut":
            raise EOFError


def _read(source: socket.socket, size: int) -> bytes:
    """Read exactly *size* bytes. Raises EOFError if the connection ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _end_input(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_WR)
