"""Reads only the part of the database and the files that a decision needs."""

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
    """Read only the applied ids, for repeated queries.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return History(store.polled_summary(session).ids)


def read_history(session: Session, run: Run, *, if_pending: bool = False) -> History:
    """Read the applied migrations, usually in one query.

    A second query reads their records if an id is unknown, the last file has changed,
    ``--changed=fail`` is set, or, with *if_pending*, a file is pending.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return _more(session, run, store.history_summary(session, _last_id(run)), if_pending=if_pending)


def read_history_again(session: Session, run: Run) -> History:
    """Read as `read_history` with *if_pending*, for repeated queries.

    :raises DatabaseRefused: the role cannot read yoyo's table
    """
    return _more(session, run, store.polled_summary(session, _last_id(run)), if_pending=True)


def _more(
    session: Session, run: Run, summary: store.HistorySummary, *, if_pending: bool
) -> History:
    left = planning.left_to_do(run.listing, summary.ids)
    if (
        left.unknown
        or (if_pending and left.pending)
        or run.config.changed == "fail"
        or _last_has_changed(run, summary)
    ):
        records = store.applied_migrations(session)
        return compared(run, History(summary.ids, records))
    return History(summary.ids)


def _last_id(run: Run) -> str:
    return run.listing.migrations[-1].id if run.listing.migrations else ""


def _last_has_changed(run: Run, summary: store.HistorySummary) -> bool:
    """Whether the last file differs from the one that was applied; False if it cannot be read."""
    if not summary.checksum:
        return False
    try:
        return summary.checksum != checksum(run.listing.migrations[-1].path)
    except ConfigError:
        return False


def read_everything(session: Session, run: Run) -> History:
    """Read the applied and the half-applied migrations, with their records.

    The files are compared with their recorded checksums only if something is pending, or with
    ``--changed=fail``.

    :raises DatabaseRefused: the role cannot read the history's tables
    """
    records = store.applied_migrations(session)
    ids = store.applied_ids(session)
    unfinished = store.unfinished_migrations(session)
    history = History(ids, records, unfinished=unfinished)
    is_open = planning.left_to_do(run.listing, ids).pending or run.config.changed == "fail"
    return compared(run, history) if is_open else history


def compared(run: Run, history: History) -> History:
    """Add to *history* which files have changed; reads only the files with a recorded checksum.

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
    """Add to *history* the applied Python files that have no step, such as `helpers.py`.

    They sort after all dates, and *pending* files are not out of order because of them. The files
    are read only if a pending file sorts before an applied one.
    """
    if not planning.find_out_of_order(pending, history.ids, run.listing):
        return history
    modules = (file.id for file in run.listing.migrations if not may_have_steps(file))
    return history._replace(modules=frozenset(modules))


def load_pending(
    run: Run, pending: Sequence[MigrationFile], applied: Iterable[str]
) -> tuple[Migration, ...]:
    """Load the *pending* files, in dependency order; the ids *applied* count as done.

    :raises ConfigError: with every problem of the files, including files of another tool
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
    """Load the post-apply hooks.

    :raises ConfigError: with every problem of the files
    """
    from initmig import engine

    return engine.load(run.listing.hooks, known=run.known, emit=run.emit)


def load_to_undo(
    run: Run, chosen: Iterable[AppliedMigration], applied: Iterable[str]
) -> dict[str, Migration]:
    """Load the files of the *chosen* migrations, by id. Migrations without a file are left out.

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
    """Refuse *pending* files that were not written for initmig, for commands that only read.

    Files are loaded only if one of their names is unusually long.

    :raises ConfigError: there are objections to the files, or one cannot be read
    """
    if any(len(file.id) > longest_id(transactional=False) for file in pending):
        load_pending(run, pending, applied)  # the limit depends on whether it is transactional
        return
    from initmig.migrations import unintended

    unintended.refuse_unintended(pending, applied, run.listing, run.config)
