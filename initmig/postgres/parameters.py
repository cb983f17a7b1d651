"""Connection parameters and session settings, for both kinds of connection."""

from __future__ import annotations

import os

from initmig.config.options import Secret
from initmig.core.home import DEFAULT_TABLE, Home
from initmig.core.quoting import USER_SCHEMA, quote_identifier
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from initmig.core.events import ParameterIgnored

CONNECT_TIMEOUT_SECONDS = 5.0
_CLIENT_CHECK_INTERVAL = "1s"

# A peer that disappears silently is detected after 14 s: by keepalives on an idle connection, and
# by tcp_user_timeout if data is unacknowledged. Sending data restarts the count, so detection can
# take twice as long, which must stay below 30 s.
_KEEPALIVES = {"keepalives_idle": "5", "keepalives_interval": "3", "keepalives_count": "3"}
_USER_TIMEOUT = {"tcp_user_timeout": "14000"}

_TRANSPORT = {
    "keepalives": "1",
    **_KEEPALIVES,
    **_USER_TIMEOUT,
    # without a password, OpenSSL reads one from the terminal
    "sslpassword": "-",
    # "fallback": the user's own application_name wins
    "fallback_application_name": "initmig",
}

# The same for the server. Over a Unix socket, the server ignores the tcp_ settings.
_SERVER_TRANSPORT = {
    **{f"tcp_{name}": value for name, value in _KEEPALIVES.items()},
    **_USER_TIMEOUT,
}

FORCED_PARAMETERS = {"client_encoding": "UTF8"}
"""Parameters that a connection string cannot change."""


class OptionalSetting(Record):
    """A session setting that initmig uses if the server accepts it."""

    name: str
    value: str
    since: int
    """The first PostgreSQL version that has the setting, as ``server_version_num``."""
    effect: str
    """The consequence if it cannot be set."""
    warn_if_missing: bool = False
    """Whether *effect* also applies to servers without the setting. A timeout has no effect there.
    """


_ENDS = "a value that is set for the role, the database or the server may end a migration"
_DEAD_LINK = (
    "the server detects a dead connection only as its own settings allow, and holds the migration"
    " lock until then"
)

_TRANSACTION_SETTINGS = (
    OptionalSetting("idle_in_transaction_session_timeout", "0", 90600, _ENDS),
    OptionalSetting(
        "client_connection_check_interval",
        f"'{_CLIENT_CHECK_INTERVAL}'",
        140000,
        "if initmig is killed, its statement still runs to the end and holds the migration lock"
        " until then",
        warn_if_missing=True,
    ),
    OptionalSetting("transaction_timeout", "0", 170000, _ENDS),
)
_SESSION_SETTINGS = (
    OptionalSetting("idle_session_timeout", "0", 140000, _ENDS),
    *(
        OptionalSetting(name, f"'{value}'", 120000, _DEAD_LINK, warn_if_missing=True)
        for name, value in _SERVER_TRANSPORT.items()
    ),
)

OPTIONAL_SETTINGS = (*_TRANSACTION_SETTINGS, *_SESSION_SETTINGS)
"""All settings except the search path, the role, and the lock and statement timeouts."""


def missing_settings(version: int) -> Sequence[OptionalSetting]:
    """The settings with a warning that PostgreSQL *version* does not have."""
    return [each for each in OPTIONAL_SETTINGS if each.warn_if_missing and each.since > version]


def _set(
    wanted: Iterable[OptionalSetting], verb: str, *, version: int, refused: Collection[str]
) -> str:
    return "".join(
        f"{verb} {each.name} = {each.value};"
        for each in wanted
        if each.since <= version and each.name not in refused
    )


COMMIT_MARK = f"initmig_{os.urandom(8).hex()}"
"""A unique column name. The result after it is the answer to initmig's COMMIT."""

RAW = "surrogateescape"
"""Error handler that decodes bytes from the server so that they can be sent back unchanged."""


class Settings(Record):
    """How to connect, and how to work there."""

    conninfo: Secret = Secret()
    password: Secret = Secret()
    """Used only if *conninfo*, the service file and PGPASSWORD contain no password."""
    schema: tuple[str, ...] = ()
    """The search path; empty for the server's default."""
    role: str = ""
    history_schema: str = ""
    history_table: str = ""
    lock_timeout: float = 0.0
    """For initmig's own statements when there is work to write. In seconds; 0: no limit."""
    reads: bool = False
    """Whether the run only reads."""
    refused: frozenset[str] = frozenset()
    """The names of `OPTIONAL_SETTINGS` that this server refused."""

    @property
    def home(self) -> Home | None:
        """The location of the history, if it is named and does not depend on the role."""
        schema = self.history_schema or next(iter(self.schema), "")
        return Home(schema, self.table) if schema not in ("", USER_SCHEMA) else None

    @property
    def table(self) -> str:
        """The name of the history table."""
        return self.history_table or DEFAULT_TABLE


