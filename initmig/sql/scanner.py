"""Where SQL statements begin and end, and what a migration file must not contain.

The lexical rules are PostgreSQL's, as far as they decide where something ends:
https://www.postgresql.org/docs/current/sql-syntax-lexical.html
``standard_conforming_strings`` is taken to be on.
"""

from __future__ import annotations

import re
from functools import cache

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Every character beyond ASCII is a letter to PostgreSQL, and none of them is white space.
_LETTER = r"(?:[A-Za-z_]|[^\x00-\x7f])"
_IN_WORD = r"(?:[\w$]|[^\x00-\x7f])"
_WORD_END = rf"(?!{_IN_WORD})"
_WHITE_SPACE = " \t\n\r\f\v"
_COMMENT = r"--[^\r\n]*+"
_GAP = rf"(?a)\s++|{_COMMENT}|/\*|\A(?:\ufeff|\xef\xbb\xbf)"  # a byte order mark
_COMMENT_EDGE = r"/\*|\*/"
_LINE_END = r"\r\n?|\n"

# Between the words of one command; a comment inside a comment is not looked for there.
BETWEEN = rf"(?:\s|{_COMMENT}|/\*(?:[^*]|\*(?!/))*+\*/)++"

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
# And what stands between them, for those who read a statement's tokens.
_TOKEN = rf"""{_LANDMARK}
  | (?P<word>{_LETTER}{_IN_WORD}*+)
  | (?P<number>[0-9]{_IN_WORD}*+)
  | (?P<other>[^\s\ufeff])
"""
_NESTING = {"(": 1, ")": -1, "c": 1, "e": -1}

_CREATE = rf"(?ia)CREATE{_WORD_END}"
_ATOMIC = rf"(?ia)ATOMIC{_WORD_END}"
_COPY_FROM_STDIN = rf"""(?xia)
    COPY{_WORD_END}
    (?: {BETWEEN} | "[^"]*+" | \((?:"[^"]*+"|[^()"])*+\) | [.]
      | (?!FROM{BETWEEN}STDIN{_WORD_END}){_IN_WORD}++ )*+
    FROM{BETWEEN}STDIN{_WORD_END}
"""
# As psql reads them from a file: from the next line on, up to a line of these two characters.
_BEFORE_COPY_DATA = r";[ \t\f\v]*+\r?(?=\n)"
_END_OF_COPY_DATA = r"\n\\\.\r?(?=\n|\Z)"
_MAYBE_COPY = ("stdin",)
_MAYBE_PSQL_ONLY = ("\\", *_MAYBE_COPY)
_META_COMMAND = r"\\((?:\w|[^\x00-\x7f])+|.?)"
_RESTRICTIONS = (r"\restrict", r"\unrestrict")

_TRANSACTION_COMMAND = rf"""(?xia)
    (?: (?P<opens> BEGIN | START(?={BETWEEN}TRANSACTION{_WORD_END}) )
      | PREPARE(?={BETWEEN}TRANSACTION{_WORD_END})
      | (?:ABORT|COMMIT|END|ROLLBACK)
        (?!(?:{BETWEEN}(?:WORK|TRANSACTION))?{BETWEEN}(?:TO|PREPARED){_WORD_END})
    ) {_WORD_END}
"""
# Those of them that say nothing else.
_PLAIN_BEGIN = rf"""(?xia)
    (?: BEGIN (?:{BETWEEN}(?:WORK|TRANSACTION))? | START{BETWEEN}TRANSACTION )
    (?:{BETWEEN})?
"""
_PLAIN_COMMIT = rf"""(?xia)
    (?:COMMIT|END) (?:{BETWEEN}(?:WORK|TRANSACTION))? (?:{BETWEEN}AND{BETWEEN}NO{BETWEEN}CHAIN)?
    (?:{BETWEEN})?
"""
# Finds every such command, and a few words that are none: a first word stands at the start, or
# after ";", a comment, or the end of a line.
_MAYBE_FIRST = r"[ \t\f\v\ufeff]*+(?i:abort|begin|commit|end|prepare|rollback|start)\b"
_MAYBE_TRANSACTION_COMMAND = rf"[;/\r\n]{_MAYBE_FIRST}"

