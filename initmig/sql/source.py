"""The text of an SQL file: decoded, its directives read, and what is wrong with it."""

from __future__ import annotations

from initmig.core.errors import Problem
from initmig.core.records import TYPE_CHECKING, Record
from initmig.sql.lines import Lines, in_characters, offset_of
from initmig.sql.scanner import (
    Finding,
    blanked,
    forbidden_in_transaction,
    frame,
    header_directives,
    header_end,
    octets,
    preparing_transactions,
    psql_only,
    releasing_locks,
    restrictions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from initmig.core.errors import Place
    from initmig.sql.scanner import (
        Directive,
    )

_BOOLEAN_DIRECTIVES = ("transactional", "breaking")
_DIRECTIVES = (*_BOOLEAN_DIRECTIVES, "depends")
_BOOLEANS = {"true": True, "false": False}


class Header(Record):
    """What the directives at the top of a migration say."""

    transactional: bool
    breaking: bool
    depends: frozenset[str]


class Source:
    """The text of *path*, as *data* in UTF-8, and the *problems* found in it so far.

    `header` also finds the places of directives that are *ignored*.

    A byte order mark is left out. Blanks stand for what pg_dump writes for psql alone. Line ends
    stay as they are, for one inside of a string is data.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.ignored: tuple[Place, ...] = ()
        self.data = self._checked(without_mark(data))
        self._blank_out(restrictions(octets(self.data)))
        text = octets(self.data)
        self.lines = Lines(path, self.data)
        self._object_to(*psql_only(text), *releasing_locks(text))

    def _checked(self, data: bytes) -> bytes:
        """*data*; nothing where it is not UTF-8."""
        if (wrong := _not_utf8(data)) is not None:
            place = Lines(self.path, data[:wrong]).numbers(wrong)
            self.problems.append(
                Problem(
                    "not-utf8",
                    f"byte 0x{data[wrong]:02x} is not valid UTF-8",
                    f"save the file as UTF-8, for example: iconv -f LATIN1 -t UTF-8 {self.path}",
                    place,
                )
            )
            return b""
        if (nul := data.find(0)) >= 0:
            self.problems.append(
                Problem(
                    "nul-character",
                    "the file contains a NUL character, where PostgreSQL would stop reading",
                    "remove it",
                    place_at(self.path, data, nul),
                )
            )
        return data

    def _blank_out(self, spans: Sequence[tuple[int, int]]) -> None:
        """From here on, the data has blanks for the *spans*, so that all else keeps its place."""
        if spans:
            self.data = blanked(self.data, spans)

    def _object(self, finding: Finding) -> None:
        place = self.lines.place(finding.offset)
        self.problems.append(Problem(finding.id, finding.message, finding.hint, place))

    def _object_to(self, *findings: Finding) -> None:
        """Object to what was found in octets, which are in its message too."""
        for each in findings:
            message = each.message.encode("latin-1").decode(errors="replace")
            self._object(each._replace(message=message))

    def header(self) -> Header:
        """The directives that initmig or yoyo act on, in the lines where yoyo looks for its own.

        A near miss with the value of a directive is a problem; what reads as a comment is one.
        """
        header = self.data[: header_end(octets(self.data))]
        directives = [
            each._replace(offset=offset_of(header, 0, each.offset))
            for each in header_directives(header.decode())
        ]
        self.ignored = tuple(
            place_at(self.path, self.data, each.offset)
            for each in directives
            if each.name in _DIRECTIVES and each.value and not (each.is_read or _is_prose(each))
        )
        directives = [each for each in directives if each.is_read and not _is_prose(each)]
        for directive in directives:
            if meant := _near_miss(directive):
                self._object(
                    Finding(
                        "unknown-directive",
                        directive.offset,
                        f"unknown directive {directive.name!r}",
                        f"write `-- {meant}: {directive.value.lower()}`",
                    )
                )
        return Header(
            self._boolean("transactional", directives, default=True),
            self._boolean("breaking", directives, default=False),
            frozenset(id for d in directives if d.name == "depends" for id in d.value.split()),
        )

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
        self._object(Finding("invalid-directive", given[-1].offset, fault, hint))
        return default

    def check_transactions(self, *, transactional: bool) -> None:
        """Object to statements that would end initmig's transaction, or leave one prepared.

        A BEGIN and a COMMIT around all that runs in initmig's transaction are left out, for they
        say the same.
        """
        if transactional:
            self._blank_out(frame(octets(self.data)))
            self._object_to(*forbidden_in_transaction(octets(self.data)))
        else:
            self._object_to(*preparing_transactions(octets(self.data)))


def _near_miss(directive: Directive) -> str:
    """The name that is meant by another one before ``true`` or ``false``; empty if none is."""
    if directive.name in _DIRECTIVES or directive.value.lower() not in _BOOLEANS:
        return ""
    from difflib import get_close_matches

    name = directive.name.lower()
    return next(iter(get_close_matches(name, _BOOLEAN_DIRECTIVES, n=1, cutoff=0.75)), "")


def _is_prose(directive: Directive) -> bool:
    """Whether it tells people what breaks: yoyo has no ``breaking``, and takes it for a comment."""
    first, *others = directive.value.lower().split() or [""]
    said = bool(others) and first.rstrip(".,;:") not in _BOOLEANS
    return directive.name == "breaking" and (said or not first)


def _not_utf8(data: bytes) -> int | None:
    """The offset of the first byte of *data* that is not UTF-8; None where all is."""
    for start, piece in in_characters(data, 0, len(data)):
        try:
            piece.decode()
        except UnicodeDecodeError as error:
            return start + error.start
    return None


def without_mark(data: bytes) -> bytes:
    """*data* without a byte order mark."""
    return data.removeprefix(b"\xef\xbb\xbf")


def place_at(path: str, data: bytes, offset: int) -> Place:
    """The place of the character at the byte *offset* (0-based) in the *data* of *path*."""
    return Lines(path, data).place(offset)
