"""The files that are checked, and their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dev.prose.check import Page
from dev.prose.comments import texts_of_hash_comments
from dev.prose.markdown import texts_of_markdown, unreleased
from dev.prose.python import name_text, texts_of_python
from dev.prose.rules import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dev.prose.texts import Text

FOR_USERS = ("README.md", "CHANGELOG.md", "SECURITY.md", "swarm/deploy")
FOR_USERS_BELOW = ("docs/**/*.md", "charts/**/*.md", "examples/**/*.md", "initmig/**/*.py")
CODE_BELOW = (
    *("dev/**/*.py", "benchmarks/**/*.py", "tests/**/*.py", "image/*.py", "migrations/*.py"),
    *("charts/**/*.yaml", "examples/helm/**/*.yaml", "k8s/**/*.yaml", "swarm/*.yaml"),
    ".github/**/*.yaml",
)
CODE = (".ci/run", "Makefile", "compose.yaml")
STRINGS_ARE_DATA = ("benchmarks/", "dev/", "image/", "migrations/", "tests/")
"""Folders whose strings are not for users, and may contain any words."""


def page_of(path: Path) -> Page:
    """The file at *path*, by its name in the repository."""
    absolute = path.absolute()
    name = str(absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else path)
    return Page(name, _texts(path, name))


def _texts(path: Path, name: str) -> list[Text]:
    content = path.read_text()
    if path.suffix == ".py" or content.startswith("#!/usr/bin/env python3"):
        with_strings = not name.startswith(STRINGS_ARE_DATA)
        return [name_text(1, path.stem), *texts_of_python(content, with_strings=with_strings)]
    if path.suffix == ".md":
        return texts_of_markdown(unreleased(content) if path.name == "CHANGELOG.md" else content)
    return texts_of_hash_comments(content)


def pages_of(root: Path) -> list[Path]:
    """Every file of the repository at *root* that has text for users."""
    return [*(root / name for name in FOR_USERS), *_matching(root, FOR_USERS_BELOW)]


def files_of(root: Path) -> list[Path]:
    """Every file of the repository at *root* that is checked."""
    return [*pages_of(root), *(root / name for name in CODE), *_matching(root, CODE_BELOW)]


def files_below(folder: Path) -> list[Path]:
    """The files in *folder* that can be checked, at any depth."""
    return _matching(folder, ("**/*.md", "**/*.py", "**/*.yaml"))


def _matching(root: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]
