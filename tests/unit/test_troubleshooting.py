"""Troubleshooting lists every exit code, and pages for newcomers name only documented ids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from initmig.cli.help import EXIT_CODES

DOCS = Path(__file__).parents[2] / "docs"
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text()
_ID = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")
DOCUMENTED = {
    id
    for line in (DOCS / "reference" / "errors.md").read_text().splitlines()
    if line.startswith("| `")
    for id in _ID.findall(line.split(" | ")[0])
}
PAGES = [
    *("troubleshooting.md", "faq.md", "reference/directives.md"),
    *(f"how-to/{name}.md" for name in ("write-migrations", "sidecar", "before-production")),
]


@pytest.mark.parametrize("page", PAGES)
def test_page_names_only_documented_error_ids(page: str) -> None:
    named = set(_ID.findall((DOCS / page).read_text()))
    assert named
    assert named - DOCUMENTED == set()


def test_troubleshooting_has_every_exit_code_except_success() -> None:
    table = TROUBLESHOOTING.split("| exit code | go to |")[1].split("\n\n")[0]
    codes = {
        int(code)
        for row in table.splitlines()
        for code in re.findall(r"\d+", row.split("|")[1] if row.startswith("|") else "")
    }
    assert codes >= {code for code, *_ in EXIT_CODES if code}
