"""Records how many parts of a non-transactional migration are done, and which part is uncertain.

Its row in ``_initmig_migration`` is written before the first part, and updated in one transaction
with each part that can run in a transaction. Before any other part, the row stores the state of
the catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.model import HOOK
from initmig.history import trust
from initmig.history.location import home_of
from initmig.history.store import count_log_rows, unfinished_migrations
from initmig.postgres import quote_identifier, quote_literal

if TYPE_CHECKING:
    from initmig.core.identity import Identity
    from initmig.core.model import Direction, Migration, Unfinished
    from initmig.postgres import Session

_STATES: dict[Direction, str] = {"apply": "applying", "rollback": "rolling back"}

# A rollback keeps `breaking` of the application.
# log_rows counts only if log_rows_at equals started_at, as 0.1.0 sets started_at alone.
_BEGIN = """
INSERT INTO {table} AS i (migration_id, checksum, breaking, state, statements_done, started_at,
    username, hostname, image_version, log_rows, log_rows_at)
SELECT {id}, {checksum}, {breaking}, {state}, 0, now, {user}, {host}, {version}, {log_rows}, now
FROM clock_timestamp() AS now
ON CONFLICT (migration_id) DO UPDATE SET
    checksum = excluded.checksum, state = excluded.state, statements_done = 0, before = NULL,
    breaking = excluded.breaking OR i.breaking AND excluded.state = 'rolling back',
    started_at = excluded.started_at, username = excluded.username,
    hostname = excluded.hostname, image_version = excluded.image_version,
    log_rows = excluded.log_rows, log_rows_at = excluded.log_rows_at"""


class Journal:
    """The journal row of one *migration* in one *direction*. The caller holds the lock."""

    def __init__(self, session: Session, migration: Migration, direction: Direction) -> None:
        self._migration = migration
        self._direction: Direction = direction
        self._home = home_of(session)
        self._session = session
        # a migration may change the role for the statements after it
        role = quote_identifier(session.role) if session.role else "NONE"
        self._as_own_role = f"SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL ROLE {role};"

    @property
    def checksum(self) -> str:
        """The checksum of the migration, or of its rollback if it is rolled back."""
        migration = self._migration
        return migration.checksum if self._direction == "apply" else migration.rollback_checksum

    def unfinished(self, session: Session) -> Unfinished | None:
        """The progress of an interrupted run; None if the migration has to start from the top."""
        for stopped in unfinished_migrations(session):
            if stopped[:2] == (self._migration.id, self._direction):
                return self._of_this_file(stopped)
        return None

    def _of_this_file(self, stopped: Unfinished) -> Unfinished | None:
        """*stopped*; without its snapshot if the file has changed, which the user allowed.

        A changed hook starts from the top, because hooks are written to run many times.
        """
        if stopped.checksum == self.checksum:
            return stopped
        return None if stopped.id.startswith(HOOK) else stopped._replace(before=None)

    def begin(self, by: Identity) -> str:
        """The SQL that creates the row, with no part done. It uses only names in pg_catalog."""
        return trust.write_guard(self._session, self._home.own) + _BEGIN.format(
            table=self._home.own,
            log_rows=count_log_rows(self._home, self._migration.id),
            id=quote_literal(self._migration.id),
            checksum=quote_literal(self.checksum),
            breaking=self._migration.breaking,
            state=quote_literal(_STATES[self._direction]),
            user=quote_literal(by.user),
            host=quote_literal(by.host),
            version=quote_literal(by.version),
        )

    def resume(self) -> str:
        """The SQL that stores the current checksum, and that no part is uncertain."""
        return self._update(f"checksum = {quote_literal(self.checksum)}, before = NULL")

    def mark_done(self, parts: int, *, verb: str = "SELECT") -> str:
        """The SQL that records that the first *parts* are done, and that no part is uncertain.

        In PL/pgSQL the *verb* is PERFORM.
        """
        return self._update(f"statements_done = {parts}, before = NULL", verb=verb)

    def mark_started(self, before: str) -> str:
        """The SQL that records that the next part starts, with the catalog's state *before*."""
        return self._update(f"before = {quote_literal(before)}")

    def _update(self, change: str, *, verb: str = "SELECT") -> str:
        condition = f"migration_id OPERATOR(pg_catalog.=) {quote_literal(self._migration.id)}"
        writing = trust.write_guard(self._session, self._home.own, verb=verb)
        return (
            f"{self._as_own_role}{writing} UPDATE {self._home.own} SET {change} WHERE {condition}"
        )
