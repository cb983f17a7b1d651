"""Steps of migrations, as initmig reads them from files."""

from __future__ import annotations

from initmig.core.model import Step
from initmig.sql.lines import Lines


def step_of(path: str, data: bytes) -> Step:
    """One step with the whole of an SQL file."""
    return Step(data, b"", place_at=Lines(path, data).numbers)
