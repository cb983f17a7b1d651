"""`exec`: migrates, then replaces this process with the program that you name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initmig.commands.migrate import migrate
from initmig.core.errors import ConfigError
from initmig.core.signals import restore_for_exec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from initmig.commands.result import Result
    from initmig.config.config import Config
    from initmig.core.events import Emit


def migrate_first(config: Config, emit: Emit) -> Result:
    """Check that the program of ``config.argv`` exists, then migrate.

    :raises ConfigError: the program cannot be found; nothing was applied
    :raises InitmigError: as `migrate`
    """
    from shutil import which

    program = config.argv[0]
    if not which(program):
        raise ConfigError(
            "command-not-found",
            f"cannot run {program}: command not found",
            hint="name a program on PATH, or give its path; nothing was applied",
        )
    return migrate(config, emit)


def become(config: Config, environ: Mapping[str, str]) -> NoReturn:
    """Replace this process with the program of ``config.argv``.

    :raises ConfigError: the program cannot be run; the migrations are applied
    """
    program = config.argv[0]
    restore_for_exec()
    try:
        os.execvpe(program, config.argv, environ)
    except OSError as error:
        raise ConfigError(
            "command-not-found",
            f"cannot run {program}: {error.strerror}",
            hint="check the program; a script needs `#!` in its first line."
            " The migrations are applied",
        ) from None
