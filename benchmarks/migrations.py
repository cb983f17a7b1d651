"""The migrations for every tool, as plain SQL of PostgreSQL.

They contain no colon, question mark or percent sign, because some tools take these for parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Migration(NamedTuple):
    """One migration, with a *number* from 1."""

    number: int
    name: str
    sql: str

    @property
    def id(self) -> str:
        """A name that sorts by number."""
        return f"{self.number:05}_{self.name}"


def small_migrations(count: int) -> list[Migration]:
    """*count* migrations of about 200 bytes: a table, a column, rows, an index, and so on."""
    return [_small(number) for number in range(1, count + 1)]


def idle_migrations(count: int) -> list[Migration]:
    """*count* migrations of about 200 bytes that change nothing."""
    sql = f"-- {'Much has been written about this one. ' * 5}\nSELECT 1;\n"
    return [Migration(number, "idle", sql) for number in range(1, count + 1)]


def tables_of(migrations: Sequence[Migration]) -> int:
    """The number of tables after *migrations*."""
    return sum(migration.sql.count("CREATE TABLE") for migration in migrations)


def one_migration(name: str, *, statements: int, size: int) -> list[Migration]:
    """A table, and *statements* INSERTs in a file of about *size* bytes."""
    filling = "x" * max(1, size // statements - 60)
    inserts = [
        f"INSERT INTO bench_{name} (id, note) VALUES ({number:08}, '{filling}');\n"
        for number in range(1, statements + 1)
    ]
    table = f"CREATE TABLE bench_{name} (id bigint PRIMARY KEY, note text NOT NULL);\n"
    return [Migration(1, name, table + "".join(inserts))]


def _small(number: int) -> Migration:
    turn, kind = divmod(number - 1, 4)
    name, sql = _KINDS[kind]
    return Migration(number, f"{name}_{turn + 1}", sql.format(table=f"bench_{turn + 1}"))


_KINDS = (
    (
        "create",
        """\
CREATE TABLE {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL DEFAULT 'nobody',
    created_at timestamptz NOT NULL DEFAULT now()
);
""",
    ),
    (
        "alter",
        """\
-- An address is optional, and so is the moment in which it was confirmed.
ALTER TABLE {table}
    ADD COLUMN address text,
    ADD COLUMN confirmed_at timestamptz,
    ADD COLUMN visits integer NOT NULL DEFAULT 0;
""",
    ),
    (
        "insert",
        """\
INSERT INTO {table} (email, name, address) VALUES
    ('ada@example.org', 'Ada', 'Alpha Street 1, Aberdeen'),
    ('bob@example.org', 'Bob', 'Beta Street 2, Birmingham'),
    ('cyd@example.org', 'Cyd', 'Gamma Street 3, Cardiff');
""",
    ),
    (
        "index",
        """\
-- Users sign in with their e-mail address, and nobody cares for upper and lower case in one.
CREATE UNIQUE INDEX {table}_email_key ON {table} (lower(email));
CREATE INDEX {table}_created_at_idx ON {table} (created_at);
""",
    ),
)
