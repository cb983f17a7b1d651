"""One line of `doctor`, and what the lines of all kinds share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from initmig.dsn import mask_secrets
from initmig.errors import DatabaseRefused

if TYPE_CHECKING:
    from initmig.errors import Problem

Level = Literal["ok", "warning", "failure"]

SUPERUSER = "a superuser"
_NOT_TRIED = {"55P03": "lock timeout", "57014": "statement timeout"}
"""SQLSTATEs of a trial that others stood in the way of: it tells nothing of rights."""


class Check(NamedTuple):
    """One line of `doctor`: what was looked at, and what was *found*."""

    subject: str
    level: Level
    found: str
    statement: str = ""
    """SQL that mends it; empty where none does."""
    by: str = ""
    """Who has to run *statement*."""
    hint: str = ""
    exit_code: int = DatabaseRefused.exit_code
    """Of a failure."""


def of_refusal(subject: str, problem: Problem) -> Check:
    """What the server, or the pooler before it, refused."""
    sqlstate = problem.server.sqlstate
    if reason := _NOT_TRIED.get(sqlstate):
        return Check(
            subject,
            "warning",
            f"not known, after a {reason}: {mask_secrets(problem.message)}",
            hint="run again when less is going on",
        )
    message = mask_secrets(problem.message)
    found = f"{message} ({sqlstate})" if sqlstate else message
    return Check(subject, "failure", found, hint=problem.hint or problem.server.hint)


def or_superuser(role: str) -> str:
    """Who may do what *role* may."""
    return f"{role}, or {SUPERUSER}"
