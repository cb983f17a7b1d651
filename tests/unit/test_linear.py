"""The work for a file grows with its statements, and not faster: counted, and not timed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

import pytest

import initmig
from initmig.core.model import Migration, MigrationFile, Step
from initmig.engine.batch import Script
from initmig.engine.python_strings import PythonStrings
from initmig.engine.sql_parts import parts_of, statements_of
from initmig.sql.leftovers import changes, left
from initmig.sql.lines import Lines
from initmig.sql.lock_forecast import Finding, forecast_of
from initmig.sql.masking import mask_sql
from initmig.sql.not_in_transaction import refused_in_transaction
from initmig.sql.relations import Inventory, Relation
from initmig.sql.requirements import outstanding, read_requirements
from initmig.sql.scanner import octets, scan, spans
from initmig.sql.source import Source
from tests.support.migrations import NO_CODE
from tests.support.steps import step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


PACKAGE = str(Path(initmig.__file__).parent)


class Work:
    """Counts the work inside the block: lines of initmig's code that run, and bytes read."""

    def __init__(self) -> None:
        self.amount = 0

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        self.amount += event == "line"
        return self._trace


class Counted(bytes):
    """Bytes that count how many of them are read."""

    work: Work

    @classmethod
    def of(cls, data: bytes, work: Work) -> Counted:
        counted = cls(data)
        counted.work = work
        return counted

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        found = super().__getitem__(key)
        if not isinstance(found, bytes):
            return found
        self.work.amount += len(found)
        return Counted.of(found, self.work)

    def _read(self, start: int = 0, end: int | None = None) -> None:
        self.work.amount += len(range(*slice(start, end).indices(len(self))))

    def count(self, sub: Any, *limits: Any) -> int:
        self._read(*limits)
        return super().count(sub, *limits)

    def find(self, sub: Any, *limits: Any) -> int:
        self._read(*limits)
        return super().find(sub, *limits)

    def rfind(self, sub: Any, *limits: Any) -> int:
        self._read(*limits)
        return super().rfind(sub, *limits)

    def decode(self, *arguments: Any, **named: Any) -> str:
        self._read()
        return super().decode(*arguments, **named)


def places(text: str, line_end: str) -> Callable[[int, Work], object]:
    """The places of all statements that are *text*."""

    def work_on(number: int, work: Work) -> object:
        data = Counted.of(line_end.join([f"{text};"] * number).encode(), work)
        lines = Lines("a.sql", data)
        return [lines.numbers(start) for start, _ in spans(octets(data))]

    return work_on


def planned(number: int, work: Work) -> object:
    text = "".join(
        f"ALTER TABLE users ADD c{i} int; CREATE TABLE t{i} (id int REFERENCES users);\n"
        for i in range(number)
    )
    data = Counted.of(text.encode(), work)
    file = MigrationFile("a", "a.sql")
    step = Step(data, b"", place_at=Lines("a.sql", data).numbers)
    migration = Migration(file, "", True, False, frozenset(), (step,), NO_CODE)
    findings = [Finding("a.sql", i + 1, 5, "words") for i in range(number)]
    inventory = Inventory(relations=(Relation(1, "public", "users", "r"),))
    found = forecast_of([migration], inventory, findings)["a"]
    assert len(found) == 2 * number
    return found


def renamed_again_and_again(number: int, work: Work) -> object:
    text = "".join(f"ALTER TABLE t{i} RENAME TO t{i + 1};\n" for i in range(number))
    step = Step(Counted.of(text.encode(), work), b"")
    migration = Migration(
        MigrationFile("a", "a.sql"), "", True, False, frozenset(), (step,), NO_CODE
    )
    inventory = Inventory(relations=(Relation(1, "public", "t0", "r"),))
    return forecast_of([migration], inventory)


