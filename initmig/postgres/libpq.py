"""A connection through libpq and ctypes, which is enough for SQL.

It uses the libpq that psycopg includes, with the same connection strings. Importing psycopg takes
several times as long as connecting, one query, and closing. See docs/explanation/benchmarks.md for
the figures.
https://www.postgresql.org/docs/current/libpq-async.html
"""

from __future__ import annotations

import os
import sys
from ctypes import CDLL, CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_void_p
from itertools import takewhile
from select import POLLIN, POLLOUT, poll
from time import monotonic

from initmig.core.errors import InitmigError, ServerMessage
from initmig.core.records import TYPE_CHECKING, Record
from initmig.core.signals import callback
from initmig.postgres.errors import (
    NO_COPY_DATA,
    ROWS_AT_A_TIME,
    AfterCommit,
    ClientFailed,
    StatementFailed,
    UnexpectedAnswer,
    as_number,
    client_failed,
    connection_lost,
    discard_unsent,
    disconnect_error,
    not_committed,
    one_line,
    out_of_memory,
    outcome_unknown,
    says_out_of_memory,
    shortened,
    unexpected_answer,
)
from initmig.postgres.memory_limit import MemoryLimit
from initmig.postgres.parameters import COMMIT_MARK, RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from initmig.postgres.connection import OnNotice
    from initmig.postgres.notices import Notices

_BAD = 1  # ConnStatusType
_FAILED, _READING, _WRITING = range(3)  # PostgresPollingStatusType
_GOOD, _COPY_OUT, _COPY_IN, _COPY_BOTH = (0, 1, 2), 3, 4, 8  # ExecStatusType
_ROWS = 12  # PGRES_TUPLES_CHUNK, a partial result
_IDLE, _ACTIVE = 0, 1  # PGTransactionStatusType
_TERSE, _VERBOSE = 0, 2  # PGVerbosity

_MARK = COMMIT_MARK.encode()

_NO_LIMIT = float("inf")
_CANCEL_SECONDS = 5.0
_SQLSTATE_LENGTH = 5
_BRIEF_CANCEL_SECONDS = 1.0

_VALUES: Mapping[int, Callable[[bytes], Any]] = {
    16: b"t".__eq__,
    20: int,
    23: int,
    26: int,
    701: float,
    1007: lambda text: [int(each) for each in text.strip(b"{}").split(b",") if each],
}
"""Parsers for boolean, bigint, integer, oid, double precision and integer[]. Others stay text."""


_LOWEST_GOOD = {
    "PQsetnonblocking": 0,
    "PQsocket": 0,
    "PQsendQuery": 1,
    "PQsetChunkedRowsMode": 1,
    "PQflush": 0,
    "PQputCopyData": 1,  # 0: out of memory, because everything was sent before
    "PQputCopyEnd": 1,
    "PQconsumeInput": 1,
    "PQgetCopyData": -1,
    "PQcancelStart": 1,
    "PQcancelSocket": 0,
}
"""By function: a result below this is a failure."""
_NEVER_NULL = ("PQconnectStartParams", "PQconninfo", "PQcancelCreate")
"""Functions that return NULL for a failure."""


OPEN: set[Any] = set()
"""All open connections. Processes that a migration forks must not use them."""


class _Option(Structure):
    """PQconninfoOption."""

    _fields_ = (
        *((name, c_char_p) for name in ("keyword", "env", "compiled", "value", "label", "show")),
        ("size", c_int),
    )


class _Answer(Record):
    """The server's answer to one message."""

    last: c_void_p
    """The last result. The caller must clear it."""
    failed: StatementFailed | ClientFailed | None
    """The first failure."""
    completed: int
    """Number of statements completed before the failure, without those after a COMMIT."""
    ended: str
    """The command tag after the `COMMIT_MARK`; empty without a mark."""


