"""The README is the specification: its tables say what the code says, its examples run."""

from __future__ import annotations

import re
from pathlib import Path

from initmig.settings import COMMANDS, SETTINGS
from initmig.usage import EXIT_CODES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the first table below *heading*, without its head."""
    after = README.split(heading, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table, heading
    lines = table.group().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_first_screen_shows_the_two_commands() -> None:
    first_screen = README.splitlines()[:24]
    assert any(line.startswith("$ make run") for line in first_screen)
    assert any(line.startswith("$ make test") for line in first_screen)


def test_commands_table_lists_every_command_and_no_other() -> None:
    named = [re.match(r"`(\w+)", row[0]) for row in rows_below("## Use it")]
    assert [match.group(1) for match in named if match] == list(COMMANDS)


def test_settings_table_has_flag_variable_and_default_of_each_setting() -> None:
    rows = {row[0].strip("`"): row for row in rows_below("### Settings")}
    assert list(rows) == [option.flag for option in SETTINGS]
    for option in SETTINGS:
        _, variable, default, *_ = rows[option.flag]
        assert f"`{option.env}`" in variable
        if option.parse is not str and option.flag != "--database-url":
            assert default.strip("`") == option.default


def test_each_option_with_a_variable_stands_somewhere_with_it_and_its_default() -> None:
    pages = [README, (ROOT / "docs" / "how-to" / "operations.md").read_text()]
    rows = [line for page in pages for line in page.splitlines() if line.startswith("|")]
    own = [option for command in COMMANDS.values() for option in command.options if option.env]
    assert len(own) > 4
    for option in own:
        parts = [f"`{part}`" for part in (option.flag, option.env, option.default) if part]
        assert any(all(part in row for part in parts) for row in rows), option.flag


def test_exit_codes_table_is_that_of_the_help() -> None:
    codes = [int(re.findall(r"\d+", row[0])[0]) for row in rows_below("### Exit codes")]
    assert codes == [code for code, _ in EXIT_CODES]
