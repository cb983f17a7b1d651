"""What a connection can do, of whichever kind it is; for type checkers alone."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from initmig.core.errors import InitmigError

OnNotice = Callable[[str, str], None]
"""Gets severity and text."""


Copies = Iterable[Iterable[bytes]]
"""The data for one COPY FROM STDIN after the other, each in pieces."""


class RetryHandler(Protocol):
    """What is done while others hold up what initmig sends for itself, once they do."""

    def report(self, sql: str, waited: float) -> None:
        """The server has said nothing to *sql* for long; *waited* seconds in all."""

    def pause_before_retry(self, error: InitmigError, waited: float) -> bool:
        """Whether to try again after *error*, once the pause for that is over.

        :raises InitmigError: it was worth that, but the time for it is over
        """

    def no_answer_error(self, error: InitmigError) -> InitmigError:
        """What to raise for *error* when the time for it is over."""


class Connection(Protocol):
    """One connection in autocommit."""

    silence_seconds: float
    """How long the server may say nothing to a message until `on_silence` is called, repeatedly."""

    on_silence: Callable[[], None]

    @property
    def server_version(self) -> int:
        """As ``server_version_num``: 150004 is 15.4."""

    @property
    def startup_pid(self) -> int:
        """The server process id given at start-up: behind a pooler, not the one that works."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, or lost."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it failed or not."""

    @property
    def encoding(self) -> str:
        """What the server takes for the client's encoding, in its own words."""

    @property
    def dbapi(self) -> Any:
        """psycopg's connection, for steps in Python; None where there is none."""

    def set_notice_handler(self, on_notice: OnNotice) -> None:
        """Let *on_notice* have what the server says beside its answers."""

    def exchange(
        self,
        message: bytes,
        timeout: float,
        copies: Iterator[Iterable[bytes]],
        *,
        commits: bool = False,
        discards: bool = False,
    ) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *message*, within *timeout* seconds.

        With *discards* there are none: each row is dropped as it arrives, and a result of any size
        takes no more memory than a few rows of it.

        Each COPY FROM STDIN in it gets the next of *copies*, and fails where there is none.
        Where *message* *commits*, its last statement is a COMMIT, which the server must confirm; or
        it ends in what `parameters.commit_then` gives.

        A connection that ended raises the error that ended it again.

        :raises AfterCommit: the COMMIT is confirmed, and what comes behind it failed
        :raises StatementFailed: the server refused it; what came before in *message* is counted
        :raises DatabaseUnavailable: the connection was lost, or the answer took too long
        :raises OutcomeUnknown: the client failed after it had sent a COMMIT
        :raises ClientFailed: the client failed before that; the connection is closed
        """

    def close(self) -> None:
        """Leave; whatever is open is rolled back by the server."""
