"""Where the history is: one schema for all of its tables, and what they are called there."""

from __future__ import annotations

from initmig.core.quoting import LONGEST_NAME_BYTES, quote_identifier
from initmig.core.records import Record

DEFAULT_TABLE = "_yoyo_migration"
"""What stock yoyo calls its table where ``--migration-table`` says nothing else."""

LOG = "_yoyo_log"
VERSION = "_yoyo_version"
LOCK = "yoyo_lock"
_OWN_TABLE = "_initmig_migration"
_OWN_SUFFIX = "_initmig"


class Home(Record):
    """The schema of the history, by its name as it is; and yoyo's table in it."""

    schema: str
    table: str = DEFAULT_TABLE

    @property
    def history(self) -> str:
        """yoyo's table of what is applied, as SQL."""
        return self._qualified(self.table)

    @property
    def log(self) -> str:
        """yoyo's log, which all histories of a schema share."""
        return self._qualified(LOG)

    @property
    def version(self) -> str:
        """What yoyo notes its tables' version in, which all histories of a schema share."""
        return self._qualified(VERSION)

    @property
    def lock(self) -> str:
        """yoyo's lock, which all histories of a schema share."""
        return self._qualified(LOCK)

    @property
    def own(self) -> str:
        """initmig's own table."""
        return self._qualified(self.own_table)

    @property
    def own_table(self) -> str:
        """The name of initmig's own table, which goes with that of yoyo's."""
        return own_table(self.table)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of them all."""
        return tables_of(self.table)

    def _qualified(self, name: str) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(name)}"


def tables_of(table: str) -> tuple[str, ...]:
    """The names of all tables of the history whose table of yoyo's is called *table*."""
    return (table, LOG, VERSION, LOCK, own_table(table))


def own_table(table: str) -> str:
    """The name of initmig's own table beside yoyo's *table*."""
    return _OWN_TABLE if table == DEFAULT_TABLE else table + _OWN_SUFFIX


def table_name_problem(name: str) -> str:
    """Why no history can be kept in a table of this *name*; empty where one can."""
    taken = (LOG, VERSION, LOCK, _OWN_TABLE)
    if not name or name in taken or name.endswith(_OWN_SUFFIX):
        return f"{name!r} is reserved for another table of yoyo or initmig"
    longest = LONGEST_NAME_BYTES - len(_OWN_SUFFIX)
    if len(name.encode()) > longest:
        return f"{name!r} is longer than {longest} bytes, which is too long for a history table"
    return ""
