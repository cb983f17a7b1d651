"""Reads what a decision needs from the database and the files, and no more than that."""

from __future__ import annotations

from initmig.core.errors import ConfigError
from initmig.core.model import longest_id
from initmig.core.records import TYPE_CHECKING
from initmig.history import store
from initmig.migrations import planning
from initmig.migrations.decision import History
from initmig.migrations.files import checksum, differs_in_line_ends, may_have_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from initmig.commands.context import Run
    from initmig.core.model import AppliedMigration, Migration, MigrationFile
    from initmig.postgres import Session


def read_ids(session: Session) -> History:
    """Only which ids are applied, for asking again and again.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return History(store.polled_summary(session).ids)


def read_history(session: Session, run: Run, *, if_pending: bool = False) -> History:
    """What is applied, in one query if nothing calls for more; with *if_pending*, pending files do.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return _more(session, run, store.history_summary(session, _last_id(run)), if_pending=if_pending)


def read_history_again(session: Session, run: Run) -> History:
    """As `read_history` with *if_pending*, for asking again and again.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return _more(session, run, store.polled_summary(session, _last_id(run)), if_pending=True)


def _more(session: Session, run: Run, glance: store.HistorySummary, *, if_pending: bool) -> History:
    left = planning.left_to_do(run.listing, glance.ids)
    if (
        left.unknown
        or (if_pending and left.pending)
        or run.config.changed == "fail"
        or _last_has_changed(run, glance)
    ):
        records = store.applied_migrations(session)
        return compared(run, History(glance.ids, records))
    return History(glance.ids)


def _last_id(run: Run) -> str:
    return run.listing.migrations[-1].id if run.listing.migrations else ""


def _last_has_changed(run: Run, glance: store.HistorySummary) -> bool:
    """Whether the last file differs from the one that was applied; False if it cannot be read."""
    if not glance.checksum:
        return False
    try:
        return glance.checksum != checksum(run.listing.migrations[-1].path)
    except ConfigError:
        return False


def read_everything(session: Session, run: Run) -> History:
    """What is applied, and what is half-applied, with everything that is recorded about it.

    The files are compared with what was applied only if something is pending, or if
    ``--changed=fail`` asks for it.

    :raises DatabaseRefused: the role cannot read the history's tables
    """
    records = store.applied_migrations(session)
    ids = store.applied_ids(session)
    unfinished = store.unfinished_migrations(session)
    history = History(ids, records, unfinished=unfinished)
    is_open = planning.left_to_do(run.listing, ids).pending or run.config.changed == "fail"
    return compared(run, history) if is_open else history


def compared(run: Run, history: History) -> History:
    """*history* with the applied migrations whose files differ; reads those that have a checksum.

    :raises ConfigError: a file cannot be read
    """
    recorded = {record.id: record.checksum for record in history.records if record.checksum}
    changed = [
        file
        for file in run.listing.migrations
        if file.id in recorded and checksum(file.path) != recorded[file.id]
    ]
    edited = [file for file in changed if not differs_in_line_ends(file.path, recorded[file.id])]
    return history._replace(
        changed=frozenset(file.id for file in changed),
        edited=frozenset(file.id for file in edited),
    )


def with_modules(run: Run, history: History, pending: Sequence[MigrationFile]) -> History:
    """*history* with the applied Python files that have no step, such as `helpers.py`.

    They sort behind all dates, and *pending* files are not out of order because of them. The files
    are read only if a pending file sorts before an applied one.
    """
    if not planning.behind(pending, history.ids, run.listing):
        return history
    modules = (file.id for file in run.listing.migrations if not may_have_steps(file))
    return history._replace(modules=frozenset(modules))


def load_pending(
    run: Run, pending: Sequence[MigrationFile], applied: Iterable[str]
) -> tuple[Migration, ...]:
    """The *pending* files as code, in dependency order; the ids *applied* are done.

    :raises ConfigError: with every problem of the files, also of those not meant for initmig
    """
    from initmig import engine
    from initmig.migrations import unintended

    done = frozenset(applied)
    return engine.load(
        pending,
        known={*run.known, *done},
        emit=run.emit,
        objections=lambda read: unintended.objections(read, done, run.listing, run.config),
    )


def load_hooks(run: Run) -> tuple[Migration, ...]:
    """The post-apply hooks as code.

    :raises ConfigError: with every problem of the files
    """
    from initmig import engine

    return engine.load(run.listing.hooks, known=run.known, emit=run.emit)


def load_to_undo(
    run: Run, chosen: Iterable[AppliedMigration], applied: Iterable[str]
) -> dict[str, Migration]:
    """The files of the *chosen* migrations as code, by id; those that have a file.

    :raises ConfigError: with every problem of the files
    """
    from initmig import engine
    from initmig.migrations import unintended

    wanted = {migration.id for migration in chosen}
    done = frozenset(applied)
    listed = (*run.listing.migrations, *run.listing.packages)
    loaded = engine.load(
        [file for file in listed if file.id in wanted],
        known={*run.known, *done},
        emit=run.emit,
        objections=lambda read: unintended.objections_to_undo(read, done, run.listing, run.config),
    )
    return {migration.id: migration for migration in loaded}


def refuse_unintended(run: Run, pending: Sequence[MigrationFile], applied: Iterable[str]) -> None:
    """Refuse *pending* files that are not meant for initmig, for commands that only read.

    Files with a name of a usual length are not loaded for this.

    :raises ConfigError: there are objections to the files, or one cannot be read
    """
    if any(len(file.id) > longest_id(transactional=False) for file in pending):
        load_pending(run, pending, applied)  # the limit depends on whether it is transactional
        return
    from initmig.migrations import unintended

    unintended.refuse_unintended(pending, applied, run.listing, run.config)
