"""The text of an SQL file: decoded, its directives read, and what is wrong with it."""

from __future__ import annotations

from initmig.errors import Place, Problem
from initmig.records import TYPE_CHECKING, Record
from initmig.sql.scanner import (
    Finding,
    forbidden_in_transaction,
    header_directives,
    header_end,
    in_characters,
    octets,
    offset_of,
    position,
    preparing_transactions,
    psql_only,
    releasing_locks,
    without_restrictions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from initmig.sql.scanner import (
        Directive,
    )

_DIRECTIVES = ("transactional", "depends", "breaking")
_BOOLEANS = {"true": True, "false": False}


class Header(Record):
    """What the directives at the top of a migration say."""

    transactional: bool
    breaking: bool
    depends: frozenset[str]


class Source:
    """The text of *path*, as *data* in UTF-8, and the *problems* found in it so far.

    A byte order mark is left out, and what pg_dump writes for psql alone; line ends stay as they
    are, for one inside of a string is data.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.data = self._checked(without_mark(data))
        text = octets(self.data)
        kept = without_restrictions(text)
        if kept is not text:
            self.data = kept.encode("latin-1")
        self._object_to(*psql_only(kept), *releasing_locks(kept))

    def _checked(self, data: bytes) -> bytes:
        """*data*; nothing where it is not UTF-8."""
        if (wrong := _not_utf8(data)) is not None:
            line, column, *_ = position(data[:wrong], wrong)
            self.problems.append(
                Problem(
                    "not-utf8",
                    f"byte 0x{data[wrong]:02x} is not UTF-8",
                    f"save the file as UTF-8, for example: iconv -f LATIN1 -t UTF-8 {self.path}",
                    Place(self.path, line, column),
                )
            )
            return b""
        if (nul := data.find(0)) >= 0:
            self.problems.append(
                Problem(
                    "nul-character",
                    "a NUL character, at which PostgreSQL would stop reading",
                    "remove it",
                    place_at(self.path, data, nul),
                )
            )
        return data

    def _object(self, finding: Finding) -> None:
        place = place_at(self.path, self.data, finding.offset)
        self.problems.append(Problem(finding.id, finding.message, finding.hint, place))

    def _object_to(self, *findings: Finding) -> None:
        """Object to what was found in octets, which are in its message too."""
        for each in findings:
            message = each.message.encode("latin-1").decode(errors="replace")
            self._object(each._replace(message=message))

    def header(self) -> Header:
        """The directives that initmig or yoyo act on; a near miss is a problem, a comment not."""
        header = self.data[: header_end(octets(self.data))]
        directives = [
            each._replace(offset=offset_of(header, 0, each.offset))
            for each in header_directives(header.decode())
        ]
        for directive in directives:
            if directive.name not in _DIRECTIVES and (meant := _near_miss(directive.name)):
                self._object(
                    Finding(
                        "unknown-directive",
                        directive.offset,
                        f"unknown directive {directive.name!r}",
                        f"write `-- {meant}: {directive.value}`",
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
            fault = f"directive {name!r} stands {len(given)} times"
        elif value.lower() not in _BOOLEANS:
            fault = f"directive {name!r} is {value!r}, not true or false"
        else:
            return _BOOLEANS[value.lower()]
        hint = f"write `-- {name}: true` or `-- {name}: false`, once"
        self._object(Finding("invalid-directive", given[-1].offset, fault, hint))
        return default

    def check_transactions(self, *, transactional: bool) -> None:
        """Object to statements that would end initmig's transaction, or leave one prepared."""
        find = forbidden_in_transaction if transactional else preparing_transactions
        self._object_to(*find(octets(self.data)))


def _near_miss(name: str) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.lower(), _DIRECTIVES, n=1, cutoff=0.75)), "")


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
    line, column, source, before = position(data, offset)
    return Place(path, line, column, source, before)
