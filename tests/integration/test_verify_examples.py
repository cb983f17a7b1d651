"""The examples in examples/ci work, to the extent that this is testable without their platforms."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.support.command import Initmig

# `verify` uses an embedded PostgreSQL.
pytestmark = pytest.mark.any_version

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "examples" / "ci"
EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_command_of_the_workflow_succeeds_on_the_example_migrations(initmig: Initmig) -> None:
    workflow = parsed(EXAMPLES / ".github" / "workflows" / "migrations.yaml")
    steps = workflow["jobs"]["verify"]["steps"]
    assert [step["uses"].partition("@")[0] for step in steps[:2]] == [
        "actions/checkout",
        "actions/setup-python",
    ]
    install, verify = (shlex.split(step["run"]) for step in steps[2:])
    assert install == ["pip", "install", "initmig[verify] @ $INITMIG"]
    assert workflow["jobs"]["verify"]["env"]["INITMIG"].startswith("git+https://")
    assert "verify" in EXTRAS
    program, *arguments = verify
    assert program == "initmig"
    result = initmig(*arguments, cwd=PROJECT)
    assert result.code == 0, result.err


def test_hook_of_the_example_exists_and_its_command_succeeds(initmig: Initmig) -> None:
    [hook] = parsed(PROJECT / ".pre-commit-hooks.yaml")
    [repository] = parsed(EXAMPLES / ".pre-commit-config.yaml")["repos"]
    assert [each["id"] for each in repository["hooks"]] == [hook["id"]]
    assert hook["additional_dependencies"] == EXTRAS["verify"]
    assert re.search(hook["files"], "migrations/0001_users.sql")
    assert not re.search(hook["files"], "README.md")
    assert hook["entry"] == "initmig"
    assert not hook["pass_filenames"]
    result = initmig(*hook["args"], cwd=PROJECT)
    assert result.code == 0, result.err
