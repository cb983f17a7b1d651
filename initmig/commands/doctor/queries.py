"""Queries about the server, the migration role and its privileges; none needs a privilege."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

from initmig.commands.doctor.facts import (
    CommitSettings,
    ConnectionLimit,
    Extension,
    MigrationRole,
    RelationAccess,
    Schema,
    Server,
    Setting,
    Timeout,
)
from initmig.core.home import own_table
from initmig.history.location import SEARCH_PATH, history_tables, home_of
from initmig.postgres import quote_literal
from initmig.postgres.setting_sources import setting_source
from initmig.sql.requirements import Creates, Fills, Uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from initmig.postgres import Session
    from initmig.sql.requirements import Requirement

_SERVER = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    coalesce((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), ''),
    coalesce(inet_client_addr() <<= '127.0.0.0/8' OR inet_client_addr() = '::1', true),
    pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
    quote_ident(session_user), quote_ident(datname), quote_ident(pg_get_userbyid(datdba))
FROM pg_database WHERE datname = current_database()"""

_TIMEOUTS = """
SELECT name, current_setting(name), setting::float8 / 1000, source FROM pg_settings
WHERE name LIKE '%timeout' AND unit = 'ms' ORDER BY name"""

# Settings that have ended a real migration, or made it fail. `_TIMEOUTS` reads the timeouts.
# row_security = off makes statements fail only for roles that cannot bypass row level security.
_SETTINGS = """
SELECT name, current_setting(name), source FROM pg_settings
WHERE (name, setting) IN (('exit_on_error', 'on'), ('standard_conforming_strings', 'off'))
    OR name = 'temp_file_limit' AND setting <> '-1'
    OR name = 'restrict_nonsystem_relation_kind' AND setting <> ''
    OR name = 'row_security' AND setting = 'off' AND NOT
        (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
ORDER BY name"""

EXPIRES_SECONDS = """
CASE WHEN isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil - now())::float8
    ELSE 'Infinity' END"""
"""SQL for the seconds until the password of a row of pg_roles expires."""

# Only a superuser or a member of pg_read_all_stats sees which standbys are synchronous.
_COMMITS = """
SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
    (SELECT count(*)::int FROM pg_stat_replication
     WHERE sync_state IN ('sync', 'quorum') OR NOT pg_has_role('pg_read_all_stats', 'USAGE'))"""

# For rows of other roles, pg_stat_activity shows little more than the user and the database. The
# server's own processes have neither, and an autovacuum worker has no user.
# Superusers have reserved slots, so the limits do not apply to them.
_LIMITS = """
WITH client AS (SELECT datname, usename FROM pg_stat_activity
        WHERE datname <> '' AND usename <> ''
        AND coalesce(backend_type, 'client backend') = 'client backend'),
    login AS (SELECT * FROM pg_roles WHERE rolname = session_user)
SELECT 'the server', (current_setting('max_connections')::int - CASE WHEN rolsuper THEN 0
        ELSE current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0) END),
    (SELECT count(*)::int FROM client) FROM login
UNION ALL SELECT 'the role', rolconnlimit,
    (SELECT count(*)::int FROM client WHERE usename = rolname) FROM login
WHERE rolconnlimit >= 0 AND NOT rolsuper
UNION ALL SELECT 'the database', datconnlimit,
    (SELECT count(*)::int FROM client c WHERE c.datname = d.datname) FROM pg_database d, login
WHERE d.datname = current_database() AND datconnlimit >= 0 AND NOT rolsuper"""

_MIGRATION_ROLE = """
SELECT quote_ident(rolname), rolsuper, rolcreatedb OR rolsuper, rolcreaterole OR rolsuper,
    has_database_privilege(current_database(), 'CREATE')
FROM pg_roles WHERE rolname = current_user"""

