"""A migration in Python: yoyo imports and runs it, and initmig finds the place of an error."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from yoyo.exceptions import BadMigration
from yoyo.migrations import Migration as YoyoMigration
from yoyo.migrations import MigrationStep, StepGroup

from initmig.core.errors import (
    ConfigError,
    InitmigError,
    MigrationFailed,
    Place,
    Problem,
    ServerMessage,
)
from initmig.core.events import CommitIgnored
from initmig.core.forks import close_in_children, exiting_in_child
from initmig.core.model import Migration, Step
from initmig.engine.captured_output import capture_output, describe_error, yoyo_log
from initmig.engine.ended_transaction import NO_TRANSACTION
from initmig.engine.parts import Part, places_of
from initmig.engine.python_hints import hint_for
from initmig.engine.python_import import load_from_bytes
from initmig.engine.python_strings import PythonStrings, without_strings
from initmig.engine.transaction_blocks import group_blocks
from initmig.engine.yoyo_steps import flattened, functions_of, single_steps
from initmig.migrations.files import digest
from initmig.postgres import OPEN, StatementFailed
from initmig.sql.scanner import scan
from initmig.sql.statements import EndsBlock, EndsItsBlocks, OpensBlock, read_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.core.events import Emit
    from initmig.core.model import Direction
    from initmig.engine.channel import Channel
    from initmig.migrations.files import Contents
    from initmig.postgres import Session
    from initmig.sql.statements import Kind

close_in_children(OPEN)

_DIRECTIVES = ("__transactional__", "__depends__", "__breaking__")


class PythonMigration(YoyoMigration):  # type: ignore[misc]
    """A yoyo migration in Python, imported and run by yoyo, whose errors have a place in the file.

    :raises ConfigError: the file is not valid Python, raises an exception, or is invalid otherwise
    """

    def __init__(self, contents: Contents) -> None:
        file = contents.file
        super().__init__(file.id, file.path, file.folder)
        self._has_reported_commit = False
        self._import(contents.data)
        if self.use_transactions:
            self._strip_own_transactions()
        checksum = digest(contents.data)
        self.sets_isolation = "isolation" in (self.source or "").lower()
        self.sets_session = True  # the SQL of its functions is unknown
        steps = tuple(self._model_step(*each) for each in single_steps(self.steps))
        self._parts: dict[Direction, Sequence[Part]] = {"apply": (), "rollback": ()}
        if not self.use_transactions:
            self._parts = {"apply": self._parts_in("apply"), "rollback": self._parts_in("rollback")}
        self.description = Migration(
            file,
            checksum,
            bool(self.use_transactions),
            bool(getattr(self.module, "__breaking__", False)),
            _names(getattr(self.module, "__depends__", ())),
            steps,
            self,
            checksum,
            places_of(self._parts["apply"]),
            places_of(self._parts["rollback"]),
        )
        if problems := tuple(self._problems()):
            raise ConfigError.of(problems)

    def _strip_own_transactions(self) -> None:
        """Remove BEGIN and COMMIT from steps where they enclose all of the SQL."""
        for step, _ in single_steps(self.steps):
            for name in ("_apply", "_rollback"):
                if isinstance(code := getattr(step, name), str):
                    setattr(step, name, self._strings.without_transaction(code))

    def statements(self) -> tuple[Part, ...]:
        """The whole migration as one part, because the SQL of functions is unknown."""
        return (Part(lambda channel: self.run(channel, "apply"), Place(self.path)),)

    def visible_parts(self, direction: Direction) -> Sequence[Part]:
        """The steps that run in the *direction*. The SQL of functions is unknown."""
        return [self._part(step, direction) for step in self._steps_in(direction)]

    def _steps_in(self, direction: Direction) -> Sequence[Any]:
        steps = list(flattened(self.steps))
        return steps if direction == "apply" else steps[::-1]

    def parts(self, direction: Direction) -> Sequence[Part]:
        """The parts that the journal counts, in the order run; empty if it is transactional."""
        return self._parts[direction]

    def _parts_in(self, direction: Direction) -> Sequence[Part]:
        return group_blocks(self.visible_parts(direction))

    def _part(self, step: Any, direction: Direction) -> Part:
        def run(channel: Channel) -> None:
            self._run_step(channel, step, direction)

        code = getattr(step.step, f"_{direction}", None)
        if not isinstance(code, str):
            function = next(functions_of(step.step, direction), None)
            opaque = isinstance(step.step, StepGroup) or bool(function)
            return Part(run, self._place_of_code(function), opaque=opaque)
        place = self._place_of_code(code)
        kind = _kind_of(code, place)
        may_fail = step.ignore_errors in (direction, "all")
        # a step whose errors are ignored cannot be committed with its journal entry
        if may_fail and not isinstance(kind, OpensBlock | EndsBlock):
            return Part(run, place, kind=kind if isinstance(kind, EndsItsBlocks) else None)
        return Part(run, place, code, kind)

    def _model_step(self, step: Any, may_fail: frozenset[Direction]) -> Step:
        """yoyo's single *step* as `plan` shows it. Errors in *may_fail* directions are ignored."""
        apply, rollback = step._apply, step._rollback  # noqa: SLF001
        texts = _source_of(apply, self.path), _source_of(rollback, self.path)
        if callable(apply):
            place = self._place_of_code(apply)
            return Step(*texts, step.line, may_fail, lambda _: place, _name(apply))
        place_at = partial(self._strings.place_at, apply or "")
        return Step(*texts, step.line, may_fail, place_at)

    def _place_of_code(self, code: Any) -> Place:
        if isinstance(code, str):
            return self._place_of_sql(code)
        return Place(self.path, getattr(getattr(code, "__code__", None), "co_firstlineno", 0))

    @cached_property
    def _strings(self) -> PythonStrings:
        return PythonStrings(self.path, self.source or "")

    def _place_of_sql(self, sql: str, position: int = 0) -> Place:
        return self._strings.place(sql, position)

    def run(self, channel: Channel, direction: Direction) -> None:
        """Run the steps.

        :raises StatementFailed: the server refused a step
        :raises MigrationFailed: a step raised any other exception
        """
        for step in self.steps if direction == "apply" else reversed(self.steps):
            self._run_step(channel, step, direction)

    def _run_step(self, channel: Channel, step: Any, direction: Direction) -> None:
        # the migration's transaction, or a block that other steps begin and end
        is_in_transaction = self.use_transactions or channel.session.in_transaction
        ignored = partial(self._report_ignored_commit, channel.emit) if is_in_transaction else None
        channel.on_statement(partial(self._place_of_step, step, direction))
        with (
            capture_output(channel.emit, self._strings.without_secrets),
            self._translate_errors(channel.session, ignored),
            exiting_in_child(),
        ):
            getattr(step, direction)(channel.yoyo)
        function = next(functions_of(step.step, direction), None)
        if self.use_transactions and function and not channel.session.in_transaction:
            raise StatementFailed(
                "transaction-ended",
                "the transaction has already ended",
                place=self._place_of_code(function),
                server=ServerMessage(NO_TRANSACTION),
            )

    def _place_of_step(self, step: Any, direction: Direction) -> Place:
        code = getattr(step.step, f"_{direction}", None)
        return Place(self.path) if code is None else self._place_of_code(code)

    def _report_ignored_commit(self, emit: Emit, call: str) -> None:
        """Report the first *call* that would have committed, and its line."""
        if self._has_reported_commit:
            return
        self._has_reported_commit = True
        frames = traceback.walk_stack(None)
        lines = (line for frame, line in frames if self._is_this_file(frame.f_code.co_filename))
        emit(CommitIgnored(self.id, call, self.path, next(lines, 0)))

    def _import(self, data: bytes) -> None:
        """Make yoyo import *data* as the file, without logging and without writing bytecode."""
        saved = sys.dont_write_bytecode, yoyo_log.disabled
        sys.dont_write_bytecode = yoyo_log.disabled = True
        try:
            with exiting_in_child():
                load_from_bytes(self, data)
        except BadMigration as error:
            if error.__context__ is not None:
                raise self._import_error(error.__context__) from error.__context__
            # a dependency is missing; the loader reports this for all files
            self.steps = self.module.__yoyo_collector__.create_steps(use_transactions=True)
        except (Exception, SystemExit) as error:
            raise self._import_error(error) from error
        finally:
            sys.dont_write_bytecode, yoyo_log.disabled = saved

    def _import_error(self, error: BaseException) -> ConfigError:
        hint = "fix the file; nothing was changed"
        if isinstance(error, SyntaxError) and self._is_this_file(error.filename):
            source = without_strings((error.text or "").rstrip("\n"))
            place = Place(self.path, error.lineno or 0, error.offset or 0, source)
            return ConfigError(
                "invalid-python",
                f"{self.id} is not valid Python: {error.msg}",
                hint=hint,
                place=place,
            )
        if isinstance(error, ImportError) and _is_relative(error):
            return ConfigError(
                "invalid-python",
                f"{self.id} has a relative import, but a migration is not part of a package",
                hint="import the module by its full name; nothing was changed",
                place=self._place_of(error),
            )
        if isinstance(error, ModuleNotFoundError) and error.name:
            return ConfigError(
                "module-not-found",
                f"{self.id} imports {error.name}, which is not installed",
                hint="; ".join(filter(None, (hint_for(error), "nothing was changed"))),
                place=self._place_of(error),
            )
        return ConfigError(
            "invalid-python",
            f"{self.id} raised {describe_error(error)} when it was imported",
            hint=hint,
            place=self._place_of(error),
        )

    def _problems(self) -> Iterator[Problem]:
        place = Place(self.path)
        for name in vars(self.module):
            if name.startswith("__") and name not in _DIRECTIVES:
                for meant in get_close_matches(name, _DIRECTIVES, n=1, cutoff=0.8):
                    yield Problem(
                        "unknown-directive", f"unknown directive {name}", f"write {meant}", place
                    )
        for step in self.description.steps:
            for sql in (step.apply, step.rollback):
                found = scan(sql, transactional=self.use_transactions)
                for finding in (*found.lock_releases, *found.transaction_commands):
                    place = self._place_of_sql(sql, finding.offset + 1)
                    yield Problem(finding.id, finding.message, finding.hint, place)

    @contextmanager
    def _translate_errors(
        self, session: Session, ignored: Callable[[str], None] | None
    ) -> Iterator[None]:
        """Translate each exception of a step.

        :raises StatementFailed: the server refused a statement
        :raises MigrationFailed: a step raised any other exception
        """
        from initmig.postgres.dbapi import PsycopgConnection

        connection = session.connection
        assert isinstance(connection, PsycopgConnection)  # noqa: S101 - `Listing.has_python` ensures it
        try:
            with connection.lent(self.id, ignored), connection.translating_errors():
                yield
        except StatementFailed as error:
            error.masked_by(self._strings.masked)
            self._add_advice(error)
            error.set_place(self._place_of(error))
            raise
        except InitmigError:
            raise
        except (Exception, SystemExit) as error:
            fix = hint_for(error) or "fix the migration and run again"
            hint = f"rolled back; {fix}"
            if not self.use_transactions:
                hint = (
                    f"{fix}. The steps before it are kept, and the next run repeats this step from"
                    " its start, so let it check what it has already done"
                )
            raise MigrationFailed(
                "migration-failed",
                f"{self.id} raised {self._strings.without_secrets(describe_error(error))}",
                hint=hint,
                place=self._place_of(error),
            ) from error

    def _add_advice(self, error: StatementFailed) -> None:
        [problem] = error.problems
        if error.__cause__ and not problem.hint:
            error.problems = (problem._replace(hint=hint_for(error.__cause__)),)

    def _place_of(self, error: BaseException) -> Place:
        """The file's line in the innermost stack frame, or the place of the SQL that failed."""
        causes = [cause for cause in (error, error.__cause__) if cause]
        frames = [
            frame
            for cause in causes
            for frame in traceback.extract_tb(cause.__traceback__)
            if self._is_this_file(frame.filename)
        ]
        if frames:
            number = frames[-1].lineno or 0
            shown = (
                self._strings.line(number)
                if self.source
                else without_strings(frames[-1].line or "")
            )
            return Place(self.path, number, 0, shown)
        sql = next(filter(None, map(_failing_sql, causes)), "")
        position = error.position if isinstance(error, StatementFailed) else 0
        return self._place_of_sql(sql, position)

    def _is_this_file(self, filename: str | None) -> bool:
        """Whether *filename* is this file. Python made it absolute on import."""
        return bool(filename == os.path.abspath(self.path))


