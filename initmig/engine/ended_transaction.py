"""Detects a migration that ended initmig's transaction or left a transaction prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.errors import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.core.errors import Place
    from initmig.postgres import Session, StatementFailed

SAVEPOINT = "sp_initmig"
"""The prefix of initmig's savepoints. A savepoint ends with its transaction."""

NO_TRANSACTION = "25P01"
"""no_active_sql_transaction"""
_NO_SAVEPOINT = "3B001"
"""invalid_savepoint_specification"""


def transaction_has_ended(error: StatementFailed) -> bool:
    """Whether *error* shows that initmig's transaction has ended."""
    server = error.server
    if server.context:  # a function raised the same error itself, and is named there
        return False
    lost_savepoint = server.sqlstate == _NO_SAVEPOINT and SAVEPOINT in str(error)
    return server.sqlstate == NO_TRANSACTION or lost_savepoint


def transaction_ended_error(
    id: str, session: Session, place: Place, *, which: str, seconds: float
) -> MigrationFailed:
    """The error to raise if the migration *id* ended a transaction within the last *seconds*.

    *which* completes "the transaction ..." in the message.
    """
    from initmig.engine.catalog import recently_prepared

    if prepared := recently_prepared(session, seconds):
        return transaction_prepared_error(id, prepared, place)
    return MigrationFailed(
        "transaction-ended",
        f"{id} ended the transaction {which}",
        hint="undo what it has committed, which is kept but not recorded, and remove the command"
        " that ended the transaction",
        place=place,
    )


def transaction_prepared_error(id: str, prepared: Sequence[str], place: Place) -> MigrationFailed:
    """The error to raise if the migration *id* left the transactions *prepared*."""
    names = ", ".join(prepared)
    return MigrationFailed(
        "transaction-left-prepared",
        f"{id} left a prepared transaction: {names}",
        hint=f"run {'; '.join(f'ROLLBACK PREPARED {name}' for name in prepared)}; then remove"
        " PREPARE TRANSACTION from the migration and run again. Until then, the prepared"
        " transaction is not committed and keeps its locks",
        place=place,
    )
