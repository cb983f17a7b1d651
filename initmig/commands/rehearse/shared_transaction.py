"""Finds failures that happen only because a migration shares its transaction with earlier ones.

A rehearsal is one transaction, and `migrate` begins one for each migration.
docs/reference/rehearse.md lists the differences. A reason needs proof: the conflicting object must
still exist after the migration was rolled back. Then an earlier migration created it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from initmig.commands.rehearse.impact import NotRehearsed
from initmig.core.quoting import quote_identifier, quote_literal
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.core.errors import Problem

    Query = Callable[[str], Sequence[tuple[Any, ...]]]
    """Returns the rows of a query in the rehearsal's transaction; none if the server refuses it."""

_NEW_ENUM_VALUE = NotRehearsed(
    "new-enum-value",
    "uses an enum value that an earlier migration adds: PostgreSQL allows that after a commit only",
)
_TRANSACTION_TIME = NotRehearsed(
    "transaction-time",
    "repeats the transaction time or id that an earlier migration used: in `migrate`, each"
    " migration has its own",
)
_OWN_TRANSACTION = NotRehearsed(
    "own-transaction",
    "must run first in a transaction",
)
_LOCK_TABLE_FULL = NotRehearsed(
    "lock-table-full",
    "needs more locks than the server has room for (max_locks_per_transaction), because the"
    " rehearsal still holds the locks of all earlier migrations",
)

_NEEDS_NO_QUERY_BEFORE = r"(?i)SET\s+((LOCAL|SESSION)\s+)?TRANSACTION"
_SETS = r"(?i)(SET|RESET)\b"
_EXPORTS_SNAPSHOT = r"(?i)\bpg_export_snapshot\b"
_NEEDS_NO_WRITES_BEFORE = r"(?i).*\bpg_create_logical_replication_slot\b"
_MOST_CHARACTERS = 1 << 20
"""The part of a statement that is searched for names. The rest is data."""

_CLOCKS = (
    r"\m(now|current_(date|time|timestamp)|localtime(stamp)?|transaction_timestamp"
    r"|txid_\w+|pg_current_(xact|snapshot)\w*)\M"
)
"""A PostgreSQL pattern for functions that return the time or the id of the transaction."""

_QUOTES = r"""\s*["'`«»„“”]\s*"""
"""Quotes around a name, in the languages of PostgreSQL's messages."""

# Rows that this transaction, or a later one, wrote have an age of 0 or less.
_NEW_ENUM_VALUES = """
SELECT e.enumlabel::text, t.typname::text FROM pg_enum e
JOIN pg_type t ON t.oid = e.enumtypid
WHERE age(e.xmin) <= 0"""

_TIME_AND_ID = """
SELECT to_char(now(), 'SS'), to_char(now(), 'US'),
    floor(EXTRACT(epoch FROM now()))::bigint::text,
    txid_current()::text"""

_HOLDS_MANY_LOCKS = """
SELECT count(*) FROM pg_locks
WHERE pid = pg_backend_pid() AND NOT fastpath
HAVING count(*) >
    current_setting('max_locks_per_transaction')::int"""

_NAMES = {
    "pg_class": "relname",
    "pg_namespace": "nspname",
    "pg_constraint": "conname",
    "pg_type": "typname",
    "pg_proc": "proname",
    "pg_attribute": "attname",
    "pg_roles": "rolname",
    "pg_trigger": "tgname",
    "pg_policy": "polname",
    "pg_publication": "pubname",
    "pg_statistic_ext": "stxname",
}
"""Names that a migration could build from the time: the column of each catalog."""


class Failure(Record):
    """One migration's failure, after it was rolled back."""

    problem: Problem
    statement: str
    """The SQL that failed; for Python the whole file."""
    before: Sequence[str]
    """The SQL that the migration ran before."""
    is_first: bool
    """Whether no migration ran in the transaction before it."""
    is_python: bool
    may_set_transaction: bool
    """Whether `migrate` sends no query before it in its transaction."""

    @property
    def words(self) -> str:
        """The server's message, without the migration's id."""
        return self.problem.message.partition(" failed: ")[2]


def find_reason(failure: Failure, query: Query) -> NotRehearsed | None:
    """The reason why `migrate` would not meet *failure*, or None if nothing proves that."""
    check = _CHECKS.get(failure.problem.server.sqlstate)
    if failure.is_first and check is not _own_transaction:
        return None
    return check(failure, query) if check else None


def _new_enum_value(failure: Failure, query: Query) -> NotRehearsed | None:
    words = _quoted_alike(failure.words)
    is_earlier = any(
        _quoted_alike(f'"{label}"') in words and _names(words, type)
        for label, type in query(_NEW_ENUM_VALUES)
    )
    return _NEW_ENUM_VALUE if is_earlier else None


def _names(words: str, type: str) -> bool:
    name = re.escape(_quoted_alike(quote_identifier(type)[1:-1]))
    return bool(re.search(rf"(?<!\w){name}(?!\w)", words))


def _quoted_alike(text: str) -> str:
    return re.sub(_QUOTES, '"', text)


def _same_key(failure: Failure, query: Query) -> NotRehearsed | None:
    server = failure.problem.server
    value = server.detail.rpartition(")=(")[2].rpartition(")")[0]
    if not (server.table and re.search(_own_transaction_pattern(query), value)):
        return None
    table = f"{quote_identifier(server.schema)}.{quote_identifier(server.table)}"
    is_earlier = (where := _where(server.constraint, table, value, query)) and query(
        f"SELECT 1 FROM {table} WHERE {where} LIMIT 1"
    )
    may_be_clock = is_earlier and query(_may_use_clock(failure.statement, table))
    return _TRANSACTION_TIME if may_be_clock else None


