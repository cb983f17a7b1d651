"""Finds out from PostgreSQL's catalog whether an interrupted statement completed.

This is for statements that cannot run in a transaction and therefore cannot be recorded in one. It
also removes leftovers, such as an invalid index.
"""

import time
from collections.abc import Collection, Iterator

from initmig.core.records import Record
from initmig.postgres import Session, quote_literal
from initmig.sql.statements import (
    CreateIndex,
    Creates,
    DetachConcurrently,
    DropIndexConcurrently,
    Drops,
    Kind,
    ReindexConcurrently,
)

CONCURRENT = (CreateIndex, DropIndexConcurrently, ReindexConcurrently, DetachConcurrently)
"""Statements that wait for every older transaction without blocking other sessions."""

_INDEXES = """
SELECT i.indexrelid::bigint, format('%I.%I', n.nspname, c.relname),
    i.indisvalid, coalesce(parent.oid, i.indrelid)::regclass::text
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class parent ON parent.reltoastrelid = i.indrelid
WHERE c.relkind = 'i' AND {condition} ORDER BY 1"""

# https://www.postgresql.org/docs/current/sql-reindex.html#SQL-REINDEX-CONCURRENTLY
# Indexes left in pg_toast are ignored. Few roles can drop them, and they do no harm.
_REINDEX_LEFTOVERS = (
    r"NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'"
    " AND has_schema_privilege(n.oid, 'USAGE')"
)

# A table, its partitions, and their TOAST tables.
_TABLES_OF = """
WITH RECURSIVE tables AS (
    SELECT {table}::oid AS oid
    UNION SELECT inhrelid FROM pg_inherits JOIN tables ON inhparent = tables.oid)
SELECT oid FROM tables UNION SELECT reltoastrelid FROM pg_class JOIN tables USING (oid)"""

_PARTITION_STATE = """
SELECT CASE WHEN inhdetachpending THEN 'pending' ELSE 'attached' END FROM pg_inherits
WHERE inhparent = {table} AND inhrelid = {partition}"""

_OID_QUERIES = {
    "database": "SELECT oid::text FROM pg_database WHERE datname = {name}",
    "tablespace": "SELECT oid::text FROM pg_tablespace WHERE spcname = {name}",
    "subscription": "SELECT oid::text FROM pg_subscription WHERE subname = {name}"
    " AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
}

# A session that builds an index holds this lock, and releases it just before its last commit.
_WAIT_FOR_BUILD = """
BEGIN;{preamble} LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE; COMMIT;
SELECT pg_catalog.pg_sleep(0.2)"""


# Prepared transactions of this role, which include those of the migration.
_PREPARED = """
SELECT quote_literal(gid) FROM pg_prepared_xacts
WHERE database = current_database() AND owner IN (current_user, session_user) AND {condition}
ORDER BY prepared, gid"""
_PREPARED_SINCE = "prepared > clock_timestamp() - {seconds} * interval '1 second'"
_NO_OID = "0"
"""An OID that no relation has."""

_NETWORK_SECONDS = 1.0
_BRIEF_SECONDS = 1.0


class _Index(Record):
    oid: int
    name: str
    valid: bool
    table: str


def snapshot(session: Session, kind: Kind | None) -> str:
    """The state of a statement's object in the catalog; empty if it does not exist."""
    match kind:
        case CreateIndex():
            return " ".join(str(index.oid) for index in _indexes_of(session, kind))
        case DropIndexConcurrently(names):
            oids = [oid for name in names if (oid := _oid(session, name)) != _NO_OID]
            return " ".join(oids)
        case DetachConcurrently(table, partition):
            return _text(
                session,
                _PARTITION_STATE.format(
                    table=_oid(session, table), partition=_oid(session, partition)
                ),
            )
        case Creates(what, name) | Drops(what, name):
            return _text(session, _OID_QUERIES[what].format(name=quote_literal(name)))
        case _:
            return ""


def was_done(session: Session, kind: Kind | None, before: str) -> bool:
    """Whether a statement completed after the `snapshot` *before*.

    False if the catalog cannot show it. Such a statement runs again.
    """
    match kind:
        case CreateIndex():
            known = before.split()
            found = _indexes_of(session, kind)
            return any(each.valid and str(each.oid) not in known for each in found)
        case DropIndexConcurrently() | DetachConcurrently() | Creates() | Drops():
            return snapshot(session, kind) != before
        case _:
            return False


