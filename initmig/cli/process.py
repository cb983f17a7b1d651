"""How the process starts and ends around the command."""

from __future__ import annotations

import gc
import os
import sys

from initmig.config.dsn import trimmed
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn


def run_as_program(main: Callable[[Sequence[str], Mapping[str, str]], int]) -> NoReturn:
    """Call *main* with this process's arguments and environment; exit with the code it returns."""
    # Modules and lists of files are no garbage: searching them every 700 objects took a twentieth
    # of a start.
    gc.set_threshold(100_000)
    if not _is_usual():
        from initmig.cli import streams

        streams.use_utf8()
        streams.make_usable()
    environ = os.environ.copy()
    _strip_libpq_variables(environ)
    code = main(sys.argv[1:], environ)
    if code > 128 or "initmig.engine.python_migration" not in sys.modules:
        # Only our own code ran, and its output is written. Taking the interpreter apart would take
        # as long as asking the database. After a signal, no one waits for what is left.
        os._exit(code)
    from initmig.cli.streams import flush

    flush()
    sys.exit(code)


def _is_usual() -> bool:
    """Whether all streams are open, and everything is UTF-8."""
    open_ones = [stream for stream in (sys.stdin, sys.stdout, sys.stderr) if stream]
    return (
        len(open_ones) == 3
        and {stream.encoding for stream in open_ones} == {"utf-8"}
        and sys.getfilesystemencoding() == "utf-8"
    )


def _strip_libpq_variables(environ: Mapping[str, str]) -> None:
    """Remove line ends from the values of libpq's variables, which libpq reads itself."""
    for name, value in environ.items():
        if name.startswith("PG") and value[-1:].isspace():
            # a password may end in a space
            os.environ[name] = value.rstrip("\r\n") if name == "PGPASSWORD" else trimmed(value)
