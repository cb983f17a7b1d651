"""Sequences for many or large statements, which are created or copied only when needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.engine.large_files import ChunkedFile
from initmig.engine.lazy_sequence import LazySequence
from initmig.sql.scanner import Spans
from initmig.sql.statements import Found

SLICES = st.builds(slice, *[st.none() | st.integers(-12, 12)] * 2)


@given(st.integers(0, 10), SLICES, SLICES)
def test_lazy_sequence_equals_the_list(size: int, first: slice, second: slice) -> None:
    lazy, expected = (
        LazySequence(lambda number: number * 2, range(size)),
        [n * 2 for n in range(size)],
    )
    assert list(lazy) == expected
    assert list(lazy[first]) == expected[first]
    assert list(lazy[first][second]) == expected[first][second]
    assert [lazy[-1 - n] for n in range(size)] == expected[::-1]


def test_lazy_sequence_creates_only_the_requested_items() -> None:
    requested: list[int] = []
    lazy = LazySequence(lambda number: requested.append(number) or number, range(1000))  # type: ignore[func-returns-value]
    assert lazy[10:20][3] == 13
    assert requested == [13]
    with pytest.raises(IndexError):
        lazy[1000]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.none() | st.text("a"))))
def test_found_equals_the_list(each: list[tuple[int, int, str | None]]) -> None:
    results = {n: one[2] for n, one in enumerate(each) if one[2] is not None}
    found = Found(Spans(one[:2] for one in each), results)
    assert list(found) == each
    assert list(found[1:-1]) == each[1:-1]
    assert [found[-1 - n] for n in range(len(each))] == each[::-1]


MIB = 1 << 20
LARGE = [(10, 10 + MIB), (20 + MIB, 20 + 3 * MIB), (20 + 3 * MIB, 30 + 4 * MIB)]
SMALL = [(0, 5), (12 + MIB, 18 + MIB)]
FILE = bytes(range(256)) * (5 * MIB // 256)
EDGES = [None, *sorted({edge + n for each in LARGE for edge in each for n in (-1, 0, 1)})]


@pytest.mark.parametrize("start", EDGES)
def test_pieces_have_the_slices_of_the_file(start: int | None) -> None:
    pieces = ChunkedFile(FILE, [*LARGE, *SMALL])
    assert len(pieces) == len(FILE)
    for end in EDGES:
        assert pieces[start:end] == FILE[start:end]


def test_large_statement_is_not_copied() -> None:
    pieces = ChunkedFile(FILE, [*LARGE, *SMALL])
    for start, end in LARGE:
        assert pieces[start:end] is pieces[start:end]


def test_empty_file_is_an_empty_piece() -> None:
    assert (len(ChunkedFile(b"", [])), ChunkedFile(b"", [])[:]) == (0, b"")
