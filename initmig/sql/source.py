"""An SQL file, read once: its directives, what the server gets, and the problems in it."""

from __future__ import annotations

from functools import cached_property

from initmig.core.errors import Problem
from initmig.core.records import TYPE_CHECKING, Record
from initmig.sql.lines import Lines, in_characters
from initmig.sql.scanner import Finding, Scan, Scanner, blanked, octets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from initmig.core.errors import Place
    from initmig.sql.scanner import Directive

    FindMarks = Callable[[str], Mapping[int, str]]

_BOOLEAN_DIRECTIVES = ("transactional", "breaking")
_DIRECTIVES = (*_BOOLEAN_DIRECTIVES, "depends")
_BOOLEANS = {"true": True, "false": False}


class Header(Record):
    """The values of the directives at the top of a migration."""

    transactional: bool
    breaking: bool
    depends: frozenset[str]


class Content(Record):
    r"""An SQL file as the server gets it, and everything that reading it found.

    The *data* is UTF-8 without a byte order mark. Line ends are unchanged, because a line end in a
    string is data. Blanks replace ``\restrict`` and ``\unrestrict``, and a BEGIN and COMMIT around
    the whole file, so that all offsets stay the same.
    """

    data: bytes
    header: Header
    scan: Scan
    problems: Sequence[Problem]
    ignored: Sequence[Place]
    """Where the file has directives that yoyo does not read, so initmig ignores them as well."""


def _no_marks(_: str) -> Mapping[int, str]:
    return {}


class Source:
    """The file *path* with these *data*. It is tokenized only once, when `content` is first used.

    Three things can tokenize a part of it again:

    - A line of the file in an error or a warning is shown without its secrets. To find them, the
      statements in the line are tokenized, or the header for an ignored directive.
    - PostgreSQL's parser, which is a separate program, reads each statement of a non-transactional
      file. If it refuses a statement, it splits the file, and each part is tokenized again.
    - `plan`, `rehearse` and `doctor` look at the statements of the pending migrations.

    A rollback file *undoes* a migration and shares its directives. *find_marks* returns texts that
    matter if they are in a line comment, by their offsets in `octets`.
    """

    def __init__(
        self,
        path: str,
        data: bytes,
        *,
        undoes: Source | None = None,
        find_marks: FindMarks = _no_marks,
    ) -> None:
        self.path = path
        self._data = data
        self._undoes = undoes
        self._find_marks = find_marks

    @cached_property
    def _text(self) -> bytes:
        return without_mark(self._data)

    @cached_property
    def _marks(self) -> Mapping[int, str]:
        return self._find_marks(octets(self._text))

    @property
    def mark(self) -> tuple[int, str] | None:
        """The first of the marks that is in a line comment, with its offset."""
        comments = self.content.scan.comments if self._marks else ()
        return (comments[0], self._marks[comments[0]]) if comments else None

    def place_at(self, offset: int) -> Place:
        """The place of the byte *offset*, 0-based and after a byte order mark."""
        return Lines(self.path, self._text).place(offset)

    @cached_property
    def content(self) -> Content:
        """The SQL for the server, and everything that reading the file found."""
        reader, header, scan = self._read()
        if problem := _not_utf8(self.path, self._text):
            return Content(b"", header, scan, [problem], ())
        data = self._text
        if blanks := (*scan.restrictions, *scan.frame):
            data = blanked(data, sorted(blanks))
        lines = Lines(self.path, self._text)
        findings = [
            *map(_decoded, (*scan.psql_only, *scan.lock_releases)),
            *(() if self._undoes else reader.findings),
            *map(_decoded, scan.transaction_commands),
        ]
        problems = [
            *_nul_characters(self.path, data),
            *(Problem(f.id, f.message, f.hint, lines.place(f.offset)) for f in findings),
        ]
        return Content(data, header, scan, problems, reader.ignored())

    def _read(self) -> tuple[_HeaderReader, Header, Scan]:
        marks = self._marks  # before the octets, or there would be two copies of them
        scanner = Scanner(octets(self._text), marks)
        reader = _HeaderReader(self.path, self._text, scanner)
        header = self._undoes.content.header if self._undoes else reader.header
        return reader, header, scanner.scan(transactional=header.transactional)


