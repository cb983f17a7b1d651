"""Every difference that docs/yoyo.md lists has a test, and the page names it."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "yoyo.md").read_text()
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [^|\s]", line)]


def test_each_difference_names_a_test_that_exists() -> None:
    assert ROWS
    for row in ROWS:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"^def {name}\(", (TESTS / path).read_text(), re.MULTILINE), row
