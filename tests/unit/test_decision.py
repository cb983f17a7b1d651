"""The decision of a run: its plan, its refusals and its warnings, without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core.errors import Place, PlanError, Problem
from initmig.core.events import Changed, OutOfOrder, RollbackSkipped, UnknownMigrations
from initmig.core.model import (
    AppliedMigration,
    Listing,
    Migration,
    MigrationFile,
    Step,
    Unfinished,
)
from initmig.migrations import refusals
from initmig.migrations.decision import History, Policy, decide
from initmig.migrations.undoing import choose_to_undo, decide_rollback
from tests.support.migrations import NO_CODE

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def file(id: str, suffix: str = "sql") -> MigrationFile:
    return MigrationFile(id, f"m/{id}.{suffix}", "", "m")


def listing(*ids: str) -> Listing:
    return Listing(tuple(map(file, ids)), hooks=(file("post-apply"),))


def applied(*ids: str, checksum: str = "1", breaking: bool = False) -> tuple[AppliedMigration, ...]:
    return tuple(AppliedMigration(id, NOON, "me@host", checksum, breaking) for id in ids)


def migration(
    id: str, *rollbacks: str, suffix: str = "sql", depends: Sequence[str] = (), **fields: Any
) -> Migration:
    steps = tuple(
        Step(b"SELECT 1", each.encode(), line) for line, each in enumerate(rollbacks or ("",), 1)
    )
    made = Migration(file(id, suffix), "1", True, False, frozenset(depends), steps, NO_CODE)
    return made._replace(**fields)


A_TO_D = listing("a", "b", "c", "d")
B_IN_PARTS = Unfinished("b", "apply", "1", 1, None)


def code(*ids: str) -> list[Migration]:
    return [migration(id) for id in ids]


# --- the plan ---


@pytest.mark.parametrize(
    ("history", "to", "files"),
    [
        ((), "", "abcd"),
        (("a", "b"), "", "cd"),
        (("a", "b"), "c", "c"),
        (("a", "c"), "c", "b"),
        (("a", "b", "c", "d"), "", ""),
        (("a", "b", "c", "d", "x"), "", ""),
    ],
)
def test_pending_migrations_up_to_the_target_are_applied(
    history: tuple[str, ...], to: str, files: str
) -> None:
    decision = decide(A_TO_D, History(history), Policy(to=to))
    assert [each.id for each in decision.files] == [*files]
    assert decision.is_work == bool(files)
    assert decision.refused == ()


@given(done=st.sets(st.sampled_from("abcd")), to=st.sampled_from(["", *"abcd"]))
def test_loaded_files_give_the_same_plan_as_their_names(done: set[str], to: str) -> None:
    history = History(tuple(sorted(done)))
    pending = [id for id in "abcd" if id not in done]
    by_name = decide(A_TO_D, history, Policy(to=to))
    by_content = decide(A_TO_D, history, Policy(to=to), code(*pending))
    assert [*by_name.files] == [*by_content.files] == [each.file for each in by_content.plan]


def test_migration_whose_dependency_stays_pending_is_not_applied() -> None:
    pending = [migration("a"), migration("b", depends=["d"]), *code("c", "d")]
    decision = decide(A_TO_D, History(()), Policy(to="c"), pending)
    assert [each.id for each in decision.plan] == ["a", "c"]


@pytest.mark.parametrize(
    ("id", "due_hooks", "half_undone"),
    [("post-apply", ["post-apply"], ()), ("rolling back b", [], ("b",))],
)
def test_due_hooks_and_interrupted_rollbacks_are_work(
    id: str, due_hooks: list[str], half_undone: tuple[str, ...]
) -> None:
    left = decide(A_TO_D, History(("a", "b", "c", "d", id)), Policy()).left
    assert [hook.id for hook in left.due_hooks] == due_hooks
    assert left.half_undone == half_undone
    assert decide(A_TO_D, History(("a", "b", "c", "d", id)), Policy()).is_work


@pytest.mark.parametrize(("to", "id"), [("x", "unknown-id"), ("", None)])
def test_unknown_target_is_refused(to: str, id: str | None) -> None:
    refused = decide(A_TO_D, History(()), Policy(to=to)).refused
    assert [problem.id for problem in refused] == ([id] if id else [])


# --- policies: fail, warn, allow ---

CHANGED_B = History(
    ("a", "b"),
    applied("a", checksum="1") + applied("b", checksum="2"),
    changed=frozenset("b"),
    edited=frozenset("b"),
)
LATE_B = History(("a", "c"), applied("a", "c"))


@pytest.mark.parametrize(
    ("history", "setting", "problem", "event"),
    [
        (CHANGED_B, "changed", "changed", Changed("b", "m/b.sql")),
        (LATE_B, "out_of_order", "out-of-order", OutOfOrder("b", "c")),
    ],
)
@pytest.mark.parametrize("reaction", ["fail", "warn", "allow"])
def test_policy_refuses_warns_or_allows(
    history: History, setting: str, problem: str, event: object, reaction: str
) -> None:
    settings: dict[str, Any] = {setting: reaction}
    policy = Policy(**settings)
    pending = code(*(id for id in "abcd" if id not in history.ids))
    decision = decide(A_TO_D, history, policy, pending)
    assert [each.id for each in decision.refused] == ([problem] if reaction == "fail" else [])
    assert decision.warnings == ((event,) if reaction == "warn" else ())


def test_order_is_not_judged_before_the_files_are_loaded() -> None:
    decision = decide(A_TO_D, LATE_B, Policy(out_of_order="fail"))
    assert (decision.refused, decision.warnings) == ((), ())


def test_applied_module_without_steps_is_ignored_in_the_order() -> None:
    history = History(("a", "c"), applied("a", "c"), modules=frozenset("c"))
    assert decide(A_TO_D, history, Policy(out_of_order="fail"), code("b", "d")).refused == ()


def test_migration_that_depends_on_a_later_one_is_not_out_of_order() -> None:
    pending = [migration("d"), migration("b", depends=["d"])]
    history = History(("a", "c"), applied("a", "c"))
    assert decide(A_TO_D, history, Policy(out_of_order="fail"), pending).refused == ()


def test_unknown_migrations_are_a_warning_and_breaking_ones_are_refused() -> None:
    history = History(("a", "x", "y"), applied("a", "x") + applied("y", breaking=True))
    decision = decide(A_TO_D, history, Policy())
    assert decision.warnings == (UnknownMigrations(("x", "y")),)
    [problem] = decision.refused
    assert problem.id == "image-too-old"
    assert problem.message.endswith(": y")
    ours = History(("a",), applied("a", breaking=True))
    assert decide(A_TO_D, ours, Policy()).refused == ()


@pytest.mark.parametrize(
    ("changed", "edited", "unknown", "is_shared"),
    [
        ("ab", "ab", (), True),  # every recorded file differs
        ("b", "b", (), False),  # one of two was edited
        ("ab", "b", (), False),  # one of two differs only in its line ends
        ("ab", "ab", ("x",), True),
    ],
)
def test_history_whose_files_all_differ_belongs_to_another_application(
    changed: str, edited: str, unknown: tuple[str, ...], is_shared: bool
) -> None:
    ids = ("a", "b", *unknown)
    history = History(ids, applied(*ids), changed=frozenset(changed), edited=frozenset(edited))
    problems = {
        reaction: decide(A_TO_D, history, Policy(changed=reaction)).refused
        for reaction in ("fail", "warn", "allow")
    }
    shared = ["id-used-twice"] if is_shared else []
    assert [each.id for each in problems["warn"]] == shared
    assert [each.id for each in problems["fail"]] == [*shared, *["changed"] * len(changed)]
    assert problems["allow"] == ()


def test_single_changed_file_with_unknown_migrations_belongs_to_another_application() -> None:
    for ids, expected in ((("a",), []), (("a", "x"), ["id-used-twice"])):
        history = History(ids, applied(*ids), changed=frozenset("a"), edited=frozenset("a"))
        assert [each.id for each in decide(A_TO_D, history, Policy()).refused] == expected


def test_single_transaction_is_refused_with_non_transactional_migrations() -> None:
    pending = [migration("a"), migration("b", transactional=False)]
    [problem] = decide(A_TO_D, History(()), Policy(transaction="all"), pending).refused
    assert problem.id == "not-transactional"
    assert problem.message.endswith(": b")
    assert decide(A_TO_D, History(()), Policy(transaction="each"), pending).refused == ()


def test_every_problem_is_reported_together() -> None:
    history = CHANGED_B._replace(
        ids=("a", "b", "d", "y"), records=CHANGED_B.records + applied("y", breaking=True)
    )
    policy = Policy(changed="fail", out_of_order="fail", transaction="all")
    pending = [migration("c", transactional=False)]
    assert [each.id for each in decide(A_TO_D, history, policy, pending).refused] == [
        "image-too-old",
        "not-transactional",
        "out-of-order",
        "changed",
    ]


# --- half-applied migrations ---


def in_parts(checksum: str = "1", parts: int = 2) -> list[Migration]:
    places = [Place("m/b.sql", line) for line in range(1, parts + 1)]
    b = migration("b", transactional=False, checksum=checksum, parts=places)
    return [migration("a"), b, *code("c", "d")]


@pytest.mark.parametrize(
    ("policy", "unfinished", "pending", "problems"),
    [
        (Policy(), B_IN_PARTS, in_parts(), []),
        (Policy(resume=False), B_IN_PARTS, in_parts(), ["half-applied"]),
        (Policy(to="a"), B_IN_PARTS, in_parts(), ["half-applied"]),
        (Policy(), B_IN_PARTS, in_parts(checksum="2"), ["changed-half-applied"]),
        (Policy(), B_IN_PARTS, in_parts(parts=0), ["changed-half-applied"]),
        (Policy(changed="allow"), B_IN_PARTS, in_parts(checksum="2"), []),
        (Policy(), B_IN_PARTS._replace(direction="rollback"), in_parts(), ["half-applied"]),
        (Policy(), B_IN_PARTS._replace(id="post-apply"), in_parts(), []),
    ],
)
def test_half_applied_migration_is_resumed_or_refused(
    policy: Policy, unfinished: Unfinished, pending: list[Migration], problems: list[str]
) -> None:
    history = History((), unfinished=(unfinished,))
    refused = decide(A_TO_D, history, policy, pending).refused
    assert [each.id for each in refused] == problems


def test_changed_half_applied_migration_names_the_next_part() -> None:
    history = History((), unfinished=(B_IN_PARTS,))
    [problem] = decide(A_TO_D, history, Policy(), in_parts(checksum="2")).refused
    assert str(problem.place) == "m/b.sql:2"
    assert "1 part done, 1 part left" in problem.message


def test_interrupted_migration_is_ignored_if_nothing_is_pending() -> None:
    history = History(("a", "b", "c", "d"), unfinished=(B_IN_PARTS,))
    assert decide(A_TO_D, history, Policy(), []).refused == ()


# --- rollback ---

IRREVERSIBLE = {
    "sql": migration("sql", ""),
    "python": migration("python", "DROP", "", "", suffix="py"),
    "good": migration("good", "DROP"),
}
OR_SKIP = "or pass --irreversible=skip to roll back the rest and remove the record"


def undoing(*ids: str, skip: bool = False, unfinished: tuple[Unfinished, ...] = ()) -> Any:
    history = History(ids, applied(*ids), unfinished=unfinished)
    policy = Policy(irreversible="skip" if skip else "fail")
    loaded = {id: IRREVERSIBLE[id] for id in ids if id in IRREVERSIBLE}
    return decide_rollback(listing(*IRREVERSIBLE), history, policy, applied(*ids), loaded)


def test_every_migration_that_cannot_be_rolled_back_is_refused_together() -> None:
    refused = undoing("good", "gone", "sql", "python").refused
    assert [(str(each.place), each.message, each.hint) for each in refused] == [
        (
            "None",
            "gone is applied, but its file is not among these migrations",
            "roll back with the image or folder that contains it",
        ),
        (
            "m/sql.sql",
            "sql has no rollback",
            f"write the rollback in m/sql.rollback.sql, {OR_SKIP}",
        ),
        (
            "m/python.py:2",
            "python has no rollback in steps 2, 3 of 3, at lines 2, 3",
            (
                "add a rollback to the step (`lambda connection: None` if there is nothing"
                f" to undo), {OR_SKIP}"
            ),
        ),
    ]


def test_skipped_migrations_are_named_and_missing_files_are_still_refused() -> None:
    decision = undoing("good", "sql", "python", skip=True)
    assert decision.refused == ()
    assert decision.skipped == (
        RollbackSkipped("sql", "sql has no rollback", ("m/sql.rollback.sql",)),
        RollbackSkipped(
            "python",
            "python has no rollback in steps 2, 3 of 3",
            ("m/python.py:2", "m/python.py:3"),
        ),
    )
    [problem] = undoing("gone", "sql", skip=True).refused
    assert problem.id == "unknown-migration"
    assert undoing("good").skipped == ()


def test_rollback_that_has_begun_is_finished_without_the_skip_option() -> None:
    begun = Unfinished("sql", "rollback", "", 0, None)
    assert [each.id for each in undoing("sql", unfinished=(begun,)).skipped] == ["sql"]
    for other in (begun._replace(checksum="of another file"), begun._replace(id="good")):
        refused = undoing("sql", unfinished=(other,)).refused
        assert "no-rollback" in [each.id for each in refused]


@pytest.mark.parametrize(
    ("policy", "ids"),
    [
        (Policy(steps=2), ["c", "b"]),
        (Policy(everything=True), ["c", "b", "a"]),
        (Policy(to="a"), ["c", "b"]),
        (Policy(to="c"), []),
    ],
)
def test_the_newest_migrations_are_rolled_back_first(policy: Policy, ids: list[str]) -> None:
    history = History(("a", "b", "c"), applied("a", "b", "c"))
    assert [each.id for each in choose_to_undo(A_TO_D, history, policy, {}, None)] == ids


def test_choice_made_before_a_lost_connection_stays() -> None:
    before = applied("c", "b")
    history = History(("a", "b"), applied("a", "b"))
    chosen = choose_to_undo(A_TO_D, history, Policy(steps=2), {}, before)
    assert [each.id for each in chosen] == ["b"]


def test_rolling_back_to_an_unknown_migration_is_refused() -> None:
    history = History(("a",), applied("a"))
    with pytest.raises(PlanError) as caught:
        choose_to_undo(A_TO_D, history, Policy(to="x"), {}, None)
    assert caught.value.id == "unknown-id"


def test_unknown_breaking_migration_that_stays_refuses_the_rollback() -> None:
    records = applied("a") + applied("x", breaking=True)
    history = History(("a", "x"), records)
    loaded = {"a": migration("a", "DROP")}
    kept = decide_rollback(A_TO_D, history, Policy(), applied("a"), loaded)
    assert [each.id for each in kept.refused] == ["image-too-old"]
    assert kept.kept == ("x",)
    assert kept.warnings == (UnknownMigrations(("x",)),)


# --- sentences ---


def test_out_of_order_message() -> None:
    everything = Listing((*A_TO_D.migrations, MigrationFile("a2", "n/a2.sql", "", "n")))
    found = refusals.out_of_order(everything.migrations, ["b", "c"], everything)
    assert [finding.event for finding in found] == [OutOfOrder("a", "c"), OutOfOrder("b", "c")]
    assert found[0].problem == Problem(
        "out-of-order",
        "a would be applied after c, which is already applied",
        hint="rename it to sort last, or pass --out-of-order=allow",
    )


def test_changed_file_message() -> None:
    [found] = refusals.changed(A_TO_D, {"b", "x"})
    assert found.event == Changed("b", "m/b.sql")
    assert found.problem == Problem(
        "changed",
        "b is applied, but m/b.sql has changed since",
        hint="restore the file and put the change in a new migration, or pass --changed=allow",
    )
