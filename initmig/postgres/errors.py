"""Translate the server's errors to initmig's, and name the SQLSTATEs that initmig handles."""

from __future__ import annotations

import os

from initmig.config.dsn import mask_secrets
from initmig.core.errors import Bug, DatabaseRefused, DatabaseUnavailable, InitmigError
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from initmig.core.errors import Place, Problem

UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
UNDEFINED_OBJECT = "42704"
READ_ONLY = "25006"

NAME_PRIMARY = (
    "connect to the primary: use its host, or list all hosts and set"
    " target_session_attrs=primary or read-write"
)
"""The next step if a standby answers."""

TAKES_WRITES = (
    "turn default_transaction_read_only off, or connect to a server that accepts writes: list all"
    " hosts and set target_session_attrs=read-write"
)
"""The next step if a server answers that accepts no writes."""

NO_COPY_DATA = b"no data was provided"
"""Error message for a COPY FROM STDIN without data."""


ROWS_AT_A_TIME = 32
"""Rows of a discarded result that are in memory together."""

TIMEOUT_ID = "ended-by-timeout"
"""The id of an error that was caused by a timeout setting."""


class LoginRefused(DatabaseRefused):
    """The server answered an attempt to connect, and refused."""


class StatementFailed(InitmigError):
    """The server or the driver rejected a statement."""

    exit_code = 1
    position = 0
    """1-based, in characters from the start of the message; 0 if the server reported none."""

    routine = ""
    """The function in the server's source that raised the error; empty if unknown."""

    completed = 0
    """Number of statements in the message that were completed before the failure."""

    def set_place(self, place: Place) -> None:
        """Set the place in a file."""
        self.problems = (self.problems[0]._replace(place=place),)

    def masked_by(self, mask: Callable[[Problem], Problem]) -> None:
        """Replace the text by the result of *mask*, because the server repeats what it received."""
        self.problems = (mask(self.problems[0]),)
        self.args = (self.problems[0].message,)


class ClientFailed(InitmigError):
    """libpq or Python failed in the client. The server rolls back the open transaction.

    The connection is closed, so the server never receives the rest of the message.
    """

    exit_code = 1


class NoAnswer(DatabaseUnavailable):
    """A statement that initmig sent for itself was blocked until the wait timeout. Not retried."""


class UnexpectedAnswer(DatabaseRefused):
    """The answer to initmig's statement is impossible for PostgreSQL."""


class OutcomeUnknown(DatabaseUnavailable):
    """The client failed after it had sent a COMMIT. Only the history shows the outcome."""


class AfterCommit(InitmigError):
    """A statement after a COMMIT failed. The COMMIT itself is confirmed."""

    exit_code = 1


def client_failed(call: str, words: str) -> ClientFailed:
    """The error for *call*, a libpq function or an operation, with libpq's message *words*."""
    sending = call.startswith(("PQsend", "PQput", "PQflush", "sending", "flushing"))
    doing = "send to the server" if sending else "receive from the server"
    if says_out_of_memory(words):
        return out_of_memory(f"could not {doing} ({call})")
    id = "send-failed" if sending else "receive-failed"
    return ClientFailed(
        id,
        f"could not {doing}: {words or 'libpq gave no reason'} ({call})",
        hint="run again; if it fails again, report it with this line",
    )


def out_of_memory(doing: str) -> ClientFailed:
    """The error for a process without enough memory while *doing*."""
    return ClientFailed(
        "out-of-memory",
        f"out of memory: {doing}",
        hint="raise the memory limit, or split the file into several, then run again",
    )


_LONGEST_TEXT = 64 << 10
"""In characters, for each field of a server error."""


def unexpected_answer(error: Exception) -> UnexpectedAnswer:
    """The error for an impossible answer that caused *error*."""
    return UnexpectedAnswer(
        "unexpected-answer",
        "the server gave an unexpected answer to one of initmig's own statements:"
        f" {type(error).__name__}: {shortened(str(error), 200)}{_where(error.__traceback__)}",
        hint="check that the URL leads to PostgreSQL, and check any pooler or proxy in between;"
        " if it is PostgreSQL, report this line",
    )


def _where(trace: TracebackType | None) -> str:
    """The last place in initmig's code in *trace*."""
    place = ""
    while trace:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith("initmig."):
            place = f" ({module}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


