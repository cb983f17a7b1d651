import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("5", 5.0),
        ("0.5", 0.5),
        ("1.5h", 5400.0),
        ("0", 0.0),
        (" 5 s\n", 5.0),
    ],
)
def test_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-1s",
        "nan",
        "inf",
        "1e3",
        "5d",
        "5 min",
        "s",
        ".5",
        "5.",
        "1h30m",
        "5S",
        "9" * 400,
    ],
)
def test_invalid_duration_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(ValueError, match="500ms, 5s, 2m, 1h, or seconds such as 5") as caught:
        parse_duration(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00004, "0.001 s"),
        (0.0123, "0.012 s"),
        (0.9996, "1 s"),
        (3.4321, "3.4 s"),
        (5.0, "5 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m"),
        (125.4, "2 m 5 s"),
        (3599.4, "59 m 59 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 m"),
        (7199, "2 h"),
        (360000, "100 h"),
    ],
)
def test_duration_is_shown_in_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=60 * 60 * 24 * 365))
def test_formatted_duration_is_close_to_the_exact_one(seconds: float) -> None:
    words = format_duration(seconds).split()
    shown = sum(
        parse_duration(number + unit) for number, unit in zip(words[::2], words[1::2], strict=True)
    )

    assert shown == pytest.approx(seconds, rel=0.05, abs=0.001)
