"""Send one message over a handle of libpq, and receive the answer."""

from __future__ import annotations

from select import POLLIN, POLLOUT
from time import monotonic

from initmig.core.errors import ServerMessage
from initmig.core.records import TYPE_CHECKING
from initmig.postgres.errors import (
    NO_COPY_DATA,
    ROWS_AT_A_TIME,
    ClientFailed,
    StatementFailed,
    as_number,
    client_failed,
    one_line,
    shortened,
    unexpected_answer,
)
from initmig.postgres.libpq import as_text, wait
from initmig.postgres.memory_limit import MemoryLimit
from initmig.postgres.native import byref, c_void_p
from initmig.postgres.parameters import COMMIT_MARK, RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from initmig.postgres.libpq import Handle, Library

_COMPLETE, _COPY_OUT, _COPY_IN, _COPY_BOTH = (0, 1, 2), 3, 4, 8  # ExecStatusType
_ROWS = (9, 12)  # PGRES_SINGLE_TUPLE and PGRES_TUPLES_CHUNK, partial results

_MARK = COMMIT_MARK.encode()
_CANCEL_SECONDS = 5.0
_SQLSTATE_LENGTH = 5


def _decoded(value: bytes) -> str:
    """Decode *value* as UTF-8; a database without an encoding (SQL_ASCII) may have other bytes."""
    return value.decode(errors=RAW)


_PARSERS: Mapping[int, Callable[[bytes], Any]] = {
    16: b"t".__eq__,
    20: int,
    23: int,
    26: int,
    701: float,
    1007: lambda text: [int(each) for each in text.strip(b"{}").split(b",") if each],
}
"""Parsers for boolean, bigint, integer, oid, double precision and integer[]. Others stay text."""


class Exchange:
    """One message to the server, and its answer."""

    def __init__(self, handle: Handle, timeout: float) -> None:
        """The answer must be complete within *timeout* seconds."""
        self._handle = handle
        self._libpq = handle.libpq
        self._deadline = monotonic() + timeout
        self._memory_limit = MemoryLimit(timeout)
        self.sent = False
        """Whether the server may have received a part of the message."""

    def send(self, message: bytes, *, in_pieces: bool) -> None:
        """Send *message*. With *in_pieces*, libpq holds only a few rows of the answer at a time.

        :raises ClientFailed: libpq failed
        :raises TimeoutError: the server did not take the message in time
        """
        pointer = self._handle.pointer
        self._libpq.PQsendQuery(pointer, message)
        self.sent = True
        if in_pieces:
            self._libpq.receive_in_pieces(pointer, ROWS_AT_A_TIME)
        self._flush()

    def receive(
        self,
        copies: Iterator[Iterable[bytes]],
        on_result: Callable[[c_void_p], object] = lambda _: None,
    ) -> Answer:
        """Receive the complete answer.

        *on_result* is called with each result that is not the start of a COPY. It must not keep it.

        :raises ClientFailed: libpq failed, or has no result although one is required
        :raises UnexpectedAnswer: the answer is too large
        :raises TimeoutError: the answer is not complete in time
        """
        answer = Answer(self._handle)
        while result := self._next_result():
            status = answer.add(result)
            if status == _COPY_IN:
                self._copy(next(copies, None))
            elif status == _COPY_OUT:
                self._discard()
            elif status == _COPY_BOTH:  # libpq would return it forever
                raise client_failed("PQgetResult", "the server started a replication")
            else:
                on_result(result)
        if self._handle.notices:
            self._handle.notices.finish()
        self._check_complete(answer)
        return answer

    def cancel(self) -> None:
        """Cancel the statement, and receive the rest of the answer.

        :raises ClientFailed: as `receive`
        :raises UnexpectedAnswer: as `receive`
        :raises TimeoutError: the statement has not ended in time
        """
        if self._handle.is_answering:
            self._libpq.cancel(self._handle.pointer, _CANCEL_SECONDS)
            self._deadline = monotonic() + _CANCEL_SECONDS
            self.receive(iter(())).clear()

    def _check_complete(self, answer: Answer) -> None:
        handle = self._handle
        if not handle.closed and (not answer.last or handle.is_answering):
            raise client_failed("PQgetResult", handle.error_message)

    def _flush(self) -> None:
        """Send the queued data. Also read, because the server may wait for that."""
        while self._libpq.PQflush(self._handle.pointer) == 1:
            if self._wait(POLLIN | POLLOUT, self._deadline) & POLLIN:
                self._consume()

    def _copy(self, pieces: Iterable[bytes] | None) -> None:
        """Send the data for a COPY FROM STDIN, or an error message without *pieces*."""
        pointer = self._handle.pointer
        for piece in pieces or ():
            self._libpq.PQputCopyData(pointer, piece, len(piece))
            self._flush()
        self._libpq.PQputCopyEnd(pointer, NO_COPY_DATA if pieces is None else None)
        self._flush()

    def _discard(self) -> None:
        """Read and discard the data of a COPY TO STDOUT."""
        pointer, row = self._handle.pointer, c_void_p()
        while (length := self._libpq.PQgetCopyData(pointer, byref(row), 1)) >= 0:
            if length:
                self._libpq.PQfreemem(row)
                continue
            self._wait(POLLIN, self._deadline)
            if not self._consume():
                break

    def _next_result(self) -> c_void_p:
        """The next result; a NULL pointer at the end."""
        pointer = self._handle.pointer
        while self._libpq.PQisBusy(pointer):
            self._wait_for_answer()
            if not self._consume():
                break
        return c_void_p(self._libpq.PQgetResult(pointer))

    def _consume(self) -> bool:
        """Read the available data, and return whether the connection still works.

        :raises UnexpectedAnswer: the answer is too large
        """
        self._memory_limit.check()
        works = bool(self._libpq.PQconsumeInput(self._handle.pointer))
        self._handle.take_notifications()
        return works

    def _wait_for_answer(self) -> None:
        while True:
            silent_until = min(self._deadline, monotonic() + self._handle.silence_seconds)
            try:
                self._wait(POLLIN, silent_until)
            except TimeoutError:
                if silent_until == self._deadline:
                    raise
                self._handle.on_silence()
            else:
                return

    def _wait(self, events: int, deadline: float) -> int:
        if self._handle.notices:
            self._handle.notices.deliver()
        return wait(self._handle.fileno(), events, deadline)


