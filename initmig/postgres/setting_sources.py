"""Find the source of a setting that closed a session. Imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.quoting import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SETTING = """
SELECT current_setting({name}), setting = '0', source,
    quote_ident(session_user), quote_ident(current_database())
FROM pg_settings WHERE name = {name}"""

# https://www.postgresql.org/docs/current/view-pg-settings.html
_SOURCES = {
    "database user": "ALTER ROLE {role} IN DATABASE {database}",
    "user": "ALTER ROLE {role}",
    "database": "ALTER DATABASE {database}",
    "global": "ALTER ROLE ALL",
    "client": "the connection string or PGOPTIONS",
    "configuration file": "the server's configuration",
    "command line": "the server's command line",
    "environment variable": "the server's environment",
}


def setting_hint(name: str, query: Callable[[str], list[tuple[Any, ...]]]) -> str:
    """The source of the setting *name*, and the next step; *query* runs on a new session."""
    [(value, is_off, source, role, database)] = query(_SETTING.format(name=quote_literal(name)))
    if is_off:
        return (
            f"do not set {name} in the migration, or set it to 0: it is off in a new session, so"
            " the migration itself sets it"
        )
    by = setting_source(source, role, database)
    return f"raise {name} or set it to 0: it is {value}, set by {by}"


def setting_source(source: str, role: str, database: str) -> str:
    """A readable form of *source* from ``pg_settings``, for a session of *role* in *database*."""
    return _SOURCES.get(source, source).format(role=role, database=database)
