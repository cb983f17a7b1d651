"""`baseline`: records migrations as applied without running them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.applying import locked
from initmig.commands.checks import is_still_needed, warn_of_row_security
from initmig.commands.context import announce, begin, finished, refuse, with_session
from initmig.commands.reading import load_pending, read_everything
from initmig.commands.result import Result
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.events import (
    AlreadyApplied,
    AppliedElsewhere,
    Finished,
    NothingPending,
    RecordPlanned,
)
from initmig.history import elsewhere, store
from initmig.migrations.decision import decide
from initmig.migrations.planning import applied_up_to, pending_files, resolve_id
from initmig.migrations.refusals import half_applied

if TYPE_CHECKING:
    from initmig.commands.context import Run
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.core.model import Migration
    from initmig.migrations.decision import Decision
    from initmig.postgres import Session


def baseline(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Result:
    """Record the pending migrations up to and including ``config.to``, without running them.

    :raises PlanError: the id does not exist, or a migration is half-applied
    :raises InitmigError: any other error of the run
    """
    run = begin(config, emit, clock)
    return finished(run, lambda: with_session(run, _Recording(run).work))


class _Recording:
    """One run, over all the connections that it needs. It chooses what to record only once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._chosen: tuple[Migration, ...] = ()

    def work(self, session: Session) -> Result:
        run = self._run
        if not self._chosen:
            decision = _choose(session, run)
            self._chosen = decision.plan
            if not self._chosen:
                nothing = NothingPending(len(run.listing.migrations), len(decision.left.pending))
                return Result("nothing pending", (), run.seconds(), nothing)
        # after a lost connection, some of the chosen migrations may be recorded already
        with locked(session, run, lambda: is_still_needed(session, run)) as executor:
            pending = pending_files(run.listing, store.applied_ids(session))
            left = [migration for migration in self._chosen if migration.file in pending]
            if executor is None or not left:
                seconds = run.seconds()
                return Result("applied elsewhere", (), seconds, AppliedElsewhere(seconds))
            # only a part of a half-applied migration is in the database, so do not record it
            refuse(half_applied(store.unfinished_migrations(session), {}, "apply"))
            for id in executor.record(left):
                run.committed(id)
        ids, seconds = run.committed.ids, run.seconds()
        event = Finished("recorded as applied", ids, seconds)
        return Result("recorded as applied", ids, seconds, event)


def _choose(session: Session, run: Run) -> Decision:
    """Choose what to record, and report it before anything is written."""
    history = read_everything(session, run)._replace(unfinished=())
    pending = load_pending(run, pending_files(run.listing, history.ids), history.ids)
    policy = run.policy._replace(out_of_order="allow", transaction="each")
    decision = announce(run, decide(run.listing, history, policy, pending))
    if applied := applied_up_to(resolve_id(run.config.to, run.known), history.ids, run.listing):
        run.emit(AlreadyApplied(applied))
    if decision.plan:
        warn_of_row_security(session, run)
        elsewhere.refuse_other_place(session, run.config, history.ids, run.known)
    for migration in decision.plan:
        run.emit(RecordPlanned(migration.id, migration.file.path))
    return decision
