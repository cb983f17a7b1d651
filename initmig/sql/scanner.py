"""Reads SQL: the statements, the COPY data, and the commands that a migration must not contain.

`Scanner` goes over a text once. Its `Scan` has everything that later steps need.

The lexical rules are PostgreSQL's. Only the rules that decide where a token ends are here:
https://www.postgresql.org/docs/current/sql-syntax-lexical.html
``standard_conforming_strings`` is assumed to be on.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import cache

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

# PostgreSQL takes every character beyond ASCII for a letter, never for white space.
_LETTER = r"(?:[A-Za-z_]|[^\x00-\x7f])"
_IN_WORD = r"(?:[\w$]|[^\x00-\x7f])"
_WORD_END = rf"(?!{_IN_WORD})"
_WHITE_SPACE = " \t\n\r\f\v"
_COMMENT = r"--[^\r\n]*+"
# pg_dump writes these for psql, which then refuses all other commands that begin with a backslash.
# initmig always refuses those, so the lines mean nothing here and count as white space.
# https://www.postgresql.org/docs/current/app-psql.html
_RESTRICTION = r"\\(?:un)?restrict(?!\w|[^\x00-\x7f])[^\r\n]*+"
_GAP = rf"(?a)\s++|{_COMMENT}|/\*|{_RESTRICTION}|\A(?:\ufeff|\xef\xbb\xbf)"  # a byte order mark
_COMMENT_EDGE = r"/\*|\*/"
_LINE_END = r"\r\n?|\n"

# Between the words of one command. Nested comments are not recognized here.
BETWEEN = rf"(?:\s|{_COMMENT}|/\*(?:[^*]|\*(?!/))*+\*/|{_RESTRICTION})++"

# Tokens that can hide or move the end of a statement. Each alternative begins with a literal, as
# `re` can then skip quickly to the next such character. A plain string needs no rule for '',
# because two adjacent strings end at the same place.
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
# The tokens between them, which only masking needs.
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
# As in a file for psql: the data begins on the next line and ends before a line with these two
# characters.
_BEFORE_COPY_DATA = r";[ \t\f\v]*+\r?(?=\n)"
_END_OF_COPY_DATA = r"\n\\\.\r?(?=\n|\Z)"
_MAYBE_COPY = ("stdin",)
_MAYBE_META_COMMAND = ("\\",)
_META_COMMAND = r"\\((?:\w|[^\x00-\x7f])+|.?)"

_TRANSACTION_COMMAND = rf"""(?xia)
    (?: (?P<opens> BEGIN | START(?={BETWEEN}TRANSACTION{_WORD_END}) )
      | PREPARE(?={BETWEEN}TRANSACTION{_WORD_END})
      | (?:ABORT|COMMIT|END|ROLLBACK)
        (?!(?:{BETWEEN}(?:WORK|TRANSACTION))?{BETWEEN}(?:TO|PREPARED){_WORD_END})
    ) {_WORD_END}
"""
# The same commands without options.
_PLAIN_BEGIN = rf"""(?xia)
    (?: BEGIN (?:{BETWEEN}(?:WORK|TRANSACTION))? | START{BETWEEN}TRANSACTION )
    (?:{BETWEEN})?
"""
_PLAIN_COMMIT = rf"""(?xia)
    (?:COMMIT|END) (?:{BETWEEN}(?:WORK|TRANSACTION))? (?:{BETWEEN}AND{BETWEEN}NO{BETWEEN}CHAIN)?
    (?:{BETWEEN})?
"""
# A quick test with false positives but no false negatives: a command is the first word of the text,
# or follows ";", a comment, or the end of a line.
_MAYBE_FIRST = r"[ \t\f\v\ufeff]*+(?i:abort|begin|commit|end|prepare|rollback|start)\b"
_MAYBE_TRANSACTION_COMMAND = rf"[;/\r\n]{_MAYBE_FIRST}"

# A CREATE FUNCTION that contains the call does not make it.
_LOCK_RELEASE = rf"""(?xias)
    (?: DISCARD{BETWEEN}ALL{_WORD_END} | (?!CREATE{_WORD_END}).*? (pg_advisory_unlock_all) )
