"""Many modules at once, without a search for garbage every few hundred objects."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_collecting() -> Iterator[None]:
    """Inside, modules are imported; what they are made of stays, and is not searched any more.

    With psycopg and yoyo that saves a quarter of the time of an import: docs/benchmarks.md.
    https://docs.python.org/3/library/gc.html#gc.freeze
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
