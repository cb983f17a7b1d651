"""The result of one check of `doctor`, and helpers that several kinds of checks use."""

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
    """One line of `doctor`: its *subject*, and the fact that it *found*."""

    subject: str
    level: Level
    found: str
    statement: str = ""
    """SQL that fixes it; empty if no statement does."""
    by: str = ""
    """The role that has to run *statement*."""
    hint: str = ""
    exit_code: int = DatabaseRefused.exit_code
    """The exit code of `doctor`, if only this check fails."""


def refused_check(subject: str, problem: Problem) -> Check:
    """The check for something that the server, or a pooler, refused."""
    sqlstate = problem.server.sqlstate
    if is_contention(sqlstate) or is_cancellation(sqlstate):  # privileges are still unknown
        return Check(
            subject,
            "warning",
            f"not checked because of a {cause_of(sqlstate).name}: {mask_secrets(problem.message)}",
            hint="run doctor again when the database is less busy",
        )
    message = mask_secrets(problem.message)
    found = f"{message} ({sqlstate})" if sqlstate else message
    return Check(subject, "failure", found, hint=problem.hint or problem.server.hint)


def check_password_expiry(subject: str, role: str, seconds: float) -> Iterator[Check]:
    """Warn if the password of *role* expires in less than 14 days; *seconds* are left."""
    if 0 < seconds < _SOON_SECONDS:
        days = counted(ceil(seconds / _DAY), "day")
        found = f"the password of {role} expires within {days} (VALID UNTIL)"
        statement = f"ALTER ROLE {role} VALID UNTIL 'infinity';"
        yield Check(subject, "warning", found, statement, superuser_or_alterer(role))


def or_superuser(role: str) -> str:
    """The roles that can do what *role* can."""
    return f"{role}, or {SUPERUSER}"


def superuser_or_admin(role: str) -> str:
    """The roles that can grant *role*."""
    return f"{SUPERUSER}, or a role with the ADMIN OPTION on {role}"


def superuser_or_alterer(role: str) -> str:
    """The roles that can alter *role*: since PostgreSQL 16, CREATEROLE alone is not enough."""
    return f"{SUPERUSER}, or a role with CREATEROLE that can alter {role}"
