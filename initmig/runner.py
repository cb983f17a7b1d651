"""The use cases. Each reads top to bottom: connect, read, decide, act.

Only what the no-op needs is imported up here; the lock, the executor and with them yoyo come in
when something is pending.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from initmig import history, planning, postgres, waiting
from initmig.clock import SYSTEM_CLOCK, Clock
from initmig.config import Config
from initmig.errors import ConfigError, MigrationsPending
from initmig.events import (
    AppliedElsewhere,
    Emit,
    Event,
    Finished,
    HistoryRead,
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
from initmig.model import (
    UNDOING,
    AppliedMigration,
    Direction,
    Listing,
    Migration,
    MigrationFile,
    MigrationStatus,
    Unfinished,
)
from initmig.postgres import Session

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from initmig.executor import Executor

_LOOK_SECONDS = 10.0
"""For an answer that takes no time: a server that takes longer is as good as away."""

_T = TypeVar("_T")
_M = TypeVar("_M", MigrationFile, Migration)


class _Run(NamedTuple):
    """What all parts of one use case share."""

    config: Config
    listing: Listing
    emit: Emit
    clock: Clock

    @property
    def known(self) -> list[str]:
        """The ids of this image, in its order."""
        return [file.id for file in self.listing.migrations]


def migrate(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Apply everything that is pending, or up to and with ``config.to``.

    :raises InitmigError: every one of them
    """
    tally = _Tally(emit, clock)
    run = _Run(config, _list(config, emit), tally, clock)
    _with_session(run, lambda session: _migrate(session, run, tally))
    tally.finish("applied")


def _migrate(session: Session, run: _Run, tally: "_Tally") -> None:
    applied = history.applied_ids(session)
    _meet_unknown(session, run, applied)
    if run.config.changed == "fail":
        planning.refuse(_changed(run, history.applied_migrations(session)))
    left = _look_through(run, applied)
    if not _is_open(run, left):
        run.emit(NothingPending(len(run.listing.migrations), later=len(left.pending)))
        return
    from initmig import engine

    # every file is loaded before the first statement runs, and before others are kept waiting
    loaded = engine.load(left.pending, known={*run.known, *applied}, emit=run.emit)
    hooks = engine.load(run.listing.hooks, known=run.known, emit=run.emit)
    with _locked(session, run, lambda: _is_pending(session, run)) as executor:
        plan, owed = _read_and_plan(session, run, loaded) if executor else ((), ())
        if executor is None or not (plan or owed):
            run.emit(AppliedElsewhere(tally.seconds()))
            return
        owing = [hook.id for hook in hooks]
        if plan and run.config.transaction == "all":
            executor.apply_all(plan, owing=owing)
        else:
            executor.apply_each(plan, owing=owing)
        executor.run_hooks([hook for hook in hooks if plan or hook.file in owed])


def _is_pending(session: Session, run: _Run) -> bool:
    return _is_open(run, _look_through(run, history.applied_ids_so_far(session)))


def _look_through(run: _Run, applied: Sequence[str]) -> planning.LeftToDo:
    """What is left to do where yoyo's table has the ids *applied*; tells it."""
    left = planning.left_to_do(run.listing, applied)
    run.emit(
        HistoryRead(
            applied=len(run.listing.migrations) - len(left.pending),
            pending=left.ids,
            unknown=len(planning.unknown_ids(run.listing, applied)),
        )
    )
    return left


def _is_open(run: _Run, left: planning.LeftToDo) -> bool:
    return bool(_asked_for(run, left.pending) or left.owed or left.half_undone)


def _read_and_plan(
    session: Session, run: _Run, loaded: Sequence[Migration]
) -> tuple[tuple[Migration, ...], tuple[MigrationFile, ...]]:
    """The plan as of now, and the hooks that are owed.

    Others may have applied, or rolled back, what was read before.
    """
    applied = history.applied_migrations(session)
    ids = history.applied_ids(session)
    left = _look_through(run, ids)
    if {file.id for file in left.pending} - {migration.id for migration in loaded}:
        from initmig import engine

        loaded = engine.load(left.pending, known={*run.known, *ids}, emit=run.emit)
    wanted = {file.id for file in left.pending}
    still = [migration for migration in loaded if migration.id in wanted]
    unfinished = history.unfinished_migrations(session)
    for id in set(left.half_undone) - {each.id for each in unfinished}:
        session.query(history.settle(UNDOING + id))  # a stock yoyo has come to its end
    return _plan(run, still, applied, unfinished), left.owed


def _plan(
    run: _Run,
    pending: Sequence[Migration],
    applied: Sequence[AppliedMigration],
    unfinished: Sequence[Unfinished],
) -> tuple[Migration, ...]:
    """What of *pending* is to be applied, by the policies of the configuration."""
    plan = planning.without_blocked(_asked_for(run, pending), pending)
    stopped = [each for each in unfinished if plan or each.direction == "rollback"]
    _go_on(run, stopped, {migration.id: migration for migration in plan}, "apply")
    files = planning.placed_by_name(plan)
    ids = [migration.id for migration in applied]
    if plan:
        _follow(run.config.out_of_order, planning.out_of_order(files, ids, run.listing), run.emit)
        _follow(run.config.changed, _changed(run, applied), run.emit)
    if run.config.transaction == "all":
        planning.refuse_transaction_of_all(plan)
    return plan


