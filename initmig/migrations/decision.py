"""Decides what a run applies, and whether it may start; pure.

The caller reads, calls `decide` once, and acts on what it returns. `undoing` is the same for
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
    """What the database says is applied, as far as it was read."""

    ids: tuple[str, ...]
    """As in `store.HistorySummary`."""
    records: tuple[AppliedMigration, ...] = ()
    """Read only if something calls for them, because that is a second query."""
    changed: frozenset[str] = frozenset()
    """The ids whose files differ from the ones that were applied."""
    edited: frozenset[str] = frozenset()
    """Those of *changed* whose files differ in more than their line ends."""
    modules: frozenset[str] = frozenset()
    """Applied Python files without steps, such as `helpers.py`: they may run at any time."""
    unfinished: tuple[Unfinished, ...] = ()


class Decision(Record):
    """What to do, or why not to start."""

    applied: tuple[str, ...]
    """The ids of the history that this was decided from."""
    left: LeftToDo
    files: Sequence[MigrationFile] = ()
    """What to apply; in dependency order if the files are loaded."""
    plan: tuple[Migration, ...] = ()
    """The same as code; empty before the files are loaded."""
    refused: tuple[Problem, ...] = ()
    """Why the run must not start; empty if it may."""
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
    """What to apply of *listing* to a database with *history*, by *policy*.

    *loaded* are the pending migrations as code, in dependency order. Without it, nothing is judged
    that depends on the content of the files: order, half-applied migrations, transactions.
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
    from initmig.migrations import judging  # the no-op has nothing to judge

    return judging.judge(decision, listing, history, policy, is_loaded=loaded is not None)