class Answer:
    """The results of one message. The last one is kept until `clear`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._libpq = handle.libpq
        self.last = c_void_p()
        self.failed: StatementFailed | ClientFailed | None = None
        """The first failure."""
        self.completed = 0
        """Number of statements completed before the failure, without those after a COMMIT."""
        self.ended = ""
        """The command tag after the `COMMIT_MARK`; empty without a mark."""
        self._is_marked = False

    def add(self, result: c_void_p) -> int:
        """Add the next *result*, and return its status."""
        self.clear()
        self.last = result
        status = int(self._libpq.PQresultStatus(result))
        if status in _COMPLETE:
            self.completed += not self.ended
            self.ended = self.ended or (self.tag if self._is_marked else "")
            self._is_marked = self._has_mark(result)
        elif status not in (_COPY_IN, _COPY_OUT, _COPY_BOTH, *_ROWS):
            self.failed = self.failed or self._failure(result)
        return status

    def clear(self) -> None:
        """Free the last result."""
        last, self.last = self.last, c_void_p()
        self._libpq.PQclear(last)

    @property
    def tag(self) -> str:
        """The command tag of the last result."""
        return as_text(self._libpq.PQcmdStatus(self.last))

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows of the last result.

        :raises UnexpectedAnswer: a value does not match its type
        """
        try:
            return read_rows(self._libpq, self.last, lambda oid: _PARSERS.get(oid, _decoded))
        except ValueError as error:
            raise unexpected_answer(error) from error

    def _has_mark(self, result: c_void_p) -> bool:
        # for a missing column, libpq would print a notice
        has_one = self._libpq.PQnfields(result) == 1
        return bool(has_one and self._libpq.PQfname(result, 0) == _MARK)

    def _failure(self, result: c_void_p) -> StatementFailed | ClientFailed:
        values = (self._libpq.PQresultErrorField(result, ord(field)) for field in "MPRCDHWstn")
        message, position, routine, *fields = (shortened(as_text(each)) for each in values)
        server = ServerMessage(fields[0][:_SQLSTATE_LENGTH], *fields[1:])
        words = message or one_line(as_text(self._libpq.PQresultErrorMessage(result)))
        # the server always sends one, so this is libpq's error
        if not (server.sqlstate or self._handle.closed):
            return client_failed("PQgetResult", words)
        failed = StatementFailed("migration-failed", words, server=server)
        failed.position = as_number(position)
        failed.routine = routine
        failed.completed = self.completed
        return failed


def read_rows(
    libpq: Library, result: c_void_p, parser_of: Callable[[int], Callable[[bytes], Any]]
) -> list[tuple[Any, ...]]:
    """The rows of *result*.

    *parser_of* returns the function that reads the values of a type. NULL is read as None.
    """

    def column(number: int) -> list[Any]:
        parse = parser_of(libpq.PQftype(result, number))
        texts = [libpq.PQgetvalue(result, row, number) for row in rows]
        return [
            parse(text) if text or not libpq.PQgetisnull(result, row, number) else None
            for row, text in enumerate(texts)
        ]

    rows = range(libpq.PQntuples(result))
    return list(zip(*map(column, range(libpq.PQnfields(result))), strict=True))
