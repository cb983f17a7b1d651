"""The use cases. Each reads top to bottom: connect, read, decide, act.

Only what the no-op needs is imported up here; what writes, and with it yoyo, comes in when
something is pending.
"""

from __future__ import annotations

from initmig import postgres
from initmig.commands.context import (
    begin,
    changed,
    follow,
    history_summary,
    in_sequence,
    is_pending,
    left_to_apply,
    load_pending,
    look_behind_policies,
    look_through,
    meet_unknown,
    placed_by_name,
    planned,
    polled_summary,
    refuse_as_migrate_would,
    refuse_unintended,
    set_retry_handler,
    shared,
    with_session,
    without_files,
)
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import ConfigError, MigrationsPending, PlanError
from initmig.core.events import (
    AppliedElsewhere,
    Finished,
    HistoryRead,
    HistoryShared,
    MigrationApplied,
    MigrationRecorded,
    MigrationRolledBack,
    NothingPending,
    OtherHistoryFound,
    UnknownMigrations,
)
from initmig.core.records import TYPE_CHECKING, Record
from initmig.history import store
from initmig.migrations import planning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from initmig.commands.context import (
        Run,
    )
    from initmig.commands.rehearse.impact import Rehearsal
    from initmig.commands.writer import Loaded
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import (
        Emit,
        Event,
    )
    from initmig.core.model import (
        AppliedMigration,
        Listing,
        Migration,
        MigrationFile,
        MigrationStatus,
        Unfinished,
    )
    from initmig.postgres import Session
    from initmig.sql.relations import Inventory


class Plan(Record):
    """What `migrate` would run, in order, and which relations the database has before it."""

    migrations: tuple[Migration, ...]
    inventory: Inventory


_LOOK_SECONDS = 10.0
"""For an answer that takes no time: a server that takes longer is as good as away."""