# Since PostgreSQL 15, `public` belongs to a role whose only member is the database's owner.
SCHEMA_OWNER = """
quote_ident(CASE pg_get_userbyid(s.nspowner) WHEN 'pg_database_owner'
    THEN (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())
    ELSE pg_get_userbyid(s.nspowner) END)"""

_SCHEMAS = f"""
SELECT quote_ident(n.name), n.name, coalesce({SCHEMA_OWNER}, ''),
    coalesce(has_schema_privilege(s.oid, 'USAGE'), false),
    coalesce(has_schema_privilege(s.oid, 'CREATE'), false)
FROM ({SEARCH_PATH}) AS n
LEFT JOIN pg_namespace s ON s.nspname = n.name
WHERE n.name <> '' AND NOT (n.may_lack AND s.oid IS NULL) ORDER BY n.i"""

_SCHEMAS_BY_NAME = f"""
SELECT n.i, quote_ident(s.nspname), s.nspname, {SCHEMA_OWNER},
    has_schema_privilege(s.oid, 'USAGE'), has_schema_privilege(s.oid, 'CREATE')
FROM (VALUES {{names}}) AS n (i, name) JOIN pg_namespace s ON s.nspname = n.name"""

# Reads the catalog, because to_regclass() raises an error if the role lacks USAGE on the schema. An
# index has the owner of its table.
_RELATIONS = f"""
SELECT n.i, format('%I.%I', s.nspname, t.relname), quote_ident(o.rolname), o.rolsuper,
    pg_has_role(o.oid, 'USAGE'), pg_has_role(session_user, o.oid, 'MEMBER'),
    CASE WHEN n.privilege IN ('INSERT', 'UPDATE', 'REFERENCES')
         THEN has_any_column_privilege(c.oid, n.privilege)
         WHEN n.privilege <> '' THEN has_table_privilege(c.oid, n.privilege)
         ELSE true END,
    quote_ident(s.nspname), {SCHEMA_OWNER}, pg_has_role(s.nspowner, 'USAGE'),
    has_schema_privilege(s.oid, 'USAGE'), has_schema_privilege(s.oid, 'CREATE')
FROM (VALUES {{names}}) AS n (i, schema, name, privilege)
JOIN pg_class c ON c.relname = n.name::name
JOIN pg_namespace s ON s.oid = c.relnamespace
LEFT JOIN pg_index x ON x.indexrelid = c.oid
JOIN pg_class t ON t.oid = coalesce(x.indrelid, c.oid)
JOIN pg_roles o ON o.oid = t.relowner
WHERE CASE n.schema WHEN '' THEN s.nspname = (
        SELECT v.nspname FROM ({SEARCH_PATH}) AS p JOIN pg_namespace v ON v.nspname = p.name
            JOIN pg_class o ON o.relnamespace = v.oid AND o.relname = n.name::name
        WHERE has_schema_privilege(v.oid, 'USAGE') ORDER BY p.i LIMIT 1)
    ELSE s.nspname = n.schema END"""

_EXTENSIONS = """
SELECT n.i, quote_ident(n.name), e.oid IS NOT NULL, v.name IS NOT NULL,
    coalesce(v.superuser, false), coalesce(v.trusted, false)
FROM (VALUES {names}) AS n (i, name, version)
LEFT JOIN pg_extension e ON e.extname = n.name
LEFT JOIN pg_available_extensions a ON a.name = n.name
LEFT JOIN pg_available_extension_versions v
    ON v.name = a.name AND v.version = coalesce(nullif(n.version, ''), a.default_version)"""


_HAS_EVENT_TRIGGERS = "SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtenabled <> 'D')"


def read_server(session: Session) -> Server:
    """The server, the connection to it, and the database."""
    return Server(*session.query(_SERVER)[0])


def read_timeouts(session: Session) -> tuple[Timeout, ...]:
    """The timeouts of the session."""
    return tuple(Timeout(*row) for row in session.query(_TIMEOUTS))


