"""How each function of libpq fails, as its manual says, and which call must fail."""

from __future__ import annotations

from typing import Literal, NamedTuple

Owner = Literal["libpq", "psycopg", "step"]
"""The caller of libpq: initmig on its own connection or on psycopg's, or psycopg in a function."""

FAIL = "FAILING_LIBPQ"
"""The variable with the `Fault`, as JSON; without it nothing fails."""
REPORT = "FAILING_LIBPQ_REPORT"
"""The variable with the path of the `Report`, written when the process ends."""

FAILURES: dict[str, tuple[int | None, ...]] = {
    "PQconnectStartParams": (None,),
    "PQconninfo": (None,),
    "PQsetnonblocking": (-1,),
    "PQsocket": (-1,),
    "PQsendQuery": (0,),
    "PQsetChunkedRowsMode": (0,),
    "PQflush": (-1,),
    "PQputCopyData": (-1, 0),
    "PQputCopyEnd": (-1, 0),
    "PQgetCopyData": (-2,),
    "PQconsumeInput": (0,),
    "PQgetResult": (None, 7),
    "PQcancelCreate": (None,),
    "PQcancelStart": (0,),
    "PQcancelPoll": (0,),
    "PQcancelSocket": (-1,),
}
"""The results of each function when it fails; None is NULL, 7 a result of PGRES_FATAL_ERROR."""


class Fault(NamedTuple):
    """The call *number*, from 1, of *function* by *owner* returns *failure*."""

    owner: Owner
    function: str
    failure: int | None
    number: int


class Report(NamedTuple):
    """The calls of a run."""

    calls: dict[str, int]
    """How many times each function was called, by `owner function`."""
    happened: bool
    """Whether the failing call was made."""
    circular: list[str]
    """The ids of the errors that are their own cause."""
