"""Identify the process that applies migrations, without DNS or a passwd entry."""

from __future__ import annotations

import os

from initmig.core.records import Record
from initmig.version import __version__

_LONGEST_RECORDED = 255
"""Characters of the columns in yoyo's log."""


class Identity(Record):
    """Recorded with each migration."""

    user: str
    host: str
    version: str


def current_identity() -> Identity:
    """The user name or ``uid-N``, the host name, and initmig's version.

    Names are truncated to the length of the history's columns.
    """
    names = (_user(), os.uname().nodename)
    user, host = (_as_unicode(each)[:_LONGEST_RECORDED] for each in names)
    return Identity(user, host, __version__)


def _as_unicode(name: str) -> str:
    """*name* with a mark for each byte that is not UTF-8, because the server rejects such bytes."""
    return name.encode(errors="replace").decode()


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return f"uid-{os.getuid()}"
