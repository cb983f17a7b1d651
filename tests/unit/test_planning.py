from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core.errors import PlanError, Problem
from initmig.core.events import Changed, OutOfOrder, RollbackSkipped
from initmig.core.model import (
    AppliedMigration,
    Listing,
    Migration,
    MigrationFile,
    Step,
    Unfinished,
)
from initmig.migrations import planning

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NAMES = st.lists(st.text("abc0_", min_size=1, max_size=4), unique=True, max_size=8)


def file(id: str, folder: str = "m", suffix: str = "sql") -> MigrationFile:
    return MigrationFile(id, f"{folder}/{id}.{suffix}", "", folder)


def listing(*ids: str) -> Listing:
    return Listing(tuple(file(id) for id in ids))


def applied(*ids: str, checksum: str = "", breaking: bool = False) -> tuple[AppliedMigration, ...]:
    return tuple(AppliedMigration(id, NOON, "me@host", checksum, breaking) for id in ids)


def migration(
    id: str, *rollbacks: str, suffix: str = "sql", transactional: bool = True
) -> Migration:
    steps = tuple(Step(b"SELECT 1", each.encode(), line) for line, each in enumerate(rollbacks, 1))
    return Migration(file(id, "m", suffix), "", transactional, False, frozenset(), steps, None)


def ids_of(files: Sequence[MigrationFile | AppliedMigration]) -> list[str]:
    return [each.id for each in files]


@given(names=NAMES, data=st.data())
def test_each_migration_is_either_pending_or_applied_and_keeps_its_order(
    names: list[str], data: st.DataObject
) -> None:
    done = data.draw(st.lists(st.sampled_from([*names, "unknown"]), unique=True))
    pending = ids_of(planning.pending_files(listing(*names), done))
    assert pending == [name for name in names if name not in done]
    assert planning.left_to_do(listing(*names), done).unknown == tuple({"unknown"} & {*done})


@given(names=NAMES, data=st.data())
def test_dependents_are_rolled_back_first_and_otherwise_the_newest(
    names: list[str], data: st.DataObject
) -> None:
    depends = {
        name: data.draw(
            st.lists(st.sampled_from(names[:place]), unique=True) if place else st.just([])
        )
        for place, name in enumerate(names)
    }
    newest_first = ids_of(planning.newest_first(applied(*names), depends))
    assert newest_first == names[::-1]
    shuffled = data.draw(st.permutations(names))
    newest_first = ids_of(planning.newest_first(applied(*shuffled), depends))
    assert sorted(newest_first) == sorted(names)
    for name in names:
        for dependency in depends[name]:
            assert newest_first.index(name) < newest_first.index(dependency)


@given(names=NAMES, data=st.data())
def test_status_lists_every_file_and_every_record_once(
    names: list[str], data: st.DataObject
) -> None:
    done = data.draw(st.lists(st.sampled_from([*names, "x1", "x2"]), unique=True))
    other = data.draw(st.sets(st.sampled_from([*names, "x1"])))
    rows = planning.statuses(listing(*names), applied(*done), other)
    assert [row.id for row in rows] == [*names, *(id for id in done if id not in names)]
    for row in rows:
        assert (row.state == "pending") == (row.id not in done) == (row.applied is None)
        assert (row.state == "unknown") == (row.id not in names) == (row.path == "")
        assert (row.state == "changed") == (row.id in other and row.id in done and row.id in names)


def test_id_is_found_by_its_full_text_or_a_unique_prefix() -> None:
    ids = ["0001_a", "0001_a_b", "0002_c"]
    assert planning.resolve_id("0001_a", ids) == "0001_a"
    assert planning.resolve_id("0001_a_", ids) == "0001_a_b"
    assert planning.resolve_id("0002", ids) == "0002_c"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("0001", "'0001' matches several migrations: 0001_a, 0001_b", "write more of the id"),
        ("0002_x", "no migration has the id '0002_x'", "did you mean 0002_c?"),
        ("zzz", "no migration has the id 'zzz'", "see the ids in `initmig status`"),
        ("2_c", "no migration has the id '2_c'", "did you mean 0002_c?"),
    ],
)
def test_unknown_or_ambiguous_id_is_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(PlanError) as caught:
        planning.resolve_id(text, ["0001_a", "0001_b", "0002_c"])
    [problem] = caught.value.problems
    assert (problem.message, problem.hint) == (message, hint)


