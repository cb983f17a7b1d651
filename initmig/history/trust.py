"""Checks that the history tables cannot run another role's code, as triggers and rules can.

A role that can create objects in the schema could have prepared such tables, or the code that they
run, before the first run of initmig. See docs/explanation/threats.md.
"""

from __future__ import annotations

from initmig.core.errors import PlanError, Problem
from initmig.core.home import Home, tables_of
from initmig.core.quoting import quote_identifier, quote_literal
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from initmig.core.errors import InitmigError
    from initmig.postgres import Session

_UNTRUSTED = "initmig.untrusted_history"
_RAISE = f"pg_catalog.current_setting('{_UNTRUSTED}')"
"""SQL that fails: there is no such setting."""

# A start with nothing to do runs this. It is therefore quick, and rejects more than
# `require_trusted` does. It runs by the user's search path, which decides which tables it checks,
# so it qualifies every name.
_QUERY_GUARD = """
SELECT CASE WHEN pg_catalog.bool_or({risks}) THEN {raising} ELSE pg_catalog.set_config(
    'search_path', pg_catalog.concat_ws(',', 'pg_catalog',
        pg_catalog.min(c.relnamespace::pg_catalog.regnamespace::pg_catalog.text)
            FILTER (WHERE c.relname OPERATOR(pg_catalog.=) {table}), 'pg_temp'), true) END
FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY[{tables}]);"""
_OTHER_OWNER = """pg_catalog.pg_get_userbyid(c.relowner)
        OPERATOR(pg_catalog.<>) ALL (ARRAY[current_user, session_user])"""
# Objects that do not come with PostgreSQL have an OID from 16384 on.
_READ_RISKS = f"""
c.relkind OPERATOR(pg_catalog.<>) 'r' OR c.relispartition OR c.relhassubclass
OR c.relforcerowsecurity OR c.relrowsecurity AND {_OTHER_OWNER}
OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid
    AND a.attnum OPERATOR(pg_catalog.>) 0 AND a.atttypid OPERATOR(pg_catalog.>=) 16384)
OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid
    AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
OR EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s
    WHERE s.stxrelid OPERATOR(pg_catalog.=) c.oid)"""
# Only superusers have this privilege on a catalog. To look the role up in the view pg_roles would
# take an eighth of the time that the server needs for the message.
_OWNER_IS_SUPERUSER = (
    "pg_catalog.has_table_privilege(c.relowner, 'pg_catalog.pg_authid', 'TRUNCATE')"
)
_WRITE_RISKS = f"""{_READ_RISKS}
OR pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE') AND (
    c.relhastriggers OR c.relhasrules OR c.relrowsecurity
    OR {_OTHER_OWNER} AND NOT {_OWNER_IS_SUPERUSER})"""

# An expression is harmless if it calls no function and uses only its table.
_CALLS = """
({tree}::text ~ '(FUNCEXPR|SUBLINK|AGGREF|WINDOWFUNC)' OR EXISTS (
    SELECT FROM pg_depend WHERE classid = '{catalog}'::regclass AND objid = {oid}
        AND (refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
            OR refclassid = 'pg_class'::regclass AND refobjid <> c.oid)))"""


def _calls(tree: str, catalog: str, oid: str) -> str:
    return _CALLS.format(tree=tree, catalog=catalog, oid=oid)


# Up to PostgreSQL 17, a deferred trigger runs as the role that commits. This includes triggers on a
# table that only a foreign key has changed.
_CHANGES_ROWS = "(k.confdeltype NOT IN ('a', 'r') OR k.confupdtype NOT IN ('a', 'r'))"

_SPLIT = "chr(31)"
"""SQL for the separator between a risk and the statement that removes it."""

