"""Predictions of statements that PostgreSQL will refuse, and the advice in errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from initmig import engine
from initmig.core.model import Migration, MigrationFile
from initmig.migrations.files import list_files
from initmig.sql.not_in_transaction import Refused, advice_after, refused_in_transaction
from tests.support.migrations import NO_CODE, write

if TYPE_CHECKING:
    from pathlib import Path

STEP = "from yoyo import group, step\n"
PYTHON_ALONE = f"{STEP}__transactional__ = False\n"
UNDONE_IN_BLOCK = """\
step('', 'COMMIT')
step('', 'VACUUM')
step('', 'BEGIN')
step('', 'VACUUM')
"""
ALONE = "-- transactional: false\n"


def found(folder: Path, *files: tuple[str, str]) -> list[Refused]:
    listing = list_files([str(write(folder, dict(files)))])
    migrations = engine.load(listing.migrations, known=(), emit=print)
    return list(refused_in_transaction(migrations))


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.sql", "VACUUM;", ["a.sql:1:1"]),
        ("a.sql", "\ufeffVACUUM;\nVACUUM t", ["a.sql:1:1", "a.sql:2:1"]),
        ("a.sql", "SELECT 'é';/* x */  reindex\nschema s", ["a.sql:1:21"]),
        ("a.sql", "-- VACUUM\nSELECT 'VACUUM;'; /* DROP DATABASE x; */", []),
        ("a.sql", f"{ALONE}VACUUM;", []),
        ("a.sql", f"{ALONE}BEGIN;\nVACUUM;\nCOMMIT;\nVACUUM;", ["a.sql:3:1"]),
        ("a.sql", f"{ALONE}BEGIN; SELECT 1; ROLLBACK; VACUUM;", []),
        ("a.sql", "SELECT wrong syntax here; VACUUM;", ["a.sql:1:27"]),
        ("a.py", f"{STEP}step('VACUUM')", ["a.py:2"]),
        ("a.py", f"{STEP}step('VACUUM; VACUUM')", ["a.py:2", "a.py:2"]),
        ("a.py", f"{STEP}for t in 'ab':\n    step(f'VACUUM {{t}}')", ["a.py:3", "a.py:3"]),
        ("a.py", f"{STEP}step('SELECT 1', 'VACUUM')", ["a.py:2"]),
        ("a.py", f"{STEP}group([\n  step('SELECT 1'),\n  step('VACUUM')])", ["a.py:4"]),
        ("a.py", f"{STEP}step(lambda c: c.execute('VACUUM'))", []),
        ("a.py", f"{STEP}step('VACUUM', 'VACUUM', ignore_errors='apply')", ["a.py:2"]),
        ("a.py", f"{STEP}step('VACUUM', 'VACUUM', ignore_errors='all')", []),
        ("a.py", f"{STEP}group([group([step('VACUUM')])], ignore_errors='apply')", []),
        ("a.py", f"{PYTHON_ALONE}step('VACUUM')", []),
        (
            "a.py",
            f"{PYTHON_ALONE}step('BEGIN')\nstep('VACUUM')\nstep('COMMIT')\nstep('VACUUM')",
            ["a.py:4"],
        ),
        ("a.py", f"{PYTHON_ALONE}{UNDONE_IN_BLOCK}", ["a.py:4"]),
    ],
)
def test_each_statement_is_found_at_its_place(
    tmp_path: Path, name: str, text: str, places: list[str]
) -> None:
    assert [str(each.place) for each in found(tmp_path, (name, text))] == [
        f"{tmp_path}/{place}" for place in places
    ]


def test_a_rollback_is_distinguished_from_its_migration(tmp_path: Path) -> None:
    many = "SELECT 1;\n" * 3 + f"CREATE DATABASE {'x' * 60} TEMPLATE template0"
    [apply, rollback] = found(tmp_path, ("a.sql", many), ("a.rollback.sql", "DROP DATABASE x"))
    assert (apply.direction, rollback.direction) == ("apply", "rollback")
    shown = f"CREATE DATABASE {'x' * 44}..."
    assert apply.fact == f"`{shown}` cannot run inside a transaction, so a would fail"
    assert rollback.fact.endswith("so the rollback of a would fail")
    directive = f"put `-- transactional: false` at the top of {tmp_path}/a.sql"
    assert apply.next_step == rollback.next_step == directive


def test_a_block_of_the_file_is_named(tmp_path: Path) -> None:
    [refused] = found(tmp_path, ("a.sql", f"{ALONE}SELECT 1;\nBEGIN;\nVACUUM;\nCOMMIT;"))
    next_step = f"move it out of the transaction that begins at {tmp_path}/a.sql:3:1"
    assert refused.next_step == next_step


@pytest.mark.parametrize(
    ("sqlstate", "routine"),
    [
        ("25001", "call_enum_check_hook"),  # SET TRANSACTION ISOLATION LEVEL
        ("25001", ""),
        ("42P01", "PreventInTransactionBlock"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("transactional", [True, False])
def test_another_error_gets_no_advice(sqlstate: str, routine: str, transactional: bool) -> None:
    file = MigrationFile("a", "m/a.sql")
    migration = Migration(file, "", transactional, False, frozenset(), (), NO_CODE)
    assert advice_after(migration, sqlstate, routine, "") == ""
