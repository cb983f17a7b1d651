"""Makes yoyo load a migration from bytes in memory, so that initmig runs the code it checked."""

from __future__ import annotations

import io
import linecache
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import decode_source, module_from_spec, spec_from_file_location
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import yoyo.migrations

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def load_from_bytes(migration: Any, data: bytes) -> None:
    """Make yoyo load *migration* from *data*, without opening its file.

    :raises Exception: any exception of the code, or yoyo's BadMigration
    """
    source = _decoded(data)
    path = os.path.abspath(migration.path)
    # tracebacks use this entry. Without a time, linecache does not compare it with the file
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)

    def spec_of(name: str, location: str) -> ModuleSpec | None:
        return spec_from_file_location(name, location, loader=_BytesLoader(name, path, data))

    importlib = SimpleNamespace(
        util=SimpleNamespace(spec_from_file_location=spec_of, module_from_spec=module_from_spec)
    )
    names = {
        **vars(yoyo.migrations),
        "StepCollector": _StepsWithLines,
        "importlib": importlib,
        "open": lambda *_: io.StringIO(source),
    }
    FunctionType(yoyo.migrations.Migration.load.__code__, names)(migration)


def _decoded(data: bytes) -> str:
    """The text of Python source; empty if it is not valid, as the compiler's error is clearer."""
    try:
        return decode_source(data)
    except (SyntaxError, UnicodeDecodeError):
        return ""


class _StepsWithLines(yoyo.migrations.StepCollector):  # type: ignore[misc]
    """yoyo's collector, which adds to each step the line of the file that defines it."""

    def add_step(self, *args: Any, **kwargs: Any) -> Any:
        """Like yoyo's. The step has a 1-based ``line``, or 0 if the file does not define it."""
        make = super().add_step(*args, **kwargs)
        line = _current_line(os.path.abspath(self.migration.path))

        def make_with_line(use_transactions: Any) -> Any:
            wrapper = make(use_transactions)
            wrapper.step.line = line
            return wrapper

        del self.steps[make]
        self.steps[make_with_line] = 1
        return make_with_line


def _current_line(path: str) -> int:
    """The line of the file *path* in the innermost stack frame; 0 if no frame is in the file."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect has a public function, but is slow to import
    while frame and frame.f_code.co_filename != path:
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_lineno if frame else 0


class _BytesLoader(SourceFileLoader):
    """Loads *data* instead of the file, and ignores bytecode, which may be older or newer."""

    def __init__(self, name: str, path: str, data: bytes) -> None:
        super().__init__(name, path)
        self._data = data

    def get_data(self, path: str) -> bytes:
        """The content of the migration; :raises OSError: *path* is the path of its bytecode."""
        if path != self.path:
            raise OSError(path)
        return self._data

    def path_stats(self, path: str) -> Any:
        """Disables the search for bytecode; :raises OSError: always."""
        raise OSError(path)
