"""pg_dump, used as docs/how-to/adopt-a-database.md describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dev.programs import clients_of

if TYPE_CHECKING:
    from pathlib import Path

    from initmig.commands.verify.embedded import Installation


def pg_dump_for(server: Installation, folder: Path) -> Path:
    """Find the pg_dump of the *server*, or a newer one.

    A newer one is wrapped by a script in *folder*, which removes the line that is too new.
    """
    program = clients_of(server).programs / "pg_dump"
    if program.parent == server.programs:
        return program
    script = folder / "pg_dump"
    folder.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\n{program} \"$@\" | sed '/^SET transaction_timeout = 0;$/d'\n")
    script.chmod(0o755)
    return script
