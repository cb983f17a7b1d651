"""The parts of a migration, as the journal counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.engine.batch import Script
from initmig.engine.lazy_sequence import LazySequence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from initmig.core.errors import Place
    from initmig.engine.channel import Channel
    from initmig.sql.statements import Kind


class Part(Record):
    """The unit that the journal counts: a statement, a transaction block, or a Python step."""

    run: Callable[[Channel], None]
    """Runs the part; raises StatementFailed with its place."""
    at: Place | Script
    """Where it begins. A Script counts lines to find its place, so this is delayed until needed."""
    source: str | Script = ""
    """The SQL; empty if it is not a single statement."""
    kind: Kind | None = None
    commit: str = ""
    """The COMMIT of a transaction block in the file. *run* leaves the transaction open."""
    body: Sequence[Part] = ()
    """The parts between BEGIN and COMMIT."""
    is_block: bool = False
    """Whether it is a transaction block in the migration."""
    opaque: bool = False
    """Whether its SQL is unknown, as for a Python function."""

    @property
    def place(self) -> Place:
        """The place where it begins."""
        return self.at.place if isinstance(self.at, Script) else self.at

    @property
    def sql(self) -> str:
        """The text of the statement; empty if it is not a single statement."""
        return self.source.sql.decode() if isinstance(self.source, Script) else self.source


def places_of(parts: Sequence[Part]) -> Sequence[Place]:
    """The place where each of *parts* begins."""
    return LazySequence(lambda number: parts[number].place, range(len(parts)))
