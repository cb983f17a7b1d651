"""The least that a migrator in Python does: query, compare, and apply each file with its row.

It has no error messages, checks or waiting for the server. It is a lower limit, and not an example.
"""

import os
import sys
import time
from pathlib import Path

import psycopg
from psycopg import sql

LOCK = 5_460_427_118_032_209
HISTORY = """
CREATE TABLE IF NOT EXISTS history (
    id text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now()
)
"""


def main(folder: Path) -> None:
    """Apply the pending migrations in *folder* to DATABASE_URL."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        if pending(connection, folder):
            lock(connection)
            connection.execute(HISTORY)
            for name in pending(connection, folder):
                apply(connection, folder / name)


def pending(connection: psycopg.Connection, folder: Path) -> list[str]:
    """The names of the files that the history does not have."""
    try:
        applied = {name for (name,) in connection.execute("SELECT id FROM history")}
    except psycopg.errors.UndefinedTable:
        applied = set()
    return sorted(set(os.listdir(folder)) - applied)


def lock(connection: psycopg.Connection) -> None:
    """Return once this process has the lock; it ends with the connection."""
    while connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
        time.sleep(0.1)


def apply(connection: psycopg.Connection, path: Path) -> None:
    """Apply the file and insert its row, in one message and one transaction."""
    row = sql.SQL("INSERT INTO history (id) VALUES ({})").format(path.name).as_string()
    connection.execute(f"BEGIN;\n{path.read_text()}\n;{row}; COMMIT".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
