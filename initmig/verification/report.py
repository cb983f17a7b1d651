"""The verdicts for stdout, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.output import table
from initmig.visible import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from initmig.verification.comparison import Verdict


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """One line for each verdict, and below it what the rollback has not restored."""
    if not verdicts:
        return "no migrations"
    lines = table([(_name(verdict), verdict.state) for verdict in verdicts]).splitlines()
    return "\n".join(
        "\n".join([line, *(f"  {each}" for each in verdict.difference)])
        for line, verdict in zip(lines, verdicts, strict=True)
    )


def _name(verdict: Verdict) -> str:
    return verdict.id if verdict.path else "all, rolled back and applied again"


def verdicts_json(verdicts: Iterable[Verdict]) -> str:
    """A JSON document with every verdict; the one about all of them has no path."""
    records = [
        {
            "id": verdict.id,
            "state": verdict.state,
            "path": verdict.path or None,
            "difference": verdict.difference,
            "problems": [problem.message for problem in verdict.problems],
        }
        for verdict in verdicts
    ]
    return to_json({"verdicts": records}, indent=2)
