"""The parts of a non-transactional SQL file, as the journal counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.events import ParserFellBack
from initmig.engine.batch import Script
from initmig.engine.large_files import ChunkedFile
from initmig.engine.lazy_sequence import LazySequence
from initmig.engine.parts import Part
from initmig.engine.transaction_blocks import group_blocks
from initmig.sql.lines import Lines
from initmig.sql.scanner import Spans, octets, spans
from initmig.sql.statements import Found, read_kinds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initmig.core.events import Emit
    from initmig.sql.scanner import CopyData, Scan
    from initmig.sql.statements import Kind


def parts_of(path: str, file: bytes, scan: Scan, emit: Emit) -> tuple[Sequence[Part], ChunkedFile]:
    """The parts of *file*, and its bytes in chunks. A transaction block is one part.

    *scan* is that of the file.

    :raises ConfigError: as `group_blocks`
    """
    statements, fell_back = read_kinds(file, scan)
    if fell_back:
        emit(ParserFellBack(path, fell_back))
    pieces = ChunkedFile(file, ((start, end) for start, end, _ in statements))
    lines = Lines(path, pieces)
    return group_blocks(_parts(lines, statements, scan.copies)), pieces


def statements_of(script: Script) -> Sequence[Part]:
    """The statements of *script*, each to be run in an open transaction."""
    statements: Found[Kind] = Found(Spans(spans(octets(script.sql))))
    return _parts(script.lines, statements, script.data)


def _parts(lines: Lines, statements: Found[Kind], copies: Sequence[CopyData]) -> Sequence[Part]:
    data = {each.statement: each for each in copies}

    def part(number: int) -> Part:
        start, end, kind = statements[number]
        copied = (data[start],) if start in data else ()
        script = Script(lines, start, copied[0].after if copied else end, copied)
        sql = script if not copied else script._replace(end=end, data=())
        return Part(lambda channel: channel.run(script), script, sql, kind)

    return LazySequence(part, range(len(statements)))