# A function that only calls it is for others to call.
_LOCK_RELEASE = rf"""(?xias)
    (?: DISCARD{BETWEEN}ALL{_WORD_END} | (?!CREATE{_WORD_END}).*? (pg_advisory_unlock_all) )
"""
_MAYBE_LOCK_RELEASE = ("discard", "pg_advisory_unlock_all")

_PIECE = 1 << 16
"""So much of a text is copied at a time."""

_DIRECTIVE = r"--\s*(\w+)\s*:\s*(.*)"

_META_COMMAND_HINTS = {
    "c connect": "delete it: initmig stays connected to the database in its settings",
    "copy": "write INSERT ... VALUES, or a Python migration that uses cursor.copy()",
    "i ir include include_relative": "make that file a separate migration",
    "set gset unset prompt": "write the values themselves: initmig does not replace psql variables",
    "if elif else endif": "use IF in a DO block, or write a Python migration",
    "gexec": "loop over the query in a DO block, and EXECUTE each row",
    "g gx gdesc ;": "end the statement with a semicolon",
    "echo qecho warn": "delete it, or RAISE NOTICE in a DO block",
}


class Statement(Record):
    """One SQL statement, from its first token on, without its semicolon."""

    start: int
    end: int
    text: str


class CopyData(Record):
    """The data behind a COPY ... FROM STDIN, as offsets."""

    statement: int
    """Where the COPY begins."""
    start: int
    end: int
    after: int
    r"""Behind the ``\.`` that ends the data, and is none of it."""


class Token(Record):
    """A token, or a comment, of a statement."""

    kind: str
    """comment, string, dollar (a string), name (in double quotes), word, number, or other."""
    start: int
    end: int


class Finding(Record):
    """Something that a migration file must not contain, and what to do instead."""

    id: str
    """That of the error which it becomes."""
    offset: int
    message: str
    hint: str


class Directive(Record):
    """A line ``-- name: value`` in the header of a file; *offset* is that of the name."""

    name: str
    value: str
    offset: int
    is_read: bool = True
    """Whether yoyo reads it: only line comments and empty lines may stand above it."""


def octets(data: bytes) -> str:
    """*data*, which is UTF-8, with each byte of it as a character: offsets count bytes.

    The lexical rules need no more of a character beyond ASCII than that it is one, and in a
    proper text the one with the highest code would make up to four bytes of each.
    """
    return data.decode("latin-1")


def mentions(
    text: str | bytes, words: Iterable[str], start: int = 0, end: int | None = None
) -> bool:
    """Whether one of *words*, in lower case and ASCII, is in *text*, in whatever case.

    It is looked for from *start* to *end*.

    As bytes, of which megabytes take no time, where `re` takes seconds; and a piece at a time, as
    this copies them.
    """
    wanted = [word.encode() for word in words]
    overlap = max(map(len, wanted))
    last = len(text) if end is None else end
    for first in range(start, last, _PIECE):
        piece = text[first : min(first + _PIECE + overlap, last)]
        lower = (piece if isinstance(piece, bytes) else piece.encode("latin-1", "replace")).lower()
        if any(word in lower for word in wanted):
            return True
    return False


