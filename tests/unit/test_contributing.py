"""CONTRIBUTING.md names modules, functions and test files that exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGES = {path.parent.name for path in (ROOT / "initmig").glob("*/__init__.py")}
DOTTED = [
    name
    for name in dict.fromkeys(re.findall(r"`([a-z_]+(?:\.\w+)+)", PAGE))
    if name.partition(".")[0] in PACKAGES and not name.endswith(".py")
]
PATHS = [
    path
    for path in dict.fromkeys(re.findall(r"`([a-z_]+(?:/[\w.]+)+)", PAGE))
    if path.partition("/")[0] in PACKAGES
]


@pytest.mark.parametrize("name", DOTTED)
def test_dotted_name_exists(name: str) -> None:
    module, _, attribute = f"initmig.{name}".rpartition(".")
    try:
        import_module(f"{module}.{attribute}")
    except ModuleNotFoundError:
        assert hasattr(import_module(module), attribute)


@pytest.mark.parametrize("path", PATHS)
def test_path_in_the_package_exists(path: str) -> None:
    assert (ROOT / "initmig" / path).exists()


def test_every_package_is_in_the_table() -> None:
    table = PAGE.partition("## Packages")[2].partition("## How a run flows")[0]
    named = {
        name
        for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert named >= PACKAGES
    assert named - PACKAGES == {"api"}
