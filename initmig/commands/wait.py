"""`wait`: returns once the database answers, or once every migration of this image is applied."""

from __future__ import annotations

from initmig.commands.checks import as_migrate_would, pending_error
from initmig.commands.context import begin, finished, warn, with_session, without_files
from initmig.commands.reading import read_history_again
from initmig.commands.result import Result
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.events import NothingPending
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from initmig.commands.context import Run
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.postgres import Session


def wait(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Result:
    """Wait until the database answers, or until every migration of this image is applied.

    :raises MigrationsPending: migrations are still pending when the wait timeout passes
    :raises InitmigError: any other error of a read
    """
    if config.wait_for == "database":
        run = without_files(config, emit, clock)
        return finished(run, lambda: _database_answers(run))
    run = begin(config, emit, clock)._replace(reads=True)
    return finished(run, lambda: _all_applied(run))


def _database_answers(run: Run) -> Result:
    with_session(run, lambda session: session.query("SELECT 1"))
    return Result("database answered", (), run.seconds())


def _all_applied(run: Run) -> Result:
    with_session(run, lambda session: _refuse_pending(session, run))
    event = NothingPending(len(run.listing.migrations))
    return Result("nothing pending", (), run.seconds(), event)


def _refuse_pending(session: Session, run: Run) -> None:
    decision = as_migrate_would(session, run, read_history_again(session, run))
    if decision.left.ids:
        hint = "run `initmig migrate` for this database, or check why it makes no progress"
        raise pending_error(decision.left.ids, hint)
    warn(run, decision)
