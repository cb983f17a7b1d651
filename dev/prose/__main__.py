"""Print the findings in files and folders; without paths, in the whole repository.

With ``--markers`` print how many findings the docstrings, comments and names of each folder have.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dev.prose.check import Check
from dev.prose.files import files_below, files_of, page_of
from dev.prose.markers import table
from dev.prose.rules import ROOT, Rules

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Print findings or markers; 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m dev.prose", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--markers", action="store_true", help="count the findings by folder")
    options = parser.parse_args(arguments)
    rules = Rules.read()
    pages = [page_of(path) for path in _files(options.paths)]
    if options.markers:
        print("\n".join(table(rules, pages)))
        return 0
    return report(Check(rules, pages))


def _files(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        return files_of(ROOT)
    return [file for path in paths for file in (files_below(path) if path.is_dir() else [path])]


def report(check: Check) -> int:
    """Print the findings and the unnecessary exceptions; 1 if there are any."""
    for finding in check.findings:
        print(finding)
    for excuse in check.needless:
        print(f"dev/words.toml: needless exception for {excuse.path}: {excuse.words}")
    return 1 if check.findings or check.needless else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
