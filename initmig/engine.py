"""The only door to yoyo: its loader and its PostgreSQL backend, with what is unsafe overridden.

yoyo applies on a second connection and records on the first, so that a crash in between leaves a
migration applied and unrecorded; it takes a lock that outlives its holder, splits SQL by itself,
and asks DNS and the passwd file who it is. Here one connection does everything, a migration and
its record are one transaction, and SQL goes to the server as it stands in the file. The file
format, Python steps, dependency order, the DDL of the tables and the rows in them are yoyo's own.
"""

import logging
import sys
import time
import traceback
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime
from typing import Any

from yoyo import exceptions, internalmigrations
from yoyo.backends.base import DatabaseBackend, SavepointTransactionManager, TransactionManager
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import Migration as YoyoMigration
from yoyo.migrations import StepGroup, default_migration_table
from yoyo.topologicalsort import CycleError, topological_sort
from yoyo.utils import change_param_style

from initmig import history
from initmig.errors import ConfigError, InitmigError, MigrationFailed, Place, Problem
from initmig.events import Emit, ErrorIgnored
from initmig.files import SqlFiles, checksum, read_sql
from initmig.identity import Identity
from initmig.model import Migration, MigrationFile, Step
from initmig.postgres import Session, StatementFailed, refused
from initmig.source import place_at
from initmig.sql import Statement, forbidden_in_transaction, split

_yoyo_log = logging.getLogger("yoyo.migrations")

_SERVER_CLOCK = "(clock_timestamp() AT TIME ZONE 'UTC')"
"""The order applied is kept by one clock, not by those of the hosts that happened to apply."""


_CREATED_ELSEWHERE = ("42P07", "23505")
"""duplicate_table, or unique_violation in pg_type: another session created it just now."""


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


class _SqlMigration(YoyoMigration):  # type: ignore[misc]
    """A yoyo migration whose SQL is not split where the server can do that better."""

    def __init__(self, file: MigrationFile, source: SqlFiles) -> None:
        super().__init__(file.id, file.path, file.folder)
        self.use_transactions = source.header.transactional
        apply = self._scripts(file.path, source.apply)
        rollback = self._scripts(file.rollback_path, source.rollback)
        # rolling back goes through the steps from the last to the first
        self.steps = [_SqlStep(apply=script) for script in apply]
        self.steps += [_SqlStep(rollback=script) for script in reversed(rollback)]

    @contextmanager
    def errors_placed(self, session: Session) -> Iterator[None]:  # noqa: ARG002
        """Nothing to do: each script names its own place."""
        yield

    def _scripts(self, path: str, text: str) -> list[_Script]:
        if self.use_transactions:
            return [_Script(path, text)]
        return [_Script(path, text, statement) for statement in split(text)]


class _PythonMigration(YoyoMigration):  # type: ignore[misc]
    """A yoyo migration in Python, loaded and run by yoyo, with its errors told by their place."""

    def __init__(self, file: MigrationFile) -> None:
        super().__init__(file.id, file.path, file.folder)

    @contextmanager
    def errors_placed(self, session: Session) -> Iterator[None]:
        """:raises StatementFailed: or MigrationFailed, for whatever a step raises."""
        with redirect_stdout(sys.stderr), ExitStack() as stack:
            if self.use_transactions:
                stack.enter_context(session.guarded())
            try:
                with session.translating_errors():
                    yield
            except StatementFailed as error:
                raise error.at(self.place_of(error)) from error
            except InitmigError:
                raise
            except (Exception, SystemExit) as error:
                raise MigrationFailed(
                    f"{self.id} raised {_words(error)}",
                    hint="nothing of it was kept" if self.use_transactions else "",
                    place=self.place_of(error),
                ) from error

    def place_of(self, error: BaseException) -> Place:
        """The last line of the file that took part, else where its SQL stands in the file."""
        causes = (error, error.__cause__)
        frames = [
            frame
            for cause in causes
            if cause
            for frame in traceback.extract_tb(cause.__traceback__)
            if frame.filename == self.path
        ]
        if frames:
            return Place(self.path, frames[-1].lineno or 0, 0, frames[-1].line or "")
        return Place(self.path)


