"""Finds the schema with the history, and the tables in it."""

from __future__ import annotations

from initmig.core.home import LOG, Home
from initmig.core.records import TYPE_CHECKING
from initmig.history import trust
from initmig.postgres import quote_literal
from initmig.postgres.search_path import USER_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from initmig.postgres import Session

# This reads the setting, because current_schemas() omits schemas without the USAGE privilege. A
# role without it would then find a different history from the one that its owner writes. No
# backslash, because standard_conforming_strings may be off.
SEARCH_PATH = f"""
SELECT CASE name WHEN '$user' THEN current_user ELSE name END AS name, name = '$user' AS may_lack, i
FROM (SELECT coalesce(replace(found[1], '""', '"'), lower(found[2])), i
      FROM regexp_matches({USER_PATH}, '"((?:[^"]|"")*)"|([^",[:space:]]+)', 'g')
          WITH ORDINALITY AS t (found, i)) AS t (name, i)"""
"""SQL for the names in the search path, in order (i). `may_lack` is true for ``$user``."""

# The second column is current_schema() by the user's search path.
_FIND = f"""
WITH path AS (SELECT n.oid, n.nspname, p.i
              FROM ({SEARCH_PATH}) AS p JOIN pg_namespace n ON n.nspname = p.name)
SELECT (SELECT nspname FROM path
        WHERE EXISTS (SELECT FROM pg_class WHERE relnamespace = path.oid AND relname = {{table}})
        ORDER BY i LIMIT 1),
    (SELECT nspname FROM path WHERE has_schema_privilege(oid, 'USAGE') ORDER BY i LIMIT 1)"""

# The names of the columns that initmig looks for contain no slash.
_TABLES = """
SELECT n.nspname::text, c.relname::text, string_agg(a.attname, '/')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND {condition}
GROUP BY n.nspname, c.relname ORDER BY n.nspname, c.relname"""

_READABLE = "has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')"

_HISTORY_COLUMNS = {"migration_hash", "migration_id", "applied_at_utc"}


def home_of(session: Session) -> Home:
    """The home of *session*; its schema is empty if the search path contains no usable schema.

    The home is the configured schema, or the first schema in the search path that has a history, or
    the schema for new tables.

    :raises DatabaseRefused: the server refused the query
    """
    if session.home is None:
        table = quote_literal(session.history_table)
        [(found, current)] = session.query(_FIND.format(table=table))
        session.home = Home(found or current or "", session.history_table)
    return session.home


def trusted_home(session: Session) -> Home:
    """`home_of` *session*, after checking that reading its tables runs no other role's code.

    :raises PlanError: a table could run another role's code
    """
    home = home_of(session)
    if not session.trusted:
        trust.require_trusted(session, home)
    return home


def columns_of(session: Session, home: Home, names: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """The columns of each of the tables *names* that exists at *home*.

    :raises DatabaseRefused: the server refused the query
    """
    wanted = ", ".join(map(quote_literal, names))
    condition = f"n.nspname = {quote_literal(home.schema)} AND c.relname IN ({wanted})"
    return {name: columns for _, name, columns in _tables(session, condition)}


def history_tables(session: Session, home: Home) -> Sequence[str]:
    """The tables at *home*, by any name, with the columns of yoyo's history; empty without a log.

    :raises DatabaseRefused: the server refused the query
    """
    condition = f"n.nspname = {quote_literal(home.schema)} AND c.relkind IN ('r', 'p')"
    tables = {name: columns for _, name, columns in _tables(session, condition)}
    if LOG not in tables:
        return ()
    return [name for name in tables if name != LOG and tables[name] >= _HISTORY_COLUMNS]


def schemas_with_history(session: Session, home: Home, ids: Iterable[str]) -> Sequence[str]:
    """The other schemas with a readable history that contains any of *ids*.

    A history that could run another role's code is not read.

    :raises DatabaseRefused: the server refused a query
    """
    condition = (
        f"n.nspname <> {quote_literal(home.schema)} AND c.relname = {quote_literal(home.table)}"
        f" AND {_READABLE}"
    )
    schemas = [
        schema for schema, _, columns in _tables(session, condition) if columns >= _HISTORY_COLUMNS
    ]
    wanted = ", ".join(map(quote_literal, ids))
    homes = [home._replace(schema=schema) for schema in schemas]
    return [
        other.schema
        for other in homes
        if not trust.find_risks(session, other)
        and session.query(f"SELECT 1 FROM {other.history} WHERE migration_id IN ({wanted}) LIMIT 1")
    ]


def search_path_is_from_client(session: Session) -> bool:
    """Whether the client set the search path, and not the server.

    :raises DatabaseRefused: the server refused the query
    """
    query = (
        "SELECT source OPERATOR(pg_catalog.=) 'client' FROM pg_catalog.pg_settings"
        " WHERE name OPERATOR(pg_catalog.=) 'search_path'"
    )
    return bool(session.query(query, by_path=True)[0][0])


def _tables(session: Session, condition: str) -> Iterable[tuple[str, str, frozenset[str]]]:
    for schema, name, columns in session.query(_TABLES.format(condition=condition)):
        yield schema, name, frozenset(columns.split("/"))
