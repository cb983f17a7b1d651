"""The use cases. Each reads top to bottom: connect, read, decide, act.

Only what the no-op needs is imported up here; the lock, the executor and with them yoyo come in
when something is pending.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from initmig import history, planning, postgres, waiting
from initmig.clock import SYSTEM_CLOCK, Clock
from initmig.config import Config
from initmig.errors import MigrationsPending
from initmig.events import (
    AppliedElsewhere,
    Emit,
    Event,
    Finished,
    MigrationApplied,
    MigrationRolledBack,
    NoMigrationsFound,
    NothingPending,
    NotLocked,
    ServerNotice,
    UnknownMigrations,
    YoyoLockRemoved,
)
from initmig.files import checksum, list_files
from initmig.model import AppliedMigration, Listing, Migration, MigrationFile, MigrationStatus
from initmig.postgres import Session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from initmig.executor import Executor

_T = TypeVar("_T")


def migrate(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Apply everything that is pending, or up to and with ``config.to``.

    :raises InitmigError: every one of them
    """
    listing = _list(config, emit)
    tally = _Tally(emit, clock)

    def work(session: Session) -> None:
        applied = history.applied_ids(session)
        _meet_unknown(session, listing, applied, tally)
        if config.changed == "fail":
            planning.refuse(_changed(session, listing))
        pending = planning.pending_files(listing, applied)
        if not _asked_for(pending, config, listing):
            tally(NothingPending(len(listing.migrations)))
            return
        _apply_pending(session, config, listing, pending, tally, clock)

    _with_session(config, tally, clock, work)
    tally.finish("applied")


def _apply_pending(
    session: Session,
    config: Config,
    listing: Listing,
    pending: Sequence[MigrationFile],
    tally: "_Tally",
    clock: Clock,
) -> None:
    """Load, lock, read again, plan, apply: every file is checked before the first statement."""
    from initmig import engine

    known = [file.id for file in listing.migrations]
    loaded = engine.load(pending, known={*known, *history.applied_ids(session)})
    hooks = engine.load(listing.hooks, known=known)

    def is_needed() -> bool:
        return bool(planning.pending_files(listing, history.applied_ids(session)))

    with _locked(session, config, tally, clock, is_needed) as executor:
        if executor is None:
            tally(AppliedElsewhere(tally.seconds()))
            return
        applied = history.applied_migrations(session)
        ids = [migration.id for migration in applied]
        pending = planning.pending_files(listing, ids)
        if {file.id for file in pending} - {migration.id for migration in loaded}:
            loaded = engine.load(pending, known={*known, *ids})  # rolled back in the meantime
        plan = _plan(config, listing, loaded, applied, tally)
        if not plan:
            return
        if config.transaction == "all":
            executor.apply_all(plan)
        else:
            executor.apply_each(plan)
        executor.run_hooks(hooks)


def _plan(
    config: Config,
    listing: Listing,
    loaded: Sequence[Migration],
    applied: Sequence[AppliedMigration],
    emit: Emit,
) -> tuple[Migration, ...]:
    """What of *loaded* is to be applied, in order, by the policies of *config*."""
    ids = [migration.id for migration in applied]
    pending = {file.id for file in planning.pending_files(listing, ids)}
    plan = tuple(migration for migration in loaded if migration.id in pending)
    if config.to:
        plan = planning.up_to(_target(config, listing), plan, listing)
    files = [migration.file for migration in plan]
    _follow(config.out_of_order, planning.out_of_order(files, ids, listing), emit)
    _follow(config.changed, _compare(listing, applied), emit)
    if config.transaction == "all":
        planning.refuse_transaction_of_all(plan)
    return plan


