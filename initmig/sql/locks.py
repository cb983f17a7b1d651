"""PostgreSQL's table of conflicting lock modes.

https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# From the weakest on, as PostgreSQL numbers them, each with the modes that it conflicts with.
_CONFLICTS = {
    "ACCESS SHARE": {"ACCESS EXCLUSIVE"},
    "ROW SHARE": {"EXCLUSIVE", "ACCESS EXCLUSIVE"},
    "ROW EXCLUSIVE": {"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"},
    "SHARE UPDATE EXCLUSIVE": {
        *("SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE"),
        "ACCESS EXCLUSIVE",
    },
    "SHARE": {
        *("ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE"),
        "ACCESS EXCLUSIVE",
    },
    "SHARE ROW EXCLUSIVE": {
        *("ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE"),
        "ACCESS EXCLUSIVE",
    },
    "EXCLUSIVE": {
        *("ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE"),
        *("EXCLUSIVE", "ACCESS EXCLUSIVE"),
    },
    "ACCESS EXCLUSIVE": {
        *("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE"),
        *("SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"),
    },
}
LOCK_MODES = tuple(_CONFLICTS)
"""From weakest to strongest, as in SQL."""

READS_AND_WRITES, WRITES, DDL_ALONE = "reads and writes", "writes", "DDL alone"

_READING, _WRITING = "ACCESS SHARE", "ROW EXCLUSIVE"


def blocked_by(mode: str) -> str:
    """The commands of other sessions that wait while a table is locked in *mode*, if any."""
    if not mode:
        return ""
    conflicts = _CONFLICTS[mode]
    if _READING in conflicts:
        return READS_AND_WRITES
    return WRITES if _WRITING in conflicts else DDL_ALONE


def in_words(blocked: str) -> str:
    """The result of `blocked_by` as words in a message."""
    return "DDL only" if blocked == DDL_ALONE else blocked


def strongest(modes: Iterable[str]) -> str:
    """The strongest of *modes*; empty without modes."""
    return max(modes, key=("", *LOCK_MODES).index, default="")
