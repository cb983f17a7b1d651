"""Creates, upgrades and repairs the history tables. The caller holds the migration lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.errors import DatabaseRefused
from initmig.core.model import HOOK, UNDOING
from initmig.history import trust
from initmig.history.location import columns_of
from initmig.history.store import is_half_applied

if TYPE_CHECKING:
    from initmig.core.home import Home
    from initmig.postgres import Session

_CREATE = """
CREATE TABLE {own} (
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
    before text,
    position bigint,
    log_rows integer,
    log_rows_at timestamptz
)"""

# The table of the first initmig has neither the column `before` nor the state 'rolling back'.
_ADD_BEFORE = """
ADD before text, DROP CONSTRAINT IF EXISTS _initmig_migration_state_check,
    ADD CONSTRAINT _initmig_migration_state_check
        CHECK (state IN ('applying', 'applied', 'rolling back')), """
_UPGRADE = (
    "ALTER TABLE {own} {before}ADD position bigint, ADD log_rows integer,"
    " ADD log_rows_at timestamptz"
)

# The id decides, even if the row has a wrong hash. yoyo finds rows by their hash, which is computed
# from the id. Rows without an id have no meaning.
_RIGHT_HASH = "encode(sha256(convert_to({row}.migration_id, 'UTF8')), 'hex')"
_FIX_HASHES = f"""
DELETE FROM {{history}} WHERE migration_id IS NULL;
DELETE FROM {{history}} y USING {{history}} twin
WHERE y.migration_id = twin.migration_id AND y.migration_hash <> twin.migration_hash
    AND twin.migration_hash = {_RIGHT_HASH.format(row="twin")};
WITH wrong AS (
    DELETE FROM {{history}} y WHERE migration_hash <> {_RIGHT_HASH.format(row="y")} AND NOT EXISTS (
        SELECT FROM {{history}} other WHERE other.migration_hash = {_RIGHT_HASH.format(row="y")})
    RETURNING migration_id, applied_at_utc)
INSERT INTO {{history}} (migration_hash, migration_id, applied_at_utc)
SELECT {_RIGHT_HASH.format(row="wrong")}, migration_id, max(applied_at_utc)
FROM wrong GROUP BY migration_id"""

# A row is stale if stock yoyo has since rolled back or applied its migration.
_DELETE_STALE = """
DELETE FROM {own} i WHERE CASE state
    WHEN 'applied' THEN NOT EXISTS (
        SELECT FROM {history} y WHERE y.migration_id = i.migration_id
            AND y.applied_at_utc AT TIME ZONE 'UTC' IS NOT DISTINCT FROM i.finished_at)
    ELSE NOT ({is_half_applied}) END"""

# Numbers the rows that stock yoyo or 0.1.0 has added since the last run, in yoyo's order.
_NUMBER = """
INSERT INTO {own} AS i (migration_id, checksum, breaking, state, statements_done, started_at,
    finished_at, username, hostname, image_version, position)
SELECT y.migration_id, '', false, 'applied', 0, coalesce(y.at, 'epoch'), y.at, '', '', '',
    last.position + row_number() OVER (ORDER BY y.at NULLS FIRST, y.migration_id)
FROM (SELECT migration_id, max(applied_at_utc) AT TIME ZONE 'UTC' AS at FROM {history}
      WHERE migration_id NOT LIKE ALL (ARRAY['{hook}%', '{undoing}%'])
          AND length(migration_id) <= 255 GROUP BY 1) y
    LEFT JOIN {own} known ON known.migration_id = y.migration_id,
    (SELECT coalesce(max(position), 0) AS position FROM {own}) last
WHERE known.position IS NULL
ON CONFLICT (migration_id) DO UPDATE SET position = excluded.position"""


def create_own_table(session: Session, home: Home, *, upgrades: bool) -> None:
    """Create initmig's own table at *home*; if *upgrades*, add the columns that 0.1.0's lacks.

    :raises DatabaseRefused: the role lacks a privilege
    """
    columns = columns_of(session, home, (home.own_table,)).get(home.own_table)
    if columns is None:
        session.query(_CREATE.format(own=home.own))
    elif upgrades and "position" not in columns:
        upgrade = _UPGRADE.format(own=home.own, before="" if "before" in columns else _ADD_BEFORE)
        try:
            session.query(upgrade)
        except DatabaseRefused as error:
            [problem] = error.problems
            if problem.server.lacks_privilege:
                hint = f"ask the owner of the table to run: {' '.join(upgrade.split())};"
                error.problems = (problem._replace(hint=hint),)
            raise


def repair(session: Session, home: Home) -> int | None:
    """Correct the hash and the position of each row, and return the last position.

    None if the table does not have the column for positions.

    :raises DatabaseRefused: the role lacks a privilege
    """
    columns = columns_of(session, home, (home.own_table,))[home.own_table]
    names = {"history": home.history, "own": home.own, "hook": HOOK, "undoing": UNDOING}
    delete_stale = _DELETE_STALE.format(is_half_applied=is_half_applied(home, columns), **names)
    writing = trust.write_guard(session, home.history, home.own)
    session.query(f"{writing}{_FIX_HASHES.format(**names)};{delete_stale}")
    if "position" not in columns:
        return None
    last = f"SELECT coalesce(max(position), 0) FROM {home.own}"
    return int(session.query(f"{writing}{_NUMBER.format(**names)};{last}")[0][0])
