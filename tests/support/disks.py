"""A disk that can be full: a tmpfs of a few megabytes, unmounted at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class SmallDisk:
    """A tmpfs mounted at *path*."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, megabytes: int) -> None:
        """Change the size of the disk."""
        _run("mount", "-o", f"remount,size={megabytes}m", str(self.path))


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of *megabytes*. Skips the test if it cannot be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    if shutil.which("mount") is None or shutil.which("umount") is None:
        pytest.skip("needs mount and umount, of util-linux")
    path = Path(tempfile.mkdtemp(prefix="initmig-disk-"))
    try:
        options = f"size={megabytes}m,mode=0755"
        mounted = _attempt("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path))
        if mounted.returncode != 0:
            pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
        try:
            yield SmallDisk(path)
        finally:
            # Lazily: a process with an open file keeps the file, and the mount is still removed.
            _run("umount", "--lazy", str(path))
    finally:
        path.rmdir()


def _attempt(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, check=False, text=True)


def _run(*argv: str) -> None:
    done = _attempt(*argv)
    assert done.returncode == 0, done.stderr
