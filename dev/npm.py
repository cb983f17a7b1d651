"""Packages from npm, which only tests need."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from dev.locks import one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES: Final = ("package.json", "package-lock.json")


class NpmError(Exception):
    """npm is missing, or it failed."""


def install(pins: Path, folder: Path, *, complete: Callable[[Path], None] | None = None) -> None:
    """Install package-lock.json of the folder *pins* into *folder*, unless that is already done.

    *complete* is called with node_modules after each installation. Raises NpmError.
    """
    digest = hashlib.sha256(b"\0".join((pins / name).read_bytes() for name in FILES)).hexdigest()
    with one_at_a_time(folder):
        note = folder / "made-from"
        if note.exists() and note.read_text() == digest:
            return
        note.unlink(missing_ok=True)
        for name in FILES:
            shutil.copy(pins / name, folder)
        _run_npm(folder)
        if complete:
            complete(folder / "node_modules")
        note.write_text(digest)


def _run_npm(folder: Path) -> None:
    # No script of a package is run.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NpmError("npm is missing: apt-get install npm") from error
    if done.returncode != 0:
        raise NpmError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
