"""Checks row level security on the history: a migration whose row is hidden looks pending.

initmig never disables row level security, because its owner enabled it for a reason. This module
is imported only if a migration is pending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.errors import PlanError
from initmig.core.events import RowSecurityActive
from initmig.history.location import home_of
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from initmig.postgres import Session

# https://www.postgresql.org/docs/current/ddl-rowsecurity.html
_ACTIVE = """
SELECT format('%I.%I', n.nspname, c.relname), current_user::text,
    (SELECT coalesce(string_agg(p.polname, '/' ORDER BY p.polname), '') FROM pg_policy p
     WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
        AND EXISTS (SELECT FROM unnest(p.polroles) AS role (id)
                    WHERE id = 0 OR pg_has_role(id, 'USAGE')))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {table} AND c.relkind = 'r'
    AND row_security_active(c.oid)"""


def check(session: Session) -> RowSecurityActive | None:
    """The policies that may hide rows of the history from this role; None if no policy applies.

    :raises PlanError: no policy lets the role read any row, so every migration looks pending
    """
    home = home_of(session)
    query = _ACTIVE.format(schema=quote_literal(home.schema), table=quote_literal(home.table))
    for table, role, policies in session.query(query):
        if not policies:
            raise PlanError(
                "history-hidden",
                f"row level security hides every row of {table} from {role}:"
                " no policy lets it read any",
                hint=f"run as the owner of {table} (--role), or create a policy:"
                f" CREATE POLICY initmig ON {table} FOR SELECT TO {role} USING (true)",
            )
        return RowSecurityActive(table, role, tuple(policies.split("/")))
    return None
