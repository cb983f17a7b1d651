"""libpq with one failing call, as its manual describes; `python -m` runs initmig with it.

Both kinds of connection use it: initmig's through ctypes, and psycopg's Python implementation,
which calls the same library in the same way as the binary one.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from ctypes import CDLL
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.libpq_faults import FAIL, FAILURES, REPORT, Fault, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping, Sequence

_PACKAGE = find_spec("psycopg_binary")
assert _PACKAGE
assert _PACKAGE.origin
[_LIBPQ] = Path(_PACKAGE.origin).parents[1].glob("psycopg_binary.libs/libpq-*")
_find_library = ctypes.util.find_library
ctypes.util.find_library = lambda name: str(_LIBPQ) if name == "pq" else _find_library(name)
os.environ["PSYCOPG_IMPL"] = "python"

from psycopg.pq import _pq_ctypes as _of_psycopg  # noqa: E402 - the lines above choose its libpq

from initmig.postgres import libpq as _of_initmig  # noqa: E402


class _Faults:
    def __init__(self, fault: Fault | None) -> None:
        self.calls: Counter[str] = Counter()
        self.happened = False
        self._fault = fault

    def must_fail(self, owner: str, function: str) -> bool:
        self.calls[f"{owner} {function}"] += 1
        fault = self._fault
        fails = bool(
            fault
            and (fault.owner, fault.function) == (owner, function)
            and fault.number == self.calls[f"{owner} {function}"]
        )
        self.happened = self.happened or fails
        return fails

    @property
    def failure(self) -> int | None:
        assert self._fault
        return self._fault.failure


class _Function:
    """A function of libpq, with the attributes of ctypes' own object."""

    def __init__(self, library: Any, name: str, owner: str, faults: _Faults) -> None:
        self._library = library
        self._real = getattr(library, name)
        self._name = name
        self._owner = owner
        self._faults = faults
        self.errcheck: Callable[[Any, Any, Sequence[Any]], Any] | None = None

    @property
    def restype(self) -> Any:
        return self._real.restype

    @restype.setter
    def restype(self, type: Any) -> None:
        self._real.restype = type

    def __call__(self, *arguments: Any) -> Any:
        fails = self._faults.must_fail(self._owner, self._name)
        result = self._failed(arguments) if fails else self._real(*arguments)
        return self.errcheck(result, self, arguments) if self.errcheck else result

    def _failed(self, arguments: Sequence[Any]) -> Any:
        failure = self._faults.failure
        if failure is None:
            return None if self.restype is ctypes.c_void_p else self.restype()
        if self._name != "PQgetResult":
            return failure
        # as if libpq has no memory for a result: the result is lost, and an error replaces it
        result = self._real(*arguments)
        if not result:
            return result
        self._library.PQclear(self.restype(result) if isinstance(result, int) else result)
        make = self._library.PQmakeEmptyPGresult
        make.restype = self.restype
        return make(arguments[0], failure)


class _Library:
    """initmig's handle to libpq."""

    def __init__(self, path: str, faults: _Faults) -> None:
        self._real = CDLL(path)
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        function: Any = getattr(self._real, name)
        if name in FAILURES:
            function = _Function(self._real, name, "ctypes", self._faults)
        setattr(self, name, function)
        return function


@contextmanager
def around(env: MutableMapping[str, str]) -> Iterator[None]:
    """Inside, libpq fails as the variables in *env* specify; the variables are removed."""
    fault, report = env.pop(FAIL, ""), env.pop(REPORT, "")
    faults = _Faults(Fault(*json.loads(fault)) if fault else None)
    setattr(_of_initmig, "CDLL", lambda path: _Library(path, faults))  # noqa: B010 - it is imported there
    for name in FAILURES:
        if hasattr(_of_psycopg, name):
            setattr(_of_psycopg, name, _Function(_of_psycopg, name, "psycopg", faults))
    try:
        yield
    finally:
        if report:
            Path(report).write_text(json.dumps(Report(faults.calls, faults.happened)))


if __name__ == "__main__":
    from initmig.cli.main import main

    with around(os.environ):
        code = main(sys.argv[1:], os.environ)
    sys.exit(code)
