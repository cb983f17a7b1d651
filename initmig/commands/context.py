"""What the use cases share: their configuration, how they connect, what they follow and refuse."""

from __future__ import annotations

from initmig import postgres
from initmig.core.errors import ConfigError, InitmigError, PlanError
from initmig.core.events import (
    HistoryRead,
    NoMigrationsFound,
    NothingPending,
    SettingLeftOut,
    UnknownMigrations,
)
from initmig.core.model import (
    Listing,
    Migration,
    MigrationFile,
    longest_id,
)
from initmig.core.records import TYPE_CHECKING, Record
from initmig.history import store, trust
from initmig.migrations import planning
from initmig.migrations.files import checksum, differs_in_line_ends, list_files, may_have_steps
from initmig.postgres import waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import TypeVar

    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import Problem
    from initmig.core.events import Emit, Event
    from initmig.core.model import (
        AppliedMigration,
        Direction,
        Unfinished,
    )
    from initmig.locking.statement_retry import StatementRetry
    from initmig.postgres import Session

    _T = TypeVar("_T")
    _M = TypeVar("_M", MigrationFile, Migration)


class Run(Record):
    """What all parts of one use case share."""

    config: Config
    listing: Listing
    emit: Emit
    clock: Clock
    outage: waiting.Outage
    """One for the whole run: the wait timeout is for all of it."""
    begun: float
    """Seconds of the clock."""
    emit_once: Emit
    """For what each new connection would tell again."""
    reads: bool = False
    """Whether nothing will be written."""

    def seconds(self) -> float:
        """Since the run began."""
        return self.clock.now() - self.begun

    @property
    def known(self) -> list[str]:
        """The ids of this image, in its order."""
        return [file.id for file in self.listing.migrations]

    @property
    def settings(self) -> postgres.Settings:
        """How to connect, as of now: a secret may be in a file, and rotated."""
        config = self.config
        return postgres.Settings(
            config.database_url.read(),
            config.password.read(),
            config.schema,
            config.role,
            config.history_schema,
            config.history_table,
            config.lock_timeout,
            self.reads,
        )


def begin(config: Config, emit: Emit, clock: Clock) -> Run:
    """A run for the migrations that are listed in the folders.

    :raises ConfigError: a folder cannot be listed, or none has a migration
    """
    listing = list_files(config.migrations)
    if not listing.migrations:
        from initmig.history import intake

        intake.refuse_empty(config)
        emit(NoMigrationsFound(config.migrations))
    return without_files(config, emit, clock)._replace(listing=listing)


def without_files(config: Config, emit: Emit, clock: Clock) -> Run:
    """A run that is not about this image's migrations."""
    outage = waiting.Outage(config.wait_timeout, clock, emit)
    return Run(config, Listing(()), emit, clock, outage, clock.now(), _Once(emit))


class _Once:
    """Emits each event the first time."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._told: set[Event] = set()

    def __call__(self, event: Event) -> None:
        if event not in self._told:
            self._told.add(event)
            self._emit(event)


def with_session(run: Run, work: Callable[[Session], _T]) -> _T:
    """What *work* returns on a session, with waiting for the database.

    :raises PlanError: since the tables of the history were looked at, one came to run other code
    """

    def trusting(session: Session) -> _T:
        try:
            return work(session)
        except InitmigError as error:
            if trust.is_untrusted_error(error):
                raise trust.changed_error() from error
            raise

    def connect(limit: float) -> Session:
        session = postgres.connect(run.settings, limit=limit, warn=run.emit_once)
        session.set_left_out_handler(lambda *left_out: run.emit_once(SettingLeftOut(*left_out)))
        set_retry_handler(session, run, limit=run.outage.statement_limit())
        return session

    return waiting.with_session(connect, trusting, run.outage)


def set_retry_handler(session: Session, run: Run, *, limit: float) -> None:
    """Let what holds up initmig's own statements be told, and waited for *limit* seconds each."""

    def make(held_up: Session) -> StatementRetry:
        from initmig.locking.statement_retry import StatementRetry

        return StatementRetry(held_up, limit, run.clock, run.emit)

    session.set_retry_handler(make, limit)


def look_through(run: Run, applied: Sequence[str]) -> planning.LeftToDo:
    """What is left to do where yoyo's table has the ids *applied*; tells it."""
    left = planning.left_to_do(run.listing, applied)
    run.emit(
        HistoryRead(
            applied=len(run.listing.migrations) - len(left.pending),
            pending=left.ids,
            unknown=len(left.unknown),
        )
    )
    return left


def is_open(run: Run, left: planning.LeftToDo) -> bool:
    """Whether there is anything to do of what is *left*."""
    return bool(asked_for(run, left.pending) or left.owed or left.half_undone)


def history_summary(session: Session, run: Run) -> store.HistorySummary:
    """As `store.history_summary`, with the checksum of the last migration of this image.

    :raises DatabaseRefused: the role may not read yoyo's table
    """
    return store.history_summary(session, _last_id(run))


