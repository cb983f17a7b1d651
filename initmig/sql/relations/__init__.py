"""Which relations a database has, and which it has after each pending statement.

They are read once from the database, as an `Inventory`. From then on `Relations` follows the
statements, by PostgreSQL's own rules for names. It cannot see the relations that a function, a DO
block or an extension makes.
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
