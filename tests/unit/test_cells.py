"""The width of text on a terminal, and text and tables that are made to fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.reporting.terminal.cells import cells, shortened, shortened_inside, wrapped
from initmig.reporting.terminal.layout import FIXED, ID, NAME, PROSE, SQL, WORDS, fitted, laid_out
from initmig.reporting.terminal.screen import PLAIN, Screen, Styled

if TYPE_CHECKING:
    from collections.abc import Sequence

ID_OF_NEW = "20261201093000_add_phone_number"
TEXTS = st.text("ab _-./:1é漢字\u0301🙂", max_size=120)
KINDS = (ID, WORDS, PROSE, NAME, SQL)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("", 0),
        ("abc", 3),
        ("é", 1),
        ("e\u0301", 1),
        ("漢字", 4),
        ("\uff46\uff55\uff4c\uff4c", 8),
        ("한국", 4),
        ("\u1112\u1161\u11ab", 2),
        ("🙂", 2),
        ("naïve…", 6),
    ],
)
def test_width_counts_wide_and_combining_characters(text: str, taken: int) -> None:
    assert cells(text) == taken


@given(text=TEXTS, width=st.integers(20, 60), hang=st.integers(0, 8))
def test_wrapped_lines_fit_and_drop_only_spaces(text: str, width: int, hang: int) -> None:
    lines = wrapped(text, width, hang)
    assert all(cells(line) <= width for line in lines)
    assert "".join("".join(lines).split(" ")) == "".join(text.split(" "))
    assert all(line.startswith(" " * hang) for line in lines[1:])


@given(text=TEXTS, width=st.integers(4, 60))
def test_shortened_text_fits_and_has_an_ellipsis(text: str, width: int) -> None:
    for short in (shortened(text, width), shortened_inside(text, width)):
        assert cells(short) <= width
        assert short == text or "…" in short


def test_number_and_unit_stay_on_one_line() -> None:
    assert wrapped("applied 0001_a in 0.25 s", 23, 4) == ["applied 0001_a in", "    0.25 s"]


def test_long_text_is_wrapped_completely() -> None:
    assert len(wrapped("é" * 200_000, 50)) == 4000


def shown(
    rows: Sequence[tuple[str, ...]], width: int, kinds: tuple[str, ...], *, headed: bool
) -> str:
    lines = laid_out(rows, width, kinds, headed=headed)
    return PLAIN.text(line for row in lines for line in row)


@given(
    rows=st.lists(st.tuples(*(TEXTS for _ in KINDS)), min_size=1, max_size=4),
    width=st.integers(20, 120),
    headed=st.booleans(),
)
def test_no_table_is_wider_than_the_terminal(
    rows: list[tuple[str, ...]], width: int, headed: bool
) -> None:
    rows = [("id", "state", "what", "by", "SQL"), *rows]
    text = shown(rows, width, KINDS, headed=headed)
    assert all(cells(line) <= width for line in text.split("\n"))


ROWS = [
    ("migration", "state", "applied", "by"),
    (ID_OF_NEW, "applied", "2026-12-01 09:30:00", "somebody@a-long-name-of-a-pod"),
    ("20261201094500_backfill_phone_numbers_of_everybody", "pending", "", ""),
]
STATUS = (ID, WORDS, FIXED, NAME)


def test_without_a_limit_each_row_is_one_line() -> None:
    lines = shown(ROWS, 0, STATUS, headed=True).split("\n")
    assert len(lines) == 3
    assert lines[1].endswith("somebody@a-long-name-of-a-pod")
    assert lines[2] == "20261201094500_backfill_phone_numbers_of_everybody  pending"


def test_names_are_shortened_first_and_ids_are_only_wrapped() -> None:
    first, rest = "20261201094500_backfill_phone_numbers_", "  of_everybody"
    assert shown(ROWS, 80, STATUS, headed=True).split("\n")[1:] == [
        f"{ID_OF_NEW:38}  applied  2026-12-01 09:30:00  somebod…",
        f"{first}  pending",
        rest,
    ]


def test_row_is_a_paragraph_without_empty_fields_if_no_table_fits() -> None:
    assert shown(ROWS, 40, STATUS, headed=True).split("\n") == [
        ID_OF_NEW,
        "  state    applied",
        "  applied  2026-12-01 09:30:00",
        "  by       somebody@a-long-name-of-a-pod",
        "20261201094500_backfill_phone_numbers_",
        "  of_everybody",
        "  state    pending",
    ]


def test_empty_columns_are_dropped_first() -> None:
    rows = [("id", "rewritten", "written", "SQL"), ("0001_a", "", "", "SELECT 1")]
    assert shown(rows, 20, (ID, WORDS, WORDS, SQL), headed=True).split("\n") == [
        "id      SQL",
        "0001_a  SELECT 1",
    ]


def test_wrapped_text_keeps_its_style_on_each_line() -> None:
    lines = fitted(["a ", Styled("red words that go on", "red")], 12)
    assert Screen(12, colour=True).text(lines).split("\n") == [
        "a \x1b[31mred words\x1b[0m",
        "  \x1b[31mthat go on\x1b[0m",
    ]


def test_escape_sequences_in_text_are_escaped_before_colours_are_added() -> None:
    hostile = "\x1b[2Jhostile\x1b[31m"
    text = Screen(0, colour=True).text([[Styled(hostile, "green"), hostile]])
    assert text == "\x1b[32m\\x1b[2Jhostile\\x1b[31m\x1b[0m\\x1b[2Jhostile\\x1b[31m"
