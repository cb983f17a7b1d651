from hypothesis import given
from hypothesis import strategies as st

from initmig.commands.verify.comparison import compare

SNAPSHOTS = st.dictionaries(
    st.sampled_from(["table a", "table b", "function f()"]),
    st.sampled_from(["", "one", "two", "one\ntwo", "one\ntwo\nthree"]),
)


def test_removed_lines_have_a_minus_added_lines_a_plus_and_equal_lines_are_omitted() -> None:
    before = {"table b": "owner x", "column b.c": "text", "schema s": ""}
    after = {"table b": "owner x", "column b.c": "integer", "index b_c": "CREATE INDEX"}
    assert compare(before, after) == (
        "- column b.c text",
        "+ column b.c integer",
        "+ index b_c CREATE INDEX",
        "- schema s",
    )


def test_changed_body_is_shown_with_its_unchanged_lines() -> None:
    before = {"function f()": "owner x\nBEGIN\n  one;\nEND"}
    after = {"function f()": "owner x\nBEGIN\n  two;\nEND"}
    assert compare(before, after) == (
        "  function f() owner x",
        "      BEGIN",
        "-       one;",
        "+       two;",
        "      END",
    )


def test_line_that_begins_like_a_diff_marker_is_shown() -> None:
    assert compare({}, {"view v": "a\n? b"}) == ("+ view v a", "+     ? b")


def test_secret_is_shown_as_a_number_that_changes_with_it() -> None:
    before = {"user mapping a": "password=\x02aaa\x03, user=\x02bbb\x03"}
    after = {"user mapping a": "password=\x02ccc\x03, user=\x02bbb\x03"}
    assert compare(before, after) == (
        "- user mapping a password=(hidden 1), user=(hidden 2)",
        "+ user mapping a password=(hidden 3), user=(hidden 2)",
    )


@given(SNAPSHOTS, SNAPSHOTS)
def test_only_equal_snapshots_have_no_difference(
    before: dict[str, str], after: dict[str, str]
) -> None:
    assert (compare(before, after) == ()) == (before == after)


@given(SNAPSHOTS, SNAPSHOTS)
def test_swapped_snapshots_have_the_same_lines_with_opposite_signs(
    before: dict[str, str], after: dict[str, str]
) -> None:
    turned = [line.translate({43: 45, 45: 43}) for line in compare(after, before)]
    assert sorted(turned) == sorted(compare(before, after))
