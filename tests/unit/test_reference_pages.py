"""The reference pages list the commands, options, settings and exit codes of the code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from dev.reference_pages import PAGES, with_tables
from initmig.cli.help import EXIT_CODES
from initmig.config.options import COMMANDS, OPTIONS, SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS_PAGE, SETTINGS_PAGE, EXIT_CODES_PAGE = (page.read_text() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_a_page_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert text == with_tables(text), "run python -m dev.reference_pages"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_cell_is_longer_than_forty_words(page: Path) -> None:
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    cells = [cell for row in rows for cell in row.strip("|").split(" | ")]
    assert len(cells) > 20
    assert [cell for cell in cells if len(cell.split()) > 40] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_section_with_a_description_and_a_table(name: str) -> None:
    [section] = re.findall(rf"^## {name}\n(.*?)(?=^## )", COMMANDS_PAGE, re.MULTILINE | re.DOTALL)
    prose, _, table = section.partition(f"<!-- begin {name} ")
    assert len(prose.split()) > 5
    assert "[Exit codes](exit-codes.md): 0" in table
    for option in COMMANDS[name].options:
        assert f"\n| `{option.flag}" in table


def test_each_setting_has_one_row_with_flag_variable_and_default() -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)` \| `([A-Z_]+)` \| `?(.*?)`? \|", SETTINGS_PAGE, re.MULTILINE
    )
    own = [option for command in COMMANDS.values() for option in command.options if option.env]
    expected = [(each.flag, each.env, each.default) for each in (*SETTINGS, *own)]
    assert rows == expected
    for variable in ("DATABASE_URL_FILE", "PGPASSWORD_FILE"):
        assert f"\n| `{variable}` |" in SETTINGS_PAGE


def test_each_exit_code_is_in_one_row() -> None:
    rows = re.findall(r"^\| (\d+) \|", EXIT_CODES_PAGE, re.MULTILINE)
    assert rows == [str(code) for code, _ in EXIT_CODES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_only_flags_that_exist(page: Path) -> None:
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()))
    assert flags <= {*OPTIONS, "--help", "--version", "--migration-table"}
