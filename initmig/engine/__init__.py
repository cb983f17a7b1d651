"""The only package that uses yoyo: its loader and its PostgreSQL backend, with safer overrides.

yoyo applies a migration on a second connection and records it on the first, so a crash in between
leaves it applied but not recorded. yoyo's lock outlives its holder. yoyo also splits SQL, and
looks up the user and host in the passwd file and DNS.

Here, one connection does everything. A migration and its record are one transaction, and the
server gets the SQL unchanged. The file format, Python steps, dependency order, the DDL of the
history tables and their rows are yoyo's.
"""

from __future__ import annotations

from initmig.engine.history_tables import create_lock_table, try_create_tables
from initmig.engine.loader import load

__all__ = ["create_lock_table", "load", "try_create_tables"]
