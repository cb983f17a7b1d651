"""initmig as it was released, from the repository's history."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from dev.programs import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

FIRST: Final = "b446c56"
"""The commit of 0.1.0."""

# In the folder only: neither the code under test, as it is installed, nor the current folder.
_RUN = """
import sys
sys.path.insert(0, {folder!r})
import initmig.cli
assert initmig.__file__.startswith({folder!r}), initmig.__file__
sys.argv[0] = "initmig"
initmig.cli.run()
"""


def has_commit(commit: str) -> bool:
    """Whether the repository has *commit*: an export and a shallow clone have no history."""
    if shutil.which("git") is None:
        return False
    look = ["git", "cat-file", "-e", f"{commit}:initmig/cli.py"]
    return subprocess.run(look, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def lay_out(commit: str, folder: Path) -> Path:
    """The package initmig as of *commit*, put into *folder*; gives *folder*."""
    archive = ["git", "archive", commit, "initmig"]
    packed = subprocess.run(archive, cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder


def command_in(folder: Path) -> list[str]:
    """What runs the release that is laid out in *folder*, beside what else is installed."""
    return [sys.executable, "-P", "-c", _RUN.format(folder=str(folder))]
