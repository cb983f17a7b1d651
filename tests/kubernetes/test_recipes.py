"""The recipes of k8s/ do what their pages say: the component for each kind, Argo CD, Flux."""

from __future__ import annotations

import copy
import itertools
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.custom_resources import PACKAGES, type_errors
from tests.support.kubernetes import (
    MANIFESTS,
    Json,
    manifests_from,
    render,
    rendered,
    write_kustomization,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")

API_VERSIONS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Rollout": "argoproj.io/v1alpha1",
}
ADDED = {"component": ("initmig", "database-owner"), "wait": ("wait", "database-app")}
"""The init container and the volume that a component adds."""
OWN_INIT = [{"name": "assets", "image": "assets", "env": [{"name": "A", "value": "1"}]}]
OWN_VOLUMES: list[Json] = [{"name": "cache", "emptyDir": {}}]
HOOK = "argocd.argoproj.io/hook"
WAVE = "argocd.argoproj.io/sync-wave"


@pytest.mark.parametrize("openapi", [None, {"path": "schema.json"}], ids=["", "own-schema"])
@pytest.mark.parametrize("component", ADDED)
def test_component_adds_one_container_and_one_volume_to_the_chosen_objects(
    component: str, openapi: Json | None, tmp_path: Path
) -> None:
    objects = {one["metadata"]["name"]: one for one in workloads()}
    found = render_with(component, objects.values(), tmp_path, openapi)
    assert found.keys() == objects.keys()
    container, volume = ADDED[component]
    chosen = set()
    for name, manifest in found.items():
        spec = manifest["spec"].get("template", {}).get("spec", {})
        if any(each["name"] == container for each in spec.get("initContainers", ())):
            chosen.add(name)
            # It is the first one, so it takes no name or volume of another container.
            assert spec["initContainers"].pop(0)["image"] == "app-migrations:42"
            assert spec["volumes"].pop(0)["name"] == volume
        assert without_empty_lists(manifest) == without_empty_lists(objects[name])
    assert chosen == {
        name
        for name, manifest in objects.items()
        if label_of(manifest) == "on"
        or (manifest["kind"] == "Deployment" and label_of(manifest) is None)
    }


# --- Argo CD ---


def test_waves_apply_the_secrets_then_run_the_job_then_update_the_app() -> None:
    manifests = rendered("argo-cd/waves")
    waves = {
        (one["kind"], one["metadata"]["name"]): int(annotations_of(one).get(WAVE, "0"))
        for one in manifests
    }
    assert waves == {
        ("Secret", "database-app"): -2,
        ("Secret", "database-owner"): -2,
        ("Job", "migrate"): -1,
        ("Deployment", "app"): 0,
    }
    hooks = {
        one["kind"]: annotations_of(one)[HOOK] for one in manifests if HOOK in annotations_of(one)
    }
    # Waves order only the objects of one phase. Without a hook, that is the phase Sync.
    assert hooks == {"Job": "Sync"}


def test_pre_sync_hook_needs_no_object_of_its_application() -> None:
    manifests = rendered("argo-cd/pre-sync")
    hooks = {one["kind"]: annotations_of(one).get(HOOK) for one in manifests}
    assert hooks == {"Job": "PreSync", "Deployment": None}


@pytest.mark.parametrize("folder", ["argo-cd/waves", "argo-cd/pre-sync", "flux/migrate"])
def test_job_of_a_recipe_is_deleted_only_by_its_tool(folder: str) -> None:
    [job] = [one for one in rendered(folder) if one["kind"] == "Job"]
    assert "ttlSecondsAfterFinished" not in job["spec"]
    policy = annotations_of(job).get("argocd.argoproj.io/hook-delete-policy")
    assert policy == ("BeforeHookCreation" if folder.startswith("argo-cd") else None)


# --- Flux ---


def test_flux_applies_the_secrets_then_the_job_then_the_app() -> None:
    objects = list(yaml.safe_load_all((MANIFESTS / "flux" / "flux.yaml").read_text()))
    kinds = [
        {one["kind"] for one in rendered(flux["spec"]["path"].removeprefix("./k8s/"))}
        for flux in objects
    ]
    assert kinds == [{"Secret"}, {"Job"}, {"Deployment"}]
    names = [flux["metadata"]["name"] for flux in objects]
    needed = [[one["name"] for one in flux["spec"].get("dependsOn", ())] for flux in objects]
    assert needed == [[], names[:1], names[1:2]]
    # With one source, Flux also compares the commits.
    assert len({str(flux["spec"]["sourceRef"]) for flux in objects}) == 1
    assert {"wait": True, "force": True}.items() <= objects[1]["spec"].items()