@given(names=NAMES.filter(bool), data=st.data())
def test_text_resolves_to_an_exact_id_or_a_unique_prefix(
    names: list[str], data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from(names))[: data.draw(st.integers(1, 4))]
    matches = [text] if text in names else [name for name in names if name.startswith(text)]
    if len(matches) == 1:
        assert planning.resolve_id(text, names) == matches[0]
    else:
        with pytest.raises(PlanError) as caught:
            planning.resolve_id(text, names)
        assert caught.value.id == ("ambiguous-id" if matches else "unknown-id")


def test_up_to_a_pending_migration_includes_those_planned_before_it() -> None:
    everything = listing("a", "b", "c", "d")
    b, c, d = everything.migrations[1:]
    assert planning.up_to("c", [b, c, d], everything) == (b, c)
    # c depends on d, so the plan's order differs from the listing
    assert planning.up_to("c", [d, c, b], everything) == (d, c)


def test_up_to_an_applied_migration_includes_those_listed_before_it() -> None:
    everything = listing("a", "b", "c", "d")
    a, b, _, d = everything.migrations
    assert planning.up_to("c", [a, b, d], everything) == (a, b)
    assert planning.up_to("a", [b, d], everything) == ()


def test_pending_id_before_an_applied_id_in_its_folder_is_out_of_order() -> None:
    everything = Listing((file("a"), file("b"), file("c"), file("d"), file("a2", "n")))
    found = planning.out_of_order(everything.migrations, ["b", "c"], everything)
    assert [finding.event for finding in found] == [
        OutOfOrder("a", "c"),
        OutOfOrder("b", "c"),
    ]
    assert found[0].error == Problem(
        "out-of-order",
        "a would be applied after c, which is already applied",
        hint="rename it to sort last, or pass --out-of-order=allow",
    )


@given(names=NAMES, data=st.data())
def test_nothing_is_out_of_order_if_files_were_applied_in_order(
    names: list[str], data: st.DataObject
) -> None:
    everything = listing(*sorted(names))
    count = data.draw(st.integers(0, len(names)))
    done, pending = everything.migrations[:count], everything.migrations[count:]
    assert planning.out_of_order(pending, ids_of(done), everything) == ()


def test_file_that_differs_from_the_half_applied_one_is_changed() -> None:
    begun = migration("b", transactional=False)._replace(checksum="2")
    for checksum, events in (("1", [Changed("b", "m/b.sql")]), ("2", [])):
        stopped = Unfinished("b", "apply", checksum, 0, None)
        found = planning.changed_half_way([stopped], {"b": begun})
        assert [finding.event for finding in found] == events


def test_file_that_differs_from_the_applied_one_is_changed() -> None:
    everything = listing("a", "b", "c", "d")
    records = (*applied("a", "b", checksum="1"), *applied("c"), *applied("x", checksum="1"))
    found = planning.changed(everything, records, {"a": "1", "b": "2", "c": "3", "d": "4"})
    assert [finding.event for finding in found] == [Changed("b", "m/b.sql")]
    assert found[0].error == Problem(
        "changed",
        "b is applied, but m/b.sql has changed since",
        hint="restore the file and put the change in a new migration, or pass --changed=allow",
    )


def test_all_findings_of_a_strict_policy_are_reported() -> None:
    everything = listing("a", "b", "c")
    found = planning.out_of_order(everything.migrations[:2], ["c"], everything)
    with pytest.raises(PlanError) as caught:
        planning.refuse(found)
    assert len(caught.value.problems) == 2
    planning.refuse(())


