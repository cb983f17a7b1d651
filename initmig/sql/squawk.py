"""The findings of squawk on migrations in SQL, if it is installed: https://squawkhq.com."""

from __future__ import annotations

import subprocess
from json import JSONDecodeError, loads
from shutil import which
from typing import TYPE_CHECKING

from initmig.core.events import SquawkFailed
from initmig.sql.lock_forecast import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.core.events import Emit

_NOT_HERE = (
    # initmig sets both timeouts, and rolls back a file that fails
    *("require-lock-timeout", "require-statement-timeout", "prefer-robust-stmts"),
    # initmig's own rules report these
    *("adding-foreign-key-constraint", "ban-drop-column", "ban-drop-table"),
    *("changing-column-type", "constraint-missing-not-valid", "disallowed-unique-constraint"),
    *("renaming-column", "renaming-table", "require-concurrent-index-creation"),
    *("require-concurrent-index-deletion", "adding-not-nullable-field"),
)
_TIMEOUT_SECONDS = 60.0


def ask_squawk(paths: Sequence[str], emit: Emit) -> tuple[Finding, ...]:
    """Its findings on the files *paths*; empty if it is not on PATH."""
    program = which("squawk")
    if not (program and paths):
        return ()
    command = [program, "--reporter=json", f"--exclude={','.join(_NOT_HERE)}", *paths]
    try:
        result = subprocess.run(  # noqa: PLW1510 - with findings it exits 1
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
        return tuple(
            Finding(
                each["file"],
                each["line"] + 1,
                each["column"] + 1,
                _one_line(each["message"], each["help"], f"(squawk: {each['rule_name']})"),
            )
            for each in loads(result.stdout or "[]")
        )
    except (OSError, subprocess.TimeoutExpired, JSONDecodeError, KeyError, TypeError) as error:
        emit(SquawkFailed(f"{type(error).__name__}: {error}"))
        return ()


def _one_line(*texts: str | None) -> str:
    return " ".join(word for text in texts if text for word in text.split())
