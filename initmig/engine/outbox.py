"""What is on its way to the server: SQL that waits until something needs an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from initmig.postgres import StatementFailed
from initmig.source import place_at
from initmig.sql import split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.errors import Place
    from initmig.postgres import Session

# To the server a comment, unless the file before it has left a quote open: that ends here, and
# then comes a character which is in no SQL, so that nothing of the message is run.
_SEAL = "\n--'\\\"\\\n"


class Script(NamedTuple):
    """SQL as it stands in the file *path* of this *text*, *start* characters from its beginning."""

    path: str
    text: str
    sql: str
    start: int = 0

    def place_of(self, offset: int) -> Place:
        """The place of the character at *offset* of the SQL."""
        return place_at(self.path, self.text, self.start + offset)

    def place_of_statement(self, number: int) -> Place:
        """The place of the statement *number*, from 0, or of the last one."""
        statements = split(self.sql)
        at = min(number, len(statements) - 1)
        return self.place_of(statements[at].start if statements else 0)


class Outbox:
    """Keeps SQL, in order, until `send`: then all of it goes as one message."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[str | Script] = []

    def put(self, sql: str | Script) -> None:
        """Let *sql* go with the next message."""
        # what could end a dollar quote or a comment that a file has left open does not go with it
        if isinstance(sql, Script) or "$" in sql or "*/" in sql:
            self._send_file()
        self._waiting.append(sql)

    def _send_file(self) -> None:
        if any(isinstance(each, Script) for each in self._waiting):
            self.send()

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting = []

    def send(self) -> list[tuple[Any, ...]]:
        """Send what waits, if anything does; the rows of its last statement.

        :raises StatementFailed: with its place where that is in a file
        """
        message, self._waiting = self._waiting, []
        if not message:
            return []
        try:
            return self._send(message)
        except StatementFailed as error:
            if error.completed or self._session.in_transaction or len(message) == 1:
                raise
            # Not even its BEGIN was run: of what the server cannot read it says more, when it
            # gets the file by itself.
            return [self._send([each]) for each in message][-1]

    def _send(self, message: Sequence[str | Script]) -> list[tuple[Any, ...]]:
        try:
            rows = self._session.run("".join(_joined(message)))
        except StatementFailed as error:
            if place := _place(message, error):
                error.at(place)
            raise
        if self._session.connection.encoding != "UTF8":  # in which the rest is to be sent
            self._session.run("SET client_encoding = 'UTF8'")
        return rows


def _sql(part: str | Script) -> str:
    return part if isinstance(part, str) else part.sql


def _joined(message: Sequence[str | Script]) -> list[str]:
    """The parts of *message*, all but the last with what keeps it apart from the next."""
    *before, last = message
    return [*map(_kept_apart, before), _sql(last)]


def _kept_apart(part: str | Script) -> str:
    return f"{part};" if isinstance(part, str) else f"{part.sql}{_SEAL};"


def _place(message: Sequence[str | Script], error: StatementFailed) -> Place | None:
    """Where in a file the *error* is: at the server's position, else at the statement begun."""
    left = error.position - 1 if error.position else error.completed
    *before, part = message
    for each in before:
        size = len(_kept_apart(each)) if error.position else len(split(_sql(each)))
        if left < size:
            part = each
            break
        left -= size
    if isinstance(part, str):
        return None
    return part.place_of(left) if error.position else part.place_of_statement(left)
