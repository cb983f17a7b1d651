"""initmig reads the same directives in an SQL file as stock yoyo."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from yoyo.migrations import read_sql_migration

from initmig.core.errors import ConfigError
from initmig.migrations.files import list_files, parse_sql, read
from initmig.sql.source import Header
from tests.support.examples import examples
from tests.support.migrations import write

READ_ALIKE = {
    "a directive": "-- transactional: false",
    "another one": "-- depends: a b",
    "true": "-- transactional: true",
    "in capitals": "-- transactional: FALSE",
    "without blanks": "--transactional:false",
    "blanks around the colon": "--  transactional  :  false",
    "tabs": "\t--\ttransactional\t:\tfalse",
    "a no-break space": "--\u00a0transactional: false",
    "empty lines above": "\n\n \n-- transactional: false",
    "an empty comment above": "--\n-- depends: a",
    "a comment above": "-- Adds the users.\n-- depends: a",
    "a comment with a semicolon above": "-- BEGIN;\n-- depends: a",
    "a comment with a quote above": "-- it's\n-- depends: a",
    "a comment with a dollar quote above": "-- $$\n-- depends: a",
    "a comment that looks like a block above": "-- /*\n-- depends: a\n-- */",
    "a form feed above": "\f-- depends: a",
    "line ends of Windows": "-- a\r\n-- transactional: false\r\n",
    "line ends of the old Macintosh": "-- a\r-- transactional: false\r",
    "other separators end no line": "-- a\u2028-- transactional: false\v-- depends: a\u0085",
    "two lines of depends": "-- depends: a\n-- transactional: false\n-- depends: b",
    "depends on nothing": "-- depends:",
    "depends with a comma": "-- depends: a, b",
    "depends with a block comment": "-- depends: a /* b */",
    "both": "-- transactional: false\n-- depends: a",
    "no value": "-- transactional false",
    "an equals sign": "-- transactional = false",
    "on two lines": "-- transactional\n-- : false",
    "a third dash": "--- transactional: false",
    "a comment in a comment": "-- -- transactional: false",
    "a word before it": "-- note: depends: a",
    "several words": "-- depends on: a",
    "a capital letter and prose": "-- Depends: on the users",
    "a capital letter and an id": "-- Depends: 0001_users",
    "capital letters and prose": "-- TRANSACTIONAL: see the manual",
    "what breaks, in prose": "-- Breaking: drops the column email",
    "what breaks, in lower case": "-- breaking: drops the column email",
    "what breaks, below it": "-- breaking:\n-- drops the column email",
    "a near miss and prose": "-- transaction: one for all\n-- break: none",
    "a near miss of depends": "-- depend: a",
    "an address": "-- see: https://example.org/depends:a",
    "below a block comment": "/* licence */\n-- transactional: false",
    "behind a block comment": "/* licence */ -- transactional: false",
    "joined to a block comment": "/**/-- transactional: false",
    "below a block comment that has another in it": "/* a /* b */ c */\n-- depends: a",
    "below a comment and a block comment": "-- a\n/* b */\n-- depends: a",
    "above a block comment": "-- depends: a\n/* b */\n-- depends: c",
    "in a block comment": "/*\n-- transactional: false\n*/",
    "below an empty statement": ";\n-- transactional: false",
    "below a statement": "SELECT 1;\n-- transactional: false",
    "behind a statement": "SELECT 1; -- transactional: false",
}


def read_by_yoyo(path: str) -> tuple[bool, frozenset[str]]:
    """:raises KeyError: the value of transactional is neither true nor false."""
    directives, *_ = read_sql_migration(path)
    transactional = {"true": True, "false": False}[directives.get("transactional", "true").lower()]
    return transactional, frozenset(directives.get("depends", "").split())


def read_by_initmig(folder: Path) -> tuple[bool, frozenset[str]]:
    [file] = list_files([str(folder)]).migrations
    header = parse_sql(read(file)).header
    assert not header.breaking
    return header.transactional, header.depends


@pytest.mark.parametrize("header", READ_ALIKE.values(), ids=READ_ALIKE)
def test_a_header_is_read_as_by_yoyo(tmp_path: Path, header: str) -> None:
    write(tmp_path, {"x.sql": f"{header}\nSELECT 1;"})

    assert read_by_initmig(tmp_path) == read_by_yoyo(f"{tmp_path}/x.sql")


FRAGMENTS = [
    *("--", "-- ", "/*", "*/", ";", ":", ": ", "\n", "\r\n", "\r", "\n-- ", " ", "\t", "--\u00a0"),
    *("transactional", "depends", "Depends", "false", "true", "a", "-- transactional: false"),
    "\n-- depends: b",
]


@settings(max_examples=examples(300))
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_any_header_is_read_as_by_yoyo(header: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), {"x.sql": f"{header}\nSELECT 1;"})
        try:
            expected = read_by_yoyo(f"{folder}/x.sql")
        except KeyError:
            assume(False)
        assert read_by_initmig(Path(folder)) == expected


@pytest.mark.parametrize(
    ("header", "transactional"),
    [
        ("-- transactional: false ", False),
        ("-- transactional: false\t\r\n", False),
        ("\ufeff-- transactional: false", False),
        ("\ufeff\n-- transactional: true  ", True),
    ],
    ids=["a blank behind it", "a tab behind it", "a byte order mark", "both"],
)
def test_a_header_that_crashes_yoyo_is_read_as_intended(
    tmp_path: Path, header: str, *, transactional: bool
) -> None:
    write(tmp_path, {"x.sql": f"{header}\nSELECT 1;"})

    assert read_by_initmig(tmp_path) == (transactional, frozenset())


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("-- transactional: no", "invalid-directive"),
        ("-- transactional:", "invalid-directive"),
        ("-- transactional: false, for it is long", "invalid-directive"),
        ("-- transactional: true\n-- transactional: true", "invalid-directive"),
        ("-- breaking: yes", "invalid-directive"),
        ("-- breaking: true, drops a column", "invalid-directive"),
        ("-- Transactional: false", "unknown-directive"),
        ("-- transactionel: FALSE", "unknown-directive"),
        ("-- Breaking: true", "unknown-directive"),
    ],
)
def test_a_misspelled_directive_is_refused(tmp_path: Path, header: str, error: str) -> None:
    write(tmp_path, {"x.sql": f"{header}\nSELECT 1;"})

    with pytest.raises(ConfigError) as caught:
        read_by_initmig(tmp_path)
    assert [problem.id for problem in caught.value.problems] == [error]


@pytest.mark.parametrize(
    ("header", "correct"),
    [
        ("-- Breaking: True", "`-- breaking: true`"),
        ("-- transactionel: FALSE", "`-- transactional: false`"),
    ],
)
def test_the_next_step_writes_a_directive_as_the_docs_do(
    tmp_path: Path, header: str, correct: str
) -> None:
    write(tmp_path, {"x.sql": f"{header}\nSELECT 1;"})

    with pytest.raises(ConfigError) as caught:
        read_by_initmig(tmp_path)
    assert correct in caught.value.problems[0].hint


def test_a_directive_that_yoyo_does_not_read_is_reported(tmp_path: Path) -> None:
    lines = (
        "/* licence */",
        "-- transactional: false",
        "-- breaking: drops it",
        "-- breaking: true",
        "-- depends:",
        "SELECT 1;",
        "-- depends: a",
    )
    write(tmp_path, {"x.sql": "\n".join(lines)})
    [file] = list_files([str(tmp_path)]).migrations

    files = parse_sql(read(file))

    assert files.header == Header(True, False, frozenset())
    assert [(place.line, place.source) for place in files.ignored] == [
        (2, "-- transactional: false"),
        (4, "-- breaking: true"),
    ]
