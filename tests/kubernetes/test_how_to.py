"""The files of docs/how-to for Argo CD and Flux render to valid manifests."""

from __future__ import annotations

import re
import shutil
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from tests.support.docker import REPOSITORY
from tests.support.kubernetes import MANIFESTS, kubectl_out

if TYPE_CHECKING:
    from pathlib import Path

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
FENCE = re.compile(r"^( *)```yaml\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers: [{name: shop, image: shop}]
"""
VERSIONS = ("1.29.0", kubernetes_validate.latest_version())


def files_of(page: str) -> dict[str, str]:
    """The YAML files of a *page* of docs/how-to, by the path in their first line."""
    text = (REPOSITORY / "docs" / "how-to" / f"{page}.md").read_text()
    found = {}
    for _, code in FENCE.findall(text):
        first, _, rest = dedent(code).partition("\n")
        found[first.removeprefix("# ").partition(",")[0]] = rest
    return found


def put(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def copied(*names: str) -> dict[str, str]:
    """Files that the reader copies, as the pages describe."""
    return {name: (MANIFESTS / "job" / name).read_text() for name in names}


def by_kind(rendered: str) -> dict[str, Any]:
    """The manifests by kind. Raises ValidationError if one is not valid in some version."""
    manifests = list(yaml.safe_load_all(rendered))
    for manifest in manifests:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
    return {manifest["kind"]: manifest for manifest in manifests}


def images(manifest: dict[str, Any]) -> list[str]:
    spec = manifest["spec"]["template"]["spec"]
    return [one["image"] for one in (*spec.get("initContainers", ()), *spec["containers"])]


@needs_kubectl
def test_kustomization_for_argo_cd_makes_the_job_a_hook(tmp_path: Path) -> None:
    files = files_of("argo-cd") | copied("job.yaml", "wait.yaml") | {"deployment.yaml": DEPLOYMENT}
    found = by_kind(kubectl_out("kustomize", str(put(tmp_path, files))))
    assert found["Job"]["metadata"]["annotations"] == {
        "argocd.argoproj.io/hook": "PreSync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
    }
    assert images(found["Job"]) == ["app-migrations:42"]
    assert images(found["Deployment"]) == ["app-migrations:42", "shop"]


@needs_kubectl
def test_kustomizations_for_flux_keep_the_job_and_let_the_pods_wait(tmp_path: Path) -> None:
    files = files_of("flux")
    flux = list(yaml.safe_load_all(files.pop("flux.yaml")))
    copies = {f"migrate/{name}": text for name, text in copied("job.yaml").items()}
    copies |= {f"app/{name}": text for name, text in copied("wait.yaml").items()}
    put(tmp_path, files | copies | {"app/deployment.yaml": DEPLOYMENT})
    rendered = {
        one["metadata"]["name"]: by_kind(
            kubectl_out("kustomize", str(tmp_path / one["spec"]["path"]))
        )
        for one in flux
    }
    job, deployment = rendered["migrate"]["Job"], rendered["app"]["Deployment"]
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert images(job) == ["app-migrations:42"]
    assert images(deployment) == ["app-migrations:42", "shop"]
    assert flux[1]["spec"]["dependsOn"] == [{"name": "migrate"}]
