"""The cheapest connection that can do what it is wanted for."""

from __future__ import annotations

from initmig.dsn import parse_dsn
from initmig.errors import ConfigError
from initmig.postgres.libpq import ConnectFailed, LibpqConnection, find_libpq
from initmig.postgres.parameters import IMPOSED, defaults
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from initmig.postgres.connection import Connection
    from initmig.postgres.parameters import Settings


def open_connection(settings: Settings, timeout: float, *, python: bool = False) -> Connection:
    """A connection by libpq alone; by psycopg for *python*, or where that is not enough.

    *timeout* and what is raised are those of `session.connect`.
    """
    connection = None if python else _by_libpq(settings, timeout)
    if connection is None:
        from initmig.postgres.dbapi import open_by_psycopg

        return open_by_psycopg(settings, timeout)
    return connection


def _by_libpq(settings: Settings, timeout: float) -> LibpqConnection | None:
    """None where psycopg does more: a limit of time for each of several hosts, a better error."""
    libpq = find_libpq()
    if libpq is None:
        return None
    try:
        conninfo = parse_dsn(settings.conninfo).conninfo
    except ValueError:
        return None
    params = {**defaults(settings, timeout), "dbname": conninfo, **IMPOSED}
    connection = LibpqConnection(libpq, params)
    options = connection.options()
    if any(b"," in (options[name] or b"") for name in (b"host", b"hostaddr")):
        connection.close()
        return None
    try:
        connection.finish_connecting()
    except ConnectFailed as failed:
        from initmig.postgres.refusals import connect_error

        connection.close()
        error = connect_error(str(failed), failed.sqlstates, params)
        if isinstance(error, ConfigError):
            return None
        raise error from failed
    return connection
