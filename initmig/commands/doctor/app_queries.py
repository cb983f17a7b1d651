"""Queries of the catalogs about the application's role; none needs a privilege."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from initmig.commands.doctor.facts import (
    AppFunction,
    AppObject,
    AppRole,
    AppSchema,
    AppView,
)
from initmig.commands.doctor.queries import EXPIRES_SECONDS, SCHEMA_OWNER
from initmig.history.location import SEARCH_PATH
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from initmig.postgres import Session

# The settings of a new session, in order of precedence:
# https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-SQL
# Settings of this session, or of the migration role, do not apply to the application.
_ROLE = f"""
WITH app AS (SELECT * FROM pg_roles WHERE rolname = {{role}}),
    setting AS (SELECT DISTINCT ON (1) split_part(line, '=', 1) AS name,
            substr(line, strpos(line, '=') + 1) AS value
        FROM app, pg_database d, pg_db_role_setting s, unnest(s.setconfig) AS line
        WHERE d.datname = current_database()
        AND s.setrole IN (0, app.oid) AND s.setdatabase IN (0, d.oid)
        ORDER BY 1, s.setrole <> 0 DESC, s.setdatabase <> 0 DESC)
SELECT quote_ident(rolname), rolname, rolsuper, rolname = current_user, rolcanlogin,
    EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
        WHERE m.roleid = app.oid AND r.rolcanlogin
        AND r.rolname NOT IN (session_user, current_user)),
    rolconnlimit,
    {EXPIRES_SECONDS},
    has_database_privilege(app.oid, current_database(), 'CONNECT'),
    coalesce((SELECT value::bool FROM setting WHERE name = 'default_transaction_read_only'), false),
    coalesce((SELECT value FROM setting WHERE name = 'search_path'),
        (SELECT CASE WHEN source IN ('default', 'configuration file', 'command line') THEN setting
            ELSE boot_val END FROM pg_settings WHERE name = 'search_path')),
    coalesce((SELECT nullif(value, 'none') FROM setting WHERE name = 'role'), '')
FROM app"""

_IS_EXTENSION_MEMBER = """
EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
    AND deptype = 'e')"""

_HAS_MIGRATED_TABLES = f"""
EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.relnamespace = s.oid AND c.relkind IN ('r', 'p') AND r.rolname = current_user
    AND c.relname NOT IN ({{history}}) AND NOT {_IS_EXTENSION_MEMBER})"""

_SCHEMAS = f"""
SELECT quote_ident(nspname), nspname, {SCHEMA_OWNER},
    has_schema_privilege({{role}}, s.oid, 'USAGE'),
    has_schema_privilege(s.oid, 'CREATE') AND has_schema_privilege(s.oid, 'USAGE'),
    {_HAS_MIGRATED_TABLES}
FROM pg_namespace s
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND (nspname IN (SELECT name FROM ({SEARCH_PATH}) AS path) OR {{everywhere}}
        AND {_HAS_MIGRATED_TABLES})
ORDER BY nspname"""

# The application uses partitions through their table. An extension grants privileges on its tables.
_TABLES = f"""
app AS (SELECT * FROM pg_roles WHERE rolname = {{role}}),
relations AS (SELECT c.*, s.nspname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname IN ({{schemas}}) AND NOT {_IS_EXTENSION_MEMBER}),
tables AS (SELECT * FROM relations c WHERE relkind IN ('r', 'p', 'f', 'v', 'm')
    AND NOT relispartition AND relname NOT IN ({{history}}))"""

# nextval() needs USAGE or UPDATE, currval() needs USAGE or SELECT, an identity column neither.
# https://www.postgresql.org/docs/current/functions-sequence.html
# Row security: https://www.postgresql.org/docs/current/ddl-rowsecurity.html
_OBJECTS = f"""
WITH {_TABLES},
sequences AS (SELECT * FROM relations c WHERE relkind = 'S'
    AND NOT EXISTS (SELECT FROM pg_depend d LEFT JOIN pg_class t ON t.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
        AND (d.deptype = 'i' OR d.deptype = 'a' AND t.relname IN ({{history}})))
    UNION SELECT c.*, s.nspname FROM tables t JOIN pg_attrdef e ON e.adrelid = t.oid
    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
        AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class c ON c.oid = d.refobjid AND c.relkind = 'S'
    JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_class'::regclass
        AND i.objid = c.oid AND i.refobjsubid > 0 AND i.deptype = 'i')),
