"""Refuses or resets session state of migrations in a session that a pooler shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.core.errors import PlanError, Problem
from initmig.core.quoting import quote_identifier
from initmig.sql.leftovers import SETTING, changes, left
from initmig.sql.statements import cannot_run_in_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from initmig.core.model import Direction, Migration
    from initmig.engine.parts import Part
    from initmig.postgres import Session
    from initmig.sql.leftovers import Change

_ID = "session-setting-behind-pooler"
_RESET_ANYWAY = ("all", "role", "session_authorization", "search_path")


def refuse(
    session: Session, migrations: Iterable[Migration], direction: Direction, *, together: bool
) -> None:
    """Refuse migrations that leave state in *session*, which a pooler would pass to other clients.

    If *together*, the migrations are one transaction.

    :raises PlanError: lists the state that each of *migrations* would leave
    """
    problems = tuple(
        problem
        for migration in migrations
        for problem in _problems(migration, direction, session.preamble, together=together)
    )
    if problems:
        raise PlanError.of(problems)


def reset_statements(migration: Migration, direction: Direction) -> str:
    """The SQL that resets each setting that *migration* changes, by name."""
    names = {
        change.key: None
        for group in _groups(migration, direction)
        for _, change in _changes(group)
        if change.kind == SETTING and change.key not in ("", *_RESET_ANYWAY)
    }
    return "".join(f"RESET {'.'.join(map(quote_identifier, name.split('.')))};" for name in names)


def _problems(
    migration: Migration, direction: Direction, preamble: str, *, together: bool
) -> Iterator[Problem]:
    id, transactional = migration.id, migration.transactional
    for group in _groups(migration, direction):
        for part, leaves in left(_changes(group), commits=not together):
            if leaves.kind == SETTING and transactional and leaves.key:
                continue  # reset before the COMMIT
            yield Problem(
                _ID,
                f"{id} leaves {leaves.words} in its session, which the pooler would give to other"
                " clients",
                _NEXT_STEP if transactional else _NEXT_STEP_IN_PARTS,
                part.place,
            )
        if preamble and not transactional and cannot_run_in_transaction(group[0].kind):
            yield Problem(
                _ID,
                f"{id} contains a statement that cannot run in a transaction; behind a pooler,"
                " --schema and --role apply only in transactions",
                "connect to the server directly, or write the schema in the file",
                group[0].place,
            )


_DIRECTLY = "Or connect to the server directly"
_NEXT_STEP = (
    "remove it in the same file, or use a form that ends with the transaction (ON COMMIT DROP,"
    f" SET LOCAL, pg_advisory_xact_lock, a cursor WITHOUT HOLD). {_DIRECTLY}"
)
_NEXT_STEP_IN_PARTS = (
    "put `BEGIN;` and `COMMIT;` around the statements that need it, and inside use a form that ends"
    f" with the transaction (SET LOCAL, ON COMMIT DROP, pg_advisory_xact_lock). {_DIRECTLY}"
)


def _groups(migration: Migration, direction: Direction) -> Iterator[Sequence[Part]]:
    """Groups of a migration's parts that are sure to use one server connection behind a pooler."""
    if migration.transactional:
        yield migration.handle.visible_parts(direction)
    else:
        for part in migration.handle.parts(direction):
            yield (part, *part.body)


def _changes(group: Iterable[Part]) -> Iterator[tuple[Part, Change]]:
    for part in group:
        sql = part.source if isinstance(part.source, str) else part.source.sql
        for change in changes(sql.encode() if isinstance(sql, str) else sql):
            yield part, change
