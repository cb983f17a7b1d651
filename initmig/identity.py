"""Who is applying, without asking DNS and without needing a passwd entry."""

from __future__ import annotations

import os

from initmig import __version__
from initmig.records import Record


class Identity(Record):
    """What is recorded beside each migration."""

    user: str
    host: str
    version: str


def who_am_i() -> Identity:
    """The user by name or as ``uid-N``, the host's own name for itself, initmig's version."""
    return Identity(_user(), os.uname().nodename, __version__)


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return f"uid-{os.getuid()}"
