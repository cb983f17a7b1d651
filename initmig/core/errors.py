"""Errors: facts with their values, the place, the next step, and the exit code."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


class Place(Record):
    """A position in a migration file; *line* and *column* are 1-based, 0 if unknown."""

    path: str
    line: int = 0
    column: int = 0
    source: str = ""
    """The text of the line above the caret. A very long line is cut to the part near the column.
    """
    before: int = 0
    """The number of characters of the line before *source*."""

    def __str__(self) -> str:
        numbers = [str(n) for n in (self.line, self.column) if n]
        return ":".join([self.path, *numbers])


class ServerMessage(Record):
    """The fields of a PostgreSQL error other than its message; empty if the server sent none."""

    sqlstate: str = ""
    """https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    detail: str = ""
    hint: str = ""
    context: str = ""
    schema: str = ""
    """Schema of the table that has the constraint."""
    table: str = ""
    constraint: str = ""

    @property
    def lacks_privilege(self) -> bool:
        """Whether the role lacks a privilege (insufficient_privilege)."""
        return self.sqlstate == "42501"


class Problem(Record):
    """A fact that stops the work, and the next step."""

    id: str
    """Kebab case, and stable even if the message changes. docs/reference/errors.md lists all ids.
    """
    message: str
    hint: str = ""
    place: Place | None = None
    server: ServerMessage = ServerMessage()


class InitmigError(Exception):
    """Base class of all errors that initmig raises on purpose."""

    exit_code: int
    problems: tuple[Problem, ...]
    committed: tuple[str, ...] = ()
    """The ids that the run applied, rolled back or recorded before this error, in that order."""

    def __init__(
        self,
        id: str,
        message: str,
        *,
        hint: str = "",
        place: Place | None = None,
        server: ServerMessage | None = None,
    ) -> None:
        super().__init__(message)
        self.problems = (Problem(id, message, hint, place, server or ServerMessage()),)

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> Self:
        """Combine *problems*, at least one, into one error."""
        error = cls(problems[0].id, "; ".join(problem.message for problem in problems))
        error.problems = problems
        return error

    @property
    def id(self) -> str:
        """The id of the first problem, for programs."""
        return self.problems[0].id

    @property
    def place(self) -> Place | None:
        """The place of the first problem in a file; None if unknown."""
        return self.problems[0].place

    @property
    def server(self) -> ServerMessage:
        """The server's fields of the first problem."""
        return self.problems[0].server

    @property
    def sqlstate(self) -> str:
        """The server's SQLSTATE for the first problem; empty if the server sent none."""
        return self.server.sqlstate


def committed_before(error: BaseException) -> tuple[str, ...]:
    """The ids that a run had committed before it ended with *error*, in that order."""
    ids: tuple[str, ...] = getattr(error, "committed", ())
    return ids


class MigrationFailed(InitmigError):
    """A migration raised an error. It was rolled back unless the message says otherwise.

    `verify` also raises it if a rollback does not restore the schema.
    """

    exit_code = 1


class Bug(InitmigError):
    """An error that initmig did not expect. Uncommitted work was rolled back."""

    exit_code = 1

    @classmethod
    def from_exception(cls, error: Exception) -> Bug:
        """The internal error for *error*, with the traceback."""
        from traceback import format_exception

        return cls(
            "internal-error",
            f"internal error: {''.join(format_exception(error)).rstrip()}",
            hint="report this as a bug, with all of these lines",
        )


class ConfigError(InitmigError):
    """The command line, a setting or a migration file is wrong. Nothing was changed."""

    exit_code = 2


class EmptySecret(ConfigError):
    """The file of a secret is empty. Something may be about to fill it."""


class DatabaseUnavailable(InitmigError):
    """The database did not answer in time, or the connection was lost."""

    exit_code = 3


class DatabaseRefused(InitmigError):
    """The database refused: login, database, TLS, or privileges."""

    exit_code = 4


class QueueTimeout(InitmigError):
    """Another migrator held the lock until the queue timeout."""

    exit_code = 5


class PlanError(InitmigError):
    """Refused to start: changed, out of order, irreversible, unknown id, or image too old."""

    exit_code = 6


class TargetsFailed(InitmigError):
    """Some of many targets were not migrated. Each has reported its error.

    The exit code is that of the targets.
    """

    exit_code = 1

    def __init__(
        self, names: Sequence[str], *, of: int, not_begun: int = 0, exit_code: int
    ) -> None:
        others = " (the other targets are migrated)" if len(names) < of else ""
        if not_begun:
            others = f" (not started: {not_begun})"
        super().__init__(
            "targets-failed",
            f"{len(names)} of {of} targets failed: {', '.join(names)}",
            hint=f"fix the errors of these targets, then run again for all targets{others}",
        )
        self.exit_code = exit_code


class MigrationsPending(InitmigError):
    """Migrations are pending, and the caller only asked whether any are."""

    exit_code = 7