def remove_leftovers(session: Session, kind: Kind | None, before: str | None) -> Iterator[str]:
    """Remove the leftovers of an interrupted attempt, and yield a description of each.

    *before* is the `snapshot` from before that attempt, or None if unknown. If another session
    still runs the statement, such as the session of a killed client, this waits for it.
    """
    for oid, name, _, table in _leftover_indexes(session, kind, before):
        session.run(_WAIT_FOR_BUILD.format(preamble=session.preamble, table=table))
        if _indexes_where(session, f"i.indexrelid = {oid} AND NOT i.indisvalid"):
            session.run(f"DROP INDEX CONCURRENTLY {name}")
            yield f"the invalid index {name}"
    if isinstance(kind, DetachConcurrently) and snapshot(session, kind) == "pending":
        session.run(f"ALTER TABLE {kind.table} DETACH PARTITION {kind.partition} FINALIZE")
        yield f"the half-detached state of {kind.partition}"


def prepared_transactions(session: Session) -> tuple[str, ...]:
    """The open prepared transactions of this role, as SQL literals."""
    return _prepared(session, "true")


def still_prepared(session: Session, before: Collection[str]) -> tuple[str, ...]:
    """The prepared transactions that are not in *before* and are still open after a second.

    An application that uses the same role may prepare short-lived transactions.
    """
    return _outlasting_a_second(session, set(prepared_transactions(session)) - set(before))


def recently_prepared(session: Session, seconds: float) -> tuple[str, ...]:
    """The transactions prepared within the last *seconds* that are still open after a second."""
    newer = _PREPARED_SINCE.format(seconds=seconds + _NETWORK_SECONDS)
    return _outlasting_a_second(session, _prepared(session, newer))


def _outlasting_a_second(session: Session, found: Collection[str]) -> tuple[str, ...]:
    if not found:
        return ()
    time.sleep(_BRIEF_SECONDS)
    return tuple(gid for gid in prepared_transactions(session) if gid in found)


def _prepared(session: Session, condition: str) -> tuple[str, ...]:
    return tuple(gid for (gid,) in session.query(_PREPARED.format(condition=condition)))


def _leftover_indexes(session: Session, kind: Kind | None, before: str | None) -> list[_Index]:
    match kind:
        case CreateIndex(name) if name or before is not None:
            # an older index without a name does not belong to this statement
            others = () if name else (before or "").split()
            found = _indexes_of(session, kind)
            return [each for each in found if not each.valid and str(each.oid) not in others]
        case ReindexConcurrently():
            return _indexes_where(session, f"{_REINDEX_LEFTOVERS} AND {_target(session, kind)}")
        case _:
            return []


def _indexes_of(session: Session, kind: CreateIndex) -> list[_Index]:
    """The indexes on the statement's table with its name, or all if the statement has no name."""
    condition = f"i.indrelid = {_oid(session, kind.table)}"
    if kind.name:
        condition += f" AND c.relname = {quote_literal(kind.name)}"
    return _indexes_where(session, condition)


def _target(session: Session, kind: ReindexConcurrently) -> str:
    if kind.what == "index":
        index = _oid(session, kind.name)
        table = f"(SELECT indrelid FROM pg_index WHERE indexrelid = {index})"
    elif kind.what == "table":
        table = _oid(session, kind.name)
    elif kind.what == "schema":
        name = quote_literal(kind.name)
        return f"coalesce(parent.relnamespace, c.relnamespace) = to_regnamespace({name})"
    else:
        return "true"
    return f"i.indrelid IN ({_TABLES_OF.format(table=table)})"


def _indexes_where(session: Session, condition: str) -> list[_Index]:
    return [_Index(*row) for row in session.query(_INDEXES.format(condition=condition))]


def _oid(session: Session, name: str) -> str:
    """The OID of the relation *name*, in SQL and by the user's search path, or `_NO_OID`."""
    query = f"SELECT pg_catalog.to_regclass({quote_literal(name)})::pg_catalog.oid"
    [(oid,)] = session.query(query, by_path=True)
    return str(oid or _NO_OID)


def _text(session: Session, query: str) -> str:
    rows = session.query(query)
    return str(rows[0][0]) if rows else ""
