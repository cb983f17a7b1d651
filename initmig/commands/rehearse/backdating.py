"""An earlier time for what earlier migrations wrote.

`now()` is the time at which a transaction began. `migrate` begins one for each migration, and a
rehearsal one for all of them, in which `now()` never moves.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from initmig.core.quoting import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    Ask = Callable[[str], Sequence[tuple[Any, ...]]]
    """Gives the rows of a query in the rehearsal's transaction; none if the server refuses it."""

_MOST_MILLISECONDS = 50_000
"""Less than a minute, as `merging` knows the transaction's own time by its second."""

# A savepoint's id is higher than that of the one before, and lower than those inside of it.
_NUMBER = """pg_catalog.width_bucket(OPERATOR(pg_catalog.-) pg_catalog.age(xmin), ARRAY(
    SELECT OPERATOR(pg_catalog.-) pg_catalog.age(xmin) FROM {log}
    WHERE pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) 0 ORDER BY 1))"""
"""Which of the migrations that logged their end in this transaction wrote a row, from 1."""

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
    AND c.oid NOT IN (SELECT oid FROM (VALUES {besides}) AS given (name)
        JOIN pg_class ON oid = to_regclass(name))
ORDER BY 1, 2"""


class Aging:
    """Moves the transaction's own time in the rows that it wrote, so that `now()` is later.

    The rows of each migration get a time of their own, in order. It is told from the *log* of the
    migrations, and the tables *besides* are left alone; all are SQL. To *look*, names are those of
    pg_catalog; to *ask* they are what they are to the triggers that the changes may set off.
    """

    def __init__(self, ask: Ask, look: Ask, *, log: str, besides: Collection[str]) -> None:
        self._ask = ask
        self._look = look
        self._log = log
        self._besides = ", ".join(f"({quote_literal(each)})" for each in besides)

    def age(self) -> bool:
        """Whether there were such rows, and the server let all of them be changed."""
        columns = self._look(_COLUMNS.format(besides=self._besides))
        updates = tuple(_updates(columns, self._log))
        if not updates:
            return False
        # triggers would do what no migration has asked for, where the role may keep them from it
        for setting in ("SET LOCAL session_replication_role = replica;", ""):
            if rows := self._ask(setting + _all_of(updates)):
                self._ask("SET LOCAL session_replication_role TO DEFAULT")
                return bool(rows[0][0])
        return False


def _updates(columns: Iterable[tuple[str, str, str]], log: str) -> Iterator[str]:
    milliseconds = f"({_MOST_MILLISECONDS} OPERATOR(pg_catalog.-) {_NUMBER.format(log=log)})"
    earlier = f"OPERATOR(pg_catalog.-) ({milliseconds} OPERATOR(pg_catalog.*) INTERVAL '1 ms')"
    for table, of_table in groupby(columns, lambda column: column[0]):
        times = {name: _own_times(name, type) for _, name, type in of_table}
        made = ", ".join(
            f"{name} = CASE WHEN {is_own} THEN {name} {earlier} ELSE {name} END"
            for name, is_own in times.items()
        )
        yield (
            f"UPDATE ONLY {table} SET {made} WHERE ({' OR '.join(times.values())})"
            " AND pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) 0 RETURNING 1"
        )


def _own_times(column: str, type: str) -> str:
    """The condition that *column* has the transaction's time, as precisely as its *type* does."""
    times = ["pg_catalog.now()"]
    if type.endswith("without time zone"):
        times.append("(pg_catalog.now() AT TIME ZONE 'UTC')")
    own = ", ".join(f"{time}::{type}" for time in times)
    return f"{column} OPERATOR(pg_catalog.=) ANY (ARRAY[{own}])"


def _all_of(updates: Sequence[str]) -> str:
    ctes = ", ".join(f"aged_{number} AS ({sql})" for number, sql in enumerate(updates))
    counts = [f"(SELECT pg_catalog.count(*) FROM aged_{n})" for n in range(len(updates))]
    return f"WITH {ctes} SELECT {' OPERATOR(pg_catalog.+) '.join(counts)}"
