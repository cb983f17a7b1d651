"""Connections as initmig makes them, of either kind, and as libpq makes them by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

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
    """Of the error; empty where there is a connection."""
    exit_code: int
    said: str
    hint: str
    warnings: tuple[str, ...]
    """The parameters that were ignored."""
    is_final: bool
    """Whether it is not tried again."""


def attempt(conninfo: str, *, python: bool, limit: float = 10, password: str = "") -> Attempt:
    """What initmig makes of *conninfo*."""
    ignored: list[ParameterIgnored] = []
    settings = Settings(conninfo, password)
    try:
        connection = open_connection(settings, limit, python=python, warn=ignored.append)
    except InitmigError as error:
        is_final = error.exit_code != 3 and not isinstance(error, LoginRefused)
        said = (error.id, error.exit_code, str(error), error.problems[0].hint)
    else:
        connection.close()
        is_final, said = True, ("", 0, "", "")
    return Attempt(*said, tuple(each.parameter for each in ignored), is_final)


def libpqs_refusal(conninfo: str) -> str:
    """What libpq itself says against *conninfo*, as PQconnectdb does; empty if it connects."""
    pgconn = pq.PGconn.connect(conninfo.encode())
    said = "" if pgconn.status == pq.ConnStatus.OK else pgconn.get_error_message()
    pgconn.finish()
    return said


def as_pairs(url: str, **parameters: str) -> str:
    """*url* as libpq's pairs, with these *parameters* on top."""
    merged = {**conninfo_to_dict(url), **parameters}
    escaped = {
        name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in merged.items()
    }
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())
