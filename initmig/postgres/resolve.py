"""Resolve a connection string with libpq's service file, variables and defaults.

Only libpq knows how they combine, and it combines them only when it connects. So these functions
start to connect with a parameter that libpq rejects before it uses the others.
"""

from __future__ import annotations

from initmig.config.dsn import mask_secrets, parse_dsn
from initmig.core.errors import ConfigError
from initmig.core.records import TYPE_CHECKING
from initmig.postgres.connection import LibpqConnection
from initmig.postgres.libpq import ConnectFailed, find_libpq
from initmig.postgres.parameters import CONNECT_TIMEOUT_SECONDS, RAW, ResolvedSettings, defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from initmig.core.events import ParameterIgnored
    from initmig.postgres.parameters import Settings

_REFUSED_FIRST = {"port": "," * 999}
"""Rejected first, because there are fewer hosts than ports."""

_REFUSED_WITH_PORTS = {"channel_binding": "?", "password": "?"}
"""Rejected later. With a password, libpq does not read the password file."""

_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
"""libpq parses these when it connects, and not all of them every time."""

_FILES = frozenset(
    ("sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile", "sslpassword")
)


def ports_of(resolved: ResolvedSettings) -> str:
    """One port for all hosts, or one for each, separated by commas."""
    asked = {"dbname": resolved.conninfo, **resolved.params, **_REFUSED_WITH_PORTS}
    return _look_up(asked).get("port", "")


def resolve_settings(settings: Settings, limit: float) -> ResolvedSettings:
    """Resolve *settings* for the next connection.

    They may name files, which are read, and a command, which has *limit* seconds at most.

    :raises ConfigError: the settings are malformed, or name something that is not usable
    :raises DatabaseUnavailable: the command failed
    """
    try:
        conninfo = parse_dsn(settings.conninfo.read()).conninfo
    except ValueError as error:
        raise ConfigError("malformed-url", f"the database URL is malformed: {error}") from None
    try:
        given = _look_up({"dbname": conninfo, **_REFUSED_FIRST})
        if "user" not in given:
            _look_up({"dbname": conninfo, **_REFUSED_WITH_PORTS}, needs_user=True)
    except ConnectFailed as failed:
        from initmig.postgres.connect_errors import malformed

        raise malformed(str(failed), conninfo) from None
    del given["port"]
    for name in _NUMBERS:
        if not _is_number(given.get(name, "0")):
            raise ConfigError(
                "malformed-url",
                # if a value is missing, the next pair is the value
                mask_secrets(f"{name} is {given[name]!r}, which is not a whole number"),
                hint="correct it in the connection string, the service file or the PG* variable",
            )
    if settings.password.command and given.get("password"):
        raise ConfigError(
            "secret-given-twice",
            "a password command is set, but the connection string, the service file or PGPASSWORD"
            " also has a password",
            hint="remove the password, or the command",
        )
    params = defaults(settings.password.read(limit), given)
    ignored: tuple[ParameterIgnored, ...] = ()
    has_password = bool(given.get("password") or params.get("password"))
    if _FILES & given.keys() or not has_password:
        from initmig.postgres import client_files

        client_files.check_tls_files(given)
        instead, ignored = client_files.ignored_parameters(given, has_password=has_password)
        params |= instead
    return ResolvedSettings(conninfo, given, params, _seconds(given), ignored)


def _look_up(params: Mapping[str, str], *, needs_user: bool = False) -> dict[str, str]:
    """The parameters that libpq resolves from *params*.

    :raises ConnectFailed: libpq cannot parse *params* or the files that they name, or finds no user
    """
    connection = LibpqConnection(find_libpq(), params)
    try:
        options = connection.options()
        if needs_user:
            connection.finish_connecting(0)
    finally:
        connection.close()
    found = {name.decode(): value for name, value in options.items()}
    return {name: value.decode(errors=RAW) for name, value in found.items() if value is not None}


def _seconds(given: Mapping[str, str]) -> float:
    """Seconds for each address. As in libpq, 0 and less mean no limit."""
    if "connect_timeout" not in given:
        return CONNECT_TIMEOUT_SECONDS
    seconds = float(given["connect_timeout"])
    return seconds if seconds > 0 else float("inf")


def _is_number(text: str) -> bool:
    """Whether libpq accepts *text* as an int. It uses C's strtol."""
    number = text.strip(" \t\n\v\f\r")
    digits = number[1:] if number[:1] in ("+", "-") else number
    if not (digits.isascii() and digits.isdigit()):
        return False
    significant = digits.lstrip("0")
    # Python rejects numbers with thousands of digits
    return (
        len(significant) < 11 and -(2**31) <= int(f"{number[: -len(digits)]}0{significant}") < 2**31
    )
