"""What the works are done with: peers, databases, sizes."""

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
    """How much of everything."""

    few: int
    """Migrations for a no-op, and over the link."""
    some: int
    """For a crowd, and beside many tables."""
    many: int
    """To apply one after the other."""
    files: int
    """Applied, for a no-op that has to look at them."""
    copies: int
    crowds: Sequence[int]
    """Copies in crowds for which the server has not enough connections."""
    big_statements: int
    big_bytes: int
    statements: int
    """In a file of short ones."""
    tables: int
    rounds: Mapping[str, int]
    """Of each work; 1 where it is not named."""


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
    """The peers that take part, and what they work on."""

    peers: Sequence[Peer]
    installed: Installed
    databases: Databases
    link: Link
    sizes: Sizes

    def rounds(self, work: str, peer: Peer) -> int:
        """How often to measure; what has to start a Java machine, not as often."""
        rounds = self.sizes.rounds.get(work, 1)
        return -(-rounds // 4) if peer.kind == "java" else rounds

    def among(self, *names: str) -> Iterator[Peer]:
        """Those of the *names* that take part."""
        return (peer for peer in self.peers if peer.name in names)

    def home(self, peer: Peer) -> Home:
        """Where *peer* is installed."""
        return self.installed.homes[peer.name]

    def project(self, peer: Peer, migrations: Sequence[Migration], purpose: str) -> Project:
        """The *migrations* in the form of *peer*, in a folder that is new for each *purpose*."""
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
    """Migrations as a peer sees them, and a database for them."""

    databases: Databases
    database: str
    tables: int
    migrate: Callable[[str], Command]
    """The command for a URL."""
    no_op: Callable[[str], Command]

    def url(self, port: int | None = None) -> str:
        """Where the database is, through another *port* if there is one."""
        return self.databases.url(self.database, port=port)

    def apply(self, *, template: str = EMPTY, port: int | None = None) -> Sample:
        """Apply everything to a new database. Raises CommandFailed unless that works."""
        self.databases.create(self.database, template=template)
        sample = measure(self.migrate(self.url(port)))
        self.check()
        return sample

    def check(self) -> None:
        """Raise CommandFailed if not everything is applied, whatever the exit code said."""
        tables = self.databases.tables(self.database)
        if tables != self.tables:
            raise CommandFailed(f"exit code 0, and {tables} of {self.tables} tables")
