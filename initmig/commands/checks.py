"""Checks that commands share: whether work is really pending, and whether `migrate` would start."""

from __future__ import annotations

from initmig.commands.context import announce, enforce
from initmig.commands.reading import (
    load_pending,
    read_history,
    read_ids,
    refuse_unintended,
    with_modules,
)
from initmig.core.errors import MigrationsPending
from initmig.core.records import TYPE_CHECKING
from initmig.migrations.decision import decide
from initmig.migrations.planning import find_out_of_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.commands.context import Run
    from initmig.migrations.decision import Decision, History
    from initmig.postgres import Session


def confirm_pending(session: Session, run: Run, history: History) -> None:
    """Check that migrations which look pending really are, before anything is written or reported.

    Warns once if row level security may hide applied migrations.

    :raises PlanError: row level security hides everything; or nothing is applied here, because the
        history belongs to another tool, or is in another schema or table
    """
    from initmig.history import elsewhere

    warn_of_row_security(session, run)
    elsewhere.refuse_other_histories(session, run.config, history.ids, run.known)


def warn_of_row_security(session: Session, run: Run) -> None:
    """Warn once if row level security may hide applied migrations.

    :raises PlanError: it hides everything
    """
    from initmig.history import row_security

    if event := row_security.check(session):
        run.emit_once(event)


def decide_first(session: Session, run: Run) -> Decision:
    """Decide before taking the lock; a run with nothing to do ends after this.

    :raises PlanError: the run is refused
    """
    history = read_history(session, run)
    decision = announce(run, decide(run.listing, history, run.policy))
    if decision.is_work:
        confirm_pending(session, run, history)
    return decision


def is_still_needed(session: Session, run: Run) -> bool:
    """Whether there is still work to do, for a run that waits for its turn."""
    decision = decide(run.listing, read_ids(session), run.policy)
    return announce(run, decision).is_work


def as_migrate_would(session: Session, run: Run, history: History) -> Decision:
    """Decide as `migrate` would, for commands that only read.

    The pending files are loaded only if their order has to be checked.

    :raises InitmigError: `migrate` would refuse to start
    """
    policy = run.policy._replace(transaction="each")
    decision = decide(run.listing, history, policy)
    enforce(run, decision)
    pending = decision.left.pending
    if pending:
        confirm_pending(session, run, history)
        refuse_unintended(run, pending, history.ids)
    if run.config.out_of_order == "fail" and find_out_of_order(pending, history.ids, run.listing):
        loaded = load_pending(run, pending, history.ids)
        history = with_modules(run, history, pending)
        enforce(run, decide(run.listing, history, policy, loaded))
    return decision


def pending_error(ids: Sequence[str], hint: str) -> MigrationsPending:
    """The error which reports that the migrations *ids* are pending."""
    return MigrationsPending(
        "migrations-pending", f"{len(ids)} pending: {', '.join(ids)}", hint=hint
    )
