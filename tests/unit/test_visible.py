"""Invisible and control characters are escaped in every output."""

from __future__ import annotations

import json
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core.visible import CONTINUATION, in_lines, in_one_line, to_json, with_line_breaks

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
ANYTHING = st.text(st.characters(categories=None))
ESCAPED = {
    "a line end": ("a\ninfo: nothing to do", "a\\ninfo: nothing to do"),
    "a line end of Windows": ("a\r\nb", "a\\r\\nb"),
    "a tab": ("a\tb", "a\\tb"),
    "a null": ("a\0b", "a\\x00b"),
    "a bell": ("\a", "\\x07"),
    "a backspace": ("\b", "\\x08"),
    "other line ends": ("\v\f\x1c\x1d\x1e", "\\x0b\\x0c\\x1c\\x1d\\x1e"),
    "a sequence": ("\x1b[2J\x1b]0;x\a", "\\x1b[2J\\x1b]0;x\\x07"),
    "DEL": ("\x7f", "\\x7f"),
    "C1: next line, CSI": ("\x85\x9b2J", "\\x85\\x9b2J"),
    "bidirectional": ("\u202a\u202b\u202c\u202d\u202e", "\\u202a\\u202b\\u202c\\u202d\\u202e"),
    "isolates": ("\u2066\u2067\u2068\u2069", "\\u2066\\u2067\\u2068\\u2069"),
    "marks": ("\u200e\u200f\u061c", "\\u200e\\u200f\\u061c"),
    "separators": ("\u2028\u2029", "\\u2028\\u2029"),
    "zero-width": ("\u200b\u200c\u200d\ufeff\u2060", "\\u200b\\u200c\\u200d\\ufeff\\u2060"),
    "a soft hyphen": ("a\u00adb", "a\\xadb"),
    "a byte that is no UTF-8": ("\udcff", "\\udcff"),
    "private use": ("\ue000\U000f0000", "\\ue000\\U000f0000"),
    "unassigned": ("\uffff\u0378", "\\uffff\\u0378"),
    "tags": ("\U000e0001\U000e0041", "\\U000e0001\\U000e0041"),
    "a joined emoji": ("👩\u200d💻", "👩\\u200d💻"),
}
ORDINARY = [
    "",
    "nothing to do: 1 migration, all applied",
    "m/0001_é.sql:1:2: naïve Übergröße e\u0301",
    "移行を適用しました。日本語\u3000全角",
    "ERREUR\u00a0: la relation «\u202fx\u202f» n'existe pas",
    "العربية עברית हिन्दी ไทย",
    "🦆 👍🏽 ❤\ufe0f 🇨🇭",
    r"C:\new\table \x1b \\",
    "tab`|<>@#&",
]


@pytest.mark.parametrize(("text", "shown"), ESCAPED.values(), ids=ESCAPED)
def test_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert in_one_line(text) == shown


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert [show(text) for show in (in_one_line, in_lines, with_line_breaks)] == [text] * 3


@given(ANYTHING)
def test_in_one_line_returns_one_line_of_visible_characters(text: str) -> None:
    shown = in_one_line(text)
    assert {category(c) for c in shown}.isdisjoint(HIDDEN)
    assert shown.splitlines() == ([shown] if shown else [])
    assert shown.encode().decode() == shown
    assert in_one_line(shown) == shown


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))))
def test_visible_text_is_unchanged(text: str) -> None:
    assert in_one_line(text) == in_lines(text) == with_line_breaks(text) == text


@given(ANYTHING)
def test_every_line_after_the_first_is_marked_as_continued(text: str) -> None:
    first, *others = in_lines(text).split("\n")
    assert all(line.startswith(CONTINUATION) for line in others)
    lines = [first, *(line.removeprefix(CONTINUATION) for line in others)]
    assert lines == with_line_breaks(text).split("\n")
    for line in lines:
        assert {category(c) for c in line if c != "\t"}.isdisjoint(HIDDEN)
    assert [*map(in_one_line, text.replace("\r\n", "\n").split("\n"))] == [
        line.replace("\t", "\\t") for line in lines
    ]


@given(ANYTHING)
def test_with_line_breaks_is_idempotent(text: str) -> None:
    shown = with_line_breaks(text)
    assert with_line_breaks(shown) == shown


def test_windows_line_end_is_one_line_end() -> None:
    assert in_lines("a\r\nb\rc") == f"a\n{CONTINUATION}b\\rc"
    assert with_line_breaks("a\r\nb\rc") == "a\nb\\rc"


@given(
    st.dictionaries(ANYTHING, st.lists(ANYTHING) | st.integers() | st.none()),
    st.sampled_from([None, 2]),
)
def test_json_is_visible_utf8_with_every_character(
    value: dict[str, object], indent: int | None
) -> None:
    document = to_json(value, indent=indent)
    assert {category(c) for c in document if c != "\n"}.isdisjoint(HIDDEN)
    if indent is None:
        assert len(document.splitlines()) == 1
    read = json.loads(document.encode())
    assert read == json.loads(json.dumps(_without_surrogates(value)))


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return "".join(in_one_line(c) if category(c) == "Cs" else c for c in value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
    return [*map(_without_surrogates, value)] if isinstance(value, list) else value


def test_json_keeps_readable_characters() -> None:
    assert to_json({"é": "漢🦆\u3000\u202e\x9b\U000e0041\udcff"}) == (
        '{"é": "漢🦆\u3000\\u202e\\u009b\\udb40\\udc41\\\\udcff"}'
    )
