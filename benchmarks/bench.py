"""The peers, databases and sizes of the works."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.installing import KEPT
from benchmarks.measuring import CommandFailed, measure
from benchmarks.migrations import tables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.databases import Databases
    from benchmarks.installing import Home, Installed
    from benchmarks.link import Link
    from benchmarks.measuring import Command, Sample
    from benchmarks.migrations import Migration
    from benchmarks.peers.peer import Peer

EMPTY: Final = "template0"


class Sizes(NamedTuple):
    """The sizes of the works."""

    few: int
    """Migrations for a no-op, and over the link."""
    some: int
    """Migrations for many copies, and with many other tables."""
    many: int
    """Migrations to apply one after the other."""
    files: int
    """Applied migrations, for a no-op that has to list their files."""
    copies: int
    crowds: Sequence[int]
    """Numbers of copies for which the server does not have enough connections."""
    big_statements: int
    big_bytes: int
    statements: int
    """Statements in a file of short ones."""
    tables: int
    rounds: Mapping[str, int]
    """The rounds of each work; 1 if it is not listed."""


FULL: Final = Sizes(
    few=10,
    some=50,
    many=500,
    files=5_000,
    copies=16,
    crowds=(64, 256),
    big_statements=60_000,
    big_bytes=20_000_000,
    statements=10_000,
    tables=10_000,
    rounds={
        "noop": 20,
        "apply": 4,
        "crowd": 3,
        "crowds": 1,
        "link": 3,
        "big": 3,
        "files": 10,
        "tables": 10,
        "profile": 20,
    },
)
SMOKE: Final = Sizes(
    few=3,
    some=5,
    many=20,
    files=50,
    copies=4,
    crowds=(8,),
    big_statements=300,
    big_bytes=100_000,
    statements=100,
    tables=100,
    rounds={},
)


class Bench(NamedTuple):
    """The peers that take part, and everything that they need."""

    peers: Sequence[Peer]
    installed: Installed
    databases: Databases
    link: Link
    sizes: Sizes

    def rounds(self, work: str, peer: Peer) -> int:
        """The number of measurements; fewer for a tool that has to start a Java VM."""
        rounds = self.sizes.rounds.get(work, 1)
        return -(-rounds // 4) if peer.kind == "java" else rounds

    def among(self, *names: str) -> Iterator[Peer]:
        """The peers in *names* that take part."""
        return (peer for peer in self.peers if peer.name in names)

    def home(self, peer: Peer) -> Home:
        """The folder of the installed *peer*."""
        return self.installed.homes[peer.name]

    def project(self, peer: Peer, migrations: Sequence[Migration], purpose: str) -> Project:
        """The *migrations* in the format of *peer*, in a separate folder for each *purpose*."""
        name = f"{peer.name.lower()}-{purpose}".replace(" ", "-")
        folder = KEPT / "work" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        peer.write(folder, migrations)
        return Project(
            self.databases,
            database=name.replace("-", "_"),
            tables=tables_of(migrations),
            migrate=partial(peer.migrate, self.home(peer), folder),
            no_op=partial(peer.no_op, self.home(peer), folder),
        )


class Project(NamedTuple):
    """The migrations of a peer, and a database for them."""

    databases: Databases
    database: str
    tables: int
    migrate: Callable[[str], Command]
    """The command for a URL."""
    no_op: Callable[[str], Command]

    def url(self, port: int | None = None) -> str:
        """The URL of the database, through another *port* if given."""
        return self.databases.url(self.database, port=port)

    def apply(self, *, template: str = EMPTY, port: int | None = None) -> Sample:
        """Apply everything to a new database. Raises CommandFailed if that fails."""
        self.databases.create(self.database, template=template)
        sample = measure(self.migrate(self.url(port)))
        self.check()
        return sample

    def check(self) -> None:
        """Raise CommandFailed if a migration was not applied, even if the exit code was 0."""
        tables = self.databases.tables(self.database)
        if tables != self.tables:
            raise CommandFailed(f"exit code 0, and {tables} of {self.tables} tables")
