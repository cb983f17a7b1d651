"""Migration folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from initmig.core.model import Runnable

NO_CODE = cast("Runnable", None)
"""The code of a migration that a test only judges, and never runs."""


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write *files* (name to content) into *folder*, created if needed; return *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder
