"""Where SQL statements begin and end, and what a migration file must not contain.

The lexical rules are PostgreSQL's, as far as they decide where something ends:
https://www.postgresql.org/docs/current/sql-syntax-lexical.html
``standard_conforming_strings`` is taken to be on.
"""

from __future__ import annotations

import re
from functools import cache

from initmig.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Every character beyond ASCII is a letter to PostgreSQL, and none of them is white space.
_LETTER = r"(?:[A-Za-z_]|[^\x00-\x7f])"
_IN_WORD = r"(?:[\w$]|[^\x00-\x7f])"
_WORD_END = rf"(?!{_IN_WORD})"
_WHITE_SPACE = " \t\n\r\f\v"
_COMMENT = r"--[^\r\n]*+"
_GAP = rf"(?a)\s++|{_COMMENT}|/\*|\A\ufeff"  # the last is a byte order mark
_COMMENT_EDGE = r"/\*|\*/"
_LINE_END = r"\r\n?|\n"

# Between the words of one command; a comment inside a comment is not looked for there.
_BETWEEN = rf"(?:\s|{_COMMENT}|/\*(?:[^*]|\*(?!/))*+\*/)++"

# What may hide or move the end of a statement. Each alternative begins with a literal, because
# `re` then skips quickly to the next of these characters. A plain string needs no rule for '',
# since two strings side by side end at the same place.
_LANDMARK = rf"""(?xsa)
    {_COMMENT}
  | '(?<=[eE]')(?<!{_IN_WORD}[eE]')
      (?: [^'\\]++ | \\.? | '' | '(?:[ \t\f\v]|{_COMMENT})*+[\r\n](?:\s|{_COMMENT})*+' )*+ '?
  | '[^']*+'?
  | "[^"]*+"?
  | \$(?<!{_IN_WORD}\$)(?P<tag>(?:{_LETTER}(?:{_LETTER}|[0-9])*+)?)\$
      (?: [^$]++ | \$(?!(?P=tag)\$) )*+ (?:\$(?P=tag)\$)?
  | /\* | \( | \) | ; | \\
"""
_LANDMARK_IN_CREATE = rf"{_LANDMARK} | (?<!{_IN_WORD})(?i:BEGIN){_WORD_END}"
_LANDMARK_IN_BODY = (  # but no label or column, as in `AS end` and `t.end`
    rf"{_LANDMARK} | (?<!{_IN_WORD})(?<![.])(?<!\b[aA][sS]\s)(?i:CASE|END){_WORD_END}"
)
_NESTING = {"(": 1, ")": -1, "c": 1, "e": -1}

_CREATE = rf"(?ia)CREATE{_WORD_END}"
_ATOMIC = rf"(?ia)ATOMIC{_WORD_END}"
_COPY_FROM_STDIN = rf"""(?xia)
    COPY{_WORD_END}
    (?: {_BETWEEN} | "[^"]*+" | \((?:"[^"]*+"|[^()"])*+\) | [.]
      | (?!FROM{_BETWEEN}STDIN{_WORD_END}){_IN_WORD}++ )*+
    FROM{_BETWEEN}STDIN{_WORD_END}
"""
_END_OF_COPY_DATA = r"(?m)^\\\.\r?$"
_MAYBE_PSQL_ONLY = ("\\", "stdin")
_META_COMMAND = r"\\(\w+|.?)"

_TRANSACTION_COMMAND = rf"""(?xia)
    (?: (?P<opens> BEGIN | START(?={_BETWEEN}TRANSACTION{_WORD_END}) )
      | PREPARE(?={_BETWEEN}TRANSACTION{_WORD_END})
      | (?:ABORT|COMMIT|END|ROLLBACK)
        (?!(?:{_BETWEEN}(?:WORK|TRANSACTION))?{_BETWEEN}(?:TO|PREPARED){_WORD_END})
    ) {_WORD_END}
"""
# Finds every such command, and a few words that are none: a first word stands at the start, or
# after ";", a comment, or the end of a line.
_MAYBE_TRANSACTION_COMMAND = (
    r"[;/\r\n][ \t\f\v\ufeff]*+(?i:abort|begin|commit|end|prepare|rollback|start)\b"
)

