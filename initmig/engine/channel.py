"""The channel: how a migration reaches the server, and how it reports what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.identity import current_identity
from initmig.core.records import Record
from initmig.engine.batch import Batch
from initmig.engine.session_reset import SessionReset
from initmig.engine.transactions import Transactions
from initmig.engine.yoyo_backend import YoyoBackend
from initmig.history.location import home_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from initmig.core.errors import Place
    from initmig.core.events import Emit
    from initmig.core.home import Home
    from initmig.core.identity import Identity
    from initmig.engine.batch import Script
    from initmig.postgres import Session


class Channel(Record):
    """The objects that the migrations of a run share, all of them for the same *session*."""

    session: Session
    batch: Batch
    reset: SessionReset
    transactions: Transactions
    yoyo: YoyoBackend
    home: Home
    """The location of the history tables."""
    by: Identity
    """Recorded with each migration."""
    emit: Emit
    on_statement: Callable[[Callable[[], Place]], object]
    """Called before each statement, with a function that returns its place."""

    def run(self, script: Script) -> None:
        """Run *script*, or add it to the message of the COMMIT if it has its own transaction.

        :raises StatementFailed: with its place in the file
        """
        self.on_statement(script.statement_place)
        self.batch.run(script)


def open_channel(
    session: Session,
    *,
    emit: Emit,
    settings: str = "",
    guard: str = "",
    on_statement: Callable[[Callable[[], Place]], object] = lambda _: None,
) -> Channel:
    """A channel in *session*; *settings* and *guard* as for `Transactions`."""
    batch, home, by = Batch(session), home_of(session), current_identity()
    reset = SessionReset(session, emit)
    transactions = Transactions(batch, reset, settings=settings, guard=guard)
    yoyo = YoyoBackend(batch, home, by)
    return Channel(session, batch, reset, transactions, yoyo, home, by, emit, on_statement)
