"""A part of a transaction that leaves nothing behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.postgres import Session


@contextmanager
def trial(session: Session) -> Iterator[None]:
    """Roll back what is done inside, and release its locks, also when it fails."""
    session.command("SAVEPOINT trial")
    try:
        yield
    finally:
        if not session.connection.closed:
            session.command("ROLLBACK TO SAVEPOINT trial; RELEASE SAVEPOINT trial")
