"""initmig with a folder of migrations for one database, and the commands that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.command import JSON, WITHOUT_WAIT
from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result

COMMANDS: dict[str, tuple[str, ...]] = {
    "migrate": (),
    "migrate --to": ("--to", "0001_a"),
    "exec": ("exec", "--", "echo", "started"),
    "serve": ("serve", "--listen=127.0.0.1:0"),
    "plan": ("plan",),
    "rehearse": ("rehearse",),
    "wait": ("wait",),
    "status --check": ("status", "--check"),
    "doctor": ("doctor",),
    "verify": ("verify",),
    "baseline": ("baseline", "--to", "0001_a"),
}
"""Every command that works with pending migrations."""


class Image:
    """initmig with a folder of migrations, for one database."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self.database = database
        self.folder = folder

    def __call__(self, *arguments: str, **env: str) -> Result:
        return self._initmig(
            *arguments,
            url=self.database.url,
            folder=self.folder,
            env=JSON | WITHOUT_WAIT | env,
            timeout=60,
        )

    def errors(self, *arguments: str, code: int) -> list[dict[str, Any]]:
        """The errors of a run that exits with *code*."""
        result = self(*arguments)
        assert result.code == code, result.err
        return [event for event in result.events if event["event"] == "failed"]

    def write(self, files: Mapping[str, str | bytes]) -> None:
        write(self.folder, files)

    @property
    def is_untouched(self) -> bool:
        return not self.database.tables()