def parts(number: int, work: Work) -> object:
    data = Counted.of(b"SELECT 1;\nBEGIN; SELECT 2; COMMIT;%60s\n" % b"" * number, work)
    scanned = scan(octets(data), transactional=False)
    found, _ = parts_of("a.sql", data, scanned, lambda _: None)
    assert len(found) == 2 * number
    return [part.place for part in found]


def statements_to_rehearse(number: int, work: Work) -> object:
    script = Script.of("a.sql", Counted.of(b"SELECT 1;%80s\n" % b"" * number, work), ())
    return [part.place for part in statements_of(script)]


def strings_in_python(number: int, work: Work) -> object:
    del work
    strings = PythonStrings("a.py", "".join(f'step("SELECT {i}")\n' for i in range(number)))
    return [strings.place(f"SELECT {i}") for i in range(number)]


def needs(number: int, work: Work) -> object:
    text = "".join(f"CREATE TABLE t{i} (id int); DROP TABLE u{i};\n" for i in range(number))
    stated, _ = read_requirements("a.sql", step_of("a.sql", Counted.of(text.encode(), work)))
    return [each.place for each in outstanding(stated, "public")]


def problems(number: int, work: Work) -> object:
    source = Source("a.sql", Counted.of(b"SELECT 1;\nCOMMIT;%80s\n" % b"" * number, work))
    found = source.content.problems
    assert len(found) == number
    return found


def refused_in_a_transaction(number: int, work: Work) -> object:
    data = Counted.of(b"VACUUM t; %80s\n" % b"" * number, work)
    step = Step(data, b"")
    migration = Migration(
        MigrationFile("a", "a.sql"), "", True, False, frozenset(), (step,), NO_CODE
    )
    found = list(refused_in_transaction([migration]))
    assert len(found) == number
    return found


def leftovers(number: int, work: Work) -> object:
    text = "".join(f"CREATE TEMP TABLE t{i} (id int);" for i in range(number))
    text += "".join(f"DROP TABLE t{i};" for i in reversed(range(number)))
    found = changes(Counted.of(text.encode(), work))
    remaining = left(((0, change) for change in found), commits=True)
    assert not remaining
    return remaining


def masked(number: int, work: Work) -> object:
    del work
    return mask_sql("UPDATE users SET password = 'x', name = 'y'; SELECT 1;\n" * number)


def masked_in_one_statement(number: int, work: Work) -> object:
    del work
    return mask_sql(f"INSERT INTO t (token) VALUES {', '.join(['(f(1), crypt($$a$$))'] * number)}")


def masked_lines(number: int, work: Work) -> object:
    data = Counted.of(b"ALTER ROLE a PASSWORD 'x';%80s\n" % b"" * number, work)
    lines = Lines("a.sql", data)
    return [lines.place(start).source for start, _ in spans(octets(data))]


def cases() -> Iterator[Any]:
    for name, line_end in {"LF": "\n", "CRLF": "\r\n", "CR": "\r", "one line": " "}.items():
        for text in ("SELECT 1", "SELECT 'é漢🐘'"):
            yield pytest.param(places(f"{text:<90}", line_end), id=f"places: {name}, {text}")
    for case in (
        *(planned, renamed_again_and_again, parts, statements_to_rehearse, strings_in_python),
        *(needs, problems, refused_in_a_transaction, leftovers),
        *(masked, masked_in_one_statement, masked_lines),
    ):
        yield pytest.param(case, id=case.__name__.replace("_", " "))


def work_for(case: Callable[[int, Work], object], number: int) -> int:
    with Work() as work:
        case(number, work)
    return work.amount


@pytest.mark.parametrize("case", [*cases()])
def test_four_times_the_statements_are_four_times_the_work(
    case: Callable[[int, Work], object],
) -> None:
    # A block of 4096 bytes is read for a place: each file has to have more than one.
    work_for(case, 2)  # do the work that a process does only once
    few, many = work_for(case, 100), work_for(case, 400)
    assert many < 4.8 * few
