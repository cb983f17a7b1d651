"""Collects SQL and sends it to the server as one message, once an answer is needed."""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from initmig.core.errors import Place
from initmig.core.records import Record
from initmig.postgres import ClientFailed, StatementFailed, search_path
from initmig.sql.lines import Lines, characters, offset_of
from initmig.sql.scanner import octets, spans, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.core.errors import Problem
    from initmig.postgres import Session
    from initmig.sql.scanner import CopyData

# The server reads this as a comment, unless the file before it has an unclosed quote. Then it
# closes the quote, and the backslash that follows is a syntax error, so the server runs nothing of
# the message.
_TERMINATOR = "\n--'\\\"\\\n"


_CHUNK_BYTES = 1 << 16
"""The size of a chunk of COPY data."""

# The server's language may differ: `COPY users, line 3, column id: "x"`.
_COPY_CONTEXT = r"(?m)^COPY .*?, [^\d\n,:]*(\d+)"


_TOO_LARGE_TO_REREAD = 1 << 23
"""A file with more bytes is not read again to find the place of an error."""


_TOO_LARGE_TO_SCAN = 1 << 20
"""A file with more bytes is not scanned only to find its first statement."""


_SENT_ALONE_BYTES = 1 << 20
"""From this size on, copying a script into a larger message costs more than a separate message."""


class Script(Record):
    """The SQL in a file from the byte *start* to *end*."""

    lines: Lines
    """The lines of the file. All scripts of a file share them."""
    start: int
    end: int
    data: Sequence[CopyData]
    """The COPY data, which is sent when the server asks for it; with offsets in the file."""

    @classmethod
    def of(cls, path: str, file: bytes, data: Sequence[CopyData]) -> Script:
        """The script of a whole *file*, with the COPY *data* in it."""
        return cls(Lines(path, file), 0, len(file), data)

    @property
    def sql(self) -> bytes:
        """The bytes of the script; not copied if it is the whole file or a large statement."""
        return self.lines.data[self.start : self.end]

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.end - self.start

    @property
    def place(self) -> Place:
        """The place where it begins."""
        return self._place(self.start)

    def _place(self, offset: int) -> Place:
        is_known = self.size < len(self.lines.data) and len(self.lines.data) > _TOO_LARGE_TO_REREAD
        return self.lines.place(offset, (self.start, self.end) if is_known else None)

    def statement_place(self) -> Place:
        """The place of its statement; without a line if it has several statements.

        Any thread can call this.
        """
        lines, start = Lines(self.lines.path, self.lines.data), self.start
        if self.size == len(lines.data):
            found = [*islice(spans(octets(self.sql)), 2)] if self.size <= _TOO_LARGE_TO_SCAN else []
            if len(found) != 1:
                return Place(lines.path)
            start = found[0][0]
        return lines.numbers(start)

    def masked(self, problem: Problem) -> Problem:
        """The server's *problem* with this SQL, with its secrets masked."""
        return self.lines.masked(problem, self.start, self.end)

    @property
    def message(self) -> bytes:
        """The SQL without the COPY data."""
        return b"".join([self.lines.data[start:end] for start, end in self._message_spans()])

    def _message_spans(self) -> Iterator[tuple[int, int]]:
        """The start and end, in the file, of each section of the message."""
        start = self.start
        for each in self.data:
            yield start, each.start
            start = each.after
        yield start, self.end

    def copy_chunks(self) -> Iterator[Iterator[bytes]]:
        """The data of each COPY, in chunks."""
        for each in self.data:
            yield (
                self.lines.data[at : min(at + _CHUNK_BYTES, each.end)]
                for at in range(each.start, each.end, _CHUNK_BYTES)
            )

    def place_of(self, offset: int) -> Place:
        """The place of the character at *offset* in the message."""
        for start, end in self._message_spans():
            sent = self.lines.data[start:end]
            size = characters(sent, 0, len(sent))
            if offset < size:
                return self._place(start + offset_of(sent, 0, offset))
            offset -= size
        return self._place(self.end)

    def place_of_statement(self, number: int, *, line: int = 0) -> Place:
        """The place of the statement with the 0-based *number*, or of the last statement.

        For a COPY with a 1-based *line*, the place of this line of its data.
        """
        found = deque(islice(spans(octets(self.sql)), number + 1), maxlen=1)
        start = self.start + found[0][0] if found else self.start
        for each in self.data:
            if line and each.statement == start:
                start = self._line_of(each, line)
        return self._place(start)

    def _line_of(self, data: CopyData, line: int) -> int:
        copied = self.lines.data[data.start : data.end]
        offset = 0
        for _ in range(line - 1):
            offset = copied.find(b"\n", offset) + 1 or len(copied)
        return data.start + offset


