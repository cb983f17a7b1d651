"""The stock yoyo command, the reference for the meaning of files and tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.processes import Processes, Result, Running


class Yoyo:
    """Runs `yoyo`, e.g. `yoyo("apply", database=database, folder=folder)`."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def __call__(
        self,
        *arguments: str,
        database: Database | str,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        """Run until it exits. Raises AssertionError with the output after *timeout* seconds."""
        return self.start(*arguments, database=database, folder=folder, env=env).result(timeout)

    def start(
        self,
        *arguments: str,
        database: Database | str,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Running:
        """Start it; *database* may be a URL in PostgreSQL's form."""
        url = database if isinstance(database, str) else database.url
        argv = [sys.executable, "-m", "yoyo", *arguments, "--no-config-file", "--batch"]
        argv += ["--database", yoyo_url(url)]
        if folder is not None:
            argv.append(str(folder))
        return self._processes.start(argv, env=env)


def yoyo_url(url: str) -> str:
    """*url* in yoyo's form, for psycopg 3."""
    return f"postgresql+psycopg://{url.split('://', 1)[1]}"
