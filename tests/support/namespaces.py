"""Commands in their own namespaces: as process 1, or with another name server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def as_process_1() -> list[str]:
    """The command to put before another command, so that it runs as process 1 of a namespace."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, and unshare of util-linux")
    prefix = ["unshare", "--fork", "--pid", "--kill-child"]
    probe = subprocess.run([*prefix, "sh", "-c", "echo $$"], capture_output=True, check=False)
    if probe.stdout.strip() != b"1":
        pytest.skip("this kernel or container allows no new process namespace")
    return prefix


@contextmanager
def silent_name_server(folder: Path) -> Iterator[list[str]]:
    """The command to put before another command, so that its only name server never answers."""
    conf = folder / "resolv.conf"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((f"127.99.{os.getpid() % 250}.1", 53))
        conf.write_text(f"nameserver {server.getsockname()[0]}\n")
        yield in_place_of("/etc/resolv.conf", conf)


def in_place_of(path: str, file: Path) -> list[str]:
    """The command to put before another command, so that it sees *file* instead of *path*."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, and unshare of util-linux")
    prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind "$0" {path} && exec "$@"', str(file)]
    if subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("this kernel or container allows no new mount namespace")
    return prefix
