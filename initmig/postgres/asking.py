"""What both kinds of connection can do; for type checkers alone."""

from typing import Any, Protocol


class Asking(Protocol):
    """A connection that questions can be sent through, of either kind."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *sql*, which is sent as one message."""

    def settle(self) -> None:
        """Keep what goes before each question for the whole session."""

    @property
    def startup_pid(self) -> int:
        """The server process id given at start-up: behind a pooler, not the one that works."""

    @property
    def usable(self) -> bool:
        """Whether a statement can still be sent, outside of any transaction."""

    def close(self) -> None:
        """Give the connection back."""
