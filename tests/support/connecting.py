"""Connections of initmig, of both kinds, and connections of libpq alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from initmig.config.options import Secret
from initmig.core.errors import InitmigError
from initmig.postgres import LoginRefused, Settings
from initmig.postgres.connecting import open_connection

if TYPE_CHECKING:
    from initmig.core.events import ParameterIgnored

KINDS = pytest.mark.parametrize("python", [False, True], ids=["libpq", "psycopg"])
"""For a test that takes *python*: a connection by libpq alone, and one by psycopg."""


class Attempt(NamedTuple):
    """How an attempt to connect ended."""

    id: str
    """The error's id; empty if the connection was made."""
    exit_code: int
    message: str
    hint: str
    warnings: tuple[str, ...]
    """The parameters that were ignored."""
    is_final: bool
    """Whether initmig would not try again."""


def attempt(conninfo: str, *, python: bool, limit: float = 10, password: str = "") -> Attempt:
    """The outcome of initmig's attempt to connect with *conninfo*."""
    ignored: list[ParameterIgnored] = []
    settings = Settings(Secret(conninfo), Secret(password))
    try:
        connection = open_connection(settings, limit, python=python, warn=ignored.append)
    except InitmigError as error:
        is_final = error.exit_code != 3 and not isinstance(error, LoginRefused)
        message = (error.id, error.exit_code, str(error), error.problems[0].hint)
    else:
        connection.close()
        is_final, message = True, ("", 0, "", "")
    return Attempt(*message, tuple(each.parameter for each in ignored), is_final)


def refusal_by_libpq(conninfo: str) -> str:
    """The error message of PQconnectdb for *conninfo*; empty if it connects."""
    pgconn = pq.PGconn.connect(conninfo.encode())
    message = "" if pgconn.status == pq.ConnStatus.OK else pgconn.get_error_message()
    pgconn.finish()
    return message


def as_pairs(url: str, **parameters: str) -> str:
    """*url* as libpq's `key=value` pairs, with *parameters* added or replaced."""
    merged = {**conninfo_to_dict(url), **parameters}
    escaped = {
        name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in merged.items()
    }
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())
