"""Answers GET and HEAD over HTTP. No client can block it, and it does not depend on migrations.

One thread handles all connections and never blocks on any of them. Each connection gets one request
and a few seconds. At the limit, one connection is closed for each new one.
"""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from threading import Thread
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from initmig.core.errors import ConfigError
from initmig.core.events import Listening, RequestAnswered, RequestFailed
from initmig.core.forks import close_in_children
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initmig.config.options import Address
    from initmig.core.events import Emit

_TICK_SECONDS = 0.1
"""How soon the server notices that it must stop, or that a connection has timed out."""

_CONNECTION_SECONDS = 5.0
"""The time that a client has to send its request, read the answer, and close."""

_CONNECTION_LIMIT = 512
_DESCRIPTORS_PER_CONNECTION = 4
"""Connections may use a quarter of this process's descriptors: migrations need some, too."""

_LONGEST_HEAD = 8192
"""Bytes of a request line and its headers. The kubelet's probes have about 150."""

_HEAD_ENDS = (b"\n\r\n", b"\n\n")

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_LONGEST_SHOWN = 200
"""Characters of a method or path in an event."""


class Answer(Record):
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str


Reply = Callable[[str], Answer]
"""Returns the answer to GET for a path without its query. Called in the server's thread."""


def plain(status: HTTPStatus, text: str) -> Answer:
    """An answer with *text*, which may have several lines."""
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")


