"""Transaction blocks in a migration: the parts from BEGIN to COMMIT or ROLLBACK are one part."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from initmig.core.errors import ConfigError
from initmig.engine.ended_transaction import SAVEPOINT
from initmig.engine.lazy_sequence import LazySequence
from initmig.engine.parts import Part
from initmig.postgres import StatementFailed
from initmig.sql.statements import EndsBlock, EndsItsBlocks, OpensBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.engine.channel import Channel


def group_blocks(parts: Sequence[Part]) -> Sequence[Part]:
    """*parts*, with each transaction block combined into one part.

    :raises ConfigError: a block has no end, its end also begins the next block (AND CHAIN), or its
        end is hidden among other statements
    """
    edges = array("Q")
    begin: Part | None = None
    for number, part in enumerate(parts):
        _check(part, begin)
        if begin is None:
            edges.append(number)
            begin = part if isinstance(part.kind, OpensBlock) else None
        elif isinstance(part.kind, EndsBlock):
            begin = None
    if begin:
        raise ConfigError(
            "transaction-not-committed",
            f"{begin.sql} has no COMMIT",
            hint="end the transaction in the same file",
            place=begin.place,
        )
    edges.append(len(parts))
    return LazySequence(
        lambda number: _part_or_block(parts[edges[number] : edges[number + 1]]),
        range(len(edges) - 1),
    )


def _check(part: Part, begin: Part | None) -> None:
    if isinstance(part.kind, EndsBlock) and part.kind.chains:
        raise ConfigError(
            "commit-and-chain",
            "AND CHAIN begins a transaction that a resumed run could not begin again",
            hint="write `COMMIT; BEGIN;` and repeat the options of the transaction",
            place=part.place,
        )
    if isinstance(part.kind, EndsItsBlocks) and begin:
        raise ConfigError(
            "transaction-command",
            f"a step inside the transaction that begins at {begin.place} contains a"
            " transaction command among other statements",
            hint="make that command a separate step",
            place=part.place,
        )


def _part_or_block(parts: Sequence[Part]) -> Part:
    """A single part unchanged, or several *parts* as a block."""
    return parts[0] if len(parts) == 1 else _block(parts)


def _block(parts: Sequence[Part]) -> Part:
    begin, body, end = parts[0], parts[1:-1], parts[-1]
    assert isinstance(end.kind, EndsBlock)  # noqa: S101 - `group_blocks` splits there
    # the progress of a block that rolls back cannot be committed with the block
    commit = end.sql if end.kind.commits else ""

    def run(channel: Channel) -> None:
        begin.run(channel)
        if prologue := channel.transactions.prologue:
            channel.session.run_own(prologue)
        for part in body:
            _run_inside(channel, part)
        if not commit:
            end.run(channel)

    return Part(run, begin.at, commit=commit, body=body if commit else (), is_block=True)


def _run_inside(channel: Channel, part: Part) -> None:
    """Run *part*, which must not end the open transaction."""
    if not part.opaque:
        part.run(channel)
        return
    try:
        channel.session.run_own(f"SAVEPOINT {SAVEPOINT}")
        part.run(channel)
        channel.session.run_own(f"RELEASE SAVEPOINT {SAVEPOINT}")
    except StatementFailed as error:
        if not error.place:
            error.set_place(part.place)
        raise
