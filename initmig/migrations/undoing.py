"""Decides which migrations a run rolls back, and whether it may start; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.events import UnknownMigrations
from initmig.core.records import Record
from initmig.migrations import refusals
from initmig.migrations.judging import half_applied, reaction, shared
from initmig.migrations.planning import (
    kept_applied,
    newest_first,
    recorded,
    resolve_id,
    still_applied,
    to_roll_back,
    unknown_migrations,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from initmig.core.errors import Problem
    from initmig.core.events import Event, RollbackSkipped
    from initmig.core.model import AppliedMigration, Listing, Migration
    from initmig.migrations.decision import History, Policy


class Undoing(Record):
    """How to roll back the chosen migrations, or why not to start."""

    kept: tuple[str, ...]
    """The ids that stay applied, in the order applied."""
    refused: tuple[Problem, ...] = ()
    warnings: tuple[Event, ...] = ()
    skipped: tuple[RollbackSkipped, ...] = ()
    """The migrations whose records are removed without a rollback."""

    def kept_by(self, to: str) -> str:
        """The whole id that `rollback --to` keeps, if *to* is a prefix; empty if *to* is empty."""
        if not to or to in self.kept:
            return to
        return next((id for id in self.kept if id.startswith(to)), "")


def choose_to_undo(
    listing: Listing,
    history: History,
    policy: Policy,
    depends: Mapping[str, Collection[str]],
    before: tuple[AppliedMigration, ...] | None,
) -> tuple[AppliedMigration, ...]:
    """Choose the applied migrations that *policy* asks to roll back, newest first.

    *depends* has the dependencies of each applied migration, by id. *before* is the choice from
    before a connection was lost; the part of it that is still applied is chosen again.

    :raises PlanError: ``--to`` does not name an applied migration
    """
    applied = recorded(history.records, listing)
    if before is not None:
        return still_applied(before, applied)
    to = resolve_id(policy.to, [each.id for each in applied]) if policy.to else ""
    return to_roll_back(
        newest_first(applied, depends), to=to, steps=policy.steps, everything=policy.everything
    )


def decide_rollback(
    listing: Listing,
    history: History,
    policy: Policy,
    chosen: Sequence[AppliedMigration],
    loaded: Mapping[str, Migration],
) -> Undoing:
    """Decide how to roll back the *chosen* migrations.

    *loaded* are their loaded files, by id. A chosen migration without a file is refused.
    """
    applied = recorded(history.records, listing)
    kept = kept_applied(chosen, applied)
    unknown = unknown_migrations(listing, (each.id for each in applied))
    is_compared = bool(chosen) or policy.changed == "fail"
    changed = refusals.changed(listing, history.changed if is_compared else ())
    differing, warnings = reaction(policy.changed, changed)
    lacking, skipped = refusals.irreversible(
        chosen, loaded, history.unfinished, skip=policy.irreversible == "skip"
    )
    return Undoing(
        kept,
        refused=(
            *refusals.too_old(each for each in applied if each.id in {*kept} & {*unknown}),
            *(shared(listing, history, policy) if is_compared else ()),
            *differing,
            *lacking,
            *half_applied(history.unfinished, policy, loaded, "rollback"),
        ),
        warnings=(*([UnknownMigrations(unknown)] if unknown else []), *warnings),
        skipped=skipped,
    )