def rollback(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Undo what ``config.to``, ``config.steps`` or ``config.all`` says, newest first.

    :raises PlanError: one of them cannot be undone; nothing was touched
    :raises InitmigError: and every other one
    """
    listing = _list(config, emit)
    tally = _Tally(emit, clock)

    def work(session: Session) -> None:
        if not history.applied_ids(session):
            return
        with _locked(session, config, tally, clock, lambda: True) as executor:
            chosen = _to_roll_back(config, history.applied_migrations(session))
            migrations = _load_for_rollback(listing, chosen)
            planning.refuse_irreversible(chosen, migrations)
            if executor:
                executor.roll_back([migrations[applied.id] for applied in chosen])

    _with_session(config, tally, clock, work)
    tally.finish("rolled back", otherwise="nothing to roll back")


def _to_roll_back(
    config: Config, applied: Sequence[AppliedMigration]
) -> tuple[AppliedMigration, ...]:
    to = planning.resolve_id(config.to, [m.id for m in applied]) if config.to else ""
    return planning.to_roll_back(applied, to=to, steps=config.steps, everything=config.all)


def _load_for_rollback(
    listing: Listing, chosen: Iterable[AppliedMigration]
) -> dict[str, Migration]:
    from initmig import engine

    wanted = {applied.id for applied in chosen}
    files = [file for file in listing.migrations if file.id in wanted]
    known = wanted | {file.id for file in listing.migrations}
    return {migration.id: migration for migration in engine.load(files, known=known)}


def status(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[MigrationStatus, ...]:
    """Every migration of this image, and those that are applied and unknown to it.

    :raises InitmigError: the database cannot be asked, or the folders not be listed
    """
    listing = _list(config, emit)
    applied = _with_session(config, emit, clock, history.applied_migrations)
    changed = {finding.event.id for finding in _compare(listing, applied)}
    return planning.statuses(listing, applied, changed)


def plan(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[Migration, ...]:
    """What `migrate` would run, in order; reads only.

    :raises InitmigError: whatever `migrate` would refuse before it runs anything
    """
    from initmig import engine

    listing = _list(config, emit)
    applied = _with_session(config, emit, clock, history.applied_migrations)
    ids = [migration.id for migration in applied]
    known = {*ids, *(file.id for file in listing.migrations)}
    loaded = engine.load(planning.pending_files(listing, ids), known=known)
    return _plan(config, listing, loaded, applied, emit)


def wait(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Return once the database answers, or once every migration of this image is applied.

    :raises MigrationsPending: the wait timeout is over, and migrations are pending
    :raises InitmigError: and every other one that a read can meet
    """
    if config.wait_for == "database":
        _with_session(config, emit, clock, lambda session: session.query("SELECT 1"))
        return
    listing = _list(config, emit)

    def work(session: Session) -> None:
        applied = history.applied_ids(session)
        pending = planning.pending_files(listing, applied)
        if pending:
            raise MigrationsPending(
                f"{len(pending)} pending: {', '.join(file.id for file in pending)}",
                hint="run `initmig migrate` for this database, or see why it does not get on",
            )
        _meet_unknown(session, listing, applied, emit)

    _with_session(config, emit, clock, work)
    emit(NothingPending(len(listing.migrations)))


def unlock(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Remove the lock row of a stock yoyo; a live initmig's is left alone.

    :raises InitmigError: the database cannot be asked
    """

    def work(session: Session) -> None:
        removed = history.remove_yoyo_lock(session)
        for pid, locked_at in removed:
            emit(YoyoLockRemoved(pid, locked_at))
        if not removed:
            emit(NotLocked())

    _with_session(config, emit, clock, work)


def _list(config: Config, emit: Emit) -> Listing:
    listing = list_files(config.migrations)
    if not listing.migrations:
        emit(NoMigrationsFound(config.migrations))
    return listing


def _with_session(config: Config, emit: Emit, clock: Clock, work: Callable[[Session], _T]) -> _T:
    def connect(timeout: float) -> Session:
        return postgres.connect(
            postgres.Settings(
                config.database_url.read(), config.password.read(), config.schema, config.role
            ),
            timeout=timeout,
            on_notice=lambda severity, text: emit(ServerNotice(severity, text)),
        )

    return waiting.with_session(connect, work, timeout=config.wait_timeout, clock=clock, emit=emit)


def _locked(
    session: Session, config: Config, emit: Emit, clock: Clock, is_needed: Callable[[], bool]
) -> "AbstractContextManager[Executor | None]":
    """An executor that holds the migration lock, or None once *is_needed* says no."""
    from initmig.executor import Limits, locked_executor

    return locked_executor(
        session,
        limits=Limits(
            config.queue_timeout,
            config.lock_timeout,
            config.statement_timeout,
            config.lock_retries,
        ),
        clock=clock,
        emit=emit,
        is_needed=is_needed,
    )


def _meet_unknown(session: Session, listing: Listing, applied: Sequence[str], emit: Emit) -> None:
    """Say that the database is ahead; refuse where an older application cannot live with it."""
    unknown = set(planning.unknown_ids(listing, applied))
    if not unknown:
        return
    records = [m for m in history.applied_migrations(session) if m.id in unknown]
    planning.refuse_old_image(records)
    emit(UnknownMigrations(tuple(migration.id for migration in records)))


def _asked_for(
    pending: Sequence[MigrationFile], config: Config, listing: Listing
) -> Sequence[MigrationFile]:
    return planning.up_to(_target(config, listing), pending, listing) if config.to else pending


def _target(config: Config, listing: Listing) -> str:
    return planning.resolve_id(config.to, [file.id for file in listing.migrations])


def _changed(session: Session, listing: Listing) -> tuple[planning.Finding, ...]:
    return _compare(listing, history.applied_migrations(session))


def _compare(listing: Listing, applied: Iterable[AppliedMigration]) -> tuple[planning.Finding, ...]:
    """The applied migrations whose file changed; reads those that have something to compare."""
    recorded = {migration.id for migration in applied if migration.checksum}
    checksums = {file.id: checksum(file.path) for file in listing.migrations if file.id in recorded}
    return planning.changed(listing, applied, checksums)


def _follow(policy: str, findings: Sequence[planning.Finding], emit: Emit) -> None:
    if policy == "fail":
        planning.refuse(findings)
    if policy == "warn":
        for finding in findings:
            emit(finding.event)


class _Tally:
    """Passes events on and keeps what the summary needs, over all attempts of a run."""

    def __init__(self, emit: Emit, clock: Clock) -> None:
        self._emit = emit
        self._clock = clock
        self._begun = clock.now()
        self._ids: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, MigrationApplied | MigrationRolledBack):
            self._ids.append(event.id)
        self._emit(event)

    def seconds(self) -> float:
        return self._clock.now() - self._begun

    def finish(self, done: str, *, otherwise: str = "") -> None:
        """Emit the summary of what was done, if anything was."""
        if self._ids or otherwise:
            self._emit(Finished(done if self._ids else otherwise, tuple(self._ids), self.seconds()))
