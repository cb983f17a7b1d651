"""Compares snapshots: decides whether a rollback restored the schema, and lists differences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import ndiff
from typing import TYPE_CHECKING, Literal

from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.core.errors import Problem

Snapshot = Mapping[str, str]
"""The definition of each object of a schema, in one or more lines, by its kind and name.

The text between ``\\x02`` and ``\\x03`` is the digest of a secret, which is never shown.
"""

_SECRET = re.compile("\x02(.*?)\x03")

State = Literal["ok", "irreversible", "not restored", "failed", "not reached"]


class Verdict(Record):
    """The result for one migration or hook, or for rolling back and applying all migrations."""

    id: str
    state: State
    path: str = ""
    difference: tuple[str, ...] = ()
    """The lines that the rollback did not restore, as `compare` returns them."""
    problems: tuple[Problem, ...] = ()
    """The reasons for rejecting it; empty if it is accepted."""


def compare(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """The lines that only *before* has, with ``- ``, and that only *after* has, with ``+ ``.

    If some lines of an object differ, its equal lines are included, too. Objects are sorted by
    name. A number replaces each secret, and a changed secret gets a different number.
    """
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    numbers: dict[str, int] = {}
    return tuple(
        line
        for name in names
        for line in _compare_one(_lines(name, before, numbers), _lines(name, after, numbers))
    )


def _compare_one(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    for line in ndiff(before, after):
        if not line.startswith("?"):  # ndiff marks the changed characters in such a line
            yield line.rstrip()


def _lines(name: str, snapshot: Snapshot, numbers: dict[str, int]) -> list[str]:
    if name not in snapshot:
        return []
    first, *others = _without_secrets(f"{name} {snapshot[name]}", numbers).splitlines()
    return [first, *(f"    {line}" for line in others)]


def _without_secrets(text: str, numbers: dict[str, int]) -> str:
    """The *text* with a number for each secret."""

    def number(secret: re.Match[str]) -> str:
        return f"(hidden {numbers.setdefault(secret[1], len(numbers) + 1)})"

    return _SECRET.sub(number, text)
