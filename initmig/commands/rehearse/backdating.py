"""Moves times in rows that earlier migrations wrote into the past.

`now()` is the start time of a transaction. `migrate` begins a transaction for each migration. A
rehearsal is one transaction for all of them, so `now()` never changes.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from initmig.core.quoting import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    Query = Callable[[str], Sequence[tuple[Any, ...]]]
    """Returns the rows of a query in the rehearsal's transaction; none if the server refuses it."""

_MOST_MILLISECONDS = 50_000
"""Less than a minute: `shared_transaction` recognizes the transaction's time by its second."""

# A savepoint's id is higher than the previous savepoint's id, and lower than the ids of savepoints
# inside it.
_MIGRATION_NUMBER = """pg_catalog.width_bucket(OPERATOR(pg_catalog.-) pg_catalog.age(xmin), ARRAY(
    SELECT OPERATOR(pg_catalog.-) pg_catalog.age(xmin) FROM {log}
    WHERE pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) 0 ORDER BY 1))"""
"""SQL for the number, from 1, of the migration that wrote a row in this transaction."""

_COLUMNS = """
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(a.attname),
    format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
    AND c.oid IN (SELECT relation FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'relation')
    AND pg_stat_get_xact_tuples_inserted(c.oid)
        + pg_stat_get_xact_tuples_updated(c.oid)
        > 0
    AND a.atttypid IN ('timestamptz'::regtype,
        'timestamp'::regtype)
    AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = ''
    AND c.oid NOT IN (SELECT oid FROM (VALUES {excluded}) AS given (name)
        JOIN pg_class ON oid = to_regclass(name))
ORDER BY 1, 2"""


class Backdating:
    """Replaces the transaction's `now()` with an earlier time in the rows that it wrote.

    The rows of each migration get a different time, in the order of the migrations, which the *log*
    shows. The *excluded* tables stay unchanged. *log* and *excluded* are SQL.

    *query_catalogs* looks up names in pg_catalog only. *query* uses the user's search path, which
    triggers on the changed tables need.
    """

    def __init__(
        self, query: Query, query_catalogs: Query, *, log: str, excluded: Collection[str]
    ) -> None:
        self._query = query
        self._query_catalogs = query_catalogs
        self._log = log
        self._excluded = ", ".join(f"({quote_literal(each)})" for each in excluded)

    def apply(self) -> bool:
        """Change the rows. Return whether such rows exist and the server allowed all changes."""
        columns = self._query_catalogs(_COLUMNS.format(excluded=self._excluded))
        updates = tuple(_updates(columns, self._log))
        if not updates:
            return False
        # triggers would make changes that no migration contains: disable them if the role can
        for setting in ("SET LOCAL session_replication_role = replica;", ""):
            if rows := self._query(setting + _combined(updates)):
                self._query("SET LOCAL session_replication_role TO DEFAULT")
                return bool(rows[0][0])
        return False


def _updates(columns: Iterable[tuple[str, str, str]], log: str) -> Iterator[str]:
    milliseconds = (
        f"({_MOST_MILLISECONDS} OPERATOR(pg_catalog.-) {_MIGRATION_NUMBER.format(log=log)})"
    )
    earlier = f"OPERATOR(pg_catalog.-) ({milliseconds} OPERATOR(pg_catalog.*) INTERVAL '1 ms')"
    for table, of_table in groupby(columns, lambda column: column[0]):
        times = {name: _is_own_time(name, type) for _, name, type in of_table}
        assignments = ", ".join(
            f"{name} = CASE WHEN {is_own} THEN {name} {earlier} ELSE {name} END"
            for name, is_own in times.items()
        )
        yield (
            f"UPDATE ONLY {table} SET {assignments} WHERE ({' OR '.join(times.values())})"
            " AND pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) 0 RETURNING 1"
        )


def _is_own_time(column: str, type: str) -> str:
    """The condition that *column* has the transaction's time, with the precision of its *type*."""
    times = ["pg_catalog.now()"]
    if type.endswith("without time zone"):
        times.append("(pg_catalog.now() AT TIME ZONE 'UTC')")
    own = ", ".join(f"{time}::{type}" for time in times)
    return f"{column} OPERATOR(pg_catalog.=) ANY (ARRAY[{own}])"


def _combined(updates: Sequence[str]) -> str:
    ctes = ", ".join(f"backdated_{number} AS ({sql})" for number, sql in enumerate(updates))
    counts = [f"(SELECT pg_catalog.count(*) FROM backdated_{n})" for n in range(len(updates))]
    return f"WITH {ctes} SELECT {' OPERATOR(pg_catalog.+) '.join(counts)}"