def split(text: str) -> list[Statement]:
    """Statements of *text* in order; empty ones, psql's commands and COPY data are left out."""
    return [Statement(start, end, text[start:end]) for start, end in spans(text)]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each of those statements, one at a time."""
    for start, end in _pieces(text):
        if text[start] != "\\":
            last = end
            while text[last - 1] in _WHITE_SPACE:
                last -= 1
            yield start, last


def extents(text: str) -> Iterator[tuple[int, int, int]]:
    """Start and end of each statement and command of psql, and the end with `;` and COPY data.

    Where the data has no end, because *text* is cut, it goes as far as that.
    """
    for start, end in _pieces(text):
        after = end if text[start] == "\\" else _after_statement(text, start, end)
        yield start, end, after


def tokens(text: str, start: int, end: int) -> Iterator[Token]:
    """The tokens of *text* from *start* to *end*, of which the last may be cut off.

    What stands before a string without a blank, as in ``E'...'``, is a word of its own.
    """
    search = _compiled(_TOKEN).search
    while mark := search(text, start, end):
        first, start = text[mark.start()], mark.end()
        kind = mark.lastgroup or ""
        if first == "/" and mark[0] == "/*":
            kind, start = "comment", min(end, _after_block_comment(text, start))
        elif kind not in ("word", "number", "other"):
            kind = _KINDS.get(first, "other")
            if first == "'":
                start = _after_string(text, mark, end)
        yield Token(kind, mark.start(), start)


_KINDS = {"'": "string", '"': "name", "$": "dollar", "-": "comment"}


def _after_string(text: str, mark: re.Match[str], end: int) -> int:
    """Offset behind the string that *mark* begins: two quotes in it are one character."""
    after = mark.end()
    more = _compiled(r"(?:'[^']*+'?)*+").match(text, after, end)
    return more.end() if more else after


def forbidden_in_transaction(text: str) -> list[Finding]:
    """Statements of *text* that would begin or end a transaction."""
    return [_transaction_finding(command) for command in _transaction_commands(text)]


def ending_transaction(text: str) -> list[str]:
    """The first word, in upper case, of each statement of *text* that would end a transaction."""
    return [each[0].upper() for each in _transaction_commands(text) if not each["opens"]]


def frame(text: str) -> list[tuple[int, int]]:
    """The words of the BEGIN that *text* begins with and of the COMMIT that it ends with.

    None unless both are there, say nothing else, and are its only transaction commands.
    """
    command = _compiled(_TRANSACTION_COMMAND).match(text, _after_gaps(text, 0))
    if not (command and command["opens"]):
        return []
    commands, last = [], (0, 0)
    for last in _pieces(text):
        if _compiled(_TRANSACTION_COMMAND).match(text, *last):
            commands.append(last)
    if len(commands) != 2 or commands[1] != last:
        return []
    for pattern, piece in zip((_PLAIN_BEGIN, _PLAIN_COMMIT), commands, strict=True):
        if not _compiled(pattern).fullmatch(text, *piece):
            return []
    return [word for start, end in commands for word in _words(text, start, end)]


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of what is in no comment of a statement, and of its semicolon."""
    for found in _compiled(rf"(?a){BETWEEN}|(\w++)").finditer(text, start, end):
        if found[1]:
            yield found.span()
    if text.startswith(";", end):
        yield end, end + 1


