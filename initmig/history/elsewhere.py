"""Refuses a database whose history is another tool's, or is in another schema or table."""

from __future__ import annotations

from initmig.core.errors import PlanError
from initmig.core.home import LOG
from initmig.core.records import TYPE_CHECKING
from initmig.history import location
from initmig.migrations.foreign import HISTORY_TABLES, guide, tool_of_table

if TYPE_CHECKING:
    from collections.abc import Collection

    from initmig.config.config import Config
    from initmig.postgres import Session


def refuse_other_histories(
    session: Session, config: Config, applied: Collection[str], known: Collection[str]
) -> None:
    """Refuse to begin a new history next to another one; queries only if nothing is *applied*.

    *known* are the ids of this image's migrations.

    :raises PlanError: their history is in another schema or table, or the schema has the history of
        another tool
    """
    refuse_other_place(session, config, applied, known)
    if not applied and config.foreign != "allow":
        _refuse_other_tool(session)


def refuse_other_place(
    session: Session, config: Config, applied: Collection[str], known: Collection[str]
) -> None:
    """As `refuse_other_histories`, without looking for another tool: `baseline` adopts its schema.

    :raises PlanError: the history of this image's migrations is in another schema or table
    """
    if applied:
        return
    home = location.home_of(session)
    there = location.columns_of(session, home, (home.table, LOG))
    if home.table in there:
        return
    if LOG in there and not config.history_table:
        names = location.history_tables(session, home)
        found = f"its history is in {', '.join(names)}" if names else "it has no other history"
        raise PlanError(
            "other-history-table",
            f"the schema {home.schema} contains yoyo's {LOG} but no {home.table}: {found}",
            hint="name the history table that yoyo used: --history-table=NAME. To begin a new"
            f" history in this schema, pass --history-table={home.table}",
        )
    if config.schema or config.history_schema or location.search_path_is_from_client(session):
        return
    if schemas := location.schemas_with_history(session, home, known):
        raise PlanError(
            "history-elsewhere",
            f"these migrations already have a history in the schema {', '.join(schemas)}, but the"
            f" search path leads to {home.schema or 'no schema'}, where this run would begin a new"
            " one",
            hint=f"pass --schema={schemas[0]} to continue that history, or"
            f" --schema={home.schema or 'NAME'} to begin a new one. With --history-schema"
            " instead, the search path does not change",
        )


def _refuse_other_tool(session: Session) -> None:
    home = location.home_of(session)
    for name, columns in location.columns_of(session, home, HISTORY_TABLES).items():
        if tool := tool_of_table(name, columns):
            raise PlanError(
                "foreign-history",
                f"the table {name} is the history of {tool}, and there is no history of initmig",
                hint="record what the database already has with `initmig baseline --to ID`, as"
                f" {guide(tool)} explains. To apply all migrations anyway, pass --foreign=allow",
            )