class checking_answers:  # noqa: N801 - a context manager
    """Raise UnexpectedAnswer for errors that only impossible values can cause."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, _ANSWER_ERRORS) and _caused_by_answer(trace):
            raise unexpected_answer(error) from error


_ANSWER_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
_QUERY_FUNCTIONS = {"open_transaction", "query", "query_by_path"}
_ANSWER_MODULES = ("initmig.commands.doctor.", "initmig.locking.blockers")
"""Modules that process only answers of the server."""


def _caused_by_answer(trace: TracebackType | None) -> bool:
    """Whether the error comes from a function that queries the server, or from its callee."""
    functions = []
    while trace:
        code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__", "")
        # a comprehension, a lambda or a record's constructor works for its caller
        if module.startswith("initmig.") and not code.co_name.startswith(("<", "__")):
            functions.append((module, code))
        trace = trace.tb_next
    return any(
        module.startswith(_ANSWER_MODULES) or not _QUERY_FUNCTIONS.isdisjoint(code.co_names)
        for module, code in functions[-2:]
    )


def shortened(text: str, longest: int = _LONGEST_TEXT) -> str:
    """At most *longest* characters of *text*."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}... ({more} more characters)"


def as_number(text: str) -> int:
    """A number in *text* from the server; 0 if it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER else 0


_LONGEST_NUMBER = 19


def internal_error(error: Exception) -> InitmigError:
    """The error to report for an unexpected *error*."""
    if isinstance(error, MemoryError) or says_out_of_memory(str(error)):
        words = str(error) or "Python could not allocate more"
        return out_of_memory(f"{words}; uncommitted work was rolled back")
    return Bug.from_exception(error)


def outcome_unknown(failed: ClientFailed) -> OutcomeUnknown:
    """The error for *failed* after a COMMIT was sent."""
    return OutcomeUnknown(
        "outcome-unknown",
        f"the server's answer to COMMIT was lost: {failed}",
        hint=f"{failed.problems[0].hint}; the next run finds out whether the migration was applied",
    )


_NO_MEMORY = ("out of memory", "cannot allocate memory", "failed to map segment")
"""The last one is the dynamic linker's."""


def says_out_of_memory(words: str) -> bool:
    """Whether *words*, from libpq or the C library, report that the client is out of memory."""
    return any(each in words.lower() for each in _NO_MEMORY)


def not_committed(tag: str, *, completed: int) -> StatementFailed:
    """The error for a COMMIT that the server answered with the command tag *tag*.

    The transaction had already failed. *completed* is the number of completed statements in the
    message.
    """
    failed = StatementFailed(
        "commit-not-confirmed",
        f"the server answered COMMIT with {tag or 'nothing'}: the transaction had already failed",
    )
    failed.completed = completed
    return failed


def discard_unsent(socket: int) -> None:
    """Discard unsent data, because closing a connection sends the data in libpq's queue."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, socket)
    os.close(null)


def disconnect_error(
    failed: StatementFailed | None, words: str, *, closed: bool
) -> InitmigError | None:
    """The error that closed the connection, from *failed* or *words*; None if it is still usable.

    If a setting closed it, the result is *failed* itself, because a retry would fail again.
    """
    if not (failed or closed):
        return None
    from initmig.core.causes import cause_of

    cause = cause_of(failed.sqlstate if failed else "", closed=closed)
    if failed and cause.kind == "setting":
        failed.problems = (failed.problems[0]._replace(id=TIMEOUT_ID),)
        return failed
    return connection_lost(words) if cause.kind in ("outage", "lock lost") else None


def connection_lost(words: str) -> DatabaseUnavailable:
    """The error for an existing connection that was lost, with the message *words*."""
    return DatabaseUnavailable("connection-lost", f"the connection was lost: {words}")


def one_line(words: str) -> str:
    """libpq's message on one line, without repeated failures."""
    lines = (line.strip() for line in words.splitlines())
    return mask_secrets("; ".join(dict.fromkeys(filter(None, lines))))


def as_refusal(error: StatementFailed) -> InitmigError:
    """The refusal for *error*, if a statement that initmig sends for itself raised it."""
    problem = error.problems[0]
    if problem.id == TIMEOUT_ID:
        return DatabaseRefused.of(error.problems)
    # the server was not read-only when the statement was planned
    if problem.server.sqlstate == READ_ONLY:
        message = f"the server is read-only: {problem.message}"
        return DatabaseUnavailable("read-only", message, hint=TAKES_WRITES)
    id, hint = "statement-refused", ""
    if problem.server.lacks_privilege:
        id = "missing-privilege"
        hint = "grant the privilege to the role that initmig uses, or set another role with --role"
    return DatabaseRefused(id, problem.message, hint=hint, server=problem.server)
