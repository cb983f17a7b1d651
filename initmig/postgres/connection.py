"""The protocol of both kinds of connection, for type checkers only."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from tenacity import Retrying

from initmig.core.errors import InitmigError

OnNotice = Callable[[str, str], None]
"""Called with the severity and the text of a notice."""


Copies = Iterable[Iterable[bytes]]
"""The data for each COPY FROM STDIN, in chunks."""


class RetryHandler(Protocol):
    """Handles initmig's own statements while other sessions block them."""

    def report(self, sql: str, waited: float) -> None:
        """Report that the server has not answered *sql* for *waited* seconds."""

    def retrying(
        self,
        is_retryable: Callable[[BaseException], bool],
        waited: Callable[[], float],
        prepare: Callable[[InitmigError], None],
    ) -> Retrying:
        """The rules for retries, which report each reason and then *prepare* the next attempt.

        *waited* returns the seconds since the first attempt began.
        """

    def no_answer_error(self, error: InitmigError) -> InitmigError:
        """The error to raise for *error* when the time is over."""


class Connection(Protocol):
    """A connection in autocommit mode."""

    silence_seconds: float
    """`on_silence` is called each time the server has sent nothing for this long."""

    on_silence: Callable[[], None]

    @property
    def server_version(self) -> int:
        """As ``server_version_num``: 150004 is 15.4."""

    @property
    def startup_pid(self) -> int:
        """The server process id from startup. Behind a pooler, another process does the work."""

    @property
    def closed(self) -> bool:
        """Whether the connection was closed or lost."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, including a failed one."""

    @property
    def encoding(self) -> str:
        """The client encoding as the server reports it."""

    @property
    def dbapi(self) -> Any:
        """psycopg's connection for Python steps; None for a libpq connection."""

    def set_notice_handler(self, on_notice: OnNotice) -> None:
        """Call *on_notice* for each notice from the server."""

    def exchange(
        self,
        message: bytes,
        timeout: float,
        copies: Iterator[Iterable[bytes]],
        *,
        commits: bool = False,
        discards: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Send *message*, and return the rows of its last statement within *timeout* seconds.

        With *discards*, rows are dropped as they arrive and none are returned, so a result of any
        size needs the memory of a few rows.

        Each COPY FROM STDIN in *message* gets the next of *copies*, and fails without one.
        With *commits*, the message ends with COMMIT or with `parameters.commit_then`, and the
        server must confirm the COMMIT.

        A closed connection raises the error that closed it.

        :raises AfterCommit: the COMMIT is confirmed, but a later statement failed
        :raises StatementFailed: the server rejected a statement; earlier ones are counted in
            `completed`
        :raises DatabaseUnavailable: the connection was lost, or the answer took too long
        :raises OutcomeUnknown: the client failed after it had sent a COMMIT
        :raises ClientFailed: the client failed before that; the connection is closed
        """

    def close(self) -> None:
        """Close the connection. The server rolls back an open transaction."""
