"""The verdicts as text and as JSON, for stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.visible import in_one_line, to_json, with_line_breaks
from initmig.reporting.tables import blocks
from initmig.reporting.terminal.layout import ID, WORDS, fitted
from initmig.reporting.terminal.screen import PLAIN, Styled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.verify.comparison import Verdict
    from initmig.commands.verify.verify import Verification
    from initmig.config.config import Config
    from initmig.reporting.terminal.screen import Line, Screen

_KINDS = (ID, WORDS)
_STYLES = {"ok": "green", "irreversible": "yellow", "not reached": "yellow"}
_DIFFERENCE_STYLES = {"-": "red", "+": "green"}


def show(verification: Verification, config: Config, screen: Screen) -> str:
    """*verification* as text, or as JSON."""
    if config.json:
        return verdicts_json(verification.verdicts)
    return verdicts_text(verification.verdicts, screen, baseline=config.from_baseline)


def verdicts_text(
    verdicts: Sequence[Verdict], screen: Screen = PLAIN, *, baseline: str = ""
) -> str:
    """One line for each verdict, followed by the lines that its rollback did not restore.

    *baseline* is the path of the dump that was loaded first, if any.
    """
    if not verdicts:
        return f"all migrations are in {in_one_line(baseline)}" if baseline else "no migrations"
    rows = [(_name(each), Styled(each.state, _STYLES.get(each.state, "red"))) for each in verdicts]
    return screen.text(
        line
        for verdict, row in zip(verdicts, blocks(rows, screen, _KINDS), strict=True)
        for line in (*row, *_difference(verdict, screen.width))
    )


def _difference(verdict: Verdict, width: int) -> Iterator[Line]:
    for each in verdict.difference:
        text = with_line_breaks(each)
        yield from fitted(["  ", Styled(text, _DIFFERENCE_STYLES.get(each[:1], ""))], width, 6)


def _name(verdict: Verdict) -> str:
    return verdict.id if verdict.path else "all, rolled back and applied again"


def verdicts_json(verdicts: Iterable[Verdict]) -> str:
    """A JSON document with every verdict. The verdict about all migrations has no path."""
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