class _ReleasedSavepoint(SavepointTransactionManager):  # type: ignore[misc]
    """yoyo's savepoint, given back: thousands of kept ones exhaust the server's memory."""

    def _do_commit(self) -> None:
        self.backend.savepoint_release(self.id)


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend on initmig's one connection; the caller holds the migration lock.

    *settings* is the SQL that opens every transaction after BEGIN, *outside* the one that goes
    before what runs outside of transactions.
    """

    mark_migration_sql = DatabaseBackend.mark_migration_sql.replace(":when", _SERVER_CLOCK)
    log_migration_sql = DatabaseBackend.log_migration_sql.replace(":created_at_utc", _SERVER_CLOCK)

    def __init__(
        self, session: Session, *, by: Identity, settings: str = "", outside: str = ""
    ) -> None:
        self.session = session
        self._by = by
        self._settings = settings
        self._outside = outside
        self._records: list[str] | None = None
        super().__init__(None, default_migration_table)

    def connect(self, dburi: None) -> Any:  # noqa: ARG002 - yoyo's signature
        """The session's connection, whatever yoyo would connect to."""
        return self.session.connection

    def copy(self) -> "Backend":
        """This backend: a second connection could not commit together with the first."""
        return self

    def list_tables(self, **_: Any) -> list[str]:
        """Those of yoyo's tables that exist; yoyo asks for no others."""
        names = (self.migration_table, self.version_table, self.lock_table)
        there = history.have_tables(self.session, names)
        return [name for name, exists in zip(names, there, strict=True) if exists]

    def prepare(self) -> None:
        """Make the history tables that are missing; the caller holds yoyo's lock too."""
        with self.session.translating_errors():
            if internalmigrations.needs_upgrading(self):
                internalmigrations.upgrade(self)
        history.create_table(self.session)

    def ensure_internal_schema_updated(self) -> None:
        """Nothing: `prepare` has done it, once."""

    def transaction(self, rollback_on_exit: bool = False) -> TransactionManager:  # noqa: FBT001, FBT002
        """A transaction, or inside of one a savepoint."""
        kind = _ReleasedSavepoint if self._in_transaction else TransactionManager
        return kind(self, rollback_on_exit=rollback_on_exit)

    def begin(self) -> None:
        """BEGIN with the settings, in one message."""
        self.session.run(f"BEGIN;{self.session.preamble}{self._settings}")
        self._in_transaction = True

    def commit(self) -> None:
        """COMMIT together with the records that wait for it, in one message."""
        try:
            self.session.run(";".join([*self._take_records(), "COMMIT"]))
        except StatementFailed:
            self.rollback()
            raise
        finally:
            self._in_transaction = False

    def rollback(self) -> None:
        """ROLLBACK where there is still something to roll back."""
        self._take_records()
        self._in_transaction = False
        if self.session.in_transaction:
            self.session.run("ROLLBACK")

    def savepoint_release(self, id: str) -> None:
        """RELEASE, after the records that belong into the savepoint, in one message."""
        release = f"RELEASE SAVEPOINT {self.quote_identifier(id)}"
        self.session.run(";".join([*self._take_records(), release]))

    def execute(self, sql: str, params: Any = None) -> Any:
        """As yoyo does it; a record only waits for the COMMIT."""
        if self._records is None:
            return super().execute(sql, params)
        rendered = self.session.render(*change_param_style("pyformat", sql, params))
        self._records.append(rendered)
        return None

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:  # noqa: FBT001, FBT002
        """Run the steps and record them, in one transaction where *migration* has one."""
        started = time.monotonic()
        with self._unit(migration, migration.steps, "apply", force=force):
            self.log_migration(migration, "apply")
            if mark:
                self.mark_one(migration, log=False)
                seconds = time.monotonic() - started
                self._record(history.record(migration.description, seconds=seconds, by=self._by))

    def rollback_one(self, migration: Any, force: bool = False) -> None:  # noqa: FBT001, FBT002
        """Run the rollback steps and forget the migration, in one transaction where it has one."""
        with self._unit(migration, reversed(migration.steps), "rollback", force=force):
            self.log_migration(migration, "rollback")
            self.unmark_one(migration, log=False)
            self._record(history.forget(migration.id))

    @contextmanager
    def _unit(
        self, migration: Any, steps: Iterable[Any], direction: str, *, force: bool
    ) -> Iterator[None]:
        """Run *steps*; what is recorded inside is committed with them, or else after them."""
        with ExitStack() as stack:
            if migration.use_transactions:
                stack.enter_context(self.transaction())
            elif self._outside:
                self.session.run(self._outside)
            with migration.errors_placed(self.session):
                for step in steps:
                    getattr(step, direction)(self, force)
            self._refuse_lost_transaction(migration)
            if not migration.use_transactions:
                stack.enter_context(self.transaction())
            self._records = []
            yield

    def _refuse_lost_transaction(self, migration: Any) -> None:
        if migration.use_transactions and not self.session.in_transaction:
            raise MigrationFailed(
                f"{migration.id} ended the transaction that initmig opened for it",
                hint="what it did before that is kept, and it is not recorded as applied: undo"
                " that, and let it neither commit nor roll back",
                place=Place(migration.path),
            )

    def _record(self, sql: str) -> None:
        self._records = [*(self._records or ()), sql]

    def _take_records(self) -> list[str]:
        records, self._records = self._records or [], None
        return records

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo's log row, without asking the passwd file or DNS who this is."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self._by.user,
            "hostname": self._by.host,
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def load(files: Sequence[MigrationFile], *, known: Collection[str]) -> tuple[Migration, ...]:
    """*files* read, checked and in dependency order; *known* ids may be depended on as well.

    :raises ConfigError: with every problem of every file
    """
    for id in known:
        YoyoMigration(id, "", "")  # yoyo resolves dependencies among all that it ever saw
    problems: list[Problem] = []
    loaded: list[Migration] = []
    for file in files:
        try:
            loaded.append(_load_sql(file) if file.is_sql else _load_python(file))
        except ConfigError as error:
            problems.extend(error.problems)
    ids = {file.id for file in files} | set(known)
    for migration in loaded:
        problems.extend(_missing_dependencies(migration, ids))
    if problems:
        raise ConfigError.of(tuple(problems))
    return _in_dependency_order(loaded)


