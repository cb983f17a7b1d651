"""A server that speaks PostgreSQL's protocol, version 3, and breaks it on purpose.

Alone, it plays a mode at the login, or accepts every client and plays the mode as the answer to
each query. In front of a real server it forwards messages, and plays the mode from the n-th query
on.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote, urlsplit

from tests.support.sockets import clients_of, shut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102

KIB, MIB = 1 << 10, 1 << 20
HUGE_BYTES = 600 * MIB


# --- messages ---


def message(kind: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    """One message; *length* overrides its correct length."""
    return (
        kind + struct.pack("!I", (len(body) + 4 if length is None else length) % (1 << 32)) + body
    )


def text(*strings: bytes) -> bytes:
    """Strings with their terminators."""
    return b"".join(each + b"\0" for each in strings)


def status(name: bytes, value: bytes) -> bytes:
    """ParameterStatus."""
    return message(b"S", text(name, value))


def fields(given: Mapping[str, bytes]) -> bytes:
    """The body of an ErrorResponse or NoticeResponse."""
    return b"".join(name.encode() + value + b"\0" for name, value in given.items()) + b"\0"


def error(
    says: bytes = b"no", *, severity: bytes = b"ERROR", code: bytes = b"XX000", **more: bytes
) -> bytes:
    """ErrorResponse."""
    given = {"S": severity, "V": severity, "C": code, "M": says, **more}
    return message(b"E", fields(given))


def notice(says: bytes) -> bytes:
    """NoticeResponse."""
    return message(b"N", fields({"S": b"NOTICE", "V": b"NOTICE", "C": b"00000", "M": says}))


def notification(payload: bytes = b"p") -> bytes:
    """NotificationResponse."""
    return message(b"A", struct.pack("!I", 7) + text(b"channel", payload))


class Column(NamedTuple):
    """A column of a result."""

    name: bytes = b"c"
    oid: int = 25


def description(columns: Sequence[Column]) -> bytes:
    """RowDescription."""
    body = b"".join(
        text(each.name) + struct.pack("!IHIhih", 0, 0, each.oid, -1, -1, 0) for each in columns
    )
    return message(b"T", struct.pack("!H", len(columns)) + body)


def row(values: Iterable[bytes | None], *, count: int | None = None) -> bytes:
    """DataRow, which claims to have *count* values."""
    given = list(values)
    body = b"".join(
        struct.pack("!i", -1) if each is None else struct.pack("!I", len(each)) + each
        for each in given
    )
    return message(b"D", struct.pack("!H", len(given) if count is None else count) + body)


def complete(tag: bytes = b"SELECT 1") -> bytes:
    """CommandComplete."""
    return message(b"C", text(tag))


def authentication(kind: int, more: bytes = b"") -> bytes:
    """AuthenticationOk, and the other authentication requests."""
    return message(b"R", struct.pack("!I", kind) + more)


AUTHENTICATED = authentication(0)
KEY = message(b"K", struct.pack("!II", 4711, 12345))
READY = message(b"Z", b"I")
STATUSES = b"".join(
    status(name, value)
    for name, value in {
        b"server_version": b"18.0",
        b"server_encoding": b"UTF8",
        b"client_encoding": b"UTF8",
        b"standard_conforming_strings": b"on",
        b"integer_datetimes": b"on",
        b"DateStyle": b"ISO, MDY",
    }.items()
)
WELCOME = AUTHENTICATED + STATUSES + KEY + READY


def result(*rows: Iterable[bytes | None], columns: Sequence[Column] = (Column(),)) -> bytes:
    """The complete answer to a SELECT."""
    return description(columns) + b"".join(map(row, rows)) + complete() + READY


# --- one connection ---


class Link:
    """A client, as a mode sees it."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self.ended = threading.Event()

    def send(self, *data: bytes) -> None:
        """Send bytes; raises OSError if the client has disconnected."""
        self._client.sendall(b"".join(data))

    def limit(self, seconds: float) -> None:
        """Make a read raise OSError after *seconds* without data from the client."""
        self._client.settimeout(seconds)

    def read(self, size: int) -> bytes:
        """Read *size* bytes; raises EOFError if the client has disconnected."""
        got = b""
        while len(got) < size:
            more = self._client.recv(size - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    def read_untyped(self) -> tuple[int, bytes]:
        """The code of a packet without a type, and the whole packet."""
        head = self.read(4)
        body = self.read(struct.unpack("!I", head)[0] - 4)
        return struct.unpack("!I", body[:4])[0], head + body

    def read_message(self) -> tuple[bytes, bytes]:
        """The type of a message, and its body."""
        kind = self.read(1)
        return kind, self.read(struct.unpack("!I", self.read(4))[0] - 4)

    def read_startup(self) -> bytes:
        """The startup packet; encryption is declined. Raises EOFError for a cancel request."""
        while True:
            code, packet = self.read_untyped()
            if code == CANCEL_REQUEST:
                raise EOFError
            if code not in (SSL_REQUEST, GSS_REQUEST):
                return packet
            self.send(b"N")

    def welcome(self) -> None:
        """Accept the client."""
        self.read_startup()
        self.send(WELCOME)

    def silence(self) -> None:
        """Send nothing until the client disconnects."""
        with suppress(OSError):
            while self._client.recv(64 * KIB):
                pass

    def drip(self, data: bytes, pause: float = 0.1) -> None:
        """Send one byte after the other, and then zeros forever."""
        for each in itertools.chain(data, itertools.repeat(0)):
            self.send(bytes([each]))
            if self.ended.wait(pause):
                return

    def repeat(self, data: bytes | Iterator[bytes]) -> None:
        """Send *data* forever."""
        block = (
            itertools.repeat(data * (64 * KIB // len(data) + 1))
            if isinstance(data, bytes)
            else data
        )
        for each in block:
            self.send(each)
            if self.ended.is_set():
                return


# --- the server ---


class FakeServer:
    """Listens on TCP and on a Unix socket; to use in `with`.

    *at_login* plays after a client has connected; its result is ignored, and then the connection is
    closed. *at_query* plays as the answer to each query of an accepted client. With *upstream*, the
    URL of a real server, it plays from query number *since* on, counted over all connections.
    """

    def __init__(
        self,
        folder: Path,
        *,
        at_login: Callable[[Link], object] | None = None,
        at_query: Callable[[Link], object] = lambda _: None,
        upstream: str = "",
        since: int = 1,
    ) -> None:
        self._at_login = at_login
        self._at_query = at_query
        self._upstream = upstream
        self._since = since
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.queries = 0
        """The number of queries so far."""
        self.connections = 0
        self._tcp = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._tcp.getsockname()[1]
        self._folder = str(folder)
        self._unix = socket.socket(socket.AF_UNIX)
        self._path = os.path.join(self._folder, f".s.PGSQL.{self.port}")
        self._unix.bind(self._path)
        self._unix.listen(64)

    def url(self, *, unix: bool = False, sslmode: str = "disable") -> str:
        """The URL of the database `db`, as a user without a password."""
        host = quote(self._folder, safe="") if unix else "127.0.0.1"
        url = f"postgresql://user:secret@{host}:{self.port}/db?sslmode={sslmode}"
        return url if unix else f"{url}&gssencmode=disable"

    def through(self, url: str) -> str:
        """A *url* of the real server, changed to lead through this one."""
        parts = urlsplit(url)
        account = parts.netloc.rpartition("@")[0]
        return (
            f"postgresql://{account}@127.0.0.1:{self.port}{parts.path}"
            "?sslmode=disable&gssencmode=disable"
        )

    def __enter__(self) -> Self:
        for listener in (self._tcp, self._unix):
            self._run(self._accept, listener)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._tcp, self._unix):
            shut(each)
        os.unlink(self._path)  # the next fake server may get the same port
        with self._lock:
            links, sockets = list(self._links), list(self._sockets)
        for link in links:
            link.ended.set()
        for each in sockets:
            shut(each)
        for thread in self._threads:
            thread.join(10)

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        for client in clients_of(listener):
            self.connections += 1
            link = Link(client)
            with self._lock:
                self._links.append(link)
                self._sockets.append(client)
            self._run(self._serve, link, client)

    def _serve(self, link: Link, client: socket.socket) -> None:
        try:
            if self._at_login:
                self._at_login(link)
            elif self._upstream:
                self._pass_on(link, client)
            else:
                link.welcome()
                self._answer(link)
        except (OSError, EOFError):
            pass
        finally:
            shut(client)

    def _answer(self, link: Link) -> None:
        while True:
            kind, _ = link.read_message()
            if kind == b"X":
                return
            if kind == b"Q" and self._strikes():
                self._at_query(link)
            elif kind == b"Q":
                link.send(complete(b"SET"), READY)

    def _strikes(self) -> bool:
        with self._lock:
            self.queries += 1
            return self.queries >= self._since

    def _pass_on(self, link: Link, client: socket.socket) -> None:
        packet = link.read_startup()
        parts = urlsplit(self._upstream)
        server = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5432))
        with self._lock:
            self._sockets.append(server)
        try:
            server.sendall(packet)
            self._run(_pump, server, client)
            while True:
                kind, body = link.read_message()
                if kind == b"Q" and self._strikes():
                    self._at_query(link)
                else:
                    server.sendall(message(kind, body))
        finally:
            shut(server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(64 * KIB):
            sink.sendall(data)


# --- modes ---


def says(*data: bytes) -> Callable[[Link], object]:
    """Send *data*, and then wait for the next query."""
    return lambda link: link.send(*data)


def says_and_closes(*data: bytes) -> Callable[[Link], object]:
    """Send *data*, and close the connection."""

    def play(link: Link) -> None:
        link.send(*data)
        raise EOFError

    return play


def drips(data: bytes) -> Callable[[Link], object]:
    """Send *data* one byte after the other, and zeros forever."""
    return lambda link: link.drip(data)


def floods(data: bytes, *, first: bytes = b"") -> Callable[[Link], object]:
    """Send *first*, and then *data* forever."""
    return after(first, lambda link: link.repeat(data))


def after(data: bytes, play: Callable[[Link], object]) -> Callable[[Link], object]:
    """Send *data* before *play*."""

    def both(link: Link) -> None:
        link.send(data)
        play(link)

    return both


def floods_numbered(make: Callable[[bytes], bytes]) -> Callable[[Link], object]:
    """Send the result of *make* for each number, forever."""

    def blocks() -> Iterator[bytes]:
        for first in itertools.count(step=1000):
            yield b"".join(make(b"%d" % number) for number in range(first, first + 1000))

    return lambda link: link.repeat(blocks())


def trickles(data: bytes, pause: float = 0.05) -> Callable[[Link], object]:
    """Send *data* again and again, with a pause in between: it is never silent for long."""

    def play(link: Link) -> None:
        while not link.ended.is_set():
            link.send(data)
            time.sleep(pause)

    return play


def silent(link: Link) -> None:
    """Send nothing."""
    link.silence()


def huge(kind: bytes, head: bytes) -> Callable[[Link], object]:
    """Send one message of *kind* with `HUGE_BYTES` that begins with *head*."""

    def play(link: Link) -> None:
        link.send(kind + struct.pack("!I", HUGE_BYTES + 4) + head)
        for _ in range(HUGE_BYTES // MIB):
            link.send(b"x" * MIB)

    return play


def _new_status(number: bytes) -> bytes:
    return status(b"s" + number, number * 20)


ERRORS: dict[str, bytes] = {
    "error without fields": message(b"E", b"\0"),
    "error without a terminator": message(b"E", b"SERROR\0Mno"),
    "error without an SQLSTATE": message(b"E", fields({"S": b"ERROR", "M": b"no"})),
    "error with an empty SQLSTATE": error(code=b""),
    "error with a long SQLSTATE": error(code=b"X" * 1000),
    "error without a message": message(b"E", fields({"S": b"ERROR", "C": b"XX000"})),
    "error of 1 MB": error(b"no " * (MIB // 3)),
    "error that is not UTF-8": error(b"n\xff\xfe\xe4 \xc3("),
    "error with unknown fields": error(b"no", z=b"z", **{"1": b"one", "~": b"tilde"}),
    "error of an unknown severity": error(severity=b"ABSURD"),
    "error with an absurd position": error(P=b"99999999999999999999", L=b"-1"),
    "error with a position that is no number": error(P=b"here"),
    "error with control characters": error(b"no\x1b[2J\r\n\x07\n2026-01-01 applied 0001"),
    "fatal error": error(severity=b"FATAL", code=b"57P01"),
    "panic": error(severity=b"PANIC", code=b"XX001"),
}
"""The stage decides what follows each error."""

BROKEN: dict[str, bytes] = {
    "garbage": bytes(range(256)) * 4,
    "zeros": bytes(1000),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "length 0": message(b"T", length=0),
    "length 3": message(b"T", length=3),
    "negative length": message(b"D", length=-1),
    "length of 2 GB": message(b"D", b"xx", length=(1 << 31) - 1),
    "length of 1 GB": message(b"E", b"xx", length=1 << 30),
    "unknown type": message(b"?", b"what"),
    "message for another state": message(b"1") + message(b"n") + message(b"t", b"\0\0"),
    "function result": message(b"V", struct.pack("!i", -1)),
    "portal suspended": message(b"s"),
}
"""Data that no server sends, in any state."""

_BEFORE_AUTHENTICATED: dict[str, bytes] = {
    "ready before authentication": READY,
    "row before authentication": row([b"1"]),
    "unknown authentication": authentication(99),
    "Kerberos": authentication(2),
    "SSPI": authentication(9),
    "GSS": authentication(7),
    "MD5 without salt": authentication(5),
    "MD5 with half a salt": authentication(5, b"ab"),
    "SASL without mechanisms": authentication(10, b"\0"),
    "SASL with an unknown mechanism": authentication(10, text(b"X", b"")),
    "SASL that is not terminated": authentication(10, b"SCRAM-SHA-256"),
    "SASL continued before it began": authentication(11, b"r=1"),
    "SASL final before it began": authentication(12, b"v=1"),
    "negotiation": message(b"v", struct.pack("!II", 3 << 16, 0)),
    "negotiation of another version": message(b"v", struct.pack("!II", 9 << 16, 0)),
    "negotiation of nonsense": message(b"v", struct.pack("!II", 0, 0xFFFFFFFF)),
    "negotiation of an option": message(b"v", struct.pack("!II", 3 << 16, 1) + text(b"_pq_.x")),
    "authentication without a kind": message(b"R"),
    "long authentication": authentication(3, b"x" * 5000),
}

_WELCOMES: dict[str, bytes] = {
    "no key": AUTHENTICATED + STATUSES + READY,
    "short key": AUTHENTICATED + STATUSES + message(b"K", b"\0\0") + READY,
    "long key": AUTHENTICATED + STATUSES + message(b"K", bytes(4 + 256)) + READY,
    "no statuses": AUTHENTICATED + KEY + READY,
    "key twice": AUTHENTICATED + KEY + KEY + READY,
    "version 9.6": AUTHENTICATED + STATUSES + status(b"server_version", b"9.6.24") + KEY + READY,
    "version abc": AUTHENTICATED + STATUSES + status(b"server_version", b"abc") + KEY + READY,
    "empty version": AUTHENTICATED + STATUSES + status(b"server_version", b"") + KEY + READY,
    "huge version": AUTHENTICATED + STATUSES + status(b"server_version", b"9" * 5000) + KEY + READY,
    "version of big numbers": AUTHENTICATED
    + STATUSES
    + status(b"server_version", b"99999999.99999999.99999999")
    + KEY
    + READY,
    "encoding LATIN1": AUTHENTICATED
    + STATUSES
    + status(b"client_encoding", b"LATIN1")
    + KEY
    + READY,
    "encoding of nonsense": AUTHENTICATED
    + STATUSES
    + status(b"client_encoding", b"\xff\xfe")
    + KEY
    + READY,
    "status without a value": AUTHENTICATED + message(b"S", b"name\0") + KEY + READY,
    "ready in a transaction": AUTHENTICATED + STATUSES + KEY + message(b"Z", b"T"),
    "ready with an unknown state": AUTHENTICATED + STATUSES + KEY + message(b"Z", b"?"),
    "ready twice": WELCOME + READY,
    "rows before ready": AUTHENTICATED + STATUSES + KEY + result([b"1"]),
    "copy at the login": AUTHENTICATED + message(b"H", b"\0\0\1\0\0") + message(b"d", b"x") * 9,
}
"""Logins that a client may accept; then every query is answered with an error."""


def _started(play: Callable[[Link], object]) -> Callable[[Link], object]:
    """*play* after the startup packet has been read, and silence after it."""

    def then(link: Link) -> None:
        link.read_startup()
        play(link)
        link.silence()

    return then


def _closing(*data: bytes) -> Callable[[Link], object]:
    return _started(says_and_closes(*data))


def _refusing(welcome: bytes) -> Callable[[Link], object]:
    def play(link: Link) -> None:
        link.read_startup()
        link.send(welcome)
        while link.read_message()[0] != b"X":
            link.send(error(b"this is no PostgreSQL", code=b"0A000"), READY)

    return play


def _asks_for_password(*then: bytes, kind: bytes = authentication(3)) -> Callable[[Link], object]:
    def play(link: Link) -> None:
        link.send(kind)
        link.read_message()
        link.send(*then)

    return _started(play)


def _tls(answer: bytes, *, closes: bool = False) -> Callable[[Link], object]:
    def play(link: Link) -> None:
        link.read_untyped()
        link.send(answer)
        if not closes:
            link.silence()

    return play


_SASL = authentication(10, text(b"SCRAM-SHA-256", b""))


def _closes_immediately(_: Link) -> None:
    raise EOFError


def _resets(link: Link) -> None:
    link._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link._client.close()


TLS: dict[str, Callable[[Link], object]] = {
    "no answer to the TLS request": _tls(b""),
    "TLS, and silence": _tls(b"S"),
    "TLS, and garbage": _tls(b"S" + bytes(range(256))),
    "TLS, and closed": _tls(b"S", closes=True),
    "TLS, and more than that": _tls(b"S" * 3),
    "half a TLS record": _tls(b"S\x16\x03\x03\x40\x00"),
    "neither yes nor no to TLS": _tls(b"?"),
    "an error for TLS": _tls(error(b"no TLS here")),
}
"""Modes for a client that asks for TLS."""

LOGIN: dict[str, Callable[[Link], object]] = {
    "silent once connected": silent,
    "closed once connected": _closes_immediately,
    "reset once connected": _resets,
    "silent after startup": _started(silent),
    "closed after startup": _closing(),
    "silent in authentication": _asks_for_password(),
    "closed in authentication": _closing(authentication(3)),
    "silent in SASL": _asks_for_password(kind=_SASL),
    "garbage in SASL": _asks_for_password(authentication(11, b"\xff\0garbage"), kind=_SASL),
    "SASL ends too early": _asks_for_password(authentication(12, b"v=xx"), kind=_SASL),
    "authenticated in mid-SASL": _asks_for_password(WELCOME, kind=_SASL),
    "SASL with another nonce": _asks_for_password(
        authentication(11, b"r=x,s=c2FsdA==,i=4096"), kind=_SASL
    ),
    "authentication for ever": _started(floods(authentication(3))),
    "silent before ready": _started(says(AUTHENTICATED + STATUSES)),
    "closed before ready": _closing(AUTHENTICATED + STATUSES),
    "half a message": _closing(AUTHENTICATED[:5]),
    "half an error": _closing(error(b"no" * 100)[:50]),
    "drips from the first byte": _started(drips(WELCOME)),
    "drips a long message": _started(drips(message(b"R", length=1500))),
    "drips after authentication": _started(after(AUTHENTICATED, drips(STATUSES))),
    "drips a long error": _started(drips(message(b"E", b"SFATAL\0", length=29000))),
    "endless statuses": _started(after(AUTHENTICATED, floods_numbered(_new_status))),
    "same status for ever": _started(floods(status(b"a", b"b"), first=AUTHENTICATED)),
    "endless notices": _started(floods(notice(b"hm"), first=AUTHENTICATED)),
    "notices before authentication": _started(floods(notice(b"hm"))),
    "endless notifications": _started(floods(notification(), first=AUTHENTICATED)),
    "endless rows": _started(floods(row([b"1"]), first=AUTHENTICATED + description([Column()]))),
    "endless copy data": _started(
        floods(message(b"d", b"x" * 1000), first=AUTHENTICATED + message(b"H", b"\0\0\1\0\0"))
    ),
    "endless keys": _started(floods(KEY, first=AUTHENTICATED)),
    "huge notice": _started(after(AUTHENTICATED, huge(b"N", b"SNOTICE\0M"))),
    "statuses that trickle": _started(after(AUTHENTICATED, trickles(status(b"a", b"b")))),
    "error in the old format": _closing(b"EFATAL: this is protocol 2\n\0"),
    "slot missing": _closing(
        error(b"sorry, too many clients already", severity=b"FATAL", code=b"53300")
    ),
    "starting up for ever": _closing(
        error(b"the database system is starting up", severity=b"FATAL", code=b"57P03")
    ),
    "password refused": _closing(
        error(b'password authentication failed for user "user"', severity=b"FATAL", code=b"28P01")
    ),
    **{name: _closing(data) for name, data in ERRORS.items()},
    **{f"{name} in the login": _started(says(data)) for name, data in BROKEN.items()},
    **{
        f"{name} after authentication": _started(says(AUTHENTICATED, data))
        for name, data in BROKEN.items()
    },
    **{name: _started(says(data)) for name, data in _BEFORE_AUTHENTICATED.items()},
    **{name: _refusing(data) for name, data in _WELCOMES.items()},
}
"""Modes for a login without TLS."""

_WIDE = [Column(b"c%d" % number) for number in range(65535)]
_TYPES = {
    "boolean": 16,
    "bigint": 20,
    "integer": 23,
    "oid": 26,
    "float": 701,
    "oids": 1007,
    "xid": 28,
}

QUERY: dict[str, Callable[[Link], object]] = {
    "silent": silent,
    "closed": _closes_immediately,
    "reset": _resets,
    "closed in mid-row": says_and_closes(description([Column()]) + row([b"12345"])[:8]),
    "closed after the description": says_and_closes(description([Column()])),
    "closed before ready": says_and_closes(result([b"1"])[: -len(READY)]),
    "silent before ready": says(result([b"1"])[: -len(READY)]),
    "silent in mid-row": says(description([Column()]) + row([b"12345"])[:8]),
    "drips a description": drips(message(b"T", length=100000)),
    "drips a row": drips(description([Column()]) + message(b"D", b"\0\1\0\1\0\0", length=100000)),
    "drips rows": after(description([Column()]), trickles(row([b"1"]))),
    "notices that trickle": trickles(notice(b"hm")),
    "statuses that trickle": trickles(status(b"a", b"b")),
    "results that trickle": trickles(complete()),
    "endless statuses": floods_numbered(_new_status),
    "endless notices": floods(notice(b"hm")),
    "endless long notices": floods(notice(b"hm" * 100000)),
    "endless notifications": floods(notification()),
    "endless rows": floods(row([b"1"]), first=description([Column()])),
    "endless wide rows": floods(row([b"x" * MIB]), first=description([Column()])),
    "endless results": floods(complete()),
    "endless results with rows": floods(result([b"1"])[: -len(READY)]),
    "endless errors": floods(error()),
    "endless empty queries": floods(message(b"I")),
    "endless copy data": floods(message(b"d", b"x" * 1000), first=message(b"H", b"\0\0\1\0\0")),
    "endless descriptions": floods(description([Column()])),
    "endless ready": floods(READY),
    "asks for copy data": says(message(b"G", b"\0\0\1\0\0")),
    "asks for copy data for ever": floods(message(b"G", b"\0\0\1\0\0")),
    "copy in both directions": says(message(b"W", b"\0\0\1\0\0")),
    "copy done, not begun": says(message(b"c"), READY),
    "huge row": after(
        description([Column()]), huge(b"D", b"\0\1" + struct.pack("!I", HUGE_BYTES - 6))
    ),
    "huge notice": huge(b"N", b"SNOTICE\0M"),
    "huge error": huge(b"E", b"SERROR\0C12345\0M"),
    "65535 columns": says(result([b"1"] * 65535, columns=_WIDE)),
    "65535 columns, no row": says(result(columns=_WIDE)),
    "no columns": says(result([], columns=[])),
    "no rows": says(result()),
    "row with too few values": says(description([Column()] * 3), row([b"1"]), complete(), READY),
    "row with too many values": says(description([Column()]), row([b"1"] * 3), complete(), READY),
    "row that lies about its count": says(
        description([Column()]), row([b"1"], count=9), complete(), READY
    ),
    "row with an absurd value length": says(
        description([Column()]), message(b"D", b"\0\1\x7f\xff\xff\xff12"), complete(), READY
    ),
    "row without a description": says(row([b"1"]), complete(), READY),
    "description twice": says(description([Column()]) * 2 + row([b"1"]), complete(), READY),
    "complete before the description": says(
        complete(), description([Column()]), row([b"1"]), READY
    ),
    "more results than asked for": says(complete(b"SET") * 50, result([b"1"])),
    "only empty": says(message(b"I"), READY),
    "only ready": says(READY),
    "ready with an unknown state": says(result([b"1"])[:-1] + b"?"),
    "ready in a transaction": says(result([b"1"])[:-1] + b"T"),
    "ready in a failed transaction": says(result([b"1"])[:-1] + b"E"),
    "no tag": says(description([Column()]), row([b"1"]), complete(b""), READY),
    "absurd tag": says(complete(b"\xff" * 5000), READY),
    **{
        f"{count} columns of {rows} rows": says(
            result(*[[b"1"] * count] * rows, columns=[Column()] * count)
        )
        for count in (1, 2, 3, 6)
        for rows in (1, 2)
    },
    **{
        f"{count} columns of NULL": says(result([None] * count, columns=[Column()] * count))
        for count in (1, 2, 3, 9)
    },
    **{
        f"text for {name}": says(result([b"text"] * 3, columns=[Column(oid=oid)] * 3))
        for name, oid in _TYPES.items()
    },
    "number that is too long": says(result([b"9" * 10000], columns=[Column(oid=20)])),
    "values that are not UTF-8": says(result([b"\xff\xfe"] * 3, columns=[Column()] * 3)),
    **{name: says(data, READY) for name, data in ERRORS.items()},
    **{f"{name}, silent": says(data) for name, data in BROKEN.items()},
}
"""Modes for the answer to a query."""
