from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core.errors import PlanError
from initmig.core.model import (
    AppliedMigration,
    Listing,
    Migration,
    MigrationFile,
    Step,
)
from initmig.migrations import planning
from initmig.migrations.statuses import statuses
from tests.support.migrations import NO_CODE

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
    return Migration(file(id, "m", suffix), "", transactional, False, frozenset(), steps, NO_CODE)


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
    rows = statuses(listing(*names), applied(*done), other)
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


@given(names=NAMES, data=st.data())
def test_nothing_is_out_of_order_if_files_were_applied_in_order(
    names: list[str], data: st.DataObject
) -> None:
    everything = listing(*sorted(names))
    count = data.draw(st.integers(0, len(names)))
    done, pending = everything.migrations[:count], everything.migrations[count:]
    assert planning.find_out_of_order(pending, ids_of(done), everything) == {}


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
