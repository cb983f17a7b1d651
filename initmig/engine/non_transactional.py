"""Runs a non-transactional migration: each part is committed together with its journal entry."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

from initmig.core.errors import MigrationFailed
from initmig.core.events import LeftOverRemoved, MigrationResumed, PartFoundDone
from initmig.core.model import UNDOING
from initmig.engine import catalog
from initmig.engine.ended_transaction import SAVEPOINT, transaction_prepared_error
from initmig.engine.journal import Journal
from initmig.engine.session_reset import cleaning_up
from initmig.history import store
from initmig.postgres import StatementFailed, quote_literal
from initmig.sql.statements import EndsBlock, EndsItsBlocks, SetsSession, cannot_run_in_transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from initmig.core.model import Direction, Migration
    from initmig.engine.channel import Channel
    from initmig.engine.parts import Part

_NOT_IN_TRANSACTION = "25001"
"""active_sql_transaction: the statement cannot run in a transaction, and did nothing."""

_COMMIT_NOT_ALLOWED = "2D000"
"""invalid_transaction_termination: a procedure or DO block contains COMMIT or ROLLBACK."""

_SYNTAX_ERROR = "42601"


class NonTransactionalRun:
    """Runs a migration's parts, starting where the last run stopped."""

    def __init__(self, channel: Channel, migration: Migration, direction: Direction) -> None:
        self._channel = channel
        self._session = channel.session
        self._transactions = channel.transactions
        self._id = migration.id
        self._direction = direction
        self._parts: Sequence[Part] = migration.handle.parts(direction)
        self._journal = Journal(channel.session, migration, direction)

    def run(self) -> None:
        """Run the remaining parts.

        :raises StatementFailed: earlier parts are kept, and the next run resumes at this part
        """
        done, before = self._begin_or_resume()
        with self._channel.reset.changing_settings():
            for setting, _ in _settings_of(self._parts[:done]):
                setting.run(self._channel)
            for number, part in enumerate(self._parts[done:], done + 1):
                self._run(number, part, before)
                before = None

    def _begin_or_resume(self) -> tuple[int, str | None]:
        """The number of parts done, and the catalog's state before a part that may be done."""
        stopped = self._journal.unfinished(self._session)
        if stopped is None:
            self._commit(";".join(self._beginning()))
            return 0, None
        if stopped.checksum != self._journal.checksum:
            self._commit(self._journal.resume())
        in_doubt = stopped.before is not None
        self._channel.emit(
            MigrationResumed(self._id, stopped.parts_done, len(self._parts), in_doubt=in_doubt)
        )
        return stopped.parts_done, stopped.before

    def _beginning(self) -> Iterator[str]:
        yield self._journal.begin(self._channel.by)
        if self._direction == "rollback":
            yield store.mark_due(self._channel.home, [UNDOING + self._id])

    def _run(self, number: int, part: Part, before: str | None) -> None:
        try:
            if part.commit:
                self._run_block(number, part)
            elif before is not None or not part.source or _runs_outside_transaction(part):
                self._run_outside_transaction(number, part, before)
            else:
                self._run_in_transaction(number, part)
        except StatementFailed as error:
            if not error.place:
                error.set_place(part.place)
            raise

    def _run_block(self, number: int, part: Part) -> None:
        """Run a transaction block, and commit it together with its journal entry."""
        end = f"SAVEPOINT {SAVEPOINT};{self._journal.mark_done(number)};{part.commit}"
        with self._roll_back_if_open(), self._block_must_stay_open(part):
            part.run(self._channel)
            self._session.run(end, commits=True)

    def _run_in_transaction(self, number: int, part: Part) -> None:
        """Run a statement together with its journal entry, or separately if the server insists."""
        self._remove_leftovers(part, None)
        try:
            with self._transactions.transaction():
                part.run(self._channel)
                self._channel.batch.add(self._journal.mark_done(number))
        except StatementFailed as error:
            if error.sqlstate == _NOT_IN_TRANSACTION:
                self._run_outside_transaction(number, part, None)
            elif error.sqlstate == _COMMIT_NOT_ALLOWED:
                self._run_committing(number, part)
            else:
                raise

    def _run_committing(self, number: int, part: Part) -> None:
        """Run a procedure that commits, with its journal entry in its last transaction."""
        block = f"BEGIN {part.sql}\n; {self._journal.mark_done(number, verb='PERFORM')}; END"
        try:
            self._session.run(f"DO {quote_literal(block)}")
        except StatementFailed as error:
            if error.sqlstate != _SYNTAX_ERROR:
                raise
            # PL/pgSQL cannot call a procedure without variables for its output arguments
            self._run_outside_transaction(number, part, None)

    def _run_outside_transaction(self, number: int, part: Part, before: str | None) -> None:
        """Run a part that cannot be in a transaction, between two journal entries.

        If it was interrupted, the catalog shows whether it completed.
        """
        in_doubt = before is not None
        if before is None:
            before = catalog.snapshot(self._session, part.kind)
            self._commit(self._journal.mark_started(before))
        with self._without_lock_timeout(part):
            self._remove_leftovers(part, before)
            if not catalog.was_done(self._session, part.kind, before):
                self._run_to_end(part)
            elif in_doubt:
                self._channel.emit(PartFoundDone(self._id, number, len(self._parts)))
        self._commit(self._journal.mark_done(number))

    def _run_to_end(self, part: Part) -> None:
        """Run *part*, which must end each transaction that it begins.

        :raises MigrationFailed: it left a transaction open, which is rolled back, or prepared
        """
        prepared = catalog.prepared_transactions(self._session) if part.opaque else ()
        with self._roll_back_if_open(), self._block_must_stay_open(part):
            part.run(self._channel)
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
        with cleaning_up(self._transactions.roll_back):
            yield

    def _block_must_stay_open(self, part: Part) -> AbstractContextManager[None]:
        """Report an error if a statement in a block ends the transaction before its COMMIT."""
        if not part.is_block:
            return nullcontext()
        return self._transactions.must_stay_open(self._id, lambda: part.place, is_block=True)

    def _remove_leftovers(self, part: Part, before: str | None) -> None:
        for what in catalog.remove_leftovers(self._session, part.kind, before):
            self._channel.emit(LeftOverRemoved(self._id, what))

    def _commit(self, sql: str) -> None:
        def commit() -> None:
            with self._transactions.for_own_sql():
                self._channel.batch.add(sql)

        self._session.with_retries(commit)

    @contextmanager
    def _without_lock_timeout(self, part: Part) -> Iterator[None]:
        """Disable the lock timeout for a concurrent statement, unless the file sets it.

        Such a statement waits for every older transaction without blocking other sessions. A
        timeout would leave an invalid index.
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
        """The names of the settings that the parts set for the session."""
        return {name for _, name in _settings_of(self._parts)}


def _runs_outside_transaction(part: Part) -> bool:
    """Whether *part* cannot run in initmig's transaction, or contains its end."""
    return cannot_run_in_transaction(part.kind) or isinstance(part.kind, EndsBlock | EndsItsBlocks)


def _settings_of(parts: Sequence[Part]) -> Iterator[tuple[Part, str]]:
    """Each of *parts* that changes a setting of the session, and the name of the setting."""
    for part in parts:
        for each in (part, *part.body):
            if isinstance(each.kind, SetsSession):
                yield each, each.kind.name