# The first group also applies to reads, because the planner evaluates immutable functions.
_RISKS = f"""
WITH RECURSIVE granted (id) AS (
    SELECT m.roleid FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
    WHERE r.rolname = current_user
    UNION SELECT m.roleid FROM pg_auth_members m JOIN granted ON m.member = granted.id
), trusted (id) AS (
    SELECT id FROM granted
    UNION ALL SELECT datdba FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN (current_user, session_user)
)
SELECT c.relname, coalesce(
    CASE c.relkind WHEN 'r' THEN NULL WHEN 'v' THEN 'is a view'
        WHEN 'm' THEN 'is a materialized view' WHEN 'f' THEN 'is a foreign table'
        WHEN 'p' THEN 'is a partitioned table' ELSE 'is not a table' END,
    CASE WHEN c.relispartition THEN 'is a partition' END,
    (SELECT 'has the child table ' || inhrelid::regclass FROM pg_inherits
     WHERE inhparent = c.oid LIMIT 1),
    (SELECT format('has a column of the type %s', t.oid::regtype) FROM pg_attribute a
     JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND t.typnamespace <> 'pg_catalog'::regnamespace LIMIT 1),
    (SELECT 'has the index ' || i.indexrelid::regclass || ', which calls a function'
     FROM pg_index i WHERE i.indrelid = c.oid
        AND ({_calls("i.indexprs", "pg_class", "i.indexrelid")}
            OR {_calls("i.indpred", "pg_class", "i.indexrelid")}) LIMIT 1),
    (SELECT format('has the constraint %I, which calls a function', k.conname)
     FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'
        AND {_calls("k.conbin", "pg_constraint", "k.oid")} LIMIT 1),
    (SELECT format('has the statistics %I, which call a function', s.stxname)
     FROM pg_statistic_ext s WHERE s.stxrelid = c.oid
        AND {_calls("(to_jsonb(s) ->> 'stxexprs')", "pg_statistic_ext", "s.oid")} LIMIT 1),
    (SELECT format('has the policy %I, which calls a function', p.polname)
     FROM pg_policy p WHERE p.polrelid = c.oid
        AND {_calls("concat(p.polqual, p.polwithcheck)", "pg_policy", "p.oid")} LIMIT 1),
    (SELECT format('has the column %I, whose default calls a function', a.attname)
     FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE d.adrelid = c.oid AND (a.attgenerated <> '' OR {{writes}})
        AND {_calls("d.adbin", "pg_attrdef", "d.oid")} LIMIT 1),
    CASE WHEN {{writes}} THEN coalesce(
        (SELECT format('belongs to %I', o.rolname) || {_SPLIT}
            || format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, current_user)
         FROM pg_roles o
         WHERE o.oid = c.relowner AND o.oid <> n.nspowner
            AND o.oid NOT IN (SELECT id FROM trusted)),
        (SELECT format('is referenced by %s, which belongs to %I', r.oid::regclass, o.rolname)
            || {_SPLIT} || format('ALTER TABLE %s DROP CONSTRAINT %I', r.oid::regclass, k.conname)
         FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid
            JOIN pg_roles o ON o.oid = r.relowner
         WHERE k.confrelid = c.oid AND k.contype = 'f' AND {_CHANGES_ROWS}
            AND o.oid <> n.nspowner AND o.oid NOT IN (SELECT id FROM trusted) LIMIT 1),
        (SELECT format('has the trigger %I', t.tgname) || {_SPLIT}
            || format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname)
         FROM pg_trigger t
         WHERE t.tgrelid = c.oid AND NOT t.tgisinternal LIMIT 1),
        (SELECT format('has the rule %I', r.rulename) || {_SPLIT}
            || format('DROP RULE %I ON %I.%I', r.rulename, n.nspname, c.relname)
         FROM pg_rewrite r
         WHERE r.ev_class = c.oid LIMIT 1),
        (SELECT format('has the policy %I', p.polname) || {_SPLIT}
            || format('DROP POLICY %I ON %I.%I', p.polname, n.nspname, c.relname)
         FROM pg_policy p
         WHERE p.polrelid = c.oid LIMIT 1)) END),
    EXISTS (SELECT FROM aclexplode(c.relacl) AS acl
            WHERE acl.privilege_type IN ('TRIGGER', 'REFERENCES') AND acl.grantee <> c.relowner)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {{schema}} AND c.relname IN ({{tables}})"""
_CAN_CREATE = "has_schema_privilege(n.oid, 'CREATE')"

_NEXT_STEP = (
    "find out who created it, because that role could run SQL as this role. Or keep the history in"
    " another schema with --history-schema"
)

# The lock prevents other sessions from adding a trigger or a foreign key. A role does not have to
# own the table to add one.
_WRITE_GUARD = """
LOCK TABLE {tables} IN ROW EXCLUSIVE MODE;
{verb} {raising} FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
LEFT JOIN pg_catalog.pg_constraint k ON k.oid OPERATOR(pg_catalog.=) t.tgconstraint
    AND k.confrelid OPERATOR(pg_catalog.=) c.oid
LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) k.conrelid
WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY[{ids}]) AND (NOT t.tgisinternal
    OR pg_catalog.strpos('cnd', k.confdeltype::pg_catalog.text) OPERATOR(pg_catalog.>) 0
        AND r.relowner OPERATOR(pg_catalog.<>) c.relowner
    OR pg_catalog.strpos('cnd', k.confupdtype::pg_catalog.text) OPERATOR(pg_catalog.>) 0
        AND r.relowner OPERATOR(pg_catalog.<>) c.relowner);"""


class Risk(Record):
    """A *fact* about a table, and the statement that is its *fix*, or empty if there is no fix."""

    fact: str
    fix: str


def query_guard(home: Home | None, table: str, *, reads: bool) -> str:
    """The SQL to run before a query of the history *table*. It also sets the search path.

    It fails if the tables may be a risk. A session that only *reads* needs fewer checks. The SQL
    runs with the user's search path, which finds the table if *home* is unknown. Then it sets the
    search path to pg_catalog and the schema of the table.
    """
    names = [quote_identifier(name) for name in tables_of(table)]
    if home:
        names = [f"{quote_identifier(home.schema)}.{name}" for name in names]
    ids = (f"pg_catalog.to_regclass({quote_literal(name)})" for name in names)
    return _QUERY_GUARD.format(
        risks=_READ_RISKS if reads else _WRITE_RISKS,
        raising=_RAISE,
        table=quote_literal(table),
        tables=", ".join(ids),
    )


def write_guard(session: Session, *tables: str, verb: str = "SELECT") -> str:
    """The SQL to run before a statement that writes to *tables*, in the same transaction.

    It takes a tenth of the time of a small migration. It is therefore empty if no other role can
    have added a trigger since `require_trusted`. In PL/pgSQL the *verb* is PERFORM.
    """
    if not session.others_may_add_triggers:
        return ""
    ids = (f"{quote_literal(table)}::pg_catalog.regclass" for table in tables)
    return _WRITE_GUARD.format(
        verb=verb, raising=_RAISE, tables=", ".join(tables), ids=", ".join(ids)
    )


def is_untrusted_error(error: InitmigError) -> bool:
    """Whether the SQL of `query_guard` or `write_guard` raised *error*."""
    return any(_UNTRUSTED in problem.message for problem in error.problems)


def require_trusted(session: Session, home: Home) -> None:
    """Check the tables at *home* in detail, and mark the session as trusted.

    :raises PlanError: a table could run another role's code
    """
    rows = _check_tables(session, home)
    if found := _risks(rows):
        raise PlanError.of(tuple(map(_problem, found)))
    session.trusted = True
    session.others_may_add_triggers = any(may_add for _, _, may_add in rows)


def _problem(risk: Risk) -> Problem:
    return Problem("untrusted-history", risk.fact, _hint(risk))


def _hint(risk: Risk) -> str:
    """The next step that removes *risk*."""
    if risk.fix.startswith("ALTER TABLE ") and " DROP CONSTRAINT " not in risk.fix:
        return (
            "if that role is the one that migrates this database, run initmig as that role."
            f" Otherwise {_NEXT_STEP}. To give the table to this role: {risk.fix}"
        )
    remedy = f". To remove what was found: {risk.fix}" if risk.fix else ""
    return f"{_NEXT_STEP}{remedy}"


def find_risks(session: Session, home: Home) -> Sequence[Risk]:
    """The reasons why the tables at *home* could run another role's code.

    :raises DatabaseRefused: the server refused the query
    """
    return _risks(_check_tables(session, home))


def _check_tables(session: Session, home: Home) -> Sequence[tuple[str, str, bool]]:
    """Each table, its first risk or empty, and whether other roles can add triggers to it."""
    query = _RISKS.format(
        schema=quote_literal(home.schema),
        tables=", ".join(map(quote_literal, home.tables)),
        writes="false" if session.reads else _CAN_CREATE,
    )
    rows = session.query(query)
    return [(f"{home.schema}.{table}", str(risk or ""), may_add) for table, risk, may_add in rows]


def _risks(rows: Iterable[tuple[str, str, bool]]) -> Sequence[Risk]:
    found = [(table, *risk.partition("\x1f")) for table, risk, _ in rows if risk]
    return [
        Risk(f"{table} {risk}", f"{statement};" if statement else "")
        for table, risk, _, statement in found
    ]


def changed_error() -> PlanError:
    """The error to raise if `write_guard` fails on a table that was trusted before."""
    return PlanError(
        "untrusted-history",
        "a trigger or a foreign key was added to a history table during this run",
        hint=_NEXT_STEP,
    )
