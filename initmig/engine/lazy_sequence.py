"""A sequence that creates its items on access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class LazySequence(Sequence[_T]):
    """Calls *make* with one of *numbers* on each access. A file may have a million statements."""

    def __init__(self, make: Callable[[int], _T], numbers: range) -> None:
        self._make = make
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...
    def __getitem__(self, index: int | slice) -> _T | Sequence[_T]:
        if isinstance(index, slice):
            return LazySequence(self._make, self._numbers[index])
        return self._make(self._numbers[index])