class ConnectFailed(Exception):
    """A failed attempt to connect, with libpq's message."""

    sqlstates: list[str] | None
    """The servers' SQLSTATEs; None if unknown."""

    def __init__(self, words: str) -> None:
        import re

        self.sqlstates = re.findall(r":  ([0-9A-Z]{5}): ", words)
        # parts that only PQERRORS_VERBOSE adds
        brief = re.sub(r"(?m):  [0-9A-Z]{5}(?=: )|^LOCATION: .*", "", words)
        super().__init__(one_line(brief))

    @classmethod
    def of(cls, failures: Sequence[ConnectFailed]) -> ConnectFailed:
        """Combine the failures at several addresses into one error."""
        failed = cls("\n".join(str(each) for each in failures))
        failed.sqlstates = []
        for each in failures:
            if each.sqlstates is None:
                failed.sqlstates = None
                break
            failed.sqlstates += each.sqlstates
        return failed


class ConnectTimedOut(ConnectFailed):
    """No answer in time from the numeric *address*, which may be empty."""

    def __init__(self, host: str, address: str, port: str) -> None:
        where = f" ({address})" if address not in ("", host) else ""
        super().__init__(
            f'connection to server at "{host}"{where}, port {port} failed: timeout expired'
        )
        self.address = address


class LibpqConnection:
    """A `connection.Connection` that uses libpq directly."""

    dbapi = None
    silence_seconds = _NO_LIMIT

    def __init__(self, libpq: CDLL, params: Mapping[str, str]) -> None:
        """Start to connect, with the *params* of PQconnectStartParams."""
        self._libpq = libpq
        self._ended: InitmigError | None = None
        """The error that closed the connection. Later messages, such as ROLLBACK, raise it again.
        """
        self._notices: Notices | None = None
        self._memory_limit = MemoryLimit()
        """Limit for the current answer."""
        self._connect_messages = ""
        """libpq's messages about connecting, which it forgets."""
        self.on_silence: Callable[[], None] = lambda: None
        keywords, values = _array(params.keys()), _array(params.values())
        self._connection = c_void_p(libpq.PQconnectStartParams(keywords, values, 1))
        OPEN.add(self)
        # Called with NULL for each notice, which has no effect: nothing reads notices yet.
        libpq.PQsetNoticeProcessor(self._connection, libpq.PQfreemem, None)
        libpq.PQsetErrorVerbosity(self._connection, _VERBOSE)

    def options(self) -> dict[bytes, bytes | None]:
        """The resolved parameters, with libpq's variables, files and defaults."""
        options = self._libpq.PQconninfo(self._connection)
        named = takewhile(lambda option: option.keyword is not None, options)
        found = {option.keyword: option.value for option in named}
        self._libpq.PQconninfoFree(options)
        return found

    def finish_connecting(self, seconds: float) -> None:
        """Finish connecting within *seconds*.

        :raises ConnectFailed: the server or libpq refused, or the time is over
        """
        libpq, connection = self._libpq, self._connection
        if libpq.PQstatus(connection) == _BAD:
            raise ConnectFailed(self._words())
        # In blocking mode, libpq keeps reading while it cannot send, without a limit. Switching to
        # nonblocking mode clears the prefix of libpq's later error messages, so keep it.
        self._connect_messages = _text(libpq.PQerrorMessage(connection))
        libpq.PQsetnonblocking(connection, 1)

        def advance(connection: c_void_p) -> int:
            self._memory_limit.check()
            return int(libpq.PQconnectPoll(connection))

        try:
            status = _poll(connection, advance, libpq.PQsocket, seconds)
        except UnexpectedAnswer:
            self.close()
            raise
        if status is None:
            getters = (libpq.PQhost, libpq.PQhostaddr, libpq.PQport)
            raise ConnectTimedOut(*(_text(each(connection)) for each in getters))
        if status == _FAILED:
            raise ConnectFailed(self._words())
        self._connect_messages = ""
        # Otherwise an error with a position needs eight bytes for each byte of the message, for a
        # caret.
        libpq.PQsetErrorVerbosity(connection, _TERSE)

    @property
    def startup_pid(self) -> int:
        """As in `connection.Connection`."""
        return int(self._libpq.PQbackendPID(self._connection))

    @property
    def server_version(self) -> int:
        """As in `connection.Connection`."""
        return int(self._libpq.PQserverVersion(self._connection))

    @property
    def closed(self) -> bool:
        """As in `connection.Connection`."""
        return bool(self._libpq.PQstatus(self._connection) == _BAD)

    @property
    def in_transaction(self) -> bool:
        """As in `connection.Connection`."""
        return self._transaction_status() != _IDLE

    def _transaction_status(self) -> int:
        return int(self._libpq.PQtransactionStatus(self._connection))

    @property
    def encoding(self) -> str:
        """As in `connection.Connection`."""
        text = self._libpq.PQparameterStatus(self._connection, b"client_encoding")
        return (text or b"").decode()

    def set_notice_handler(self, on_notice: OnNotice) -> None:
        """As in `connection.Connection`."""
        from initmig.postgres.notices import Notices

        field = self._libpq.PQresultErrorField
        notices = self._notices = Notices(on_notice)

        @callback
        def receive(_: None, notice: int) -> None:
            severity, message = (field(c_void_p(notice), ord(each)) for each in "VM")
            notices.add(_text(severity), _text(message))

        # keep a reference for as long as libpq may call it
        self._receiver = CFUNCTYPE(None, c_void_p, c_void_p)(receive)
        self._libpq.PQsetNoticeReceiver(self._connection, self._receiver, None)

    def exchange(
        self,
        message: bytes,
        timeout: float,
        copies: Iterator[Iterable[bytes]],
        *,
        commits: bool = False,
        discards: bool = False,
    ) -> list[tuple[Any, ...]]:
        """As in `connection.Connection`."""
        if self._ended:
            raise self._ended
        deadline = monotonic() + timeout
        self._memory_limit = MemoryLimit(timeout)
        sent = False
        try:
            self._libpq.PQsendQuery(self._connection, message)
            sent = True
            if discards:
                self._libpq.PQsetChunkedRowsMode(self._connection, ROWS_AT_A_TIME)
            self._flush(deadline)
            return self._answer(deadline, copies, commits=commits)
        except KeyboardInterrupt:
            try:
                self._cancel()
            except (KeyboardInterrupt, ClientFailed, MemoryError):
                self.close()  # the statement still runs, but the user will not wait
            raise
        except TimeoutError:
            self._try_cancel()
            self.close()  # the answer may still arrive, and be taken for the next one
            raise self._lost(f"no answer in {timeout:g} s") from None
        except UnexpectedAnswer as odd:
            self._ended = odd
            self.close()
            raise
        except ClientFailed as failed:
            raise self._give_up(failed, committing=sent and commits) from failed
        except MemoryError as error:
            memory = out_of_memory("could not use the connection to the server")
            raise self._give_up(memory, committing=sent and commits) from error

    def _answer(
        self, deadline: float, copies: Iterator[Iterable[bytes]], *, commits: bool
    ) -> list[tuple[Any, ...]]:
        last, failed, completed, ended = self._receive(deadline, copies)
        try:
            answered = ended or _text(self._libpq.PQcmdStatus(last))
            self._raise_lost(failed)
            # the server has committed; libpq only lacked memory for the rows
            if failed and not (
                isinstance(failed, ClientFailed) and commits and answered == "COMMIT"
            ):
                raise failed
            if commits and answered != "COMMIT":
                raise not_committed(answered, completed=completed - 1)
            return self._read(last)
        except InitmigError as error:
            if ended == "COMMIT":
                raise AfterCommit.of(error.problems) from error
            raise
        finally:
            self._libpq.PQclear(last)

    def _raise_lost(self, failed: StatementFailed | ClientFailed | None) -> None:
        """Check that the connection is usable after *failed*.

        :raises InitmigError: the connection was closed
        """
        refused = failed if isinstance(failed, StatementFailed) else None
        words = str(failed or "") or (one_line(self._words()) if self.closed else "")
        ended = disconnect_error(refused, words, closed=self.closed)
        if ended is None:
            return
        if says_out_of_memory(words) and not (refused and refused.sqlstate):
            raise client_failed("PQconsumeInput", words)  # libpq itself closed it
        self._ended = ended
        raise ended

    def _give_up(self, failed: ClientFailed, *, committing: bool) -> InitmigError:
        """Close the connection, whose state is unknown, and return the error."""
        self._ended = outcome_unknown(failed) if committing else failed
        if not self.closed:
            discard_unsent(self._libpq.PQsocket(self._connection))
        self.close()
        return self._ended

    def _flush(self, deadline: float) -> None:
        """Send the queued data. Also read, because the server may wait for that."""
        while self._libpq.PQflush(self._connection) == 1:
            if self._wait(POLLIN | POLLOUT, deadline) & POLLIN:
                self._consume()

    def _copy(self, pieces: Iterable[bytes] | None, deadline: float) -> None:
        """Send the data for a COPY FROM STDIN, or an error message without *pieces*."""
        for piece in pieces or ():
            self._libpq.PQputCopyData(self._connection, piece, len(piece))
            self._flush(deadline)
        self._libpq.PQputCopyEnd(self._connection, NO_COPY_DATA if pieces is None else None)
        self._flush(deadline)

    def _discard(self, deadline: float) -> None:
        """Read and discard the data of a COPY TO STDOUT."""
        libpq, row = self._libpq, c_void_p()
        while (length := libpq.PQgetCopyData(self._connection, byref(row), 1)) >= 0:
            if length:
                libpq.PQfreemem(row)
                continue
            self._wait(POLLIN, deadline)
            if not self._consume():
                break

    def _consume(self) -> bool:
        """Read the available data, and return whether the connection still works.

        :raises UnexpectedAnswer: the answer is too large
        """
        self._memory_limit.check()
        libpq = self._libpq
        there = bool(libpq.PQconsumeInput(self._connection))
        while notification := libpq.PQnotifies(self._connection):
            libpq.PQfreemem(c_void_p(notification))  # otherwise libpq would keep them all
        return there

    def _receive(self, deadline: float, copies: Iterator[Iterable[bytes]]) -> _Answer:
        """Receive the complete answer.

        :raises ClientFailed: libpq has no result although one is required
        """
        last, completed, failed = c_void_p(), 0, None
        marked, ended = False, ""
        while result := self._next_result(deadline):
            self._libpq.PQclear(last)
            last = result
            status = self._libpq.PQresultStatus(result)
            if status == _COPY_IN:
                self._copy(next(copies, None), deadline)
            elif status == _COPY_OUT:
                self._discard(deadline)
            elif status == _COPY_BOTH:  # libpq would return it forever
                raise client_failed("PQgetResult", "the server started a replication")
            elif status in _GOOD:
                completed += not ended
                ended = ended or (_text(self._libpq.PQcmdStatus(result)) if marked else "")
                marked = self._is_mark(result)
            elif status != _ROWS:
                failed = failed or self._failed(result, completed)
        self._finish_notices()
        if not self.closed and (not last or self._transaction_status() == _ACTIVE):
            raise client_failed("PQgetResult", self._words())
        return _Answer(last, failed, completed, ended)

    def _is_mark(self, result: c_void_p) -> bool:
        # for a missing column, libpq would print a notice
        has_one = self._libpq.PQnfields(result) == 1
        return bool(has_one and self._libpq.PQfname(result, 0) == _MARK)

    def _wait(self, events: int, deadline: float) -> int:
        self._deliver_notices()
        return _wait(self._libpq.PQsocket(self._connection), events, deadline)

    def _deliver_notices(self) -> None:
        if self._notices:
            self._notices.deliver()

    def _finish_notices(self) -> None:
        if self._notices:
            self._notices.finish()

    def _next_result(self, deadline: float) -> c_void_p:
        """The next result; a NULL pointer at the end."""
        while self._libpq.PQisBusy(self._connection):
            self._wait_for_answer(deadline)
            if not self._consume():
                break
        return c_void_p(self._libpq.PQgetResult(self._connection))

    def _wait_for_answer(self, deadline: float) -> None:
        while True:
            silent_until = min(deadline, monotonic() + self.silence_seconds)
            try:
                self._wait(POLLIN, silent_until)
            except TimeoutError:
                if silent_until == deadline:
                    raise
                self.on_silence()
            else:
                return

    def _failed(self, result: c_void_p, completed: int) -> StatementFailed | ClientFailed:
        values = (self._libpq.PQresultErrorField(result, ord(field)) for field in "MPRCDHWstn")
        message, position, routine, *fields = (shortened(_text(each)) for each in values)
        server = ServerMessage(fields[0][:_SQLSTATE_LENGTH], *fields[1:])
        words = message or one_line(_text(self._libpq.PQresultErrorMessage(result)))
        # the server always sends one, so this is libpq's error
        if not (server.sqlstate or self.closed):
            return client_failed("PQgetResult", words)
        failed = StatementFailed("migration-failed", words, server=server)
        failed.position = as_number(position)
        failed.routine = routine
        failed.completed = completed
        return failed

    def _lost(self, words: str) -> InitmigError:
        self._ended = connection_lost(words)
        return self._ended

    def _cancel(self) -> None:
        """Cancel the running statement and wait until it has ended, as psycopg does."""
        if self._transaction_status() != _ACTIVE:
            return
        self._request_cancel(_CANCEL_SECONDS)
        last, *_ = self._receive(_NO_LIMIT, iter(()))
        self._libpq.PQclear(last)

    def _request_cancel(self, limit: float) -> None:
        cancel = c_void_p(self._libpq.PQcancelCreate(self._connection))
        try:
            self._libpq.PQcancelStart(cancel)
            _poll(cancel, self._libpq.PQcancelPoll, self._libpq.PQcancelSocket, limit)
        finally:
            self._libpq.PQcancelFinish(cancel)

    def _try_cancel(self) -> None:
        """Try to cancel the running statement, which otherwise keeps waiting for a lock."""
        from contextlib import suppress

        with suppress(ClientFailed):
            self._request_cancel(_BRIEF_CANCEL_SECONDS)

    def _read(self, result: c_void_p) -> list[tuple[Any, ...]]:
        """The rows of *result*.

        :raises UnexpectedAnswer: a value does not match its type
        """
        try:
            return self._rows(result)
        except ValueError as error:
            raise unexpected_answer(error) from error

    def _rows(self, result: c_void_p) -> list[tuple[Any, ...]]:
        columns = range(self._libpq.PQnfields(result))
        return list(zip(*(self._column(result, column) for column in columns), strict=True))

    def _column(self, result: c_void_p, column: int) -> list[Any]:
        read = _VALUES.get(self._libpq.PQftype(result, column), _name)
        value, is_null = self._libpq.PQgetvalue, self._libpq.PQgetisnull
        texts = [value(result, row, column) for row in range(self._libpq.PQntuples(result))]
        return [
            read(text) if text or not is_null(result, row, column) else None
            for row, text in enumerate(texts)
        ]

    def _words(self) -> str:
        return self._connect_messages + _text(self._libpq.PQerrorMessage(self._connection))

    def fileno(self) -> int:
        """The file descriptor of the socket; -1 if the connection is closed."""
        return int(self._libpq.PQsocket(self._connection))

    def close(self) -> None:
        """As in `connection.Connection`."""
        OPEN.discard(self)
        # In this order, because a signal may interrupt this, and close() may be called again.
        connection, self._connection = self._connection, c_void_p()
        self._libpq.PQfinish(connection)


