"""Reads and writes the history: yoyo's tables, which decide, and initmig's additional table."""

from __future__ import annotations

from initmig.core.errors import DatabaseRefused
from initmig.core.home import LOG, own_table
from initmig.core.model import HOOK, UNDOING, AppliedMigration, Unfinished
from initmig.core.records import TYPE_CHECKING, Record
from initmig.history import trust
from initmig.postgres import UNDEFINED_COLUMN, UNDEFINED_TABLE, quote_identifier, quote_literal
from initmig.postgres.search_path import USER_PATH

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from initmig.core.home import Home
    from initmig.core.identity import Identity
    from initmig.core.model import Migration
    from initmig.postgres import Session

# All ids in one value take a third of the time of a row each, with thousands of migrations. An id
# is a file name, which has no slash. An id with a slash belongs to no migration, and appears only
# where rows are read.
_IDS = """
SELECT pg_catalog.string_agg(migration_id, '/')
        FILTER (WHERE pg_catalog.strpos(migration_id, '/') OPERATOR(pg_catalog.=) 0),
    {checksum}{hidden}
FROM {history}"""

# This is one message, even if the table does not exist, because the server looks up the tables in
# the text argument of ts_stat() only when it runs it.
_CHECKSUM = """
(SELECT word FROM pg_catalog.ts_stat(CASE
    WHEN pg_catalog.has_table_privilege(pg_catalog.to_regclass({own})::pg_catalog.oid, 'SELECT')
    THEN {query} ELSE 'SELECT NULL::pg_catalog.tsvector' END))"""
_CHECKSUM_OF = (
    "SELECT pg_catalog.array_to_tsvector(ARRAY[checksum]) FROM {own}"
    " WHERE migration_id OPERATOR(pg_catalog.=) {id}"
    " AND state OPERATOR(pg_catalog.=) 'applied' AND checksum OPERATOR(pg_catalog.<>) ''"
)

# Whether the search path has a history in a schema that the role cannot use, so another was read.
_HIDDEN = f"""
, EXISTS (SELECT FROM pg_catalog.pg_class,
        LATERAL (SELECT relnamespace::pg_catalog.regnamespace::pg_catalog.text) AS n (name)
    WHERE relname OPERATOR(pg_catalog.=) {{table}}
    AND NOT pg_catalog.has_schema_privilege(relnamespace, 'USAGE')
    AND (pg_catalog.strpos({USER_PATH}, n.name) OPERATOR(pg_catalog.>) 0
        OR n.name OPERATOR(pg_catalog.=) pg_catalog.quote_ident(current_user)))"""

# yoyo's log has only its primary key as an index, so this reads it once, not once per migration.
# Times decide the order only for rows of stock yoyo that are not numbered yet.
_APPLIED = """
SELECT y.migration_id, CASE WHEN applied_at BETWEEN '0002-01-01' AND '9998-12-31'
        THEN extract(epoch FROM applied_at)::float8 END,
    coalesce(l.username || '@' || l.hostname, ''), {columns}
FROM (SELECT migration_id, max(applied_at_utc) AS applied_at,
          array_agg(applied_at_utc) AS times FROM {history}
      WHERE migration_id NOT LIKE ALL (ARRAY['{hook}%', '{undoing}%']) GROUP BY 1) y
LEFT JOIN (SELECT DISTINCT ON (migration_id) migration_id, username, hostname
           FROM {log} l WHERE operation IN ('apply', 'mark') AND {ours}
           ORDER BY migration_id, created_at_utc DESC) l USING (migration_id)
{join}
ORDER BY {position} NULLS LAST, applied_at NULLS FIRST, migration_id"""

# The tables of yoyo before version 6 are read unchanged, and upgraded before the first write.
_APPLIED_BEFORE_6 = """
SELECT id, extract(epoch FROM ctime)::float8, '', '', false, NULL::float8
FROM {history} ORDER BY ctime, id"""

