"""Keeps out, until something of it is used, what yoyo imports and needs for none of this."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_later(name: str) -> None:
    """Let the module *name* be imported when something of it is asked for."""
    stand_in = ModuleType(name)

    def ask(attribute: str) -> Any:
        if sys.modules[name] is stand_in:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    stand_in.__getattr__ = ask  # type: ignore[method-assign]
    sys.modules.setdefault(name, stand_in)


# Splits SQL, which is the server's to do: a third of the time that it takes to import yoyo.
import_later("sqlparse")
