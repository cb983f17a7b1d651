"""Checks the plan, and the tables and privileges that the pending migrations need."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from initmig.commands.checks import confirm_pending
from initmig.commands.doctor import privileges, queries, server_checks
from initmig.commands.doctor.checks import Check, refused_check
from initmig.commands.doctor.savepoint import rolled_back_savepoint
from initmig.commands.inventory import take_inventory
from initmig.commands.reading import compared, load_hooks, load_pending, with_modules
from initmig.core.errors import DatabaseRefused, PlanError
from initmig.history import store
from initmig.history.location import home_of
from initmig.migrations import unintended
from initmig.migrations.decision import History, decide
from initmig.migrations.planning import pending_files
from initmig.reporting.logs import event_words
from initmig.sql.missing import find_missing
from initmig.sql.not_in_transaction import refused_in_transaction
from initmig.sql.requirements import outstanding, read_requirements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.doctor.facts import (
        Extension,
        MigrationRole,
        RelationAccess,
        Schema,
        Server,
    )
    from initmig.core.events import Event
    from initmig.core.model import Migration
    from initmig.migrations.decision import Decision
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
            records = store.applied_migrations(session)
            ids = store.polled_summary(session).ids
            unfinished = store.unfinished_migrations(session)
    except DatabaseRefused as error:
        refused = refused_check("plan", error.problems[0])
        yield refused._replace(
            level="warning", hint="fix the privileges on the history tables first"
        )
        return
    history = compared(run, History(ids, records, unfinished=unfinished))
    files = pending_files(run.listing, ids)
    pending, hooks = load_pending(run, files, ids), load_hooks(run)
    decision = decide(run.listing, with_modules(run, history, files), run.policy, pending)
    checks = [*_check_decision(session, run, history, decision)]
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


def _check_decision(
    session: Session, run: Run, history: History, decision: Decision
) -> Iterator[Check]:
    """Why `migrate` would refuse to start, and its warnings."""
    events: list[Event] = []
    refused = decision.refused
    if decision.left.pending:
        try:
            confirm_pending(session, run._replace(emit_once=events.append), history)
        except PlanError as error:
            refused += error.problems
    if decision.plan:
        events.extend(unintended.warnings(decision.plan, run.config))
    yield from map(server_checks.refused_plan, refused)
    for event in (*events, *decision.warnings):
        yield Check("plan", "warning", event_words(event))


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