def _is_relative(error: ImportError) -> bool:
    """Whether a relative import caused *error*: yoyo uses the path as the module's name."""
    return os.sep in (error.name or "") or "relative import" in str(error)


def _failing_sql(error: BaseException) -> str:
    """The SQL of the step that raised *error*; empty if it did not run SQL."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is MigrationStep._execute.__code__:  # noqa: SLF001
            return str(frame.f_locals["stmt"])
    return ""


def _kind_of(sql: str, place: Place) -> Kind | None:
    """The kind of the *sql* of one step; :raises ConfigError: a transaction block has no end."""
    statements = read_statements(sql.encode(errors="replace")).statements
    if len(statements) == 1:
        return statements[0].kind
    if not any(isinstance(each.kind, OpensBlock | EndsBlock) for each in statements):
        return None
    group_blocks([Part(lambda _: None, place, each.text, each.kind) for each in statements])
    return EndsItsBlocks()


def _source_of(code: Any, path: str) -> bytes:
    """SQL unchanged, or for a function a comment with its name and line."""
    text = code or ""
    if not isinstance(text, str):
        lines = getattr(getattr(code, "__code__", None), "co_firstlineno", "")
        text = f"-- Python: {_name(code)} at {path}:{lines}"
    return text.encode(errors="replace")


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", repr(function)))


def _names(depends: Any) -> frozenset[str]:
    return frozenset([depends] if isinstance(depends, str) else depends)
