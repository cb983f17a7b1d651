"""Images in archives: their files, and the differences between two of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SBOM: Final = "opt/initmig/share/sbom/initmig.cdx.json"
LABEL: Final = "org.opencontainers.image"
DEFAULTS: Final = {
    **dict.fromkeys(
        ("Env", "Entrypoint", "Cmd", "Labels", "ExposedPorts", "Volumes", "StopSignal")
    ),
    "User": "",
    "WorkingDir": "/",
}
"""The fields of `config` in the specification of OCI. Some builders add others."""

Read = Callable[[str], bytes]
"""The content of a file in an archive, by its name."""


@dataclass(frozen=True)
class File:
    """A file, folder or link of an image."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    modified: int
    link: str
    content: bytes

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.content).hexdigest()
        return f"{self.kind!r} {self.mode:o} {self.owner} {self.modified} {self.link!r} {digest}"


Files = dict[str, File]


@dataclass(frozen=True)
class Image:
    """The image of one platform."""

    digest: str
    """The name of its manifest in a registry, "" after `docker save`."""
    config: Mapping[str, Any]
    layers: tuple[bytes, ...]
    """Tar files."""

    @property
    def platform(self) -> str:
        """Such as linux/amd64."""
        return f"{self.config['os']}/{self.config['architecture']}"

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels, by their full names."""
        labels: Mapping[str, str] = self.config["config"].get("Labels") or {}
        return labels

    @property
    def builder(self) -> str:
        """The name that the builder left in the history. Each packs layers differently."""
        comments = {str(step.get("comment", "")) for step in self.config["history"]}
        return max(comments)

    @cached_property
    def files(self) -> Files:
        """Every path of the root file system."""
        unpacked = [read_tar(layer) for layer in self.layers]
        return {path: file for layer in unpacked for path, file in layer.items() if path}


def differences(first: Image, second: Image) -> Iterator[str]:
    """How two images of the same source differ, apart from the time of the build."""
    for path in sorted(first.files.keys() | second.files.keys()):
        one, other = first.files.get(path), second.files.get(path)
        if one != other:
            yield f"/{path}: {one} and {other}"
    for key, default in DEFAULTS.items():
        values = [each.config["config"].get(key) or default for each in (first, second)]
        if values[0] != values[1]:
            yield f"{key}: {values[0]} and {values[1]}"
    if first.builder == second.builder and first.layers != second.layers:
        yield f"layers: {_digests(first)} and {_digests(second)}"


def _digests(image: Image) -> str:
    return ", ".join(hashlib.sha256(layer).hexdigest() for layer in image.layers)


def wrong_labels(image: Image, expected: Mapping[str, str]) -> Iterator[str]:
    """The labels of *image* that do not have the *expected* values."""
    for name, value in expected.items():
        if (found := image.labels.get(f"{LABEL}.{name}")) != value:
            yield f"the label {LABEL}.{name} of {image.platform} is {found!r} instead of {value!r}"


# --- archives ---


def read_docker_archive(path: Path) -> Image:
    """The image that `docker save` wrote to *path*."""
    with tarfile.open(path) as tar:
        read = _reader(tar)
        [manifest] = json.loads(read("manifest.json"))
        layers = tuple(_unpacked(read(name)) for name in manifest["Layers"])
        return Image("", json.loads(read(manifest["Config"])), layers)


def read_oci_archive(path: Path) -> tuple[str, list[Image]]:
    """The digest of the image that BuildKit wrote to *path*, and the image of each platform."""
    with tarfile.open(path) as tar:
        read = _reader(tar)
        [whole] = json.loads(read("index.json"))["manifests"]
        return whole["digest"], [*_images(whole["digest"], read)]


def _images(digest: str, read: Read) -> Iterator[Image]:
    """The images of a manifest, or of an index of manifests."""
    document = json.loads(read(_blob(digest)))
    if "manifests" in document:
        for each in document["manifests"]:
            yield from _images(each["digest"], read)
    else:
        config = json.loads(read(_blob(document["config"]["digest"])))
        layers = tuple(_unpacked(read(_blob(layer["digest"]))) for layer in document["layers"])
        yield Image(digest, config, layers)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _unpacked(layer: bytes) -> bytes:
    """A layer without compression, which not every engine uses."""
    return gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer


def _reader(tar: tarfile.TarFile) -> Read:
    def read(name: str) -> bytes:
        member = tar.extractfile(name)
        assert member is not None
        return member.read()

    return read


def read_tar(data: bytes) -> Files:
    """Every path of a tar file."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {str(PurePosixPath("/", member.name))[1:]: _file(tar, member) for member in tar}


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> File:
    opened = tar.extractfile(member) if member.isreg() else None
    owner = (member.uid, member.gid)
    content = opened.read() if opened else b""
    return File(member.type, member.mode, owner, int(member.mtime), member.linkname, content)
