"""Finds the SQL strings of a Python migration in its file."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from initmig.core.errors import Place
from initmig.sql.lines import Lines
from initmig.sql.masking import (
    MASK,
    is_about_secrets,
    is_secret_name,
    mask_sql,
    masked_problem,
    secret_values,
    without_values,
)
from initmig.sql.scanner import octets, scan, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from initmig.core.errors import Problem


class _PythonLines(Lines):
    """Lines whose secrets are in Python strings."""

    def _secrets(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        return (span for span, _ in self._secret_strings if span[0] < end and start < span[1])

    def masked(self, problem: Problem, start: int = 0, end: int | None = None) -> Problem:
        del start, end  # a string may be built from others anywhere in the file
        return masked_problem(problem, self.secrets)

    @cached_property
    def secrets(self) -> list[str]:
        """The secret values in the strings."""
        return [each for _, text in self._secret_strings for each in _values(text)]

    @cached_property
    def _secret_strings(self) -> list[tuple[tuple[int, int], str]]:
        """Start, end and value of each string in a Python statement that mentions a secret."""
        found: set[tuple[tuple[int, int], str]] = set()
        for statement in ast.walk(ast.parse(self.data[:])):
            if isinstance(statement, ast.stmt) and not hasattr(statement, "body"):
                nodes = list(ast.walk(statement))
                if any(map(_mentions_secret, nodes)):
                    found |= {each for each in map(self._string, nodes) if each}
        return sorted(found)

    def _string(self, node: ast.AST) -> tuple[tuple[int, int], str] | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        elif isinstance(node, ast.JoinedStr):
            text = ""
        else:
            return None
        return self.span(node), text

    def span(self, node: ast.expr) -> tuple[int, int]:
        """The start and end of *node*, in bytes."""
        last = (node.end_lineno or node.lineno) - 1
        start = self._line_starts[node.lineno - 1] + node.col_offset
        return start, self._line_starts[last] + (node.end_col_offset or 0)

    @cached_property
    def _line_starts(self) -> list[int]:
        sizes = map(len, self.data[:].split(b"\n"))
        return [0, *accumulate(size + 1 for size in sizes)]


def _mentions_secret(node: ast.AST) -> bool:
    """Whether *node* is a string with a secret, or a name such as `password`."""
    match node:
        case ast.Constant(value=str() as text):
            return is_about_secrets(text) or bool(secret_values(_octets(text)))
        case ast.Name(id=name) | ast.keyword(arg=str() as name) | ast.Attribute(attr=name):
            return is_secret_name(name)
    return False


def _values(text: str) -> tuple[str, ...]:
    """The secrets in a string: the secrets in its SQL, or the whole string if it is one word."""
    return secret_values(_octets(text)) if len(text.split()) > 1 else (text,)


def _octets(text: str) -> str:
    return octets(text.encode(errors="replace"))


def without_strings(line: str) -> str:
    """A *line* of invalid Python, with its strings masked if it mentions a secret."""
    quoted = r"""("|')(?:(?!\1)(?:\\?.))*+\1?"""
    words = re.findall(r"\w+", line)
    if any(map(is_secret_name, words)) or mask_sql(line) != line:
        return re.sub(quoted, MASK, line)
    return line


class PythonStrings:
    """The strings of a Python *source*, which is parsed once, when a place is first needed."""

    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._source = source
        self._originals: dict[str, str] = {}
        """The string in the file for each string that is run without its BEGIN and COMMIT."""

    def without_transaction(self, sql: str) -> str:
        """*sql*, a string of the source, with an enclosing BEGIN and COMMIT replaced by blanks."""
        kept = sql
        for start, end in scan(sql, transactional=True).frame:
            kept = f"{kept[:start]}{' ' * (end - start)}{kept[end:]}"
        if kept != sql:
            self._originals[kept] = sql
        return kept

    def place(self, sql: str, position: int = 0) -> Place:
        """The place of the string *sql*, if it is unique; without a line otherwise.

        *position* is the server's 1-based position in it, or 0. If the source of the string differs
        from its value, as with escapes, this is only the first line of the string.
        """
        starts = [each.start for each in split(sql)]
        if position or len(starts) == 1:
            before = sql[: position - 1 if position else starts[0]]
            return self._place(sql, len(before.encode(errors="replace")))
        return self._place(sql, None)

    def place_at(self, sql: str, offset: int) -> Place:
        """The place of the byte *offset* in the unique string *sql*, without the line's text."""
        return self._place(sql, offset)._replace(source="", before=0)

    def _place(self, run: str, offset: int | None) -> Place:
        sql = self._originals.get(run, run)
        spans = self._spans.get(sql, ()) if sql else ()  # the source may be invalid Python
        if len(spans) != 1:
            return Place(self._path)
        start, end = spans[0]
        written = self._lines.data[start:end].find(sql.encode(errors="replace"))
        if offset is None or written < 0:
            return self._lines.place(start)._replace(column=0)
        return self._lines.place(start + written + offset)

    def line(self, number: int) -> str:
        """The line with the 1-based *number*, with its secrets masked."""
        lines = self._lines.data[:].splitlines(keepends=True)
        if not 0 < number <= len(lines):
            return ""
        return self._lines.place(sum(map(len, lines[: number - 1]))).source.strip()

    def masked(self, problem: Problem) -> Problem:
        """The server's *problem* with this SQL, with its secrets masked."""
        return self._lines.masked(problem)

    def without_secrets(self, text: str) -> str:
        """*text* with the secrets of the strings masked."""
        return without_values(text, self._lines.secrets)

    @cached_property
    def _lines(self) -> _PythonLines:
        return _PythonLines(self._path, self._source.encode())

    @cached_property
    def _spans(self) -> Mapping[str, list[tuple[int, int]]]:
        """The start and end, in bytes, of each literal of a string."""
        found: dict[str, list[tuple[int, int]]] = {}
        for node in ast.walk(ast.parse(self._source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.setdefault(node.value, []).append(self._lines.span(node))
        return found
