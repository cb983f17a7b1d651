"""`doctor`: finds what would stop `migrate`, and prints the statement that fixes it.

It tries privileges for real, in savepoints of one transaction that it rolls back. It looks up the
privileges on the objects of other roles in the catalogs. It changes nothing.
"""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import starmap
from typing import TYPE_CHECKING

from initmig import engine, postgres
from initmig.commands.context import begin, with_session
from initmig.commands.doctor import (
    application,
    other_role_queries,
    other_roles,
    pending,
    privileges,
    queries,
    server_checks,
)
from initmig.commands.doctor.checks import Check, check_password_expiry, refused_check
from initmig.commands.doctor.facts import Schema
from initmig.commands.doctor.savepoint import rolled_back_savepoint
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import DatabaseRefused, DatabaseUnavailable, PlanError
from initmig.core.events import WaitingForYoyo
from initmig.core.home import LOCK
from initmig.core.records import Record
from initmig.history import trust
from initmig.history.location import columns_of, home_of
from initmig.locking.lock import open_transaction, yoyo_holder
from initmig.locking.queue import holder_of, server_facts
from initmig.postgres import LoginRefused, StatementFailed
from initmig.sql.requirements import Fills, Relation, Uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from initmig.commands.context import Run
    from initmig.commands.doctor.facts import MigrationRole, RelationAccess, Server
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import InitmigError
    from initmig.core.events import Emit, Event
    from initmig.postgres import Session

# `doctor` must not wait for a lock, and each of its statements does little work.
_LOCK_TIMEOUT_SECONDS, _STATEMENT_TIMEOUT_SECONDS = 0.1, 10.0

_TABLE_STATEMENTS = (
    ("create", "CREATE TABLE {table} (id integer PRIMARY KEY, note text)"),
    ("alter", "ALTER TABLE {table} ADD COLUMN made_at timestamptz DEFAULT now()"),
    ("index", "CREATE INDEX ON {table} (note)"),
    ("insert into", "INSERT INTO {table} VALUES (1, 'one')"),
    ("select from", "SELECT * FROM {table}"),
    ("update", "UPDATE {table} SET note = 'two'"),
    ("delete from", "DELETE FROM {table}"),
    ("drop", "DROP TABLE {table}"),
)

# PostgreSQL checks the privileges of these statements even though they change no row.
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


class Diagnosis(Record):
    """The result of `doctor`."""

    outcome: str
    ids: tuple[str, ...]
    seconds: float
    checks: tuple[Check, ...]
    summary: Event | None = None
    failure: InitmigError | None = None
    """The error if a check failed."""


def doctor(config: Config, emit: Emit) -> Diagnosis:
    """Run every check.

    :raises ConfigError: the configuration or a migration file is wrong
    :raises DatabaseUnavailable: the database did not answer in time
    """
    started = time.monotonic()
    checks = examine(config, emit)
    seconds = time.monotonic() - started
    return Diagnosis("examined", (), seconds, checks, failure=failure_of(checks))


def examine(
    config: Config,
    emit: Emit,
    clock: Clock = SYSTEM_CLOCK,
    wall: Callable[[], float] = time.time,
) -> tuple[Check, ...]:
    """The results of every check, in order.

    *wall* returns this machine's time, in seconds since the epoch.

    :raises InitmigError: as `doctor`
    """
    # `_switch_role` tries the role and the search path: until then, the session has neither
    bare = begin(config._replace(schema=(), role=""), emit, clock)
    run = bare._replace(config=config)
    try:
        return with_session(
            bare, lambda session: _without_duplicates(_check_server(session, run, wall))
        )
    except LoginRefused as error:
        return tuple(refused_check("login", problem) for problem in error.problems)


def failure_of(checks: Sequence[Check]) -> InitmigError | None:
    """The error if a check failed: PlanError if all of them concern the plan or the history."""
    failed = [check for check in checks if check.level == "failure"]
    if not failed:
        return None
    message = f"{len(failed)} of {len(checks)} checks failed"
    hint = "follow the next step below each failed check, then run doctor again"
    only_plan = all(check.exit_code == PlanError.exit_code for check in failed)
    kind = PlanError if only_plan else DatabaseRefused
    return kind("checks-failed", message, hint=hint)


def _without_duplicates(checks: Iterable[Check]) -> tuple[Check, ...]:
    """*checks* without a check whose statement is already in an earlier one."""
    kept: dict[str | Check, Check] = {}
    for check in checks:
        kept.setdefault(check.statement or check, check)
    return tuple(kept.values())


def _check_server(session: Session, run: Run, wall: Callable[[], float]) -> Iterator[Check]:
    server = queries.read_server(session)
    yield server_checks.check_version(server)
    yield server_checks.check_tls(server)
    yield server_checks.check_clock(queries.read_clock(session, wall))
    yield server_checks.check_writing(server)
    pooled = server_facts(session).pooled
    timeouts = queries.read_timeouts(session)
    yield from server_checks.check_timeouts(server, timeouts, pooled=pooled)
    settings = queries.read_settings(session, server)
    commit_settings = queries.read_commit_settings(session)
    yield from server_checks.check_settings(server, settings, commit_settings)
    yield from check_password_expiry("login", server.login, queries.read_password_expiry(session))
    yield from server_checks.check_connections(server, queries.read_connection_limits(session))
    skipped_settings: list[tuple[str, str, str]] = []
    session.set_left_out_handler(lambda *each: skipped_settings.append(each))
    session.apply_own_timeouts()
    yield from starmap(server_checks.skipped_setting, skipped_settings)
    try:
        # default_transaction_read_only must not hide missing privileges
        mode = "" if server.standby else " READ WRITE"
        limits = session.timeouts(_LOCK_TIMEOUT_SECONDS, _STATEMENT_TIMEOUT_SECONDS, local=True)
        open_transaction(session, f"BEGIN{mode}; {limits}")
    except DatabaseRefused as error:
        yield refused_check("pooler", error.problems[0])
        return
    yield server_checks.check_pooler(pooled=pooled)
    try:
        yield from _check_role(session, run, server)
    finally:
        if session.in_transaction:
            with suppress(DatabaseUnavailable):  # then the server rolls back
                session.run_own("ROLLBACK")


