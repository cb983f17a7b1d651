"""Podman with a separate storage, as root or rootless."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.docker import docker_out
from tests.support.migrations import write
from tests.support.processes import Result
from tests.support.users import uid_without_passwd_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

# Also for machines without CAP_SYS_RESOURCE, and with cgroups of both versions.
_CONFIG = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""
_PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "newuidmap": "uidmap",
    "catatonit": "catatonit",
    "setpriv": "util-linux",
}

# Rootless Podman needs a name and subordinate ids. Only its processes see these files.
_AS_USER = """
for file in passwd group subuid subgid; do mount --bind "$1/etc/$file" "/etc/$file"; done
uid=$2
shift 2
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"
"""


def why_no_podman() -> str:
    """The reason why Podman cannot be used here; "" if it can."""
    if os.geteuid() != 0:
        return "only root can run a program as another user"
    missing = {package for program, package in _PROGRAMS.items() if not shutil.which(program)}
    return f"needs {', '.join(sorted(missing))}" if missing else ""


class Podman:
    """Podman, run by the user *uid* and with its storage in *folder*."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder = folder
        self.is_rootless = uid != 0
        self._uid = uid
        self._run = folder / "run"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(self._run),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }
        write(folder, {"containers.conf": _CONFIG})
        self._run.mkdir()
        for path in (folder, self._run):
            path.chmod(0o700)
            os.chown(path, uid, uid)
        if self.is_rootless:
            self._write_names()

    def __call__(self, *arguments: str | Path, timeout: float = 120) -> Result:
        """Run `podman`, and return its result also if it fails."""
        storage = (f"--root={self.folder}/storage", f"--runroot={self._run}/storage")
        command = ["podman", "--storage-driver=vfs", *storage, *map(str, arguments)]
        if self.is_rootless:
            names = ("rootless", str(self.folder), str(self._uid))
            command = ["unshare", "--mount", "sh", "-ec", _AS_USER, *names, *command]
        started = time.monotonic()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=self._environment,
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def out(self, *arguments: str | Path) -> str:
        """The output of `podman`. Raises AssertionError with its stderr when it fails."""
        done = self(*arguments)
        assert done.code == 0, f"podman {' '.join(map(str, arguments))}\n{done.out}{done.err}"
        return done.out.strip()

    def load(self, image: str) -> str:
        """Copy *image* from the Docker engine, and return its name in Podman."""
        archive = self.folder / "image.tar"
        docker_out("save", f"--output={archive}", image)
        os.chown(archive, self._uid, self._uid)
        self.out("load", "--quiet", f"--input={archive}")
        archive.unlink()
        return f"localhost/{image}" if ":" in image else f"localhost/{image}:latest"

    def remove_containers(self) -> None:
        """Stop and remove all pods and containers."""
        self.out("pod", "rm", "--all", "--force")
        self.out("rm", "--all", "--force")

    def clean_up(self) -> None:
        """Remove everything, and end the process that keeps the user's namespaces."""
        self.remove_containers()
        with suppress(FileNotFoundError, ProcessLookupError):
            pause = (self._run / "libpod" / "tmp" / "pause.pid").read_text()
            os.kill(int(pause), signal.SIGKILL)
        shutil.rmtree(self.folder)

    def _write_names(self) -> None:
        ids = f"tester:{self._uid + 100_000}:65536\n"
        write(
            self.folder / "etc",
            {
                "passwd": f"tester:x:{self._uid}:{self._uid}::{self.folder}:/bin/sh\n",
                "group": f"tester:x:{self._uid}:\n",
                "subuid": ids,
                "subgid": ids,
            },
        )


@contextmanager
def running_podman(*, rootless: bool) -> Iterator[Podman]:
    """Yield Podman with an empty storage."""
    # not in a folder of pytest, which other users cannot enter
    folder = Path(tempfile.mkdtemp(prefix="initmig-test-podman-"))
    podman = Podman(folder, uid_without_passwd_entry() if rootless else 0)
    try:
        yield podman
    finally:
        podman.clean_up()
