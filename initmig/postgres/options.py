"""What a connection string comes to, with libpq's service file, variables and defaults.

Only libpq knows how these go together, and it puts them together only to connect. So it is asked to
connect with a parameter that it refuses before it does anything with the others.
"""

from __future__ import annotations

from initmig.dsn import parse_dsn
from initmig.errors import ConfigError
from initmig.postgres.libpq import ConnectFailed, LibpqConnection, find_libpq
from initmig.postgres.parameters import CONNECT_TIMEOUT_SECONDS, RAW, Target, defaults
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initmig.events import ParameterIgnored
    from initmig.postgres.parameters import Settings

_REFUSED_FIRST = {"port": "," * 999}
"""There are not so many hosts."""

_REFUSED_WITH_PORTS = {"channel_binding": "?", "password": "?"}
"""Later; but with a password, libpq does not look for its file of passwords."""

_FILES = frozenset(
    ("sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile", "sslpassword")
)


def ports_of(target: Target) -> str:
    """One for all hosts, or one for each, separated by commas."""
    asked = {**target.params, "dbname": target.conninfo, **_REFUSED_WITH_PORTS}
    return _look_up(asked).get("port", "")


def find_target(settings: Settings) -> Target:
    """What *settings* come to, for now: they may name files.

    :raises ConfigError: they are malformed, or name files that cannot be used
    """
    try:
        conninfo = parse_dsn(settings.conninfo).conninfo
    except ValueError as error:
        raise ConfigError("malformed-url", f"the database URL is malformed: {error}") from None
    try:
        given = _look_up({"dbname": conninfo, **_REFUSED_FIRST})
    except ConnectFailed as failed:
        from initmig.postgres.refusals import malformed

        raise malformed(str(failed), conninfo) from None
    del given["port"]
    params = defaults(settings, given)
    ignored: tuple[ParameterIgnored, ...] = ()
    has_password = "password" in given or "password" in params
    if _FILES & given.keys() or not has_password:
        from initmig.postgres import client_files

        client_files.refuse_unusable(given)
        instead, ignored = client_files.ignored(given, has_password=has_password)
        params |= instead
    return Target(conninfo, given, params, _timeout(given), ignored)


def _look_up(params: Mapping[str, str]) -> dict[str, str]:
    """:raises ConnectFailed: libpq cannot read *params*, or what they name"""
    libpq = find_libpq()
    if libpq is None:
        from initmig.postgres.dbapi import look_up

        return look_up(params)
    connection = LibpqConnection(libpq, params)
    try:
        options = connection.options()
        if options[b"user"] is None:
            connection.finish_connecting(0)
    finally:
        connection.close()
    return {name.decode(): value.decode(errors=RAW) for name, value in options.items() if value}


def _timeout(given: Mapping[str, str]) -> float:
    """Seconds; as for libpq, which reads it like C's strtol, 0 and less is no limit."""
    text = given.get("connect_timeout")
    if text is None:
        return CONNECT_TIMEOUT_SECONDS
    number = text.strip(" \t\n\v\f\r")
    digits = number[1:] if number[:1] in ("+", "-") else number
    # the shortest text that is out of range has 10 digits, but for leading zeros
    significant = digits.lstrip("0")
    if not (digits.isascii() and digits.isdigit()) or int(significant[:11] or 0) >= 2**31:
        raise ConfigError(
            "malformed-url",
            f"connect_timeout is {text!r}, which libpq does not take for a whole number of seconds",
            hint="write connect_timeout=5, in the connection string or in PGCONNECT_TIMEOUT",
        )
    return float(number) if float(number) > 0 else float("inf")