def _load_sql(file: MigrationFile) -> Migration:
    source = read_sql(file)
    handle = _SqlMigration(file, source)
    steps = (Step(source.apply, source.rollback if split(source.rollback) else ""),)
    return _loaded(
        Migration(
            file,
            source.checksum,
            *source.header,
            steps,
            handle,
        )
    )


def _loaded(migration: Migration) -> Migration:
    migration.handle.description = migration
    return migration


def _load_python(file: MigrationFile) -> Migration:
    digest = checksum(file.path)
    handle = _PythonMigration(file)
    _import(handle)
    steps = tuple(_steps(handle.steps, file.path))
    if not steps:
        raise ConfigError(
            f"{file.id} defines no steps",
            hint="call step() from yoyo at the top level of the file",
            place=Place(file.path),
        )
    migration = Migration(
        file,
        digest,
        bool(handle.use_transactions),
        bool(getattr(handle.module, "__breaking__", False)),
        _names(getattr(handle.module, "__depends__", ())),
        steps,
        handle,
    )
    _refuse_transaction_control(migration)
    return _loaded(migration)


def _import(handle: _PythonMigration) -> None:
    """Let yoyo import the file; its log and bytecode are kept out of the way meanwhile."""
    saved = sys.dont_write_bytecode, _yoyo_log.disabled
    sys.dont_write_bytecode = _yoyo_log.disabled = True
    try:
        with redirect_stdout(sys.stderr):
            handle.load()
    except exceptions.BadMigration as error:
        cause = error.__context__
        if cause is not None:  # else a dependency is missing, which is reported for all files alike
            raise _import_error(handle, cause) from cause
        handle.steps = handle.module.__yoyo_collector__.create_steps(use_transactions=True)
    except (Exception, SystemExit) as error:
        raise _import_error(handle, error) from error
    finally:
        sys.dont_write_bytecode, _yoyo_log.disabled = saved


