"""Observes the current transaction through the server's views: its locks, files, scans and rows.

https://www.postgresql.org/docs/current/view-pg-locks.html, and
https://www.postgresql.org/docs/current/monitoring-stats.html for `pg_stat_get_xact_...`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from initmig.commands.rehearse.impact import Footprint, Relation, TableImpact, impacts
from initmig.core.quoting import quote_literal
from initmig.sql.locks import LOCK_MODES, strongest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Query = Callable[[str], list[tuple[Any, ...]]]

# Runs with the user's search path, so that tables are named as users write them. Therefore each
# name in this query is qualified.
_RELATIONS = """
SELECT c.oid::bigint, coalesce(i.indrelid, c.oid)::bigint,
    c.oid::pg_catalog.regclass::pg_catalog.text, pg_catalog.pg_relation_filenode(c.oid)::bigint
FROM pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE pg_catalog.strpos('rpmfviI', c.relkind::pg_catalog.text) OPERATOR(pg_catalog.>) 0
    AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'
    AND n.nspname OPERATOR(pg_catalog.<>) 'pg_toast'
    AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'"""

_OIDS = """
SELECT to_regclass(name)::oid::bigint FROM (VALUES {names}) AS given (name)"""

_FOOTPRINTS = """
SELECT relation::bigint, modes, pg_relation_filenode(relation)::bigint,
    pg_stat_get_xact_numscans(relation),
    pg_stat_get_xact_tuples_returned(relation),
    pg_stat_get_xact_tuples_inserted(relation)
        + pg_stat_get_xact_tuples_updated(relation)
        + pg_stat_get_xact_tuples_deleted(relation)
FROM (SELECT relation, string_agg(mode, ' ') AS modes FROM pg_locks
      WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
          AND database <> 0
      GROUP BY relation) AS locked"""

_MODES = {f"{mode.title().replace(' ', '')}Lock": mode for mode in LOCK_MODES}
"""The lock modes as written in SQL, by their names in pg_locks."""


class Observer:
    """Observes the tables that exist when the observer is created.

    *query* and *query_catalogs* return the rows of a query in the observed transaction. The second
    looks up names in pg_catalog only. The *excluded* tables, as SQL, are left out.
    """

    def __init__(self, query: Query, query_catalogs: Query, *, excluded: Collection[str]) -> None:
        self._query_catalogs = query_catalogs
        self._footprints = self._read_footprints()
        names = ", ".join(f"({quote_literal(each)})" for each in excluded)
        excluded_oids = {oid for (oid,) in query_catalogs(_OIDS.format(names=names))}
        rows = [row for row in query(_RELATIONS) if row[1] not in excluded_oids]
        self._relations = {oid: Relation(*relation) for oid, *relation in rows}
        self._held: dict[int, str] = {}

    def _read_footprints(self) -> dict[int, Footprint]:
        return {
            oid: Footprint(frozenset(_MODES[m] for m in modes.split() if m in _MODES), *rest)
            for oid, modes, *rest in self._query_catalogs(_FOOTPRINTS)
        }

    def begin_migration(self) -> tuple[tuple[str, str], ...]:
        """Start to observe a migration. Return the tables that are locked already, with modes."""
        self._held = {}
        self._footprints = self._read_footprints()
        modes: dict[str, set[str]] = {}
        for oid, footprint in self._footprints.items():
            if relation := self._relations.get(oid):
                name = self._relations[relation.table].name
                modes.setdefault(name, set()).update(footprint.modes)
        return tuple(sorted((name, strongest(each)) for name, each in modes.items() if each))

    def impacts(self) -> tuple[TableImpact, ...]:
        """The effects on tables since the last call, sorted by the names of the tables."""
        before, self._footprints = self._footprints, self._read_footprints()
        found = impacts(self._relations, before, self._footprints, self._held)
        for oid, impact in found.items():
            self._held[oid] = strongest((self._held.get(oid, ""), impact.lock))
        return tuple(sorted(found.values()))