needed AS (SELECT t.oid, p.privilege, p.i,
        CASE WHEN has_table_privilege(app.oid, t.oid, p.privilege) THEN true
            WHEN p.privilege = 'DELETE' THEN false
            ELSE coalesce((SELECT bool_and(
                    has_column_privilege(app.oid, t.oid, a.attnum, p.privilege))
                FROM pg_attribute a
                WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped), false) END
            AS granted,
        p.privilege <> 'DELETE' AND has_any_column_privilege(app.oid, t.oid, p.privilege)
            AS on_columns,
        t.relrowsecurity AND NOT (app.rolsuper OR app.rolbypassrls)
            AND (t.relforcerowsecurity OR NOT pg_has_role(app.oid, t.relowner, 'USAGE'))
            AND NOT EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = t.oid AND y.polpermissive
                AND y.polcmd IN ('*', p.command)
                AND EXISTS (SELECT FROM unnest(y.polroles) AS r (oid)
                    WHERE CASE r.oid WHEN 0 THEN true ELSE pg_has_role(app.oid, r.oid, 'USAGE')
                    END)) AS hidden
    FROM app, tables t, (VALUES ('SELECT', 1, 'r', 0), ('INSERT', 2, 'a', 8),
        ('UPDATE', 3, 'w', 4), ('DELETE', 4, 'd', 16)) AS p (privilege, i, command, bit)
    WHERE p.bit = 0 OR t.relkind IN ('r', 'p')
        OR t.relkind = 'f' AND pg_relation_is_updatable(t.oid, false) & p.bit <> 0
    UNION ALL SELECT c.oid, 'USAGE', 1, has_sequence_privilege(app.oid, c.oid, 'USAGE')
        OR has_sequence_privilege(app.oid, c.oid, 'SELECT')
            AND has_sequence_privilege(app.oid, c.oid, 'UPDATE'), false, false
    FROM app, sequences c)
