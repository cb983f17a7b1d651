"""The checks for stdout, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.output import table
from initmig.visible import in_one_line, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.doctor.checks import Check


def checks_text(checks: Sequence[Check]) -> str:
    """One line for each check; below a line, where there is one, the next step."""
    cells = [(check.level, check.subject, check.found) for check in checks]
    lines = zip(checks, table(cells).splitlines(), strict=True)
    return "\n".join(line for check, told in lines for line in (told, *_next_step(check)))


def _next_step(check: Check) -> Iterator[str]:
    comment = "; ".join(filter(None, [check.by and f"as {check.by}", check.hint]))
    if check.statement:
        yield f"  next: {in_one_line(f'{check.statement}  -- {comment}')}"
    elif check.hint:
        yield f"  next: {in_one_line(check.hint)}"


def checks_json(checks: Iterable[Check]) -> str:
    """A JSON document with every check."""
    records = [{key: value or None for key, value in _shown(check)} for check in checks]
    return to_json({"checks": records}, indent=2)


def _shown(check: Check) -> Iterable[tuple[str, str]]:
    return [(name, value) for name, value in check._asdict().items() if name != "exit_code"]
