"""Which relations a database has, and which it has after each pending statement.

The database tells once, as an `Inventory`; from there on `Relations` follows the statements, by
PostgreSQL's own rules for names. What a function, a DO block or an extension makes is not seen.
"""

from __future__ import annotations

from initmig.sql.relations.names import RELATIONS, SERIAL, made_name
from initmig.sql.relations.records import (
    ForeignKey,
    Inventory,
    Program,
    Relation,
    Uses,
    read_inventory,
)
from initmig.sql.relations.tracking import Relations, cascades

__all__ = [
    "RELATIONS",
    "SERIAL",
    "ForeignKey",
    "Inventory",
    "Program",
    "Relation",
    "Relations",
    "Uses",
    "cascades",
    "made_name",
    "read_inventory",
]