def test_image_that_lacks_a_breaking_migration_is_too_old() -> None:
    planning.refuse_old_image(applied("x"))
    with pytest.raises(PlanError, match="y, z") as caught:
        planning.refuse_old_image([*applied("x"), *applied("y", "z", breaking=True)])
    assert caught.value.id == "image-too-old"
    assert caught.value.problems[0].hint


def test_single_transaction_is_refused_with_non_transactional_migrations() -> None:
    planning.refuse_transaction_of_all([migration("a")])
    others = [migration("b", transactional=False), migration("c", transactional=False)]
    with pytest.raises(PlanError, match="b, c"):
        planning.refuse_transaction_of_all([migration("a"), *others])


def test_rollback_is_in_reverse_order_of_application() -> None:
    records = applied("a", "c", "b")
    assert ids_of(planning.to_roll_back(records[::-1], everything=True)) == ["b", "c", "a"]
    assert ids_of(planning.to_roll_back(records[::-1], steps=2)) == ["b", "c"]
    assert ids_of(planning.to_roll_back(records[::-1], steps=9)) == ["b", "c", "a"]
    assert ids_of(planning.to_roll_back(records[::-1], to="a")) == ["b", "c"]
    assert ids_of(planning.to_roll_back(records[::-1], to="b")) == []


def test_rollback_to_an_id_that_is_not_applied_is_refused() -> None:
    with pytest.raises(PlanError, match="d is not applied"):
        planning.to_roll_back(applied("a")[::-1], to="d")


@given(names=NAMES.filter(bool), data=st.data())
def test_each_applied_migration_is_either_kept_or_rolled_back(
    names: list[str], data: st.DataObject
) -> None:
    to = data.draw(st.sampled_from(names))
    undone = ids_of(planning.to_roll_back(applied(*names)[::-1], to=to))
    stays = names[: names.index(to) + 1]
    assert [*stays, *reversed(undone)] == names


IRREVERSIBLE = {
    "sql": migration("sql", ""),
    "python": migration("python", "DROP", "", "", suffix="py"),
    "good": migration("good", "DROP"),
}
OR_SKIP = "or pass --irreversible=skip to roll back the rest and remove the record"


def test_all_migrations_without_a_rollback_are_reported_together() -> None:
    chosen = applied("good", "gone", "sql", "python")
    with pytest.raises(PlanError) as caught:
        planning.skipped_in_rollback(chosen, IRREVERSIBLE, (), skip=False)
    assert [(str(each.place), each.message, each.hint) for each in caught.value.problems] == [
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


def test_skipping_reports_skipped_migrations_and_refuses_unknown_ones() -> None:
    known, unknown = applied("good", "sql", "python"), applied("gone")
    assert planning.skipped_in_rollback(known, IRREVERSIBLE, (), skip=True) == (
        RollbackSkipped("sql", "sql has no rollback", ("m/sql.rollback.sql",)),
        RollbackSkipped(
            "python",
            "python has no rollback in steps 2, 3 of 3",
            ("m/python.py:2", "m/python.py:3"),
        ),
    )
    with pytest.raises(PlanError) as caught:
        planning.skipped_in_rollback((*unknown, *known), IRREVERSIBLE, (), skip=True)
    assert caught.value.id == "unknown-migration"
    assert "gone" in str(caught.value)
    assert planning.skipped_in_rollback(applied("good"), IRREVERSIBLE, (), skip=False) == ()


def test_interrupted_rollback_is_finished_without_the_skip_option() -> None:
    migrations = {"sql": IRREVERSIBLE["sql"]._replace(rollback_checksum="as begun")}
    begun = Unfinished("sql", "rollback", "as begun", 0, None)
    [skipped] = planning.skipped_in_rollback(applied("sql"), migrations, (begun,), skip=False)
    assert skipped.id == "sql"
    for other in (
        begun._replace(checksum="of another file"),
        begun._replace(direction="apply"),
        begun._replace(id="good"),
    ):
        with pytest.raises(PlanError, match="sql has no rollback"):
            planning.skipped_in_rollback(applied("sql"), migrations, (other,), skip=False)
