"""`migrate`: applies the pending migrations.

This module contains only the code for a run with nothing to do. The rest, including yoyo, is
imported once a migration is pending.
"""

from __future__ import annotations

from initmig.commands.checks import decide_first, is_still_needed
from initmig.commands.context import begin, finished, with_session
from initmig.commands.result import Result
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.records import TYPE_CHECKING
from initmig.core.run_events import AppliedElsewhere, Finished, NothingPending

if TYPE_CHECKING:
    from initmig.commands.applying import Loaded
    from initmig.commands.context import Run
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.postgres import Session


def migrate(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Result:
    """Apply the pending migrations, up to and including ``config.to`` if it is set.

    :raises InitmigError: the run is refused, or fails; its ``committed`` ids stay applied
    """
    run = begin(config, emit, clock)
    return finished(run, lambda: with_session(run, _Migrating(run).work))


class _Migrating:
    """One run, over all the connections that it needs. It loads the files only once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loaded: Loaded | None = None

    def work(self, session: Session) -> Result:
        run = self._run
        if not self._loaded:
            decision = decide_first(session, run)
            if not decision.is_work:
                event = NothingPending(len(run.listing.migrations), len(decision.left.pending))
                return Result("nothing pending", (), run.seconds(), event)
            if not _is_my_turn(session, run):
                return _applied_elsewhere(run)
            from initmig.commands import applying

            self._loaded = applying.load(run, decision)
        return _apply(session, run, self._loaded)


def _apply(session: Session, run: Run, loaded: Loaded) -> Result:
    """Apply under the lock, where the plan is decided again, also after a lost connection."""
    from initmig.commands import applying

    is_applied = applying.apply(session, run, loaded)
    ids, seconds = run.committed.ids, run.seconds()
    if not (is_applied or ids):
        return _applied_elsewhere(run)
    words = "applied" if ids else "ran the hooks that were due"
    return Result("applied", ids, seconds, Finished(words, ids, seconds))


def _is_my_turn(session: Session, run: Run) -> bool:
    from initmig.locking.queue import wait_for_turn

    return wait_for_turn(
        session,
        timeout=run.config.queue_timeout,
        clock=run.clock,
        emit=run.emit,
        is_needed=lambda: is_still_needed(session, run),
    )


def _applied_elsewhere(run: Run) -> Result:
    seconds = run.seconds()
    return Result("applied elsewhere", (), seconds, AppliedElsewhere(seconds))
