"""The steps of a migration in Python, inside yoyo's wrappers and groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yoyo.migrations import StepGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initmig.core.model import Direction

_IGNORED: dict[str | None, frozenset[Direction]] = {
    None: frozenset(),
    "apply": frozenset({"apply"}),
    "rollback": frozenset({"rollback"}),
    "all": frozenset({"apply", "rollback"}),
}
"""The directions whose errors are ignored, by yoyo's ``ignore_errors``."""


def flattened(steps: Iterable[Any]) -> Iterator[Any]:
    """*steps* with groups replaced by their steps, unless the group as a whole ignores errors."""
    for wrapper in steps:
        if isinstance(wrapper.step, StepGroup) and not wrapper.ignore_errors:
            yield from flattened(wrapper.step.steps)
        else:
            yield wrapper


def functions_of(step: Any, direction: Direction) -> Iterator[Any]:
    """The functions among *step* and the steps in it."""
    if isinstance(step, StepGroup):
        for wrapper in step.steps:
            yield from functions_of(wrapper.step, direction)
    elif callable(code := getattr(step, f"_{direction}")):
        yield code


def single_steps(
    steps: Iterable[Any], may_fail: frozenset[Direction] = frozenset()
) -> Iterator[tuple[Any, frozenset[Direction]]]:
    """The single steps in yoyo's wrappers and groups, and the directions that ignore errors."""
    for wrapper in steps:
        ignored = may_fail | _IGNORED[wrapper.ignore_errors]
        if isinstance(wrapper.step, StepGroup):
            yield from single_steps(wrapper.step.steps, ignored)
        else:
            yield wrapper.step, ignored