# A hook to run, and the rest of a non-transactional rollback, also have a row in yoyo's table,
# because a start reads only that table.
# A row of initmig's table counts only if it has the time of yoyo's row, because stock yoyo does not
# update it on a rollback and a new application. yoyo's table may have several rows per migration.
_OWN_COLUMNS = """
CASE i.state WHEN 'applied' THEN i.checksum ELSE '' END, coalesce(i.breaking, false),
    CASE WHEN i.state = 'applied' AND i.statements_done > 0
            AND isfinite(i.started_at) AND isfinite(i.finished_at)
        THEN extract(epoch FROM i.finished_at - i.started_at) END::float8"""
_JOIN_OWN = """
LEFT JOIN {own} i ON i.migration_id = y.migration_id
    AND (i.finished_at AT TIME ZONE 'UTC' = ANY (times)
        OR i.finished_at IS NULL AND array_position(times, NULL) IS NOT NULL)"""

# A history created by hand may lack the log.
_NO_LOG = "(SELECT '' AS migration_id, '' AS username, '' AS hostname, '' AS operation,\
 '' AS comment, now() AS created_at_utc WHERE false)"

_COMMENT = "initmig: "

# A migration is half-applied until its record is complete, or until stock yoyo applies it or rolls
# it back, which adds rows to yoyo's log. The log has fewer rows if a person has deleted some. A row
# of 0.1.0 has no count of log rows, but a time.
_IS_HALF_APPLIED = """
i.state <> 'applied' AND CASE
    WHEN starts_with(i.migration_id, '{hook}') THEN true
    WHEN i.state = 'applying' THEN NOT EXISTS (
        SELECT FROM {history} y WHERE y.migration_id = i.migration_id)
    ELSE EXISTS (SELECT FROM {history} y WHERE y.migration_id = i.migration_id) END
AND {untouched}"""
_BY_LOG = """
CASE WHEN i.log_rows_at = i.started_at
    THEN i.log_rows >= (SELECT count(*) FROM {log} l
                        WHERE l.migration_id = i.migration_id AND {ours})
    ELSE {by_time} END"""
_BY_TIME = """
NOT EXISTS (SELECT FROM {log} l WHERE l.migration_id = i.migration_id AND {ours}
    AND l.created_at_utc AT TIME ZONE 'UTC' > i.started_at)"""

_UNFINISHED = """
SELECT i.migration_id, CASE i.state WHEN 'applying' THEN 'apply' ELSE 'rollback' END,
    i.checksum, greatest(i.statements_done, 0), i.before
FROM {own} i WHERE {is_half_applied} ORDER BY i.started_at, i.migration_id"""

RECORDED_AT = "pg_catalog.current_setting('initmig.recorded_at')::timestamp"
"""SQL for the time (UTC) that `set_record_time` set in the same transaction, equal in all rows.

It is only for display. The positions define the order.
"""

# VALUES without a query and without ON CONFLICT, which would double the server's time for each
# migration: docs/explanation/benchmarks.md.
_RECORD = f"""
INSERT INTO {{own}}
    (migration_id, checksum, breaking, state, statements_done, started_at, finished_at,
     username, hostname, image_version{{column}})
VALUES ({{id}}, {{checksum}}, {{breaking}}, 'applied', {{statements}},
    {{started}}, {RECORDED_AT} AT TIME ZONE 'UTC', {{user}}, {{host}}, {{version}}{{position}})"""

_MARK_DUE = """
INSERT INTO {history} (migration_hash, migration_id, applied_at_utc)
SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(id, 'UTF8')), 'hex'), id,
    pg_catalog.clock_timestamp() AT TIME ZONE 'UTC'
FROM pg_catalog.unnest(ARRAY[{ids}]) AS id ON CONFLICT DO NOTHING;
DELETE FROM {own} WHERE migration_id OPERATOR(pg_catalog.=) ANY (ARRAY[{ids}])"""


class HistorySummary(Record):
    """The result of the only query of a start."""

    ids: tuple[str, ...]
    """The applied migrations, the hooks to run, and `UNDOING` + id for a rollback to finish; in no
    particular order."""
    checksum: str = ""
    """The checksum of the requested migration; empty if unknown."""


