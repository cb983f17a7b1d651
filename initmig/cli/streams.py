"""Standard streams that are closed, full, or shared with others; locales that are not UTF-8.

Imported only where that matters: a start with nothing to do needs none of it.
"""

from __future__ import annotations

import codecs
import os
import sys

_ESCAPED = "initmig_escaped"
"""The error handler of the streams: what an encoding lacks is written as JSON would escape it."""


def use_utf8() -> None:
    """Start again in UTF-8 mode if the locale has another encoding; return if it has not.

    In another encoding the same file would have another id, and be applied a second time.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def make_usable() -> None:
    """Let the streams take every character, and no connection the number of a closed one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest free number, which is this one. Writing to stdout still fails, as
            # nobody gets the result. Writing to stderr does not, because migrations may do that.
            # It stays closed to the programs that this process starts, or becomes.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the whole run
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    codecs.register_error(_ESCAPED, _escape)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors=_ESCAPED)  # type: ignore[union-attr] # nobody replaced it yet


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)), error.end


def reserve_stdout() -> None:
    """Let nothing but `sys.stdout` lead to stdout: what programs write there goes to stderr."""
    like = sys.stdout
    try:
        if like.fileno() != 1:
            return  # somebody has led it elsewhere
        number = os.dup(1)
    except OSError:
        return  # it is no file, or no file descriptor is left
    sys.stdout = open(number, "w", encoding=like.encoding, errors=like.errors)  # noqa: SIM115
    os.dup2(2, 1)


def flush() -> None:
    """Write what is buffered, if possible: if not, Python would exit with a code of its own."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):  # or a migration has closed or removed it
            setattr(sys, name, None)
