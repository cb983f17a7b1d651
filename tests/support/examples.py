"""How many random examples the tests of properties try."""

from __future__ import annotations

_parts = 1


def take_turns(parts: int) -> None:
    """From now on, let `examples` return one of *parts* parts: each run draws other examples."""
    global _parts  # noqa: PLW0603 - test modules ask for it while they are imported
    _parts = parts


def examples(number: int) -> int:
    """*number*, or with `--turn` its share, but at least 1."""
    return -(-number // _parts)
