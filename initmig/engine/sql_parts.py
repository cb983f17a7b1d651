"""The parts of an SQL file that is no one transaction, as the journal counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.engine.outbox import Script
from initmig.engine.piecewise import Part
from initmig.errors import ConfigError
from initmig.events import ParserFellBack
from initmig.sql.scanner import copy_data, split
from initmig.sql.source import place_at
from initmig.sql.statements import EndsBlock, OpensBlock, Statement, read_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.engine.backend import Backend
    from initmig.events import Emit


def parts_of(path: str, text: str, emit: Emit) -> tuple[Part, ...]:
    """The statements of *text*; what stands from a BEGIN to its end is one part.

    :raises ConfigError: a BEGIN has no end, or one that begins the next
    """
    reading = read_statements(text)
    if reading.fell_back:
        emit(ParserFellBack(path, reading.fell_back))
    ends = _ends_of_data(text)
    parts: list[Part] = []
    block: list[Part] = []
    for statement in reading.statements:
        end = ends.get(statement.start, statement.end)
        part = _part(Script.of(path, text, statement.start, end), statement)
        if isinstance(statement.kind, OpensBlock) or block:
            block.append(part)
        else:
            parts.append(part)
        if block and isinstance(statement.kind, EndsBlock):
            if statement.kind.chains:
                raise ConfigError(
                    "commit-and-chain",
                    "AND CHAIN begins a transaction that a later run could not begin again",
                    hint="write COMMIT; BEGIN; with what the next transaction needs",
                    place=part.place,
                )
            parts.append(_block(block))
            block = []
    if block:
        raise ConfigError(
            "transaction-not-committed",
            f"{block[0].sql} has no COMMIT",
            hint="end the transaction in the file in which it begins",
            place=block[0].place,
        )
    return tuple(parts)


def statements_of(path: str, text: str) -> tuple[Part, ...]:
    """The statements of *text*, one by one, for a transaction that is open."""
    ends = _ends_of_data(text)
    return tuple(
        _part(
            Script.of(path, text, each.start, ends.get(each.start, each.end)),
            Statement(*each, kind=None),
        )
        for each in split(text)
    )


def _ends_of_data(text: str) -> dict[int, int]:
    """Where the data of each COPY ends, by where its statement starts."""
    return {data.statement: data.after for data in copy_data(text)}


def _part(script: Script, statement: Statement) -> Part:
    place = place_at(script.path, script.text, script.start)
    return Part(lambda backend: backend.run(script), place, statement.text, statement.kind)


def _block(parts: Sequence[Part]) -> Part:
    begin, *body, end = parts
    assert isinstance(end.kind, EndsBlock)  # noqa: S101 - so it was found
    # the place of what is rolled back, or prepared for later, cannot be committed with it
    commit = end.sql if end.kind.commits else ""

    def run(backend: Backend) -> None:
        begin.run(backend)
        if backend.opening:
            backend.session.run(backend.opening)
        for part in body if commit else (*body, end):
            part.run(backend)

    return Part(run, begin.place, commit=commit, body=tuple(body) if commit else ())
