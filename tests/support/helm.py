"""Helm, through its command line, and the charts of this repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.docker import REPOSITORY
from tests.support.processes import Result

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kubernetes import Json

CHART = REPOSITORY / "charts" / "initmig"
EXAMPLE = REPOSITORY / "examples" / "helm"


def helm(*arguments: str | Path, values: Any = None, timeout: float = 180) -> Result:
    """Run `helm` with *values*, and return its result also if it fails."""
    given = [] if values is None else ["--values=-"]
    started = time.monotonic()
    done = subprocess.run(
        ["helm", *map(str, arguments), *given],
        input=json.dumps(values),
        capture_output=True,
        check=False,
        text=True,
        timeout=timeout,
    )
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def helm_out(*arguments: str | Path, values: Any = None, timeout: float = 180) -> str:
    """The output of `helm`. Raises AssertionError with its stderr when it fails."""
    done = helm(*arguments, values=values, timeout=timeout)
    assert done.code == 0, f"helm {' '.join(map(str, arguments))}\n{done.out}{done.err}"
    return done.out


def template(chart: Path, *arguments: str, values: Any = None) -> dict[str, Json]:
    """The manifests of the release `shop`, by kind and name."""
    rendered = helm_out("template", "shop", chart, *arguments, values=values)
    manifests = [one for one in yaml.safe_load_all(rendered) if one]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in manifests}


def copy_of_example(folder: Path) -> Path:
    """The example chart below *folder*, with the chart initmig as its dependency."""
    for chart in (CHART, EXAMPLE):
        target = folder / chart.relative_to(REPOSITORY)
        shutil.copytree(chart, target, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    example = folder / EXAMPLE.relative_to(REPOSITORY)
    helm_out("dependency", "build", example)
    return example
