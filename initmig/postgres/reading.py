"""The quickest connection that can be had for questions."""

from __future__ import annotations

from initmig.dsn import parse_dsn
from initmig.errors import ConfigError
from initmig.postgres.libpq import ConnectFailed, Reader, find_libpq
from initmig.postgres.parameters import IMPOSED, defaults, lasting, preamble
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from initmig.postgres.asking import Asking
    from initmig.postgres.parameters import Settings


def open_for_questions(
    settings: Settings, *, timeout: float, answer_timeout: float | None = None
) -> Asking:
    """A connection by libpq alone, or by psycopg where that is not enough.

    *timeout* and what is raised are those of `session.connect`.
    """
    reader = _by_libpq(settings, timeout)
    if reader is None:
        from initmig.postgres.session import connect

        return connect(settings, timeout=timeout, answer_timeout=answer_timeout)
    if answer_timeout is not None:
        reader.answer_timeout = answer_timeout
    return reader


def _by_libpq(settings: Settings, timeout: float) -> Reader | None:
    """None where psycopg does more: a limit of time for each of several hosts, a better error."""
    libpq = find_libpq()
    if libpq is None:
        return None
    try:
        conninfo = parse_dsn(settings.conninfo).conninfo
    except ValueError:
        return None
    params = {**defaults(settings, timeout), "dbname": conninfo, **IMPOSED}
    reader = Reader(libpq, params, preamble(settings), lasting(settings))
    options = reader.options()
    if any(b"," in (options[name] or b"") for name in (b"host", b"hostaddr")):
        reader.close()
        return None
    try:
        reader.finish_connecting()
    except ConnectFailed as failed:
        from initmig.postgres.refusals import connect_error

        reader.close()
        error = connect_error(str(failed), failed.sqlstates, params)
        if isinstance(error, ConfigError):
            return None
        raise error from failed
    return reader