def _check_role(session: Session, run: Run, server: Server) -> Iterator[Check]:
    if refused := _switch_role(session, run, server):
        yield refused
        return
    migration_role = queries.read_migration_role(session)
    schemas = queries.read_schemas(session)
    yield privileges.check_role(server, migration_role)
    history_schema = _find_history_schema(session)
    yield from privileges.check_schemas(schemas, migration_role, history_schema)
    default_schema = privileges.default_schema_of(schemas)
    if default_schema is None or not history_schema.has_usage:
        return
    if risks := trust.find_risks(session, home_of(session)):
        yield from (privileges.untrusted_history(*risk) for risk in risks)
        return
    if not server.standby:
        yield from _try_writes(session, default_schema, migration_role)
    yield from _check_other_roles(session, server, migration_role)
    yield from _check_lock(session)
    yield from pending.check_pending(session, run, server, migration_role, default_schema)
    if run.config.app_role:
        try:
            yield from application.check_application(
                session, run.config, server, migration_role, default_schema
            )
        except DatabaseRefused as error:  # the server refused a query of doctor
            yield refused_check("app-role", error.problems[0])


def _switch_role(session: Session, run: Run, server: Server) -> Check | None:
    """Set the configured role and search path. If the server refuses, return the failed check."""
    role = queries.quoted(session, run.config.role)
    session.home = run.settings.home
    try:
        session.command(f"{postgres.preamble(run.settings)}SELECT")
    except DatabaseRefused as error:
        return privileges.refused_role(server, role, error.problems[0])
    return None


def _try_writes(
    session: Session, default_schema: Schema, migration_role: MigrationRole
) -> Iterator[Check]:
    table_check = _try_table(session, default_schema, migration_role)
    yield table_check
    history_tables = _find_history(session)
    if table_check.level == "ok" or len(history_tables) == len(home_of(session).tables):
        yield _try_history(session, history_tables, migration_role)


def _try_table(session: Session, schema: Schema, migration_role: MigrationRole) -> Check:
    [(pid,)] = session.query("SELECT pg_backend_pid()")
    name = f"{schema.name}._initmig_doctor_{pid}"
    with rolled_back_savepoint(session):
        for verb, sql in _TABLE_STATEMENTS:
            try:
                session.query(sql.format(table=name))
            except DatabaseRefused as error:
                return privileges.refused_table(schema, migration_role, verb, error.problems[0])
    verbs = ", ".join(verb for verb, _ in _TABLE_STATEMENTS[:-1])
    return Check("table", "ok", f"can {verbs} and drop a table in {schema.name}")


def _find_history_schema(session: Session) -> Schema:
    name = home_of(session).schema
    need = Fills(name)
    missing = Schema(
        queries.quoted(session, name) if name else "", name, "", has_usage=False, has_create=False
    )
    return queries.find_schemas(session, [need]).get(need, missing)


def _find_history(session: Session) -> Sequence[RelationAccess]:
    home = home_of(session)
    uses = [Uses(Relation(home.schema, name), "owner", "keeps") for name in home.tables]
    return tuple(queries.find_relations(session, uses).values())


def _try_history(
    session: Session, tables: Sequence[RelationAccess], migration_role: MigrationRole
) -> Check:
    try:
        with rolled_back_savepoint(session):
            engine.try_create_tables(session)
            session.query(_USE_HISTORY.format(home_of(session)))
    except (DatabaseRefused, StatementFailed) as error:
        return privileges.refused_history(tables, migration_role, error.problems[0])
    except PlanError as error:
        return refused_check("history", error.problems[0])._replace(exit_code=error.exit_code)
    return Check("history", "ok", "can be written" if tables else "can be created and written")


def _check_other_roles(
    session: Session, server: Server, migration_role: MigrationRole
) -> Iterator[Check]:
    path = other_role_queries.read_search_path(session)
    grants = other_role_queries.read_grants(session, path)
    yield from other_roles.check_search_path(path, grants, migration_role)
    yield from other_roles.check_history(grants)
    yield other_roles.check_connect(other_role_queries.read_connect_privileges(session), server)


def _check_lock(session: Session) -> Iterator[Check]:
    """Report who holds the migration lock."""
    with rolled_back_savepoint(session):
        holder = holder_of(session, server_facts(session).key, 0)
    yoyo = None
    # the check of the history has already reported a missing privilege
    with suppress(DatabaseRefused), rolled_back_savepoint(session):
        home = home_of(session)
        if columns_of(session, home, (LOCK,)):
            yoyo = yoyo_holder(session, 0)
    # a row that a dead initmig left behind blocks nothing: the next initmig removes it
    live_yoyo = yoyo if isinstance(yoyo, WaitingForYoyo) else None
    yield server_checks.check_lock(holder, live_yoyo)
