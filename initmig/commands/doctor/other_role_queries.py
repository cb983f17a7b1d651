"""Queries of the catalogs about roles that initmig has no reason to trust, and their privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor import queries
from initmig.commands.doctor.facts import ConnectPrivileges, Grant, PathSchema
from initmig.history.location import SEARCH_PATH, home_of
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from initmig.postgres import Session

_PATH = f"SELECT n.name, n.may_lack FROM ({SEARCH_PATH}) AS n ORDER BY n.i"

# initmig trusts the migration role, roles granted to it, the login, the owner of the database,
# superusers, and roles that can become one of them. pg_auth_members shows which roles are granted:
# pg_has_role() returns true for every role if a superuser calls it.
_OTHER_ROLES = """
WITH RECURSIVE database AS (SELECT * FROM pg_database WHERE datname = current_database()),
    own_role AS (SELECT oid FROM pg_roles WHERE rolname IN (current_user, session_user)),
    granted AS (SELECT oid FROM own_role
        UNION SELECT m.roleid FROM pg_auth_members m JOIN granted g ON m.member = g.oid),
    root AS (SELECT oid FROM own_role UNION SELECT datdba FROM database
        UNION SELECT oid FROM pg_roles WHERE rolsuper),
    other_role AS (SELECT r.oid, r.rolname, r.rolcanlogin FROM pg_roles r
        WHERE NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_')
        AND r.oid NOT IN (SELECT oid FROM granted)
        AND NOT EXISTS (SELECT FROM root WHERE pg_has_role(r.oid, root.oid, 'MEMBER')))"""

_SCHEMAS = f"""{_OTHER_ROLES}
SELECT n.name, quote_ident(n.name), s.oid IS NOT NULL,
    coalesce((SELECT quote_ident(rolname) FROM other_role WHERE oid = s.nspowner), '')
FROM (VALUES {{names}}) AS n (name) LEFT JOIN pg_namespace s ON s.nspname = n.name"""

# Includes privileges on single columns: a REVOKE on the table revokes them, too. A member of
# pg_write_all_data needs no other privilege.
_GRANTS = f"""{_OTHER_ROLES},
    history AS (SELECT c.*, format('%I.%I', s.nspname, c.relname) AS name
        FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
        WHERE s.nspname = {{home}} AND c.relname IN ({{tables}}) AND c.relkind IN ('r', 'p')),
    object (kind, name, owner, acl) AS (
        SELECT 'SCHEMA', quote_ident(nspname), nspowner,
            coalesce(nspacl, acldefault('n', nspowner))
        FROM pg_namespace WHERE nspname IN ({{schemas}})
        UNION ALL SELECT 'DATABASE', quote_ident(datname), datdba,
            coalesce(datacl, acldefault('d', datdba)) FROM database
        UNION ALL SELECT 'TABLE', name, relowner, coalesce(relacl, acldefault('r', relowner))
        FROM history
        UNION ALL SELECT 'TABLE', name, relowner, attacl
        FROM history h JOIN pg_attribute a ON a.attrelid = h.oid WHERE attacl IS NOT NULL
        UNION ALL SELECT 'TABLE', name, relowner,
            ARRAY[makeaclitem(r.oid, relowner, 'INSERT', false)]
        FROM history, pg_roles r WHERE r.rolname = 'pg_write_all_data')
SELECT t.kind, t.name, quote_ident(pg_get_userbyid(t.owner)),
    quote_ident(pg_get_userbyid(a.grantor)),
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    m.member, string_agg(DISTINCT a.privilege_type, ', ' ORDER BY a.privilege_type)
FROM object t CROSS JOIN LATERAL aclexplode(t.acl) AS a
CROSS JOIN LATERAL (
    SELECT '' WHERE a.grantee = 0 OR a.grantee IN (SELECT o.oid FROM other_role o
        WHERE NOT pg_has_role(o.oid, t.owner, 'MEMBER'))
    UNION ALL SELECT quote_ident(o.rolname) FROM other_role o
    WHERE a.grantee NOT IN (SELECT oid FROM other_role UNION SELECT 0)
    AND pg_has_role(o.oid, a.grantee, 'MEMBER') AND NOT pg_has_role(o.oid, t.owner, 'MEMBER')
) AS m (member)
WHERE a.privilege_type = ANY (CASE t.kind
    WHEN 'TABLE' THEN ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
    ELSE ARRAY['CREATE'] END)
GROUP BY t.kind, t.name, t.owner, a.grantor, a.grantee, m.member
ORDER BY t.kind, t.name, 4, a.grantee <> 0, 5, 6"""

_CONNECT_PRIVILEGES = f"""{_OTHER_ROLES},
    acl AS (SELECT a.grantee FROM database d,
            aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE a.privilege_type = 'CONNECT')
SELECT quote_ident(o.rolname), NOT EXISTS (SELECT FROM acl
    WHERE acl.grantee <> 0 AND pg_has_role(o.oid, acl.grantee, 'USAGE'))
FROM other_role o, database d
WHERE o.rolcanlogin AND has_database_privilege(o.oid, d.oid, 'CONNECT') ORDER BY 1"""

_LOGIN = """
SELECT rolsuper OR EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
    WHERE a.privilege_type = 'CONNECT' AND a.grantee <> 0
    AND pg_has_role(r.oid, a.grantee, 'USAGE'))
FROM pg_roles r, pg_database d WHERE rolname = session_user AND datname = current_database()"""


def read_search_path(session: Session) -> Sequence[PathSchema]:
    """The schemas of the search path in its order, and the history's schema; each once."""
    is_user_schema: dict[str, bool] = dict(session.query(_PATH))
    is_user_schema.setdefault(home_of(session).schema, False)
    names = [name for name in is_user_schema if name and not name.startswith("pg_")]
    if not names:
        return ()
    values = ", ".join(f"({quote_literal(name)})" for name in names)
    rows = {row[0]: row for row in session.query(_SCHEMAS.format(names=values))}
    return [PathSchema(*(*rows[name], is_user_schema[name])) for name in names]


def read_grants(session: Session, schemas: Iterable[PathSchema]) -> Sequence[Grant]:
    """The privileges of untrusted roles on the *schemas*, the database and the history tables."""
    home = home_of(session)
    query = _GRANTS.format(
        home=quote_literal(home.schema),
        tables=_listed(queries.history_names(session)),
        schemas=_listed([each.key for each in schemas]),
    )
    return [Grant(*row) for row in session.query(query)]


def read_connect_privileges(session: Session) -> ConnectPrivileges:
    """The untrusted roles that can connect to the database."""
    rows = session.query(_CONNECT_PRIVILEGES)
    [(login_has_grant,)] = session.query(_LOGIN)
    through_public = tuple(name for name, only_public in rows if only_public)
    return ConnectPrivileges(tuple(name for name, _ in rows), through_public, login_has_grant)


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(quote_literal, names)) or "NULL"
