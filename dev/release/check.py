"""Builds each part of a release twice, and reports its problems."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dev.release.builds import (
    PLATFORMS,
    build_image,
    build_index,
    build_packages,
    docker_with_buildkit,
    read_commit,
    uncommitted,
)
from dev.release.images import SBOM, differences, read_oci_archive, wrong_labels
from dev.release.notes import notes_of
from dev.release.versions import problems_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dev.release.builds import Commit
    from dev.release.images import Image

STATING_THE_VERSION = ("initmig/version.py", "Dockerfile", "CHANGELOG.md", "charts/*/Chart.yaml")


class Refused(Exception):
    """Why this cannot be released, one problem in a line."""


def check(repository: Path, folder: Path, tag: str | None, source: str) -> None:
    """Build everything but the image of all platforms into *folder*; :raises Refused: why not.

    Without a *tag*, the changelog may have changes that are not released.
    """
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        commits = [read_commit(repository, Path(each), source) for each in (first, second)]
        _refuse([*_commit_problems(repository, commits[0], tag)])
        _refuse([*_package_problems(commits, folder)])
        changelog = Path(first, "CHANGELOG.md").read_text()
        version = commits[0].version
        notes = notes_of(changelog, version, f"{source}/blob/v{version}")
        (folder / "notes.md").write_text(notes)
        _refuse([*_image_problems(commits[0])])


def build_all_platforms(repository: Path, folder: Path, source: str) -> None:
    """Build the image of all platforms into *folder*, and write the checksums of the other files.

    :raises Refused: why it cannot be released.
    """
    archive = folder / "image.tar"
    with TemporaryDirectory() as exported:
        commit = read_commit(repository, Path(exported), source)
        build_index(commit, archive)
    _, images = read_oci_archive(archive)
    built = sorted(image.platform for image in images)
    _refuse([] if built == [*PLATFORMS] else [f"the image is for {built}, not for {PLATFORMS}"])
    _refuse([problem for image in images for problem in wrong_labels(image, commit.labels)])
    for image in images:
        name = f"initmig-{commit.version}-{image.platform.replace('/', '-')}.cdx.json"
        (folder / name).write_bytes(image.files[SBOM].content)
    write_checksums(folder)


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS of the files on the release's page, which has no folders."""
    patterns = ("python/*", "charts/*", "*.cdx.json")
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    lines = [f"{_digest(path)}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in *folder*, by its path there."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): _digest(path) for path in files}


def package_differences(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[str]:
    """The files that are not the same in two builds, from their checksums."""
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield f"{name} is not reproducible: {first.get(name)} and {second.get(name)}"


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Refused("\n".join(problems))


def _commit_problems(repository: Path, commit: Commit, tag: str | None) -> Iterator[str]:
    paths = [path for name in STATING_THE_VERSION for path in sorted(commit.folder.glob(name))]
    files = {str(path.relative_to(commit.folder)): path.read_text() for path in paths}
    yield from problems_of(files, tag)
    if tag and (changes := uncommitted(repository)):
        yield f"these changes are not committed, so they would not be released:\n{changes}"


def _package_problems(commits: list[Commit], folder: Path) -> Iterator[str]:
    shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory() as again:
        for commit, target in zip(commits, (folder, Path(again)), strict=True):
            build_packages(commit, target)
        yield from package_differences(checksums(folder), checksums(Path(again)))


def _image_problems(commit: Commit) -> Iterator[str]:
    first, second = _build_twice(commit)
    yield from wrong_labels(first, commit.labels)
    yield from (f"the image is not reproducible: {each}" for each in differences(first, second))


def _build_twice(commit: Commit) -> tuple[Image, Image]:
    """With the default builder and its cache, and with BuildKit and without a cache."""
    first = build_image(commit, ["docker"])
    second = build_image(commit, docker_with_buildkit(), "--no-cache")
    if first.files[SBOM] != second.files[SBOM]:  # Debian has changed since the first was cached
        first = build_image(commit, ["docker"], "--no-cache")
    return first, second
