"""Removes the state that migrations leave in a session, such as settings and advisory locks."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from initmig.core.errors import DatabaseUnavailable, InitmigError
from initmig.core.events import SessionNotEmptied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initmig.core.events import Emit
    from initmig.postgres import Session


@contextmanager
def cleaning_up(clean_up: Callable[[], object]) -> Iterator[None]:
    """Call *clean_up* at the end. After an exception, ignore an InitmigError of *clean_up*."""
    try:
        yield
    except BaseException:
        with suppress(InitmigError):
            clean_up()
        raise
    clean_up()


def roll_back(session: Session) -> None:
    """Roll back the open transaction, if any. The server does it if the connection is lost."""
    if not session.in_transaction:
        return
    try:
        session.run_own("ROLLBACK")
    except InitmigError:
        if not session.connection.closed:
            raise


class SessionReset:
    """Resets a session after a migration, and refuses to use it again if that failed.

    A pooler shares its sessions, so their state is not reset here.
    """

    def __init__(self, session: Session, emit: Emit) -> None:
        self._session = session
        self._emit = emit
        self._failure = ""
        """The reason why the state of an earlier migration is still there; empty if it is not."""

    def require_clean(self) -> None:
        """Check that no earlier migration's state is left.

        :raises DatabaseUnavailable: the state of an earlier migration could not be discarded
        """
        if self._failure:
            raise DatabaseUnavailable(
                "session-not-emptied",
                f"the session cannot be used again: {self._failure}",
                hint="end the session that blocks it, if there is one, and run again",
            )

    @contextmanager
    def changing_settings(self) -> Iterator[None]:
        """Allow statements to change the session's settings, and reset them at the end."""
        with cleaning_up(self._reset_settings), self.after_failure():
            yield

    def _reset_settings(self) -> None:
        if self._session.is_dedicated and self._session.usable:
            self._session.command(self._session.reset_sql)

    @contextmanager
    def after_failure(self) -> Iterator[None]:
        """Discard the session's state if the body raises an exception.

        ROLLBACK keeps prepared statements and advisory locks, which would affect the next attempt.
        """
        try:
            yield
        except Exception:
            if self._session.is_dedicated and self._session.usable and not self._failure:
                with self.failure_as_warning(InitmigError):
                    self._session.run_own(self._session.cleanup_sql)
            raise

    @contextmanager
    def failure_as_warning(self, kind: type[InitmigError]) -> Iterator[None]:
        """Report an error of this *kind* as a warning, because it does not affect the migration.

        `require_clean` then fails, so the next transaction needs a new session.
        """
        try:
            yield
        except kind as error:
            self._failure = str(error)
            roll_back(self._session)
            self._emit(SessionNotEmptied(self._failure))
