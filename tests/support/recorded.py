"""What a real server says to a command, recorded, and played back with mistakes in it."""

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
"""Messages, or what became of them."""
Answers = list[Pieces]
"""Of one connection: the login, and then the answer to each query."""

ENDS_OF_QUESTIONS = (b"Q", b"S")
"""A query, and the Sync behind psycopg's messages."""
ASKS_FOR_MORE = (10, 11)
"""The authentications that the client has to go on with."""


# --- recording ---


class Recorder:
    """A mode at the login that passes on what comes to a real server, and records what that says.

    The login is recorded as that of a server that asks for no password: an answer to this client's
    nonce is right for no other.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self.connections: list[Answers] = []
        self.passwords: Pieces = []
        """What was said about the password."""

    def __call__(self, link: Link) -> None:
        """The server's half of one connection."""
        answers: Answers = []
        self.connections.append(answers)
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
            while True:
                kind, body = link.read_message()
                server.send(message(kind, body))
                if kind in ENDS_OF_QUESTIONS:
                    answers.append(self._pass_on(server, link))

    def _pass_on(self, server: Link, client: Link) -> Pieces:
        said: Pieces = []
        while True:
            kind, body = server.read_message()
            said.append(message(kind, body))
            client.send(said[-1])
            asks = kind == b"R" and struct.unpack("!I", body[:4])[0] in ASKS_FOR_MORE
            if kind == b"Z" or asks:
                return said


# --- playing ---


class Player:
    """A mode at the login that says what was recorded, connection by connection, and again.

    What goes beyond that is answered with an error.
    """

    def __init__(
        self,
        connections: Sequence[Answers],
        *,
        patience: float | None = None,
        closes_after: bytes | None = None,
    ) -> None:
        """The connection is closed after so many seconds of silence, or after one answer."""
        self._connections = connections
        self._patience = patience
        self._closes_after = closes_after
        self._lock = threading.Lock()
        self._numbers = itertools.cycle(range(len(connections)))

    def __call__(self, link: Link) -> None:
        """The server's half of one connection."""
        link.read_startup()
        if self._patience:
            link.limit(self._patience)
        with self._lock:
            answers = iter([b"".join(pieces) for pieces in self._connections[next(self._numbers)]])
        said = next(answers)
        link.send(said)
        while said != self._closes_after:
            kind, _ = link.read_message()
            if kind == b"X":
                return
            if kind in ENDS_OF_QUESTIONS:
                said = next(answers, error(b"that was all", code=b"0A000") + READY)
                link.send(said)


# --- mistakes ---

LENGTHS = (0, 3, 4, 5, 8, 255, 29000, 30001, 1 << 20, 1 << 30, (1 << 31) - 1, 1 << 31, -1)
NUMBERS = (0, 1, 2, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TYPES = b"RSKZTDCENAIGHWdcvstn123V?\0\xff"
TIMES = (2, 50, 2000, 20000)
MOST_BYTES = 8 << 20
"""Of an answer that is repeated."""


def _flip_bits(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    flipped = bytearray(pieces[at])
    for _each in range(random.choice((1, 1, 2, 8, 40)) if flipped else 0):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    pieces[at] = bytes(flipped)


def _change_length(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    said = random.choice((len(pieces[at]) - 1 + random.randint(-6, 6), random.choice(LENGTHS)))
    pieces[at] = pieces[at][:1] + struct.pack("!I", said % (1 << 32)) + pieces[at][5:]


def _change_number(random: Random, pieces: Pieces, _: Pieces) -> None:
    at = random.randrange(len(pieces))
    begin = random.randrange(5, max(6, len(pieces[at])))
    number = random.choice(NUMBERS)
    packed = random.choice((struct.pack("!H", number & 0xFFFF), struct.pack("!I", number)))
    pieces[at] = pieces[at][:begin] + packed + pieces[at][begin + len(packed) :]


def _change_text(random: Random, pieces: Pieces, _: Pieces) -> None:
    """The length of the message stays right: what is in it does not."""
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


MISTAKES: tuple[Callable[[Random, Pieces, Pieces], None], ...] = (
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


class Mistaken(NamedTuple):
    """A recording with mistakes in one answer."""

    player: Player
    story: str
    """Which mistakes, and where."""


def mistaken(
    connections: Sequence[Answers],
    others: Iterable[bytes],
    random: Random,
    patience: float | None = None,
) -> Mistaken:
    """Some mistakes in an answer of one of *connections*, in the login or behind it.

    *others* are more messages that may get in between; *patience* is a `Player`'s.
    """
    number = random.randrange(len(connections))
    queries = range(1, len(connections[number]))
    turn = random.choice(queries) if queries and random.random() < 0.6 else 0
    pool = [*others, *itertools.chain(*itertools.chain(*connections))]
    pieces = list(connections[number][turn])
    chosen = random.choices(MISTAKES, k=random.choice((1, 1, 2, 3)))
    for make in chosen:
        make(random, pieces, pool)
    changed = [list(answers) for answers in connections]
    changed[number][turn] = pieces
    closes = random.random() < 0.4
    last = b"".join(pieces) if closes else None
    player = Player(changed, patience=patience, closes_after=last)
    names = [each.__name__.strip("_") for each in chosen] + ["close"] * closes
    return Mistaken(player, f"connection {number}, answer {turn}: {', '.join(names)}")
