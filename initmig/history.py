"""What is applied: yoyo's tables, which are the truth, and initmig's own beside them."""

from __future__ import annotations

from initmig.errors import DatabaseRefused
from initmig.model import HOOK, UNDOING, AppliedMigration, Unfinished
from initmig.postgres import UNDEFINED_COLUMN, UNDEFINED_TABLE, quote_literal
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.identity import Identity
    from initmig.model import Migration
    from initmig.postgres import Session

# One value and not a row for each: for thousands that takes a third of the time. An id is the name
# of a file, and has no slash.
_APPLIED_IDS = (
    "SELECT string_agg(migration_id, '/' ORDER BY applied_at_utc, migration_id)"
    " FROM _yoyo_migration"
)

# yoyo's log has no index but its key: one pass over it, not one for each migration.
_APPLIED = """
SELECT y.migration_id, extract(epoch FROM y.applied_at_utc)::float8,
    coalesce(l.username || '@' || l.hostname, ''), {own}
FROM _yoyo_migration y
LEFT JOIN (SELECT DISTINCT ON (migration_hash) migration_hash, username, hostname
           FROM _yoyo_log WHERE operation IN ('apply', 'mark')
           ORDER BY migration_hash, created_at_utc DESC) l USING (migration_hash)
{join}
WHERE y.migration_id NOT LIKE ALL (ARRAY['{hook}%', '{undoing}%'])
ORDER BY y.applied_at_utc, y.migration_id"""

# What yoyo before version 6 made: read as it is, and upgraded once something is written.
_APPLIED_BEFORE_6 = """
SELECT id, extract(epoch FROM ctime)::float8, '', '', false, NULL::float8
FROM _yoyo_migration ORDER BY ctime, id"""

# What is owed has a row in yoyo's table, where the one query of a start sees it: a hook that has to
# run, and the rest of a rollback that is no one transaction.
# A row of ours counts only while it speaks of the same application as yoyo's: a stock yoyo that
# rolls back and applies again does not touch it.
_OWN = {
    "own": "CASE i.state WHEN 'applied' THEN i.checksum ELSE '' END, coalesce(i.breaking, false),"
    " CASE WHEN i.state = 'applied' AND i.statements_done > 0"
    " THEN extract(epoch FROM i.finished_at - i.started_at) END::float8",
    "join": "LEFT JOIN _initmig_migration i ON i.migration_id = y.migration_id"
    " AND i.finished_at = y.applied_at_utc AT TIME ZONE 'UTC'",
}
_NO_OWN = {"own": "'', false, NULL", "join": ""}

_CREATE = """
CREATE TABLE _initmig_migration (
    migration_id varchar(255) PRIMARY KEY,
    checksum text NOT NULL,
    breaking boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('applying', 'applied', 'rolling back')),
    statements_done integer NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    username text NOT NULL,
    hostname text NOT NULL,
    image_version text NOT NULL,
    before text
)"""

# What the first initmig made had neither the column nor the state.
_IS_OLD = """
SELECT NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.oid AND attname = 'before')
FROM to_regclass('_initmig_migration') AS t (oid) WHERE t.oid IS NOT NULL"""
_UPGRADE = """
ALTER TABLE _initmig_migration ADD before text,
    DROP CONSTRAINT IF EXISTS _initmig_migration_state_check,
    ADD CONSTRAINT _initmig_migration_state_check
        CHECK (state IN ('applying', 'applied', 'rolling back'))"""

# What a stock yoyo has applied or rolled back since is not half way any more.
_UNFINISHED = """
SELECT i.migration_id, CASE i.state WHEN 'applying' THEN 'apply' ELSE 'rollback' END,
    i.checksum, i.statements_done, i.before
FROM _initmig_migration i
WHERE i.state <> 'applied' AND NOT EXISTS (
    SELECT FROM _yoyo_log l WHERE l.migration_id = i.migration_id
        AND l.created_at_utc AT TIME ZONE 'UTC' > i.started_at)
ORDER BY i.started_at"""

# The names of columns have no slash where it matters.
_OTHER_HISTORIES = """
SELECT c.relname::text, pg_catalog.string_agg(a.attname, '/')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = pg_catalog.current_schema()
    AND c.relkind IN ('r', 'p') AND c.relname IN ({names}) AND a.attnum > 0
GROUP BY c.relname ORDER BY c.relname"""

RECORDED_AT = "current_setting('initmig.recorded_at')::timestamp"
"""SQL for the time (UTC) that `note_time` has noted in the same transaction, in every row the same.

By the server's clock: the order applied is not kept by those of the hosts that happened to apply.
"""

# A value and no query for it: that, and a conflict to be resolved, would take twice the server's
# time for each migration, docs/benchmarks.md.
_RECORD = f"""
INSERT INTO _initmig_migration
    (migration_id, checksum, breaking, state, statements_done, started_at, finished_at,
     username, hostname, image_version)
VALUES ({{id}}, {{checksum}}, {{breaking}}, 'applied', {{statements}},
    {{started}}, {RECORDED_AT} AT TIME ZONE 'UTC', {{user}}, {{host}}, {{version}})"""

# What a stock yoyo has rolled back is not recorded any more, nor half way.
_FORGET_GONE = """
DELETE FROM _initmig_migration i
WHERE NOT EXISTS (SELECT FROM _yoyo_migration y WHERE y.migration_id = i.migration_id)
    AND (i.state = 'applied' OR EXISTS (
        SELECT FROM _yoyo_log l WHERE l.migration_id = i.migration_id
            AND l.created_at_utc AT TIME ZONE 'UTC' > i.started_at))"""

