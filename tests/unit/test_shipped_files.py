"""The files that users copy or build from meet the requirements of strict platforms."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
WORKFLOWS = [
    path
    for folder in (REPOSITORY / ".github", REPOSITORY / "examples")
    for path in sorted(folder.rglob("*.y*ml"))
]
COMPOSE = [REPOSITORY / "compose.yaml"]
STACKS = sorted((REPOSITORY / "swarm").glob("*.yaml"))
PINNED_ACTION = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} +# v\d+\.\d+\.\d+")
BLOCK = re.compile(r"```ya?ml\n(.*?)```", re.DOTALL)


def test_every_action_is_pinned_by_commit_with_its_version_in_a_comment() -> None:
    texts = [path.read_text() for path in (*WORKFLOWS, *PAGES)]
    used = [
        line for text in texts for line in re.findall(r"^[ -]*uses: *(.+)$", text, re.MULTILINE)
    ]
    assert len(used) >= 2
    others = [line for line in used if not line.startswith("./")]  # this repository's workflows
    assert [line for line in others if not PINNED_ACTION.fullmatch(line)] == []


def test_base_image_is_pinned_by_its_digest() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    [default] = [line for line in lines if line.startswith("ARG BASE_IMAGE=")]
    assert re.fullmatch(r"ARG BASE_IMAGE=debian:trixie-slim@sha256:[0-9a-f]{64}", default)
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases == ["${BASE_IMAGE}", "scratch"]


def test_files_and_folders_of_k8s_that_a_command_or_a_kustomization_names_exist() -> None:
    text = "".join(path.read_text() for path in PAGES)
    named = set(re.findall(r"\.\./initmig/(k8s/[\w/.-]+)", text))
    assert len(named) > 4
    assert {name for name in named if not (REPOSITORY / name).exists()} == set()


# --- Compose and Swarm ---


def services(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return list(yaml.safe_load(path.read_text())["services"].items())


each_service = pytest.mark.parametrize(
    ("file", "name", "service"),
    [
        pytest.param(path.name, name, service, id=f"{path.name} {name}")
        for path in (*COMPOSE, *STACKS)
        for name, service in services(path)
    ],
)


@each_service
def test_service_has_limits_and_only_required_capabilities(
    file: str, name: str, service: dict[str, Any]
) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert {"memory", "pids"} <= limits.keys()
    # a migration that is throttled holds its locks for longer
    assert ("cpus" in limits) == (name not in {"migrate", "gate"})
    assert service["cap_drop"] == ["ALL"]
    if name == "db":
        assert set(service["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    else:
        assert "cap_add" not in service
        assert service["read_only"] is True
    # Swarm ignores security_opt, so it would only appear to protect the service
    expected = ["no-new-privileges:true"] if file == "compose.yaml" else None
    assert service.get("security_opt") == expected


@each_service
def test_service_reads_only_the_secrets_of_its_role_and_from_files(
    file: str, name: str, service: dict[str, Any]
) -> None:
    # PostgreSQL creates both roles, and `initmig exec` shares a container with the app
    both = name == "db" or file == "exec.yaml"
    roles = ["owner", "app"] if both else [{"migrate": "owner"}.get(name, "app")]
    mounted = [each["target"] if isinstance(each, dict) else each for each in service["secrets"]]
    assert mounted == [f"{role}_password" for role in roles]
    environment = service["environment"]
    assert [key for key in environment if "PASSWORD" in key and not key.endswith("_FILE")] == []
    if name != "db":
        read = {value for key, value in environment.items() if key.endswith("PASSWORD_FILE")}
        assert read == {f"/run/secrets/{role}_password" for role in roles}


# --- Kubernetes ---


def containers_in(value: Any) -> Iterator[dict[str, Any]]:
    """The containers of all pods in *value*, including those in text patches."""
    if isinstance(value, str) and "image:" in value:
        value = yaml.safe_load(value)
    if isinstance(value, dict):
        if {"name", "image"} <= value.keys():
            yield value
        for each in value.values():
            yield from containers_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from containers_in(each)


PODS = {
    **{f"docs of {page.name}": BLOCK.findall(page.read_text()) for page in PAGES},
    **{
        str(path.relative_to(REPOSITORY)): [path.read_text()]
        for folder in ("k8s", "examples")
        for path in sorted((REPOSITORY / folder).rglob("*.yaml"))
        if "templates" not in path.parts  # of a Helm chart: tests/kubernetes/test_helm.py
    },
}
CONTAINERS = [
    pytest.param(container, id=f"{name}: {container['name']}")
    for name, texts in PODS.items()
    for text in texts
    for document in yaml.safe_load_all(dedent(text))
    for container in containers_in(document)
]


def test_containers_are_found_in_the_manifests_and_in_the_docs() -> None:
    places = {str(each.id).partition(":")[0] for each in CONTAINERS}
    assert {"k8s/app/app.yaml", "k8s/component/init-container.yaml"} <= places
    assert {"k8s/sidecar/sidecar.yaml", "docs of kubernetes.md"} <= places


@pytest.mark.parametrize("container", CONTAINERS)
def test_container_is_restricted_and_has_requests_and_a_memory_limit(
    container: dict[str, Any],
) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert "privileged" not in context
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert not container["image"].endswith(":latest")
