"""The results that commands return."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, Protocol, TypeAlias

    from initmig.core.errors import InitmigError
    from initmig.core.events import Event

    Outcome: TypeAlias = Literal[
        "applied",
        "applied elsewhere",  # another migrator did it while this one waited
        "nothing pending",
        "rolled back",
        "nothing to roll back",
        "recorded as applied",
        "unlocked",
        "not locked",
        "database answered",
        "created",
        "stopped serving",
    ]

    class AnyResult(Protocol):
        """The attributes that the results of all commands share."""

        @property
        def outcome(self) -> str:
            """The outcome, in a word or two."""

        @property
        def ids(self) -> tuple[str, ...]:
            """The migrations that the command applied, rolled back, showed or checked."""

        @property
        def seconds(self) -> float:
            """How long the command took, including all waits."""

        @property
        def summary(self) -> Event | None:
            """The event that reports the outcome; None if the shown result reports it."""

        @property
        def failure(self) -> InitmigError | None:
            """The error to raise once the result is shown."""


class Result(Record):
    """The outcome of a command. As a sequence, it is the sequence of its ids."""

    outcome: Outcome
    ids: tuple[str, ...] = ()
    """The migrations that this call applied, rolled back or recorded, in the order done."""
    seconds: float = 0.0
    """How long the command took, including all waits."""
    summary: Event | None = None
    """The event that reported the outcome: the last line of the log, the termination message."""
    failure: InitmigError | None = None
    """Always None: these commands raise their errors."""

    def __iter__(self) -> Iterator[str]:  # type: ignore[override] # a Record is a tuple only for speed
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: object) -> bool:
        return id in self.ids


class Committed:
    """The ids that a run has committed so far, over all the connections that it needed.

    An error that ends the run gets them as ``committed``.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in the order committed."""
        return tuple(self._ids)

    def __call__(self, id: str) -> None:
        """Record that the migration *id* is committed."""
        self._ids.append(id)
