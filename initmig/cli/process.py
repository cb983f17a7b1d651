"""The entry point: prepares the process for the command, and exits with its code."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn


def run() -> NoReturn:
    """Run the command with this process's arguments and environment; exit with its exit code."""
    # Modules and lists of files are never garbage. Searching them after every 700 objects would
    # take a twentieth of the startup time, most of it during the imports.
    gc.set_threshold(100_000)
    from initmig.cli.main import main

    if not _is_usual():
        from initmig.cli import streams

        streams.use_utf8()
        streams.make_usable()
    environ = os.environ.copy()
    _strip_libpq_variables(environ)
    code = main(sys.argv[1:], environ)
    if code > 128 or "initmig.engine.python_migration" not in sys.modules:
        # Only initmig's code ran, and its output is written. To shut down the interpreter would
        # take as long as the query to the database. After a signal, cleanup would only delay
        # the exit.
        os._exit(code)
    from initmig.cli.streams import flush

    flush()
    sys.exit(code)


def _is_usual() -> bool:
    """Whether all standard streams are open, and they and file names use UTF-8."""
    open_ones = [stream for stream in (sys.stdin, sys.stdout, sys.stderr) if stream]
    return (
        len(open_ones) == 3
        and {stream.encoding for stream in open_ones} == {"utf-8"}
        and sys.getfilesystemencoding() == "utf-8"
    )


def _strip_libpq_variables(environ: Mapping[str, str]) -> None:
    """Remove trailing line ends from the ``PG*`` variables, because libpq reads them itself."""
    from initmig.config.dsn import trimmed

    for name, value in environ.items():
        if name.startswith("PG") and value[-1:].isspace():
            # a password may end in a space
            os.environ[name] = value.rstrip("\r\n") if name == "PGPASSWORD" else trimmed(value)
