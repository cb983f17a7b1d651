"""Checks the plan, and the tables and privileges that the pending migrations need."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from initmig import engine
from initmig.commands.context import (
    load_pending,
    planned,
    polled_summary,
    refuse_as_migrate_would,
)
from initmig.commands.doctor import privileges, queries, server_checks
from initmig.commands.doctor.checks import Check, refused_check
from initmig.commands.doctor.savepoint import rolled_back_savepoint
from initmig.commands.inventory import take_inventory
from initmig.core.errors import DatabaseRefused, PlanError
from initmig.core.events import UnknownMigrations
from initmig.history import store
from initmig.history.location import home_of
from initmig.migrations import planning
from initmig.reporting.logs import event_words
from initmig.sql.missing import find_missing
from initmig.sql.not_in_transaction import refused_in_transaction
from initmig.sql.requirements import outstanding, read_requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.doctor.facts import (
        Extension,
        MigrationRole,
        RelationAccess,
        Schema,
        Server,
    )
    from initmig.core.errors import Problem
    from initmig.core.events import Event
    from initmig.core.model import Migration
    from initmig.postgres import Session
    from initmig.sql.requirements import Requirement, StatedRequirement


def check_pending(
    session: Session,
    run: Run,
    server: Server,
    migration_role: MigrationRole,
    default_schema: Schema,
) -> Iterator[Check]:
    """Check what `migrate` would run now, hooks included, without running it."""
    try:
        with rolled_back_savepoint(session):
            applied = store.applied_migrations(session)
            found = polled_summary(session, run)
            unfinished = store.unfinished_migrations(session)
    except DatabaseRefused as error:
        refused = refused_check("plan", error.problems[0])
        yield refused._replace(
            level="warning", hint="fix the privileges on the history tables first"
        )
        return
    ids = found.ids
    left = planning.left_to_do(run.listing, ids)
    pending = load_pending(run, left.pending, ids)
    hooks = engine.load(run.listing.hooks, known=run.known, emit=run.emit)
    events: list[Event] = [UnknownMigrations(left.unknown)] if left.unknown else []
    quiet = run._replace(emit=events.append)
    decisions: tuple[Callable[[], object], ...] = (
        lambda: refuse_as_migrate_would(session, quiet, left, found),
        lambda: planned(quiet, pending, applied, unfinished),
    )
    checks = [
        *(server_checks.refused_plan(each) for decide in decisions for each in _refusals(decide)),
        *(Check("plan", "warning", event_words(event)) for event in events),
    ]
    total = len(run.listing.migrations)
    yield from checks or [server_checks.pending_migrations(total, [each.id for each in pending])]
    migrations = (*pending, *hooks)
    yield from map(server_checks.refused_statement, refused_in_transaction(migrations))
    # it is unknown which tables a half-applied migration has already created or dropped
    half_applied = {each.id for each in unfinished}
    predictable = takewhile(lambda each: each.id not in half_applied, migrations)
    checks = [
        *_check_tables(session, list(predictable)),
        *_check_requirements(session, migrations, server, migration_role, default_schema),
    ]
    python = [each.id for each in migrations if any(step.function for step in each.steps)]
    yield from checks or [privileges.no_missing_privileges(python)]


def _refusals(decide: Callable[[], object]) -> Sequence[Problem]:
    """The problems with which *decide* refuses the plan."""
    try:
        decide()
    except PlanError as error:
        return error.problems
    return ()


def _check_tables(session: Session, migrations: Sequence[Migration]) -> Iterator[Check]:
    if migrations:
        inventory = take_inventory(session.query)
        watched = queries.has_event_triggers(session)
        steps = (each.steps for each in migrations)
        history_tables = home_of(session).tables
        for missing in find_missing(steps, inventory, known=history_tables, watched=watched):
            yield privileges.missing_table(missing)


def _check_requirements(
    session: Session,
    migrations: Sequence[Migration],
    server: Server,
    migration_role: MigrationRole,
    default_schema: Schema,
) -> Iterator[Check]:
    stated: list[StatedRequirement] = []
    checks: list[Check] = []
    for migration in migrations:
        path = migration.file.path
        for step in (each for each in migration.steps if not each.function):
            requirements, unread = read_requirements(path, step)
            stated.extend(requirements)
            checks.extend([privileges.unread_statement(path, unread)] if unread else [])
    first_uses: dict[Requirement, StatedRequirement] = {}
    for each in outstanding(stated, default_schema.key):
        first_uses.setdefault(each.requirement, each)
    known: dict[Requirement, RelationAccess | Schema | Extension] = {
        **queries.find_relations(session, first_uses),
        **queries.find_schemas(session, first_uses),
        **queries.find_extensions(session, first_uses),
    }
    for need, each in first_uses.items():
        checks.extend(privileges.check_requirement(each, known.get(need), migration_role, server))
    yield from checks
