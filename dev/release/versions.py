"""Whether every file that states the version of a release states the same one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dev.release.notes import NotesError, section_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCE: Final = "initmig/version.py"
CHANGELOG: Final = "CHANGELOG.md"
STATEMENTS: Final = {
    SOURCE: (r'__version__ = "(.*)"',),
    "Dockerfile": (r"ARG VERSION=(.*)",),
}
"""The lines that state the version, as patterns. Each must be there once."""
OF_A_CHART: Final = (r'version: *"?([^"\s]*)"?', r'appVersion: *"?([^"\s]*)"?')
IS_RELEASED: Final = re.compile(r"\d+\.\d+\.\d+")
"""Versions that PyPI, Helm and registries of images read in the same way."""


def version_of(text: str) -> str:
    """The version that *text* of SOURCE states; "" without one."""
    found = re.search(STATEMENTS[SOURCE][0], text)
    return found[1] if found else ""


def problems_of(files: Mapping[str, str], tag: str | None) -> list[str]:
    """Why *files*, by path, cannot be released as *tag*; without one, why they cannot be built."""
    version = version_of(files[SOURCE])
    return [
        *_problems_of_version(version),
        *_problems_of_statements(files, version),
        *_problems_of_changelog(files[CHANGELOG], version, tag),
        *_problems_of_tag(version, tag),
    ]


def _problems_of_version(version: str) -> Iterator[str]:
    if not IS_RELEASED.fullmatch(version):
        yield f"{SOURCE}: {version!r} is not a version such as 1.2.3"


def _problems_of_statements(files: Mapping[str, str], version: str) -> Iterator[str]:
    charts = {name: OF_A_CHART for name in files if name.endswith("/Chart.yaml")}
    for name, patterns in (STATEMENTS | charts).items():
        for pattern in patterns:
            stated = re.findall(f"^{pattern}$", files[name], re.MULTILINE)
            if stated != [version]:
                found = ", ".join(map(repr, stated)) or "nothing"
                yield f"{name}: {pattern!r} finds {found} instead of {version!r} once"


def _problems_of_changelog(changelog: str, version: str, tag: str | None) -> Iterator[str]:
    try:
        section_of(changelog, version)
    except NotesError as error:
        yield str(error)
    if tag and re.search(r"^## Unreleased$", changelog, re.MULTILINE):
        yield f'{CHANGELOG}: "## Unreleased" is still there. Rename it to "## {version}"'


def _problems_of_tag(version: str, tag: str | None) -> Iterator[str]:
    if tag and tag != f"v{version}":
        yield f"the tag {tag!r} is not 'v{version}', which {SOURCE} states"
