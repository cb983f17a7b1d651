"""Where the SQL of a migration in Python stands in its file."""

from __future__ import annotations

import ast
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from initmig.errors import Place
from initmig.sql.lines import Lines
from initmig.sql.scanner import frame, split

if TYPE_CHECKING:
    from collections.abc import Mapping


class PythonStrings:
    """The strings of a Python *source*, which is parsed once, when the first place is asked for."""

    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._source = source
        self._written: dict[str, str] = {}
        """The string that stands in the file, by what is run of it."""

    def without_frame(self, sql: str) -> str:
        """*sql*, a string of the source, with blanks for a BEGIN and a COMMIT around all of it."""
        kept = sql
        for start, end in frame(sql):
            kept = f"{kept[:start]}{' ' * (end - start)}{kept[end:]}"
        if kept != sql:
            self._written[kept] = sql
        return kept

    def place(self, sql: str, position: int = 0) -> Place:
        """Where the one string *sql* stands; *position* is the server's, 0 for none.

        Only its first line where the string is not written as it reads, as with escapes in it.
        """
        starts = [each.start for each in split(sql)]
        if position or len(starts) == 1:
            before = sql[: position - 1 if position else starts[0]]
            return self._place(sql, len(before.encode(errors="replace")))
        return self._place(sql, None)

    def place_at(self, sql: str, offset: int) -> Place:
        """Where the byte *offset* of the one string *sql* stands, without the text of the line."""
        return self._place(sql, offset)._replace(source="", before=0)

    def _place(self, run: str, offset: int | None) -> Place:
        sql = self._written.get(run, run)
        spans = self._spans.get(sql, ()) if sql else ()  # without SQL it may be no Python
        if len(spans) != 1:
            return Place(self._path)
        start, end = spans[0]
        written = self._lines.data[start:end].find(sql.encode(errors="replace"))
        if offset is None or written < 0:
            return self._lines.place(start)._replace(column=0)
        return self._lines.place(start + written + offset)

    @cached_property
    def _lines(self) -> Lines:
        return Lines(self._path, self._source.encode())

    @cached_property
    def _spans(self) -> Mapping[str, list[tuple[int, int]]]:
        """Start and end, in bytes, of each place where a string is written."""
        sizes = map(len, self._lines.data[:].split(b"\n"))
        starts = [0, *accumulate(size + 1 for size in sizes)]
        found: dict[str, list[tuple[int, int]]] = {}
        for node in ast.walk(ast.parse(self._source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                start = starts[node.lineno - 1] + node.col_offset
                end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
                found.setdefault(node.value, []).append((start, end))
        return found
