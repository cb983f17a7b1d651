"""A migration that is not one transaction: each of its parts goes with its place in the journal."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from initmig.core.errors import MigrationFailed
from initmig.core.events import LeftOverRemoved, MigrationResumed, PartFoundDone
from initmig.core.model import UNDOING
from initmig.core.records import Record
from initmig.engine import catalog
from initmig.engine.batch import Script
from initmig.engine.journal import Journal
from initmig.engine.transactions import SAVEPOINT, cleaning_up, transaction_prepared_error
from initmig.history import store
from initmig.postgres import StatementFailed, quote_literal
from initmig.sql.statements import EndsBlock, EndsItsBlocks, SetsSession, runs_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from initmig.core.errors import Place
    from initmig.core.model import Direction
    from initmig.engine.backend import Backend
    from initmig.sql.statements import Kind

_NOT_IN_TRANSACTION = "25001"
"""active_sql_transaction: it cannot run inside of one, and did nothing."""

_COMMITS = "2D000"
"""invalid_transaction_termination: a procedure or DO block that commits by itself."""

_SYNTAX_ERROR = "42601"


class Part(Record):
    """What the journal counts as one: a statement, BEGIN to COMMIT, a step in Python."""

    run: Callable[[Backend], None]
    """Raises StatementFailed with its place."""
    at: Place | Script
    """Where it begins: a Script is asked only when that is needed, as it counts the lines."""
    source: str | Script = ""
    """The SQL; empty for what is no single statement."""
    kind: Kind | None = None
    commit: str = ""
    """The COMMIT of a transaction of the file's own, which *run* leaves open."""
    body: Sequence[Part] = ()
    """What is in that transaction."""
    is_block: bool = False
    """Whether it is a transaction of the migration's own."""
    opaque: bool = False
    """Whether it may send anything, as a function in Python."""

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.at.place if isinstance(self.at, Script) else self.at

    @property
    def sql(self) -> str:
        """The text of the statement; empty for what is no single one."""
        return self.source.sql.decode() if isinstance(self.source, Script) else self.source


