"""What each statement of a plan will lock, what of it nobody can tell, and what is safer."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.sql.advice import advice_on
from initmig.sql.locks import strongest
from initmig.sql.opaque import unseen_in
from initmig.sql.relations import Relations
from initmig.sql.statements import parsed
from initmig.sql.table_locks import locks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.core.errors import Place
    from initmig.core.model import Migration, Step
    from initmig.sql.relations import Inventory
    from initmig.sql.statements import Node

# What a statement takes on a table that it only reads.
_READING = ("ACCESS SHARE", "ROW SHARE")


class Lock(Record):
    """A table, or a view, that is there before the plan runs, and the mode in which it is locked.

    Who locks an index holds up every query of its table: it counts as a lock of the table.
    """

    table: str
    mode: str


class Forecast(Record):
    """What one statement will do to tables that are there before the migrations run."""

    place: Place
    locks: tuple[Lock, ...]
    advice: tuple[str, ...]
    """Where a safer form exists: what the statement costs, and that form."""
    not_analysed: tuple[str, ...] = ()
    """What the statement runs that may take further locks."""


class Finding(Record):
    """What another tool says of the statement at a place of the file *path*, both from 1."""

    path: str
    line: int
    column: int
    words: str


def forecast_of(
    migrations: Iterable[Migration], inventory: Inventory, findings: Sequence[Finding] = ()
) -> dict[str, tuple[Forecast, ...]]:
    """By id, what each statement of the *migrations* will do, in the order of the plan.

    The *inventory* is that of the database before them. To the advice come the *findings*.
    """
    relations = Relations(inventory)
    by_path: dict[str, list[Finding]] = {}
    for finding in findings:
        by_path.setdefault(finding.path, []).append(finding)
    return {
        migration.id: _with_findings(
            tuple(_of_migration(migration, relations)), by_path.get(migration.file.path, ())
        )
        for migration in migrations
    }


def _with_findings(
    forecasts: tuple[Forecast, ...], findings: Iterable[Finding]
) -> tuple[Forecast, ...]:
    """*forecasts* with the *findings*, each at the last statement that begins before it."""
    begins = [(each.place.line, each.place.column) for each in forecasts]
    said: dict[int, list[str]] = {}
    for finding in findings:
        number = bisect_right(begins, (finding.line, finding.column)) - 1
        said.setdefault(max(0, number), []).append(finding.words)
    return tuple(
        each._replace(advice=(*each.advice, *said[number])) if number in said else each
        for number, each in enumerate(forecasts)
    )


def _of_migration(migration: Migration, relations: Relations) -> Iterator[Forecast]:
    relations.begin_file()
    for step in migration.steps:
        if step.function:
            what = (f"the Python function {step.function}",)
            yield Forecast(step.place_at(0), (), (), what)
        else:
            yield from _of_step(step, relations, breaking=migration.breaking)


def _of_step(step: Step, relations: Relations, *, breaking: bool) -> Iterator[Forecast]:
    for each in parsed(step.data):
        place = step.place_at(each.start)
        if each.tree is None:
            unread = f"PostgreSQL 17's parser cannot read it: {each.error}"
            yield Forecast(place, (), (), (unread,))
            continue
        locks = tuple(_locks(each.tree, relations))
        unseen = tuple(dict.fromkeys(unseen_in(each.tree, relations)))
        advice = advice_on(each.tree, breaking=breaking, is_checked=relations.is_checked)
        said = tuple(advice) if locks else ()
        relations.follow(each.tree)
        yield Forecast(place, locks, said, unseen)


def _locks(tree: Node, relations: Relations) -> Iterator[Lock]:
    modes: dict[str, list[str]] = {}
    for relation, mode in locks_of(tree, relations):
        table = relations.table_of(relation)
        if not (table.is_new or table.is_system or table.kind == "S" or mode in _READING):
            modes.setdefault(relations.shown(table), []).append(mode)
    return (Lock(name, strongest(each)) for name, each in modes.items())
