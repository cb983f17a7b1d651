"""Questions by libpq alone, through ctypes: a start with nothing to do needs no more.

It is the libpq that psycopg brings, and gets the same strings; but to import psycopg takes several
times as long as to connect, to ask and to leave: docs/benchmarks.md has the figures.
https://www.postgresql.org/docs/current/libpq-async.html
"""

from __future__ import annotations

import os
import sys
from ctypes import CDLL, POINTER, Structure, c_char_p, c_int, c_void_p
from itertools import takewhile
from select import POLLIN, POLLOUT, poll
from time import monotonic

from initmig.errors import DatabaseUnavailable, ServerMessage
from initmig.postgres.errors import StatementFailed, is_lost, one_line, refused
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

_BAD = 1  # ConnStatusType
_FAILED, _READING, _WRITING, _OK = range(4)  # PostgresPollingStatusType
_COMMAND_OK, _TUPLES_OK = 1, 2  # ExecStatusType
_VERBOSE = 2  # PGVerbosity

_VALUES: Mapping[int, Callable[[str], Any]] = {
    16: "t".__eq__,
    20: int,
    23: int,
    701: float,
    1007: lambda text: [int(each) for each in text.strip("{}").split(",") if each],
}
"""How boolean, bigint, integer, double precision and integer[] are read; the rest stays text."""


class _Option(Structure):
    """PQconninfoOption."""

    _fields_ = (
        *((name, c_char_p) for name in ("keyword", "env", "compiled", "value", "label", "show")),
        ("size", c_int),
    )


class ConnectFailed(Exception):
    """An attempt to connect, in the words of libpq."""

    def __init__(self, words: str) -> None:
        import re

        self.sqlstates = re.findall(r":  ([0-9A-Z]{5}): ", words)
        # what is there only because of PQERRORS_VERBOSE
        brief = re.sub(r"(?m):  [0-9A-Z]{5}(?=: )|^LOCATION: .*", "", words)
        super().__init__(one_line(brief))


