"""Answers GET and HEAD over HTTP, and lets no client hold it up; knows nothing of migrations.

One thread has all connections and never waits for one of them. A connection has one request and a
few seconds. When there are too many, one is closed for each that comes.
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
"""How soon the server notices that it is to end, or that a client has had its time."""

_MOST_SECONDS = 5.0
"""For a connection: to send its request, to read the answer, and to close."""

_MOST_CONNECTIONS = 512
_SHARE_OF_DESCRIPTORS = 4
"""Connections may have a quarter of the descriptors of this process: migrations need some, too."""

_LONGEST_HEAD = 8192
"""Bytes of a request line and its headers. The probes of the kubelet have some 150."""

_ENDS_OF_A_HEAD = (b"\n\r\n", b"\n\n")

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_LONGEST_SHOWN = 200
"""Characters of a method or path, in the event."""


class Answer(Record):
    """What a request gets."""

    status: HTTPStatus
    body: bytes
    content_type: str


Reply = Callable[[str], Answer]
"""The answer to GET of a path, which has lost what follows a `?`; called in the server's thread."""


def plain(status: HTTPStatus, text: str) -> Answer:
    """*text* as a line, or several."""
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")


@contextmanager
def listening(address: Address, reply: Reply, emit: Emit) -> Iterator[None]:
    """Answer requests inside.

    :raises ConfigError: it cannot listen on *address*
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
        emit(Listening(_written(*server.address[:2])))
        yield
    finally:
        server.ended = True
        thread.join()
        server.close()


def _listen(address: Address, reply: Reply, emit: Emit) -> _Server:
    try:
        return _Server(address, reply, emit)
    except (OSError, UnicodeError) as error:  # a name can be one that DNS does not know how to ask
        reason = error.strerror if isinstance(error, OSError) else "not a valid host name"
        raise ConfigError(
            "cannot-listen",
            f"cannot listen on {_written(*address)}: {reason}; nothing was applied",
            hint="set --listen to an address of this host and a free port",
        ) from None


def _written(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Client:
    """A connection: it sends a request, gets the answer, and closes."""

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
    """All connections, in one thread."""

    def __init__(self, address: Address, reply: Reply, emit: Emit) -> None:
        self.ended = False
        self.clients: dict[_Client, None] = {}
        """The oldest first."""
        self._reply = reply
        self._emit = emit
        self._most = most_connections()
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

        Each host has one turn, then new clients have theirs: a probe waits for one request of each
        other host, and not for all of a host that floods.
        """
        while not self.ended:
            ready = [key.fileobj for key, _ in self._selector.select(_TICK_SECONDS)]
            for client in {one.host: one for one in ready if isinstance(one, _Client)}.values():
                self._attend(client)
            if self._listener in ready:
                self._accept_some()
            self._drop_late(time.monotonic())

    def close(self) -> None:
        for client in list(self.clients):
            self._drop(client)
        self._selector.close()
        self._listener.close()

    def _accept_some(self) -> None:
        """Take new clients, but so few that each of them is heard before it has to make room."""
        for number in range(max(1, self._most // 4)):
            try:
                connection, (host, *_) = self._listener.accept()
            except OSError as error:
                # only of the first it is known that there is a client
                if error.errno in _NO_DESCRIPTORS and number == 0:
                    self._make_room()
                return
            if len(self.clients) >= self._most:
                self._make_room()
            self._welcome(connection, host)

    def _welcome(self, connection: socket.socket, host: str) -> None:
        connection.settimeout(0)
        client = _Client(connection, host, time.monotonic() + _MOST_SECONDS)
        self.clients[client] = None
        self._watch(client, EVENT_READ)

    def _make_room(self) -> None:
        if self.clients:
            self._drop(to_close(self.clients))
        else:  # others have all descriptors, and until they close one there is nothing to do
            time.sleep(_TICK_SECONDS)

    def _drop_late(self, now: float) -> None:
        for client in list(self.clients):
            if client.deadline > now:
                break
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self.clients[client]
        with suppress(KeyError):
            self._selector.unregister(client)
        client.connection.close()

    def _watch(self, client: _Client, event: int) -> None:
        try:
            self._selector.register(client, event)
        except KeyError:
            self._selector.modify(client, event)
        except OSError:  # the kernel's memory for it is used up
            self._drop(client)

    def _attend(self, client: _Client) -> None:
        try:
            if not client.is_answered:
                self._hear(client)
            elif client.unsent:
                self._send(client)
            elif not client.connection.recv(_LONGEST_HEAD):
                self._drop(client)
        except BlockingIOError:
            pass
        except OSError:  # it has gone
            self._drop(client)
        except Exception:  # noqa: BLE001 - the next client gets its answer all the same
            self._drop(client)
            self._emit(RequestFailed(format_exc().rstrip()))

    def _hear(self, client: _Client) -> None:
        said = client.connection.recv(_LONGEST_HEAD)
        # a client may begin with empty lines
        client.request = (client.request + said).lstrip(b"\r\n")
        if not client.request and not said:
            self._drop(client)
            return
        status = completeness(client.request, is_over=not said)
        if status is not HTTPStatus.CONTINUE:
            client.unsent = _Exchange(client.request, status, self._reply, self._emit).response
            client.is_answered, client.request = True, b""
            self._send(client)

    def _send(self, client: _Client) -> None:
        """Send what the kernel takes.

        After the last byte the client closes first: closed with something unread in it, the kernel
        would take the answer back.
        """
        with suppress(BlockingIOError):
            client.unsent = client.unsent[client.connection.send(client.unsent) :]
        if client.unsent:
            self._watch(client, EVENT_WRITE)
        else:
            client.connection.shutdown(socket.SHUT_WR)
            self._watch(client, EVENT_READ)


def _bound(address: Address) -> socket.socket:
    """A socket that listens, with IPv4 where it is for every address.

    :raises OSError: it cannot
    """
    host = address.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104
    family, *_, place = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(place)
        listener.listen(_MOST_CONNECTIONS)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def most_connections() -> int:
    """How many connections there are at a time."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(1, min(_MOST_CONNECTIONS, descriptors // _SHARE_OF_DESCRIPTORS))


def to_close(clients: Iterable[_Client]) -> _Client:
    """Who makes room: the oldest of the host that has the most of *clients*, the oldest first.

    So a host that floods closes its own connections, and not the kubelet's.
    """
    clients = list(clients)
    [(host, _)] = Counter(client.host for client in clients).most_common(1)
    return next(client for client in clients if client.host == host)


def completeness(request: bytes, *, is_over: bool) -> HTTPStatus:
    """CONTINUE while *request* lacks its end, OK once it is here, or why it is refused.

    :param is_over: the client sends no more
    """
    if any(end in request for end in _ENDS_OF_A_HEAD):
        return HTTPStatus.OK
    if is_over:
        return HTTPStatus.BAD_REQUEST
    if len(request) < _LONGEST_HEAD:
        return HTTPStatus.CONTINUE
    if b"\n" in request:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return HTTPStatus.REQUEST_URI_TOO_LONG


class _Exchange(BaseHTTPRequestHandler):
    """A request in memory, and its response: HTTP/1.0, so that a client sends one and no more."""

    default_request_version = "HTTP/1.0"  # with HTTP/0.9, an error would have no status

    def __init__(self, request: bytes, status: HTTPStatus, reply: Reply, emit: Emit) -> None:
        self._reply = reply
        self._emit = emit
        # No header changes the answer, so that none is parsed.
        line, _, _ = request.partition(b"\n")
        self.rfile = BytesIO(line + b"\n\r\n")
        self.wfile = self._response = BytesIO()
        self.command = self.requestline = ""
        self.request_version = self.default_request_version
        if status is not HTTPStatus.OK:
            self.send_error(status)
            return
        self.handle_one_request()
        if not self.response:  # http.server has nothing to say to a line of blanks
            self.send_error(HTTPStatus.BAD_REQUEST)

    @property
    def response(self) -> bytes:
        return self._response.getvalue()

    def do_GET(self) -> None:
        self._send(self._reply(self._bare_path()))

    do_HEAD = do_GET  # noqa: N815 - http.server's way

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Plain text, and nothing of what the client sent.

        http.server says of a method without a ``do_`` function that it is not implemented.
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
        """For the header Server, which need not tell Python's version."""
        return "initmig"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """An event, of level debug: probes come every few seconds."""
        del size
        # there is none in a request that could not be understood
        method, path = (self.command or "")[:_LONGEST_SHOWN], self._bare_path()[:_LONGEST_SHOWN]
        self._emit(RequestAnswered(method, path, int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was wrong with a request is in its status."""

    def _bare_path(self) -> str:
        # there is none in a request that could not be understood
        return getattr(self, "path", "").partition("?")[0]
