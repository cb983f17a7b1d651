"""One line of `doctor`, and what the lines of all kinds share."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

from initmig.config.dsn import mask_secrets
from initmig.core.causes import cause_of, is_cancellation, is_contention
from initmig.core.durations import counted
from initmig.core.errors import DatabaseRefused
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.core.errors import Problem

Level = Literal["ok", "warning", "failure"]

SUPERUSER = "a superuser"
_DAY = 86400.0
_SOON_SECONDS = 14 * _DAY


class Check(Record):
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
    if is_contention(sqlstate) or is_cancellation(sqlstate):  # it tells nothing of rights
        return Check(
            subject,
            "warning",
            f"not checked because of a {cause_of(sqlstate).name}: {mask_secrets(problem.message)}",
            hint="run doctor again when the database is less busy",
        )
    message = mask_secrets(problem.message)
    found = f"{message} ({sqlstate})" if sqlstate else message
    return Check(subject, "failure", found, hint=problem.hint or problem.server.hint)


def of_expiry(subject: str, role: str, seconds: float) -> Iterator[Check]:
    """Whether the password of *role* expires so soon that somebody has to act: in *seconds*."""
    if 0 < seconds < _SOON_SECONDS:
        days = counted(ceil(seconds / _DAY), "day")
        found = f"the password of {role} expires within {days} (VALID UNTIL)"
        statement = f"ALTER ROLE {role} VALID UNTIL 'infinity';"
        yield Check(subject, "warning", found, statement, or_alterer(role))


def or_superuser(role: str) -> str:
    """Who may do what *role* may."""
    return f"{role}, or {SUPERUSER}"


def or_admin(role: str) -> str:
    """Who may grant *role*."""
    return f"{SUPERUSER}, or a role with the ADMIN OPTION on {role}"


def or_alterer(role: str) -> str:
    """Who may alter *role*: since PostgreSQL 16, CREATEROLE alone is not enough."""
    return f"{SUPERUSER}, or a role with CREATEROLE that can alter {role}"
