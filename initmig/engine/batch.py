"""What is on its way to the server: SQL that waits until something needs an answer."""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from initmig.core.errors import Place
from initmig.core.records import Record
from initmig.postgres import ClientFailed, StatementFailed
from initmig.sql.lines import Lines, characters, offset_of
from initmig.sql.scanner import copy_data, octets, spans, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.core.errors import Problem
    from initmig.postgres import Session
    from initmig.sql.scanner import CopyData

# To the server a comment, unless the file before it has left a quote open: that ends here, and
# then comes a character which is in no SQL, so that nothing of the message is run.
_TERMINATOR = "\n--'\\\"\\\n"


_CHUNK_BYTES = 1 << 16
"""So many bytes of data go to the server at a time."""

# `COPY users, line 3, column id: "x"`, in the server's language.
_COPY_CONTEXT = r"(?m)^COPY .*?, [^\d\n,:]*(\d+)"


_TOO_LARGE_TO_REREAD = 1 << 23
"""So many bytes of a file are not read once more for an error."""


_TOO_LARGE_TO_SCAN = 1 << 20
"""So many bytes are not read only to say where the first statement is."""


class Script(Record):
    """SQL in a file, from the byte *start* to *end*."""

    lines: Lines
    """Of the file; all that is in it has the same."""
    start: int
    end: int
    data: Sequence[CopyData]
    """What of the SQL the server gets only when it asks for it; offsets in the file."""

    @classmethod
    def of(cls, path: str, file: bytes) -> Script:
        """All of a *file*."""
        return cls(Lines(path, file), 0, len(file), copy_data(octets(file)))

    @property
    def sql(self) -> bytes:
        """All of it; no copy, if it is the whole file or a large statement."""
        return self.lines.data[self.start : self.end]

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self._place(self.start)

    def _place(self, offset: int) -> Place:
        is_known = self.size < len(self.lines.data) and len(self.lines.data) > _TOO_LARGE_TO_REREAD
        return self.lines.place(offset, (self.start, self.end) if is_known else None)

    def statement_place(self) -> Place:
        """Where its statement begins; without a line if it has several. Good for any thread."""
        lines, start = Lines(self.lines.path, self.lines.data), self.start
        if self.size == len(lines.data):
            found = [*islice(spans(octets(self.sql)), 2)] if self.size <= _TOO_LARGE_TO_SCAN else []
            if len(found) != 1:
                return Place(lines.path)
            start = found[0][0]
        return lines.numbers(start)

    def masked(self, problem: Problem) -> Problem:
        """*problem*, which the server has with this SQL, without the secrets that it repeats."""
        return self.lines.masked(problem, self.start, self.end)

    @property
    def message(self) -> bytes:
        """The SQL without the data."""
        return b"".join([self.lines.data[start:end] for start, end in self._message_spans()])

    def _message_spans(self) -> Iterator[tuple[int, int]]:
        """Start and end of each piece of the message, in the file."""
        start = self.start
        for each in self.data:
            yield start, each.start
            start = each.after
        yield start, self.end

    def copy_chunks(self) -> Iterator[Iterator[bytes]]:
        """The data of each COPY, in pieces."""
        for each in self.data:
            yield (
                self.lines.data[at : min(at + _CHUNK_BYTES, each.end)]
                for at in range(each.start, each.end, _CHUNK_BYTES)
            )

    def place_of(self, offset: int) -> Place:
        """The place of the character at *offset* of the message."""
        for start, end in self._message_spans():
            sent = self.lines.data[start:end]
            size = characters(sent, 0, len(sent))
            if offset < size:
                return self._place(start + offset_of(sent, 0, offset))
            offset -= size
        return self._place(self.end)

    def place_of_statement(self, number: int, *, line: int = 0) -> Place:
        """The place of the statement *number*, from 0, or of the last one.

        Where it is a COPY, and *line* is given, that of the line of its data, from 1.
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
    """Keeps SQL, in order, until `send`: then all of it goes as one message."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[str | Script] = []

    def add(self, sql: str | Script) -> None:
        """Let *sql* go with the next message."""
        # what could end a dollar quote or a comment that a file has left open does not go with it
        if isinstance(sql, Script) or "$" in sql or "*/" in sql:
            self._flush_file()
        self._waiting.append(sql)

    def _flush_file(self) -> None:
        if any(isinstance(each, Script) for each in self._waiting):
            self.send()

    def discard(self) -> None:
        """Forget what waits."""
        self._waiting = []

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of *sql*, behind all that waits.

        :raises StatementFailed: as `send`
        """
        self._flush_file()  # whose rows would be kept with those of *sql*
        self.add(sql)
        return self._flush(discards=False)

    def send(self, *, commits: bool = False) -> None:
        """Send what waits, if anything does; a COMMIT that *commits* the server must confirm.

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
            if error.completed or self._session.in_transaction or len(message) == 1:
                raise
            # Not even its BEGIN was run: of what the server cannot read it says more, when it
            # gets the file by itself.
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
            rows = self._session.run(
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
                error.at(place)
            for part in message:
                if isinstance(part, Script):
                    error.masked_by(part.masked)
            raise
        if self._session.connection.encoding != "UTF8":  # in which the rest is to be sent
            with suppress(ClientFailed):  # what is sent next fails with it, and *message* did not
                self._session.run_own("SET client_encoding = 'UTF8'")
        return rows


def _bytes_of(part: str | Script) -> bytes:
    return part.encode() if isinstance(part, str) else part.message


def _joined(message: Sequence[str | Script]) -> list[bytes]:
    """The parts of *message*, all but the last with what keeps it apart from the next."""
    *before, last = message
    return [*map(_terminated, before), _bytes_of(last)]


def _terminated(part: str | Script) -> bytes:
    return _bytes_of(part) + (b";" if isinstance(part, str) else f"{_TERMINATOR};".encode())


def _place(message: Sequence[str | Script], error: StatementFailed) -> Place | None:
    """Where in a file the *error* is: at the server's position, else at the statement begun."""
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
    """How many statements *part* has."""
    return len(split(part if isinstance(part, str) else octets(part.sql)))


def _copy_line(context: str) -> int:
    """The 1-based line of COPY data at which the server failed; 0 if it failed elsewhere."""
    found = re.search(_COPY_CONTEXT, context)
    return int(found[1]) if found else 0
