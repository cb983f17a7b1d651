"""Answers GET and HEAD over HTTP, and lets no client hold it up; knows nothing of migrations."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from traceback import format_exc
from typing import TYPE_CHECKING, Any, NamedTuple

from initmig.errors import ConfigError
from initmig.events import Listening, RequestAnswered, RequestFailed
from initmig.forks import withhold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.events import Emit
    from initmig.settings import Address

_TICK_SECONDS = 0.1
"""How soon the server notices that it is to end, or that a client has had its time."""

_LONGEST_REQUEST_SECONDS = 5.0
_MOST_REQUESTS = 64
"""At a time, as each has a thread; others are turned away."""


class Answer(NamedTuple):
    """What a request gets."""

    status: HTTPStatus
    body: bytes
    content_type: str


Reply = Callable[[str], Answer]
"""The answer to GET of a path, which has lost what follows a `?`; called in any thread."""


def plain(status: HTTPStatus, text: str) -> Answer:
    """*text* as a line, or several."""
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")


@contextmanager
def listening(address: Address, reply: Reply, emit: Emit) -> Iterator[None]:
    """Answer requests inside.

    :raises ConfigError: it cannot listen on *address*
    """
    server = _listen(address, reply, emit)
    withhold([server])
    thread = Thread(target=server.serve_forever, args=(_TICK_SECONDS,), name="serve", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        server.server_close()
        raise ConfigError(
            "no-thread",
            f"cannot start the thread that answers: {error}",
            hint="raise the limit of processes and threads of this user; nothing was applied",
        ) from None
    try:
        emit(Listening(_written(*server.server_address[:2])))
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(address: Address, reply: Reply, emit: Emit) -> _Server:
    try:
        return _Server(address, reply, emit)
    except (OSError, UnicodeError) as error:  # a name can be one that DNS does not know how to ask
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise ConfigError(
            "cannot-listen",
            f"cannot listen on {_written(*address)}: {reason}",
            hint="name an address of this host and a free port with --listen; nothing was applied",
        ) from None


def _written(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingTCPServer):
    """A thread for each client, for a short time.

    Not http.server's own, which asks the name server for this host's name, and that may take long.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _MOST_REQUESTS

    def __init__(self, address: Address, reply: Reply, emit: Emit) -> None:
        self.reply = reply
        self.emit = emit
        self._since: dict[Any, float] = {}
        host = address.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
        self.address_family, *_, bound = found[0]
        super().__init__(bound, _Handler)  # type: ignore[arg-type] # of whichever family

    def server_bind(self) -> None:
        """With IPv4 where it is for every address."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the client a thread, if there is one left."""
        if len(self._since) >= _MOST_REQUESTS:
            self.close_request(request)
            return
        self._since[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off the clients that have had their time, whatever they are at."""
        oldest = time.monotonic() - _LONGEST_REQUEST_SECONDS
        for request, since in list(self._since.items()):
            if since < oldest:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection once the client has its answer.

        Closed with something unread in it, the kernel would take the answer back.
        """
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            while request.recv(65536):
                pass
        self._since.pop(request, None)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error; anything else is one event."""
        del request, client_address
        if not isinstance(sys.exception(), OSError):
            self.emit(RequestFailed(format_exc().rstrip()))


class _Handler(BaseHTTPRequestHandler):
    """One request of one connection: HTTP/1.0, so that no idle client keeps a thread."""

    server: _Server

    def do_GET(self) -> None:
        self._send(self.server.reply(self._bare_path()))

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
        method, path = _visible(self.command), _visible(self._bare_path())
        self.server.emit(RequestAnswered(method, path, int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was wrong with a request is in its status."""

    def _bare_path(self) -> str:
        # there is none in a request that could not be understood
        return getattr(self, "path", "").partition("?")[0]


def _visible(text: str | None) -> str:
    """What a client sent, with nothing in it that a terminal would take for a command."""
    return (text or "").encode("unicode_escape").decode()[:200]
