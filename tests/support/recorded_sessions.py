"""The recorded answers of a real server, played back with mistakes in them."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tests.support.fake_server import AUTHENTICATED, READY, Link, error, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

Pieces = list[bytes]
"""Messages, possibly corrupted."""
Answers = list[Pieces]
"""The answers of one connection: to the login, and then to each query."""

ENDS_OF_QUESTIONS = (b"Q", b"S")
"""A query, and the Sync that follows psycopg's messages."""
ASKS_FOR_MORE = (10, 11)
"""The authentication requests that the client must answer."""


# --- recording ---


class Recorder:
    """A mode for the login: it forwards messages to a real server, and records the answers.

    The login is recorded as if the server asked for no password, because an answer to one client's
    nonce is wrong for every other client.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self.connections: list[Answers] = []
        self.passwords: Pieces = []
        """The messages about the password."""

    def __call__(self, link: Link) -> None:
        """Serve one connection."""
        answers: Answers = []
        with closing(socket.create_connection(self._address)) as connected:
            server = Link(connected)
            server.send(link.read_startup())
            login = self._pass_on(server, link)
            while login[-1][:1] == b"R":
                self.passwords += login
                server.send(message(*link.read_message()))
                login = self._pass_on(server, link)
            begin = login.index(AUTHENTICATED)
            self.passwords += login[:begin]
            answers.append(login[begin:])
            # now, because a client that is too slow to log in connects again
            self.connections.append(answers)
            while True:
                kind, body = link.read_message()
                server.send(message(kind, body))
                if kind in ENDS_OF_QUESTIONS:
                    answers.append(self._pass_on(server, link))

    def _pass_on(self, server: Link, client: Link) -> Pieces:
        sent: Pieces = []
        while True:
            kind, body = server.read_message()
            sent.append(message(kind, body))
            client.send(sent[-1])
            asks = kind == b"R" and struct.unpack("!I", body[:4])[0] in ASKS_FOR_MORE
            if kind == b"Z" or asks:
                return sent


# --- playing ---


class Player:
    """A mode for the login: it plays the recorded connections, one after the other, repeatedly.

    It answers every further query with an error.
    """

    def __init__(
        self,
        connections: Sequence[Answers],
        *,
        idle_timeout: float | None = None,
        closes_after: bytes | None = None,
    ) -> None:
        """Close connections after *idle_timeout* seconds of silence, or after *closes_after*."""
        self._connections = connections
        self._idle_timeout = idle_timeout
        self._closes_after = closes_after
        self._lock = threading.Lock()
        self._numbers = itertools.cycle(range(len(connections)))

    def __call__(self, link: Link) -> None:
        """Serve one connection."""
        link.read_startup()
        if self._idle_timeout:
            link.limit(self._idle_timeout)
        with self._lock:
            answers = iter([b"".join(pieces) for pieces in self._connections[next(self._numbers)]])
        sent = next(answers)
        link.send(sent)
        while sent != self._closes_after:
            kind, _ = link.read_message()
            if kind == b"X":
                return
            if kind in ENDS_OF_QUESTIONS:
                sent = next(answers, error(b"that was all", code=b"0A000") + READY)
                link.send(sent)


# --- mistakes ---

LENGTHS = (0, 3, 4, 5, 8, 255, 29000, 30001, 1 << 20, 1 << 30, (1 << 31) - 1, 1 << 31, -1)
NUMBERS = (0, 1, 2, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TYPES = b"RSKZTDCENAIGHWdcvstn123V?\0\xff"
TIMES = (2, 50, 2000, 20000)
MOST_BYTES = 8 << 20
"""The most bytes of a repeated answer."""


def _flip_bits(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    flipped = bytearray(pieces[at])
    for _each in range(random.choice((1, 1, 2, 8, 40)) if flipped else 0):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    pieces[at] = bytes(flipped)


def _change_length(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    sent = random.choice((len(pieces[at]) - 1 + random.randint(-6, 6), random.choice(LENGTHS)))
    pieces[at] = pieces[at][:1] + struct.pack("!I", sent % (1 << 32)) + pieces[at][5:]


def _change_number(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    begin = random.randrange(5, max(6, len(pieces[at])))
    number = random.choice(NUMBERS)
    packed = random.choice((struct.pack("!H", number & 0xFFFF), struct.pack("!I", number)))
    pieces[at] = pieces[at][:begin] + packed + pieces[at][begin + len(packed) :]


def _change_text(random: Random, pieces: Pieces, _: Pieces) -> None:
    """The length of the message stays correct; its content does not."""
    at = random.randrange(len(pieces))
    begin = random.randrange(5, max(6, len(pieces[at])))
    put = random.choice((b"\0", b"\xff\xfe", b"'\";", b"\x1b[2J\n", b"99999999999999999999"))
    taken = random.choice((0, len(put)))
    body = pieces[at][5:begin] + put + pieces[at][begin + taken :]
    pieces[at] = message(pieces[at][:1], body)


def _change_type(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    pieces[at] = bytes([random.choice(TYPES)]) + pieces[at][1:]


def _drop(random: Random, pieces: Pieces, _: Pieces) -> None:
    if len(pieces) > 1:
        del pieces[random.randrange(len(pieces))]


def _reorder(random: Random, pieces: Pieces, _: Pieces) -> None:
    if random.random() < 0.5:
        random.shuffle(pieces)
    else:
        pieces.append(pieces.pop(random.randrange(len(pieces))))


def _repeat(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    times = min(random.choice(TIMES), MOST_BYTES // max(1, len(pieces[at])))
    pieces[at : at + 1] = [pieces[at] * times] if times > 50 else [pieces[at]] * times


def _insert_other(random: Random, pieces: Pieces, others: Pieces) -> None:
    pieces.insert(random.randint(0, len(pieces)), random.choice(others))


def _insert_garbage(random: Random, pieces: Pieces, _: Pieces) -> None:
    garbage = random.randbytes(random.choice((1, 3, 5, 64, 5000, 100000)))
    pieces.insert(random.randint(0, len(pieces)), garbage)


def _truncate(random: Random, pieces: Pieces, _: Pieces) -> None:
    last = random.randrange(len(pieces))
    pieces[last:] = [pieces[last][: random.randint(0, len(pieces[last]))]]


CORRUPTIONS: tuple[Callable[[Random, Pieces, Pieces], None], ...] = (
    _flip_bits,
    _change_length,
    _change_number,
    _change_text,
    _change_type,
    _drop,
    _reorder,
    _repeat,
    _insert_other,
    _insert_garbage,
    _truncate,
)


class Corrupted(NamedTuple):
    """A recording with mistakes in one answer."""

    player: Player
    description: str
    """Which mistakes were made, and where."""


def corrupt(
    connections: Sequence[Answers],
    others: Iterable[bytes],
    random: Random,
    idle_timeout: float | None = None,
) -> Corrupted:
    """Some mistakes in one answer of one of *connections*: to the login, or to a query.

    *others* are further messages that may be inserted; *idle_timeout* is a `Player`'s.
    """
    number = random.randrange(len(connections))
    queries = range(1, len(connections[number]))
    turn = random.choice(queries) if queries and random.random() < 0.6 else 0
    pool = [*others, *itertools.chain(*itertools.chain(*connections))]
    pieces = list(connections[number][turn])
    chosen = random.choices(CORRUPTIONS, k=random.choice((1, 1, 2, 3)))
    for make in chosen:
        make(random, pieces, pool)
    changed = [list(answers) for answers in connections]
    changed[number][turn] = pieces
    closes = random.random() < 0.4
    last = b"".join(pieces) if closes else None
    player = Player(changed, idle_timeout=idle_timeout, closes_after=last)
    names = [each.__name__.strip("_") for each in chosen] + ["close"] * closes
    return Corrupted(player, f"connection {number}, answer {turn}: {', '.join(names)}")
