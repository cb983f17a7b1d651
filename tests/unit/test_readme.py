"""README fits on a few screens, and its table has every command."""

from __future__ import annotations

import re
from pathlib import Path

from initmig.config.options import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_first_screen_shows_the_two_commands() -> None:
    first_screen = README.splitlines()[:24]
    assert any(line.startswith("$ make run") for line in first_screen)
    assert any(line.startswith("$ make test") for line in first_screen)


def test_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_commands_table_lists_exactly_the_commands() -> None:
    table = README.split("## Commands\n")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(COMMANDS)


def test_contents_list_has_every_section() -> None:
    sections = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert re.findall(r"^- \[(.+)\]\(#", README, re.MULTILINE) == sections