def history_summary(session: Session, id: str = "") -> HistorySummary:
    """The applied ids and the recorded checksum of the migration *id*, in one query.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    try:
        ids, checksum, hidden = session.query(_summary_sql(session, id), by_path=True)[0]
    except DatabaseRefused as error:
        if trust.is_untrusted_error(error):
            from initmig.history.location import home_of

            trust.require_trusted(session, home_of(session))
            return history_summary(session, id)
        sqlstate = error.sqlstate
        if sqlstate == UNDEFINED_COLUMN:
            return HistorySummary(_ids_before_6(session))
        if sqlstate != UNDEFINED_TABLE:
            raise
        ids, checksum, hidden = "", "", session.home is None
    if hidden:
        from initmig.history.location import columns_of, home_of

        home = home_of(session)
        if home.table in columns_of(session, home, (home.table,)):
            return history_summary(session, id)
    return HistorySummary(tuple(ids.split("/")) if ids else (), checksum or "")


def _summary_sql(session: Session, id: str) -> str:
    """The query, which finds the history by the search path if its home is unknown."""
    home = session.home
    table = session.history_table
    history, own = quote_identifier(table), quote_identifier(own_table(table))
    guard = ""
    if not session.trusted:
        guard = trust.query_guard(home, table, reads=session.reads)
    elif home:
        history, own = home.history, home.own
    checksum = "''"
    if id:
        query = _CHECKSUM_OF.format(own=own, id=quote_literal(id))
        checksum = _CHECKSUM.format(own=quote_literal(own), query=quote_literal(query))
    hidden = ", false" if home else _HIDDEN.format(table=quote_literal(table))
    return guard + _IDS.format(history=history, checksum=checksum, hidden=hidden)


def _ids_before_6(session: Session) -> tuple[str, ...]:
    from initmig.history.location import trusted_home

    query = _APPLIED_BEFORE_6.format(history=trusted_home(session).history)
    return tuple(row[0] for row in session.query(query))


def applied_ids(session: Session) -> tuple[str, ...]:
    """The ids of `history_summary`.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return history_summary(session).ids


def polled_summary(session: Session, id: str = "") -> HistorySummary:
    """`history_summary` for polling.

    It uses two queries, so that the server does not log an error on each call while yoyo's table
    does not exist.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    from initmig.history.location import columns_of, trusted_home

    home = trusted_home(session)
    existing = columns_of(session, home, (home.table,))
    return history_summary(session, id) if existing else HistorySummary(())


def applied_migrations(session: Session) -> tuple[AppliedMigration, ...]:
    """The applied migrations with all recorded details, in the order applied.

    :raises DatabaseRefused: the role cannot read the tables
    """
    from datetime import UTC, datetime

    from initmig.history.location import columns_of, trusted_home

    home = trusted_home(session)
    existing = columns_of(session, home, home.tables)
    if home.table not in existing:
        return ()
    if "migration_id" not in existing[home.table]:
        query = _APPLIED_BEFORE_6.format(history=home.history)
    else:
        query = _applied_sql(home, existing)
    return tuple(
        AppliedMigration(
            id,
            None if epoch is None else datetime.fromtimestamp(epoch, UTC),
            by,
            checksum,
            breaking,
            seconds,
        )
        for id, epoch, by, checksum, breaking, seconds in session.query(query)
    )


def _applied_sql(home: Home, existing: Mapping[str, frozenset[str]]) -> str:
    own = existing.get(home.own_table)
    log = home.log if LOG in existing else _NO_LOG
    return _APPLIED.format(
        history=home.history,
        log=log,
        ours=of_this_history(home),
        columns=_OWN_COLUMNS if own else "'', false, NULL::float8",
        join=_JOIN_OWN.format(own=home.own) if own else "",
        position="i.position" if own and "position" in own else "NULL::bigint",
        hook=HOOK,
        undoing=UNDOING,
    )


def unfinished_migrations(session: Session) -> tuple[Unfinished, ...]:
    """The half-applied migrations, in the order started.

    :raises DatabaseRefused: the role cannot read the tables
    """
    from initmig.history.location import columns_of, trusted_home

    home = trusted_home(session)
    existing = columns_of(session, home, home.tables)
    own = existing.get(home.own_table, frozenset())
    if "before" not in own or not existing.keys() >= {home.table, LOG}:
        return ()  # from an initmig that could not resume; the next write upgrades the table
    query = _UNFINISHED.format(own=home.own, is_half_applied=is_half_applied(home, own))
    return tuple(Unfinished(*row) for row in session.query(query))


def is_half_applied(home: Home, columns: Collection[str]) -> str:
    """The SQL condition that the row i of initmig's table, with *columns*, is half-applied."""
    by_time = _BY_TIME.format(log=home.log, ours=of_this_history(home))
    untouched = by_time
    if "log_rows" in columns:
        untouched = _BY_LOG.format(log=home.log, ours=of_this_history(home), by_time=by_time)
    return _IS_HALF_APPLIED.format(history=home.history, untouched=untouched, hook=HOOK)


