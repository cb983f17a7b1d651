"""docs/how-to/podman.md, as root and rootless."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.docker import REPOSITORY
from tests.support.docker_images import built_image, migrations_folder
from tests.support.migrations import write
from tests.support.podman import Podman, running_podman, why_no_podman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.databases import Database

pytestmark = [
    pytest.mark.skipif(bool(why_no_podman()), reason=why_no_podman()),
    pytest.mark.any_version,
]
FILES = {"0001_users.sql": "CREATE TABLE users ();\n"}
IMAGE = "localhost/shop-migrations:42"
RESOURCES = """\
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {memory: 128Mi}
"""


@pytest.fixture(scope="module", params=["root", "rootless"])
def podman(
    request: pytest.FixtureRequest, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Podman]:
    """Podman with the image of the page."""
    folder = migrations_folder(tmp_path_factory.mktemp("image"), base=image, files=FILES)
    with running_podman(rootless=request.param == "rootless") as podman:
        with built_image(folder) as built:
            podman.out("tag", podman.load(built), IMAGE)
        yield podman


@pytest.fixture
def secret(podman: Podman, database: Database) -> Iterator[Path]:
    """The file with the connection string. The pods that read it are removed."""
    file = write(podman.folder, {"database-url": f"{database.url}\n"}) / "database-url"
    file.chmod(0o444)
    yield file
    podman.remove_containers()


def test_podman_run_applies_the_migrations(
    podman: Podman, secret: Path, database: Database
) -> None:
    command = command_of_the_page(secret)
    first, second = podman(*command), podman(*command)
    assert first.code == second.code == 0, first.err + second.err
    assert "applied 1 migration" in first.err
    assert "nothing to do: 1 migration, all applied" in second.err
    assert "users" in database.tables()


def test_application_of_a_pod_starts_after_the_migrations(
    podman: Podman, secret: Path, database: Database
) -> None:
    # The application needs the applied migration, and ends.
    podman.out("kube", "play", pod_of_the_page(secret, podman, args="[status, --check]"))
    assert podman.out("wait", "shop-shop") == "0"
    assert "users" in database.tables()


def test_application_of_a_pod_does_not_start_after_a_failed_migration(
    podman: Podman, secret: Path, database: Database
) -> None:
    database.execute("CREATE TABLE users ()")
    pod = pod_of_the_page(secret, podman, args="[status]")
    played = podman("kube", "play", pod)
    assert played.code != 0
    assert "exited with code 1" in played.err
    assert (
        '0001_users failed: relation "users" already exists' in podman("logs", "shop-initmig").err
    )
    assert podman.out("inspect", "--format={{.State.Status}}", "shop-shop") == "created"

    database.execute("DROP TABLE users")
    podman.out("kube", "play", "--replace", pod)
    assert podman.out("wait", "shop-shop") == "0"


def command_of_the_page(secret: Path) -> list[str]:
    [command] = re.findall(r"^\$ podman (run .*?)\n```$", page(), re.MULTILINE | re.DOTALL)
    words: list[str] = command.replace("\\\n", "").split()
    assert IMAGE in words
    return [word.replace("/srv/shop/database-url", str(secret)) for word in words]


def pod_of_the_page(secret: Path, podman: Podman, *, args: str) -> Path:
    """The file of the page; its application is initmig with *args*."""
    [pod] = re.findall(r"^```yaml\n(.*?)^```$", page(), re.MULTILINE | re.DOTALL)
    environment = "[{name: DATABASE_URL_FILE, value: /run/secrets/database/url}]"
    mounts = "[{name: database-url, mountPath: /run/secrets/database/url, readOnly: true}]"
    application = f"image: {IMAGE}\n      args: {args}\n      env: {environment}"
    changes = {
        "image: localhost/shop:42": f"{application}\n      volumeMounts: {mounts}",
        "/srv/shop/database-url": str(secret),
    }
    if podman.is_rootless:
        # Rootless, they need cgroups v2.
        changes |= {RESOURCES: ""}
    for old, new in changes.items():
        assert old in pod
        pod = pod.replace(old, new)
    return write(podman.folder, {"shop.yaml": pod}) / "shop.yaml"


def page() -> str:
    return (REPOSITORY / "docs" / "how-to" / "podman.md").read_text()
