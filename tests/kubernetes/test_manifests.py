"""The manifests of k8s/ are valid in the supported versions, and as restricted as possible."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from tests.support.docker import REPOSITORY
from tests.support.kubernetes import (
    MANIFESTS,
    RESTRICTED,
    Json,
    manifests_from,
    render,
    rendered,
    write_kustomization,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")

FOLDERS = (
    "app",
    "argo-cd/pre-sync",
    "argo-cd/waves",
    "base",
    "configmap",
    "flux/app",
    "flux/migrate",
    "job",
    "many",
    "sidecar",
)
WITHOUT_PODS = ("monitoring", "secrets")
COMPONENTS = ("component", "migrate", "networkpolicy", "wait")
OLDEST = "1.29.0"
NEWEST = kubernetes_validate.latest_version()
# Versions in between have all fields of the oldest, and no field that the newest lacks.
VERSIONS = (OLDEST, NEWEST)
APP_OF_A_USER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      initContainers: [{name: assets, image: assets}]
      containers: [{name: shop, image: shop}]
      volumes: [{name: cache, emptyDir: {}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache, labels: {initmig: "off"}}
spec:
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: cache, image: cache}]}
"""


def test_every_folder_of_manifests_is_tested() -> None:
    kinds = {
        str(path.parent.relative_to(MANIFESTS)): yaml.safe_load(path.read_text())["kind"]
        for path in MANIFESTS.rglob("kustomization.yaml")
    }
    others = dict.fromkeys((*FOLDERS, *WITHOUT_PODS), "Kustomization")
    assert kinds == dict.fromkeys(COMPONENTS, "Component") | others


@pytest.mark.parametrize("folder", [*FOLDERS, "secrets"])
def test_manifests_are_strictly_valid(folder: str) -> None:
    for version in VERSIONS:
        for manifest in rendered(folder):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_validation_is_strict_and_knows_new_fields() -> None:
    [deployment] = [one for one in rendered("sidecar") if one["kind"] == "Deployment"]
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolicy"):
        kubernetes_validate.validate(deployment, "1.27.0", strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_meet_the_restricted_pod_security_standard(folder: str) -> None:
    for spec in pod_specs(folder):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
        assert kinds <= {"secret", "configMap"}
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert context.get("runAsUser") in (None, 65532)
            assert not any("hostPort" in port for port in container.get("ports", ()))


def test_every_image_has_a_tag_other_than_latest() -> None:
    for folder in FOLDERS:
        for spec in pod_specs(folder):
            for container in containers(spec):
                _, _, tag = container["image"].partition(":")
                assert tag not in {"", "latest"}, container["image"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_containers_have_resources_and_termination_messages(folder: str) -> None:
    for spec in pod_specs(folder):
        for container in containers(spec):
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "app"])
def test_only_initmig_can_read_the_file_with_its_connection_string(folder: str) -> None:
    for spec in pod_specs(folder):
        secrets = {volume["name"] for volume in spec["volumes"] if "secret" in volume}
        for container in containers(spec):
            mounts = {mount["name"]: mount for mount in container.get("volumeMounts", ())}
            if container["name"] == "app":
                assert not mounts
                continue
            [secret] = mounts.keys() & secrets
            assert mounts[secret]["readOnly"] is True
            env = {one["name"]: one.get("value", "") for one in container["env"]}
            assert env["DATABASE_URL_FILE"].startswith(mounts[secret]["mountPath"] + "/")


def test_three_lines_add_initmig_to_a_deployment(tmp_path: Path) -> None:
    shop, cache = render_with_component(tmp_path)
    spec = shop["spec"]["template"]["spec"]
    assert [container["name"] for container in spec["initContainers"]] == ["initmig", "assets"]
    assert spec["initContainers"][0]["image"] == "shop-migrations:42"
    assert [container["name"] for container in spec["containers"]] == ["shop"]
    assert [volume["name"] for volume in spec["volumes"]] == ["database-owner", "cache"]
    assert "securityContext" not in spec
    assert "initContainers" not in cache["spec"]["template"]["spec"]


def test_init_container_of_the_component_is_restricted_in_any_pod(tmp_path: Path) -> None:
    shop, _ = render_with_component(tmp_path)
    kubernetes_validate.validate(shop, OLDEST, strict=True)
    assert shop["spec"]["template"]["spec"]["initContainers"][0]["securityContext"] == RESTRICTED


def test_patch_of_the_docs_puts_a_database_proxy_before_initmig(tmp_path: Path) -> None:
    docs = (REPOSITORY / "docs" / "how-to" / "kubernetes.md").read_text()
    [patches] = [block for block in docs.split("```") if block.startswith("yaml\npatches:")]
    shop, _ = render_with_component(tmp_path, **yaml.safe_load(patches.removeprefix("yaml\n")))
    spec = shop["spec"]["template"]["spec"]
    names = [container["name"] for container in spec["initContainers"]]
    assert names == ["cloud-sql-proxy", "initmig", "assets"]
    kubernetes_validate.validate(shop, OLDEST, strict=True)


