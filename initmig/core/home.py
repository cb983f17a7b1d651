"""The location of the history: the schema and the names of its tables."""

from __future__ import annotations

from initmig.core.quoting import LONGEST_NAME_BYTES, quote_identifier
from initmig.core.records import Record

DEFAULT_TABLE = "_yoyo_migration"
"""Stock yoyo's default for ``--migration-table``."""

LOG = "_yoyo_log"
VERSION = "_yoyo_version"
LOCK = "yoyo_lock"
_OWN_TABLE = "_initmig_migration"
_OWN_SUFFIX = "_initmig"


class Home(Record):
    """The schema of the history, unquoted, and the name of yoyo's table in it."""

    schema: str
    table: str = DEFAULT_TABLE

    @property
    def history(self) -> str:
        """yoyo's table of applied migrations, as SQL."""
        return self._qualified(self.table)

    @property
    def log(self) -> str:
        """yoyo's log, as SQL. All histories of a schema share it."""
        return self._qualified(LOG)

    @property
    def version(self) -> str:
        """yoyo's table for its schema version, as SQL. All histories of a schema share it."""
        return self._qualified(VERSION)

    @property
    def lock(self) -> str:
        """yoyo's lock table, as SQL. All histories of a schema share it."""
        return self._qualified(LOCK)

    @property
    def own(self) -> str:
        """initmig's table, as SQL."""
        return self._qualified(self.own_table)

    @property
    def own_table(self) -> str:
        """The name of initmig's table, which is derived from the name of yoyo's table."""
        return own_table(self.table)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of all tables."""
        return tables_of(self.table)

    def _qualified(self, name: str) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(name)}"


def tables_of(table: str) -> tuple[str, ...]:
    """The names of all tables of the history in yoyo's *table*."""
    return (table, LOG, VERSION, LOCK, own_table(table))


def own_table(table: str) -> str:
    """The name of initmig's table for yoyo's *table*."""
    return _OWN_TABLE if table == DEFAULT_TABLE else table + _OWN_SUFFIX


def table_name_problem(name: str) -> str:
    """The reason why *name* cannot be a history table; empty if it can."""
    taken = (LOG, VERSION, LOCK, _OWN_TABLE)
    if not name or name in taken or name.endswith(_OWN_SUFFIX):
        return f"{name!r} is reserved for another table of yoyo or initmig"
    longest = LONGEST_NAME_BYTES - len(_OWN_SUFFIX)
    if len(name.encode()) > longest:
        return f"{name!r} is longer than {longest} bytes, which is too long for a history table"
    return ""
