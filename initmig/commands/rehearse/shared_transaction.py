"""Failures that a migration has only because it shares its transaction with earlier ones.

A rehearsal is one transaction, and `migrate` makes one for each migration.
docs/reference/rehearse.md lists what differs. A reason needs proof: what the
migration collided with must still be there after the migration was rolled back. Then an earlier one
made it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from initmig.commands.rehearse.impact import WhyNot
from initmig.core.quoting import quote_identifier, quote_literal
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.core.errors import Problem

    Ask = Callable[[str], Sequence[tuple[Any, ...]]]
    """Gives the rows of a query in the rehearsal's transaction; none if the server refuses it."""

_NEW_ENUM_VALUE = WhyNot(
    "new-enum-value",
    "uses an enum value that an earlier migration adds: PostgreSQL allows that after a commit only",
)
_TRANSACTION_TIME = WhyNot(
    "transaction-time",
    "repeats the transaction time or id that an earlier migration used: in `migrate`, each"
    " migration has its own",
)
_OWN_TRANSACTION = WhyNot(
    "own-transaction",
    "must run first in a transaction",
)
_LOCK_TABLE_FULL = WhyNot(
    "lock-table-full",
    "needs more locks than the server has room for (max_locks_per_transaction), because the"
    " rehearsal still holds the locks of all earlier migrations",
)

_NEEDS_NO_QUERY_BEFORE = r"(?i)SET\s+((LOCAL|SESSION)\s+)?TRANSACTION"
_SETS = r"(?i)(SET|RESET)\b"
_EXPORTS_SNAPSHOT = r"(?i)\bpg_export_snapshot\b"
_NEEDS_NO_WRITES_BEFORE = r"(?i).*\bpg_create_logical_replication_slot\b"
_MOST_CHARACTERS = 1 << 20
"""Of a statement that are searched for names: what comes later is data."""

_CLOCKS = (
    r"\m(now|current_(date|time|timestamp)|localtime(stamp)?|transaction_timestamp"
    r"|txid_\w+|pg_current_(xact|snapshot)\w*)\M"
)
"""For the server: whatever gives the time or the id of the transaction."""

_QUOTES = r"""\s*["'`«»„“”]\s*"""
"""Around a name in a message, in the languages that PostgreSQL speaks."""

# Whatever is made in this transaction, or in a later one, is younger than its id.
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
"""Where the names are that a migration may make of the time, by catalog."""


class Failure(Record):
    """One migration's failure, after it was rolled back."""

    problem: Problem
    statement: str
    """The SQL of what failed, of Python the whole file."""
    before: Sequence[str]
    """The SQL of what the migration had run before that."""
    is_first: bool
    """Whether no migration ran in the transaction before."""
    is_python: bool
    may_set_transaction: bool
    """Whether in `migrate` no query comes before it in its transaction."""

    @property
    def words(self) -> str:
        """What the server said, without the migration's id."""
        return self.problem.message.partition(" failed: ")[2]


def only_here(failure: Failure, ask: Ask) -> WhyNot | None:
    """Why *failure* would not have happened in `migrate`; None where nothing proves that."""
    look = _LOOKS.get(failure.problem.server.sqlstate)
    if failure.is_first and look is not _own_transaction:
        return None
    return look(failure, ask) if look else None


def _new_enum_value(failure: Failure, ask: Ask) -> WhyNot | None:
    words = _quoted_alike(failure.words)
    is_earlier = any(
        _quoted_alike(f'"{label}"') in words and _names(words, type)
        for label, type in ask(_NEW_ENUM_VALUES)
    )
    return _NEW_ENUM_VALUE if is_earlier else None


def _names(words: str, type: str) -> bool:
    name = re.escape(_quoted_alike(quote_identifier(type)[1:-1]))
    return bool(re.search(rf"(?<!\w){name}(?!\w)", words))


def _quoted_alike(text: str) -> str:
    return re.sub(_QUOTES, '"', text)


def _same_key(failure: Failure, ask: Ask) -> WhyNot | None:
    server = failure.problem.server
    value = server.detail.rpartition(")=(")[2].rpartition(")")[0]
    if not (server.table and re.search(_marks(ask), value)):
        return None
    table = f"{quote_identifier(server.schema)}.{quote_identifier(server.table)}"
    is_earlier = (where := _where(server.constraint, table, value, ask)) and ask(
        f"SELECT 1 FROM {table} WHERE {where} LIMIT 1"
    )
    may_be_clock = is_earlier and ask(_may_use_clock(failure.statement, table))
    return _TRANSACTION_TIME if may_be_clock else None


def _where(constraint: str, table: str, value: str, ask: Ask) -> str:
    """The condition for the row whose key has this *value*; empty where it cannot be made."""
    keys = ask(
        "SELECT pg_get_indexdef(i.indexrelid, n, true) FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid,"
        " generate_series(1, i.indnkeyatts) AS n"
        f" WHERE c.relname = {quote_literal(constraint)}"
        f" AND i.indrelid = {quote_literal(table)}::regclass"
        " ORDER BY n"
    )
    values = value.split(", ")
    if len(keys) != len(values):  # one of them has a comma in it
        return ""
    return " AND ".join(
        f"({key}) IS NULL" if each == "null" else f"({key}) = {quote_literal(each)}"
        for (key,), each in zip(keys, values, strict=True)
    )


def _may_use_clock(statement: str, table: str) -> str:
    """The query that has a row unless *statement* certainly takes no time or id from the server.

    By itself, by a default of the *table*, or in a trigger, view or function that it names.
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


def _same_name(failure: Failure, ask: Ask) -> WhyNot | None:
    marks = _marks(ask)
    names = [each for each in re.split(_QUOTES, failure.words) if re.search(marks, each)]
    looks = (
        f"SELECT 1 FROM {catalog} WHERE {column} = {quote_literal(name)}"
        for name in names
        for catalog, column in _NAMES.items()
    )
    is_earlier = names and ask(" UNION ALL ".join(looks))
    return _TRANSACTION_TIME if is_earlier else None


def _marks(ask: Ask) -> str:
    """What matches the time of the transaction that asks, or its id, in a text."""
    [row] = ask(_TIME_AND_ID)
    return own_marks(*row)


def own_marks(second: str, micros: str, epoch: str, xid: str) -> str:
    """What matches, in a text, the time that has this *second* and these *micros*, or the *xid*.

    *epoch* is the time in seconds. A time counts if it has milliseconds, cut off or rounded: to the
    second, it is also that of other transactions. Hours and minutes depend on the time zone.
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


def _own_transaction(failure: Failure, _: Ask) -> WhyNot | None:
    exports = re.search(_EXPORTS_SNAPSHOT, failure.statement)
    begins = failure.may_set_transaction and all(re.match(_SETS, each) for each in failure.before)
    starts = failure.is_python or any(
        re.match(each, failure.statement, re.DOTALL)
        for each in (_NEEDS_NO_QUERY_BEFORE, _NEEDS_NO_WRITES_BEFORE)
    )
    return _OWN_TRANSACTION if exports or (begins and starts) else None


def _lock_table_full(_: Failure, ask: Ask) -> WhyNot | None:
    # a count of no columns has one row, or none by HAVING
    return _LOCK_TABLE_FULL if ask(_HOLDS_MANY_LOCKS) else None


_LOOKS: dict[str, Callable[[Failure, Ask], WhyNot | None]] = {
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