_OWE = """
INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc)
SELECT encode(sha256(convert_to(id, 'UTF8')), 'hex'), id, clock_timestamp() AT TIME ZONE 'UTC'
FROM unnest(ARRAY[{ids}]) AS id ON CONFLICT DO NOTHING;
DELETE FROM _initmig_migration WHERE migration_id IN ({ids})"""


def applied_ids(session: Session) -> tuple[str, ...]:
    """The applied ids in the order applied, in one query; none where yoyo has no table yet.

    Among them is what is owed: the ids of hooks, and `UNDOING` before that of a migration.

    :raises DatabaseRefused: the role may not read yoyo's table
    """
    try:
        [(ids,)] = session.query(_APPLIED_IDS)
        return tuple(ids.split("/")) if ids else ()
    except DatabaseRefused as error:
        sqlstate = error.problems[0].server.sqlstate
        if sqlstate == UNDEFINED_TABLE:
            return ()
        if sqlstate == UNDEFINED_COLUMN:
            return tuple(row[0] for row in session.query(_APPLIED_BEFORE_6))
        raise


def applied_ids_so_far(session: Session) -> tuple[str, ...]:
    """As `applied_ids`, for asking again and again.

    Two queries, so that a database without yoyo's table gets no error line in its log each time.

    :raises DatabaseRefused: the role may not read yoyo's table
    """
    return applied_ids(session) if have_tables(session, ("_yoyo_migration",))[0] else ()


def applied_migrations(session: Session) -> tuple[AppliedMigration, ...]:
    """Everything that is known about what is applied, in the order applied.

    :raises DatabaseRefused: the role may not read the tables
    """
    from datetime import UTC, datetime

    names = ("_yoyo_migration", "_yoyo_version", "_initmig_migration")
    yoyo, versioned, own = have_tables(session, names)
    if not yoyo:
        return ()
    query = (
        _APPLIED.format(**(_OWN if own else _NO_OWN), hook=HOOK, undoing=UNDOING)
        if versioned
        else _APPLIED_BEFORE_6
    )
    rows = session.query(query)
    return tuple(
        AppliedMigration(id, datetime.fromtimestamp(epoch, UTC), by, checksum, breaking, seconds)
        for id, epoch, by, checksum, breaking, seconds in rows
    )


def unfinished_migrations(session: Session) -> tuple[Unfinished, ...]:
    """The migrations that are half way, in the order begun.

    :raises DatabaseRefused: the role may not read the tables
    """
    if not all(have_tables(session, ("_initmig_migration", "_yoyo_log"))):
        return ()
    try:
        return tuple(Unfinished(*row) for row in session.query(_UNFINISHED))
    except DatabaseRefused as error:
        if error.problems[0].server.sqlstate != UNDEFINED_COLUMN:
            raise
        return ()  # made by an initmig that could not go on, and begins with what is written next


def other_histories(session: Session, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Those of the tables *names* that the current schema has, each with its columns.

    :raises DatabaseRefused: the server refused the query
    """
    rows = session.query(_OTHER_HISTORIES.format(names=", ".join(map(quote_literal, names))))
    return {name: tuple(columns.split("/")) for name, columns in rows}


def have_tables(session: Session, names: Sequence[str]) -> tuple[bool, ...]:
    """Which of the tables *names* are on the search path."""
    columns = ", ".join(f"to_regclass({quote_literal(name)}) IS NOT NULL" for name in names)
    return session.query(f"SELECT {columns}")[0]


def create_table(session: Session) -> None:
    """Make initmig's own table where it is missing or old; the caller holds the migration lock."""
    is_old = session.query(_IS_OLD)
    if not is_old:
        session.query(_CREATE)
    elif is_old[0][0]:
        session.query(_UPGRADE)


def forget_gone(session: Session) -> None:
    """Remove the records of what is not applied any more; the caller holds the migration lock."""
    session.query(_FORGET_GONE)


def note_time() -> str:
    """The SQL that notes the time for what is recorded after it, see `RECORDED_AT`."""
    now = "(clock_timestamp() AT TIME ZONE 'UTC')::text"
    return f"SELECT set_config('initmig.recorded_at', {now}, true)"


def record(migration: Migration, *, by: Identity, seconds: float | None = None) -> str:
    """The SQL that records *migration* as applied, after `note_time`; there must be no record yet.

    That took *seconds*, or as long as the transaction is old.
    """
    ago = f"{RECORDED_AT} AT TIME ZONE 'UTC' - interval '{seconds or 0:.6f} s'"
    return _RECORD.format(
        id=quote_literal(migration.id),
        checksum=quote_literal(migration.checksum),
        breaking=migration.breaking,
        statements=len(migration.parts or migration.steps),
        started="now()" if seconds is None else ago,
        user=quote_literal(by.user),
        host=quote_literal(by.host),
        version=quote_literal(by.version),
    )


def mark(migration: Migration, *, by: Identity) -> str:
    """The SQL that records *migration* as applied, after `note_time`, though nothing of it ran."""
    nothing = migration._replace(steps=(), parts=())
    return f"{forget(migration.id)};{record(nothing, by=by, seconds=0)}"


def forget(id: str) -> str:
    """The SQL that removes the record of the migration *id*."""
    return f"DELETE FROM _initmig_migration WHERE migration_id = {quote_literal(id)}"


def owe(debts: Sequence[str]) -> str:
    """The SQL that notes *debts*, at least one: the ids of hooks, or `UNDOING` and an id.

    A hook that stopped half way begins anew, for what it has done was not for this application.
    """
    return _OWE.format(ids=", ".join(map(quote_literal, debts)))


def settle(debt: str) -> str:
    """The SQL that notes that there is no such *debt* any more."""
    return f"DELETE FROM _yoyo_migration WHERE migration_id = {quote_literal(debt)}"
