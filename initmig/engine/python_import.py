"""Lets yoyo load a migration from what was read, so that what was checked is what runs."""

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
    """Let yoyo load *migration* as if its file had the content *data*; the file is not opened.

    :raises Exception: whatever the code raises, and what yoyo makes of it
    """
    source = _decoded(data)
    path = os.path.abspath(migration.path)
    # a size without a time marks what is never compared with the file, for tracebacks
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
    """The text of Python source; empty where there is none, as the compiler then says better."""
    try:
        return decode_source(data)
    except (SyntaxError, UnicodeDecodeError):
        return ""


class _StepsWithLines(yoyo.migrations.StepCollector):  # type: ignore[misc]
    """yoyo's collector; each step it makes knows the line of the file that defines it."""

    def add_step(self, *args: Any, **kwargs: Any) -> Any:
        """As yoyo's; the step has its ``line``, 1-based, or 0 where the file is not at work."""
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
    """The line of the file *path* that is being run, nearest to the call; 0 where none is."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect, which has a public way, is slow to import
    while frame and frame.f_code.co_filename != path:
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_lineno if frame else 0


class _BytesLoader(SourceFileLoader):
    """Loads *data*, and neither the file nor bytecode that may be of another content."""

    def __init__(self, name: str, path: str, data: bytes) -> None:
        super().__init__(name, path)
        self._data = data

    def get_data(self, path: str) -> bytes:
        """The content of the migration; :raises OSError: *path* is that of its bytecode."""
        if path != self.path:
            raise OSError(path)
        return self._data

    def path_stats(self, path: str) -> Any:
        """Nothing by which bytecode could be found; :raises OSError: always."""
        raise OSError(path)