def _poll(
    connection: c_void_p,
    advance: Callable[[c_void_p], int],
    socket: Callable[[c_void_p], int],
    limit: float,
) -> int | None:
    """Call *advance* until it is done, and return its last status; None after *limit* seconds.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PQCONNECTSTARTPARAMS
    """
    deadline = monotonic() + limit
    status = _WRITING
    while status in (_READING, _WRITING):
        try:
            _wait(socket(connection), POLLIN if status == _READING else POLLOUT, deadline)
        except TimeoutError:
            return None
        status = advance(connection)
    return status


def _wait(socket: int, events: int, deadline: float) -> int:
    """Wait for *events*, and return the ones that occurred. Signals can interrupt the wait.

    :raises TimeoutError: no event before the *deadline*
    """
    left = deadline - monotonic()
    if left <= 0:  # needed if events occur all the time
        raise TimeoutError
    waiting = poll()
    waiting.register(socket, events)
    came = waiting.poll(None if left == _NO_LIMIT else left * 1000)
    if not came:
        raise TimeoutError
    return came[0][1]


def _name(value: bytes) -> str:
    """Decode *value* as UTF-8; a database without an encoding (SQL_ASCII) may have other bytes."""
    return value.decode(errors=RAW)


def _text(text: bytes | None) -> str:
    return (text or b"").decode(errors="replace")