def polled_summary(session: Session, run: Run) -> store.HistorySummary:
    """As `history_summary`, for asking again and again."""
    return store.polled_summary(session, _last_id(run))


def _last_id(run: Run) -> str:
    return run.listing.migrations[-1].id if run.listing.migrations else ""


def left_to_apply(
    session: Session, run: Run, found: store.HistorySummary
) -> planning.LeftToDo | None:
    """What is left to do where that was *found*; None, and told, where that is nothing.

    :raises PlanError: the image is too old, the history is another tool's or application's, or
        under `--changed=fail` a file has changed
    """
    left = look_through(run, found.ids)
    open_ = is_open(run, left)
    findings = judge_history(session, run, found, left)
    if left.unknown:
        run.emit(UnknownMigrations(left.unknown))
    if open_:
        from initmig.history import intake

        look_behind_policies(session, run)
        intake.refuse_other_histories(session, run.config, found.ids, run.known)
        return left
    follow(run.config.changed, findings, run.emit)
    run.emit(NothingPending(len(run.listing.migrations), later=len(left.pending)))
    return None


def judge_history(
    session: Session,
    run: Run,
    found: store.HistorySummary,
    left: planning.LeftToDo,
    *,
    also_pending: bool = False,
) -> Sequence[planning.Finding]:
    """The applied migrations whose files changed, looked for only if something calls for it.

    That is a second query, and reads the files. Whoever will not plan what is left asks for it
    *also_pending*: while something is pending.

    :raises PlanError: the image is too old for what is applied, the history is also another
        application's, or under `--changed=fail` a file has changed
    """
    if not (
        left.unknown
        or (also_pending and left.pending)
        or run.config.changed == "fail"
        or _last_has_changed(run, found)
    ):
        return ()
    records = store.applied_migrations(session)
    planning.refuse_old_image(record for record in records if record.id in left.unknown)
    findings = changed(run, records)
    refuse_shared(run, records, findings)
    if run.config.changed == "fail":
        planning.refuse(findings)
    return findings


def _last_has_changed(run: Run, found: store.HistorySummary) -> bool:
    """Whether the last file is not the one that was applied; False if it cannot be read."""
    if not found.checksum:
        return False
    try:
        return found.checksum != checksum(run.listing.migrations[-1].path)
    except ConfigError:
        return False


def refuse_shared(
    run: Run, records: Sequence[AppliedMigration], findings: Sequence[planning.Finding]
) -> None:
    """:raises PlanError: the *records* are another application's; under `--changed` not allow."""
    ids = {finding.event.id for finding in findings}
    if run.config.changed != "allow" and (problem := shared(run, records, ids)):
        told = findings if run.config.changed == "fail" else ()
        raise PlanError.of((problem, *(finding.error for finding in told)))


def shared(
    run: Run, records: Iterable[AppliedMigration], changed_ids: Collection[str]
) -> Problem | None:
    """Why the *records* seem to be of another application; None if they do not."""
    records = tuple(records)
    recorded = {record.id: record.checksum for record in records}
    different = [
        file.id
        for file in run.listing.migrations
        if file.id in changed_ids and not differs_in_line_ends(file.path, recorded[file.id])
    ]
    return planning.shared(run.listing, records, different)


def look_behind_policies(session: Session, run: Run) -> None:
    """For what looks pending: say so, once, if row level security may only hide that it is applied.

    :raises PlanError: it hides everything
    """
    from initmig.history import row_security

    if event := row_security.check(session):
        run.emit_once(event)


def is_pending(session: Session, run: Run) -> bool:
    """Whether there is anything to do by now."""
    return is_open(run, look_through(run, store.polled_summary(session).ids))


def meet_unknown(session: Session, run: Run, unknown: Sequence[str]) -> None:
    """Say that the database is ahead, unless an older application cannot live with that."""
    refuse_old_image(session, unknown)
    if unknown:
        run.emit(UnknownMigrations(tuple(unknown)))


def refuse_old_image(session: Session, unknown: Sequence[str]) -> None:
    """A second query only where there are any *unknown* to this image.

    :raises PlanError: a breaking one is among them
    """
    if unknown:
        records = store.applied_migrations(session)
        planning.refuse_old_image(record for record in records if record.id in unknown)


def refuse_as_migrate_would(
    session: Session, run: Run, left: planning.LeftToDo, found: store.HistorySummary
) -> Sequence[planning.Finding]:
    """For who reads only, the applied migrations whose files changed.

    They are looked for as in `judge_history`.

    :raises PlanError: `migrate` would refuse to start, with what is *left* of what was *found*
    """
    applied = found.ids
    findings = judge_history(session, run, found, left, also_pending=True)
    if left.pending:
        from initmig.history import intake

        look_behind_policies(session, run)
        intake.refuse_other_histories(session, run.config, applied, run.known)
        refuse_unintended(run, left.pending, applied)
    if run.config.out_of_order == "fail":
        files = placed_by_name(run, left.pending, applied)
        planning.refuse(planning.out_of_order(files, in_sequence(run, files, applied), run.listing))
    return findings