def blanked(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    """*data* with blanks for what stands from the start to the end of each of *spans*."""
    view = memoryview(data)  # for no more than one copy at a time
    kept: list[bytes | memoryview] = []
    after = 0
    for start, end in spans:
        kept += [view[after:start], b" " * (end - start)]
        after = end
    return b"".join([*kept, view[after:]])


def preparing_transactions(text: str) -> list[Finding]:
    """Statements of *text* that would leave a transaction prepared."""
    return [
        Finding(
            "prepare-transaction",
            command.start(),
            "PREPARE TRANSACTION would leave the transaction open, with its locks",
            "write COMMIT instead",
        )
        for command in _transaction_commands(text)
        if command[0].upper() == "PREPARE"
    ]


def _transaction_commands(text: str) -> Iterator[re.Match[str]]:
    if not (
        _compiled(_MAYBE_FIRST).match(text) or _compiled(_MAYBE_TRANSACTION_COMMAND).search(text)
    ):
        return
    for start, end in _pieces(text):
        if command := _compiled(_TRANSACTION_COMMAND).match(text, start, end):
            yield command


def releasing_locks(text: str) -> list[Finding]:
    """Statements of *text* that would release the migration lock with all others."""
    if not mentions(text, _MAYBE_LOCK_RELEASE):
        return []
    return [
        _lock_finding(start, found)
        for start, end in _pieces(text)
        if (found := _compiled(_LOCK_RELEASE).match(text, start, end))
    ]


def psql_only(text: str) -> list[Finding]:
    r"""Parts of *text* that only psql makes sense of: ``\commands``, COPY without its data."""
    if not mentions(text, _MAYBE_PSQL_ONLY):
        return []
    findings = []
    for start, end in _pieces(text):
        if command := _compiled(_META_COMMAND).match(text, start, end):
            findings.append(_meta_command_finding(command))
        elif _copies(text, start, end) and not _copy_data(text, start, end):
            findings.append(
                Finding(
                    "copy-without-data",
                    start,
                    r"COPY ... FROM STDIN has no data on the lines after it, up to a line with \.",
                    r"begin the data on the line after the semicolon, and end it with a line \. as"
                    " pg_dump does; or write INSERT ... VALUES",
                )
            )
    return findings


def copy_data(text: str) -> list[CopyData]:
    """The data of each COPY ... FROM STDIN of *text*, in order."""
    if not mentions(text, _MAYBE_COPY):
        return []
    found = (_copy_data(text, start, end) for start, end in _pieces(text))
    return [data for data in found if data]


def restrictions(text: str) -> list[tuple[int, int]]:
    r"""Start and end of each ``\restrict`` and ``\unrestrict`` of *text*.

    pg_dump writes them for psql, which then refuses all other commands that begin with a backslash;
    so does initmig, always. https://www.postgresql.org/docs/current/app-psql.html
    """
    if not mentions(text, _RESTRICTIONS):
        return []
    return [
        (start, end)
        for start, end in _pieces(text)
        if (command := _compiled(_META_COMMAND).match(text, start, end))
        and command[0] in _RESTRICTIONS
    ]


def header_end(text: str) -> int:
    """Offset of the first statement of *text*, behind all comments."""
    return _after_gaps(text, 0)


def header_directives(text: str) -> list[Directive]:
    """Directives in the comments before the first statement, whatever their names."""
    directives = []
    is_read = True
    for start, end in _gaps(text, 0):
        is_read = is_read and not text.startswith("/*", start)
        if match := _compiled(_DIRECTIVE).match(text, start, end):
            directives.append(Directive(match[1], match[2].strip(), match.start(1), is_read))
    return directives


def line_comments(text: str) -> Iterator[int]:
    """Offset of each ``--`` comment of *text*, outside of strings, block comments and COPY data."""
    after = 0
    for start, end in _pieces(text):
        yield from _comments(text, after, end)
        after = end if text[start] == "\\" else _after_statement(text, start, end)
    yield from _comments(text, after, len(text))


def _comments(text: str, start: int, end: int) -> Iterator[int]:
    while mark := _compiled(_LANDMARK).search(text, start, end):
        start = mark.end()
        if mark[0].startswith("--"):
            yield mark.start()
        elif mark[0] == "/*":
            start = _after_block_comment(text, start)


def _transaction_finding(command: re.Match[str]) -> Finding:
    name = command[0].upper()
    name = {"START": "START TRANSACTION", "PREPARE": "PREPARE TRANSACTION"}.get(name, name)
    effect = "begin a transaction inside the one" if command["opens"] else "end the transaction"
    remedy = "delete it"
    if command["opens"] and not _compiled(_PLAIN_BEGIN).fullmatch(
        command.string, command.start(), command.endpos
    ):
        remedy = "write SET TRANSACTION with its modes instead, and delete the COMMIT"
    return Finding(
        "transaction-command",
        command.start(),
        f"{name} would {effect} that initmig opened for this file",
        f"{remedy}, because initmig runs each file in one transaction;"
        " or put `-- transactional: false` at the top",
    )


def _lock_finding(start: int, found: re.Match[str]) -> Finding:
    if found[1]:
        hint = "release only the locks that the file took, each with pg_advisory_unlock(key)"
    else:
        hint = (
            "delete it, because initmig resets what a file sets; or write DISCARD TEMP or"
            " DISCARD PLANS"
        )
    name = found[1] or "DISCARD ALL"
    return Finding("releases-lock", start, f"{name} would release the migration lock", hint)


def _meta_command_finding(command: re.Match[str]) -> Finding:
    hints = (hint for names, hint in _META_COMMAND_HINTS.items() if command[1] in names.split())
    return Finding(
        "psql-command",
        command.start(),
        f"{command[0]} is a psql command, not SQL",
        next(hints, "delete it, because only psql knows commands that begin with a backslash"),
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
    if not _copies(text, start, end):
        return end + 1
    data = _copy_data(text, start, end)
    return data.after if data else len(text)


def _copies(text: str, start: int, end: int) -> bool:
    """Whether the statement from *start* to *end* is a COPY ... FROM STDIN."""
    return bool(_compiled(_COPY_FROM_STDIN).match(text, start, end))


def _copy_data(text: str, start: int, end: int) -> CopyData | None:
    """The data behind such a statement; None where there is none."""
    if not _copies(text, start, end):
        return None
    before = _compiled(_BEFORE_COPY_DATA).match(text, end)
    last = _compiled(_END_OF_COPY_DATA).search(text, before.end()) if before else None
    if not (before and last):
        return None
    return CopyData(start, before.end() + 1, last.start() + 1, last.end())


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
