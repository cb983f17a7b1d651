"""The settings and session that every command needs, and functions that report a decision."""

from __future__ import annotations

from initmig import postgres
from initmig.commands.result import Committed
from initmig.core.errors import InitmigError, PlanError
from initmig.core.model import Listing
from initmig.core.records import TYPE_CHECKING, Record
from initmig.core.run_events import HistoryRead, NoMigrationsFound, SettingLeftOut
from initmig.history import trust
from initmig.migrations.decision import Policy
from initmig.migrations.files import list_files
from initmig.postgres import waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from initmig.commands.result import AnyResult
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import Problem
    from initmig.core.events import Emit, Event
    from initmig.locking.statement_retry import StatementRetry
    from initmig.migrations.decision import Decision
    from initmig.postgres import Session

    _T = TypeVar("_T")
    _R = TypeVar("_R", bound=AnyResult)


class Run(Record):
    """One run of a command."""

    config: Config
    listing: Listing
    emit: Emit
    clock: Clock
    outage: waiting.Outage
    """Shared by all connections, because the wait timeout covers the whole run."""
    begun: float
    """Seconds of the clock."""
    emit_once: Emit
    """For events that each new connection would repeat."""
    committed: Committed
    reads: bool = False
    """Whether the run only reads."""

    def seconds(self) -> float:
        """Seconds since the run began."""
        return self.clock.now() - self.begun

    @property
    def known(self) -> list[str]:
        """The ids of this image, in its order."""
        return [file.id for file in self.listing.migrations]

    @property
    def policy(self) -> Policy:
        """The settings that decide what the run does."""
        config = self.config
        return Policy(
            to=config.to,
            changed=config.changed,
            out_of_order=config.out_of_order,
            transaction=config.transaction,
            steps=config.steps,
            everything=config.all,
            irreversible=config.irreversible,
        )

    @property
    def settings(self) -> postgres.Settings:
        """The settings for a new connection."""
        config = self.config
        return postgres.Settings(
            config.database_url,
            config.password,
            config.schema,
            config.role,
            config.history_schema,
            config.history_table,
            config.lock_timeout,
            self.reads,
        )


def begin(config: Config, emit: Emit, clock: Clock) -> Run:
    """Start a run with the migrations in the folders.

    :raises ConfigError: a folder cannot be listed, or the folders contain no migration
    """
    listing = list_files(config.migrations)
    if not listing.migrations:
        from initmig.migrations import unintended

        unintended.refuse_empty(config)
        emit(NoMigrationsFound(config.migrations))
    return without_files(config, emit, clock)._replace(listing=listing)


def without_files(config: Config, emit: Emit, clock: Clock) -> Run:
    """Start a run that does not need this image's migrations."""
    outage = waiting.Outage(config.wait_timeout, clock, emit)
    once = _Once(emit)
    return Run(config, Listing(()), emit, clock, outage, clock.now(), once, Committed())


class _Once:
    """Emits each event only once, but HistoryRead whenever the history has changed."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._emitted: set[Event] = set()
        self._history: HistoryRead | None = None

    def __call__(self, event: Event) -> None:
        if self._is_new(event):
            self._emit(event)

    def _is_new(self, event: Event) -> bool:
        if isinstance(event, HistoryRead):
            is_new, self._history = event != self._history, event
            return is_new
        is_new = event not in self._emitted
        self._emitted.add(event)
        return is_new


def finished(run: Run, act: Callable[[], _R]) -> _R:
    """Call *act*, emit the summary of its result, and return the result.

    If an error ends the run, `committed_before` returns the ids that were committed before it.
    """
    try:
        result = act()
        if result.summary is not None:  # an event without fields is an empty tuple
            run.emit(result.summary)
    except BaseException as error:
        error.committed = run.committed.ids  # type: ignore[attr-defined] # see committed_before
        raise
    return result


def announce(run: Run, decision: Decision) -> Decision:
    """Report the history, then the problems or the warnings of *decision*.

    :raises PlanError: the run is refused
    """
    enforce(run, decision)
    warn(run, decision)
    return decision


def enforce(run: Run, decision: Decision) -> None:
    """Report the history that *decision* is based on, and refuse the run if it must not start.

    :raises PlanError: the run is refused
    """
    left = decision.left
    applied = len(run.listing.migrations) - len(left.pending)
    run.emit_once(HistoryRead(applied=applied, pending=left.ids, unknown=len(left.unknown)))
    refuse(decision.refused)


def warn(run: Run, decision: Decision) -> None:
    """Report the warnings of *decision*."""
    for event in decision.warnings:
        run.emit_once(event)


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse the run if there are *problems*; :raises PlanError: with all of them."""
    if problems:
        raise PlanError.of(tuple(problems))


def with_session(run: Run, work: Callable[[Session], _T]) -> _T:
    """Connect, waiting for the database, and return the result of *work* on the session.

    :raises PlanError: the history's tables have changed since they were checked, so they could run
        other roles' code
    """

    def trusting(session: Session) -> _T:
        try:
            return work(session)
        except InitmigError as error:
            if trust.is_untrusted_error(error):
                raise trust.changed_error() from error
            raise

    def connect(limit: float) -> Session:
        session = postgres.connect(run.settings, limit=limit, warn=run.emit_once)
        session.set_left_out_handler(lambda *left_out: run.emit_once(SettingLeftOut(*left_out)))
        set_retry_handler(session, run, limit=run.outage.statement_limit())
        return session

    return waiting.with_session(connect, trusting, run.outage)


def set_retry_handler(session: Session, run: Run, *, limit: float) -> None:
    """Limit each wait of initmig's statements for locks to *limit* seconds, and report blockers."""

    def make(blocked: Session) -> StatementRetry:
        from initmig.locking.statement_retry import StatementRetry

        return StatementRetry(blocked, limit, run.clock, run.emit)

    session.set_retry_handler(make, limit)
