"""Turns findings about a decision into problems or warnings, by the settings; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.events import UnknownMigrations
from initmig.migrations import refusals
from initmig.migrations.planning import placed_by_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from initmig.core.errors import Problem
    from initmig.core.events import Event
    from initmig.core.model import Direction, Listing, Migration, Unfinished
    from initmig.migrations.decision import Decision, History, Policy
    from initmig.migrations.refusals import Finding


def judge(
    decision: Decision, listing: Listing, history: History, policy: Policy, *, is_loaded: bool
) -> Decision:
    """Add to *decision* every problem and warning that follows from *policy*.

    If its plan *is_loaded*, the content of the files is checked, too.
    """
    unknown = decision.left.unknown
    late: Sequence[Finding] = ()
    content: tuple[Problem, ...] = ()
    if is_loaded:
        applied = [id for id in history.ids if id not in history.modules]
        late = refusals.out_of_order(placed_by_name(decision.plan), applied, listing)
        content = _content_problems(history, policy, decision.plan)
    late_problems, late_warnings = reaction(policy.out_of_order, late)
    changed = refusals.changed(listing, history.changed)
    changed_problems, changed_warnings = reaction(policy.changed, changed)
    return decision._replace(
        refused=(
            *refusals.too_old(record for record in history.records if record.id in unknown),
            *content,
            *late_problems,
            *shared(listing, history, policy),
            *changed_problems,
        ),
        warnings=(
            *([UnknownMigrations(unknown)] if unknown else []),
            *late_warnings,
            *changed_warnings,
        ),
    )


def reaction(
    policy: str, findings: Sequence[Finding]
) -> tuple[Sequence[Problem], Sequence[Event]]:
    """Turn *findings* into problems or warnings, by *policy*: fail, warn or allow."""
    if policy == "fail":
        return [finding.problem for finding in findings], ()
    return (), [finding.event for finding in findings] if policy == "warn" else ()


def _content_problems(
    history: History, policy: Policy, plan: Sequence[Migration]
) -> tuple[Problem, ...]:
    """Why the content of the *plan* does not fit the settings or the half-applied migrations."""
    stopped = [each for each in history.unfinished if plan or each.direction == "rollback"]
    resumed = {migration.id: migration for migration in plan} if policy.resume else {}
    problems = half_applied(stopped, policy, resumed, "apply")
    if policy.transaction == "all":
        problems += refusals.not_transactional(plan)
    return problems


def half_applied(
    stopped: Sequence[Unfinished],
    policy: Policy,
    resumed: Mapping[str, Migration],
    direction: Direction,
) -> tuple[Problem, ...]:
    """Why the run cannot resume the migrations that *stopped*, in this *direction*.

    *resumed* are the migrations that the run would resume, by their ids.
    """
    problems = refusals.half_applied(stopped, resumed, direction)
    if policy.changed != "allow":
        begun = [each for each in stopped if each.direction == direction]
        problems += refusals.changed_half_applied(begun, resumed)
    return problems


def shared(listing: Listing, history: History, policy: Policy) -> tuple[Problem, ...]:
    """The problem that the history belongs to another application.

    ``--changed=allow`` accepts it.
    """
    if policy.changed == "allow":
        return ()
    return refusals.shared(listing, history.records, history.edited)
