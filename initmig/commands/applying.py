"""Applies the pending migrations: takes the lock, reads, decides, acts. It imports yoyo."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from initmig.commands.checks import is_still_needed
from initmig.commands.context import announce
from initmig.commands.reading import load_hooks, load_pending, read_everything, with_modules
from initmig.core.errors import MigrationFailed
from initmig.core.events import ServerNotice
from initmig.core.model import UNDOING
from initmig.core.records import Record
from initmig.engine.executor import Limits, locked_executor
from initmig.history import store
from initmig.history.location import home_of
from initmig.migrations import unintended
from initmig.migrations.decision import decide
from initmig.migrations.planning import pending_files
from initmig.migrations.refusals import with_baseline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from initmig.commands.context import Run
    from initmig.core.model import Direction, Migration
    from initmig.engine.executor import Executor
    from initmig.migrations.decision import Decision, History
    from initmig.postgres import Session


class Loaded(Record):
    """The files that a run may need, read before it runs the first statement."""

    pending: tuple[Migration, ...]
    """The migrations that were pending when the files were read."""
    hooks: tuple[Migration, ...]
    nothing_applied: bool
    """Whether the history was empty at that time."""

    def due(self, decision: Decision) -> list[Migration]:
        """The hooks that run after the plan of *decision*."""
        due = decision.left.due_hooks
        return [hook for hook in self.hooks if decision.plan or hook.file in due]


def load(run: Run, decision: Decision) -> Loaded:
    """Load every file that the run may need.

    :raises ConfigError: with every problem of the files
    """
    pending = load_pending(run, decision.left.pending, decision.applied)
    return Loaded(pending, load_hooks(run), not decision.applied)


def apply(session: Session, run: Run, loaded: Loaded) -> bool:
    """Apply the pending migrations under the migration lock.

    Return False if there is nothing to do because another migrator has applied them.

    :raises InitmigError: the run is refused, or a migration fails
    """
    with locked(session, run, lambda: is_still_needed(session, run)) as executor:
        if executor is None:
            return False
        decision = decide_now(session, run, loaded.pending)
        hooks = loaded.due(decision)
        if not (decision.plan or hooks):
            return False
        in_one = run.config.transaction == "all"
        refuse_leftovers(session, decision.plan, together=in_one)
        refuse_leftovers(session, hooks)
        due_hooks = [hook.id for hook in loaded.hooks]
        apply_plan = executor.apply_all if decision.plan and in_one else executor.apply_each
        with naming_baseline(loaded):
            for id in apply_plan(decision.plan, due_hooks=due_hooks):
                run.committed(id)
        for _ in executor.run_hooks(hooks):
            pass
        return True


def decide_now(session: Session, run: Run, loaded: Sequence[Migration]) -> Decision:
    """Decide again under the lock, because other migrators may have changed the history.

    *loaded* are the migrations that were loaded before.

    :raises InitmigError: the run is refused, or a file that is not *loaded* yet has a problem
    """
    history = read_everything(session, run)
    pending = _still_pending(run, history, loaded)
    history = with_modules(run, history, [migration.file for migration in pending])
    decision = decide(run.listing, history, run.policy, pending)
    _forget_ended_rollbacks(session, history, decision)
    announce(run, decision)
    if decision.plan:
        for event in unintended.warnings(decision.plan, run.config):
            run.emit_once(event)
    return decision


def _still_pending(run: Run, history: History, loaded: Sequence[Migration]) -> Sequence[Migration]:
    """The pending migrations by *history*, from *loaded*; loads all again if one is missing.

    :raises ConfigError: with every problem of the files
    """
    files = pending_files(run.listing, history.ids)
    ids = {file.id for file in files}
    if ids - {migration.id for migration in loaded}:
        return load_pending(run, files, history.ids)
    return [migration for migration in loaded if migration.id in ids]


def _forget_ended_rollbacks(session: Session, history: History, decision: Decision) -> None:
    """Remove the marks of interrupted rollbacks that a stock yoyo has completed."""
    for id in set(decision.left.half_undone) - {each.id for each in history.unfinished}:
        home = home_of(session)
        session.query(
            store.write_guard(session, home) + store.delete_history_rows(home, UNDOING + id)
        )


@contextmanager
def naming_baseline(loaded: Loaded) -> Iterator[None]:
    """If nothing was applied before, suggest `baseline` when an object already exists."""
    try:
        yield
    except MigrationFailed as error:
        if loaded.nothing_applied:
            error.problems = tuple(map(with_baseline, error.problems))
        raise


def refuse_leftovers(
    session: Session,
    migrations: Iterable[Migration],
    direction: Direction = "apply",
    *,
    together: bool = False,
) -> None:
    """Refuse *migrations* that would leave state in a *session* that a pooler shares.

    The migrations that run *together* share one transaction.

    :raises PlanError: with the state that each migration would leave; nothing was run
    """
    if not session.is_dedicated:
        from initmig.engine import session_state  # only needed with a pooler

        session_state.refuse(session, migrations, direction, together=together)


def locked(
    session: Session, run: Run, is_needed: Callable[[], bool]
) -> AbstractContextManager[Executor | None]:
    """An executor that holds the migration lock, or None once *is_needed* returns False."""
    limits = get_ready(session, run)
    return locked_executor(
        session, limits=limits, clock=run.clock, emit=run.emit, is_needed=is_needed
    )


def get_ready(session: Session, run: Run) -> Limits:
    """Prepare *session* for the files of *run*; return the limits for them."""
    config = run.config
    if run.listing.has_python:
        session.switch_to_psycopg()
    session.set_notice_handler(lambda severity, text: run.emit(ServerNotice(severity, text)))
    return Limits(
        config.queue_timeout,
        config.lock_timeout,
        config.statement_timeout,
        config.lock_retries,
        config.live,
    )
