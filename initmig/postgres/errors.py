"""What a server refused, as initmig's own errors, and the SQLSTATEs that somebody acts on."""

from __future__ import annotations

import os

from initmig.config.dsn import mask_secrets
from initmig.core.errors import Bug, DatabaseRefused, DatabaseUnavailable, InitmigError
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from initmig.core.errors import Place, Problem, ServerMessage

UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
UNDEFINED_OBJECT = "42704"
READ_ONLY = "25006"

NAME_PRIMARY = (
    "connect to the primary: use its host, or list all hosts and set"
    " target_session_attrs=primary or read-write"
)
"""What to do where a standby answers."""

TAKES_WRITES = (
    "turn default_transaction_read_only off, or connect to a server that accepts writes: list all"
    " hosts and set target_session_attrs=read-write"
)
"""What to do where a server answers that takes no writes."""

NO_COPY_DATA = b"no data was provided"
"""What a COPY FROM STDIN is told to fail with that nobody has data for."""


ROWS_AT_A_TIME = 32
"""So many rows of a result that nobody wants are in memory together."""

TIMEOUT_ID = "ended-by-timeout"
"""The id of an error that a setting of the server, the role or the session made."""


class LoginRefused(DatabaseRefused):
    """The server answered the attempt to connect, and said no."""


class StatementFailed(InitmigError):
    """The server, or the driver, refused a statement."""

    exit_code = 1
    position = 0
    """1-based, in characters from the start of the message sent; 0 where the server named none."""

    routine = ""
    """The function of the server's source that raised it, whatever its language; or empty."""

    completed = 0
    """How many statements of the message had been completed before."""

    def at(self, place: Place) -> StatementFailed:
        """This error, now with its *place* in a file."""
        self.problems = (self.problems[0]._replace(place=place),)
        return self

    def masked_by(self, mask: Callable[[Problem], Problem]) -> None:
        """Let it say what *mask* leaves of it: the server repeats what it was sent."""
        self.problems = (mask(self.problems[0]),)
        self.args = (self.problems[0].message,)

    @property
    def server(self) -> ServerMessage:
        """What the server said beside its message."""
        return self.problems[0].server


class ClientFailed(InitmigError):
    """libpq or Python failed on the client's side; the server rolls back what was open.

    The connection is closed, so that the server never gets the rest of the message.
    """

    exit_code = 1


class NoAnswer(DatabaseUnavailable):
    """One of initmig's own statements was held up until the wait timeout was over; final."""


class UnexpectedAnswer(DatabaseRefused):
    """The answer to one of initmig's own statements is not one that PostgreSQL gives."""


class OutcomeUnknown(DatabaseUnavailable):
    """The client failed after it had sent a COMMIT: only the history shows what happened."""


class AfterCommit(InitmigError):
    """What was sent behind a COMMIT failed; the COMMIT itself is confirmed."""

    exit_code = 1


def client_failed(call: str, words: str) -> ClientFailed:
    """The failure of *call*, a function of libpq or what it is for, in libpq's *words*."""
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
    """The failure of this process to get memory, in the words of what it was *doing*."""
    return ClientFailed(
        "out-of-memory",
        f"out of memory: {doing}",
        hint="raise the memory limit, or split the file into several, then run again",
    )


_LONGEST_TEXT = 64 << 10
"""Characters of one thing that the server says with an error."""


def unexpected_answer(error: Exception) -> UnexpectedAnswer:
    """The server's answer to one of initmig's own statements led to *error*."""
    return UnexpectedAnswer(
        "unexpected-answer",
        "the server gave an unexpected answer to one of initmig's own statements:"
        f" {type(error).__name__}: {shortened(str(error), 200)}{_where(error.__traceback__)}",
        hint="check that the URL leads to PostgreSQL, and check any pooler or proxy in between;"
        " if it is PostgreSQL, report this line",
    )


def _where(trace: TracebackType | None) -> str:
    """The place in initmig's code at which *trace* ends."""
    place = ""
    while trace:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith("initmig."):
            place = f" ({module}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


class checking_answers:  # noqa: N801 - a context manager
    """Inside, what fails at values that PostgreSQL never gives raises UnexpectedAnswer."""

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
"""Where nothing else is looked at than what the server answered."""


