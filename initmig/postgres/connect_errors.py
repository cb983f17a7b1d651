"""Classify failed attempts to connect. Imported only after a failure, to keep startup fast.

libpq's ping has the same result for a server without free slots, without TLS, with a rejected
password, and without an answer. So the category comes from the message. If the message is unknown
or in another language, it comes from the SQLSTATEs, and then from the ping.
"""

from __future__ import annotations

import os
import re
import stat

from initmig.config.dsn import LIBPQ
from initmig.core.causes import TRANSIENT_SQLSTATES
from initmig.core.errors import ConfigError, DatabaseRefused, DatabaseUnavailable
from initmig.core.records import TYPE_CHECKING
from initmig.postgres.errors import NAME_PRIMARY, LoginRefused
from initmig.postgres.libpq import find_libpq

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from initmig.core.errors import InitmigError

    _Category = Literal[
        "unsupported",
        "file",
        "malformed",
        "insecure",
        "standby",
        "refused",
        "unavailable",
        "not attempted",
    ]


_PATTERNS: dict[_Category, str] = {
    # from a pooler: a startup parameter would affect the next client of the server connection
    "unsupported": r"unsupported startup parameter",
    # files that libpq reads when it connects
    "file": r"(certificate|private key) file|no home directory|could not get home directory"
    r"|load system root certificate|decrypt private key",
    # invalid values; the message names the parameter and never contains the password
    "malformed": r"invalid (integer value|port number)|invalid \S+ value: \"\""
    r"|setsockopt\(\w+\) failed: Invalid argument|SSL protocol version range|weak sslmode"
    r"|invalid SCRAM (client|server) key|could not (match|parse network address)|is too long \("
    r"|failed: Not a directory",
    # one side requires a feature that the other lacks, which does not change by itself
    "insecure": r"SSL was required|SSL error: (?!unexpected eof)"
    r"|certificate for \"\" .*does not match host name"
    r"|channel binding (is )?required|authentication method requirement|did not request an SSL"
    r"|without a valid SSL certificate"
    r"|GSSAPI encryption required|does not support GSSAPI|no OAuth flows",
    "standby": r"session is (not )?read-only|server is (not )?in hot standby mode",
    "refused": r"SSL(?! SYSCALL)|certificate|GSSAPI|pg_hba\.conf|password|authentication"
    r"|[Pp]ermission denied"
    r"|(role|database|user) \"[^\"]*\" (does not exist|is not)|not permitted to log in",
    "unavailable": r"too many|connection slots|no more connections allowed"
    r"|is (starting up|shutting down)|recovery|standby|read-only|not yet accepting"
    r"|Connection refused|timeout expired|resolve host|translate host name"
    r"|closed the connection|query_wait_timeout|SSL SYSCALL",
}
"""The first match wins: if there are several addresses, one refusal is enough."""

_NO_SOCKET = r'connection to server on socket "([^"]*)" failed: No such file or directory'
"""libpq's message for the default socket, which it tries if no host is given."""

_QUOTED = re.compile(r"""(["']).*?\1|>>.*?<<|»[^«]*«|«[^»]*»|„[^“”]*[“”]""")
_PINGS: dict[int, _Category] = {0: "refused", 3: "not attempted"}
"""By PGPing: PQPING_OK and PQPING_NO_ATTEMPT."""


_SOCKET = r'on socket "([^"]*)" failed: Connection refused'

_UNKNOWN = r'invalid (?:connection option|URI query parameter:?) "([^"]*)"'


def connect_error(
    reason: str,
    sqlstates: Sequence[str],
    params: Mapping[str, str],
    given: Mapping[str, str],
) -> InitmigError:
    """The error for a failed attempt to connect with *params*, for *reason*.

    *sqlstates* are from the servers that were tried, and *given* has the resolved parameters.
    """
    missing = re.match(_NO_SOCKET, reason)
    if missing and not (given.get("host") or given.get("hostaddr")):
        return ConfigError(
            "no-database",
            f"no database is configured, and no server is running on this machine ({missing[1]})",
            hint="set DATABASE_URL, or set PGHOST and the other PG* variables",
        )
    refusing = re.search(_SOCKET, reason)
    if refusing and not _may_be_socket(refusing[1]):
        return _malformed(
            f"{refusing[1]} is not a socket", "set host to the folder that contains the socket"
        )
    return _error_for(
        reason, _category_by_words(reason) or _category_by_sqlstates(sqlstates, params)
    )


def _may_be_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True


def malformed(reason: str, conninfo: str) -> ConfigError:
    """The error for a *conninfo* that libpq cannot parse, for *reason*.

    Values in quotes are masked, because libpq quotes the part that it does not understand, which
    may contain the password.
    """
    if "service" in reason:
        return ConfigError(
            "service-file",
            f"cannot use the service file: {reason}",
            hint="check the service name (service or PGSERVICE) and the service file"
            " (PGSERVICEFILE, ~/.pg_service.conf, or pg_service.conf in PGSYSCONFDIR)",
        )
    if "local user" in reason:
        return _malformed(reason, "set the user in the URL or in PGUSER")
    if unknown := re.search(_UNKNOWN, reason):
        from initmig.config import foreign_parameters

        rest = conninfo.partition("://")[2] or conninfo
        if foreign_parameters.can_be_shown(unknown[1], rest):
            return _malformed(foreign_parameters.unknown(unknown[1], LIBPQ))
    return _malformed(re.sub(r'"[^"]*"', '"***"', reason))


def _malformed(reason: str, hint: str = "") -> ConfigError:
    return ConfigError(
        "malformed-url",
        f"cannot use the database URL: {reason}",
        hint=hint
        or "use only parameters and values that libpq knows in the URL, PG* variables and service"
        " file; in user names and passwords, write @ : / ? # % as %40 %3A %2F %3F %23 %25",
    )


def _error_for(reason: str, category: _Category) -> InitmigError:
    error: InitmigError
    match category:
        case "unsupported":
            error = DatabaseRefused(
                "startup-parameter-unsupported",
                reason,
                hint="remove it from the URL (use --schema for a search path, --role for a role),"
                " or let the pooler ignore it: ignore_startup_parameters in PgBouncer",
            )
        case "file":
            error = ConfigError(
                "tls-file",
                reason,
                hint="check sslpassword, and the files that sslrootcert, sslcert and sslkey name",
            )
        case "insecure":
            error = DatabaseRefused(
                "security-mismatch",
                reason,
                hint="compare sslmode, sslrootcert, gssencmode, channel_binding and require_auth"
                " with what the server supports",
            )
        case "standby":
            error = DatabaseUnavailable("standby", reason, hint=NAME_PRIMARY)
        case "refused":
            error = LoginRefused(
                "login-refused",
                reason,
                hint="check the user, password, database and sslmode, and the server's pg_hba.conf",
            )
        case "unavailable":
            error = DatabaseUnavailable("database-unavailable", reason)
        case "malformed" | "not attempted":
            error = _malformed(reason)
    return error


def _category_by_words(reason: str) -> _Category | None:
    # a host may be called "authentication-db", and a database "SSL"
    unquoted = _QUOTED.sub('""', reason)
    return next(
        (category for category, pattern in _PATTERNS.items() if re.search(pattern, unquoted)), None
    )


def _category_by_sqlstates(sqlstates: Sequence[str], params: Mapping[str, str]) -> _Category:
    if not sqlstates:
        return _PINGS.get(find_libpq().ping(params), "unavailable")
    is_transient = all(each.startswith(TRANSIENT_SQLSTATES) for each in sqlstates)
    return "unavailable" if is_transient else "refused"