def migrate(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Apply everything that is pending, or up to and with ``config.to``.

    :raises InitmigError: every one of them
    """
    tally = _Tally(emit)
    run = begin(config, tally, clock)
    found: list[Loaded] = []

    def work(session: Session) -> None:
        if not found:
            found.extend(_prepare(session, run))
        if found:  # also after a connection was lost: what of it is left is seen under the lock
            from initmig.commands import writer

            writer.apply(session, run, found[0])

    with_session(run, work)
    tally.finish("applied", run)


def _prepare(session: Session, run: Run) -> Sequence[Loaded]:
    """What there is to apply, once it is this process's turn; empty where that is nothing."""
    found = history_summary(session, run)
    left = left_to_apply(session, run, found)
    if left is None:
        return ()
    if not _is_my_turn(session, run):
        run.emit(AppliedElsewhere(run.seconds()))
        return ()
    from initmig.commands import writer

    return (writer.load(run, left.pending, found.ids),)


def _is_my_turn(session: Session, run: Run) -> bool:
    from initmig.locking.queue import wait_for_turn

    return wait_for_turn(
        session,
        timeout=run.config.queue_timeout,
        clock=run.clock,
        emit=run.emit,
        is_needed=lambda: is_pending(session, run),
    )


def rollback(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Undo what ``config.to``, ``config.steps`` or ``config.all`` says, newest first.

    :raises PlanError: one of them cannot be undone; nothing was touched
    :raises InitmigError: and every other one
    """
    from initmig.commands import writer

    tally = _Tally(emit)
    run = begin(config, tally, clock)
    kept = writer.roll_back(run)
    tally.finish("rolled back", run, otherwise="nothing to roll back", kept=kept)


def status(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[MigrationStatus, ...]:
    """Every migration of this image, and those that are applied and unknown to it.

    :raises InitmigError: the database cannot be asked, or the folders not be listed
    """
    run = begin(config, emit, clock)._replace(reads=True)

    def work(
        session: Session,
    ) -> tuple[Sequence[AppliedMigration], Sequence[str], Sequence[Unfinished]]:
        applied = store.applied_migrations(session)
        ids = store.polled_summary(session).ids
        if planning.left_to_do(run.listing, ids).pending:
            look_behind_policies(session, run)
            if not (ids or config.check):  # `check` refuses it
                _tell_other_histories(session, run)
        return applied, ids, store.unfinished_migrations(session)

    applied, ids, unfinished = with_session(run, work)
    left = planning.left_to_do(run.listing, ids)
    changed_ids = {finding.event.id for finding in changed(run, applied)}
    if problem := shared(run, applied, changed_ids):
        emit(HistoryShared(problem.message, problem.hint))
    rows = planning.statuses(
        run.listing,
        applied,
        changed_ids,
        owed=left.owed,
        unfinished=unfinished,
    )
    behind = _behind(run, left.pending, ids)
    return tuple(_with_parts(run, row._replace(behind=behind.get(row.id, ""))) for row in rows)


def _tell_other_histories(session: Session, run: Run) -> None:
    """Warn of what `migrate` would refuse, as the history is another tool's or in another place."""
    from initmig.history import intake

    try:
        intake.refuse_other_histories(session, run.config, (), run.known)
    except PlanError as error:
        for problem in error.problems:
            run.emit_once(OtherHistoryFound(problem.message, problem.hint))


def check(
    config: Config, rows: Sequence[MigrationStatus], emit: Emit, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Judge the *rows* of `status`.

    :raises PlanError: `migrate` would refuse to start; also ConfigError, for a pending file
    :raises MigrationsPending: there is something to apply
    """
    from initmig.history import intake

    if not any(row.path for row in rows):
        return
    run = begin(config, emit, clock)._replace(reads=True)
    problems = planning.refusals(rows, changed=config.changed, out_of_order=config.out_of_order)
    applied = [row.applied for row in rows if row.applied]
    changed_ids = {row.id for row in rows if row.state == "changed"}
    if config.changed != "allow" and (problem := shared(run, applied, changed_ids)):
        problems = (problem, *problems)
    if problems:
        raise PlanError.of(problems)
    pending = [row.id for row in rows if row.state in ("pending", "applying", "rolling back")]
    if not pending:
        return
    ids = [row.id for row in rows if row.applied]
    files = planning.pending_files(run.listing, [row.id for row in rows if row.state != "pending"])
    refuse_unintended(run, files, ids)
    if not ids:
        with_session(
            run,
            lambda session: intake.refuse_other_histories(session, config, ids, run.known),
        )
    raise MigrationsPending(
        "migrations-pending",
        f"{len(pending)} pending: {', '.join(pending)}",
        hint="run `initmig migrate`",
    )


def _behind(
    run: Run, pending: Sequence[MigrationFile], applied: Sequence[str]
) -> Mapping[str, str]:
    """As `planning.behind`, of files that can be read."""
    try:
        files = placed_by_name(run, pending, applied)
    except ConfigError:
        files = pending  # `migrate` would tell of that first
    return planning.behind(files, in_sequence(run, files, applied), run.listing)


def _with_parts(run: Run, row: MigrationStatus) -> MigrationStatus:
    """*row* with the places of its half-way migration's parts, if the file can be read."""
    if not (row.unfinished and row.path):
        return row
    from initmig import engine

    files = (*run.listing.migrations, *run.listing.hooks)
    file = next(file for file in files if file.id == row.id)
    try:
        [migration] = engine.load([file], known=run.known, emit=run.emit)
    except ConfigError:
        return row
    applying = row.state == "applying"
    return row._replace(parts=migration.parts if applying else migration.rollback_parts)


def rehearse(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Rehearsal:
    """What `migrate` would do, found out by doing it in a transaction that is rolled back.

    :raises InitmigError: whatever `migrate` would refuse before it runs anything
    """
    from initmig.commands.rehearse.rehearse import rehearse as rehearse_all

    run = begin(config, emit, clock)
    return with_session(run, lambda session: rehearse_all(session, run))


def plan(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Plan:
    """What `migrate` would run, in order; reads only.

    :raises InitmigError: whatever `migrate` would refuse before it runs anything
    """
    from initmig.commands.inventory import take_inventory
    from initmig.history.intake import refuse_other_histories
    from initmig.sql.relations import Inventory

    run = begin(config, emit, clock)

    def work(
        session: Session,
    ) -> tuple[Sequence[AppliedMigration], Sequence[Unfinished], Inventory]:
        applied = store.applied_migrations(session)
        ids = [migration.id for migration in applied]
        left = planning.left_to_do(run.listing, ids)
        meet_unknown(session, run, left.unknown)
        if left.pending:
            look_behind_policies(session, run)
            refuse_other_histories(session, run.config, ids, run.known)
        inventory = take_inventory(session.query) if left.pending else Inventory()
        return applied, store.unfinished_migrations(session), inventory

    applied, unfinished, inventory = with_session(run, work)
    ids = [migration.id for migration in applied]
    pending = planning.pending_files(run.listing, ids)
    loaded = load_pending(run, pending, ids)
    return Plan(planned(run, loaded, applied, unfinished), inventory)


def wait(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Return once the database answers, or once every migration of this image is applied.

    :raises MigrationsPending: the wait timeout is over, and migrations are pending
    :raises InitmigError: and every other one that a read can meet
    """
    if config.wait_for == "database":
        run = without_files(config, emit, clock)
        with_session(run, lambda session: session.query("SELECT 1"))
        return
    run = begin(config, emit, clock)._replace(reads=True)
    with_session(run, lambda session: _refuse_pending(session, run))
    emit(NothingPending(len(run.listing.migrations)))


def _refuse_pending(session: Session, run: Run) -> None:
    found = polled_summary(session, run)
    left = planning.left_to_do(run.listing, found.ids)
    findings = refuse_as_migrate_would(session, run, left, found)
    if left.ids:
        raise MigrationsPending(
            "migrations-pending",
            f"{len(left.ids)} pending: {', '.join(left.ids)}",
            hint="run `initmig migrate` for this database, or check why it makes no progress",
        )
    follow(run.config.changed, findings, run.emit)
    if left.unknown:
        run.emit(UnknownMigrations(left.unknown))


def look(config: Config, listing: Listing, emit: Emit) -> None:
    """Tell what of *listing* is applied: one attempt, one query, no waiting.

    :raises PlanError: `migrate` would refuse to start
    :raises InitmigError: the database cannot be asked, or does not answer
    """
    run = without_files(config, emit, SYSTEM_CLOCK)._replace(listing=listing, reads=True)
    session = postgres.connect(run.settings)
    set_retry_handler(session, run, limit=_LOOK_SECONDS)
    try:
        with postgres.checking_answers():
            found = history_summary(session, run)
            refuse_as_migrate_would(session, run, look_through(run, found.ids), found)
    finally:
        session.close()


def baseline(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Record everything pending up to and with ``config.to`` as applied, without running it.

    :raises PlanError: there is no such id, or a migration stopped half way
    :raises InitmigError: and every other one
    """
    from initmig.commands import writer

    tally = _Tally(emit)
    run = begin(config, tally, clock)
    writer.baseline(run)
    tally.finish("recorded as applied", run)


def unlock(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Remove the lock row of a stock yoyo, or of a dead initmig; a live one's is left alone.

    :raises InitmigError: the database cannot be asked
    """
    from initmig.commands import writer

    writer.unlock(without_files(config, emit, clock))


class _Tally:
    """Passes events on and keeps what the summary needs, over all attempts of a run."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._ids: list[str] = []
        self._last: Event | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, HistoryRead) and event == self._last:
            return  # whoever waits in the queue reads it twice a second
        self._last = event
        if isinstance(event, MigrationApplied | MigrationRecorded | MigrationRolledBack):
            self._ids.append(event.id)
        self._emit(event)

    def finish(self, done: str, run: Run, *, otherwise: str = "", kept: str = "") -> None:
        """Emit the summary of what *run* has done, if anything was; `--to` has *kept* that id."""
        if self._ids or otherwise:
            summary = done if self._ids else otherwise
            self._emit(Finished(summary, tuple(self._ids), run.seconds(), kept))
