"""The locks that each statement of a plan will take, the code it cannot see, and safer forms."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from initmig.core.records import Record
from initmig.sql.advice import advice_on
from initmig.sql.locks import strongest
from initmig.sql.opaque import opaque_in
from initmig.sql.relations import Relations
from initmig.sql.statements import parsed
from initmig.sql.table_locks import locks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.core.errors import Place
    from initmig.core.model import Migration, Step
    from initmig.sql.relations import Inventory
    from initmig.sql.statements import Node

# The modes of a statement that only reads a table.
_READING = ("ACCESS SHARE", "ROW SHARE")


class Lock(Record):
    """A table or view that exists before the plan runs, and the mode of the lock on it.

    A lock on an index counts as one on its table, because it blocks every query of the table.
    """

    table: str
    mode: str


class Forecast(Record):
    """The effect of one statement on the tables that exist before the migrations run."""

    place: Place
    locks: tuple[Lock, ...]
    advice: tuple[str, ...]
    """The cost of the statement and a safer form, if there is one."""
    not_analysed: tuple[str, ...] = ()
    """Code that the statement runs and that may take further locks."""


class Finding(Record):
    """Another tool's message on a statement in the file *path*. Line and column count from 1."""

    path: str
    line: int
    column: int
    words: str


def forecast_of(
    migrations: Iterable[Migration], inventory: Inventory, findings: Sequence[Finding] = ()
) -> dict[str, tuple[Forecast, ...]]:
    """By id, the forecast for each statement of the *migrations*, in the order of the plan.

    The *inventory* describes the database before them. The *findings* are added to the advice.
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
    """*forecasts* with each of the *findings* at the last statement that begins before it."""
    begins = [(each.place.line, each.place.column) for each in forecasts]
    words: dict[int, list[str]] = {}
    for finding in findings:
        number = bisect_right(begins, (finding.line, finding.column)) - 1
        words.setdefault(max(0, number), []).append(finding.words)
    return tuple(
        each._replace(advice=(*each.advice, *words[number])) if number in words else each
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
        opaque = tuple(dict.fromkeys(opaque_in(each.tree, relations)))
        advice = advice_on(each.tree, breaking=breaking, is_checked=relations.is_checked)
        given = tuple(advice) if locks else ()
        relations.follow(each.tree)
        yield Forecast(place, locks, given, opaque)


def _locks(tree: Node, relations: Relations) -> Iterator[Lock]:
    modes: dict[str, list[str]] = {}
    for relation, mode in locks_of(tree, relations):
        table = relations.table_of(relation)
        if not (table.is_new or table.is_system or table.kind == "S" or mode in _READING):
            modes.setdefault(relations.shown(table), []).append(mode)
    return (Lock(name, strongest(each)) for name, each in modes.items())
