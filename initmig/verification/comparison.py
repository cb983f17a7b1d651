"""Decides whether a rollback has restored what it found, and says what it has not."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import ndiff
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.errors import Problem

Snapshot = Mapping[str, str]
"""The definition of each object of a schema, of one line or several, by its kind and name."""

State = Literal["ok", "irreversible", "not restored", "failed", "not reached"]


class Verdict(NamedTuple):
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
    """
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    return tuple(line for name in names for line in _compare_one(name, before, after))


def _compare_one(name: str, before: Snapshot, after: Snapshot) -> Iterator[str]:
    for line in ndiff(_lines(name, before), _lines(name, after)):
        if not line.startswith("?"):  # ndiff's marks below a line, for who looks closely
            yield line.rstrip()


def _lines(name: str, snapshot: Snapshot) -> list[str]:
    if name not in snapshot:
        return []
    first, *others = f"{name} {snapshot[name]}".splitlines()
    return [first, *(f"    {line}" for line in others)]