"""
_MAYBE_LOCK_RELEASE = ("discard", "pg_advisory_unlock_all")

_PIECE = 1 << 16
"""Characters copied at a time."""

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
    """One SQL statement, from its first token to its last, without the semicolon."""

    start: int
    end: int
    text: str


class Spans(Sequence[tuple[int, int]]):
    """The start and end of each statement of a text, in order.

    In arrays, because a tuple for each statement can need more memory than the file.
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self.starts = array("Q")
        self.ends = array("Q")
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Append the next statement."""
        self.starts.append(start)
        self.ends.append(end)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.ends, strict=True)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(zip(self.starts[index], self.ends[index], strict=True))
        return self.starts[index], self.ends[index]


class CopyData(Record):
    """The data of a COPY ... FROM STDIN, as offsets."""

    statement: int
    """Where the COPY begins."""
    start: int
    end: int
    after: int
    r"""The end of the ``\.`` that terminates the data and is not part of it."""


class Token(Record):
    """A token or a comment in a statement."""

    kind: str
    """comment, string, dollar (a string), name (in double quotes), word, number, or other."""
    start: int
    end: int


class Finding(Record):
    """Something that a migration file must not contain, and what to write instead."""

    id: str
    """The id of the error."""
    offset: int
    message: str
    hint: str


class Directive(Record):
    """A line ``-- name: value`` in the header of a file; *offset* is where the name begins."""

    name: str
    value: str
    offset: int
    is_read: bool = True
    """Whether yoyo reads it: only line comments and empty lines can come before it."""


class Scan(Record):
    """The result of going over a text once. Offsets count characters, so bytes in `octets`."""

    first: int | None = None
    """Where the first statement begins, apart from a BEGIN in *frame*; None without statements."""
    statements: Sequence[tuple[int, int]] = ()
    """The start and end of each statement, if the text is not transactional; otherwise empty."""
    copies: Sequence[CopyData] = ()
    restrictions: Sequence[tuple[int, int]] = ()
    r"""The start and end of each ``\restrict`` and ``\unrestrict``."""
    frame: Sequence[tuple[int, int]] = ()
    """The words of a BEGIN and a COMMIT around a transactional text, with their semicolons.

    Empty unless the text has both without options, and no other transaction command.
    """
    comments: Sequence[int] = ()
    """Which of the offsets that the caller asked for begin a line comment."""
    psql_only: Sequence[Finding] = ()
    r"""Input that only psql understands: ``\commands``, and COPY without its data."""
    lock_releases: Sequence[Finding] = ()
    """Statements that would release the migration lock together with all others."""
    transaction_commands: Sequence[Finding] = ()
    """Statements that initmig cannot run in this text.

    In a transactional text, commands that begin or end a transaction, except those of *frame*;
    in any other text, PREPARE TRANSACTION.
    """


def octets(data: bytes) -> str:
    """The UTF-8 in *data* with one character for each byte, so that offsets count bytes.

    The lexical rules treat all characters beyond ASCII alike. A decoded text could need four times
    the memory, because its highest character decides the size of all others.
    """
    return data.decode("latin-1")


def mentions(
    text: str | bytes, words: Iterable[str], start: int = 0, end: int | None = None
) -> bool:
    """Whether *text* contains one of *words* from *start* to *end*, in upper or lower case.

    *words* are lower-case ASCII. The search runs over bytes, because `re` takes seconds for
    megabytes, and copies a piece at a time.
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
    """The statements of *text* in order, without empty ones, psql commands and COPY data."""
    return [Statement(start, end, text[start:end]) for start, end in spans(text)]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """The start and end of each of these statements, one at a time."""
    for start, end, _, _ in Scanner(text).pieces():
        if text[start] != "\\":
            yield start, _stripped_end(text, end)


def extents(text: str) -> Iterator[tuple[int, int, int]]:
    """The start and end of each statement and psql command, and the end with `;` and COPY data.

    COPY data without its last line, because *text* is cut, reaches to the end of *text*.
    """
    for start, end, after, _ in Scanner(text).pieces():
        yield start, end, after


