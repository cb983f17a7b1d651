"""Decides whether a rollback has restored what it found, and says what it has not."""

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
"""The definition of each object of a schema, of one line or several, by its kind and name.

The text between ``\\x02`` and ``\\x03`` is the digest of a secret, which is never shown.
"""

_SECRET = re.compile("\x02(.*?)\x03")

State = Literal["ok", "irreversible", "not restored", "failed", "not reached"]


class Verdict(Record):
    """What was found out about one migration, or hook, or about the way all down and up again."""

    id: str
    state: State
    path: str = ""
    difference: tuple[str, ...] = ()
    """What the rollback has not restored, as `compare` says it."""
    problems: tuple[Problem, ...] = ()
    """Why it is not accepted; there is one at least where it is not."""


def compare(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """The lines that only *before* has, behind ``- ``, and those that only *after* has.

    Of what has several lines and differs in some, the others are shown, too. Sorted by name.
    Each secret is replaced by a number, and a changed secret gets a different one.
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
        if not line.startswith("?"):  # ndiff's marks below a line, for who looks closely
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