def read_settings(session: Session, server: Server) -> tuple[Setting, ...]:
    """The settings of the session that can make a migration fail."""
    return tuple(
        Setting(name, value, source, setting_source(source, server.login, server.database))
        for name, value, source in session.query(_SETTINGS)
    )


def read_password_expiry(session: Session) -> float:
    """Seconds until the password of the login expires; infinite if it never does."""
    query = f"SELECT {EXPIRES_SECONDS} FROM pg_roles WHERE rolname = session_user"
    return float(session.query(query)[0][0])


def read_commit_settings(session: Session) -> CommitSettings:
    """The settings that make a COMMIT of the session wait for standbys."""
    return CommitSettings(*session.query(_COMMITS)[0])


def read_connection_limits(session: Session) -> tuple[ConnectionLimit, ...]:
    """The connection limits that apply to the login."""
    return tuple(ConnectionLimit(*row) for row in session.query(_LIMITS))


def read_clock(session: Session, wall: Callable[[], float] = time) -> float:
    """How many seconds the server's clock is ahead of *wall*.

    The server's time is compared with the middle between sending the query and its answer.
    """
    sent = wall()
    [(server,)] = session.query("SELECT extract(epoch FROM clock_timestamp())::text")
    return float(server) - (sent + wall()) / 2


def quoted(session: Session, name: str) -> str:
    """*name* as an SQL identifier, quoted if necessary."""
    return str(session.query(f"SELECT quote_ident({quote_literal(name)})")[0][0])


def read_migration_role(session: Session) -> MigrationRole:
    """The current role of the session."""
    return MigrationRole(*session.query(_MIGRATION_ROLE)[0])


def read_schemas(session: Session) -> tuple[Schema, ...]:
    """The schemas of the search path in its order, without ``$user`` if that does not exist."""
    return tuple(Schema(*row) for row in session.query(_SCHEMAS))


def history_names(session: Session) -> Sequence[str]:
    """The tables of every history in the home schema, and initmig's own; some might not exist."""
    home = home_of(session)
    tables = history_tables(session, home)
    return (*home.tables, *tables, *map(own_table, tables))


def has_event_triggers(session: Session) -> bool:
    """Whether event triggers exist, which can create or drop objects unseen when DDL runs."""
    return bool(session.query(_HAS_EVENT_TRIGGERS)[0][0])


def find_relations(
    session: Session, needs: Iterable[Requirement]
) -> Mapping[Requirement, RelationAccess]:
    """The existing relations that the *needs* use."""
    uses = [need for need in needs if isinstance(need, Uses)]
    names = [(*use.relation, use.privilege if use.privilege.isupper() else "") for use in uses]
    return {uses[i]: RelationAccess(*row) for i, *row in _numbered(session, _RELATIONS, names)}


def find_schemas(session: Session, needs: Iterable[Requirement]) -> Mapping[Requirement, Schema]:
    """The existing schemas where the *needs* create objects."""
    fills = [need for need in needs if isinstance(need, Fills)]
    return {fills[i]: Schema(*row) for i, *row in _numbered(session, _SCHEMAS_BY_NAME, fills)}


def find_extensions(
    session: Session, needs: Iterable[Requirement]
) -> Mapping[Requirement, Extension]:
    """The extensions that the *needs* create."""
    created = [need for need in needs if isinstance(need, Creates) and need.what == "extension"]
    names = [(each.name, each.version) for each in created]
    return {created[i]: Extension(*row) for i, *row in _numbered(session, _EXTENSIONS, names)}


def _numbered(
    session: Session, query: str, rows: Sequence[tuple[str, ...]]
) -> Sequence[tuple[Any, ...]]:
    """The result of *query* for numbered *rows* of texts. Runs no query if there are no rows."""
    if not rows:
        return ()
    values = [f"({i}, {', '.join(map(quote_literal, row))})" for i, row in enumerate(rows)]
    return session.query(query.format(names=", ".join(values)))