def _import_error(handle: _PythonMigration, error: BaseException) -> ConfigError:
    hint = "mend the file; nothing was applied"
    if isinstance(error, SyntaxError) and error.filename == handle.path:
        place = Place(
            handle.path, error.lineno or 0, error.offset or 0, (error.text or "").rstrip("\n")
        )
        return ConfigError(f"{handle.id} is not Python: {error.msg}", hint=hint, place=place)
    return ConfigError(
        f"{handle.id} raised {_words(error)} when it was imported",
        hint=hint,
        place=handle.place_of(error),
    )


def _words(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _names(depends: Any) -> frozenset[str]:
    return frozenset([depends] if isinstance(depends, str) else depends)


def _steps(steps: Iterable[Any], path: str) -> Iterator[Step]:
    """The single steps inside yoyo's wrappers and groups."""
    for wrapper in steps:
        if isinstance(wrapper.step, StepGroup):
            yield from _steps(wrapper.step.steps, path)
        else:
            inner = wrapper.step
            yield Step(_shown(inner._apply, path), _shown(inner._rollback, path))  # noqa: SLF001


def _shown(code: Any, path: str) -> str:
    """SQL as it is, a function by name and line, nothing for nothing."""
    if not code or isinstance(code, str):
        return code or ""
    lines = getattr(getattr(code, "__code__", None), "co_firstlineno", "")
    return f"-- Python: {getattr(code, '__name__', repr(code))} at {path}:{lines}"


def _refuse_transaction_control(migration: Migration) -> None:
    if not migration.transactional:
        return
    problems = tuple(
        Problem(finding.message, finding.hint, Place(migration.file.path))
        for step in migration.steps
        for sql in (step.apply, step.rollback)
        for finding in forbidden_in_transaction(sql)
    )
    if problems:
        raise ConfigError.of(problems)


def _missing_dependencies(migration: Migration, ids: Collection[str]) -> Iterator[Problem]:
    for id in sorted(migration.depends):
        if id not in ids:
            yield Problem(
                f"{migration.id} depends on {id}, which does not exist",
                hint="correct the name, or add the migration",
                place=Place(migration.file.path),
            )


def _in_dependency_order(migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """As yoyo orders them: by their place in *migrations*, behind what they depend on."""
    by_id = {migration.id: migration for migration in migrations}
    graph = {id: by_id[id].depends & by_id.keys() for id in by_id}
    try:
        return tuple(by_id[id] for id in topological_sort(by_id, graph))
    except CycleError as error:
        cycle = error.args[1]
        raise ConfigError(
            f"these migrations depend on each other in a circle: {', '.join(cycle)}",
            hint="remove one of their `depends`",
            place=Place(by_id[cycle[0]].file.path),
        ) from None


@contextmanager
def telling_ignored_errors(emit: Emit) -> Iterator[None]:
    """What a step with ``ignore_errors`` runs into is emitted, not logged by yoyo's own rules."""
    handler = _IgnoredErrors(emit)
    _yoyo_log.addHandler(handler)
    saved, _yoyo_log.propagate = _yoyo_log.propagate, False
    try:
        yield
    finally:
        _yoyo_log.removeHandler(handler)
        _yoyo_log.propagate = saved


class _IgnoredErrors(logging.Handler):
    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.ERROR)
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._emit(ErrorIgnored(_words(record.exc_info[1])))


def create_lock_table(session: Session) -> None:
    """Make yoyo's lock table where it is missing, also while a stock yoyo does the same."""
    if history.have_tables(session, (DatabaseBackend.lock_table,))[0]:
        return
    backend = Backend(session, by=Identity("", "", ""))
    try:
        session.run(session.preamble + backend.format_sql(backend.create_lock_table_sql))
    except StatementFailed as error:
        if error.server.sqlstate not in _CREATED_ELSEWHERE:
            raise refused(error) from error
