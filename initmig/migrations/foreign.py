"""Recognizes files, folders and history tables of other migration tools.

Formats and table names come from each tool's documentation. The tools that were found in public
repositories come first.
"""

from __future__ import annotations

import re
from functools import cache

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from initmig.sql.source import Source

_BY_NAME = {
    "golang-migrate or sqlx": r"\.(up|down)\.sql$",
    "Flyway": r"^[VUB]\d[\d._]*__|^R__",
}

# Each is a comment on a separate line, in lower case.
_BY_MARKER = {
    "goose": r"--[ \t]*\+goose\b",
    "dbmate": r"--[ \t]*migrate:(up|down)\b",
    "sql-migrate": r"--[ \t]*\+migrate\b",
    "node-pg-migrate": r"--+[ \t]*(up|down)[ \t]+migration[ \t]*(?=[\r\n]|\Z)",
    "tern": r"----[ \t]*create above[ \t]*/[ \t]*drop below[ \t]*----",
    "Liquibase": r"--[ \t]*liquibase formatted sql\b",
    "rambler": r"--[ \t]*rambler[ \t]+(up|down)\b",
    "sqitch": r"--[ \t]*(deploy|revert|verify)[ \t]+\S+:\S+",
    "graphile-migrate": r"--![ \t]*(previous|hash):",
    "MyBatis Migrations": r"--[ \t]*//[ \t]*@undo\b",
    "Play evolutions": r"--[ \t-]*!(ups|downs)\b",
}

# Relative to the folder, with one level of subfolders.
_BY_FOLDER = {
    "sqitch": r"^sqitch\.plan$",
    "Atlas": r"^atlas\.sum$",
    "Prisma": r"^[^/]+/migration\.sql$|^migration_lock\.toml$",
    "Diesel or Hasura": r"^[^/]+/up\.sql$",
    "Ecto": r"\.exs$",
}

_BY_TABLE: dict[str, dict[str, str]] = {
    # by a column, because several tools use the same name; "" matches any columns
    "schema_migrations": {
        "dirty": "golang-migrate",
        "inserted_at": "Ecto",
        "": "dbmate or Rails",
    },
    "goose_db_version": {"": "goose"},
    "flyway_schema_history": {"": "Flyway"},
    "schema_version": {"installed_on": "Flyway or yandex-pgmigrate", "version": "tern"},
    "_prisma_migrations": {"": "Prisma"},
    "_sqlx_migrations": {"": "sqlx"},
    "gorp_migrations": {"": "sql-migrate"},
    "pgmigrations": {"": "node-pg-migrate"},
    "__diesel_schema_migrations": {"": "Diesel"},
    "atlas_schema_revisions": {"": "Atlas"},
    "refinery_schema_history": {"": "refinery"},
    "schema_migration": {"version": "pop"},
    "databasechangelog": {"": "Liquibase"},
    "alembic_version": {"": "Alembic"},
    "django_migrations": {"": "Django"},
    "knex_migrations": {"": "knex"},
    "SequelizeMeta": {"": "Sequelize"},
    "migrations": {"batch": "Laravel", "timestamp": "TypeORM"},
    "doctrine_migration_versions": {"": "Doctrine"},
    "__EFMigrationsHistory": {"": "Entity Framework"},
    "mikro_orm_migrations": {"": "MikroORM"},
    "phinxlog": {"": "Phinx"},
}

HISTORY_TABLES = tuple(_BY_TABLE)
"""The names of other tools' history tables."""


GUIDES = ("alembic", "dbmate", "ecto", "flyway", "golang-migrate", "goose", "prisma")
"""The tools that have a page, docs/how-to/from-TOOL.md."""


def guide(tool: str) -> str:
    """The page that explains how to move from *tool*, which may be two names joined by "or"."""
    first = tool.partition(" ")[0].lower()
    page = f"from-{first}" if first in GUIDES else "adopt-a-database"
    return f"docs/how-to/{page}.md"


class Marker(Record):
    """A mark of another tool in the text of a file, at *offset*."""

    tool: str
    offset: int


def tool_of_name(name: str) -> str:
    """The tool that uses file names like *name*; empty if no tool does."""
    return _tool_of(name, _BY_NAME)


def tool_of_folder(entries: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The tool whose folder has *entries*, one level deep, and the entries that identify it.

    Empty if no tool is recognized.
    """
    for tool, pattern in _BY_FOLDER.items():
        if found := tuple(entry for entry in entries if re.search(pattern, entry)):
            return tool, found
    return "", ()


def tool_of_table(name: str, columns: Collection[str]) -> str:
    """The tool whose history is the table *name* with these *columns*; empty if unknown."""
    tools = _BY_TABLE.get(name, {})
    return next((tool for column, tool in tools.items() if not column or column in columns), "")


def marks_in(text: str) -> Mapping[int, str]:
    """The marks of other tools in *text*, also in strings and comments, by their offsets."""
    return {match.start("mark"): match["mark"] for match in _markers().finditer(text)}


def marker_in(source: Source) -> Marker | None:
    """The first mark of another tool in the SQL of *source*, outside strings and data."""
    if found := source.mark:
        offset, mark = found
        return Marker(_tool_of(mark.lower(), _BY_MARKER), offset)
    return None


def _tool_of(text: str, patterns: dict[str, str]) -> str:
    return next((tool for tool, pattern in patterns.items() if re.search(pattern, text)), "")


@cache
def _markers() -> re.Pattern[str]:
    any_of_them = "|".join(_BY_MARKER.values())
    return re.compile(rf"(?:^|\r)[ \t]*(?P<mark>{any_of_them})", re.IGNORECASE | re.MULTILINE)
