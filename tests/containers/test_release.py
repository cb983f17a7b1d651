"""A published release can be verified, and a changed one cannot: with real cosign and registry.

The command of the release workflow publishes here, with a local key instead of a workflow's
identity, and over HTTP. The registry is in a container without a network.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from dev.release.images import SBOM, read_docker_archive, read_oci_archive
from initmig.version import __version__
from tests.support.docker import BASE_IMAGE, REPOSITORY, Containers, docker, docker_out, unique
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dev.release.images import Image
    from tests.support.processes import Result

HOST = "127.0.0.1:5000"
PLACE = f"{HOST}/team"
IMAGE = f"{PLACE}/initmig"
CHART = f"{PLACE}/charts/initmig"
VERIFY = ("--key=/own.pub", "--insecure-ignore-tlog", "--allow-http-registry")
OTHER_KEY = ("--key=/other.pub", *VERIFY[1:])


class OciLayout:
    """An image in the format that BuildKit writes."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, kind: str, content: bytes) -> dict[str, Any]:
        """Add a blob, and return its descriptor."""
        digest = sha256(content).hexdigest()
        self.blobs[f"blobs/sha256/{digest}"] = content
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return self.add(kind, json.dumps(document).encode())

    def write(self, whole: Mapping[str, Any], archive: Path) -> None:
        """Write the image that *whole* describes."""
        index = json.dumps({"schemaVersion": 2, "manifests": [whole]})
        files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index.encode()}
        archive.parent.mkdir(exist_ok=True)
        with tarfile.open(archive, "w") as tar:
            for name, content in (files | self.blobs).items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_two_platforms(image: Image, archive: Path, *, changed: bool = False) -> None:
    """Write *image*, and a copy of it that claims to be of arm64."""
    layout = OciLayout()
    layers = [
        layout.add("layer.v1.tar+gzip", gzip.compress(layer, compresslevel=1, mtime=0))
        for layer in image.layers
    ]
    manifests = []
    for architecture in ("amd64", "arm64"):
        config = {**image.config, "architecture": architecture, "author": "other" * changed}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layout.add_json("config.v1+json", config),
            "layers": layers,
        }
        platform = {"os": "linux", "architecture": architecture}
        described = layout.add_json("manifest.v1+json", manifest)
        manifests.append({**described, "platform": platform})
    media_type = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    layout.write(layout.add_json("index.v1+json", index), archive)


