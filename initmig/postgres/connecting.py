"""Connect to the first address that answers, through libpq if possible."""

from __future__ import annotations

from time import monotonic

from initmig.core.records import TYPE_CHECKING
from initmig.postgres.libpq import ConnectFailed, ConnectTimedOut, LibpqConnection, find_libpq
from initmig.postgres.parameters import FORCED_PARAMETERS
from initmig.postgres.resolve import ports_of, resolve_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from initmig.core.events import ParameterIgnored
    from initmig.postgres.connection import Connection
    from initmig.postgres.parameters import ResolvedSettings, Settings

    _Open = Callable[[ResolvedSettings, dict[str, str], float], Connection]

_SHORTEST_SECONDS = 1.0
"""Minimum for one address when the time for all is nearly over."""


def open_connection(
    settings: Settings,
    limit: float,
    *,
    python: bool = False,
    warn: Callable[[ParameterIgnored], None] = lambda _: None,
) -> Connection:
    """Connect through libpq, or through psycopg for *python* or if libpq is not found.

    *warn* is called for each parameter that cannot be used and is not required. *limit* and the
    errors are those of `session.connect`.
    """
    resolved = resolve_settings(settings)
    for each in resolved.ignored:
        warn(each)
    try:
        return _open(resolved, monotonic() + limit, alone=not python and find_libpq() is not None)
    except ConnectFailed as failed:
        from initmig.postgres.connect_errors import connect_error

        params = {"dbname": resolved.conninfo, **resolved.params, **FORCED_PARAMETERS}
        raise connect_error(str(failed), failed.sqlstates, params, resolved.given) from failed


def _open(resolved: ResolvedSettings, deadline: float, *, alone: bool) -> Connection:
    """Connect before *deadline*, through libpq if *alone*, otherwise through psycopg."""
    if not alone:
        from initmig.postgres.dbapi import open_by_psycopg

        return _open_one(resolved, open_by_psycopg, deadline, ())
    if resolved.has_several_hosts:
        return _open_one(resolved, _by_libpq, deadline, ())
    try:
        # the other half is for further addresses of the host
        return _by_libpq(resolved, {}, _share(resolved, deadline, 2))
    except ConnectTimedOut as failed:
        return _open_one(resolved, _by_libpq, deadline, (failed,))


def _open_one(
    resolved: ResolvedSettings, open_at: _Open, deadline: float, silent: Sequence[ConnectTimedOut]
) -> Connection:
    """Connect to the first address that answers, without those in *silent*.

    Each address gets its share of the time. libpq itself has no timeout for each address when it
    does not block.
    """
    from initmig.postgres.addresses import attempts

    failures: list[ConnectFailed] = [*silent]
    left = attempts(resolved.given, ports_of(resolved), {each.address for each in silent})
    while left:
        try:
            return open_at(resolved, left[0], _share(resolved, deadline, len(left)))
        except ConnectFailed as failed:
            failures.append(failed)
            del left[0]
    raise ConnectFailed.of(failures)


def _share(resolved: ResolvedSettings, deadline: float, attempts: int) -> float:
    """Seconds for the next of *attempts* attempts."""
    left = (deadline - monotonic()) / attempts
    return min(resolved.timeout, max(left, _SHORTEST_SECONDS))


def _by_libpq(resolved: ResolvedSettings, address: dict[str, str], seconds: float) -> Connection:
    libpq = find_libpq()
    assert libpq  # noqa: S101 - it was there a moment ago
    params = {"dbname": resolved.conninfo, **resolved.params, **FORCED_PARAMETERS, **address}
    connection = LibpqConnection(libpq, params)
    try:
        connection.finish_connecting(seconds)
    except ConnectFailed:
        connection.close()
        raise
    return connection
