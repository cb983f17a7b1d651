"""The few parts of `ctypes` that calls of libpq need, without its import.

`ctypes` defines a class for each type of C, and imports `struct` and `types`. That takes a
fifteenth of a run with nothing to do. `_ctypes` is private to CPython. The tests use its names with
Python 3.11, and those of the image with 3.13.
"""

from __future__ import annotations

from _ctypes import FUNCFLAG_CDECL, CFuncPtr, Structure, _SimpleCData, byref, dlopen, sizeof
from os import RTLD_LAZY, fsencode

from initmig.core.records import TYPE_CHECKING

__all__ = ["Library", "Structure", "byref", "c_char_p", "c_int", "c_void_p", "sizeof"]

if TYPE_CHECKING:
    from ctypes import CDLL, c_char_p, c_int, c_void_p

    Library = CDLL
else:

    class c_int(_SimpleCData):  # noqa: N801, D101 - the name in ctypes
        _type_ = "i"

    class c_char_p(_SimpleCData):  # noqa: N801, D101
        _type_ = "z"

    class c_void_p(_SimpleCData):  # noqa: N801, D101
        _type_ = "P"

    class _Function(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL
        _restype_ = c_int

    class Library:
        """A shared library. Its attributes are its functions, which return an int by default."""

        def __init__(self, path: str | None) -> None:
            if path:
                # On its own, _ctypes looks up every function that libpq and its 13 libraries use.
                # That takes a third of the time of loading them. Now each waits for its first call.
                Library(None).dlopen(fsencode(path), RTLD_LAZY)
            self._handle = dlopen(path, 0)

        def __getattr__(self, name: str) -> _Function:
            function = _Function((name, self))
            function.__name__ = name
            setattr(self, name, function)
            return function
