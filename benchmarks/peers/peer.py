"""The description of a tool for the benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.installing import Home
    from benchmarks.measuring import Command
    from benchmarks.migrations import Migration


class Peer(NamedTuple):
    """A tool. It applies each migration in a separate transaction, if it can be configured so."""

    name: str
    kind: Literal["floor", "compiled", "interpreted", "java"]
    install: Callable[[Home], None]
    """Installs it in its folder."""
    version: Callable[[Home], str]
    write: Callable[[Path, Sequence[Migration]], None]
    """Writes the migrations into an empty folder, in the tool's format."""
    migrate: Callable[[Home, Path, str], Command]
    """The command that applies the migrations of a folder to the database of a URL."""
    needs: tuple[str, ...] = ()
    """The programs that must be on PATH."""
    ask: Callable[[Home, Path, str], Command] | None = None
    """The command for a run without pending migrations, if it is not `migrate`."""

    @property
    def no_op(self) -> Callable[[Home, Path, str], Command]:
        """The command for a run without pending migrations."""
        return self.ask or self.migrate


def write_files(folder: Path, migrations: Sequence[Migration], form: str = "{sql}") -> None:
    """Write a file `ID.sql` for each of *migrations*, with its SQL in *form*."""
    for migration in migrations:
        (folder / f"{migration.id}.sql").write_text(form.replace("{sql}", migration.sql))