def _caused_by_answer(trace: TracebackType | None) -> bool:
    """Whether a function raised it that asks the server, or one that it calls itself."""
    functions = []
    while trace:
        code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__", "")
        # a comprehension, a lambda or a record's constructor does its caller's work
        if module.startswith("initmig.") and not code.co_name.startswith(("<", "__")):
            functions.append((module, code))
        trace = trace.tb_next
    return any(
        module.startswith(_ANSWER_MODULES) or not _QUERY_FUNCTIONS.isdisjoint(code.co_names)
        for module, code in functions[-2:]
    )


def shortened(text: str, longest: int = _LONGEST_TEXT) -> str:
    """*text*, at most *longest* characters of it."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}... ({more} more characters)"


def as_number(text: str) -> int:
    """A number that the server says in words; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER else 0


_LONGEST_NUMBER = 19


def internal_error(error: Exception) -> InitmigError:
    """What to report of an *error* that nobody foresaw."""
    if isinstance(error, MemoryError) or says_out_of_memory(str(error)):
        words = str(error) or "Python could not allocate more"
        return out_of_memory(f"{words}; uncommitted work was rolled back")
    return Bug.from_exception(error)


def outcome_unknown(failed: ClientFailed) -> OutcomeUnknown:
    """*failed*, where a COMMIT was on its way."""
    return OutcomeUnknown(
        "outcome-unknown",
        f"the server's answer to COMMIT was lost: {failed}",
        hint=f"{failed.problems[0].hint}; the next run finds out whether the migration was applied",
    )


_NO_MEMORY = ("out of memory", "cannot allocate memory", "failed to map segment")
"""The last one is the dynamic linker's."""


def says_out_of_memory(words: str) -> bool:
    """Whether *words*, of libpq or the C library, say that the client has no memory left."""
    return any(each in words.lower() for each in _NO_MEMORY)


def not_committed(tag: str, *, completed: int) -> StatementFailed:
    """The server answered a COMMIT with the command tag *tag*: the transaction had failed.

    *completed* is how many statements of the message it had completed before.
    """
    failed = StatementFailed(
        "commit-not-confirmed",
        f"the server answered COMMIT with {tag or 'nothing'}: the transaction had already failed",
    )
    failed.completed = completed
    return failed


def discard_unsent(socket: int) -> None:
    """Let nothing more reach the server: closing a connection sends what libpq has queued."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, socket)
    os.close(null)


def disconnect_error(
    failed: StatementFailed | None, words: str, *, closed: bool
) -> InitmigError | None:
    """What ended the connection that *failed*, or that says *words*; None if it can still be used.

    If a setting ended it, that is *failed* itself: on a new connection it would happen again.
    """
    if not (failed or closed):
        return None
    from initmig.core.causes import cause_of

    cause = cause_of(failed.server.sqlstate if failed else "", closed=closed)
    if failed and cause.kind == "setting":
        failed.problems = (failed.problems[0]._replace(id=TIMEOUT_ID),)
        return failed
    return connection_lost(words) if cause.kind in ("outage", "lock lost") else None


def connection_lost(words: str) -> DatabaseUnavailable:
    """What *words* say about the end of a connection that was there."""
    return DatabaseUnavailable("connection-lost", f"the connection was lost: {words}")


def one_line(words: str) -> str:
    """libpq's *words* on one line, each attempt's failure once."""
    import re

    # psycopg lists the attempts where there were several, and names the host of each
    frame = (
        r"Multiple connection.*|(- host: .*?, hostaddr: .*?: )?"
        r"(connection failed: )?(connection is bad: )?"
    )
    lines = (re.sub(f"^({frame})", "", line.strip()) for line in words.splitlines())
    return mask_secrets("; ".join(dict.fromkeys(filter(None, lines))))


def as_refusal(error: StatementFailed) -> InitmigError:
    """*error* of one of initmig's own statements, as the refusal that it is."""
    problem = error.problems[0]
    if problem.id == TIMEOUT_ID:
        return DatabaseRefused.of(error.problems)
    if problem.server.sqlstate == READ_ONLY:  # it was not when the statement was decided on
        message = f"the server is read-only: {problem.message}"
        return DatabaseUnavailable("read-only", message, hint=TAKES_WRITES)
    id, hint = "statement-refused", ""
    if problem.server.lacks_privilege:
        id = "missing-privilege"
        hint = "grant the privilege to the role that initmig uses, or set another role with --role"
    return DatabaseRefused(id, problem.message, hint=hint, server=problem.server)