class NonTransactionalRun:
    """One run of a migration's parts, from the one on at which the last run stopped."""

    def __init__(self, backend: Backend, migration: Any, direction: Direction) -> None:
        self._backend = backend
        self._session = backend.session
        self._id = migration.id
        self._direction = direction
        self._parts: Sequence[Part] = migration.parts(direction)
        self._journal = Journal(backend.session, migration.description, direction)

    def run(self) -> None:
        """Run what is not done yet.

        :raises StatementFailed: what came before is kept, and the next run goes on with it
        """
        done, before = self._begin_or_resume()
        with self._backend.session_settings():
            for setting, _ in _settings_of(self._parts[:done]):
                setting.run(self._backend)
            for number, part in enumerate(self._parts[done:], done + 1):
                self._run(number, part, before)
                before = None

    def _begin_or_resume(self) -> tuple[int, str | None]:
        """How many parts are done, and what the catalog showed before one that is in doubt."""
        stopped = self._journal.unfinished(self._session)
        if stopped is None:
            self._commit(";".join(self._beginning()))
            return 0, None
        if stopped.checksum != self._journal.checksum:
            self._commit(self._journal.resume())
        in_doubt = stopped.before is not None
        self._backend.emit(
            MigrationResumed(self._id, stopped.parts_done, len(self._parts), in_doubt=in_doubt)
        )
        return stopped.parts_done, stopped.before

    def _beginning(self) -> Iterator[str]:
        yield self._journal.begin(self._backend.by)
        if self._direction == "rollback":
            yield store.mark_due(self._backend.home, [UNDOING + self._id])

    def _run(self, number: int, part: Part, before: str | None) -> None:
        try:
            if part.commit:
                self._run_block(number, part)
            elif before is not None or not part.source or _runs_outside_transaction(part):
                self._run_outside_transaction(number, part, before)
            else:
                self._run_in_transaction(number, part)
        except StatementFailed as error:
            if error.problems[0].place:
                raise
            raise error.at(part.place) from error

    def _run_block(self, number: int, part: Part) -> None:
        """A transaction of the file's own, committed together with its place."""
        end = f"SAVEPOINT {SAVEPOINT};{self._journal.mark_done(number)};{part.commit}"
        with self._roll_back_if_open(), self._block_must_stay_open(part):
            part.run(self._backend)
            self._session.run(end, commits=True)

    def _run_in_transaction(self, number: int, part: Part) -> None:
        """A statement, committed together with its place; or alone, where the server says so."""
        self._remove_leftovers(part, None)
        try:
            with self._backend.transaction():
                part.run(self._backend)
                self._backend.add(self._journal.mark_done(number))
        except StatementFailed as error:
            if error.server.sqlstate == _NOT_IN_TRANSACTION:
                self._run_outside_transaction(number, part, None)
            elif error.server.sqlstate == _COMMITS:
                self._run_committing(number, part)
            else:
                raise

    def _run_committing(self, number: int, part: Part) -> None:
        """What commits by itself, with its place in the last transaction of its own."""
        block = f"BEGIN {part.sql}\n; {self._journal.mark_done(number, verb='PERFORM')}; END"
        try:
            self._session.run(f"DO {quote_literal(block)}")
        except StatementFailed as error:
            if error.server.sqlstate != _SYNTAX_ERROR:
                raise
            # PL/pgSQL has no place for its output arguments
            self._run_outside_transaction(number, part, None)

    def _run_outside_transaction(self, number: int, part: Part, before: str | None) -> None:
        """What cannot be in a transaction, between two entries: the catalog tells what happened."""
        in_doubt = before is not None
        if before is None:
            before = catalog.snapshot(self._session, part.kind)
            self._commit(self._journal.mark_started(before))
        with self._without_lock_timeout(part):
            self._remove_leftovers(part, before)
            if not catalog.was_done(self._session, part.kind, before):
                self._run_to_end(part)
            elif in_doubt:
                self._backend.emit(PartFoundDone(self._id, number, len(self._parts)))
        self._commit(self._journal.mark_done(number))

    def _run_to_end(self, part: Part) -> None:
        """Run *part*, which has to end each transaction that it begins.

        :raises MigrationFailed: it left one open, which is rolled back, or prepared
        """
        prepared = catalog.prepared_transactions(self._session) if part.opaque else ()
        with self._roll_back_if_open(), self._block_must_stay_open(part):
            part.run(self._backend)
            if self._session.in_transaction:
                raise MigrationFailed(
                    "transaction-left-open",
                    f"{self._id} left a transaction open",
                    hint="end it in the same step, with COMMIT or connection.commit()",
                    place=part.place,
                )
        if part.opaque and (left := catalog.still_prepared(self._session, prepared)):
            raise transaction_prepared_error(self._id, left, part.place)

    @contextmanager
    def _roll_back_if_open(self) -> Iterator[None]:
        with cleaning_up(self._backend.rollback):
            yield

    def _block_must_stay_open(self, part: Part) -> AbstractContextManager[None]:
        """Inside, only the last statement of a block may end it."""
        if not part.is_block:
            return nullcontext()
        which = f"that begins at {part.place}"
        return self._backend.transaction_must_stay_open(self._id, part.place, which=which)

    def _remove_leftovers(self, part: Part, before: str | None) -> None:
        for what in catalog.remove_leftovers(self._session, part.kind, before):
            self._backend.emit(LeftOverRemoved(self._id, what))

    def _commit(self, sql: str) -> None:
        def commit() -> None:
            with self._backend.history_transaction():
                self._backend.add(sql)

        self._session.with_retries(commit)

    @contextmanager
    def _without_lock_timeout(self, part: Part) -> Iterator[None]:
        """Inside there is no lock timeout, unless the file sets one.

        What runs concurrently waits for every older transaction and holds up nobody meanwhile;
        timed out, it would leave an invalid index.
        """
        is_long = self._session.is_dedicated and isinstance(part.kind, catalog.CONCURRENT)
        if not is_long or self._setting_names & {"lock_timeout", "all"}:
            yield
            return
        set_to = "SELECT current_setting('lock_timeout'), set_config('lock_timeout', '{}', false)"
        before = self._session.query(set_to.format(0))[0][0]

        def restore() -> None:
            if self._session.usable:
                self._session.query(set_to.format(before))

        with cleaning_up(restore):
            yield

    @cached_property
    def _setting_names(self) -> set[str]:
        """Of what the parts set for the session."""
        return {name for _, name in _settings_of(self._parts)}


def _runs_outside_transaction(part: Part) -> bool:
    """Whether *part* cannot be in a transaction of initmig's, or would end it."""
    return runs_alone(part.kind) or isinstance(part.kind, EndsBlock | EndsItsBlocks)


def _settings_of(parts: Sequence[Part]) -> Iterator[tuple[Part, str]]:
    """What of *parts* sets something for the session, and the name of that."""
    for part in parts:
        for each in (part, *part.body):
            if isinstance(each.kind, SetsSession):
                yield each, each.kind.name
