"""The only door to yoyo: its loader and its PostgreSQL backend, with what is unsafe overridden.

yoyo applies on a second connection and records on the first, so that a crash in between leaves a
migration applied and unrecorded; it takes a lock that outlives its holder, splits SQL by itself,
and asks DNS and the passwd file who it is. Here one connection does everything, a migration and
its record are one transaction, and SQL goes to the server as it stands in the file. The file
format, Python steps, dependency order, the DDL of the tables and the rows in them are yoyo's own.
"""

from __future__ import annotations

from initmig.engine.backend import Backend, create_lock_table, try_create_tables
from initmig.engine.loader import load

__all__ = ["Backend", "create_lock_table", "load", "try_create_tables"]
