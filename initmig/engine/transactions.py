"""A transaction that a migration ended though it was not the migration's to end."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from initmig.core.errors import InitmigError, MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.core.errors import Place
    from initmig.postgres import Session, StatementFailed

SAVEPOINT = "sp_initmig"
"""What the names of initmig's savepoints begin with: they are lost with their transaction."""

NO_TRANSACTION = "25P01"
"""no_active_sql_transaction"""
_NO_SAVEPOINT = "3B001"
"""invalid_savepoint_specification"""


@contextmanager
def cleaning_up(clean_up: Callable[[], object]) -> Iterator[None]:
    """Do *clean_up* in the end; what failed inside stays the failure, though that fails too."""
    try:
        yield
    except BaseException:
        with suppress(InitmigError):
            clean_up()
        raise
    clean_up()


def transaction_has_ended(error: StatementFailed) -> bool:
    """Whether the server says that the transaction which initmig was in is over."""
    server = error.server
    if server.context:  # a function that raises the same names itself in it
        return False
    lost_savepoint = server.sqlstate == _NO_SAVEPOINT and SAVEPOINT in str(error)
    return server.sqlstate == NO_TRANSACTION or lost_savepoint


def transaction_ended_error(
    id: str, session: Session, place: Place, *, which: str, seconds: float
) -> MigrationFailed:
    """What to raise where the migration *id* ended a transaction in the last *seconds*.

    *which* completes "the transaction".
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
    """What to raise where *id* left the transactions *prepared*."""
    names = ", ".join(prepared)
    return MigrationFailed(
        "transaction-left-prepared",
        f"{id} left a prepared transaction: {names}",
        hint=f"run {'; '.join(f'ROLLBACK PREPARED {name}' for name in prepared)}; then remove"
        " PREPARE TRANSACTION from the migration and run again. Until then, the prepared"
        " transaction is not committed and keeps its locks",
        place=place,
    )
