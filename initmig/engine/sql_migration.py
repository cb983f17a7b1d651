"""A migration in SQL: the server gets it as it stands in the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from yoyo.migrations import Migration as YoyoMigration

from initmig.engine.piecewise import Part
from initmig.errors import ConfigError
from initmig.events import ParserFellBack
from initmig.files import read_sql
from initmig.model import Migration, Step
from initmig.postgres import StatementFailed
from initmig.source import place_at
from initmig.sql import split
from initmig.statements import EndsBlock, OpensBlock, read_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.engine.backend import Backend
    from initmig.events import Emit
    from initmig.model import Direction, MigrationFile
    from initmig.postgres.session import Session
    from initmig.statements import Statement


class _Script:
    """A yoyo step that hands its SQL to the server as one message."""

    def __init__(self, path: str, text: str, part: Statement | None = None) -> None:
        self._path = path
        self._text = text
        self._start, self._end = (part.start, part.end) if part else (0, len(text))

    @property
    def sql(self) -> str:
        return self._text[self._start : self._end]

    def run(self, session: Session) -> None:
        """:raises StatementFailed: with the place in the file."""
        try:
            session.run(self.sql)
        except StatementFailed as error:
            raise error.at(place_at(self._path, self._text, self._offset(error))) from error
        if session.connection.info.encoding != "utf-8":  # in which the rest is going to be sent
            session.run("SET client_encoding = 'UTF8'")

    def _offset(self, error: StatementFailed) -> int:
        """Where it failed: the server's position, else the start of the statement it was at."""
        if error.position:
            return self._start + error.position - 1
        statements = split(self.sql)
        at = min(error.completed, len(statements) - 1)
        return self._start + (statements[at].start if statements else 0)


class _SqlStep:
    """What yoyo calls a step, for a file of SQL; one direction each."""

    def __init__(self, *, apply: _Script | None = None, rollback: _Script | None = None) -> None:
        self._apply = apply
        self._rollback = rollback

    def apply(self, backend: Backend, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        if self._apply:
            self._apply.run(backend.session)

    def rollback(self, backend: Backend, force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        if self._rollback:
            self._rollback.run(backend.session)


class SqlMigration(YoyoMigration):  # type: ignore[misc]
    """A yoyo migration whose SQL is not split where the server can do that better.

    :raises ConfigError: the file, or its rollback, is unfit; with every problem of both
    """

    def __init__(self, file: MigrationFile, emit: Emit) -> None:
        super().__init__(file.id, file.path, file.folder)
        source = read_sql(file)
        self.use_transactions = source.header.transactional
        text = f"{source.apply}{source.rollback}".lower()
        self.sets_isolation = "isolation" in text
        self.sets_session = "set" in text
        self._parts: dict[Direction, tuple[Part, ...]] = {"apply": (), "rollback": ()}
        if self.use_transactions:
            # rolling back goes through the steps from the last to the first
            apply, rollback = (
                _Script(file.path, source.apply),
                _Script(file.rollback_path, source.rollback),
            )
            self.steps = [_SqlStep(apply=apply), _SqlStep(rollback=rollback)]
        else:
            self._parts["apply"] = _parts(file.path, source.apply, emit)
            self._parts["rollback"] = _parts(file.rollback_path, source.rollback, emit)
        shown = Step(source.apply, source.rollback if split(source.rollback) else "")
        self.description = Migration(
            file,
            source.checksum,
            *source.header,
            (shown,),
            self,
            source.rollback_checksum,
            tuple(part.place for part in self._parts["apply"]),
            tuple(part.place for part in self._parts["rollback"]),
        )

    def parts(self, direction: Direction) -> tuple[Part, ...]:
        """What the journal counts, in the order run; empty where it is one transaction."""
        return self._parts[direction]

    @contextmanager
    def errors_placed(self, session: Session) -> Iterator[None]:  # noqa: ARG002
        """Nothing to do: each script names its own place."""
        yield


def _parts(path: str, text: str, emit: Emit) -> tuple[Part, ...]:
    """The statements of *text*; what stands from a BEGIN to its end is one part.

    :raises ConfigError: a BEGIN has no end, or one that begins the next
    """
    reading = read_statements(text)
    if reading.fell_back:
        emit(ParserFellBack(path, reading.fell_back))
    parts: list[Part] = []
    block: list[Part] = []
    for statement in reading.statements:
        part = _part(path, text, statement)
        if isinstance(statement.kind, OpensBlock) or block:
            block.append(part)
        else:
            parts.append(part)
        if block and isinstance(statement.kind, EndsBlock):
            if statement.kind.chains:
                raise ConfigError(
                    "AND CHAIN begins a transaction that a later run could not begin again",
                    hint="write COMMIT; BEGIN; with what the next transaction needs",
                    place=part.place,
                )
            parts.append(_block(block))
            block = []
    if block:
        raise ConfigError(
            f"{block[0].sql} has no COMMIT",
            hint="end the transaction in the file in which it begins",
            place=block[0].place,
        )
    return tuple(parts)


def _part(path: str, text: str, statement: Statement) -> Part:
    script = _Script(path, text, statement)
    place = place_at(path, text, statement.start)
    return Part(lambda backend: script.run(backend.session), place, statement.text, statement.kind)


def _block(parts: Sequence[Part]) -> Part:
    begin, *body, end = parts
    assert isinstance(end.kind, EndsBlock)  # noqa: S101 - so it was found
    # the place of what is rolled back, or prepared for later, cannot be committed with it
    commit = end.sql if end.kind.commits else ""

    def run(backend: Backend) -> None:
        begin.run(backend)
        if backend.opening:
            backend.session.run(backend.opening)
        for part in body if commit else (*body, end):
            part.run(backend)

    return Part(run, begin.place, commit=commit, body=tuple(body) if commit else ())