def scan(text: str, *, transactional: bool) -> Scan:
    """As `Scanner.scan`, for all of *text*."""
    return Scanner(text).scan(transactional=transactional)


def ending_transaction(text: str) -> list[str]:
    """The first word, in upper case, of each statement in *text* that would end a transaction."""
    if not _may_have_transaction_command(text):
        return []
    return [
        command[0].upper()
        for start, end, _, _ in Scanner(text).pieces()
        for command in _find_command(text, start, end)
        if not command["opens"]
    ]


class Scanner:
    """Goes over *text* once, from the first character to the last.

    Call `directives` first, or not at all. Then call `scan` or `pieces`, which read the rest.
    *candidates* are offsets. `scan` reports which of them begin a ``--`` comment.
    """

    def __init__(self, text: str, candidates: Collection[int] = ()) -> None:
        self._text = text
        self._candidates = candidates
        self._comments: list[int] = []
        self._restrictions: list[tuple[int, int]] = []
        self.position = 0
        """Where to continue."""

    def directives(self) -> list[Directive]:
        """The directives in the comments before the first statement, with any name.

        The text must be `octets`.
        """
        directives = []
        is_read = True
        for start, end in self._gaps():
            is_read = is_read and not self._text.startswith("/*", start)
            if self._text.startswith("--", start):
                comment = self._text[start:end].encode("latin-1").decode(errors="replace")
                if match := _compiled(_DIRECTIVE).match(comment):
                    offset = start + len(comment[: match.start(1)].encode())
                    directives.append(Directive(match[1], match[2].strip(), offset, is_read))
        return directives

    def scan(self, *, transactional: bool) -> Scan:
        """Everything in the text that matters to initmig if it is *transactional*, or not.

        Most transactional texts contain no word that matters. Of those only the beginning is read.
        """
        text = self._text
        find_copy = _find_copy if mentions(text, _MAYBE_COPY) else _find_nothing
        find_release = _find_release if mentions(text, _MAYBE_LOCK_RELEASE) else _find_nothing
        find_command = _find_command if transactional else _find_prepare
        if not _may_have_transaction_command(text):
            find_command = _find_nothing
        self._skip_gaps()
        finders = {find_copy, find_release, find_command}
        is_plain = finders == {_find_nothing} and not mentions(text, _MAYBE_META_COMMAND)
        if transactional and is_plain and not self._candidates:
            return Scan(self._first_statement())
        begin, last = self.position, (0, 0)
        firsts, statements, copies = list[int](), Spans(), list[CopyData]()
        psql_only, releases, commands = list[Finding](), list[Finding](), list[re.Match[str]]()
        for start, end, _, data in self.pieces():
            last = start, end
            if text[start] == "\\":
                psql_only.append(_meta_command_finding(text, start, end))
                continue
            if len(firsts) < _FRAMED:
                firsts.append(start)
            if not transactional:
                statements.add(start, _stripped_end(text, end))
            if data:
                copies.append(data)
            else:
                psql_only += map(_copy_finding, find_copy(text, start, end))
            releases += map(_lock_finding, find_release(text, start, end))
            commands += find_command(text, start, end)
        frame = _frame(commands, begin, last) if transactional else []
        if frame:
            firsts, commands = firsts[1:-1] if len(firsts) == _FRAMED else [], []
        describe = _transaction_finding if transactional else _prepare_finding
        return Scan(
            firsts[0] if firsts else None,
            statements,
            copies,
            self._restrictions,
            frame,
            self._comments,
            psql_only,
            releases,
            [*map(describe, commands)],
        )

    def _first_statement(self) -> int | None:
        while self._text.startswith(";", self.position):
            self.position += 1
            self._skip_gaps()
        return self.position if self.position < len(self._text) else None

    def pieces(self) -> Iterator[tuple[int, int, int, CopyData | None]]:
        """Each statement, without its ``;``, and each psql command.

        Its start, its end, the end of its semicolon and COPY data, and that data.
        """
        text = self._text
        self._skip_gaps()
        while (start := self.position) < len(text):
            data = None
            if text[start] == "\\":
                end = self.position = _line_end(text, start)
            else:
                end = self.position = self._statement_end(start)
                if text.startswith(";", end):
                    self.position = end + 1
                    if _find_copy(text, start, end):
                        data = _copy_data(text, start, end)
                        self.position = data.after if data else len(text)
            if end > start:
                yield start, end, self.position, data
            self._skip_gaps()

    def _statement_end(self, start: int) -> int:
        """The offset of the semicolon, backslash or end of text that ends a statement."""
        text = self._text
        landmark = _LANDMARK_IN_CREATE if _compiled(_CREATE).match(text, start) else _LANDMARK
        after, depth = start, 0
        while mark := _compiled(landmark).search(text, after):
            after = mark.end()
            first = text[mark.start()].lower()
            if first == ";" and depth == 0:
                return mark.start()
            if first == "\\":
                restriction = _compiled(_RESTRICTION).match(text, mark.start())
                if not restriction:
                    return mark.start()
                after = restriction.end()
            if first in "-\\":
                self._note(mark.start(), after)
            elif first == "/":
                after = _after_block_comment(text, after)
            elif first == "b" and _compiled(_ATOMIC).match(text, _after_gaps(text, after)):
                landmark, depth = _LANDMARK_IN_BODY, depth + 1
            depth = max(0, depth + _NESTING.get(first, 0))
        return len(text)

    def _skip_gaps(self) -> None:
        for _ in self._gaps():
            pass

    def _gaps(self) -> Iterator[tuple[int, int]]:
        """The start and end of each comment and white space up to the next token."""
        while (end := _gap_end(self._text, self.position)) > self.position:
            start, self.position = self.position, end
            self._note(start, end)
            yield start, end

    def _note(self, start: int, end: int) -> None:
        if self._text[start] == "\\":
            self._restrictions.append((start, end))
        elif start in self._candidates and self._text.startswith("--", start):
            self._comments.append(start)


