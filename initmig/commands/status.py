"""`status`: shows every migration and its state; ``--check`` fails if any is pending."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from initmig.commands.checks import as_migrate_would, pending_error, warn_of_row_security
from initmig.commands.context import begin, finished, with_session
from initmig.commands.reading import compared, load_pending, with_modules
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import ConfigError, PlanError
from initmig.core.events import HistoryShared, OtherHistoryFound
from initmig.core.records import Record
from initmig.history import elsewhere, store
from initmig.migrations.decision import History
from initmig.migrations.planning import find_out_of_order, left_to_do, placed_by_name
from initmig.migrations.refusals import shared
from initmig.migrations.statuses import statuses
from initmig.reporting.tables import status_json, status_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from initmig.commands.context import Run
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import InitmigError
    from initmig.core.events import Emit, Event
    from initmig.core.model import MigrationFile, MigrationStatus
    from initmig.postgres import Session
    from initmig.reporting.terminal.screen import Screen

_PENDING = ("pending", "applying", "rolling back")


class Status(Record):
    """Every migration of this image, and the applied migrations that are unknown to it."""

    outcome: str
    ids: tuple[str, ...]
    """The pending migrations, including the half-applied ones."""
    seconds: float
    migrations: tuple[MigrationStatus, ...]
    summary: Event | None = None
    failure: InitmigError | None = None
    """With ``--check``: `migrate` would refuse to start, or migrations are pending."""


def status(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Status:
    """Return every migration and its state.

    :raises InitmigError: the database cannot be read, or the folders cannot be listed
    """
    run = begin(config, emit, clock)._replace(reads=True)
    return finished(run, lambda: with_session(run, lambda session: _status(session, run)))


def _status(session: Session, run: Run) -> Status:
    history = _read(session, run)
    left = left_to_do(run.listing, history.ids)
    for problem in shared(run.listing, history.records, history.edited):
        run.emit_once(HistoryShared(problem.message, problem.hint))
    rows = statuses(
        run.listing,
        history.records,
        history.changed,
        due_hooks=left.due_hooks,
        unfinished=history.unfinished,
    )
    late = _out_of_order(run, history, left.pending)
    shown = tuple(_with_parts(run, row._replace(behind=late.get(row.id, ""))) for row in rows)
    ids = tuple(row.id for row in rows if row.state in _PENDING)
    failure = _failure(session, run, history, ids) if run.config.check else None
    return Status("shown", ids, run.seconds(), shown, failure=failure)


def _read(session: Session, run: Run) -> History:
    records = store.applied_migrations(session)
    ids = store.polled_summary(session).ids
    if left_to_do(run.listing, ids).pending:
        warn_of_row_security(session, run)
        if not (ids or run.config.check):  # --check reports it as the failure
            _warn_of_other_histories(session, run)
    unfinished = store.unfinished_migrations(session)
    return compared(run, History(ids, records, unfinished=unfinished))


def _warn_of_other_histories(session: Session, run: Run) -> None:
    """Warn if `migrate` would refuse because of another tool's history, or one elsewhere."""
    try:
        elsewhere.refuse_other_histories(session, run.config, (), run.known)
    except PlanError as error:
        for problem in error.problems:
            run.emit_once(OtherHistoryFound(problem.message, problem.hint))


def _failure(
    session: Session, run: Run, history: History, pending: Sequence[str]
) -> InitmigError | None:
    try:
        as_migrate_would(session, run, history._replace(unfinished=()))
    except (PlanError, ConfigError) as error:
        return error
    return pending_error(pending, "run `initmig migrate`") if pending else None


def _out_of_order(
    run: Run, history: History, pending: Sequence[MigrationFile]
) -> Mapping[str, str]:
    """As `find_out_of_order`, but reads the files if that is needed and possible."""
    late = find_out_of_order(pending, history.ids, run.listing)
    if not late:
        return late
    with suppress(ConfigError):  # `migrate` reports that first
        pending = placed_by_name(load_pending(run, pending, history.ids))
    modules = with_modules(run, history, pending).modules
    return find_out_of_order(pending, [id for id in history.ids if id not in modules], run.listing)


def _with_parts(run: Run, row: MigrationStatus) -> MigrationStatus:
    """Add to *row* the places of its half-applied migration's parts, if the file can be read."""
    if not (row.unfinished and row.path):
        return row
    from initmig import engine

    files = (*run.listing.migrations, *run.listing.hooks)
    file = next(file for file in files if file.id == row.id)
    try:
        [migration] = engine.load([file], known=run.known, emit=run.emit)
    except ConfigError:
        return row
    applying = row.state == "applying"
    return row._replace(parts=migration.parts if applying else migration.rollback_parts)


def show(status: Status, config: Config, screen: Screen) -> str:
    """*status* as a table, or as JSON."""
    return (
        status_json(status.migrations) if config.json else status_table(status.migrations, screen)
    )
