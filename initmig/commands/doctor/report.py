"""The checks as text and as JSON, for stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.visible import in_one_line, to_json
from initmig.reporting.tables import blocks
from initmig.reporting.terminal.cells import cells
from initmig.reporting.terminal.layout import FIXED, PROSE, WORDS, fitted
from initmig.reporting.terminal.screen import PLAIN, Styled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.commands.doctor.checks import Check
    from initmig.commands.doctor.doctor import Diagnosis
    from initmig.config.config import Config
    from initmig.reporting.terminal.screen import Line, Screen

_KINDS = (FIXED, WORDS, PROSE)
_STYLES = {"ok": "green", "warning": "yellow", "failure": "red"}
_LABEL = "  next: "


def show(diagnosis: Diagnosis, config: Config, screen: Screen) -> str:
    """*diagnosis* as text, or as JSON."""
    return checks_json(diagnosis.checks) if config.json else checks_text(diagnosis.checks, screen)


def checks_text(checks: Sequence[Check], screen: Screen = PLAIN) -> str:
    """One line for each check, or several if *screen* is narrow, followed by the next step."""
    rows = [
        (Styled(check.level, _STYLES[check.level]), check.subject, check.found) for check in checks
    ]
    return screen.text(
        line
        for check, row in zip(checks, blocks(rows, screen, _KINDS), strict=True)
        for line in (*row, *_next_step(check, screen.width))
    )


def _next_step(check: Check, width: int) -> Iterator[Line]:
    comment = in_one_line("; ".join(filter(None, [check.by and f"as {check.by}", check.hint])))
    label = Styled(_LABEL, "cyan")
    if not check.statement:
        if comment:
            yield from fitted([label, comment], width, len(_LABEL))
        return
    statement = in_one_line(check.statement)
    whole = [label, statement, Styled(f"  -- {comment}", "dim")]
    if not width or sum(map(cells, whole)) <= width:
        yield whole
        return
    # for copying: a line break must not split a quoted name, and each comment line needs its --
    quoted = [len(_LABEL) + each for each in _quoted_blanks(statement)]
    yield from fitted([label, statement], width, len(_LABEL), quoted)
    for part in fitted([comment], width - len(_LABEL) - len("-- ")):
        yield [" " * len(_LABEL), Styled(f"-- {''.join(part).lstrip()}", "dim")]


def _quoted_blanks(sql: str) -> Iterator[int]:
    """The positions of the blanks inside quotes in *sql*."""
    quote = ""
    for index, character in enumerate(sql):
        if character in "\"'" and quote in ("", character):
            quote = "" if quote else character
        elif character == " " and quote:
            yield index


def checks_json(checks: Iterable[Check]) -> str:
    """A JSON document with every check."""
    records = [{key: value or None for key, value in _shown(check)} for check in checks]
    return to_json({"checks": records}, indent=2)


def _shown(check: Check) -> Iterable[tuple[str, str]]:
    return [(name, value) for name, value in check._asdict().items() if name != "exit_code"]