@pytest.mark.parametrize(("folder", "give_up"), [("job", "FailJob"), ("many", "FailIndex")])
def test_job_fails_if_a_retry_cannot_help_and_ignores_drained_nodes(
    folder: str, give_up: str
) -> None:
    [job] = [manifest["spec"] for manifest in rendered(folder) if manifest["kind"] == "Job"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    rules = [
        (rule["action"], rule["onExitCodes"]["values"])
        if "onExitCodes" in rule
        else (rule["action"], rule["onPodConditions"][0]["type"])
        for rule in job["podFailurePolicy"]["rules"]
    ]
    assert rules == [
        (give_up, [1, 2, 4, 6]),
        ("Ignore", "DisruptionTarget"),
        ("Count", [3, 5, 7, 143]),
    ]


def test_index_is_defined_before_the_variable_that_uses_it() -> None:
    [spec] = pod_specs("many")
    names = [variable["name"] for variable in spec["containers"][0]["env"]]
    assert names[:2] == ["JOB_COMPLETION_INDEX", "DATABASE_URL_FILE"]


def test_every_completion_of_the_indexed_job_has_a_database() -> None:
    by_kind = {manifest["kind"]: manifest for manifest in rendered("many")}
    indexes = {str(number) for number in range(by_kind["Job"]["spec"]["completions"])}
    assert by_kind["Secret"]["stringData"].keys() == indexes


def test_app_starts_after_the_sidecar_has_migrated() -> None:
    [spec] = pod_specs("sidecar")
    [sidecar] = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    [port] = [port for port in sidecar["ports"] if port["name"] == "initmig"]
    env = {variable["name"]: variable["value"] for variable in sidecar["env"]}
    assert env["INITMIG_LISTEN"] == f":{port['containerPort']}"


# --- network policies ---


@pytest.mark.parametrize("folder", FOLDERS)
def test_policies_allow_only_dns_and_the_database(folder: str, tmp_path: Path) -> None:
    manifests = render_with_policies(folder, tmp_path)
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    for version in VERSIONS:
        for policy in policies:
            kubernetes_validate.validate(policy, version, strict=True)
    pods = [one["spec"]["template"] for one in manifests if "template" in one.get("spec", {})]
    assert pods
    for pod in pods:
        [policy] = [one for one in policies if selects(one, pod["metadata"]["labels"])]
        spec = policy["spec"]
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        assert all(rule["to"] for rule in spec["egress"])
        assert [ports_of(rule) for rule in spec["egress"]] == [
            {("UDP", 53), ("TCP", 53)},
            {("TCP", 5432)},
        ]
        served = {
            ("TCP", port["containerPort"])
            for container in containers(pod["spec"])
            for port in container.get("ports", ())
        }
        allowed = set().union(*(ports_of(rule) for rule in spec["ingress"]))
        assert served <= allowed <= {("TCP", 8080)}
        assert all(rule["from"] for rule in spec["ingress"])


def ports_of(rule: Json) -> set[tuple[str, int]]:
    return {(port["protocol"], port["port"]) for port in rule["ports"]}


def selects(policy: Json, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    return all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    ) and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", ())
    )


def render_with_policies(name: str, folder: Path) -> list[Json]:
    folder = folder / "restricted"
    write_kustomization(
        folder,
        resources=[manifests_from(folder, name)],
        components=[manifests_from(folder, "networkpolicy")],
    )
    return render(folder)


def render_with_component(folder: Path, **fields: Any) -> list[Json]:
    """The two Deployments of a user, in a kustomization with the component."""
    folder = folder / "shop"
    write_kustomization(
        folder,
        resources=["app.yaml"],
        components=[manifests_from(folder, "component")],
        images=[{"name": "initmig", "newName": "shop-migrations", "newTag": "42"}],
        **fields,
    )
    (folder / "app.yaml").write_text(APP_OF_A_USER)
    by_name = {manifest["metadata"]["name"]: manifest for manifest in render(folder)}
    return [by_name["app"], by_name["cache"]]


def pod_specs(folder: str) -> list[Json]:
    """The specs of all pods of a folder of k8s/. Raises AssertionError if it has no pod."""
    specs = [
        manifest["spec"]["template"]["spec"]
        for manifest in rendered(folder)
        if "template" in manifest.get("spec", {})
    ]
    assert specs
    return specs


def containers(spec: Json) -> Iterator[dict[str, Any]]:
    yield from spec.get("initContainers", ())
    yield from spec["containers"]