_FRAMED = 3
"""The smallest number of statements in a frame that is not empty."""


def tokens(text: str, start: int, end: int) -> Iterator[Token]:
    """The tokens of *text* from *start* to *end*. The last one can be incomplete.

    The prefix of a string, as in ``E'...'``, is a separate word.
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
    """The end of the string that *mark* begins. Two quotes in it are one character."""
    after = mark.end()
    more = _compiled(r"(?:'[^']*+'?)*+").match(text, after, end)
    return more.end() if more else after


def _may_have_transaction_command(text: str) -> bool:
    return bool(
        _compiled(_MAYBE_FIRST).match(text) or _compiled(_MAYBE_TRANSACTION_COMMAND).search(text)
    )


# Each of these looks at a statement of a text and returns what it matches, if anything.


def _find_nothing(text: str, start: int, end: int) -> Sequence[re.Match[str]]:  # noqa: ARG001
    return ()


def _find_copy(text: str, start: int, end: int) -> Sequence[re.Match[str]]:
    return _matches(_COPY_FROM_STDIN, text, start, end)


def _find_release(text: str, start: int, end: int) -> Sequence[re.Match[str]]:
    return _matches(_LOCK_RELEASE, text, start, end)


def _find_command(text: str, start: int, end: int) -> Sequence[re.Match[str]]:
    return _matches(_TRANSACTION_COMMAND, text, start, end)


def _find_prepare(text: str, start: int, end: int) -> Sequence[re.Match[str]]:
    found = _find_command(text, start, end)
    return [each for each in found if each[0].upper() == "PREPARE"]


def _matches(pattern: str, text: str, start: int, end: int) -> Sequence[re.Match[str]]:
    found = _compiled(pattern).match(text, start, end)
    return [found] if found else ()


def _frame(
    commands: Sequence[re.Match[str]], begin: int, last: tuple[int, int]
) -> list[tuple[int, int]]:
    """As `Scan.frame`, if the text begins at *begin* and *last* is its last statement."""
    if len(commands) != 2:
        return []
    opening, closing = commands
    if opening.start() != begin or (closing.start(), closing.endpos) != last:
        return []
    for pattern, command in ((_PLAIN_BEGIN, opening), (_PLAIN_COMMIT, closing)):
        if not _compiled(pattern).fullmatch(command.string, command.start(), command.endpos):
            return []
    return [word for each in commands for word in _words(each.string, each.start(), each.endpos)]


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The start and end of each word of a statement, outside of comments, and of its semicolon."""
    for found in _compiled(rf"(?a){BETWEEN}|(\w++)").finditer(text, start, end):
        if found[1]:
            yield found.span()
    if text.startswith(";", end):
        yield end, end + 1


