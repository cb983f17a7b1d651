"""A session: one connection, with what applies to everything sent through it."""

from __future__ import annotations

from time import monotonic

from initmig.core.errors import DatabaseRefused, DatabaseUnavailable, InitmigError
from initmig.core.records import TYPE_CHECKING
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
    from typing import Any, TypeAlias, TypeVar

    from initmig.core.events import ParameterIgnored
    from initmig.postgres.connection import Connection, Copies, OnNotice, RetryHandler
    from initmig.postgres.parameters import OptionalSetting, Settings

    _T = TypeVar("_T")
    MakeHandler: TypeAlias = Callable[["Session"], RetryHandler]
    OnLeftOut: TypeAlias = Callable[[str, str, str], None]

_RECONNECT_SECONDS = 60.0
"""For all addresses together, where no wait timeout is at hand."""

_LONGEST_SILENCE_SECONDS = 10.0
_SHORTEST_SILENCE_SECONDS = 0.5
_OWN_SECONDS = 60.0
"""For one of initmig's own statements where no other limit is given."""

_MESSAGE_START_BYTES = 1000
"""Of a message: enough to find who runs it."""


def _silence(lock_timeout: float, limit: float) -> float:
    """Seconds after which to look who is in the way: before a timeout ends the wait."""
    half = min(lock_timeout or limit, limit) / 2
    return min(max(half, _SHORTEST_SILENCE_SECONDS), _LONGEST_SILENCE_SECONDS)


