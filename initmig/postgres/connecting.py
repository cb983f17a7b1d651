"""From a connection string to psycopg's connection, which notices when its other end is gone."""

import logging
import re
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from initmig.dsn import parse_dsn
from initmig.errors import ConfigError
from initmig.postgres.errors import one_line
from initmig.postgres.parameters import IMPOSED, Settings, defaults

# What psycopg warns of is told by the error that follows, and its lines are none of our format.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

OnNotice = Callable[[str, str], None]
"""Gets severity and text."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """Refuses to end a transaction that is not its user's to end."""

    guarded = False
    last_words = ""
    """Why the connection was lost; what fails on it afterwards, a ROLLBACK, has nothing to say."""

    def commit(self) -> None:
        """Commit, unless that is initmig's to do."""
        self._refuse("commit")
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless that is initmig's to do."""
        self._refuse("rollback")
        super().rollback()

    def _refuse(self, method: str) -> None:
        if self.guarded:
            raise psycopg.ProgrammingError(
                f"{method}() would end the transaction that initmig opened for this migration"
            )


def open_connection(
    settings: Settings, timeout: float, on_notice: OnNotice | None = None
) -> Connection:
    """A connection in autocommit; *timeout* and what is raised are those of `session.connect`."""
    params = _parameters(settings, timeout)
    try:
        connection = Connection.connect(**params, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        from initmig.postgres.refusals import connect_error

        raise connect_error(one_line(str(error)), None, params) from error
    if on_notice:
        connection.add_notice_handler(
            lambda said: on_notice(said.severity_nonlocalized or "", said.message_primary or "")
        )
    return connection


def _parameters(settings: Settings, timeout: float) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(parse_dsn(settings.conninfo).conninfo)
    except (psycopg.Error, ValueError) as error:
        reason = str(error)
        if isinstance(error, psycopg.Error) and not _quotes_a_parameter(reason, settings.conninfo):
            # libpq quotes the part that it did not understand, and that may be of the password
            reason = re.sub(r'"[^"]*"', '"***"', reason)
        raise ConfigError(
            f"the database URL is malformed: {reason.strip()}",
            hint="give only parameters that libpq knows; in user name and password, write"
            " @ : / ? # % as %40 %3A %2F %3F %23 %25",
        ) from None
    return {**defaults(settings, timeout), **given, **IMPOSED}


def _quotes_a_parameter(reason: str, conninfo: str) -> bool:
    """Whether libpq names an unknown parameter of a URL, and not what is behind a `?` in it."""
    return (
        reason.startswith("invalid URI query parameter") and "@" not in conninfo.partition("?")[2]
    )
