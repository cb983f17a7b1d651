"""The cheapest connection that can do what it is wanted for, at the first address that answers."""

from __future__ import annotations

from time import monotonic

from initmig.core.records import TYPE_CHECKING
from initmig.postgres.libpq import ConnectFailed, ConnectTimedOut, LibpqConnection, find_libpq
from initmig.postgres.options import find_target, ports_of
from initmig.postgres.parameters import IMPOSED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from initmig.core.events import ParameterIgnored
    from initmig.postgres.connection import Connection
    from initmig.postgres.parameters import Settings, Target

    _Open = Callable[[Target, dict[str, str], float], Connection]

_SHORTEST_SECONDS = 1.0
"""For one address, when the time for all is nearly over."""


def open_connection(
    settings: Settings,
    limit: float,
    *,
    python: bool = False,
    warn: Callable[[ParameterIgnored], None] = lambda _: None,
) -> Connection:
    """A connection by libpq alone; by psycopg for *python*, or where there is no libpq alone.

    *warn* is called for each parameter that cannot be used, and need not. *limit* and what is
    raised are those of `session.connect`.
    """
    target = find_target(settings)
    for each in target.ignored:
        warn(each)
    try:
        return _open(target, monotonic() + limit, alone=not python and find_libpq() is not None)
    except ConnectFailed as failed:
        from initmig.postgres.refusals import connect_error

        params = {"dbname": target.conninfo, **target.params, **IMPOSED}
        raise connect_error(str(failed), failed.sqlstates, params, target.given) from failed


def _open(target: Target, deadline: float, *, alone: bool) -> Connection:
    """By libpq *alone*, or by psycopg, before the *deadline*."""
    if not alone:
        from initmig.postgres.dbapi import open_by_psycopg

        return _open_one(target, open_by_psycopg, deadline, ())
    if target.has_several_hosts:
        return _open_one(target, _by_libpq, deadline, ())
    try:
        # half of the time is for the other addresses of the host, if there are any
        return _by_libpq(target, {}, _share(target, deadline, 2))
    except ConnectTimedOut as failed:
        return _open_one(target, _by_libpq, deadline, (failed,))


def _open_one(
    target: Target, open_at: _Open, deadline: float, silent: Sequence[ConnectTimedOut]
) -> Connection:
    """A connection to the first address that gives one, except for those that were *silent*.

    One after the other, each with its time: libpq, when it is not to block, has none for each.
    """
    from initmig.postgres.addresses import attempts

    failures: list[ConnectFailed] = [*silent]
    left = attempts(target.given, ports_of(target), {each.address for each in silent})
    while left:
        try:
            return open_at(target, left[0], _share(target, deadline, len(left)))
        except ConnectFailed as failed:
            failures.append(failed)
            del left[0]
    raise ConnectFailed.of(failures)


def _share(target: Target, deadline: float, attempts: int) -> float:
    """Seconds for the next of so many *attempts*."""
    left = (deadline - monotonic()) / attempts
    return min(target.timeout, max(left, _SHORTEST_SECONDS))


def _by_libpq(target: Target, address: dict[str, str], seconds: float) -> Connection:
    libpq = find_libpq()
    assert libpq  # noqa: S101 - it was there a moment ago
    params = {"dbname": target.conninfo, **target.params, **IMPOSED, **address}
    connection = LibpqConnection(libpq, params)
    try:
        connection.finish_connecting(seconds)
    except ConnectFailed:
        connection.close()
        raise
    return connection
