"""What can go wrong: facts with their values, the place, the next step, and the exit code."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Sequence


class Place(Record):
    """A position in a migration file; *line* and *column* are 1-based, 0 where unknown."""

    path: str
    line: int = 0
    column: int = 0
    source: str = ""
    """The text of that line, shown above the caret; of a very long one what is near."""
    before: int = 0
    """How many characters of the line stand before *source*."""

    def __str__(self) -> str:
        numbers = [str(n) for n in (self.line, self.column) if n]
        return ":".join([self.path, *numbers])


class ServerMessage(Record):
    """What PostgreSQL said beside its message; empty strings where it said nothing."""

    sqlstate: str = ""
    """https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    detail: str = ""
    hint: str = ""
    context: str = ""
    schema: str = ""
    """Of the table that a constraint is on."""
    table: str = ""
    constraint: str = ""

    @property
    def lacks_privilege(self) -> bool:
        """Whether the role was refused for want of a right (insufficient_privilege)."""
        return self.sqlstate == "42501"


class Problem(Record):
    """One fact that stops the work, and what to do about it."""

    id: str
    """Kebab case; docs/reference/errors.md lists them all. Stable even if the words change."""
    message: str
    hint: str = ""
    place: Place | None = None
    server: ServerMessage = ServerMessage()


class InitmigError(Exception):
    """The base of everything that initmig raises on purpose."""

    exit_code: int
    problems: tuple[Problem, ...]

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
    def of(cls, problems: tuple[Problem, ...]) -> InitmigError:
        """One error that reports all *problems* together; there is at least one."""
        error = cls(problems[0].id, "; ".join(problem.message for problem in problems))
        error.problems = problems
        return error

    @property
    def id(self) -> str:
        """What went wrong, in one word for programs; of several problems, the first one's."""
        return self.problems[0].id


class MigrationFailed(InitmigError):
    """A migration raised an error; nothing of it was kept unless the message says so.

    To `verify`, also one whose rollback does not restore what it found.
    """

    exit_code = 1


class Bug(InitmigError):
    """Something that initmig did not expect; what was not committed was rolled back."""

    exit_code = 1

    @classmethod
    def from_exception(cls, error: Exception) -> Bug:
        """The bug that raised *error*, with all that helps to find it."""
        from traceback import format_exception

        return cls(
            "internal-error",
            f"internal error: {''.join(format_exception(error)).rstrip()}",
            hint="report this as a bug, with all of these lines",
        )


class ConfigError(InitmigError):
    """Usage, a setting or a migration file is wrong; nothing was tried."""

    exit_code = 2


class EmptySecret(ConfigError):
    """The file of a secret is empty; somebody may be about to fill it."""


class DatabaseUnavailable(InitmigError):
    """The database did not answer in time, or went away."""

    exit_code = 3


class DatabaseRefused(InitmigError):
    """The database answered and refused: login, database, TLS, rights."""

    exit_code = 4


class QueueTimeout(InitmigError):
    """Another migrator was still at it when the queue timeout was over."""

    exit_code = 5


class PlanError(InitmigError):
    """Refused to start: changed, out of order, irreversible, unknown id, or image too old."""

    exit_code = 6


class TargetsFailed(InitmigError):
    """Some of many targets were not migrated; each has told why. Its exit code is theirs."""

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
    """Migrations are pending, and the caller asked only whether that is so."""

    exit_code = 7
