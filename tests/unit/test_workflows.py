"""The workflows run targets of the Makefile, on every supported version, with few privileges.

`make check` has linters for the rest: check-jsonschema and zizmor.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.programs import WHEELS

ROOT = Path(__file__).parents[2]
WORKFLOWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / ".github/workflows").glob("*.yaml"))
}
JOBS = {
    f"{name} {key}": job for name, flow in WORKFLOWS.items() for key, job in flow["jobs"].items()
}
SCRIPTS = [step["run"] for job in JOBS.values() for step in job.get("steps", []) if "run" in step]


def test_scripts_use_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {name for each in SCRIPTS for name in re.findall(r"\bmake (?:--\S+ )*([a-z-]+)", each)}
    assert {"check", "test", "audit", "release-check", "release-image", "release-publish"} <= used
    assert used <= targets


def test_scripts_get_values_only_from_the_environment() -> None:
    assert [script for script in SCRIPTS if "${{" in script] == []


def test_tests_run_on_every_supported_version() -> None:
    matrix = JOBS["tests test"]["strategy"]["matrix"]["include"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    npm = json.loads((ROOT / "dev/package.json").read_text())["dependencies"]
    servers = WHEELS.keys() | {name.removeprefix("postgres-") for name in npm} - {"13"}
    assert {each["python"] for each in matrix} == {*pythons}
    assert {each["postgres"] for each in matrix} == servers


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_has_no_privileges_that_a_job_does_not_ask_for(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    assert "concurrency" in WORKFLOWS[name]


@pytest.mark.parametrize("name", JOBS)
def test_job_names_its_privileges_and_ends(name: str) -> None:
    job = JOBS[name]
    assert job["permissions"]
    assert "uses" in job or job["timeout-minutes"] <= 60


def test_only_jobs_that_publish_can_write_and_they_install_nothing() -> None:
    writers = {name for name, job in JOBS.items() if "write" in job["permissions"].values()}
    assert writers == {"release registry", "release python", "release page"}
    scripts = [step.get("run", "") for name in writers for step in JOBS[name]["steps"]]
    installing = re.compile(r"\b(pip|npm|apt-get|docker build|make (?!--silent release-publish))")
    assert [script for script in scripts if installing.search(script)] == []
