"""The parts of an SQL file that is no one transaction, as the journal counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.engine.blocks import in_blocks
from initmig.engine.outbox import Script
from initmig.engine.piecewise import Part
from initmig.events import ParserFellBack
from initmig.sql.scanner import copy_data, split
from initmig.sql.source import place_at
from initmig.sql.statements import Statement, read_statements

if TYPE_CHECKING:
    from initmig.events import Emit


def parts_of(path: str, text: str, emit: Emit) -> tuple[Part, ...]:
    """The statements of *text*; what stands from a BEGIN to its end is one part.

    :raises ConfigError: as `in_blocks`
    """
    reading = read_statements(text)
    if reading.fell_back:
        emit(ParserFellBack(path, reading.fell_back))
    ends = _ends_of_data(text)
    return in_blocks(
        _part(Script.of(path, text, each.start, ends.get(each.start, each.end)), each)
        for each in reading.statements
    )


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
