"""Every difference that docs/reference/yoyo.md lists has a test, and the page names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from yoyo.scripts.main import make_argparser

from initmig.config.config import parse_config

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


def rows(page: str, heading: str = "") -> list[str]:
    """The rows of the tables of a *page*, or of its section with this *heading*."""
    text = (DOCS / page).read_text()
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0] if heading else text
    return [line for line in section.splitlines() if re.match(r"\| [^|\s]", line)]


COMMANDS = rows("how-to/yoyo.md", "## Commands")
DIFFERENCES = rows("reference/yoyo.md")


def test_each_difference_names_a_test_that_exists() -> None:
    assert DIFFERENCES
    for row in DIFFERENCES:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"^def {name}\(", (TESTS / path).read_text(), re.MULTILINE), row


def test_each_yoyo_command_is_in_the_table() -> None:
    _, _, subparsers = make_argparser()

    listed = {name for row in COMMANDS for name in re.findall(r"`yoyo ([\w-]+)", row)}

    assert listed == set(subparsers.choices)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`initmig ([^`]+)`", "".join(COMMANDS)))))
def test_each_command_line_of_the_table_is_parsed(line: str) -> None:
    words = line.replace("ID", "0001_a").replace(" N", " 1").replace("NAME", "add_email").split()

    assert parse_config(words, {}).command == words[0]
