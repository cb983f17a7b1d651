"""Builds everything that a release consists of, from a commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from dev.release.images import read_docker_archive
from dev.release.versions import SOURCE as VERSION
from dev.release.versions import version_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dev.release.images import Image

PLATFORMS: Final = ("linux/amd64", "linux/arm64")


class BuildError(Exception):
    """A part of the release cannot be built; the message has the output of the program."""


@dataclass(frozen=True)
class Commit:
    """A commit to build, and a folder that contains only its files."""

    folder: Path
    version: str
    sha: str
    created: str
    """Its date in ISO format."""
    source: str
    """Where users find this repository."""

    @property
    def epoch(self) -> str:
        """The date of all files, in seconds: `SOURCE_DATE_EPOCH`, or that of the commit."""
        seconds = int(datetime.fromisoformat(self.created).timestamp())
        return os.environ.get("SOURCE_DATE_EPOCH", str(seconds))

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of programs that build."""
        return {**os.environ, "SOURCE_DATE_EPOCH": self.epoch}

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image that name this commit, without their prefix."""
        return {
            "version": self.version,
            "revision": self.sha,
            "created": self.created,
            "source": self.source,
        }

    @property
    def arguments(self) -> list[str]:
        """The options of `docker build`, and the folder."""
        given = {name.upper(): value for name, value in self.labels.items()}
        given["SOURCE_DATE_EPOCH"] = self.epoch
        if base := os.environ.get("BASE_IMAGE"):
            given["BASE_IMAGE"] = base
        return [*(f"--build-arg={name}={value}" for name, value in given.items()), str(self.folder)]


def read_commit(repository: Path, folder: Path, source: str) -> Commit:
    """The commit that is checked out in *repository*, with its files in *folder*."""
    with TemporaryDirectory() as temporary:
        archive = f"{temporary}/files.tar"
        git = ("git", "-c", "tar.umask=0022")
        output(*git, "archive", f"--output={archive}", "HEAD", cwd=repository)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    described = output("git", "log", "-1", "--format=%H %cI", cwd=repository)
    sha, created = described.split()
    version = version_of((folder / VERSION).read_text())
    return Commit(folder, version, sha, created, source)


def uncommitted(repository: Path) -> str:
    """The changes that are not in the commit, as `git status` shows them."""
    return output("git", "status", "--porcelain", cwd=repository)


def build_packages(commit: Commit, folder: Path) -> None:
    """Build the sdist and the wheel into *folder*/python, and the charts into *folder*/charts."""
    build = ("-m", "build", "--no-isolation", f"--outdir={folder / 'python'}")
    output(sys.executable, *build, cwd=commit.folder, environ=commit.environ)
    (folder / "charts").mkdir()
    for chart in sorted(commit.folder.glob("charts/*")):
        package = ("helm", "package", f"--destination={folder / 'charts'}", str(chart))
        output(*package, cwd=commit.folder, environ=commit.environ)


def build_image(commit: Commit, docker: Sequence[str], *options: str) -> Image:
    """Build the image of this platform with a *docker* command."""
    name = f"initmig-release:{os.getpid()}"
    with TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        build = ("build", "--quiet", "--pull=false", f"--tag={name}", *options)
        output(*docker, *build, *commit.arguments, environ=commit.environ)
        output("docker", "save", f"--output={archive}", name)
        output("docker", "rmi", "--no-prune", name)
        return read_docker_archive(archive)


def docker_with_buildkit() -> list[str]:
    """The first docker command that can use BuildKit, because some need a plugin for it."""
    with TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
        for path in os.get_exec_path():
            if client := shutil.which("docker", path=path):
                docker = ["env", "DOCKER_BUILDKIT=1", client]
                if run(*docker, "build", "--quiet", folder).returncode == 0:
                    return docker
    raise BuildError("no docker command here can use BuildKit: install its plugin buildx")


def build_index(commit: Commit, archive: Path) -> None:
    """Build the image of all platforms into *archive*, with the current builder of buildx."""
    options = (
        f"--platform={','.join(PLATFORMS)}",
        f"--output=type=oci,dest={archive},rewrite-timestamp=true",
        "--provenance=false",  # it has times, and the workflow attests it
    )
    output("docker", "buildx", "build", *options, *commit.arguments, environ=commit.environ)


def output(*command: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The stripped output of *command*; :raises BuildError: it fails, or is not installed."""
    done = run(*command, cwd=cwd, environ=environ)
    if done.returncode != 0:
        texts = (done.stdout + done.stderr).decode(errors="replace")
        raise BuildError(f"`{' '.join(command)}` failed:\n{texts}")
    return done.stdout.decode().strip()


def run(
    *command: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The result of *command*; :raises BuildError: it is not installed."""
    try:
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed, and a release needs it") from error
