"""A session: one connection, with what applies to everything sent through it."""

from __future__ import annotations

from initmig.postgres.connecting import open_connection
from initmig.postgres.errors import StatementFailed, refused
from initmig.postgres.parameters import CONNECT_TIMEOUT_SECONDS, lasting, preamble
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from initmig.postgres.connection import Connection, Copies, OnNotice
    from initmig.postgres.parameters import Settings


class Session:
    """One connection in autocommit; search path and role apply to everything sent through it.

    They are set anew in each transaction (SET LOCAL), because behind a pooler in transaction mode
    a plain SET would stay with a server connection that others use next.
    """

    answer_timeout = float("inf")
    """Seconds for the server to answer each message, after which DatabaseUnavailable is raised."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self._settings = settings
        self._on_notice: OnNotice | None = None
        self._begin()

    def _begin(self) -> None:
        self._lasting = ""
        self.preamble = preamble(self._settings)

    def tell_notices(self, on_notice: OnNotice) -> None:
        """Let *on_notice* have severity and text of what the server says beside its answers."""
        self._on_notice = on_notice
        self.connection.tell_notices(on_notice)

    def settle(self) -> None:
        """Keep what the preamble sets for the whole session, which must not be a pooled one.

        See `parameters.lasting`.
        """
        self._lasting = lasting(self._settings)
        self.query(self._lasting)
        self.preamble = ""

    def keep(self, settings: str) -> None:
        """Keep what the SQL *settings* sets for the rest of a settled session."""
        self.query(settings)
        self._lasting += f";{settings}"

    @property
    def settled(self) -> bool:
        """Whether what is set for the session lasts: it is this session's alone."""
        return bool(self._lasting)

    @property
    def resetting(self) -> str:
        """The SQL that forgets what was set for the session since it was settled."""
        return f"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {self._lasting}"

    @property
    def role(self) -> str:
        """Whom the work is done as; empty where it is the user that logged in."""
        return self._settings.role

    @property
    def startup_pid(self) -> int:
        """The server process id given at start-up: behind a pooler, not the one that works."""
        return self.connection.startup_pid

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it failed or not."""
        return self.connection.in_transaction

    @property
    def usable(self) -> bool:
        """Whether a statement can still be sent, outside of any transaction."""
        return not (self.connection.closed or self.in_transaction)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *sql*, which is sent as one message.

        :raises DatabaseRefused: the server refused it
        :raises DatabaseUnavailable: the connection was lost, or an answer took too long
        :raises ClientFailed: libpq or Python failed on the client's side
        """
        try:
            return self.run(self.preamble + sql)
        except StatementFailed as error:
            raise refused(error) from error

    def run(
        self, script: str, copies: Copies = (), *, commits: bool = False
    ) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *script*, which is sent as it is, in one message.

        Each COPY FROM STDIN in it gets the next of *copies*. A script that *commits* ends in
        COMMIT, and the server must confirm that.

        :raises StatementFailed: the server refused it, or answered COMMIT with ROLLBACK
        :raises DatabaseUnavailable: the connection was lost, or the answer took too long, or the
            client failed once a COMMIT was sent
        :raises ClientFailed: libpq or Python failed on the client's side
        """
        return self.connection.exchange(script, self.answer_timeout, iter(copies), commits=commits)

    def sibling(self) -> Session:
        """A second session with the same database, for questions.

        :raises InitmigError: it cannot be had
        """
        other = connect(self._settings)
        if self.settled:
            other.settle()
        return other

    def hand_over(self) -> Session:
        """This connection as a session of its own; `reconnect` before anything is sent here."""
        return Session(self.connection, self._settings)

    def serve_python(self) -> None:
        """Go on with a connection that steps in Python can be given, unless it is one already.

        :raises InitmigError: it cannot be made
        """
        if self.connection.dbapi is None:
            # first what takes its time: the migration lock goes with the connection so far, and is
            # the first comer's until it is taken again

            self.close()
            self._connect(python=True)

    def reconnect(self) -> None:
        """Go on with a new connection, unsettled; the one so far is left as it is.

        :raises InitmigError: it cannot be made
        """
        self._connect(python=self.connection.dbapi is not None)

    def _connect(self, *, python: bool) -> None:
        self.connection = open_connection(self._settings, CONNECT_TIMEOUT_SECONDS, python=python)
        self._begin()
        if self._on_notice:
            self.connection.tell_notices(self._on_notice)

    def close(self) -> None:
        """Give the connection back; whatever is open in it is rolled back by the server."""
        self.connection.close()


def connect(settings: Settings, *, timeout: float = CONNECT_TIMEOUT_SECONDS) -> Session:
    """A session; *timeout* in seconds for each host to let it in.

    :raises ConfigError: the connection string is malformed
    :raises DatabaseUnavailable: no answer, or the answer was: not now
    :raises LoginRefused: the server answered, and refused
    """
    return Session(open_connection(settings, timeout), settings)