@dataclass(frozen=True)
class Release:
    """A folder with a release, in a container with a registry."""

    container: str
    folder: Path

    def run(self, *command: str, **env: str) -> Result:
        """Run a command in the container."""
        variables = [f"--env={name}={value}" for name, value in env.items()]
        return docker("exec", "--workdir=/src", *variables, self.container, *command)

    def publish(self, folder: str = "/release") -> Result:
        """Run the command of the release workflow, with a local key."""
        command = ("python3", "-m", "dev.release", "publish", "--plain-http", "--key=/own.key")
        return self.run(*command, f"--folder={folder}", REGISTRY=PLACE, COSIGN_PASSWORD="")

    def answers(self) -> bool:
        """Whether the registry accepts requests."""
        request = f"import urllib.request; urllib.request.urlopen('http://{HOST}/v2/')"
        return self.run("python3", "-c", request).code == 0

    def cosign(self, *command: str) -> Result:
        return self.run("cosign", *command, COSIGN_PASSWORD="")

    def digest(self, reference: str) -> str:
        """The digest that a tag names."""
        command = ("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
        raw = self.run(*command)
        assert raw.code == 0, raw.err
        return f"sha256:{sha256(raw.out.encode()).hexdigest()}"


@pytest.fixture
def helm() -> str:
    found = shutil.which("helm")
    return found or pytest.skip("needs helm")


@pytest.fixture
def saved(image: str, tmp_path: Path) -> Image:
    archive = tmp_path / "saved.tar"
    docker_out("save", f"--output={archive}", image)
    return read_docker_archive(archive)


def write_chart(helm: str, folder: Path, *, changed: bool = False) -> None:
    """Write this repository's chart into *folder*/charts, packed."""
    chart = shutil.copytree(REPOSITORY / "charts/initmig", folder / "chart")
    write(chart, {"templates/other.yaml": "# changed"} if changed else {})
    package = [helm, "package", str(chart), f"--destination={folder / 'charts'}"]
    subprocess.run(package, check=True, capture_output=True)


@pytest.fixture
def release(saved: Image, helm: str, tmp_path: Path) -> Iterator[Release]:
    """A release that is published."""
    folder = tmp_path / "release"
    folder.mkdir()
    write_two_platforms(saved, folder / "image.tar")
    write_chart(helm, folder)
    name = unique("registry")
    base = f"--build-arg=BASE_IMAGE={BASE_IMAGE}"
    registry = REPOSITORY / "tests/containers/registry"
    docker_out("build", "--pull=false", base, f"--tag={name}", registry, timeout=600)
    containers = Containers()
    try:
        volumes = [f"{REPOSITORY}:/src:ro", f"{helm}:/usr/bin/helm:ro", f"{folder}:/release:ro"]
        options = ["--network=none", *(f"--volume={volume}" for volume in volumes)]
        serve = ("docker-registry", "serve", "/config.yml")
        running = Release(containers.start(name, *serve, options=options), folder)
        for key in ("own", "other"):
            made = running.cosign("generate-key-pair", f"--output-key-prefix=/{key}")
            assert made.code == 0, made.err
        wait_until(running.answers, 60)
        published = running.publish()
        assert published.code == 0, published.err
        yield running
    finally:
        containers.clean_up()
        docker("image", "rm", "--force", name)


def test_published_release_can_be_verified_and_not_replaced(
    release: Release, saved: Image, helm: str
) -> None:
    assert_signatures_are_verified(release)
    assert_bills_of_materials_are_attested(release, saved)
    assert_publishing_again_changes_nothing(release)
    assert_version_cannot_be_replaced(release, saved, helm)
    assert_changed_image_is_not_verified(release, saved)


def assert_signatures_are_verified(release: Release) -> None:
    """The image, each platform and the chart have one."""
    digest, images = read_oci_archive(release.folder / "image.tar")
    assert release.digest(f"{IMAGE}:{__version__}") == digest
    assert [each.platform for each in images] == ["linux/amd64", "linux/arm64"]
    signed = [f"{IMAGE}:{__version__}", *(f"{IMAGE}@{each.digest}" for each in images)]
    for reference in (*signed, f"{CHART}:{__version__}"):
        verified = release.cosign("verify", *VERIFY, reference)
        assert verified.code == 0, verified.err
        [claim] = json.loads(verified.out)
        assert claim["critical"]["image"]["docker-manifest-digest"] == release.digest(reference)
        assert "invalid signature" in release.cosign("verify", *OTHER_KEY, reference).err


def assert_bills_of_materials_are_attested(release: Release, saved: Image) -> None:
    """To each platform."""
    _, images = read_oci_archive(release.folder / "image.tar")
    for image in images:
        reference = f"{IMAGE}@{image.digest}"
        command = ("verify-attestation", "--type=cyclonedx")
        verified = release.cosign(*command, *VERIFY, reference)
        assert verified.code == 0, verified.err
        statement = json.loads(base64.b64decode(json.loads(verified.out)["payload"]))
        assert statement["predicate"] == json.loads(saved.files[SBOM].content)
        [subject] = statement["subject"]
        assert f"sha256:{subject['digest']['sha256']}" == image.digest
        assert release.cosign(*command, *OTHER_KEY, reference).code != 0


def assert_publishing_again_changes_nothing(release: Release) -> None:
    names = (f"{IMAGE}:{__version__}", f"{CHART}:{__version__}")
    before = [release.digest(name) for name in names]
    again = release.publish()
    assert again.code == 0, again.err
    assert again.out.strip() == before[0]
    assert [release.digest(name) for name in names] == before


def assert_version_cannot_be_replaced(release: Release, saved: Image, helm: str) -> None:
    """Neither its image nor its chart."""
    write_two_platforms(saved, release.folder / "image/image.tar", changed=True)
    refused = release.publish("/release/image")
    assert refused.code == 1
    assert refused.err.startswith(f"{IMAGE}:{__version__} is published as sha256:")

    write_chart(helm, release.folder / "chart", changed=True)
    shutil.copy(release.folder / "image.tar", release.folder / "chart")
    refused = release.publish("/release/chart")
    assert refused.code == 1
    assert refused.err.startswith(f"{CHART}:{__version__} is published as sha256:")


def assert_changed_image_is_not_verified(release: Release, saved: Image) -> None:
    """That someone has put into the place of a signed one."""
    copy = ("skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false")
    moved = f"{IMAGE}:moved"
    assert release.run(*copy, f"docker://{IMAGE}:{__version__}", f"docker://{moved}").code == 0
    assert release.cosign("verify", *VERIFY, moved).code == 0
    write_two_platforms(saved, release.folder / "other.tar", changed=True)
    assert release.run(*copy, "oci-archive:/release/other.tar", f"docker://{moved}").code == 0
    refused = release.cosign("verify", *VERIFY, moved)
    assert refused.code != 0
    assert "no signatures found" in refused.err
