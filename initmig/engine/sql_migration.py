"""A migration in SQL: the server gets it as it stands in the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from yoyo.migrations import Migration as YoyoMigration

from initmig.files import read_sql
from initmig.model import Migration, MigrationFile, Step
from initmig.postgres import Session, StatementFailed
from initmig.source import place_at
from initmig.sql import Statement, split

if TYPE_CHECKING:
    from initmig.engine.backend import Backend


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

    def apply(self, backend: "Backend", force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        if self._apply:
            self._apply.run(backend.session)

    def rollback(self, backend: "Backend", force: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        if self._rollback:
            self._rollback.run(backend.session)


class SqlMigration(YoyoMigration):  # type: ignore[misc]
    """A yoyo migration whose SQL is not split where the server can do that better.

    :raises ConfigError: the file, or its rollback, is unfit; with every problem of both
    """

    def __init__(self, file: MigrationFile) -> None:
        super().__init__(file.id, file.path, file.folder)
        source = read_sql(file)
        self.use_transactions = source.header.transactional
        apply = self._scripts(file.path, source.apply)
        rollback = self._scripts(file.rollback_path, source.rollback)
        # rolling back goes through the steps from the last to the first
        self.steps = [_SqlStep(apply=script) for script in apply]
        self.steps += [_SqlStep(rollback=script) for script in reversed(rollback)]
        shown = Step(source.apply, source.rollback if split(source.rollback) else "")
        self.description = Migration(file, source.checksum, *source.header, (shown,), self)

    @contextmanager
    def errors_placed(self, session: Session) -> Iterator[None]:  # noqa: ARG002
        """Nothing to do: each script names its own place."""
        yield

    def _scripts(self, path: str, text: str) -> list[_Script]:
        if self.use_transactions:
            return [_Script(path, text)]
        return [_Script(path, text, statement) for statement in split(text)]
