"""Steps of migrations as they are read."""

from __future__ import annotations

from initmig.core.model import Step
from initmig.sql.lines import Lines


def step_of(path: str, data: bytes) -> Step:
    """The whole of an SQL file."""
    return Step(data, b"", place_at=Lines(path, data).numbers)
