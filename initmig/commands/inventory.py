"""Reads a database's relations from its catalog, in one query that needs no privilege."""

from __future__ import annotations

from json import loads
from typing import TYPE_CHECKING

from initmig.history.location import SEARCH_PATH
from initmig.sql.relations import read_inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initmig.sql.relations import Inventory

    Ask = Callable[[str], list[tuple[Any, ...]]]

# Leaves out TOAST tables, which migrations never name, and temporary tables of other sessions.
_SHOWN = r"n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp\_%'"
_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema')"

_COLUMNS = """
coalesce((SELECT json_agg(a.attname ORDER BY k.i)
          FROM unnest({numbers}) WITH ORDINALITY AS k (number, i)
          JOIN pg_attribute a ON a.attrelid = {table} AND a.attnum = k.number), '[]')"""

# Calls no function that opens a relation, as pg_get_expr() may: it would wait for that
# relation's locks.
_FIELDS = {
    "server": "SELECT current_setting('server_version_num')::int",
    "path": f"SELECT name FROM ({SEARCH_PATH}) AS p WHERE name <> '' ORDER BY i",
    "schemas": f"SELECT nspname FROM pg_namespace n WHERE {_SHOWN}",
    "relations": f"""
        SELECT c.oid::bigint, n.nspname, c.relname, c.relkind, coalesce(i.indrelid, 0)::bigint,
            CASE WHEN d.partdefid IS NOT NULL THEN 'default'
                WHEN c.relispartition AND i.indrelid IS NULL THEN 'partition' ELSE '' END,
            {_COLUMNS.format(numbers="i.indkey::int2[]", table="i.indrelid")}
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        LEFT JOIN pg_partitioned_table d ON d.partdefid = c.oid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') AND {_SHOWN}
        ORDER BY c.oid""",
    "children": "SELECT inhrelid::bigint, inhparent::bigint FROM pg_inherits ORDER BY 1",
    "foreign_keys": f"""
        SELECT oid::bigint, conname, conrelid::bigint,
            {_COLUMNS.format(numbers="conkey", table="conrelid")}, confrelid::bigint,
            {_COLUMNS.format(numbers="confkey", table="confrelid")}, conindid::bigint,
            conparentid::bigint, confdeltype, confupdtype
        FROM pg_constraint WHERE contype = 'f' ORDER BY oid""",
    "uses": """
        SELECT r.ev_class::bigint, d.refobjid::bigint,
            coalesce(json_agg(a.attname) FILTER (WHERE a.attname IS NOT NULL), '[]')
        FROM pg_rewrite r JOIN pg_depend d
            ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
        JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
        JOIN pg_namespace n ON n.oid = v.relnamespace
        LEFT JOIN pg_attribute a
            ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
        WHERE r.ev_type = '1' AND """
    + _OURS
    + " GROUP BY 1, 2 ORDER BY 1, 2",
    "programs": f"""
        SELECT tgrelid::bigint, 'trigger', tgname, tgtype::int & 60, tgtype::int & 64 <> 0
        FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'
        UNION ALL
        SELECT r.ev_class::bigint, 'rule', r.rulename,
            CASE r.ev_type WHEN '2' THEN 16 WHEN '3' THEN 4 WHEN '4' THEN 8 ELSE 0 END, r.is_instead
        FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.ev_type <> '1' AND {_OURS}""",
    "statistics": """
        SELECT n.nspname, s.stxname, s.stxrelid::bigint
        FROM pg_statistic_ext s
        JOIN pg_namespace n ON n.oid = s.stxnamespace""",
    "not_null_checks": """
        SELECT c.conrelid::bigint, c.conname, a.attname, c.convalidated
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'c' AND cardinality(c.conkey) = 1 AND NOT c.connoinherit
            AND c.conbin::text LIKE '{NULLTEST :arg {VAR %} :nulltesttype 1 :argisrow false %'""",
    "functions": f"""
        SELECT DISTINCT n.nspname, p.proname
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE p.provolatile = 'v' AND p.prokind IN ('f', 'a', 'w') AND {_OURS}""",
}


def _as_json(sql: str) -> str:
    """The rows of *sql* as one JSON array of arrays."""
    return (
        "(SELECT coalesce(json_agg((SELECT json_agg(v.value ORDER BY v.i)"
        " FROM json_each(row_to_json(q)) WITH ORDINALITY"
        f" AS v (key, value, i))), '[]')::text FROM ({sql}) AS q)"
    )


_QUERY = f"SELECT {', '.join(map(_as_json, _FIELDS.values()))}"


def take_inventory(ask: Ask) -> Inventory:
    """Read the current catalog; *ask* returns the rows of a query, as `Session.query` does.

    :raises DatabaseRefused: the server refused the query
    """
    [row] = ask(_QUERY)
    return read_inventory({name: loads(value) for name, value in zip(_FIELDS, row, strict=True)})
