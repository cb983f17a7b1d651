"""`doctor`: what production checks too late, tried or looked up beforehand; nothing remains.

Rights are tried for real, in savepoints of one transaction that is rolled back; what other objects
belong to is looked up.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import starmap, takewhile
from typing import TYPE_CHECKING

from initmig import engine, postgres
from initmig.commands.context import (
    begin,
    load_pending,
    planned,
    polled_summary,
    refuse_as_migrate_would,
    with_session,
)
from initmig.commands.doctor import (
    application,
    outsider_queries,
    outsiders,
    privileges,
    queries,
    server_checks,
)
from initmig.commands.doctor.checks import Check, of_expiry, of_refusal
from initmig.commands.doctor.facts import Schema
from initmig.commands.doctor.savepoint import trial
from initmig.commands.inventory import take_inventory
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import DatabaseRefused, DatabaseUnavailable, PlanError
from initmig.core.events import UnknownMigrations, WaitingForYoyo
from initmig.core.home import LOCK
from initmig.history import store, trust
from initmig.history.location import columns_of, home_of
from initmig.locking.lock import open_transaction, yoyo_holder
from initmig.locking.queue import holder_of, server_facts
from initmig.migrations import planning
from initmig.postgres import LoginRefused, StatementFailed
from initmig.reporting.logs import event_words
from initmig.sql.missing import find_missing
from initmig.sql.not_in_transaction import refused_in_transaction
from initmig.sql.requirements import Fills, Relation, Uses, outstanding, read_requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.doctor.facts import Extension, Found, Server, Worker
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import Problem
    from initmig.core.events import Emit, Event
    from initmig.core.model import Migration
    from initmig.postgres import Session
    from initmig.sql.requirements import Requirement, StatedRequirement

# A lock is not waited for, and what is done is not much.
_LOCK_TIMEOUT_SECONDS, _STATEMENT_TIMEOUT_SECONDS = 0.1, 10.0

_TABLE = (
    ("create", "CREATE TABLE {table} (id integer PRIMARY KEY, note text)"),
    ("alter", "ALTER TABLE {table} ADD COLUMN made_at timestamptz DEFAULT now()"),
    ("index", "CREATE INDEX ON {table} (note)"),
    ("insert into", "INSERT INTO {table} VALUES (1, 'one')"),
    ("select from", "SELECT * FROM {table}"),
    ("update", "UPDATE {table} SET note = 'two'"),
    ("delete from", "DELETE FROM {table}"),
    ("drop", "DROP TABLE {table}"),
)

# What is done with the history; the rights are looked at also where no row is.
_USE_HISTORY = """
SELECT FROM {0.version} LIMIT 0;
INSERT INTO {0.history} SELECT * FROM {0.history} LIMIT 0;
DELETE FROM {0.history} WHERE false;
INSERT INTO {0.log} SELECT * FROM {0.log} LIMIT 0;
INSERT INTO {0.lock} SELECT * FROM {0.lock} LIMIT 0;
UPDATE {0.lock} SET pid = pid WHERE false;
DELETE FROM {0.lock} WHERE false;
INSERT INTO {0.own} SELECT * FROM {0.own} LIMIT 0;
UPDATE {0.own} SET state = state WHERE false;
DELETE FROM {0.own} WHERE false"""


def examine(
    config: Config,
    emit: Emit,
    clock: Clock = SYSTEM_CLOCK,
    wall: Callable[[], float] = time.time,
) -> tuple[Check, ...]:
    """Every check in order; *wall* is this machine's time, in seconds since the epoch.

    :raises ConfigError: the configuration or a migration file is wrong
    :raises DatabaseUnavailable: the database did not answer in time
    """
    # search path and role are tried: until then the session is that of the user that logs in
    bare = begin(config._replace(schema=(), role=""), emit, clock)
    run = bare._replace(config=config)
    try:
        return with_session(bare, lambda session: _once(_examine(session, run, wall)))
    except LoginRefused as error:
        return tuple(of_refusal("login", problem) for problem in error.problems)


def _examine(session: Session, run: Run, wall: Callable[[], float]) -> Iterator[Check]:
    server = queries.ask_server(session)
    yield server_checks.of_version(server)
    yield server_checks.of_tls(server)
    yield server_checks.of_clock(queries.ask_clock(session, wall))
    yield server_checks.of_writing(server)
    pooled = server_facts(session).pooled
    yield from server_checks.of_timeouts(server, queries.ask_timeouts(session), pooled=pooled)
    settings, commits = queries.ask_settings(session, server), queries.ask_commits(session)
    yield from server_checks.of_settings(server, settings, commits)
    yield from of_expiry("login", server.login, queries.ask_expiry(session))
    yield from server_checks.of_limits(server, queries.ask_limits(session))
    left_out: list[tuple[str, str, str]] = []
    session.set_left_out_handler(lambda *each: left_out.append(each))
    session.apply_own_timeouts()
    yield from starmap(server_checks.of_left_out, left_out)
    try:
        # the rights are tried also where transactions are read-only by default
        mode = "" if server.standby else " READ WRITE"
        limits = session.timeouts(_LOCK_TIMEOUT_SECONDS, _STATEMENT_TIMEOUT_SECONDS, local=True)
        open_transaction(session, f"BEGIN{mode}; {limits}")
    except DatabaseRefused as error:
        yield of_refusal("pooler", error.problems[0])
        return
    yield server_checks.of_pooler(pooled=pooled)
    try:
        yield from _examine_rights(session, run, server)
    finally:
        if session.in_transaction:
            with suppress(DatabaseUnavailable):  # then the server rolls back
                session.run_own("ROLLBACK")


def _examine_rights(session: Session, run: Run, server: Server) -> Iterator[Check]:
    if refused := _become(session, run, server):
        yield refused
        return
    worker = queries.ask_worker(session)
    schemas = queries.ask_schemas(session)
    yield privileges.of_role(server, worker)
    history_schema = _find_history_schema(session)
    yield from privileges.of_schemas(schemas, worker, history_schema)
    home = privileges.home_of(schemas)
    if home is None or not history_schema.usable:
        return
    if risks := trust.find_risks(session, home_of(session)):
        yield from (privileges.of_doubt(*risk) for risk in risks)
        return
    if not server.standby:
        yield from _try_rights(session, home, worker)
    yield from _look_for_outsiders(session, server, worker)
    yield from _look_for_others(session)
    yield from _look_at_migrations(session, run, server, worker, home)
    if run.config.app_role:
        try:
            yield from application.examine(session, run.config, server, worker, home)
        except DatabaseRefused as error:  # of one of doctor's own questions
            yield of_refusal("app-role", error.problems[0])


def _become(session: Session, run: Run, server: Server) -> Check | None:
    """Take the role and the search path of the configuration; or why the server refuses."""
    role = queries.quoted(session, run.config.role)
    session.home = run.settings.home
    try:
        session.command(f"{postgres.preamble(run.settings)}SELECT")
    except DatabaseRefused as error:
        return privileges.of_refused_role(server, role, error.problems[0])
    return None


def _try_rights(session: Session, home: Schema, worker: Worker) -> Iterator[Check]:
    table = _try_table(session, home, worker)
    yield table
    there = _find_history(session)
    if table.level == "ok" or len(there) == len(home_of(session).tables):
        yield _try_history(session, there, worker)


def _try_table(session: Session, home: Schema, worker: Worker) -> Check:
    [(pid,)] = session.query("SELECT pg_backend_pid()")
    name = f"{home.name}._initmig_doctor_{pid}"
    with trial(session):
        for verb, sql in _TABLE:
            try:
                session.query(sql.format(table=name))
            except DatabaseRefused as error:
                return privileges.of_table(home, worker, verb, error.problems[0])
    verbs = ", ".join(verb for verb, _ in _TABLE[:-1])
    return Check("table", "ok", f"can {verbs} and drop a table in {home.name}")


def _find_history_schema(session: Session) -> Schema:
    name = home_of(session).schema
    need = Fills(name)
    missing = Schema(
        queries.quoted(session, name) if name else "", name, "", usable=False, creatable=False
    )
    return queries.find_schemas(session, [need]).get(need, missing)


def _find_history(session: Session) -> Sequence[Found]:
    home = home_of(session)
    uses = [Uses(Relation(home.schema, name), "owner", "keeps") for name in home.tables]
    return tuple(queries.find_relations(session, uses).values())


def _try_history(session: Session, there: Sequence[Found], worker: Worker) -> Check:
    try:
        with trial(session):
            engine.try_create_tables(session)
            session.query(_USE_HISTORY.format(home_of(session)))
    except (DatabaseRefused, StatementFailed) as error:
        return privileges.of_history(there, worker, error.problems[0])
    except PlanError as error:
        return of_refusal("history", error.problems[0])._replace(exit_code=error.exit_code)
    return Check("history", "ok", "can be written" if there else "can be created and written")


def _look_for_outsiders(session: Session, server: Server, worker: Worker) -> Iterator[Check]:
    path = outsider_queries.ask_path(session)
    grants = outsider_queries.ask_grants(session, path)
    yield from outsiders.of_path(path, grants, worker)
    yield from outsiders.of_history(grants)
    yield outsiders.of_connecting(outsider_queries.ask_connecting(session), server)


def _look_for_others(session: Session) -> Iterator[Check]:
    """Who has the migration lock; who may not look has been told so by then."""
    with trial(session):
        holder = holder_of(session, server_facts(session).key, 0)
    yoyo = None
    with suppress(DatabaseRefused), trial(session):
        home = home_of(session)
        if columns_of(session, home, (LOCK,)):
            yoyo = yoyo_holder(session, 0)
    # a row of an initmig's own without the lock is no obstacle: the next one removes it
    theirs = yoyo if isinstance(yoyo, WaitingForYoyo) else None
    yield server_checks.of_others(holder, theirs)


def _look_at_migrations(
    session: Session, run: Run, server: Server, worker: Worker, home: Schema
) -> Iterator[Check]:
    try:
        with trial(session):
            applied = store.applied_migrations(session)
            found = polled_summary(session, run)
            unfinished = store.unfinished_migrations(session)
    except DatabaseRefused as error:
        refused = of_refusal("plan", error.problems[0])
        yield refused._replace(
            level="warning", hint="fix the privileges on the history tables first"
        )
        return
    ids = found.ids
    left = planning.left_to_do(run.listing, ids)
    pending = load_pending(run, left.pending, ids)
    hooks = engine.load(run.listing.hooks, known=run.known, emit=run.emit)
    heard: list[Event] = [UnknownMigrations(left.unknown)] if left.unknown else []
    quiet = run._replace(emit=heard.append)
    decisions: tuple[Callable[[], object], ...] = (
        lambda: refuse_as_migrate_would(session, quiet, left, found),
        lambda: planned(quiet, pending, applied, unfinished),
    )
    checks = [
        *(server_checks.of_plan(problem) for decide in decisions for problem in _refusals(decide)),
        *(Check("plan", "warning", event_words(event)) for event in heard),
    ]
    ok = server_checks.of_migrations(len(run.listing.migrations), [each.id for each in pending])
    yield from checks or [ok]
    migrations = (*pending, *hooks)
    yield from map(server_checks.of_refused, refused_in_transaction(migrations))
    half_applied = {each.id for each in unfinished}
    begun = takewhile(lambda each: each.id not in half_applied, migrations)
    checks = [
        *_look_for_tables(session, list(begun)),
        *_look_at_needs(session, migrations, server, worker, home),
    ]
    unseen = [each.id for each in migrations if any(step.function for step in each.steps)]
    yield from checks or [privileges.of_needs(unseen)]


def _look_for_tables(session: Session, migrations: Sequence[Migration]) -> Iterator[Check]:
    if migrations:
        inventory = take_inventory(session.query)
        watched = queries.has_event_triggers(session)
        steps = (each.steps for each in migrations)
        history_tables = home_of(session).tables
        for missing in find_missing(steps, inventory, known=history_tables, watched=watched):
            yield privileges.of_missing(missing)


def _refusals(decide: Callable[[], object]) -> Sequence[Problem]:
    """Why *decide* refuses to go on."""
    try:
        decide()
    except PlanError as error:
        return error.problems
    return ()


def _look_at_needs(
    session: Session, migrations: Sequence[Migration], server: Server, worker: Worker, home: Schema
) -> Iterator[Check]:
    stated: list[StatedRequirement] = []
    checks: list[Check] = []
    for migration in migrations:
        for step in (each for each in migration.steps if not each.function):
            needs, unread = read_requirements(migration.file.path, step)
            stated.extend(needs)
            checks.extend([privileges.of_unread(migration.file.path, unread)] if unread else [])
    wanted: dict[tuple[type, Requirement], StatedRequirement] = {}
    for each in outstanding(stated, home.key):
        wanted.setdefault((type(each.requirement), each.requirement), each)
    needed = [each.requirement for each in wanted.values()]
    known: dict[Requirement, Found | Schema | Extension] = {
        **queries.find_relations(session, needed),
        **queries.find_schemas(session, needed),
        **queries.find_extensions(session, needed),
    }
    for each in wanted.values():
        checks.extend(privileges.of_need(each, known.get(each.requirement), worker, server))
    yield from checks


def _once(checks: Iterable[Check]) -> tuple[Check, ...]:
    """*checks* without those that the same statement mends as one before."""
    kept: dict[str | Check, Check] = {}
    for check in checks:
        kept.setdefault(check.statement or check, check)
    return tuple(kept.values())


def refuse(checks: Sequence[Check]) -> None:
    """:raises InitmigError: a check failed: DatabaseRefused, or PlanError for the plan's alone."""
    failed = [check for check in checks if check.level == "failure"]
    if failed:
        message = f"{len(failed)} of {len(checks)} checks failed"
        hint = "follow the next step below each failed check, then run doctor again"
        plan_alone = all(check.exit_code == PlanError.exit_code for check in failed)
        kind = PlanError if plan_alone else DatabaseRefused
        raise kind("checks-failed", message, hint=hint)