class Batch:
    """Collects SQL, in order, and sends all of it as one message."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._waiting: list[str | Script] = []

    def add(self, sql: str | Script) -> None:
        """Add *sql* to the next message."""
        # this SQL could close a dollar quote or a comment that the file before it left open
        if isinstance(sql, Script) or "$" in sql or "*/" in sql:
            self._flush_file()
        self._waiting.append(sql)

    def _flush_file(self) -> None:
        if any(isinstance(each, Script) for each in self._waiting):
            self.send()

    def discard(self) -> None:
        """Remove all SQL without sending it."""
        self._waiting = []

    def run(self, script: Script) -> None:
        """Send all SQL and *script*, or only add *script* if the message begins a transaction.

        :raises StatementFailed: as `send`
        """
        if self._can_wait(script):
            self.add(script)
            return
        self.send()
        self.add(script)
        self.send()

    def _can_wait(self, script: Script) -> bool:
        # a syntax error in a later message would end a transaction that is already open
        begins = self._waiting and not self.session.in_transaction
        # COMMIT must follow COPY data in another message, once the server has accepted all of it
        return bool(begins) and not script.data and script.size < _SENT_ALONE_BYTES

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Like `query_by_path`, in a transaction, but names are looked up only in pg_catalog."""
        rows = self.query_by_path(f"{search_path.PIN_PATH}{sql}")
        self.add(search_path.RESTORE_PATH)
        return rows

    def query_by_path(self, sql: str) -> list[tuple[Any, ...]]:
        """Send all SQL, then *sql*, and return the rows of *sql*; by the user's search path.

        :raises StatementFailed: as `send`
        """
        self._flush_file()  # otherwise its rows would be returned with those of *sql*
        self.add(sql)
        return self._flush(discards=False)

    def send(self, *, commits: bool = False) -> None:
        """Send all SQL. If it *commits*, the server must confirm the COMMIT.

        :raises StatementFailed: with its place if it is in a file
        """
        self._flush(commits=commits)

    def _flush(self, *, commits: bool = False, discards: bool = True) -> list[tuple[Any, ...]]:
        message, self._waiting = self._waiting, []
        if not message:
            return []
        try:
            return self._send(message, commits=commits, discards=discards)
        except StatementFailed as error:
            if error.completed or self.session.in_transaction or len(message) == 1:
                raise
            # The server could not parse the message, so it did not even run BEGIN. The error is
            # more precise if the file is sent separately.
            *before, last = message
            for each in before:
                self._send([each])
            return self._send([last], commits=commits, discards=discards)

    def _send(
        self, message: Sequence[str | Script], *, commits: bool = False, discards: bool = True
    ) -> list[tuple[Any, ...]]:
        copy_chunks = (
            each for part in message if isinstance(part, Script) for each in part.copy_chunks()
        )
        try:
            rows = self.session.run(
                b"".join(_joined(message)), copy_chunks, commits=commits, discards=discards
            )
            if next(copy_chunks, None):
                raise StatementFailed(
                    "copy-data-not-requested",
                    "the server did not ask for the data of each COPY ... FROM STDIN",
                    hint="do not turn standard_conforming_strings off in the file",
                )
        except StatementFailed as error:
            if place := _place(message, error):
                error.set_place(place)
            for part in message:
                if isinstance(part, Script):
                    error.masked_by(part.masked)
            raise
        if self.session.connection.encoding != "UTF8":  # initmig sends only UTF-8
            with suppress(ClientFailed):  # *message* succeeded, and the next one fails instead
                self.session.run_own("SET client_encoding = 'UTF8'")
        return rows


def _bytes_of(part: str | Script) -> bytes:
    return part.encode() if isinstance(part, str) else part.message


def _joined(message: Sequence[str | Script]) -> list[bytes]:
    """The parts of *message*, each terminated except the last."""
    *before, last = message
    return [*map(_terminated, before), _bytes_of(last)]


def _terminated(part: str | Script) -> bytes:
    return _bytes_of(part) + (b";" if isinstance(part, str) else f"{_TERMINATOR};".encode())


def _place(message: Sequence[str | Script], error: StatementFailed) -> Place | None:
    """The place of *error* in a file: the server's position, or the statement that failed."""
    left = error.position - 1 if error.position else error.completed
    *before, part = message
    for each in before:
        size = len(_terminated(each).decode()) if error.position else _statement_count(each)
        if left < size:
            part = each
            break
        left -= size
    if isinstance(part, str):
        return None
    if error.position:
        return part.place_of(left)
    return part.place_of_statement(left, line=_copy_line(error.server.context))


def _statement_count(part: str | Script) -> int:
    """The number of statements in *part*."""
    return len(split(part if isinstance(part, str) else octets(part.sql)))


def _copy_line(context: str) -> int:
    """The 1-based line of COPY data at which the server failed; 0 if it failed elsewhere."""
    found = re.search(_COPY_CONTEXT, context)
    return int(found[1]) if found else 0
