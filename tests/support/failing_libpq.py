"""libpq with one failing call, as its manual describes; `python -m` runs initmig with it.

initmig calls libpq through ctypes, on its own connection and on psycopg's. A Python function uses
psycopg's Python implementation, which calls libpq as the binary one does.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.libpq_faults import FAIL, FAILURES, REPORT, Fault, Owner, Report

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence

_PACKAGE = find_spec("psycopg_binary")
assert _PACKAGE
assert _PACKAGE.origin
[_LIBPQ] = Path(_PACKAGE.origin).parents[1].glob("psycopg_binary.libs/libpq-*")
_find_library = ctypes.util.find_library
ctypes.util.find_library = lambda name: str(_LIBPQ) if name == "pq" else _find_library(name)
os.environ["PSYCOPG_IMPL"] = "python"

from psycopg.pq import _pq_ctypes as _of_psycopg  # noqa: E402 - the lines above choose its libpq

from initmig.core.errors import InitmigError  # noqa: E402
from initmig.postgres import dbapi  # noqa: E402
from initmig.postgres import libpq as _of_initmig  # noqa: E402
from initmig.postgres.libpq import Library  # noqa: E402
from initmig.postgres.native import c_void_p  # noqa: E402


class _Faults:
    def __init__(self, fault: Fault | None) -> None:
        self.calls: Counter[str] = Counter()
        self.happened = False
        self._fault = fault

    def must_fail(self, owner: Owner, function: str) -> bool:
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

    def __init__(self, library: Any, real: Any, owner: Owner, faults: _Faults) -> None:
        self._library = library
        self._real = real
        self._owner = owner
        self._faults = faults

    def __call__(self, *arguments: Any) -> Any:
        if not self._faults.must_fail(self._owner, self._real.__name__):
            return self._real(*arguments)
        result, check = self._failed(arguments), self._real.errcheck
        return check(result, self._real, arguments) if check else result

    def _failed(self, arguments: Sequence[Any]) -> Any:
        failure, type = self._faults.failure, self._real.restype
        if failure is None:
            return None if type in (ctypes.c_void_p, c_void_p) else type()
        if self._real.__name__ != "PQgetResult":
            return failure
        # as if libpq has no memory for a result: the result is lost, and an error replaces it
        result = self._real(*arguments)
        if not result:
            return result
        self._library.PQclear(type(result) if isinstance(result, int) else result)
        make = self._library.PQmakeEmptyPGresult
        make.restype = type
        return make(arguments[0], failure)


class _FailingLibrary(Library):
    """initmig's libpq, for the connections of *owner*."""

    def __init__(self, path: str, owner: Owner, faults: _Faults) -> None:
        self._owner = owner
        self._faults = faults
        super().__init__(path)

    def __getattr__(self, name: str) -> Any:
        function = super().__getattr__(name)
        if name in FAILURES:
            function = _Function(self, function, self._owner, self._faults)
            setattr(self, name, function)
        return function


@contextmanager
def around(env: MutableMapping[str, str]) -> Iterator[None]:
    """Inside, libpq fails as the variables in *env* specify; the variables are removed."""
    fault, report = env.pop(FAIL, ""), env.pop(REPORT, "")
    faults = _Faults(Fault(*json.loads(fault)) if fault else None)
    _replace(faults)
    errors = _recorded_errors()
    try:
        yield
    finally:
        if report:
            circular = [error.id for error in errors if _is_its_own_cause(error)]
            Path(report).write_text(json.dumps(Report(faults.calls, faults.happened, circular)))


def _replace(faults: _Faults) -> None:
    """Replace initmig's and psycopg's functions of libpq."""
    replaced = {
        (_of_initmig, "Library"): lambda path: _FailingLibrary(path, "libpq", faults),
        (dbapi, "libpq_of_psycopg"): lambda: _FailingLibrary(str(_LIBPQ), "psycopg", faults),
        **{
            (_of_psycopg, name): _Function(_of_psycopg, real, "step", faults)
            for name in FAILURES
            if (real := getattr(_of_psycopg, name, None))
        },
    }
    for (module, name), replacement in replaced.items():
        setattr(module, name, replacement)


def _recorded_errors() -> list[InitmigError]:
    """A list to which each later error of initmig is added."""
    errors: list[InitmigError] = []
    create = InitmigError.__init__

    def record(error: InitmigError, *arguments: Any, **options: Any) -> None:
        errors.append(error)
        create(error, *arguments, **options)

    setattr(InitmigError, "__init__", record)  # noqa: B010 - mypy allows no other way
    return errors


def _is_its_own_cause(error: BaseException) -> bool:
    """Whether the causes of *error* never end."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        cause = cause.__cause__
    return cause is not None


if __name__ == "__main__":
    from initmig.cli.main import main

    with around(os.environ):
        code = main(sys.argv[1:], os.environ)
    sys.exit(code)
