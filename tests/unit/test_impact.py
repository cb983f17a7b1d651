from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.commands.rehearse import impact
from initmig.commands.rehearse.impact import Footprint, Relation, TableImpact
from initmig.sql import locks

RELATIONS = {
    1: Relation(1, "users", 10),
    2: Relation(1, "users_pkey", 20),
    3: Relation(3, "names", None),
}


def footprint(
    *modes: str, filenode: int | None = 10, scans: int = 0, read: int = 0, written: int = 0
) -> Footprint:
    return Footprint(frozenset(modes), filenode, scans, read, written)


@pytest.mark.parametrize(
    ("mode", "blocks"),
    [
        ("", ""),
        ("ACCESS SHARE", "DDL alone"),
        ("ROW SHARE", "DDL alone"),
        ("ROW EXCLUSIVE", "DDL alone"),
        ("SHARE UPDATE EXCLUSIVE", "DDL alone"),
        ("SHARE", "writes"),
        ("SHARE ROW EXCLUSIVE", "writes"),
        ("EXCLUSIVE", "writes"),
        ("ACCESS EXCLUSIVE", "reads and writes"),
    ],
)
def test_lock_mode_blocks_reads_writes_or_ddl(mode: str, blocks: str) -> None:
    assert locks.blocked_by(mode) == blocks


@given(modes=st.sets(st.sampled_from(locks.LOCK_MODES)))
def test_strongest_mode_blocks_as_much_as_all_modes_together(modes: set[str]) -> None:
    blocks = ["", "DDL alone", "writes", "reads and writes"]
    most = max((blocks.index(locks.blocked_by(mode)) for mode in modes), default=0)
    assert locks.blocked_by(locks.strongest(modes)) == blocks[most]


def test_lock_conflicts_are_symmetric() -> None:
    for mode, others in locks._CONFLICTS.items():
        assert all(mode in locks._CONFLICTS[other] for other in others)


def test_new_table_is_left_out() -> None:
    assert impact.impacts(RELATIONS, {}, {9: footprint("ACCESS EXCLUSIVE")}, {}) == {}


def test_first_footprint_is_compared_with_the_catalog() -> None:
    after = {1: footprint("SHARE", filenode=11, scans=1, read=5)}
    expected = TableImpact(
        "users", "SHARE", rewritten=True, scanned=True, rows_read=5, rows_written=0
    )
    assert impact.impacts(RELATIONS, {}, after, {}) == {1: expected}


def test_index_lock_counts_for_its_table() -> None:
    found = impact.impacts(RELATIONS, {}, {2: footprint("ACCESS EXCLUSIVE", filenode=21)}, {})
    assert found == {1: TableImpact("users", "ACCESS EXCLUSIVE")}


@pytest.mark.parametrize(
    ("held", "lock"),
    [("", "SHARE"), ("ACCESS SHARE", "SHARE"), ("SHARE", ""), ("EXCLUSIVE", "")],
)
def test_lock_is_reported_only_if_stronger_than_earlier_ones(held: str, lock: str) -> None:
    before = {1: footprint("ROW SHARE")}
    after = {1: footprint("ROW SHARE", "SHARE", written=1)}
    found = impact.impacts(RELATIONS, before, after, {1: held})
    assert found == {1: TableImpact("users", lock, rows_written=1)}


def test_unchanged_table_is_left_out() -> None:
    footprints = {
        1: footprint("SHARE", scans=2, read=9),
        3: footprint("ACCESS SHARE", filenode=None),
    }
    assert impact.impacts(RELATIONS, footprints, footprints, {}) == {}


def test_dropped_table_was_not_rewritten() -> None:
    after = {1: footprint("ACCESS EXCLUSIVE", filenode=None)}
    assert not impact.impacts(RELATIONS, {}, after, {})[1].rewritten


def test_counts_reset_by_truncate_are_not_negative() -> None:
    before, after = {1: footprint(written=7)}, {1: footprint(filenode=11)}
    assert impact.impacts(RELATIONS, before, after, {})[1].rows_written == 0