def _where(constraint: str, table: str, value: str, query: Query) -> str:
    """The condition for the row whose key has this *value*; empty if it cannot be built."""
    keys = query(
        "SELECT pg_get_indexdef(i.indexrelid, n, true) FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid,"
        " generate_series(1, i.indnkeyatts) AS n"
        f" WHERE c.relname = {quote_literal(constraint)}"
        f" AND i.indrelid = {quote_literal(table)}::regclass"
        " ORDER BY n"
    )
    values = value.split(", ")
    if len(keys) != len(values):  # a value contains a comma
        return ""
    return " AND ".join(
        f"({key}) IS NULL" if each == "null" else f"({key}) = {quote_literal(each)}"
        for (key,), each in zip(keys, values, strict=True)
    )


def _may_use_clock(statement: str, table: str) -> str:
    """A query that returns a row if *statement* could use the server's time or transaction id.

    It could do that itself, by a default of the *table*, or in a trigger, view or function that it
    names.
    """
    words = quote_literal(" ".join(set(re.findall(r"\w+", statement[:_MOST_CHARACTERS]))))
    oid = f"{quote_literal(table)}::regclass"
    clocks = quote_literal(_CLOCKS)
    return f"""
        WITH word AS (SELECT string_to_table({words}, ' ') AS word)
        SELECT 1 WHERE {words} ~* {clocks}
        UNION ALL SELECT 1 FROM pg_event_trigger
        UNION ALL SELECT 1 FROM pg_attrdef
            WHERE adrelid = {oid}
            AND pg_get_expr(adbin, adrelid) ~* {clocks}
        UNION ALL SELECT 1 FROM pg_class c
            WHERE (c.oid = {oid} OR c.relname::text IN (TABLE word))
            AND (c.relkind = 'v' OR c.oid IN (
                SELECT tgrelid FROM pg_trigger WHERE NOT tgisinternal))
        UNION ALL SELECT 1 FROM pg_proc p
            WHERE p.proname::text IN (TABLE word)
            AND p.pronamespace::regnamespace::text
                NOT IN ('pg_catalog', 'information_schema')
        LIMIT 1"""


def _same_name(failure: Failure, query: Query) -> NotRehearsed | None:
    pattern = _own_transaction_pattern(query)
    names = [each for each in re.split(_QUOTES, failure.words) if re.search(pattern, each)]
    queries = (
        f"SELECT 1 FROM {catalog} WHERE {column} = {quote_literal(name)}"
        for name in names
        for catalog, column in _NAMES.items()
    )
    is_earlier = names and query(" UNION ALL ".join(queries))
    return _TRANSACTION_TIME if is_earlier else None


def _own_transaction_pattern(query: Query) -> str:
    """A pattern that finds the time or the id of the current transaction in a text."""
    [row] = query(_TIME_AND_ID)
    return transaction_pattern(*row)


def transaction_pattern(second: str, micros: str, epoch: str, xid: str) -> str:
    """A pattern that finds a time with this *second* and these *micros*, or the *xid*, in a text.

    *epoch* is the time in seconds. The pattern requires milliseconds, truncated or rounded, because
    other transactions can have the same second. It ignores hours and minutes, which depend on the
    time zone.
    """
    return "|".join(_patterns(second, micros, epoch, xid))


def _patterns(second: str, micros: str, epoch: str, xid: str) -> Iterator[str]:
    rounded = f"{(int(micros) + 500) // 1000 % 1000:03}"
    for fraction in {micros, micros[:3], rounded}:
        if short := fraction.rstrip("0"):
            yield rf":{second}\.{short}0*(?!\d)"
            yield rf"(?<!\d){epoch}\.{short}0*(?!\d)"
        yield rf"\d\d[-_:.]?{second}[-_:.]?{fraction}(?!\d)"
        yield rf"(?<!\d){epoch}{fraction}(?!\d)"
    yield rf"(?<!\d){xid}(?!\d)"


def _own_transaction(failure: Failure, _: Query) -> NotRehearsed | None:
    exports = re.search(_EXPORTS_SNAPSHOT, failure.statement)
    begins = failure.may_set_transaction and all(re.match(_SETS, each) for each in failure.before)
    starts = failure.is_python or any(
        re.match(each, failure.statement, re.DOTALL)
        for each in (_NEEDS_NO_QUERY_BEFORE, _NEEDS_NO_WRITES_BEFORE)
    )
    return _OWN_TRANSACTION if exports or (begins and starts) else None


def _lock_table_full(_: Failure, query: Query) -> NotRehearsed | None:
    # the count returns one row, or none because of HAVING
    return _LOCK_TABLE_FULL if query(_HOLDS_MANY_LOCKS) else None


_CHECKS: dict[str, Callable[[Failure, Query], NotRehearsed | None]] = {
    "55P04": _new_enum_value,  # unsafe_new_enum_value_usage
    "23505": _same_key,  # unique_violation
    "23P01": _same_key,  # exclusion_violation
    "42P07": _same_name,  # duplicate_table
    "42P06": _same_name,  # duplicate_schema
    "42710": _same_name,  # duplicate_object
    "42701": _same_name,  # duplicate_column
    "42723": _same_name,  # duplicate_function
    "25001": _own_transaction,  # active_sql_transaction
    "53200": _lock_table_full,  # out_of_memory
}