class Reader:
    """One connection in autocommit; *preamble* is sent with each question, until it is settled."""

    def __init__(
        self, libpq: CDLL, params: Mapping[str, str], preamble: str = "", lasting: str = ""
    ) -> None:
        """Begin to connect; *params* as PQconnectStartParams takes them."""
        self._preamble = preamble
        self._lasting = lasting
        self.answer_timeout = float("inf")
        self._libpq = libpq
        keywords, values = _array(params.keys()), _array(params.values())
        self._connection = c_void_p(libpq.PQconnectStartParams(keywords, values, 1))
        # Called for each notice, which nobody is to read here, with NULL: it frees nothing.
        libpq.PQsetNoticeProcessor(self._connection, libpq.PQfreemem, None)
        libpq.PQsetErrorVerbosity(self._connection, _VERBOSE)

    def options(self) -> dict[bytes, bytes | None]:
        """What *params* come to, with libpq's own variables, files and defaults."""
        options = self._libpq.PQconninfo(self._connection)
        named = takewhile(lambda option: option.keyword is not None, options)
        found = {option.keyword: option.value for option in named}
        self._libpq.PQconninfoFree(options)
        return found

    def finish_connecting(self) -> None:
        """:raises ConnectFailed: the server, or libpq, said no, or there was no answer in time."""
        bad = self._libpq.PQstatus(self._connection) == _BAD
        status = _FAILED if bad else _WRITING
        deadline = 0.0 if bad else monotonic() + _seconds(self.options()[b"connect_timeout"])
        while status in (_READING, _WRITING):
            if not self._wait(POLLIN if status == _READING else POLLOUT, deadline):
                raise ConnectFailed("connection timeout expired")
            status = self._libpq.PQconnectPoll(self._connection)
        if status != _OK:
            raise ConnectFailed(self._words())

    @property
    def startup_pid(self) -> int:
        """The server process id given at start-up: behind a pooler, not the one that works."""
        return int(self._libpq.PQbackendPID(self._connection))

    def settle(self) -> None:
        """As `session.Session.settle`."""
        self.query(self._lasting)
        self._preamble = ""

    @property
    def usable(self) -> bool:
        """Whether a question can still be sent."""
        return bool(self._libpq.PQstatus(self._connection) != _BAD)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *sql*, which is sent as one message.

        :raises DatabaseRefused: the server refused it
        :raises DatabaseUnavailable: the connection was lost, or an answer took too long
        """
        self._libpq.PQsendQuery(self._connection, f"{self._preamble}{sql}".encode())
        rows: list[tuple[Any, ...]] = []
        failed: StatementFailed | None = None
        for result in self._results():
            if self._libpq.PQresultStatus(result) in (_COMMAND_OK, _TUPLES_OK):
                rows = self._rows(result)
            else:
                failed = self._failed(result)
        if self._libpq.PQstatus(self._connection) == _BAD or (
            failed and is_lost(failed.server.sqlstate)
        ):
            raise DatabaseUnavailable(f"the connection was lost: {one_line(self._words())}")
        if failed:
            raise refused(failed)
        return rows

    def _results(self) -> Iterator[c_void_p]:
        deadline = monotonic() + self.answer_timeout
        while True:
            while self._libpq.PQisBusy(self._connection):
                if not self._wait(POLLIN, deadline):
                    raise DatabaseUnavailable(
                        f"the connection was lost: no answer in {self.answer_timeout:g} s"
                    )
                self._libpq.PQconsumeInput(self._connection)
            result = c_void_p(self._libpq.PQgetResult(self._connection))
            if not result:
                return
            yield result
            self._libpq.PQclear(result)

    def _rows(self, result: c_void_p) -> list[tuple[Any, ...]]:
        columns = range(self._libpq.PQnfields(result))
        return list(zip(*(self._column(result, column) for column in columns), strict=True))

    def _column(self, result: c_void_p, column: int) -> list[Any]:
        read = _VALUES.get(self._libpq.PQftype(result, column), str)
        value, is_null = self._libpq.PQgetvalue, self._libpq.PQgetisnull
        texts = [value(result, row, column) for row in range(self._libpq.PQntuples(result))]
        return [
            read(text.decode()) if text or not is_null(result, row, column) else None
            for row, text in enumerate(texts)
        ]

    def _failed(self, result: c_void_p) -> StatementFailed:
        said = (self._libpq.PQresultErrorField(result, ord(field)) for field in "MCDHW")
        message, *beside = ((text or b"").decode(errors="replace") for text in said)
        return StatementFailed(message, server=ServerMessage(*beside))

    def _words(self) -> str:
        return str(self._libpq.PQerrorMessage(self._connection).decode(errors="replace"))

    def _wait(self, event: int, deadline: float) -> bool:
        """Whether *event* came before the *deadline*; a signal gets through meanwhile."""
        waiting = poll()
        waiting.register(self._libpq.PQsocket(self._connection), event)
        left = max(0.0, deadline - monotonic())
        return bool(waiting.poll(None if left == float("inf") else left * 1000))

    def close(self) -> None:
        """Leave."""
        self._libpq.PQfinish(self._connection)
        self._connection = c_void_p()


def ping(libpq: CDLL, params: Mapping[str, str]) -> int:
    """What libpq thinks of a server that it cannot connect to with *params*, as PGPing."""
    return int(libpq.PQpingParams(_array(params.keys()), _array(params.values()), 1))


def _seconds(connect_timeout: bytes | None) -> float:
    return float(connect_timeout or 0) or float("inf")


def _array(texts: Collection[str]) -> Any:
    return (c_char_p * (len(texts) + 1))(*(text.encode() for text in texts))


def find_libpq() -> CDLL | None:
    """The library that psycopg's binary package brings, if that is how psycopg was installed."""
    for folder in (os.path.join(each, "psycopg_binary.libs") for each in sys.path):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith("libpq-"):
                return _declared(CDLL(os.path.join(folder, name)))
    return None


def _declared(libpq: CDLL) -> CDLL:
    for name in ("PQconnectStartParams", "PQgetResult"):
        getattr(libpq, name).restype = c_void_p
    for name in ("PQerrorMessage", "PQgetvalue", "PQresultErrorField"):
        getattr(libpq, name).restype = c_char_p
    libpq.PQconninfo.restype = POINTER(_Option)
    return libpq
