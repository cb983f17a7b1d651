"""The notes of a release: its section of CHANGELOG.md."""

from __future__ import annotations

import re
from typing import Final

CHANGELOG: Final = "CHANGELOG.md"
BEGINS_BLOCK: Final = re.compile(r" *([-*+] |\d+[.)] |[#>|]|```|$)")
ENDS_BLOCK: Final = re.compile(r" *([#|]|```|$)")
LINK: Final = re.compile(r"\]\((?!\w+:)([^)\s]*)\)")
"""The target of a link to another place of the repository."""


class NotesError(Exception):
    """The changelog has no notes for a version."""


def section_of(changelog: str, version: str) -> str:
    """The text below the heading of *version*; :raises NotesError: it is missing or empty."""
    found = re.findall(
        rf"^## {re.escape(version)}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if len(found) != 1:
        raise NotesError(f'{CHANGELOG}: {len(found)} headings "## {version}" instead of one')
    text = str(found[0]).strip()
    if not text:
        raise NotesError(f'{CHANGELOG}: the section "## {version}" is empty')
    return text


def notes_of(changelog: str, version: str, place: str) -> str:
    """The section of *version* for the page of a release; :raises NotesError: it is missing.

    GitHub shows each line break there, and its links have no folder to start from. *place* is the
    URL of the repository's files at the release's tag.
    """
    text = _in_long_lines(section_of(changelog, version))
    return LINK.sub(lambda link: f"]({_address(link[1], place)})", text) + "\n"


def _in_long_lines(text: str) -> str:
    """*text* with each paragraph in one line."""
    lines = [""]
    is_code = False
    for line in text.splitlines():
        if is_code or BEGINS_BLOCK.match(line) or ENDS_BLOCK.match(lines[-1]):
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
        is_code ^= line.lstrip().startswith("```")
    return "\n".join(lines[1:])


def _address(target: str, place: str) -> str:
    return f"{place}/{CHANGELOG}{target}" if target.startswith("#") else f"{place}/{target}"