def ping(libpq: CDLL, params: Mapping[str, str]) -> int:
    """The PGPing result for a server that rejects connections with *params*."""
    return int(libpq.PQpingParams(_array(params.keys()), _array(params.values()), 1))


def _array(texts: Collection[str]) -> Any:
    return (c_char_p * (len(texts) + 1))(*(text.encode(errors=RAW) for text in texts))


def find_libpq() -> CDLL | None:
    """Load the library of psycopg's binary package; None if psycopg was installed without it."""
    for folder in (os.path.join(each, "psycopg_binary.libs") for each in sys.path):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith("libpq-"):
                return _declared(CDLL(os.path.join(folder, name)))
    return None


def _declared(libpq: CDLL) -> CDLL:
    for name in ("PQconnectStartParams", "PQcancelCreate", "PQgetResult", "PQnotifies"):
        getattr(libpq, name).restype = c_void_p
    for name in ("PQerrorMessage", "PQgetvalue", "PQparameterStatus", "PQcmdStatus"):
        getattr(libpq, name).restype = c_char_p
    for name in ("PQresultErrorField", "PQresultErrorMessage", "PQfname"):
        getattr(libpq, name).restype = c_char_p
    for name in ("PQhost", "PQhostaddr", "PQport"):
        getattr(libpq, name).restype = c_char_p
    libpq.PQconninfo.restype = POINTER(_Option)
    for name in _NEVER_NULL:
        getattr(libpq, name).errcheck = _checked(libpq, name, bool)
    for name, lowest in _LOWEST_GOOD.items():
        getattr(libpq, name).errcheck = _checked(libpq, name, lowest.__le__)
    return libpq


def _checked(libpq: CDLL, name: str, is_good: Callable[[Any], bool]) -> Callable[..., Any]:
    """The ctypes errcheck for the function *name*.

    It ignores failures on a lost connection, because the next results give the server's reason.
    """

    def check(result: Any, _: Any, arguments: Sequence[Any]) -> Any:
        if is_good(result):
            return result
        if name in _NEVER_NULL or name.startswith("PQcancel"):
            raise client_failed(name, "out of memory")
        connection = arguments[0]
        if libpq.PQstatus(connection) == _BAD:
            return result
        raise client_failed(name, one_line(_text(libpq.PQerrorMessage(connection))))

    return check