# A function that only calls it is for others to call.
_LOCK_RELEASE = rf"""(?xias)
    (?: DISCARD{_BETWEEN}ALL{_WORD_END} | (?!CREATE{_WORD_END}).*? (pg_advisory_unlock_all) )
"""
_MAYBE_LOCK_RELEASE = ("discard", "pg_advisory_unlock_all")

_DIRECTIVE = r"--\s*(\w+)\s*:\s*(.*)"

_META_COMMAND_HINTS = {
    "c connect": "delete it: initmig connects to the one database of its settings",
    "copy": "write INSERT ... VALUES, or a Python migration that uses cursor.copy()",
    "i ir include include_relative": "make that file a migration of its own",
    "set gset unset prompt": "write the values out: psql's variables are not replaced",
    "if elif else endif": "decide in a DO block with IF, or in a Python migration",
    "gexec": "loop over the query in a DO block, and EXECUTE each row",
    "g gx gdesc ;": "end the statement with a semicolon",
    "echo qecho warn": "delete it, or RAISE NOTICE in a DO block",
    "restrict unrestrict": "delete it: pg_dump writes it for psql",
}


class Statement(Record):
    """One SQL statement, from its first token on, without its semicolon."""

    start: int
    end: int
    text: str


class Finding(Record):
    """Something that a migration file must not contain, and what to do instead."""

    offset: int
    message: str
    hint: str


class Directive(Record):
    """A line ``-- name: value`` in the header of a file; *offset* is that of the name."""

    name: str
    value: str
    offset: int


class Position(Record):
    """A place in a text; *line* and *column* are 1-based and count characters."""

    line: int
    column: int
    source: str
    """The text of that line, without its end."""


def split(text: str) -> list[Statement]:
    """Statements of *text* in order; empty ones, psql's commands and COPY data are left out."""
    statements = []
    for start, end in _pieces(text):
        if text[start] != "\\":
            statement = text[start:end].rstrip(_WHITE_SPACE)
            statements.append(Statement(start, start + len(statement), statement))
    return statements


def forbidden_in_transaction(text: str) -> list[Finding]:
    """Statements of *text* that would begin or end a transaction."""
    if not _compiled(_MAYBE_TRANSACTION_COMMAND).search(f"\n{text}"):
        return []
    findings = []
    for start, end in _pieces(text):
        if command := _compiled(_TRANSACTION_COMMAND).match(text, start, end):
            findings.append(_transaction_finding(command))
    return findings


def releasing_locks(text: str) -> list[Finding]:
    """Statements of *text* that would release the migration lock with all others."""
    if not _has_any(text, _MAYBE_LOCK_RELEASE):
        return []
    return [
        _lock_finding(start, found)
        for start, end in _pieces(text)
        if (found := _compiled(_LOCK_RELEASE).match(text, start, end))
    ]


def psql_only(text: str) -> list[Finding]:
    r"""Parts of *text* that psql understands and the server does not: ``\commands``, COPY data."""
    if not _has_any(text, _MAYBE_PSQL_ONLY):
        return []
    findings = []
    for start, end in _pieces(text):
        if command := _compiled(_META_COMMAND).match(text, start, end):
            findings.append(_meta_command_finding(command))
        elif _compiled(_COPY_FROM_STDIN).match(text, start, end):
            findings.append(
                Finding(
                    start,
                    "COPY ... FROM STDIN waits for data, which only psql would send",
                    _META_COMMAND_HINTS["copy"],
                )
            )
    return findings


def header_directives(text: str) -> list[Directive]:
    """Directives in the comments before the first statement, whatever their names."""
    directives = []
    for start, end in _gaps(text, 0):
        if match := _compiled(_DIRECTIVE).match(text, start, end):
            directives.append(Directive(match[1], match[2].strip(), match.start(1)))
    return directives


