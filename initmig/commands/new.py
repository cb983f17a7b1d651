"""`new`: writes the files of a new migration."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from initmig.core.events import FilesCreated
from initmig.core.records import Record
from initmig.core.visible import in_one_line
from initmig.migrations.scaffold import write_migration
from initmig.migrations.sources import to_write_in

if TYPE_CHECKING:
    from initmig.config.config import Config
    from initmig.core.errors import InitmigError
    from initmig.core.events import Emit
    from initmig.reporting.terminal.screen import Screen


class Created(Record):
    """The files of a new migration."""

    outcome: str
    ids: tuple[str, ...]
    seconds: float
    paths: tuple[str, ...]
    summary: FilesCreated
    failure: InitmigError | None = None


def new(config: Config, emit: Emit) -> Created:
    """Write a migration named ``config.name`` into the first folder, dated now.

    :raises ConfigError: the name has no letter or digit, or a file cannot be written
    """
    started = time.monotonic()
    folder = to_write_in(config.migrations)
    paths = write_migration(folder, config.name, python=config.python, now=time.time())
    id, _ = os.path.splitext(os.path.basename(paths[0]))
    summary = FilesCreated(paths)
    emit(summary)
    return Created("created", (id,), time.monotonic() - started, paths, summary)


def show(created: Created, config: Config, screen: Screen) -> str:
    """The paths of the files, one on each line."""
    del config, screen
    return "\n".join(map(in_one_line, created.paths))
