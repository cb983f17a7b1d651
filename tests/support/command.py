"""The installed command, run as users run it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.processes import Processes, Result, Running, Start

COMMAND = Path(sys.executable).with_name("initmig")

# --- environments: combine them, e.g. `env=JSON | WITHOUT_WAIT` ---

JSON = {"INITMIG_LOG_FORMAT": "json"}
"""Makes each line of stderr a JSON object, for `Result.events`."""

WITHOUT_WAIT = {"INITMIG_WAIT_TIMEOUT": "0"}
"""Makes a run fail immediately if the database cannot be reached."""


class Options(TypedDict, total=False):
    """The environment of the command: it gets nothing else from this process's environment."""

    url: str
    """DATABASE_URL"""
    folder: Path | str
    """INITMIG_MIGRATIONS"""
    env: Mapping[str, str]
    """More variables; they override *url* and *folder*."""
    cwd: Path
    prefix: Sequence[str]
    """A command that runs the command, e.g. `nameless_user`."""


class Initmig:
    """Runs `initmig`, e.g. `initmig("migrate", "--to", "x", url=database.url, folder=folder)`."""

    def __init__(
        self,
        processes: Processes,
        fork: Start | None = None,
        command: Sequence[str] = (str(COMMAND),),
    ) -> None:
        """*fork* (tests/support/fork_server.py) runs it in a fork instead of a new program."""
        self._processes = processes
        self._command = command
        self._fork = fork

    def __call__(
        self,
        *arguments: str,
        timeout: float = 60,
        **options: Unpack[Options],
    ) -> Result:
        """Run until it exits. Raises AssertionError with the output after *timeout* seconds."""
        return self.start(*arguments, **options).result(timeout)

    def start(self, *arguments: str, **options: Unpack[Options]) -> Running:
        """Start it, for tests that signal it or check it while it runs."""
        prefix = options.get("prefix", ())
        argv = [*prefix, *self._command, *arguments]
        env, cwd = _environment(options), options.get("cwd")
        if self._fork and not prefix and not any(map(_is_read_at_the_start, env)):
            return self._processes.start(argv, env=env, cwd=cwd, start=self._fork)
        return self._processes.start(argv, env=env, cwd=cwd)


def _is_read_at_the_start(variable: str) -> bool:
    """Whether Python or the dynamic linker reads *variable*, so that a fork would ignore it."""
    return variable.startswith(("PYTHON", "LD_"))


def _environment(options: Options) -> dict[str, str]:
    settings: dict[str, str] = {}
    if "url" in options:
        settings["DATABASE_URL"] = options["url"]
    if "folder" in options:
        settings["INITMIG_MIGRATIONS"] = str(options["folder"])
    return settings | dict(options.get("env", {}))