@contextmanager
def listening(address: Address, reply: Reply, emit: Emit) -> Iterator[None]:
    """Answer requests inside the block.

    :raises ConfigError: *address* cannot be used, or the thread cannot start
    """
    server = _listen(address, reply, emit)
    close_in_children([server])
    close_in_children(server.clients)
    thread = Thread(target=server.serve, name="serve", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        server.close()
        raise ConfigError(
            "no-thread",
            f"cannot start the thread that answers requests: {error}; nothing was applied",
            hint="raise this user's limit on processes and threads, and run again",
        ) from None
    try:
        emit(Listening(_address_text(*server.address[:2])))
        yield
    finally:
        server.ended = True
        thread.join()
        server.close()


def _listen(address: Address, reply: Reply, emit: Emit) -> _Server:
    try:
        return _Server(address, reply, emit)
    except (OSError, UnicodeError) as error:  # IDNA cannot encode some names
        reason = error.strerror if isinstance(error, OSError) else "not a valid host name"
        raise ConfigError(
            "cannot-listen",
            f"cannot listen on {_address_text(*address)}: {reason}; nothing was applied",
            hint="set --listen to an address of this host and a free port",
        ) from None


def _address_text(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Client:
    """A connection that sends one request, gets the answer, and closes."""

    def __init__(self, connection: socket.socket, host: str, deadline: float) -> None:
        self.connection = connection
        self.host = host
        self.deadline = deadline
        self.request = b""
        self.is_answered = False
        self.unsent = b""

    def fileno(self) -> int:
        return self.connection.fileno()


class _Server:
    """Handles all connections in one thread."""

    def __init__(self, address: Address, reply: Reply, emit: Emit) -> None:
        self.ended = False
        self.clients: dict[_Client, None] = {}
        """The open connections, oldest first."""
        self._reply = reply
        self._emit = emit
        self._limit = most_connections()
        self._listener = _bound(address)
        self.address = self._listener.getsockname()
        try:
            self._selector = DefaultSelector()
            self._selector.register(self._listener, EVENT_READ)
        except OSError:
            self._listener.close()
            raise

    def fileno(self) -> int:
        return self._listener.fileno()

    def serve(self) -> None:
        """Answer until *ended*.

        In each round, every host gets one turn, and then new clients are accepted. A probe
        therefore waits for at most one request of each other host, even if a host floods.
        """
        while not self.ended:
            ready = [key.fileobj for key, _ in self._selector.select(_TICK_SECONDS)]
            for client in {one.host: one for one in ready if isinstance(one, _Client)}.values():
                self._handle(client)
            if self._listener in ready:
                self._accept_clients()
            self._drop_overdue(time.monotonic())

    def close(self) -> None:
        for client in list(self.clients):
            self._drop(client)
        self._selector.close()
        self._listener.close()

    def _accept_clients(self) -> None:
        """Accept a few new clients, so that each can be answered before it must make room."""
        for number in range(max(1, self._limit // 4)):
            try:
                connection, (host, *_) = self._listener.accept()
            except OSError as error:
                # only before the first accept is a client certain to be waiting
                if error.errno in _NO_DESCRIPTORS and number == 0:
                    self._make_room()
                return
            if len(self.clients) >= self._limit:
                self._make_room()
            self._add(connection, host)

    def _add(self, connection: socket.socket, host: str) -> None:
        connection.settimeout(0)
        client = _Client(connection, host, time.monotonic() + _CONNECTION_SECONDS)
        self.clients[client] = None
        self._wait_for(client, EVENT_READ)

    def _make_room(self) -> None:
        if self.clients:
            self._drop(to_close(self.clients))
        else:  # other parts of the process use all descriptors: wait until one is closed
            time.sleep(_TICK_SECONDS)

    def _drop_overdue(self, now: float) -> None:
        for client in list(self.clients):
            if client.deadline > now:
                break
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self.clients[client]
        with suppress(KeyError):
            self._selector.unregister(client)
        client.connection.close()

    def _wait_for(self, client: _Client, event: int) -> None:
        try:
            self._selector.register(client, event)
        except KeyError:
            self._selector.modify(client, event)
        except OSError:  # the kernel has no memory left for it
            self._drop(client)

    def _handle(self, client: _Client) -> None:
        try:
            if not client.is_answered:
                self._receive(client)
            elif client.unsent:
                self._send(client)
            elif not client.connection.recv(_LONGEST_HEAD):
                self._drop(client)
        except BlockingIOError:
            pass
        except OSError:  # the client has disconnected
            self._drop(client)
        except Exception:  # noqa: BLE001 - the other clients still get their answers
            self._drop(client)
            self._emit(RequestFailed(format_exc().rstrip()))

    def _receive(self, client: _Client) -> None:
        received = client.connection.recv(_LONGEST_HEAD)
        # a client may begin with empty lines
        client.request = (client.request + received).lstrip(b"\r\n")
        if not client.request and not received:
            self._drop(client)
            return
        status = completeness(client.request, is_over=not received)
        if status is not HTTPStatus.CONTINUE:
            client.unsent = _RequestHandler(
                client.request, status, self._reply, self._emit
            ).response
            client.is_answered, client.request = True, b""
            self._send(client)

    def _send(self, client: _Client) -> None:
        """Send as many bytes as the kernel accepts.

        After the last byte, wait for the client to close first. If this side closed with unread
        bytes, the kernel would reset the connection, and the client could lose the answer.
        """
        with suppress(BlockingIOError):
            client.unsent = client.unsent[client.connection.send(client.unsent) :]
        if client.unsent:
            self._wait_for(client, EVENT_WRITE)
        else:
            client.connection.shutdown(socket.SHUT_WR)
            self._wait_for(client, EVENT_READ)


def _bound(address: Address) -> socket.socket:
    """A listening socket; for every address, it accepts both IPv6 and IPv4.

    :raises OSError: the address cannot be used
    """
    host = address.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104
    family, *_, place = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(place)
        listener.listen(_CONNECTION_LIMIT)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def most_connections() -> int:
    """The largest number of open connections."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _CONNECTION_LIMIT
    return max(1, min(_CONNECTION_LIMIT, descriptors // _DESCRIPTORS_PER_CONNECTION))


def to_close(clients: Iterable[_Client]) -> _Client:
    """Choose the client to close: the oldest one of the host with the most connections.

    *clients* are sorted by age, oldest first. A host that floods therefore loses its own
    connections, and not the kubelet's.
    """
    clients = list(clients)
    [(host, _)] = Counter(client.host for client in clients).most_common(1)
    return next(client for client in clients if client.host == host)


def completeness(request: bytes, *, is_over: bool) -> HTTPStatus:
    """CONTINUE while *request* is incomplete, OK when it is complete, or the error status.

    :param is_over: the client sends no more
    """
    if any(end in request for end in _HEAD_ENDS):
        return HTTPStatus.OK
    if is_over:
        return HTTPStatus.BAD_REQUEST
    if len(request) < _LONGEST_HEAD:
        return HTTPStatus.CONTINUE
    if b"\n" in request:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return HTTPStatus.REQUEST_URI_TOO_LONG


class _RequestHandler(BaseHTTPRequestHandler):
    """A request in memory, and its response. HTTP/1.0 allows one request per connection."""

    default_request_version = "HTTP/1.0"  # with HTTP/0.9, an error would have no status

    def __init__(self, request: bytes, status: HTTPStatus, reply: Reply, emit: Emit) -> None:
        self._reply = reply
        self._emit = emit
        # No header changes the answer, so the headers are not parsed.
        line, _, _ = request.partition(b"\n")
        self.rfile = BytesIO(line + b"\n\r\n")
        self.wfile = self._response = BytesIO()
        self.command = self.requestline = ""
        self.request_version = self.default_request_version
        if status is not HTTPStatus.OK:
            self.send_error(status)
            return
        self.handle_one_request()
        if not self.response:  # http.server does not answer a request line of blanks
            self.send_error(HTTPStatus.BAD_REQUEST)

    @property
    def response(self) -> bytes:
        return self._response.getvalue()

    def do_GET(self) -> None:
        self._send(self._reply(self._path_without_query()))

    do_HEAD = do_GET  # noqa: N815 - http.server requires this name

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send plain text that repeats no part of the request.

        http.server reports a method without a ``do_`` function as not implemented (501).
        """
        del message, explain
        not_allowed = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if not_allowed else HTTPStatus(code)
        self._send(plain(status, status.phrase))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def version_string(self) -> str:
        """The value of the Server header, without Python's version."""
        return "initmig"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Emit an event of level debug, because probes arrive every few seconds."""
        del size
        # a request that cannot be parsed has no method or path
        method, path = (
            (self.command or "")[:_LONGEST_SHOWN],
            self._path_without_query()[:_LONGEST_SHOWN],
        )
        self._emit(RequestAnswered(method, path, int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the status already reports the error."""

    def _path_without_query(self) -> str:
        # a request that cannot be parsed has no path
        return getattr(self, "path", "").partition("?")[0]