def position(text: str, offset: int) -> Position:
    r"""Where the character at *offset* stands; a line ends with ``\n``, ``\r\n`` or ``\r``."""
    if text.startswith("\n", offset) and text.endswith("\r", 0, offset):
        offset -= 1  # inside of one line end
    line_feeds, returns, pairs = (text.count(end, 0, offset) for end in ("\n", "\r", "\r\n"))
    start = max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1
    return Position(
        line=line_feeds + returns - pairs + 1,
        column=offset - start + 1,
        source=text[start : _line_end(text, start)],
    )


def _has_any(text: str, words: Iterable[str]) -> bool:
    """Whether one of *words* is in *text*, in whatever case: of megabytes, `re` takes seconds."""
    lower = text.lower()
    return any(word in lower for word in words)


def _transaction_finding(command: re.Match[str]) -> Finding:
    name = command[0].upper()
    name = {"START": "START TRANSACTION", "PREPARE": "PREPARE TRANSACTION"}.get(name, name)
    effect = "begin a transaction in the one" if command["opens"] else "end the transaction"
    return Finding(
        command.start(),
        f"{name} would {effect} that initmig opened for this file",
        "delete it: initmig runs each file in one transaction; "
        'or put "-- transactional: false" at the top',
    )


def _lock_finding(start: int, found: re.Match[str]) -> Finding:
    if found[1]:
        hint = "release the locks that the file has taken, each with pg_advisory_unlock(key)"
    else:
        hint = "delete it: initmig resets what a file sets; or write DISCARD TEMP, or DISCARD PLANS"
    name = found[1] or "DISCARD ALL"
    return Finding(start, f"{name} would release the migration lock", hint)


def _meta_command_finding(command: re.Match[str]) -> Finding:
    hints = (hint for names, hint in _META_COMMAND_HINTS.items() if command[1] in names.split())
    return Finding(
        command.start(),
        f"{command[0]} is a command of psql, not SQL",
        next(hints, "delete it: only psql knows commands that begin with a backslash"),
    )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile at the first use: several ms, which a start with nothing pending does not need."""
    return re.compile(pattern)


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each statement, without its ``;``, and of each meta-command of psql."""
    start = _after_gaps(text, 0)
    while start < len(text):
        if text[start] == "\\":
            end = after = _line_end(text, start)
        else:
            end = _statement_end(text, start)
            after = _after_statement(text, start, end)
        if end > start:
            yield start, end
        start = _after_gaps(text, after)


def _statement_end(text: str, start: int) -> int:
    """Offset of the semicolon, the backslash or the end of *text* that ends a statement."""
    landmark = _LANDMARK_IN_CREATE if _compiled(_CREATE).match(text, start) else _LANDMARK
    after, depth = start, 0
    while mark := _compiled(landmark).search(text, after):
        after = mark.end()
        first = text[mark.start()].lower()
        if first == "\\" or (first == ";" and depth == 0):
            return mark.start()
        if first == "/":
            after = _after_block_comment(text, after)
        elif first == "b" and _compiled(_ATOMIC).match(text, _after_gaps(text, after)):
            landmark, depth = _LANDMARK_IN_BODY, depth + 1
        depth = max(0, depth + _NESTING.get(first, 0))
    return len(text)


def _after_statement(text: str, start: int, end: int) -> int:
    """Offset behind a statement, its semicolon, and the data that psql would send for it."""
    if not text.startswith(";", end):
        return end
    if not _compiled(_COPY_FROM_STDIN).match(text, start, end):
        return end + 1
    data_end = _compiled(_END_OF_COPY_DATA).search(text, end)
    return data_end.end() if data_end else len(text)


def _gaps(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of each comment and blank space between *start* and the next token."""
    while gap := _compiled(_GAP).match(text, start):
        end = _after_block_comment(text, gap.end()) if gap[0] == "/*" else gap.end()
        yield start, end
        start = end


def _after_gaps(text: str, start: int) -> int:
    for _, end in _gaps(text, start):
        start = end
    return start


def _after_block_comment(text: str, start: int) -> int:
    """Offset behind the comment whose ``/*`` ends at *start*; comments nest."""
    depth = 1
    for edge in _compiled(_COMMENT_EDGE).finditer(text, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _line_end(text: str, start: int) -> int:
    match = _compiled(_LINE_END).search(text, start)
    return match.start() if match else len(text)
