"""Connect to the first address that answers, without psycopg if possible."""

from __future__ import annotations

from time import monotonic

from initmig.core.records import TYPE_CHECKING
from initmig.postgres.connection import LibpqConnection
from initmig.postgres.libpq import ConnectFailed, ConnectTimedOut, find_libpq
from initmig.postgres.parameters import FORCED_PARAMETERS
from initmig.postgres.resolve import ports_of, resolve_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from initmig.core.events import ParameterIgnored
    from initmig.postgres.connection import Connection
    from initmig.postgres.parameters import ResolvedSettings, Settings

    _Start = Callable[[str, Mapping[str, str]], Connection]

_SHORTEST_SECONDS = 1.0
"""Minimum for one address when the time for all is nearly over."""


def open_connection(
    settings: Settings,
    limit: float,
    *,
    python: bool = False,
    warn: Callable[[ParameterIgnored], None] = lambda _: None,
) -> Connection:
    """Connect, through psycopg if *python* is true.

    *warn* is called for each parameter that cannot be used and is not required. *limit* and the
    errors are those of `session.connect`.
    """
    deadline = monotonic() + limit
    resolved = resolve_settings(settings, limit)
    for each in resolved.ignored:
        warn(each)
    try:
        return _open(resolved, _start(python=python), deadline)
    except ConnectFailed as failed:
        from initmig.postgres.connect_errors import connect_error

        params = {"dbname": resolved.conninfo, **resolved.params, **FORCED_PARAMETERS}
        raise connect_error(str(failed), failed.sqlstates, params, resolved.given) from failed


def _start(*, python: bool) -> _Start:
    if python:
        from initmig.postgres.dbapi import start_by_psycopg

        return start_by_psycopg
    return _start_by_libpq


def _start_by_libpq(conninfo: str, params: Mapping[str, str]) -> Connection:
    return LibpqConnection(find_libpq(), {"dbname": conninfo, **params})


def _open(resolved: ResolvedSettings, start: _Start, deadline: float) -> Connection:
    """Connect before *deadline*."""
    if resolved.has_several_hosts:
        return _open_one(resolved, start, deadline, ())
    try:
        # the other half is for further addresses of the host
        return _open_at(resolved, start, {}, _share(resolved, deadline, 2))
    except ConnectTimedOut as failed:
        return _open_one(resolved, start, deadline, (failed,))


def _open_one(
    resolved: ResolvedSettings, start: _Start, deadline: float, silent: Sequence[ConnectTimedOut]
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
            return _open_at(resolved, start, left[0], _share(resolved, deadline, len(left)))
        except ConnectFailed as failed:
            failures.append(failed)
            del left[0]
    raise ConnectFailed.of(failures)


def _share(resolved: ResolvedSettings, deadline: float, attempts: int) -> float:
    """Seconds for the next of *attempts* attempts."""
    left = (deadline - monotonic()) / attempts
    return min(resolved.timeout, max(left, _SHORTEST_SECONDS))


def _open_at(
    resolved: ResolvedSettings, start: _Start, address: Mapping[str, str], seconds: float
) -> Connection:
    """Connect at *address* within *seconds*.

    :raises ConnectFailed: no connection was made
    """
    connection = start(resolved.conninfo, {**resolved.params, **FORCED_PARAMETERS, **address})
    try:
        connection.finish_connecting(seconds)
    except BaseException:
        connection.close()
        raise
    return connection
