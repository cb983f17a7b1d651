"""pg_dump, as docs/how-to/adopt-a-database.md says to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dev.programs import clients_of

if TYPE_CHECKING:
    from pathlib import Path

    from initmig.commands.verify.embedded import Installation


def pg_dump_for(server: Installation, folder: Path) -> Path:
    """The pg_dump that came with the *server*; else a newer one, less the line that is too new.

    What has to be made for that is made in *folder*.
    """
    program = clients_of(server).programs / "pg_dump"
    if program.parent == server.programs:
        return program
    script = folder / "pg_dump"
    folder.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\n{program} \"$@\" | sed '/^SET transaction_timeout = 0;$/d'\n")
    script.chmod(0o755)
    return script
