"""A session: a connection with the settings for every statement."""

from __future__ import annotations

from time import monotonic

from initmig.core.errors import DatabaseRefused, DatabaseUnavailable, InitmigError
from initmig.core.records import TYPE_CHECKING
from initmig.core.retrying import retry
from initmig.postgres import search_path
from initmig.postgres.connecting import open_connection
from initmig.postgres.errors import TIMEOUT_ID, UNDEFINED_OBJECT, StatementFailed, as_refusal
from initmig.postgres.parameters import (
    OPTIONAL_SETTINGS,
    RAW,
    cleanup_sql,
    missing_settings,
    preamble,
    session_settings,
    timeouts,
    transaction_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeAlias, TypeVar

    from tenacity import Retrying

    from initmig.core.events import ParameterIgnored
    from initmig.postgres.connection import Connection, Copies
    from initmig.postgres.notices import OnNotice
    from initmig.postgres.parameters import OptionalSetting, Settings

    _T = TypeVar("_T")

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

    MakeHandler: TypeAlias = Callable[["Session"], RetryHandler]
    OnLeftOut: TypeAlias = Callable[[str, str, str], None]


_RECONNECT_SECONDS = 60.0
"""For all addresses together, if the wait timeout is unknown."""

_LONGEST_SILENCE_SECONDS = 10.0
_SHORTEST_SILENCE_SECONDS = 0.5
_OWN_SECONDS = 60.0
"""Default limit for one of initmig's statements."""

_MESSAGE_START_BYTES = 1000
"""The part of a message that is enough to find its server process."""


def _silence(lock_timeout: float, limit: float) -> float:
    """Seconds of silence after which to query for blockers, before a timeout ends the wait."""
    half = min(lock_timeout or limit, limit) / 2
    return min(max(half, _SHORTEST_SILENCE_SECONDS), _LONGEST_SILENCE_SECONDS)


class Session:
    """A connection in autocommit mode. The search path and the role apply to every statement.

    Each transaction sets them with SET LOCAL, because a plain SET behind a pooler in transaction
    mode would affect the next client of the server connection.
    """

    answer_timeout = float("inf")
    """Seconds for the answer to each message. DatabaseUnavailable is raised after that."""

    trusted = False
    """Whether the history tables passed the checks of `trust`."""

    others_may_add_triggers = True
    """Whether a role that does not own the history tables can add a trigger to one."""

    is_monitored = False
    """Whether a migration is running, which a `StatementMonitor` reports."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self._settings = settings
        self.home = settings.home
        """The location of the history; None until it is known."""
        self._on_notice: OnNotice | None = None
        self._on_left_out: OnLeftOut | None = None
        self._settings_accepted = False
        """Whether the server has accepted initmig's settings."""
        self._make_handler: MakeHandler | None = None
        self._handler: RetryHandler | None = None
        self.own_statement_limit = _OWN_SECONDS
        """Seconds for each statement that initmig sends for itself, including retries."""
        self._deadline = float("inf")
        self._begun = 0.0
        self._message = b""
        self._reset()

    def _reset(self) -> None:
        self._session_sql = self._timeout_sql = ""
        self._own_locks: set[int] = set()
        self.preamble = preamble(self._settings)
        self._watch_silence()

    def set_retry_handler(self, make: MakeHandler, limit: float) -> None:
        """Use the handlers that *make* creates for initmig's own statements that are blocked.

        *limit* is in seconds, for each statement.
        """
        self._make_handler, self.own_statement_limit = make, limit
        self._watch_silence()

    def _watch_silence(self) -> None:
        if self._make_handler:
            seconds = _silence(self._settings.lock_timeout, self.own_statement_limit)
            self.connection.silence_seconds = seconds
            self.connection.on_silence = self._report_silence

    def _report_silence(self) -> None:
        if self._make_handler and not self.is_monitored:
            handler = self._current_handler(self._make_handler)
            handler.report(self._message_start(), monotonic() - self._begun)

    def _current_handler(self, make: MakeHandler) -> RetryHandler:
        self._handler = self._handler or make(self)
        return self._handler

    def set_notice_handler(self, on_notice: OnNotice) -> None:
        """Call *on_notice* with the severity and the text of each notice from the server."""
        self._on_notice = on_notice
        self.connection.set_notice_handler(on_notice)

    def apply_session_settings(self) -> None:
        """Apply the preamble and other settings to the whole session, which must not be pooled.

        See `parameters.session_settings`.
        """
        self._session_sql = self._apply_settings(
            lambda: session_settings(self._settings, version=self.connection.server_version)
        )
        self.preamble = self._timeout_sql = ""

    def apply_own_timeouts(self) -> None:
        """Apply initmig's timeouts to its own statements in a pooled session."""
        own = self._own_timeouts
        self._timeout_sql = own() if self._settings_accepted else self._apply_settings(own)

    def set_left_out_handler(self, on_left_out: OnLeftOut) -> None:
        """Call *on_left_out* with name, reason and effect of each setting that cannot be set.

        It may be called several times for the same setting.
        """
        self._on_left_out = on_left_out

    def _apply_settings(self, settings: Callable[[], str]) -> str:
        """Run the SQL of *settings*, without settings that the server refuses, and return the SQL.

        :raises DatabaseRefused: the server refuses a setting that initmig requires
        """
        try:
            self.command(settings())
        except DatabaseRefused:
            if not self._leave_out_refused():
                raise
            self.command(settings())
        self._settings_accepted = True
        for each in missing_settings(self.connection.server_version):
            self._report_left_out(each, "this server does not have this setting")
        return settings()

    def _leave_out_refused(self) -> bool:
        """Record which optional settings the server refuses. Return whether there are new ones."""
        before = self._settings.refused
        for each in OPTIONAL_SETTINGS:
            if each.since <= self.connection.server_version and each.name not in before:
                self._try_setting(each)
        return self._settings.refused != before

    def _try_setting(self, wanted: OptionalSetting) -> None:
        from initmig.core.causes import cause_of

        try:
            self.run(f"SET LOCAL {wanted.name} = {wanted.value}; SELECT")
        except StatementFailed as error:
            if cause_of(error.sqlstate).kind != "error":
                raise as_refusal(error) from error
            names = self._settings.refused | {wanted.name}
            self._settings = self._settings._replace(refused=names)
            if wanted.warn_if_missing or error.sqlstate != UNDEFINED_OBJECT:
                self._report_left_out(wanted, str(error))

    def _report_left_out(self, wanted: OptionalSetting, reason: str) -> None:
        if self._on_left_out:
            self._on_left_out(wanted.name, reason, wanted.effect)

    def _own_timeouts(self) -> str:
        """SQL that replaces the timeouts of the role and of migrations."""
        if self.is_dedicated:
            return "SET LOCAL statement_timeout = 0;"
        return self.timeouts(self._settings.lock_timeout, local=True)

    def timeouts(
        self, lock_timeout: float, statement_timeout: float = 0.0, *, local: bool = False
    ) -> str:
        """As `parameters.timeouts`, for this server."""
        return timeouts(
            lock_timeout,
            version=self.connection.server_version,
            refused=self._settings.refused,
            statement_timeout=statement_timeout,
            local=local,
        )

    @property
    def transaction_settings(self) -> str:
        """As `parameters.transaction_settings`, for one transaction."""
        return transaction_settings(
            version=self.connection.server_version, refused=self._settings.refused
        )

    def add_session_settings(self, settings: str) -> None:
        """Apply the SQL *settings* to the rest of a dedicated session."""
        self.command(settings)
        self._session_sql += f";{settings}"

    @property
    def is_dedicated(self) -> bool:
        """Whether the session has its server connection to itself, so that settings last."""
        return bool(self._session_sql)

    @property
    def reset_sql(self) -> str:
        """SQL that removes settings made since `apply_session_settings`."""
        return f"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {self._session_sql}"

    def preserve_lock(self, key: int) -> None:
        """Exclude the advisory lock *key*, which is initmig's own, from `cleanup_sql`."""
        self._own_locks.add(key)

    @property
    def cleanup_sql(self) -> str:
        """As `parameters.cleanup_sql`, for a dedicated session."""
        return cleanup_sql(self.reset_sql, self._own_locks)

    @property
    def role(self) -> str:
        """The role for the work; empty for the login role."""
        return self._settings.role

    @property
    def logs_in_by_command(self) -> bool:
        """Whether a command, which may be slow, provides the password of each new connection."""
        return bool(self._settings.password.command)

    @property
    def reads(self) -> bool:
        """Whether the run only reads."""
        return self._settings.reads

    @property
    def history_table(self) -> str:
        """The name of the history table."""
        return self._settings.table

    @property
    def startup_pid(self) -> int:
        """The server process id from startup. Behind a pooler, another process does the work."""
        return self.connection.startup_pid

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, including a failed one."""
        return self.connection.in_transaction

    @property
    def usable(self) -> bool:
        """Whether a statement can be sent outside of a transaction."""
        return not (self.connection.closed or self.in_transaction)

    def query(self, sql: str, *, by_path: bool = False) -> list[tuple[Any, ...]]:
        """Run *sql* in one message, and return the rows of its last statement.

        Names in *sql* resolve to pg_catalog, and `search_path.USER_PATH` is SQL for the user's
        search path. With *by_path*, names resolve through the user's search path instead, so *sql*
        must qualify PostgreSQL's own. Afterwards the search path is restored. Retries and errors
        are those of `with_retries`.
        """
        rows = self.command(f"{search_path.SAVE_PATH if by_path else search_path.PIN_PATH}{sql}")
        if self.in_transaction:
            self.run_own(search_path.RESTORE_PATH)
        return rows

    def command(self, sql: str) -> list[tuple[Any, ...]]:
        """As `query`, for SQL that looks up no names, or that sets the search path."""
        return self.with_retries(lambda: self.run(f"{self._prefix}{sql}"))

    @property
    def _prefix(self) -> str:
        # in a transaction, the timeouts would also apply to the statements after *sql*
        return self.preamble if self.in_transaction else self._timeout_sql + self.preamble

    def with_retries(self, work: Callable[[], _T]) -> _T:
        """Call *work*, which sends initmig's statements and is repeatable. Return its result.

        Outside of a transaction, it is retried after a pause if other sessions made it fail.

        :raises DatabaseRefused: the server refused a statement
        :raises NoAnswer: other sessions blocked it until the limit
        :raises DatabaseUnavailable: the connection was lost, or an answer took too long
        :raises ClientFailed: libpq or Python failed in the client
        """
        if self._limited:
            return self._translate_refusals(work)
        make = None if self.in_transaction else self._make_handler
        return self._within_limit(lambda: self._retry(work, make))

    @property
    def _limited(self) -> bool:
        return self._deadline < float("inf")

    def _within_limit(self, work: Callable[[], _T]) -> _T:
        """Call *work*, which sends initmig's own statements, within their time limit."""
        self._begun, self._handler = monotonic(), None
        self._deadline = self._begun + self.own_statement_limit
        try:
            return work()
        except DatabaseUnavailable as error:
            if self._make_handler and self.connection.closed and monotonic() >= self._deadline:
                raise self._current_handler(self._make_handler).no_answer_error(error) from error
            raise
        finally:
            self._deadline = float("inf")

    def _retry(self, work: Callable[[], _T], make: MakeHandler | None) -> _T:
        if make is None:
            return self._translate_refusals(work)
        return retry(
            lambda: self._translate_refusals(work),
            self._is_retryable,
            lambda: self._current_handler(make).retrying(
                self._is_retryable, lambda: monotonic() - self._begun, self._prepare_retry
            ),
        )

    def _is_retryable(self, error: BaseException) -> bool:
        from initmig.core.causes import is_cancellation, is_contention

        if not isinstance(error, DatabaseRefused):
            return False
        is_interrupted = is_contention(error.sqlstate) or is_cancellation(error.sqlstate)
        return self._can_be_replaced(error) or (self.usable and is_interrupted)

    def _can_be_replaced(self, error: InitmigError) -> bool:
        """Whether a timeout setting closed the session, which had no state."""
        return error.id == TIMEOUT_ID and not self.is_dedicated

    def _prepare_retry(self, error: InitmigError) -> None:
        if self._can_be_replaced(error):
            self.reconnect()
        elif not self._timeout_sql:
            self.apply_own_timeouts()

    def _translate_refusals(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except StatementFailed as error:
            self.add_setting_source(error)
            raise as_refusal(error) from error

    def run_own(self, script: str) -> list[tuple[Any, ...]]:
        """As `run` but with a time limit, for initmig's own SQL that cannot be repeated.

        :raises NoAnswer: other sessions blocked it until the limit
        """
        return self.run(script) if self._limited else self._within_limit(lambda: self.run(script))

    def run(
        self,
        script: str | bytes,
        copies: Copies = (),
        *,
        commits: bool = False,
        discards: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Send *script* unchanged in one message, and return the rows of its last statement.

        Each COPY FROM STDIN gets the next of *copies*. With *commits*, the script ends with COMMIT
        or with `parameters.commit_then`, and the server must confirm the COMMIT. With *discards*,
        rows are dropped, and none are returned.

        :raises AfterCommit: the COMMIT is confirmed, but a later statement failed
        :raises StatementFailed: the server rejected a statement, or answered COMMIT with ROLLBACK
        :raises DatabaseUnavailable: the connection was lost, or the answer took too long, or the
            client failed after it had sent a COMMIT
        :raises ClientFailed: libpq or Python failed in the client
        """
        message = script if isinstance(script, bytes) else script.encode(errors=RAW)
        self._message = message
        if not self._limited:
            self._begun, self._handler = monotonic(), None
        seconds = min(self.answer_timeout, max(self._deadline - monotonic(), 0.0))
        return self.connection.exchange(
            message, seconds, iter(copies), commits=commits, discards=discards
        )

    def _message_start(self) -> str:
        return self._message[:_MESSAGE_START_BYTES].decode(errors="replace")

    def add_setting_source(self, error: InitmigError) -> None:
        """If a timeout setting closed the session, add the source of the setting to *error*."""
        if error.id != TIMEOUT_ID:
            return
        from contextlib import closing

        from initmig.core.causes import cause_of
        from initmig.postgres.setting_sources import setting_hint

        [problem] = error.problems
        name = cause_of(problem.server.sqlstate, closed=True).name
        try:
            with closing(connect(self._settings)) as other:
                hint = setting_hint(name, other.query)
        except InitmigError:
            hint = f"find where {name} is set, and raise it or set it to 0"
        error.problems = (problem._replace(hint=hint),)

    def sibling(self, *, limit: float = _RECONNECT_SECONDS) -> Session:
        """Open a second session with the same database, for queries; *limit* as for `connect`.

        :raises InitmigError: it cannot be opened
        """
        other = connect(self._settings, limit=limit)
        other.own_statement_limit = self.own_statement_limit
        if self.is_dedicated:
            other.apply_session_settings()
        return other

    def detach(self) -> Session:
        """Return the connection as another session. Call `reconnect` to use this one again."""
        return Session(self.connection, self._settings)

    def switch_to_psycopg(self) -> None:
        """Continue with a psycopg connection, for Python steps, unless the session already has one.

        :raises InitmigError: no connection was made
        """
        if self.connection.dbapi is None:
            # Import psycopg first, because it takes time: closing the old connection releases the
            # migration lock, and another migrator can take it.
            import initmig.postgres.dbapi  # noqa: F401

            self.close()
            self._connect(python=True)

    def reconnect(self) -> None:
        """Continue with a new connection, without session settings. The old one is not closed.

        :raises InitmigError: no connection was made
        """
        self._connect(python=self.connection.dbapi is not None)

    def _connect(self, *, python: bool) -> None:
        self.connection = open_connection(self._settings, _RECONNECT_SECONDS, python=python)
        self._reset()
        if self._on_notice:
            self.connection.set_notice_handler(self._on_notice)

    def close(self) -> None:
        """Close the connection. The server rolls back an open transaction."""
        self.connection.close()


def connect(
    settings: Settings,
    *,
    limit: float = _RECONNECT_SECONDS,
    warn: Callable[[ParameterIgnored], None] = lambda _: None,
) -> Session:
    """Open a session within *limit* seconds. Each address has its own connect timeout.

    *warn* is called for each parameter that cannot be used and is not required.

    :raises ConfigError: the connection string is malformed, or names a file that is not usable
    :raises DatabaseUnavailable: no answer, or the server does not accept connections now
    :raises LoginRefused: the server refused the login
    """
    return Session(open_connection(settings, limit, warn=warn), settings)
