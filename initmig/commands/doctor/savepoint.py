"""A savepoint for tests of privileges."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.postgres import Session


@contextmanager
def rolled_back_savepoint(session: Session) -> Iterator[None]:
    """Roll back everything done inside the block and release its locks, even after an error."""
    session.command("SAVEPOINT initmig_doctor")
    try:
        yield
    finally:
        if not session.connection.closed:
            session.command(
                "ROLLBACK TO SAVEPOINT initmig_doctor; RELEASE SAVEPOINT initmig_doctor"
            )