SELECT format('%I.%I', s.nspname, c.relname), quote_ident(s.nspname),
    CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view'
        ELSE 'table' END,
    quote_ident(pg_get_userbyid(c.relowner)),
    coalesce((SELECT quote_ident(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum LIMIT 1), ''),
    string_agg(n.privilege, ', ' ORDER BY n.i),
    coalesce(string_agg(n.privilege, ', ' ORDER BY n.i) FILTER (WHERE NOT n.granted), ''),
    coalesce(string_agg(n.privilege, ', ' ORDER BY n.i)
        FILTER (WHERE n.on_columns AND NOT n.granted), ''),
    coalesce(string_agg(n.privilege, ', ' ORDER BY n.i) FILTER (WHERE n.granted AND n.hidden), '')
FROM needed n JOIN pg_class c ON c.oid = n.oid JOIN pg_namespace s ON s.oid = c.relnamespace
GROUP BY c.oid, s.nspname, c.relname, c.relkind, c.relowner ORDER BY s.nspname, c.relname"""

# A function runs with the privileges of the role that uses the table. Trigger functions are left
# out: they need no EXECUTE when the trigger fires. A function that the table itself depends on is
# called by its partition key, and in PostgreSQL 14 also by generated columns.
_FUNCTIONS = f"""
WITH {_TABLES},
users AS (
    SELECT 'pg_class'::regclass AS classid, oid FROM tables
    UNION ALL SELECT 'pg_attrdef'::regclass, e.oid FROM tables t
        JOIN pg_attrdef e ON e.adrelid = t.oid
    UNION ALL SELECT 'pg_constraint'::regclass, e.oid FROM tables t
        JOIN pg_constraint e ON e.conrelid = t.oid
    UNION ALL SELECT 'pg_constraint'::regclass, e.oid FROM tables t
        JOIN pg_attribute a ON a.attrelid = t.oid JOIN pg_constraint e ON e.contypid = a.atttypid
        WHERE a.attnum > 0 AND a.atttypid <> 0
    UNION ALL SELECT 'pg_class'::regclass, x.indexrelid FROM tables t
        JOIN pg_index x ON x.indrelid = t.oid
    UNION ALL SELECT 'pg_policy'::regclass, y.oid FROM tables t
        JOIN pg_policy y ON y.polrelid = t.oid
    UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM tables t
        JOIN pg_rewrite w ON w.ev_class = t.oid)
SELECT format('%I.%I(%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
    quote_ident(pg_get_userbyid(p.proowner)), min(pg_describe_object(u.classid, u.oid, 0))
FROM app CROSS JOIN users u JOIN pg_depend d ON d.classid = u.classid AND d.objid = u.oid
    AND d.refclassid = 'pg_proc'::regclass
JOIN pg_proc p ON p.oid = d.refobjid JOIN pg_namespace s ON s.oid = p.pronamespace
WHERE NOT has_function_privilege(app.oid, p.oid, 'EXECUTE')
GROUP BY p.oid, s.nspname, p.proname, p.proowner ORDER BY 1"""

# Since PostgreSQL 15, a view can read its tables with the privileges of its reader. `_OBJECTS`
# already covers the application's own tables.
_VIEWS = f"""
WITH {_TABLES}
SELECT DISTINCT format('%I.%I', t.nspname, t.relname), format('%I.%I', s.nspname, b.relname),
    quote_ident(pg_get_userbyid(b.relowner)), quote_ident(r.rolname)
FROM app CROSS JOIN tables t JOIN pg_rewrite w ON w.ev_class = t.oid
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> t.oid
JOIN pg_class b ON b.oid = d.refobjid AND b.relkind IN ('r', 'p', 'f', 'v', 'm')
JOIN pg_namespace s ON s.oid = b.relnamespace
JOIN pg_roles r ON r.oid = CASE WHEN EXISTS (
        SELECT FROM pg_options_to_table(t.reloptions)
        WHERE option_name = 'security_invoker' AND option_value::bool)
    THEN app.oid ELSE t.relowner END
WHERE t.relkind = 'v' AND NOT has_any_column_privilege(r.oid, b.oid, 'SELECT')
    AND NOT (r.oid = app.oid AND b.oid IN (SELECT oid FROM tables)) ORDER BY 1, 2"""

_NEW_TABLE = """
SELECT coalesce(string_agg(p, ', ' ORDER BY i) FILTER (WHERE NOT has_table_privilege(
        {role}, {table}::regclass, p)), ''),
    has_sequence_privilege({role}, pg_get_serial_sequence({table}, 'id'), 'USAGE')
FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS t (p, i)"""


class AppQueries:
    """Queries about the application's *role*. They leave out tables with the names *history*."""

    def __init__(self, session: Session, role: str, history: Collection[str]) -> None:
        self._session = session
        self._role = quote_literal(role)
        self._history = _listed(history)

    def role(self) -> AppRole | None:
        """The role and its settings, or None if it does not exist."""
        rows = self._session.query(_ROLE.format(role=self._role))
        return AppRole(*rows[0]) if rows else None

    def schemas(self, *, everywhere: bool) -> Sequence[AppSchema]:
        """The schemas of the search path, and *everywhere* also others with migrated tables."""
        query = _SCHEMAS.format(role=self._role, everywhere=everywhere, history=self._history)
        return [AppSchema(*row) for row in self._session.query(query)]

    def objects(self, schemas: Collection[str]) -> Sequence[AppObject]:
        """Tables, views and sequences of the *schemas*, and the sequences that the tables use."""
        return [AppObject(*row) for row in self._query(_OBJECTS, schemas)]

    def functions(self, schemas: Collection[str]) -> Sequence[AppFunction]:
        """The functions that tables and views call, but the application cannot execute."""
        return [AppFunction(*row) for row in self._query(_FUNCTIONS, schemas)]

    def views(self, schemas: Collection[str]) -> Sequence[AppView]:
        """The views that fail for every reader."""
        return [AppView(*row) for row in self._query(_VIEWS, schemas)]

    def lacking_on(self, table: str) -> tuple[str, bool]:
        """The privileges that the role lacks on *table*, and whether it can use the sequence."""
        query = _NEW_TABLE.format(role=self._role, table=quote_literal(table))
        [(lacking, uses_sequence)] = self._session.query(query)
        return lacking, uses_sequence

    def _query(self, query: str, schemas: Collection[str]) -> Sequence[tuple[Any, ...]]:
        names = {"role": self._role, "schemas": _listed(schemas), "history": self._history}
        return self._session.query(query.format(**names))


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(quote_literal, names)) or "NULL"
