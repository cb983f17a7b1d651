"""How to connect, and what is said first: the same for both kinds of connection."""

from __future__ import annotations

import os

from initmig.core.home import DEFAULT_TABLE, Home
from initmig.core.quoting import USER_SCHEMA, quote_identifier
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from initmig.core.events import ParameterIgnored

CONNECT_TIMEOUT_SECONDS = 5.0
_CLIENT_CHECK_INTERVAL = "1s"

# A peer that vanishes without a word is noticed after 14 s: keepalives see the connection where
# nothing is said, tcp_user_timeout the one with unacknowledged data. What is said into the silence
# begins a new count, so it can be twice that, which is to stay below 30 s.
_KEEPALIVES = {"keepalives_idle": "5", "keepalives_interval": "3", "keepalives_count": "3"}
_USER_TIMEOUT = {"tcp_user_timeout": "14000"}

_TRANSPORT = {
    "keepalives": "1",
    **_KEEPALIVES,
    **_USER_TIMEOUT,
    # without one, OpenSSL asks the terminal for it, and waits for an answer
    "sslpassword": "-",
    # fallback_: an application_name of the user's own wins
    "fallback_application_name": "initmig",
}

# The same for the other side; over a Unix socket the server takes no notice of the tcp_ ones.
_SERVER_TRANSPORT = {
    **{f"tcp_{name}": value for name, value in _KEEPALIVES.items()},
    **_USER_TIMEOUT,
}

FORCED_PARAMETERS = {"client_encoding": "UTF8"}
"""What no connection string can change."""


class OptionalSetting(Record):
    """A setting that initmig wants for its session, and goes on without where it cannot have it."""

    name: str
    value: str
    since: int
    """The first version of PostgreSQL that has it, as ``server_version_num``."""
    effect: str
    """Of going on without it."""
    warn_if_missing: bool = False
    """Whether that is so where the server does not have it, too; a timeout cannot strike there."""


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
"""All that initmig sets beside the search path, the role, lock and statement timeout."""


def missing_settings(version: int) -> Sequence[OptionalSetting]:
    """Those that matter, and that PostgreSQL does not have in the *version*."""
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
"""The column of a result that only initmig can send: the answer to its COMMIT comes behind it."""

RAW = "surrogateescape"
"""Lets what the server sends be sent back as it came."""


class Settings(Record):
    """How to connect, and for whom the work is done there."""

    conninfo: str = ""
    password: str = ""
    """Used where neither *conninfo* nor a service file nor PGPASSWORD has one."""
    schema: tuple[str, ...] = ()
    """The search path; empty for the server's."""
    role: str = ""
    history_schema: str = ""
    history_table: str = ""
    lock_timeout: float = 0.0
    """Seconds, 0 for no limit, for initmig's own statements once there is something to write."""
    reads: bool = False
    """Whether nothing will be written."""
    refused: frozenset[str] = frozenset()
    """The names of `OPTIONAL_SETTINGS` that this server has refused to set."""

    @property
    def home(self) -> Home | None:
        """Where the history is, if that is named and does not depend on the role."""
        schema = self.history_schema or next(iter(self.schema), "")
        return Home(schema, self.table) if schema not in ("", USER_SCHEMA) else None

    @property
    def table(self) -> str:
        """What the history table is called."""
        return self.history_table or DEFAULT_TABLE


class ResolvedSettings(Record):
    """Where to connect, and how."""

    conninfo: str
    given: Mapping[str, str]
    """Each parameter that has a value, be it in a string, file or variable, but for the ports."""
    params: Mapping[str, str]
    """What goes along with *conninfo*, and wins over it."""
    timeout: float
    """Seconds for each address."""
    ignored: tuple[ParameterIgnored, ...]
    """What is left out of the *given*."""

    @property
    def has_several_hosts(self) -> bool:
        """Whether more than one host is named."""
        return "," in self.given.get("host", "") or "," in self.given.get("hostaddr", "")


def defaults(settings: Settings, given: Collection[str]) -> dict[str, str]:
    """What holds for the parameters that are not *given*, be it in a string, file or variable."""
    own = {**_TRANSPORT, **({"password": settings.password} if settings.password else {})}
    return {name: value for name, value in own.items() if name not in given}


def preamble(settings: Settings) -> str:
    """The SET LOCALs that open every transaction; empty where there is nothing to set."""
    said = ""
    if settings.role:
        said += f"SET LOCAL ROLE {quote_identifier(settings.role)};"
    if settings.schema:
        said += f"SET LOCAL search_path = {', '.join(map(quote_identifier, settings.schema))};"
    return said


def timeouts(
    lock_timeout: float,
    *,
    version: int,
    refused: Collection[str],
    statement_timeout: float = 0.0,
    local: bool = False,
) -> str:
    """The SQL that puts these timeouts (seconds, 0 for no limit) in place of the role's.

    *version* is the server's, *refused* as in `Settings`. It is no query, so the isolation level
    can still be set after it.
    """
    verb = "SET LOCAL" if local else "SET"
    return (
        f"{verb} lock_timeout = {_milliseconds(lock_timeout)};"
        f"{verb} statement_timeout = {_milliseconds(statement_timeout)};"
        f"{transaction_settings(version=version, refused=refused, verb=verb)}"
    )


def transaction_settings(*, version: int, refused: Collection[str], verb: str = "SET LOCAL") -> str:
    """The SQL after which the server ends no transaction, however long it is open.

    It ends that of a client that is gone, also while a statement runs.
    """
    return _set(_TRANSACTION_SETTINGS, verb, version=version, refused=refused)


def commit_then(after: str) -> str:
    """COMMIT, and *after* it in the same message more SQL, whose failure is not the COMMIT's."""
    return f"SELECT 1 AS {COMMIT_MARK} WHERE false;COMMIT;{after}"


def cleanup_sql(reset_sql: str, own: Collection[int]) -> str:
    """The SQL that leaves nothing of what ran in the session, once no transaction is open.

    *reset_sql* resets its settings. Of its advisory locks, those with the keys *own* stay: the
    transaction has them, too, until the session has them again.
    """
    keep = "".join(f"pg_catalog.pg_advisory_xact_lock({key})," for key in own)
    again = "".join(f",pg_catalog.pg_advisory_lock({key})" for key in own)
    return (
        f"BEGIN;{reset_sql};CLOSE ALL;UNLISTEN *;DEALLOCATE ALL;"
        f"SELECT {keep}pg_catalog.pg_advisory_unlock_all(){again};"
        # last, and by itself: it waits where another session has locked a temporary table
        "COMMIT;DISCARD TEMP"
    )


def _milliseconds(seconds: float) -> int:
    return -int(-seconds * 1000 // 1)  # rounded up: 0 would be no limit


def session_settings(settings: Settings, *, version: int) -> str:
    """The preamble for the whole session, which must not be a pooled one, with what else holds.

    The server, whose version is *version*, is made to notice a client that died, or is behind a
    dead link, also while its statement runs; without that the lock would live on to the end of the
    statement, or until the system's keepalives begin, after two hours. And it is kept from ending a
    session that computes, or waits in the queue, for long.
    https://www.postgresql.org/docs/current/runtime-config-connection.html
    """
    refused = settings.refused
    patient = timeouts(settings.lock_timeout, version=version, refused=refused)
    rest = _set(_SESSION_SETTINGS, "SET", version=version, refused=refused)
    return f"{preamble(settings).replace('SET LOCAL', 'SET')}{patient}{rest}"