def _decoded(finding: Finding) -> Finding:
    """*finding* with the characters that its message has as `octets`."""
    message = finding.message.encode("latin-1").decode(errors="replace")
    return finding._replace(message=message)


class _HeaderReader:
    """Reads the directives that initmig or yoyo act on, from the lines where yoyo looks for them.

    A misspelled directive is a finding if its value is that of a directive. Otherwise it is taken
    for a comment.
    """

    def __init__(self, path: str, data: bytes, scanner: Scanner) -> None:
        self._lines = Lines(path, data)
        self.findings: list[Finding] = []
        directives = [each for each in scanner.directives() if not _is_prose(each)]
        self._end = scanner.position
        self._ignored = [
            each
            for each in directives
            if each.name in _DIRECTIVES and each.value and not each.is_read
        ]
        directives = [each for each in directives if each.is_read]
        for directive in directives:
            if meant := _near_miss(directive):
                self.findings.append(
                    Finding(
                        "unknown-directive",
                        directive.offset,
                        f"unknown directive {directive.name!r}",
                        f"write `-- {meant}: {directive.value.lower()}`",
                    )
                )
        self.header = Header(
            self._boolean("transactional", directives, default=True),
            self._boolean("breaking", directives, default=False),
            frozenset(id for d in directives if d.name == "depends" for id in d.value.split()),
        )

    def ignored(self) -> Sequence[Place]:
        """Where directives are that yoyo does not read."""
        # within the header, so that no statement is tokenized for its secrets
        return tuple(self._lines.place(each.offset, (0, self._end)) for each in self._ignored)

    def _boolean(self, name: str, directives: Iterable[Directive], *, default: bool) -> bool:
        given = [directive for directive in directives if directive.name == name]
        if not given:
            return default
        value = given[-1].value
        if len(given) > 1:
            fault = f"directive {name!r} appears {len(given)} times"
        elif value.lower() not in _BOOLEANS:
            fault = f"directive {name!r} is {value!r}, but must be true or false"
        else:
            return _BOOLEANS[value.lower()]
        hint = f"write `-- {name}: true` or `-- {name}: false`, once"
        self.findings.append(Finding("invalid-directive", given[-1].offset, fault, hint))
        return default


def _near_miss(directive: Directive) -> str:
    """The correct name of a misspelled boolean directive; empty if it is not one."""
    if directive.name in _DIRECTIVES or directive.value.lower() not in _BOOLEANS:
        return ""
    from difflib import get_close_matches

    name = directive.name.lower()
    return next(iter(get_close_matches(name, _BOOLEAN_DIRECTIVES, n=1, cutoff=0.75)), "")


def _is_prose(directive: Directive) -> bool:
    """Whether ``breaking:`` begins a comment for people, because yoyo has no such directive."""
    first, *others = directive.value.lower().split() or [""]
    is_sentence = bool(others) and first.rstrip(".,;:") not in _BOOLEANS
    return directive.name == "breaking" and (is_sentence or not first)


def depends_of(data: bytes) -> frozenset[str]:
    """The ids in the ``depends`` directives of an SQL file. Its statements are not read."""
    text = without_mark(data)
    return _HeaderReader("", text, Scanner(octets(text))).header.depends


def _not_utf8(path: str, data: bytes) -> Problem | None:
    for start, piece in in_characters(data, 0, len(data)):
        try:
            piece.decode()
        except UnicodeDecodeError as error:
            wrong = start + error.start
            return Problem(
                "not-utf8",
                f"byte 0x{data[wrong]:02x} is not valid UTF-8",
                f"save the file as UTF-8, for example: iconv -f LATIN1 -t UTF-8 {path}",
                Lines(path, data[:wrong]).numbers(wrong),
            )
    return None


def _nul_characters(path: str, data: bytes) -> Iterator[Problem]:
    if (nul := data.find(0)) >= 0:
        yield Problem(
            "nul-character",
            "the file contains a NUL character, where PostgreSQL would stop reading",
            "remove it",
            Lines(path, data).place(nul),
        )


def without_mark(data: bytes) -> bytes:
    """*data* without a byte order mark."""
    return data.removeprefix(b"\xef\xbb\xbf")