def count_log_rows(home: Home, id: str) -> str:
    """The SQL for the number of rows in yoyo's log for the migration *id* of this history."""
    return (
        f"(SELECT count(*) FROM {home.log} l"
        f" WHERE l.migration_id = {quote_literal(id)} AND {of_this_history(home)})"
    )


def log_comment(home: Home) -> str:
    """The comment in yoyo's log that names the history, as histories in a schema share the log."""
    return f"{_COMMENT}{home.table}"


def of_this_history(home: Home) -> str:
    """The SQL condition that the row l of yoyo's log does not belong to another history.

    Rows of stock yoyo do not name their history.
    """
    return (
        f"(l.comment IS NULL OR NOT starts_with(l.comment, {quote_literal(_COMMENT)})"
        f" OR l.comment = {quote_literal(log_comment(home))})"
    )


def set_record_time() -> str:
    """The SQL that sets the time for the records that follow it, see `RECORDED_AT`."""
    now = "(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::pg_catalog.text"
    return f"SELECT pg_catalog.set_config('initmig.recorded_at', {now}, true)"


def insert_record(
    home: Home,
    migration: Migration,
    *,
    by: Identity,
    position: int | None,
    seconds: float | None = None,
) -> str:
    """The SQL that records *migration* as applied, after `set_record_time`. It has no record yet.

    The duration is *seconds*, or the age of the transaction. Pass no *position* if the table lacks
    the column.
    """
    minus = f"OPERATOR(pg_catalog.-) interval '{seconds or 0:.6f} s'"
    ago = f"{RECORDED_AT} AT TIME ZONE 'UTC' {minus}"
    return _RECORD.format(
        own=home.own,
        id=quote_literal(migration.id),
        checksum=quote_literal(migration.checksum),
        breaking=migration.breaking,
        statements=len(migration.parts or migration.steps),
        started="pg_catalog.now()" if seconds is None else ago,
        user=quote_literal(by.user),
        host=quote_literal(by.host),
        version=quote_literal(by.version),
        column="" if position is None else ", position",
        position="" if position is None else f", {position}",
    )


def mark(home: Home, migration: Migration, *, by: Identity, position: int | None) -> str:
    """The SQL that records *migration* as applied without running it, after `set_record_time`."""
    nothing = migration._replace(steps=(), parts=())
    recorded = insert_record(home, nothing, by=by, position=position, seconds=0)
    return f"{delete_record(home, migration.id)};{recorded}"


def delete_record(home: Home, id: str) -> str:
    """The SQL that deletes initmig's own record of the migration *id*."""
    return f"DELETE FROM {home.own} WHERE {_has(id)}"


def mark_due(home: Home, ids_due: Sequence[str]) -> str:
    """The SQL that records work to do: *ids_due*, not empty, are ids of hooks or `UNDOING` + id.

    An interrupted hook restarts from its top, because it ran after an earlier migration.
    """
    ids = ", ".join(map(quote_literal, ids_due))
    return _MARK_DUE.format(history=home.history, own=home.own, ids=ids)


def delete_history_rows(home: Home, id: str) -> str:
    """The SQL that deletes all rows with this *id* from yoyo's table: a migration or work to do."""
    return f"DELETE FROM {home.history} WHERE {_has(id)}"


def _has(id: str) -> str:
    return f"migration_id OPERATOR(pg_catalog.=) {quote_literal(id)}"


def write_guard(session: Session, home: Home) -> str:
    """The SQL to run before these statements in a transaction, see `trust.write_guard`."""
    return trust.write_guard(session, home.history, home.log, home.own)