def refuse_unintended(run: Run, pending: Sequence[MigrationFile], applied: Sequence[str]) -> None:
    """For who reads only: of files with a usual name, no more is read than there is to object to.

    :raises ConfigError: there are objections to *pending* files, or one cannot be read
    """
    if any(len(file.id) > longest_id(transactional=False) for file in pending):
        load_pending(run, pending, applied)  # else nothing tells whether they are transactional
        return
    from initmig.history import intake

    intake.refuse_unintended(pending, applied, run.listing, run.config)


def placed_by_name(
    run: Run, pending: Sequence[MigrationFile], applied: Sequence[str]
) -> Sequence[MigrationFile]:
    """Those of the *pending* files whose name says when they run.

    They are read only where one sorts before an applied one: it may follow another by intention.

    :raises ConfigError: with every problem of the files
    """
    if not planning.behind(pending, in_sequence(run, pending, applied), run.listing):
        return pending
    return planning.placed_by_name(load_pending(run, pending, applied))


def in_sequence(
    run: Run, pending: Sequence[MigrationFile], applied: Sequence[str]
) -> Sequence[str]:
    """Those of the ids *applied* that *pending* files can come too late for.

    That is all but modules without a step, such as `helpers.py`, which sorts behind all dates.
    They are read only where a file is behind.
    """
    if not planning.behind(pending, applied, run.listing):
        return applied
    modules = {file.id for file in run.listing.migrations if not may_have_steps(file)}
    return [id for id in applied if id not in modules]


def load_pending(
    run: Run, pending: Sequence[MigrationFile], applied: Iterable[str]
) -> tuple[Migration, ...]:
    """The *pending* files as code that can run, in dependency order; the ids *applied* are done.

    :raises ConfigError: with every problem of the files, also of those not meant for initmig
    """
    from initmig import engine
    from initmig.history import intake

    done = frozenset(applied)
    return engine.load(
        pending,
        known={*run.known, *done},
        emit=run.emit,
        objections=lambda read: intake.objections(read, done, run.listing, run.config),
    )


def asked_for(run: Run, pending: Sequence[_M]) -> Sequence[_M]:
    """Those of the *pending*, in their order, that ``--to`` asks for, or all."""
    if not run.config.to:
        return pending
    target = planning.resolve_id(run.config.to, run.known)
    return planning.up_to(target, pending, run.listing)


def changed(run: Run, applied: Iterable[AppliedMigration]) -> tuple[planning.Finding, ...]:
    """The applied migrations whose file changed; reads those that have something to compare."""
    recorded = {migration.id for migration in applied if migration.checksum}
    checksums = {
        file.id: checksum(file.path) for file in run.listing.migrations if file.id in recorded
    }
    return planning.changed(run.listing, applied, checksums)


def meet_changed(run: Run, applied: Sequence[AppliedMigration], work: Sequence[object]) -> None:
    """Follow the policy for changed files, of which is told only if there is *work* to do.

    :raises PlanError: the history is also another application's; under `--changed=fail` there are
        any, with or without work
    """
    if work or run.config.changed == "fail":
        findings = changed(run, applied)
        refuse_shared(run, applied, findings)
        follow(run.config.changed, findings, run.emit)


def follow(policy: str, findings: Sequence[planning.Finding], emit: Emit) -> None:
    """:raises PlanError: there are *findings*, and *policy* says fail; warn emits them."""
    if policy == "fail":
        planning.refuse(findings)
    if policy == "warn":
        for finding in findings:
            emit(finding.event)


def planned(
    run: Run,
    pending: Sequence[Migration],
    applied: Sequence[AppliedMigration],
    unfinished: Sequence[Unfinished],
) -> tuple[Migration, ...]:
    """What of *pending* is to be applied, by the policies of the configuration."""
    plan = planning.without_blocked(asked_for(run, pending), pending)
    stopped = [each for each in unfinished if plan or each.direction == "rollback"]
    go_on(run, stopped, {migration.id: migration for migration in plan}, "apply")
    files = planning.placed_by_name(plan)
    ids = [migration.id for migration in applied]
    if plan:
        from initmig.history import intake

        intake.warn(plan, run.config, run.emit)
        findings = planning.out_of_order(files, in_sequence(run, files, ids), run.listing)
        follow(run.config.out_of_order, findings, run.emit)
    meet_changed(run, applied, plan)
    if run.config.transaction == "all":
        planning.refuse_transaction_of_all(plan)
    return plan


def go_on(
    run: Run,
    unfinished: Sequence[Unfinished],
    migrations: Mapping[str, Migration],
    direction: Direction,
) -> None:
    """:raises PlanError: what stopped half way is not what *migrations* would go on with."""
    planning.refuse_half_way(unfinished, migrations, direction)
    findings = planning.changed_half_way(unfinished, migrations)
    if run.config.changed != "allow":
        planning.refuse(findings)
