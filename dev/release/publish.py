"""Publishes the image and the charts in a registry, and signs them with cosign."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dev.release.builds import output, run
from dev.release.images import SBOM, read_oci_archive

if TYPE_CHECKING:
    from dev.release.images import Image


class PublishError(Exception):
    """The registry has something else under this name."""


@dataclass(frozen=True)
class Registry:
    """Where to publish, and how to sign."""

    name: str
    """Its host, and the path of all images in it."""
    key: str | None = None
    """A file with cosign's private key. Without it, cosign signs as the workflow that runs it."""
    has_tls: bool = True

    def cosign(self, *arguments: str) -> None:
        """Run cosign."""
        key = [f"--key={self.key}", "--tlog-upload=false"] if self.key else []
        plain = [] if self.has_tls else ["--allow-http-registry"]
        output("cosign", *arguments[:1], "--yes", *key, *plain, *arguments[1:])

    def copy(self, source: str, target: str) -> None:
        """Copy an image with all its platforms and their digests."""
        tls = [f"--{side}-tls-verify={str(self.has_tls).lower()}" for side in ("src", "dest")]
        output("skopeo", "copy", "--all", "--preserve-digests", *tls, source, target)

    def push_chart(self, chart: Path, place: str) -> None:
        """Push a chart to *place*, below which Helm adds its name."""
        plain = [] if self.has_tls else ["--plain-http"]
        output("helm", "push", *plain, str(chart), f"oci://{place}")

    def manifest(self, reference: str) -> bytes:
        """The manifest that *reference* names; empty if the registry does not return one."""
        tls = f"--tls-verify={str(self.has_tls).lower()}"
        return run("skopeo", "inspect", "--raw", tls, f"docker://{reference}").stdout


def publish(folder: Path, version: str, registry: Registry) -> str:
    """Publish the image and charts in *folder*, and return the digest of the image.

    :raises PublishError: this version is published with other content.
    """
    digest = _publish_image(folder / "image.tar", version, registry)
    for chart in sorted(folder.glob("charts/*.tgz")):
        _publish_chart(chart, version, registry)
    return digest


def _publish_image(archive: Path, version: str, registry: Registry) -> str:
    """The tag is last, so that no one sees it without its signature and bills of materials."""
    digest, images = read_oci_archive(archive)
    name = f"{registry.name}/initmig"
    if published := registry.manifest(f"{name}:{version}"):
        _refuse_other(f"{name}:{version}", _digest(published), digest)
    registry.copy(f"oci-archive:{archive}", f"docker://{name}@{digest}")
    registry.cosign("sign", "--recursive", f"{name}@{digest}")
    for image in images:
        _attest(image, name, registry)
    registry.copy(f"docker://{name}@{digest}", f"docker://{name}:{version}")
    return digest


def _attest(image: Image, name: str, registry: Registry) -> None:
    with TemporaryDirectory() as folder:
        bill = Path(folder, "bill.json")
        bill.write_bytes(image.files[SBOM].content)
        attestation = ("--type=cyclonedx", f"--predicate={bill}")
        registry.cosign("attest", *attestation, f"{name}@{image.digest}")


def _publish_chart(chart: Path, version: str, registry: Registry) -> None:
    place = f"{registry.name}/charts"
    name = f"{place}/{chart.name.removesuffix(f'-{version}.tgz')}"
    if not registry.manifest(f"{name}:{version}"):
        registry.push_chart(chart, place)
    manifest = registry.manifest(f"{name}:{version}")
    [layer] = json.loads(manifest)["layers"]
    _refuse_other(f"{name}:{version}", layer["digest"], _digest(chart.read_bytes()))
    registry.cosign("sign", f"{name}@{_digest(manifest)}")


def _refuse_other(reference: str, published: str, built: str) -> None:
    if published != built:
        raise PublishError(
            f"{reference} is published as {published}, and this build is {built}. "
            "A published version does not change: release the next one"
        )


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"
