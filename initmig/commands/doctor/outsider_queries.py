"""What the catalog says of roles that initmig has no reason to trust, and what they may do here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.doctor import queries
from initmig.commands.doctor.facts import Connecting, Grant, PathSchema
from initmig.history.location import SEARCH_PATH, home_of
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from initmig.postgres import Session

_PATH = f"SELECT n.name, n.may_lack FROM ({SEARCH_PATH}) AS n ORDER BY n.i"

# Trusted: the role of the run, roles granted to it, the login, the owner of the database,
# superusers, and whoever can become one of them. Which roles are granted, pg_has_role does not say:
# to a superuser it answers yes for every role.
_OUTSIDERS = """
WITH RECURSIVE database AS (SELECT * FROM pg_database WHERE datname = current_database()),
    worker AS (SELECT oid FROM pg_roles WHERE rolname IN (current_user, session_user)),
    granted AS (SELECT oid FROM worker
        UNION SELECT m.roleid FROM pg_auth_members m JOIN granted g ON m.member = g.oid),
    root AS (SELECT oid FROM worker UNION SELECT datdba FROM database
        UNION SELECT oid FROM pg_roles WHERE rolsuper),
    outsider AS (SELECT r.oid, r.rolname, r.rolcanlogin FROM pg_roles r
        WHERE NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_')
        AND r.oid NOT IN (SELECT oid FROM granted)
        AND NOT EXISTS (SELECT FROM root WHERE pg_has_role(r.oid, root.oid, 'MEMBER')))"""

_SCHEMAS = f"""{_OUTSIDERS}
SELECT n.name, quote_ident(n.name), s.oid IS NOT NULL,
    coalesce((SELECT quote_ident(rolname) FROM outsider WHERE oid = s.nspowner), '')
FROM (VALUES {{names}}) AS n (name) LEFT JOIN pg_namespace s ON s.nspname = n.name"""

# With the privileges on single columns, which a REVOKE on the table takes, too. Whoever has
# pg_write_all_data needs no other privilege.
_GRANTS = f"""{_OUTSIDERS},
    history AS (SELECT c.*, format('%I.%I', s.nspname, c.relname) AS name
        FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
        WHERE s.nspname = {{home}} AND c.relname IN ({{tables}}) AND c.relkind IN ('r', 'p')),
    thing (kind, name, owner, acl) AS (
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
FROM thing t CROSS JOIN LATERAL aclexplode(t.acl) AS a
CROSS JOIN LATERAL (
    SELECT '' WHERE a.grantee = 0 OR a.grantee IN (SELECT o.oid FROM outsider o
        WHERE NOT pg_has_role(o.oid, t.owner, 'MEMBER'))
    UNION ALL SELECT quote_ident(o.rolname) FROM outsider o
    WHERE a.grantee NOT IN (SELECT oid FROM outsider UNION SELECT 0)
    AND pg_has_role(o.oid, a.grantee, 'MEMBER') AND NOT pg_has_role(o.oid, t.owner, 'MEMBER')
) AS m (member)
WHERE a.privilege_type = ANY (CASE t.kind
    WHEN 'TABLE' THEN ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
    ELSE ARRAY['CREATE'] END)
GROUP BY t.kind, t.name, t.owner, a.grantor, a.grantee, m.member
ORDER BY t.kind, t.name, 4, a.grantee <> 0, 5, 6"""

_CONNECTING = f"""{_OUTSIDERS},
    acl AS (SELECT a.grantee FROM database d,
            aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE a.privilege_type = 'CONNECT')
SELECT quote_ident(o.rolname), NOT EXISTS (SELECT FROM acl
    WHERE acl.grantee <> 0 AND pg_has_role(o.oid, acl.grantee, 'USAGE'))
FROM outsider o, database d
WHERE o.rolcanlogin AND has_database_privilege(o.oid, d.oid, 'CONNECT') ORDER BY 1"""

_LOGIN = """
SELECT rolsuper OR EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
    WHERE a.privilege_type = 'CONNECT' AND a.grantee <> 0
    AND pg_has_role(r.oid, a.grantee, 'USAGE'))
FROM pg_roles r, pg_database d WHERE rolname = session_user AND datname = current_database()"""


def ask_path(session: Session) -> Sequence[PathSchema]:
    """The schemas of the search path, in its order, and the one of the history; each once."""
    users: dict[str, bool] = dict(session.query(_PATH))
    users.setdefault(home_of(session).schema, False)
    names = [name for name in users if name and not name.startswith("pg_")]
    if not names:
        return ()
    values = ", ".join(f"({quote_literal(name)})" for name in names)
    rows = {row[0]: row for row in session.query(_SCHEMAS.format(names=values))}
    return [PathSchema(*(*rows[name], users[name])) for name in names]


def ask_grants(session: Session, schemas: Iterable[PathSchema]) -> Sequence[Grant]:
    """What outsiders may do with the *schemas*, the database and the tables of the history."""
    home = home_of(session)
    query = _GRANTS.format(
        home=quote_literal(home.schema),
        tables=_listed(queries.history_names(session)),
        schemas=_listed([each.key for each in schemas]),
    )
    return [Grant(*row) for row in session.query(query)]


def ask_connecting(session: Session) -> Connecting:
    """Which outsiders may connect to the database."""
    rows = session.query(_CONNECTING)
    [(login_granted,)] = session.query(_LOGIN)
    by_public = tuple(name for name, only_public in rows if only_public)
    return Connecting(tuple(name for name, _ in rows), by_public, login_granted)


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(quote_literal, names)) or "NULL"
