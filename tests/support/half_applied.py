"""A migration in parts that stops at its third part if the table `needed` is missing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.databases import Database

PARTS = {
    "0001_a.sql": "-- transactional: false\nCREATE TABLE IF NOT EXISTS done (n int);\n"
    "INSERT INTO done VALUES (1);\nINSERT INTO done SELECT 2 FROM needed;\n"
    "INSERT INTO done VALUES (3);",
    "0001_a.rollback.sql": "INSERT INTO done VALUES (-1);\nINSERT INTO done SELECT -2 FROM needed;"
    "\nINSERT INTO done VALUES (-3);",
}


def provide(database: Database) -> None:
    """Create the table that the migration needs to finish."""
    database.execute("CREATE TABLE needed AS SELECT 1")


@contextmanager
def missing(database: Database) -> Iterator[None]:
    """Inside, the migration fails at its third part."""
    database.execute("DROP TABLE IF EXISTS needed")
    yield
    provide(database)


def take_done(database: Database) -> list[int]:
    """The values that the parts have written since the last call, in the order written."""
    rows = database.query("SELECT n FROM done ORDER BY ctid")
    database.execute("TRUNCATE done")
    return [n for (n,) in rows]
