"""What psycopg raises, as initmig's own errors, and the SQLSTATEs that somebody acts on."""

import re

import psycopg

from initmig.dsn import mask_secrets
from initmig.errors import DatabaseRefused, InitmigError, Place, ServerMessage

UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
QUERY_CANCELED = "57014"
"""By somebody who may, or by the statement timeout."""
RETRYABLE = {"55P03": "lock timeout", "40P01": "deadlock", "40001": "serialization failure"}
"""SQLSTATEs of a transaction that failed because of others, and succeeds when tried again."""

_INSUFFICIENT_PRIVILEGE = "42501"
_CONNECTION_LOST = ("08", "57P01", "57P02", "57P03")
"""Connection exceptions, and a server that shuts down, crashed, or cannot be connected to now."""


class LoginRefused(DatabaseRefused):
    """The server answered the attempt to connect, and said no."""


class StatementFailed(InitmigError):
    """The server, or the driver, refused a statement."""

    exit_code = 1
    position: int
    """1-based, in characters from the start of the message sent; 0 where the server named none."""

    completed: int
    """How many statements of the message had been completed before."""

    def at(self, place: Place) -> "StatementFailed":
        """This error, now with its *place* in a file."""
        self.problems = (self.problems[0]._replace(place=place),)
        return self

    @property
    def server(self) -> ServerMessage:
        """What the server said beside its message."""
        return self.problems[0].server


def is_lost(error: psycopg.Error) -> bool:
    """Whether *error* says that the connection cannot be used any more."""
    return (error.sqlstate or "").startswith(_CONNECTION_LOST)


def one_line(error: psycopg.Error) -> str:
    """libpq's words on one line, each attempt's failure once."""
    # psycopg lists the attempts where there were several, and names the host of each
    frame = (
        r"Multiple connection.*|(- host: .*?, hostaddr: .*?: )?"
        r"(connection failed: )?(connection is bad: )?"
    )
    lines = (re.sub(f"^({frame})", "", line.strip()) for line in str(error).splitlines())
    return mask_secrets("; ".join(dict.fromkeys(filter(None, lines))))


def statement_failed(error: psycopg.Error, *, completed: int = 0) -> StatementFailed:
    """*error* of a statement, *completed* ones of the same message before it."""
    said = error.diag
    beside = (error.sqlstate, said.message_detail, said.message_hint, said.context)
    failed = StatementFailed(
        said.message_primary or str(error), server=ServerMessage(*(text or "" for text in beside))
    )
    failed.position = int(said.statement_position or 0)
    failed.completed = completed
    return failed


def refused(error: StatementFailed) -> DatabaseRefused:
    """*error* of a statement of initmig's own, as the refusal that it is."""
    problem = error.problems[0]
    hint = ""
    if problem.server.sqlstate == _INSUFFICIENT_PRIVILEGE:
        hint = "grant the right to the role that initmig uses, or name another one with --role"
    return DatabaseRefused(problem.message, hint=hint, server=problem.server)
