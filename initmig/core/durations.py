"""Read and format durations and counts. Everywhere else, a duration is a number of seconds."""

from __future__ import annotations

_MINUTE = 60
_HOUR = 3600
_SHORTEST = 0.001
_UNITS = {"ms": 0.001, "s": 1, "m": _MINUTE, "h": _HOUR, "": 1}


def parse_duration(text: str) -> float:
    """Seconds in ``500ms``, ``5s``, ``2m``, ``1h``, or a plain number of seconds.

    :raises ValueError: *text* has another format, or is negative
    """
    unit = next(unit for unit in _UNITS if text.rstrip().endswith(unit))
    number = text.rstrip().removesuffix(unit).strip()
    whole, point, rest = number.partition(".")
    if not _is_digits(whole) or len(whole) > 9 or (point and not _is_digits(rest)):
        raise ValueError(
            f"{text!r} is not a duration: write 500ms, 5s, 2m, 1h, or seconds such as 5 or 0.5"
        )
    return float(number) * _UNITS[unit]


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def counted(count: int, thing: str) -> str:
    """Text such as ``1 part`` or ``2 parts``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def format_duration(seconds: float) -> str:
    """Text such as ``0.012 s``, ``3.4 s``, ``2 m 5 s`` or ``1 h``: at most two units.

    A duration above 0 is at least ``0.001 s``.
    """
    short = round(seconds, 3 if seconds < 1 else 1) or (seconds and _SHORTEST)
    if short < _MINUTE:
        return f"{short:g} s"
    if round(seconds) < _HOUR:
        return _in_two_units(round(seconds), "m", "s")
    return _in_two_units(round(seconds / _MINUTE), "h", "m")


def _in_two_units(count: int, large: str, small: str) -> str:
    """Text for *count* *small* units; 60 of them make a *large* unit."""
    whole, rest = divmod(count, 60)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
