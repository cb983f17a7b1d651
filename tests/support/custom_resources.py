"""Manifests of custom resources, checked against the types of their projects."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from dev import npm
from dev.programs import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.support.kubernetes import Json

PACKAGES = {
    "Application": "@kubernetes-models/argo-cd",
    "Kustomization": "@kubernetes-models/flux-cd",
    "PodMonitor": "@kubernetes-models/prometheus-operator",
    "PrometheusRule": "@kubernetes-models/prometheus-operator",
    "Rollout": "@kubernetes-models/argo-rollouts",
}
PINS = REPOSITORY / "dev" / "kubernetes_types"
INSTALLED = REPOSITORY / ".venv" / "kubernetes_types"


def type_errors(manifests: Iterable[Json]) -> Mapping[int, list[str]]:
    """Unknown, missing and wrong fields, by the index of the manifest.

    Patterns and limits of values are not checked.
    """
    npm.install(PINS, INSTALLED)
    # The compiler finds the packages in a folder above the file.
    with tempfile.TemporaryDirectory(dir=INSTALLED) as folder:
        file = Path(folder) / "manifests.ts"
        file.write_text("".join(_line(number, each) for number, each in enumerate(manifests)))
        compiler = INSTALLED / "node_modules" / "typescript" / "bin" / "tsc"
        options = (
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--module",
            "nodenext",
            "--pretty",
            "false",
        )
        done = subprocess.run(
            ["node", str(compiler), *options, str(file)],
            check=False,
            capture_output=True,
            text=True,
        )
    found: dict[int, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        place, _, message = line.partition("): ")
        if message:
            found[int(place.partition("(")[2].partition(",")[0]) - 1].append(message)
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return found


def _line(number: int, manifest: Json) -> str:
    """One line of TypeScript: a literal whose fields must be those of the type."""
    kind = manifest["kind"]
    path = f"{PACKAGES[kind]}/{manifest['apiVersion']}/{kind}"
    return f"export const at{number}: import('{path}').I{kind} = {json.dumps(manifest)};\n"
