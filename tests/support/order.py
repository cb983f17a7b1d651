"""The order in which migrations are applied, as yoyo documents it.

This code is an oracle for the order, so it shares nothing with yoyo's sort, which initmig calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def in_order_of_yoyo(depends: Mapping[str, Collection[str]]) -> list[str]:
    """The ids in *depends*, each as early as its dependencies among them allow.

    If several migrations could come next, the first in *depends* does. In *depends*, folders are in
    the order given, and the files of a folder are sorted by name.

    :raises ValueError: when migrations depend on each other
    """
    waiting, order = list(depends), list[str]()
    while waiting:
        ready = [id for id in waiting if not set(waiting) & set(depends[id])]
        if not ready:
            raise ValueError(waiting)
        order.append(ready[0])
        waiting.remove(ready[0])
    return order