class ResolvedSettings(Record):
    """Where and how to connect."""

    conninfo: str
    given: Mapping[str, str]
    """All parameters from the string, the files and the variables, except the ports."""
    params: Mapping[str, str]
    """Parameters that override *conninfo*."""
    timeout: float
    """Seconds for each address."""
    ignored: tuple[ParameterIgnored, ...]
    """The parameters in *given* that are not used."""

    @property
    def has_several_hosts(self) -> bool:
        """Whether several hosts are named."""
        return "," in self.given.get("host", "") or "," in self.given.get("hostaddr", "")


def defaults(password: str, given: Mapping[str, str]) -> dict[str, str]:
    """Defaults for parameters that are not *given* in the string, the files or the variables."""
    own = {name: value for name, value in _TRANSPORT.items() if name not in given}
    return {**own, "password": password} if password and not given.get("password") else own


def preamble(settings: Settings) -> str:
    """SQL at the start of every transaction: SET LOCAL for the role and the search path."""
    sql = ""
    if settings.role:
        sql += f"SET LOCAL ROLE {quote_identifier(settings.role)};"
    if settings.schema:
        sql += f"SET LOCAL search_path = {', '.join(map(quote_identifier, settings.schema))};"
    return sql


def timeouts(
    lock_timeout: float,
    *,
    version: int,
    refused: Collection[str],
    statement_timeout: float = 0.0,
    local: bool = False,
) -> str:
    """SQL that overrides the role's timeouts (in seconds; 0: no limit).

    *version* is the server's, and *refused* is as in `Settings`. The SQL contains no query, so the
    isolation level can still be set after it.
    """
    verb = "SET LOCAL" if local else "SET"
    return (
        f"{verb} lock_timeout = {_milliseconds(lock_timeout)};"
        f"{verb} statement_timeout = {_milliseconds(statement_timeout)};"
        f"{transaction_settings(version=version, refused=refused, verb=verb)}"
    )


def transaction_settings(*, version: int, refused: Collection[str], verb: str = "SET LOCAL") -> str:
    """SQL that disables timeouts for open transactions, and detects a lost client.

    The server checks for a lost client even while a statement runs.
    """
    return _set(_TRANSACTION_SETTINGS, verb, version=version, refused=refused)


def commit_then(after: str) -> str:
    """SQL for COMMIT followed by *after*, whose failure does not affect the COMMIT."""
    return f"SELECT 1 AS {COMMIT_MARK} WHERE false;COMMIT;{after}"


def cleanup_sql(reset_sql: str, own: Collection[int]) -> str:
    """SQL that removes all session state of a migration, outside of a transaction.

    *reset_sql* resets the settings. Advisory locks with the keys *own* are kept: the transaction
    holds them while the session's locks are released and taken again.
    """
    keep = "".join(f"pg_catalog.pg_advisory_xact_lock({key})," for key in own)
    again = "".join(f",pg_catalog.pg_advisory_lock({key})" for key in own)
    return (
        f"BEGIN;{reset_sql};CLOSE ALL;UNLISTEN *;DEALLOCATE ALL;"
        f"SELECT {keep}pg_catalog.pg_advisory_unlock_all(){again};"
        # last and separate, because it waits if another session has locked a temporary table
        "COMMIT;DISCARD TEMP"
    )


def _milliseconds(seconds: float) -> int:
    return -int(-seconds * 1000 // 1)  # rounded up, because 0 means no limit


def session_settings(settings: Settings, *, version: int) -> str:
    """SQL for a whole session that has its own server connection: the preamble and all settings.

    With them, the server *version* detects a client that died or lost its network, even while a
    statement runs. Otherwise the lock would persist until the statement ends, or until the system's
    keepalives start after two hours. The settings also keep the server from closing a session that
    computes, or waits in the queue, for a long time.
    https://www.postgresql.org/docs/current/runtime-config-connection.html
    """
    refused = settings.refused
    patient = timeouts(settings.lock_timeout, version=version, refused=refused)
    rest = _set(_SESSION_SETTINGS, "SET", version=version, refused=refused)
    return f"{preamble(settings).replace('SET LOCAL', 'SET')}{patient}{rest}"
