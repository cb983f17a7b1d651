"""Transaction blocks of a migration's own: the parts from a BEGIN to its end are one part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.engine.piecewise import Part
from initmig.engine.transactions import SAVEPOINT
from initmig.errors import ConfigError
from initmig.postgres import StatementFailed
from initmig.sql.statements import EndsBlock, EndsItsBlocks, OpensBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from initmig.engine.backend import Backend


def in_blocks(parts: Iterable[Part]) -> tuple[Part, ...]:
    """*parts*, with each transaction block among them as one.

    :raises ConfigError: a block has no end, one that begins the next, or one that is hidden
    """
    grouped: list[Part] = []
    block: list[Part] = []
    for part in parts:
        _check(part, block)
        if isinstance(part.kind, OpensBlock) or block:
            block.append(part)
        else:
            grouped.append(part)
        if block and isinstance(part.kind, EndsBlock):
            grouped.append(_block(block))
            block = []
    if block:
        raise ConfigError(
            "transaction-not-committed",
            f"{block[0].sql} has no COMMIT",
            hint="end the transaction in the file in which it begins",
            place=block[0].place,
        )
    return tuple(grouped)


def _check(part: Part, block: Sequence[Part]) -> None:
    if isinstance(part.kind, EndsBlock) and part.kind.chains:
        raise ConfigError(
            "commit-and-chain",
            "AND CHAIN begins a transaction that a later run could not begin again",
            hint="write COMMIT; BEGIN; with what the next transaction needs",
            place=part.place,
        )
    if isinstance(part.kind, EndsItsBlocks) and block:
        raise ConfigError(
            "transaction-command",
            f"a step inside the transaction that begins at {block[0].place} has a transaction"
            " command among other statements",
            hint="make that command a step of its own",
            place=part.place,
        )


def _block(parts: Sequence[Part]) -> Part:
    begin, *body, end = parts
    assert isinstance(end.kind, EndsBlock)  # noqa: S101 - so it was found
    # the place of what is rolled back cannot be committed with it
    commit = end.sql if end.kind.commits else ""

    def run(backend: Backend) -> None:
        begin.run(backend)
        if backend.opening:
            backend.session.run(backend.opening)
        for part in body:
            _run_inside(backend, part)
        if not commit:
            end.run(backend)

    return Part(run, begin.place, commit=commit, body=tuple(body) if commit else (), is_block=True)


def _run_inside(backend: Backend, part: Part) -> None:
    """*part*, which must leave the transaction open that it was given."""
    if not part.opaque:
        part.run(backend)
        return
    try:
        backend.session.run(f"SAVEPOINT {SAVEPOINT}")
        part.run(backend)
        backend.session.run(f"RELEASE SAVEPOINT {SAVEPOINT}")
    except StatementFailed as error:
        raise (error if error.problems[0].place else error.at(part.place)) from error