@pytest.mark.parametrize(
    "folders", [("argo-cd/waves",), ("argo-cd/pre-sync",), ("flux/migrate", "flux/app")]
)
def test_job_and_waiting_pods_have_the_same_image(folders: tuple[str, ...]) -> None:
    manifests = [one for folder in folders for one in rendered(folder)]
    specs = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] != "Secret"]
    found = {
        container["name"]: container["image"]
        for spec in specs
        for container in (*spec.get("initContainers", ()), *spec["containers"])
    }
    assert found.keys() == {"initmig", "wait", "app"}
    assert found["initmig"] == found["wait"]


# --- custom resources ---


def test_custom_resources_have_only_known_fields_and_types(tmp_path: Path) -> None:
    files = ("argo-cd/application.yaml", "flux/flux.yaml")
    texts = [(MANIFESTS / file).read_text() for file in files]
    objects = [one for text in texts for one in yaml.safe_load_all(text)]
    objects += [one for one in rendered("monitoring") if one["kind"] != "ConfigMap"]
    rollouts = [one for one in workloads() if one["kind"] == "Rollout"]
    for component in ADDED:
        objects += render_with(component, rollouts, tmp_path).values()
    assert {one["kind"] for one in objects} == {*PACKAGES}
    misspelled = copy.deepcopy(objects[1])
    assert misspelled["kind"] == "Kustomization"
    misspelled["spec"]["dependOn"] = [{"name": "secrets"}]
    errors = type_errors([*objects, misspelled])
    assert errors.keys() == {len(objects)}, errors
    assert "'\"dependOn\"' does not exist" in errors[len(objects)][0]


def workloads() -> Iterator[Json]:
    """Each kind, with each value of the label, with and without own init containers and volumes."""
    options = itertools.product(
        API_VERSIONS.items(), (None, "on", "off"), (False, True), (False, True)
    )
    for number, ((kind, version), label, has_init, has_volumes) in enumerate(options):
        name = f"{kind.lower()}-{number}"
        spec: Json = {"containers": [{"name": "app", "image": "app"}]}
        if has_init:
            spec["initContainers"] = copy.deepcopy(OWN_INIT)
        if has_volumes:
            spec["volumes"] = copy.deepcopy(OWN_VOLUMES)
        yield {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name} | ({"labels": {"initmig": label}} if label else {}),
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            },
        }
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "deployment-0"}
    yield {
        "apiVersion": API_VERSIONS["Rollout"],
        "kind": "Rollout",
        "metadata": {"name": "by-reference"},
        "spec": {"workloadRef": deployment, "strategy": {"canary": {"steps": []}}},
    }


def render_with(
    component: str, objects: Iterable[Json], folder: Path, openapi: Json | None = None
) -> dict[str, Json]:
    """The manifests by name, after the *component* of k8s/ and an image were added to *objects*.

    With *openapi*, kustomize has no schema for any kind.
    """
    folder = folder / component
    write_kustomization(
        folder,
        resources=["objects.yaml"],
        components=[manifests_from(folder, component)],
        images=[{"name": "initmig", "newName": "app-migrations", "newTag": "42"}],
        openapi=openapi,
    )
    (folder / "schema.json").write_text('{"definitions": {}}')
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    return {one["metadata"]["name"]: one for one in render(folder)}


def without_empty_lists(manifest: Json) -> Json:
    """A copy without the lists that were empty before something was added to them."""
    spec = manifest["spec"].get("template", {}).get("spec", {})
    pod = {key: value for key, value in spec.items() if value != []}
    if not pod:
        return manifest
    template = {**manifest["spec"]["template"], "spec": pod}
    return {**manifest, "spec": {**manifest["spec"], "template": template}}


def label_of(manifest: Json) -> str | None:
    label: str | None = manifest["metadata"].get("labels", {}).get("initmig")
    return label


def annotations_of(manifest: Json) -> dict[str, str]:
    found: dict[str, str] = manifest["metadata"].get("annotations", {})
    return found
