"""`plan`: shows what `migrate` would run, with its SQL and locks; reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.checks import confirm_pending
from initmig.commands.context import announce, begin, finished, with_session
from initmig.commands.inventory import take_inventory
from initmig.commands.reading import load_pending, read_everything, with_modules
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.records import Record
from initmig.migrations import unintended
from initmig.migrations.decision import decide
from initmig.migrations.planning import pending_files
from initmig.reporting.tables import plan_json, plan_sql
from initmig.sql.lock_forecast import forecast_of
from initmig.sql.relations import Inventory
from initmig.sql.squawk import ask_squawk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from initmig.commands.context import Run
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.errors import InitmigError
    from initmig.core.events import Emit, Event
    from initmig.core.model import Migration
    from initmig.migrations.decision import History
    from initmig.postgres import Session
    from initmig.reporting.terminal.screen import Screen
    from initmig.sql.lock_forecast import Forecast


class Plan(Record):
    """The migrations that `migrate` would run, in order, and the locks that they take."""

    outcome: str
    ids: tuple[str, ...]
    seconds: float
    migrations: tuple[Migration, ...]
    forecast: Mapping[str, Sequence[Forecast]]
    """The locks and advice, by migration id."""
    summary: Event | None = None
    failure: InitmigError | None = None


def plan(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Plan:
    """Return what `migrate` would run, in order; reads only.

    :raises InitmigError: any error that `migrate` would raise before it runs anything
    """
    run = begin(config, emit, clock)
    return finished(run, lambda: _plan(run))


def _plan(run: Run) -> Plan:
    history, inventory = with_session(run, lambda session: _read(session, run))
    pending = load_pending(run, pending_files(run.listing, history.ids), history.ids)
    history = with_modules(run, history, [migration.file for migration in pending])
    decision = announce(run, decide(run.listing, history, run.policy, pending))
    for event in unintended.warnings(decision.plan, run.config) if decision.plan else ():
        run.emit_once(event)
    paths = [migration.file.path for migration in decision.plan if migration.file.is_sql]
    forecast = forecast_of(decision.plan, inventory, ask_squawk(paths, run.emit))
    ids = tuple(migration.id for migration in decision.plan)
    return Plan("planned", ids, run.seconds(), decision.plan, forecast)


def _read(session: Session, run: Run) -> tuple[History, Inventory]:
    history = read_everything(session, run)
    if not pending_files(run.listing, history.ids):
        return history, Inventory()
    announce(run, decide(run.listing, history, run.policy))
    confirm_pending(session, run, history)
    return history, take_inventory(session.query)


def show(plan: Plan, config: Config, screen: Screen) -> str:
    """*plan* as SQL with comments, or as JSON."""
    if config.json:
        return plan_json(plan.migrations, plan.forecast)
    return plan_sql(plan.migrations, plan.forecast, screen)
