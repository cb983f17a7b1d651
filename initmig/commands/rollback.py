"""`rollback`: rolls back applied migrations, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.applying import locked, refuse_leftovers
from initmig.commands.checks import warn_of_row_security
from initmig.commands.context import begin, finished, refuse, with_session
from initmig.commands.reading import compared, load_to_undo, read_everything
from initmig.commands.result import Result
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.events import Finished
from initmig.history import store
from initmig.migrations import refusals, unintended
from initmig.migrations.files import dependencies
from initmig.migrations.undoing import choose_to_undo, decide_rollback

if TYPE_CHECKING:
    from initmig.commands.context import Run
    from initmig.commands.result import Outcome
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.core.model import AppliedMigration
    from initmig.migrations.decision import History
    from initmig.postgres import Session


def rollback(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Result:
    """Roll back what ``config.to``, ``config.steps`` or ``config.all`` selects, newest first.

    :raises PlanError: one of the migrations cannot be rolled back; nothing was changed
    :raises InitmigError: any other error; its ``committed`` ids stay rolled back
    """
    run = begin(config, emit, clock)
    return finished(run, lambda: with_session(run, _RollingBack(run).work))


class _RollingBack:
    """One run, over all the connections that it needs. It chooses what to roll back only once.

    `--steps 1` counts from the state of the database when the run began.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._chosen: tuple[AppliedMigration, ...] | None = None

    def work(self, session: Session) -> Result:
        run = self._run
        if not store.applied_ids(session):
            warn_of_row_security(session, run)
            refuse(refusals.half_applied(store.unfinished_migrations(session), {}, "rollback"))
            return _result(run)
        with locked(session, run, lambda: True) as executor:
            assert executor is not None  # noqa: S101 - `is_needed` above is always True
            history = compared(run, read_everything(session, run))
            depends = _depends(run, history)
            chosen = choose_to_undo(run.listing, history, run.policy, depends, self._chosen)
            self._chosen = chosen
            loaded = load_to_undo(run, chosen, history.ids)
            undoing = decide_rollback(run.listing, history, run.policy, chosen, loaded)
            for event in undoing.warnings:
                run.emit_once(event)
            refuse(undoing.refused)
            for event in unintended.ignored(run.config) if chosen else ():
                run.emit_once(event)
            plan = [loaded[migration.id] for migration in chosen]
            refuse_leftovers(session, plan, "rollback")
            for event in undoing.skipped:
                run.emit(event)
            for id in executor.roll_back(plan):
                run.committed(id)
            return _result(run, undoing.kept_by(run.config.to))


def _depends(run: Run, history: History) -> dict[str, frozenset[str]]:
    applied = {record.id for record in history.records}
    return {file.id: dependencies(file) for file in run.listing.migrations if file.id in applied}


def _result(run: Run, kept: str = "") -> Result:
    ids, seconds = run.committed.ids, run.seconds()
    outcome: Outcome = "rolled back" if ids else "nothing to roll back"
    return Result(outcome, ids, seconds, Finished(outcome, ids, seconds, kept))
