"""Frozen records that cost very little to define.

Type checkers see NamedTuples. The real ones import typing, re and enum, and compile code for each
class. Together that takes longer than the network exchange of a run with nothing to do
(docs/explanation/benchmarks.md).

They differ from NamedTuples in one way: records of two types are never equal, and a record never
equals a plain tuple. Type checkers do not know about this difference.
"""

from __future__ import annotations

__all__ = ["TYPE_CHECKING", "Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record  # noqa: TID251 - it is the one kind
else:
    # The module `operator` defines many more functions, in Python, before it imports this one.
    from _operator import itemgetter

    class Record(tuple):
        """A tuple with a field, and a default if given, for each annotated attribute."""

        __slots__ = ()

        def __init_subclass__(cls) -> None:
            cls._fields = cls.__match_args__ = tuple(cls.__annotations__)
            cls._defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
            cls._trailing = tuple(cls._defaults.values())
            for index, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(index)))

        def __new__(cls, *values, **named):  # noqa: D102
            left = len(cls._fields) - len(values)
            if not (left or named):
                return tuple.__new__(cls, values)
            if not named and 0 < left <= len(cls._trailing):
                return tuple.__new__(cls, values + cls._trailing[-left:])
            rest = cls._fields[len(values) :]
            if unknown := named.keys() - set(rest):
                raise TypeError(f"{cls.__name__} cannot take {', '.join(sorted(unknown))}")
            given = cls._defaults | named
            if missing := [name for name in rest if name not in given]:
                raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")
            if len(values) > len(cls._fields):
                raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields")
            return tuple.__new__(cls, (*values, *(given[name] for name in rest)))

        def __eq__(self, other):
            return type(self) is type(other) and tuple.__eq__(self, other)

        def __ne__(self, other):
            return not self == other

        __hash__ = tuple.__hash__

        _make = classmethod(tuple.__new__)

        def __getnewargs__(self):
            return tuple(tuple.__iter__(self))

        def __repr__(self) -> str:
            fields = (f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({', '.join(fields)})"

        def _asdict(self):
            return dict(zip(self._fields, tuple.__iter__(self), strict=True))

        def _replace(self, **named):
            if unknown := named.keys() - set(self._fields):
                raise TypeError(f"{type(self).__name__} cannot take {', '.join(sorted(unknown))}")
            return tuple.__new__(type(self), (self._asdict() | named).values())
