"""Writes the files of a new migration."""

from __future__ import annotations

import os
import re
import time

from initmig.core.errors import ConfigError

_SQL = "-- What this migration does, and why.\n\n"
_ROLLBACK = (
    "-- Undo it. Until you edit this file, initmig refuses to roll the migration back.\n"
    "-- If there is nothing to undo, replace this text with a comment that says why.\n\n"
)
_PYTHON = '''"""What this migration does, and why."""

from yoyo import step


def apply(connection):
    """Run inside the migration's transaction; *connection* is psycopg's."""


def rollback(connection):
    """Undo it."""


steps = [step(apply, rollback)]
'''

# initmig 0.1.0 wrote this rollback file.
_OLD_ROLLBACK = "-- Undo it: initmig refuses to roll back while this file has no statement."

_LONGEST = 4096
"""In bytes, including anything that an editor may have added."""

_TEMPLATES = {text.strip() for text in (_SQL, _ROLLBACK, _OLD_ROLLBACK, _PYTHON)}


def is_template(data: bytes) -> bool:
    """Whether *data* is an unedited file from `write_migration`."""
    # an editor may have changed the line ends, or the empty lines at the end
    text = data[:_LONGEST].decode("utf-8-sig", "replace")
    return len(data) < _LONGEST and text.replace("\r\n", "\n").strip() in _TEMPLATES


def write_migration(folder: str, name: str, *, python: bool, now: float) -> tuple[str, ...]:
    """Write the files of a migration in *folder*, and return their paths.

    The folder is created if it does not exist. *now* is in seconds since the epoch.

    :raises ConfigError: *name* has no letter or digit, or a file cannot be written
    """
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not slug:
        raise ConfigError(
            "invalid-name",
            f"{name!r} contains no ASCII letter or digit",
            hint="choose a name such as add_email: initmig new add_email",
        )
    stem = os.path.join(folder, f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}_{slug}")
    files = (
        {f"{stem}.py": _PYTHON}
        if python
        else {f"{stem}.sql": _SQL, f"{stem}.rollback.sql": _ROLLBACK}
    )
    written: list[str] = []
    try:
        os.makedirs(folder, exist_ok=True)
        for path, text in files.items():
            with open(path, "x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:  # a migration without its rollback file would be incomplete
            os.remove(path)
        raise ConfigError(
            "file-not-written",
            f"cannot write {error.filename}: {error.strerror}",
            hint="choose another name, or a folder that is writable",
        ) from None
    return tuple(files)