def _go_on(
    run: _Run,
    unfinished: Sequence[Unfinished],
    migrations: Mapping[str, Migration],
    direction: Direction,
) -> None:
    """:raises PlanError: what stopped half way is not what *migrations* would go on with."""
    planning.refuse_half_way(unfinished, migrations, direction)
    findings = planning.changed_half_way(unfinished, migrations)
    if run.config.changed != "allow":
        planning.refuse(findings)


def rollback(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Undo what ``config.to``, ``config.steps`` or ``config.all`` says, newest first.

    :raises PlanError: one of them cannot be undone; nothing was touched
    :raises InitmigError: and every other one
    """
    tally = _Tally(emit, clock)
    run = _Run(config, _list(config, emit), tally, clock)
    decided: list[AppliedMigration] = []
    _with_session(run, lambda session: _roll_back(session, run, decided))
    tally.finish("rolled back", otherwise="nothing to roll back")


def _roll_back(session: Session, run: _Run, decided: list[AppliedMigration]) -> None:
    """Undo what was *decided* on before a connection was lost, else what is decided now."""
    if not history.applied_ids(session):
        planning.refuse_half_way(history.unfinished_migrations(session), {}, "rollback")
        return
    with _locked(session, run, lambda: True) as executor:
        applied = history.applied_migrations(session)
        # `--steps 1` counts from the state in which the run found the database
        decided[:] = decided or _to_roll_back(run.config, applied)
        chosen = planning.still_applied(decided, applied)
        migrations = _load_for_rollback(run, chosen, applied)
        planning.refuse_irreversible(chosen, migrations)
        _go_on(run, history.unfinished_migrations(session), migrations, "rollback")
        if executor:
            executor.roll_back([migrations[applied.id] for applied in chosen])


def _to_roll_back(
    config: Config, applied: Sequence[AppliedMigration]
) -> tuple[AppliedMigration, ...]:
    to = planning.resolve_id(config.to, [m.id for m in applied]) if config.to else ""
    return planning.to_roll_back(applied, to=to, steps=config.steps, everything=config.all)


def _load_for_rollback(
    run: _Run, chosen: Iterable[AppliedMigration], applied: Iterable[AppliedMigration]
) -> dict[str, Migration]:
    from initmig import engine

    wanted = {migration.id for migration in chosen}
    files = [file for file in run.listing.migrations if file.id in wanted]
    known = {*run.known, *(migration.id for migration in applied)}
    loaded = engine.load(files, known=known, emit=run.emit)
    return {migration.id: migration for migration in loaded}


def status(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[MigrationStatus, ...]:
    """Every migration of this image, and those that are applied and unknown to it.

    :raises InitmigError: the database cannot be asked, or the folders not be listed
    """
    run = _Run(config, _list(config, emit), emit, clock)
    applied, ids, unfinished = _with_session(
        run,
        lambda session: (
            history.applied_migrations(session),
            history.applied_ids_so_far(session),
            history.unfinished_migrations(session),
        ),
    )
    changed = {finding.event.id for finding in _changed(run, applied)}
    rows = planning.statuses(
        run.listing,
        applied,
        changed,
        owed=planning.left_to_do(run.listing, ids).owed,
        unfinished=unfinished,
    )
    return tuple(_with_parts(run, row) if row.unfinished and row.path else row for row in rows)


def _with_parts(run: _Run, row: MigrationStatus) -> MigrationStatus:
    """*row* with the places of its migration's parts, if the file can be read."""
    from initmig import engine

    files = (*run.listing.migrations, *run.listing.hooks)
    file = next(file for file in files if file.id == row.id)
    try:
        [migration] = engine.load([file], known=run.known, emit=run.emit)
    except ConfigError:
        return row
    applying = row.state == "applying"
    return row._replace(parts=migration.parts if applying else migration.rollback_parts)


def plan(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> tuple[Migration, ...]:
    """What `migrate` would run, in order; reads only.

    :raises InitmigError: whatever `migrate` would refuse before it runs anything
    """
    from initmig import engine

    run = _Run(config, _list(config, emit), emit, clock)

    def work(session: Session) -> tuple[Sequence[AppliedMigration], Sequence[Unfinished]]:
        applied = history.applied_migrations(session)
        _meet_unknown(session, run, [migration.id for migration in applied])
        return applied, history.unfinished_migrations(session)

    applied, unfinished = _with_session(run, work)
    ids = [migration.id for migration in applied]
    pending = planning.pending_files(run.listing, ids)
    loaded = engine.load(pending, known={*ids, *run.known}, emit=run.emit)
    return _plan(run, loaded, applied, unfinished)


def wait(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Return once the database answers, or once every migration of this image is applied.

    :raises MigrationsPending: the wait timeout is over, and migrations are pending
    :raises InitmigError: and every other one that a read can meet
    """
    if config.wait_for == "database":
        run = _Run(config, Listing(()), emit, clock)
        _with_session(run, lambda session: session.query("SELECT 1"))
        return
    run = _Run(config, _list(config, emit), emit, clock)
    _with_session(run, lambda session: _refuse_pending(session, run))
    emit(NothingPending(len(run.listing.migrations)))


def _refuse_pending(session: Session, run: _Run) -> None:
    applied = history.applied_ids_so_far(session)
    unknown = _refuse_old_image(session, run, applied)
    pending = planning.left_to_do(run.listing, applied).ids
    if pending:
        raise MigrationsPending(
            f"{len(pending)} pending: {', '.join(pending)}",
            hint="run `initmig migrate` for this database, or see why it does not get on",
        )
    if unknown:
        run.emit(UnknownMigrations(unknown))


def look(config: Config, listing: Listing, emit: Emit) -> None:
    """Tell what of *listing* is applied: one attempt, one query, no waiting.

    :raises InitmigError: the database cannot be asked, or does not answer
    """
    run = _Run(config, listing, emit, SYSTEM_CLOCK)
    session = _connect(run, answer_timeout=_LOOK_SECONDS)
    try:
        _look_through(run, history.applied_ids(session))
    finally:
        session.close()


def unlock(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> None:
    """Remove the lock row of a stock yoyo, or of a dead initmig; a live one's is left alone.

    :raises InitmigError: the database cannot be asked
    """
    from initmig.lock import remove_yoyo_row

    run = _Run(config, Listing(()), emit, clock)
    removed = _with_session(run, remove_yoyo_row)
    for pid, locked_at in removed:
        emit(YoyoLockRemoved(pid, locked_at))
    if not removed:
        emit(NotLocked())


def _list(config: Config, emit: Emit) -> Listing:
    listing = list_files(config.migrations)
    if not listing.migrations:
        emit(NoMigrationsFound(config.migrations))
    return listing


def _with_session(run: _Run, work: Callable[[Session], _T]) -> _T:
    return waiting.with_session(
        lambda timeout: _connect(run, timeout),
        work,
        timeout=run.config.wait_timeout,
        clock=run.clock,
        emit=run.emit,
    )


def _connect(
    run: _Run,
    timeout: float = postgres.CONNECT_TIMEOUT_SECONDS,
    *,
    answer_timeout: float | None = None,
) -> Session:
    config = run.config
    return postgres.connect(
        postgres.Settings(
            config.database_url.read(), config.password.read(), config.schema, config.role
        ),
        timeout=timeout,
        answer_timeout=answer_timeout,
        on_notice=lambda severity, text: run.emit(ServerNotice(severity, text)),
    )


def _locked(
    session: Session, run: _Run, is_needed: Callable[[], bool]
) -> "AbstractContextManager[Executor | None]":
    """An executor that holds the migration lock, or None once *is_needed* says no."""
    from initmig.executor import Limits, locked_executor

    limits = Limits(
        run.config.queue_timeout,
        run.config.lock_timeout,
        run.config.statement_timeout,
        run.config.lock_retries,
    )
    return locked_executor(
        session,
        limits=limits,
        clock=run.clock,
        emit=run.emit,
        is_needed=is_needed,
    )


def _meet_unknown(session: Session, run: _Run, applied: Sequence[str]) -> None:
    """Say that the database is ahead, unless an older application cannot live with that."""
    if unknown := _refuse_old_image(session, run, applied):
        run.emit(UnknownMigrations(unknown))


def _refuse_old_image(session: Session, run: _Run, applied: Sequence[str]) -> tuple[str, ...]:
    """The ids unknown to this image; a second query only where there are any.

    :raises PlanError: a breaking one is among them
    """
    unknown = planning.unknown_ids(run.listing, applied)
    if unknown:
        records = history.applied_migrations(session)
        planning.refuse_old_image(record for record in records if record.id in unknown)
    return unknown


def _asked_for(run: _Run, pending: Sequence[_M]) -> Sequence[_M]:
    """Those of the *pending*, in their order, that ``--to`` asks for, or all."""
    if not run.config.to:
        return pending
    target = planning.resolve_id(run.config.to, run.known)
    return planning.up_to(target, pending, run.listing)


def _changed(run: _Run, applied: Iterable[AppliedMigration]) -> tuple[planning.Finding, ...]:
    """The applied migrations whose file changed; reads those that have something to compare."""
    recorded = {migration.id for migration in applied if migration.checksum}
    checksums = {
        file.id: checksum(file.path) for file in run.listing.migrations if file.id in recorded
    }
    return planning.changed(run.listing, applied, checksums)


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
        self._last: Event | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, HistoryRead) and event == self._last:
            return  # whoever waits in the queue reads it twice a second
        self._last = event
        if isinstance(event, MigrationApplied | MigrationRolledBack):
            self._ids.append(event.id)
        self._emit(event)

    def seconds(self) -> float:
        return self._clock.now() - self._begun

    def finish(self, done: str, *, otherwise: str = "") -> None:
        """Emit the summary of what was done, if anything was."""
        if self._ids or otherwise:
            self._emit(Finished(done if self._ids else otherwise, tuple(self._ids), self.seconds()))
