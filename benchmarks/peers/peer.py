"""What the benchmark has to know about a tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.installing import Home
    from benchmarks.measuring import Command
    from benchmarks.migrations import Migration


class Peer(NamedTuple):
    """One tool. Each migration is to be a transaction of its own, wherever it has a choice."""

    name: str
    kind: Literal["floor", "compiled", "interpreted", "java"]
    install: Callable[[Home], None]
    """Make it ready in its home."""
    version: Callable[[Home], str]
    write: Callable[[Path, Sequence[Migration]], None]
    """Write the migrations into an empty folder, in the tool's own form."""
    migrate: Callable[[Home, Path, str], Command]
    """Apply what is pending in a folder to the database with a URL."""
    needs: tuple[str, ...] = ()
    """Programs that have to be on PATH."""
    ask: Callable[[Home, Path, str], Command] | None = None
    """What stands for a run without anything pending, if that is not `migrate`."""

    @property
    def no_op(self) -> Callable[[Home, Path, str], Command]:
        """The command to give when nothing is pending."""
        return self.ask or self.migrate


def write_files(folder: Path, migrations: Sequence[Migration], form: str = "{sql}") -> None:
    """A file `ID.sql` for each of *migrations*, with its SQL in a *form*."""
    for migration in migrations:
        (folder / f"{migration.id}.sql").write_text(form.replace("{sql}", migration.sql))
