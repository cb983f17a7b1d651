"""What the server tells of the transaction that asks: its locks, files, scans and rows.

https://www.postgresql.org/docs/current/view-pg-locks.html, and
https://www.postgresql.org/docs/current/monitoring-stats.html for `pg_stat_get_xact_...`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from initmig.quoting import quote_literal
from initmig.rehearsal.impact import Footprint, Relation, TableImpact, impacts
from initmig.sql.locks import LOCK_MODES, strongest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Ask = Callable[[str], list[tuple[Any, ...]]]

# The names are written out: a migration may have set the search path.
_RELATIONS = """
SELECT c.oid::bigint, coalesce(i.indrelid, c.oid)::bigint, c.oid::regclass::text,
    pg_catalog.pg_relation_filenode(c.oid)::bigint
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'f', 'v', 'i', 'I')
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')"""

_OIDS = """
SELECT pg_catalog.to_regclass(name)::oid::bigint FROM (VALUES {names}) AS given (name)"""

_FOOTPRINTS = """
SELECT relation::bigint, modes, pg_catalog.pg_relation_filenode(relation)::bigint,
    pg_catalog.pg_stat_get_xact_numscans(relation),
    pg_catalog.pg_stat_get_xact_tuples_returned(relation),
    pg_catalog.pg_stat_get_xact_tuples_inserted(relation)
        + pg_catalog.pg_stat_get_xact_tuples_updated(relation)
        + pg_catalog.pg_stat_get_xact_tuples_deleted(relation)
FROM (SELECT relation, pg_catalog.string_agg(mode, ' ') AS modes FROM pg_catalog.pg_locks
      WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND granted
          AND database <> 0
      GROUP BY relation) AS locked"""

_MODES = {f"{mode.title().replace(' ', '')}Lock": mode for mode in LOCK_MODES}
"""The words of SQL by those of pg_locks."""


class Observer:
    """Tells what happened to the tables that are there when it is made.

    *ask* gives the rows of a query in the transaction that is observed. The tables *besides*, as
    SQL, are left out.
    """

    def __init__(self, ask: Ask, *, besides: Collection[str]) -> None:
        self._ask = ask
        self._seen = self._look()
        names = ", ".join(f"({quote_literal(each)})" for each in besides)
        left_out = {oid for (oid,) in ask(_OIDS.format(names=names))}
        rows = [row for row in ask(_RELATIONS) if row[1] not in left_out]
        self._relations = {oid: Relation(*relation) for oid, *relation in rows}
        self._held: dict[int, str] = {}

    def _look(self) -> dict[int, Footprint]:
        return {
            oid: Footprint(frozenset(_MODES[m] for m in modes.split() if m in _MODES), *rest)
            for oid, modes, *rest in self._ask(_FOOTPRINTS)
        }

    def begin_migration(self) -> tuple[tuple[str, str], ...]:
        """The tables that are locked already, and the modes."""
        self._held = {}
        self._seen = self._look()
        modes: dict[str, set[str]] = {}
        for oid, footprint in self._seen.items():
            if relation := self._relations.get(oid):
                name = self._relations[relation.table].name
                modes.setdefault(name, set()).update(footprint.modes)
        return tuple(sorted((name, strongest(each)) for name, each in modes.items() if each))

    def impacts(self) -> tuple[TableImpact, ...]:
        """What happened since the last look, by the names of the tables."""
        before, self._seen = self._seen, self._look()
        found = impacts(self._relations, before, self._seen, self._held)
        for oid, impact in found.items():
            self._held[oid] = strongest((self._held.get(oid, ""), impact.lock))
        return tuple(sorted(found.values()))
