"""Decides which migrations a run applies, and whether it may start; pure.

The caller reads, calls `decide` once, and acts on the decision. `undoing` does the same for
`rollback`.
"""

from __future__ import annotations

from initmig.core.errors import PlanError
from initmig.core.records import TYPE_CHECKING, Record
from initmig.migrations.planning import LeftToDo, asked_for, left_to_do, without_blocked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.core.errors import Problem
    from initmig.core.events import Event
    from initmig.core.model import (
        AppliedMigration,
        Listing,
        Migration,
        MigrationFile,
        Unfinished,
    )


class Policy(Record):
    """The settings that decide what a run does."""

    to: str = ""
    """The last migration to apply, or to keep when rolling back: an id or a unique prefix."""
    changed: str = "warn"
    out_of_order: str = "warn"
    transaction: str = "each"
    resume: bool = True
    """Whether the run resumes a half-applied migration; otherwise it refuses to start."""
    steps: int = 0
    everything: bool = False
    irreversible: str = "fail"


class History(Record):
    """The part of the database's history that was read."""

    ids: tuple[str, ...]
    """The applied ids, as in `store.HistorySummary`."""
    records: tuple[AppliedMigration, ...] = ()
    """Read only if they are needed, because they cost a second query."""
    changed: frozenset[str] = frozenset()
    """The ids whose files differ from the ones that were applied."""
    edited: frozenset[str] = frozenset()
    """The ids in *changed* whose files differ in more than their line ends."""
    modules: frozenset[str] = frozenset()
    """Applied Python files without steps, such as `helpers.py`: they may run at any time."""
    unfinished: tuple[Unfinished, ...] = ()


class Decision(Record):
    """What to do, or why not to start."""

    applied: tuple[str, ...]
    """The applied ids that the decision is based on."""
    left: LeftToDo
    files: Sequence[MigrationFile] = ()
    """The files to apply; in dependency order if they are loaded."""
    plan: tuple[Migration, ...] = ()
    """The loaded *files*; empty before they are loaded."""
    refused: tuple[Problem, ...] = ()
    """Why the run must not start; empty if it may start."""
    warnings: tuple[Event, ...] = ()

    @property
    def is_work(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.files or self.left.due_hooks or self.left.half_undone)


def decide(
    listing: Listing,
    history: History,
    policy: Policy,
    loaded: Sequence[Migration] | None = None,
) -> Decision:
    """Decide which migrations of *listing* to apply to a database with *history*, by *policy*.

    *loaded* are the loaded pending migrations, in dependency order. Without it, checks that need
    the content of the files are left out: order, half-applied migrations, transactions.
    """
    left = left_to_do(listing, history.ids)
    try:
        if loaded is None:
            decision = Decision(history.ids, left, asked_for(policy.to, left.pending, listing))
        else:
            plan = without_blocked(asked_for(policy.to, loaded, listing), loaded)
            files = [migration.file for migration in plan]
            decision = Decision(history.ids, left, files, plan)
    except PlanError as error:
        return Decision(history.ids, left, refused=error.problems)
    if loaded is None and not history.records:
        return decision
    from initmig.migrations import judging  # a run with nothing to do does not need it

    return judging.judge(decision, listing, history, policy, is_loaded=loaded is not None)