class Session:
    """One connection in autocommit; search path and role apply to everything sent through it.

    They are set anew in each transaction (SET LOCAL), because behind a pooler in transaction mode
    a plain SET would stay with a server connection that others use next.
    """

    answer_timeout = float("inf")
    """Seconds for the server to answer each message, after which DatabaseUnavailable is raised."""

    trusted = False
    """Whether there is no doubt about the tables of the history, see `trust`."""

    others_may_add_triggers = True
    """Whether a role that does not own the tables of the history may put a trigger on one."""

    is_monitored = False
    """Whether a migration is at work, which somebody else watches."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self._settings = settings
        self.home = settings.home
        """Where the history is; None until that is found out."""
        self._on_notice: OnNotice | None = None
        self._on_left_out: OnLeftOut | None = None
        self._settings_accepted = False
        """Whether the server has accepted initmig's own settings."""
        self._make_handler: MakeHandler | None = None
        self._handler: RetryHandler | None = None
        self.own_statement_limit = _OWN_SECONDS
        """Seconds for each of initmig's own statements, however often it is tried."""
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
        """Let what *make* makes deal with what holds up initmig's own statements.

        *limit* in seconds is for each of them.
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
        """Let *on_notice* have severity and text of what the server says beside its answers."""
        self._on_notice = on_notice
        self.connection.set_notice_handler(on_notice)

    def apply_session_settings(self) -> None:
        """Keep what the preamble sets for the whole session, which must not be a pooled one.

        See `parameters.session_settings`.
        """
        self._session_sql = self._apply_settings(
            lambda: session_settings(self._settings, version=self.connection.server_version)
        )
        self.preamble = self._timeout_sql = ""

    def apply_own_timeouts(self) -> None:
        """Let timeouts of initmig's own hold for its statements on a session that is pooled."""
        own = self._own_timeouts
        self._timeout_sql = own() if self._settings_accepted else self._apply_settings(own)

    def set_left_out_handler(self, on_left_out: OnLeftOut) -> None:
        """Let *on_left_out* have name, reason and effect of a setting that cannot be had here.

        More than once for the same one, if it is found more than once.
        """
        self._on_left_out = on_left_out

    def _apply_settings(self, settings: Callable[[], str]) -> str:
        """What *settings* gives, once the server accepts it: without what it refuses to set.

        :raises DatabaseRefused: it refuses something else
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
        """Whether the server refuses any of the settings that initmig can do without."""
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
            if cause_of(error.server.sqlstate).kind != "error":
                raise as_refusal(error) from error
            names = self._settings.refused | {wanted.name}
            self._settings = self._settings._replace(refused=names)
            if wanted.warn_if_missing or error.server.sqlstate != UNDEFINED_OBJECT:
                self._report_left_out(wanted, str(error))

    def _report_left_out(self, wanted: OptionalSetting, reason: str) -> None:
        if self._on_left_out:
            self._on_left_out(wanted.name, reason, wanted.effect)

    def _own_timeouts(self) -> str:
        """What keeps out timeouts that are the role's, or meant for migrations."""
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
        """As `parameters.transaction_settings`, for the transaction."""
        return transaction_settings(
            version=self.connection.server_version, refused=self._settings.refused
        )

    def add_session_settings(self, settings: str) -> None:
        """Keep what the SQL *settings* sets for the rest of a settled session."""
        self.command(settings)
        self._session_sql += f";{settings}"

    @property
    def is_dedicated(self) -> bool:
        """Whether what is set for the session lasts: it is this session's alone."""
        return bool(self._session_sql)

    @property
    def reset_sql(self) -> str:
        """The SQL that forgets what was set for the session since it was settled."""
        return f"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {self._session_sql}"

    def preserve_lock(self, key: int) -> None:
        """Keep the advisory lock *key* when the session is emptied: it is initmig's own."""
        self._own_locks.add(key)

    @property
    def cleanup_sql(self) -> str:
        """As `parameters.cleanup_sql`, for a settled session."""
        return cleanup_sql(self.reset_sql, self._own_locks)

    @property
    def role(self) -> str:
        """Whom the work is done as; empty where it is the user that logged in."""
        return self._settings.role

    @property
    def reads(self) -> bool:
        """Whether nothing will be written."""
        return self._settings.reads

    @property
    def history_table(self) -> str:
        """What the history table is called."""
        return self._settings.table

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

    def query(self, sql: str, *, by_path: bool = False) -> list[tuple[Any, ...]]:
        """The rows of the last statement of *sql*, which is sent as one message.

        Names in *sql* resolve to pg_catalog, and `search_path.USER_PATH` is SQL for the user's
        search path. With *by_path*, names resolve through the user's search path instead, so *sql*
        must qualify PostgreSQL's own. Either way, the search path is restored afterwards. Retries
        and errors are those of `with_retries`.
        """
        rows = self.command(f"{search_path.SAVE_PATH if by_path else search_path.PIN_PATH}{sql}")
        if self.in_transaction:
            self.run_own(search_path.RESTORE_PATH)
        return rows

    def command(self, sql: str) -> list[tuple[Any, ...]]:
        """As `query`, for what looks no name up, or may set the search path."""
        return self.with_retries(lambda: self.run(f"{self._prefix}{sql}"))

    @property
    def _prefix(self) -> str:
        # in a transaction the timeouts would stay in force for what comes after *sql*
        return self.preamble if self.in_transaction else self._timeout_sql + self.preamble

    def with_retries(self, work: Callable[[], _T]) -> _T:
        """What *work* returns, which sends initmig's own statements, and can be repeated.

        It is, after a pause, where others made it fail, outside of a transaction.

        :raises DatabaseRefused: the server refused a statement
        :raises NoAnswer: others held it up until its time was over
        :raises DatabaseUnavailable: the connection was lost, or an answer took too long
        :raises ClientFailed: libpq or Python failed on the client's side
        """
        if self._limited:
            return self._translate_refusals(work)
        make = None if self.in_transaction else self._make_handler
        return self._within_limit(lambda: self._retry(work, make))

    @property
    def _limited(self) -> bool:
        return self._deadline < float("inf")

    def _within_limit(self, work: Callable[[], _T]) -> _T:
        """What *work* returns, which sends initmig's own statements."""
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
        while True:
            try:
                return self._translate_refusals(work)
            except DatabaseRefused as error:
                if make is None:
                    raise
                if error.id == TIMEOUT_ID and not self.is_dedicated:
                    self.reconnect()  # it had no state: another session is as good
                    continue
                waited = monotonic() - self._begun
                if not (
                    self.usable and self._current_handler(make).pause_before_retry(error, waited)
                ):
                    raise
                if not self._timeout_sql:
                    self.apply_own_timeouts()

    def _translate_refusals(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except StatementFailed as error:
            self.add_setting_source(error)
            raise as_refusal(error) from error

    def run_own(self, script: str) -> list[tuple[Any, ...]]:
        """As `run`, of what initmig sends for itself and can send only once: it has a limit, too.

        :raises NoAnswer: others held it up until its time was over
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
        """The rows of the last statement of *script*, which is sent as it is, in one message.

        Each COPY FROM STDIN in it gets the next of *copies*. A script that *commits* ends in
        COMMIT, or in `parameters.commit_then`, and the server must confirm that. With *discards* no
        rows are wanted, and none are kept in memory.

        :raises AfterCommit: the COMMIT is confirmed, and what comes behind it failed
        :raises StatementFailed: the server refused it, or answered COMMIT with ROLLBACK
        :raises DatabaseUnavailable: the connection was lost, or the answer took too long, or the
            client failed once a COMMIT was sent
        :raises ClientFailed: libpq or Python failed on the client's side
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
        """Let *error* say where the setting comes from, if it is that one has ended the session."""
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
        """A second session with the same database, for questions; *limit* as for `connect`.

        :raises InitmigError: it cannot be had
        """
        other = connect(self._settings, limit=limit)
        other.own_statement_limit = self.own_statement_limit
        if self.is_dedicated:
            other.apply_session_settings()
        return other

    def detach(self) -> Session:
        """This connection as a session of its own; `reconnect` before anything is sent here."""
        return Session(self.connection, self._settings)

    def switch_to_psycopg(self) -> None:
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
        self.connection = open_connection(self._settings, _RECONNECT_SECONDS, python=python)
        self._reset()
        if self._on_notice:
            self.connection.set_notice_handler(self._on_notice)

    def close(self) -> None:
        """Give the connection back; whatever is open in it is rolled back by the server."""
        self.connection.close()


def connect(
    settings: Settings,
    *,
    limit: float = _RECONNECT_SECONDS,
    warn: Callable[[ParameterIgnored], None] = lambda _: None,
) -> Session:
    """A session, within *limit* seconds; each address has the connect timeout of its own.

    *warn* is called for each parameter that cannot be used, and need not.

    :raises ConfigError: the connection string is malformed, or names a file that cannot be used
    :raises DatabaseUnavailable: no answer, or the answer was: not now
    :raises LoginRefused: the server answered, and refused
    """
    return Session(open_connection(settings, limit, warn=warn), settings)
