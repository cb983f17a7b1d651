"""Handles closed, full or shared standard streams, and locales that do not use UTF-8.

Imported only if it is needed, to keep the start fast.
"""

from __future__ import annotations

import codecs
import os
import sys

_ESCAPED = "initmig_escaped"
"""The streams' error handler: escapes characters that the encoding lacks, as in JSON."""


def use_utf8() -> None:
    """Restart Python in UTF-8 mode if the locale has another encoding.

    In another encoding, the same file would have another id, and would be applied a second time.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def make_usable() -> None:
    """Reopen closed streams on the null device, and make stdout and stderr accept any character.

    Otherwise a connection could get the file descriptor of a closed stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # `open` returns the lowest free descriptor, which is this one. Writing to stdout still
            # fails, because the result would be lost. Writing to stderr succeeds, because
            # migrations may do it. Programs that this process starts, or that replace it, do not
            # inherit the descriptor.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the whole run
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    codecs.register_error(_ESCAPED, _escape)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors=_ESCAPED)  # type: ignore[union-attr] # it is not replaced yet


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)), error.end


def reserve_stdout() -> None:
    """Keep stdout for `sys.stdout`; the output of other programs to stdout goes to stderr."""
    like = sys.stdout
    try:
        if like.fileno() != 1:
            return  # it is already redirected
        number = os.dup(1)
    except OSError:
        return  # it has no file descriptor, or no descriptor is left
    sys.stdout = open(number, "w", encoding=like.encoding, errors=like.errors)  # noqa: SIM115
    os.dup2(2, 1)


def flush() -> None:
    """Flush stdout and stderr. Drop a stream that fails, or Python would change the exit code."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):  # or a migration has closed or removed it
            setattr(sys, name, None)