def blanked(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    """*data* with blanks instead of the bytes in *spans*."""
    view = memoryview(data)  # so that no more than one copy is in memory
    kept: list[bytes | memoryview] = []
    after = 0
    for start, end in spans:
        kept += [view[after:start], b" " * (end - start)]
        after = end
    return b"".join([*kept, view[after:]])


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


def _prepare_finding(command: re.Match[str]) -> Finding:
    return Finding(
        "prepare-transaction",
        command.start(),
        "PREPARE TRANSACTION would leave the transaction open, with its locks",
        "write COMMIT instead",
    )


def _lock_finding(found: re.Match[str]) -> Finding:
    if found[1]:
        hint = "release only the locks that the file took, each with pg_advisory_unlock(key)"
    else:
        hint = (
            "delete it, because initmig resets what a file sets; or write DISCARD TEMP or"
            " DISCARD PLANS"
        )
    name = found[1] or "DISCARD ALL"
    return Finding("releases-lock", found.start(), f"{name} would release the migration lock", hint)


def _meta_command_finding(text: str, start: int, end: int) -> Finding:
    command = _compiled(_META_COMMAND).match(text, start, end)
    assert command  # noqa: S101 - it begins with a backslash
    hints = (hint for names, hint in _META_COMMAND_HINTS.items() if command[1] in names.split())
    return Finding(
        "psql-command",
        start,
        f"{command[0]} is a psql command, not SQL",
        next(hints, "delete it, because only psql knows commands that begin with a backslash"),
    )


def _copy_finding(copy: re.Match[str]) -> Finding:
    return Finding(
        "copy-without-data",
        copy.start(),
        r"COPY ... FROM STDIN has no data on the lines after it, up to a line with \.",
        r"begin the data on the line after the semicolon, and end it with a line \. as"
        " pg_dump does; or write INSERT ... VALUES",
    )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile at the first use: several ms, which a start with nothing pending does not need."""
    return re.compile(pattern)


def _stripped_end(text: str, end: int) -> int:
    """The end of a statement without the white space before *end*."""
    while text[end - 1] in _WHITE_SPACE:
        end -= 1
    return end


def _copy_data(text: str, start: int, end: int) -> CopyData | None:
    """The data after the COPY from *start* to *end*; None if it is missing."""
    before = _compiled(_BEFORE_COPY_DATA).match(text, end)
    last = _compiled(_END_OF_COPY_DATA).search(text, before.end()) if before else None
    if not (before and last):
        return None
    return CopyData(start, before.end() + 1, last.start() + 1, last.end())


def _gap_end(text: str, start: int) -> int:
    """The end of the comment or white space that begins at *start*, if there is any."""
    gap = _compiled(_GAP).match(text, start)
    if not gap:
        return start
    return _after_block_comment(text, gap.end()) if gap[0] == "/*" else gap.end()


def _after_gaps(text: str, start: int) -> int:
    while (end := _gap_end(text, start)) > start:
        start = end
    return start


def _after_block_comment(text: str, start: int) -> int:
    """The end of the comment whose ``/*`` ends at *start*. Comments can be nested."""
    depth = 1
    for edge in _compiled(_COMMENT_EDGE).finditer(text, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _line_end(text: str, start: int) -> int:
    match = _compiled(_LINE_END).search(text, start)
    return match.start() if match else len(text)
