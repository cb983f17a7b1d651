"""A released version of initmig, from the repository's history."""

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

# Only from the folder: neither the installed code under test, nor the current folder.
_RUN = """
import sys
sys.path.insert(0, {folder!r})
import initmig.cli
assert initmig.__file__.startswith({folder!r}), initmig.__file__
sys.argv[0] = "initmig"
initmig.cli.run()
"""


def has_commit(commit: str) -> bool:
    """Whether the repository has *commit*; an export and a shallow clone do not."""
    if shutil.which("git") is None:
        return False
    look = ["git", "cat-file", "-e", f"{commit}:initmig/cli.py"]
    return subprocess.run(look, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def lay_out(commit: str, folder: Path) -> Path:
    """Put the package initmig of *commit* into *folder*; return *folder*."""
    archive = ["git", "archive", commit, "initmig"]
    packed = subprocess.run(archive, cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder


def command_in(folder: Path) -> list[str]:
    """The command that runs the release in *folder*, without the installed version."""
    return [sys.executable, "-P", "-c", _RUN.format(folder=str(folder))]
