"""The use cases that write, from where it is clear that there is something to write.

They bring in the executor and the engine, and with them yoyo.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from initmig import engine
from initmig.commands.context import (
    asked_for,
    go_on,
    is_pending,
    load_pending,
    look_behind_policies,
    look_through,
    meet_changed,
    meet_unknown,
    planned,
    refuse_old_image,
    with_session,
)
from initmig.core.errors import MigrationFailed
from initmig.core.events import (
    AlreadyApplied,
    AppliedElsewhere,
    NothingPending,
    NotLocked,
    RecordPlanned,
    ServerNotice,
    UnknownMigrations,
    YoyoLockRemoved,
)
from initmig.core.model import UNDOING
from initmig.core.records import Record
from initmig.engine.executor import Limits, locked_executor
from initmig.history import intake, store
from initmig.history.intake import refuse_other_place
from initmig.history.location import home_of
from initmig.locking.lock import remove_yoyo_row
from initmig.migrations import planning
from initmig.migrations.files import dependencies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from initmig.commands.context import Run
    from initmig.core.model import AppliedMigration, Direction, Migration, MigrationFile
    from initmig.engine.executor import Executor
    from initmig.postgres import Session


class Loaded(Record):
    """What was pending when that was read, and every hook, as code that can run."""

    pending: Sequence[Migration]
    hooks: Sequence[Migration]
    nothing_applied: bool
    """Whether the history was empty then."""


def load(run: Run, pending: Sequence[MigrationFile], applied: Sequence[str]) -> Loaded:
    """Every file that may have to run, before the first statement does.

    :raises ConfigError: with every problem of all of them
    """
    return Loaded(
        load_pending(run, pending, applied),
        engine.load(run.listing.hooks, known=run.known, emit=run.emit),
        not applied,
    )


def apply(session: Session, run: Run, loaded: Loaded) -> None:
    """Apply what is pending once this process holds the migration lock.

    :raises InitmigError: every one of them
    """
    with locked(session, run, lambda: is_pending(session, run)) as executor:
        plan, owed = read_and_plan(session, run, loaded.pending) if executor else ((), ())
        if executor is None or not (plan or owed):
            run.emit(AppliedElsewhere(run.seconds()))
            return
        due_hooks = [hook.id for hook in loaded.hooks]
        hooks = [hook for hook in loaded.hooks if plan or hook.file in owed]
        in_one = run.config.transaction == "all"
        refuse_leftovers(session, plan, together=in_one)
        refuse_leftovers(session, hooks)
        with naming_baseline(loaded):
            if plan and in_one:
                executor.apply_all(plan, due_hooks=due_hooks)
            else:
                executor.apply_each(plan, due_hooks=due_hooks)
        executor.run_hooks(hooks)


@contextmanager
def naming_baseline(loaded: Loaded) -> Iterator[None]:
    """A failure inside over what exists already names `baseline`, if nothing was applied before."""
    try:
        yield
    except MigrationFailed as error:
        if loaded.nothing_applied:
            error.problems = tuple(map(planning.with_baseline, error.problems))
        raise


def read_and_plan(
    session: Session, run: Run, loaded: Sequence[Migration]
) -> tuple[tuple[Migration, ...], tuple[MigrationFile, ...]]:
    """The plan as of now, and the hooks that are owed.

    Others may have applied, or rolled back, what was read before.
    """
    applied = store.applied_migrations(session)
    ids = store.applied_ids(session)
    left = look_through(run, ids)
    if {file.id for file in left.pending} - {migration.id for migration in loaded}:
        loaded = load(run, left.pending, ids).pending
    wanted = {file.id for file in left.pending}
    still = [migration for migration in loaded if migration.id in wanted]
    unfinished = store.unfinished_migrations(session)
    for id in set(left.half_undone) - {each.id for each in unfinished}:
        # a stock yoyo has come to its end
        home = home_of(session)
        session.query(
            store.write_guard(session, home) + store.delete_history_rows(home, UNDOING + id)
        )
    return planned(run, still, applied, unfinished), left.owed


def refuse_leftovers(
    session: Session,
    migrations: Iterable[Migration],
    direction: Direction = "apply",
    *,
    together: bool = False,
) -> None:
    """Refuse what would stay in a *session* that is not initmig's alone.

    Those *together* are one transaction.

    :raises PlanError: with what each of *migrations* would leave; nothing was run
    """
    if not session.is_dedicated:
        from initmig.engine import session_state  # which no other run needs

        session_state.refuse(session, migrations, direction, together=together)


def roll_back(run: Run) -> str:
    """Undo what the configuration says, newest first; the id that ``config.to`` keeps, or nothing.

    :raises InitmigError: every one of them
    """
    decided: list[AppliedMigration] = []
    return with_session(run, lambda session: _roll_back(session, run, decided))


def _roll_back(session: Session, run: Run, decided: list[AppliedMigration]) -> str:
    """Undo what was *decided* on before a connection was lost, else what is decided now."""
    if not store.applied_ids(session):
        look_behind_policies(session, run)
        planning.refuse_half_way(store.unfinished_migrations(session), {}, "rollback")
        return ""
    with locked(session, run, lambda: True) as executor:
        applied = planning.recorded(store.applied_migrations(session), run.listing)
        # `--steps 1` counts from the state in which the run found the database
        decided[:] = decided or _to_roll_back(run, applied)
        chosen = planning.still_applied(decided, applied)
        kept = planning.kept_applied(chosen, applied)
        # what of it is to be undone, too, is refused below
        refuse_old_image(session, planning.left_to_do(run.listing, kept).unknown)
        ids = tuple(migration.id for migration in applied)
        if unknown := planning.left_to_do(run.listing, ids).unknown:
            run.emit(UnknownMigrations(tuple(unknown)))
        meet_changed(run, applied, chosen)
        migrations = _load_for_rollback(run, chosen, applied)
        unfinished = store.unfinished_migrations(session)
        skip = run.config.irreversible == "skip"
        skipped = planning.skipped_in_rollback(chosen, migrations, unfinished, skip=skip)
        go_on(run, unfinished, migrations, "rollback")
        if chosen:
            intake.warn_of_ignored(run.config, run.emit)
        if executor:
            undoing = [migrations[applied.id] for applied in chosen]
            refuse_leftovers(session, undoing, "rollback")
            for event in skipped:
                run.emit(event)
            executor.roll_back(undoing)
        return _kept_by_to(run.config.to, kept)


def _kept_by_to(to: str, kept: Sequence[str]) -> str:
    """The id among *kept* that *to* stands for; empty without one."""
    if not to or to in kept:
        return to
    return next((id for id in kept if id.startswith(to)), "")


def _to_roll_back(run: Run, applied: Sequence[AppliedMigration]) -> tuple[AppliedMigration, ...]:
    config = run.config
    ids = [migration.id for migration in applied]
    to = planning.resolve_id(config.to, ids) if config.to else ""
    depends = {file.id: dependencies(file) for file in run.listing.migrations if file.id in ids}
    newest_first = planning.newest_first(applied, depends)
    return planning.to_roll_back(newest_first, to=to, steps=config.steps, everything=config.all)


def _load_for_rollback(
    run: Run, chosen: Iterable[AppliedMigration], applied: Iterable[AppliedMigration]
) -> dict[str, Migration]:
    wanted = {migration.id for migration in chosen}
    listed = (*run.listing.migrations, *run.listing.packages)
    files = [file for file in listed if file.id in wanted]
    done = [migration.id for migration in applied]
    loaded = engine.load(
        files,
        known={*run.known, *done},
        emit=run.emit,
        objections=lambda read: intake.objections_to_undo(read, done, run.listing, run.config),
    )
    return {migration.id: migration for migration in loaded}


def baseline(run: Run) -> None:
    """Record what is pending up to and with ``config.to`` as applied, without running it.

    :raises InitmigError: every one of them
    """
    chosen: list[Migration] = []

    def work(session: Session) -> None:
        if not chosen:
            chosen.extend(_choose(session, run))
        if chosen:  # also after a connection was lost: what of it is left is seen under the lock
            _record(session, run, chosen)

    with_session(run, work)


def _choose(session: Session, run: Run) -> Sequence[Migration]:
    """What is to be recorded, and told of before anything is written."""
    applied = store.applied_ids(session)
    left = look_through(run, applied)
    meet_unknown(session, run, left.unknown)
    to = planning.resolve_id(run.config.to, run.known)
    if there := planning.applied_up_to(to, applied, run.listing):
        run.emit(AlreadyApplied(there))
    pending = load_pending(run, left.pending, applied)
    chosen = planning.without_blocked(asked_for(run, pending), pending)
    meet_changed(run, store.applied_migrations(session), chosen)
    if chosen:
        look_behind_policies(session, run)
        refuse_other_place(session, run.config, applied, run.known)
    for migration in chosen:
        run.emit(RecordPlanned(migration.id, migration.file.path))
    if not chosen:
        run.emit(NothingPending(len(run.listing.migrations), later=len(pending)))
    return chosen


def _record(session: Session, run: Run, chosen: Sequence[Migration]) -> None:
    """Record what is still pending of the *chosen* once this process holds the migration lock."""
    with locked(session, run, lambda: is_pending(session, run)) as executor:
        left = look_through(run, store.applied_ids(session))
        still = [migration for migration in chosen if migration.file in left.pending]
        if executor is None or not still:
            run.emit(AppliedElsewhere(run.seconds()))
            return
        # the database has a part of such a one, which is not what its record would say
        planning.refuse_half_way(store.unfinished_migrations(session), {}, "apply")
        executor.record(still)


def unlock(run: Run) -> None:
    """Remove the lock row of a stock yoyo, or of a dead initmig; a live one's is left alone.

    :raises InitmigError: the database cannot be asked
    """
    removed = with_session(run, remove_yoyo_row)
    for pid, locked_at in removed:
        run.emit(YoyoLockRemoved(pid, locked_at))
    if not removed:
        run.emit(NotLocked())


def locked(
    session: Session, run: Run, is_needed: Callable[[], bool]
) -> AbstractContextManager[Executor | None]:
    """An executor that holds the migration lock, or None once *is_needed* says no."""
    limits = get_ready(session, run)
    return locked_executor(
        session, limits=limits, clock=run.clock, emit=run.emit, is_needed=is_needed
    )


def get_ready(session: Session, run: Run) -> Limits:
    """Let *session* be good for what the files of *run* need; how long they may take."""
    config = run.config
    if run.listing.has_python:
        session.switch_to_psycopg()
    session.set_notice_handler(lambda severity, text: run.emit(ServerNotice(severity, text)))
    return Limits(
        config.queue_timeout,
        config.lock_timeout,
        config.statement_timeout,
        config.lock_retries,
        config.live,
    )
