"""A rehearsal as a table, as JSON, and as Markdown for a pull request, for stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.rehearse.impact import TableImpact
from initmig.config.dsn import mask_secrets
from initmig.core.durations import counted, format_duration
from initmig.core.records import Record
from initmig.core.visible import in_lines, to_json
from initmig.reporting.markdown import code, prose, row
from initmig.reporting.tables import table
from initmig.reporting.terminal.layout import FIXED, ID, SQL, WORDS, fitted
from initmig.reporting.terminal.screen import PLAIN, Styled
from initmig.sql.locks import READS_AND_WRITES, WRITES, blocked_by, in_words
from initmig.sql.masking import mask_sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initmig.commands.rehearse.impact import Rehearsal, RehearsedMigration, StatementImpact
    from initmig.config.config import Config
    from initmig.core.errors import Place
    from initmig.reporting.terminal.screen import Line, Screen

_HEADINGS = (
    *("statement", "took", "table", "lock", "blocks", "rewritten", "scanned", "written"),
    "SQL",
)
_KINDS = (ID, FIXED, ID, WORDS, WORDS, FIXED, WORDS, WORDS, SQL)
_BLOCK_STYLES = {READS_AND_WRITES: "red", WRITES: "yellow"}
_NOTHING = "nothing is pending"
_LONGEST_SQL = 60


class _Line(Record):
    """A statement; its *name* is its migration and its line."""

    name: str
    statement: StatementImpact
    lasts_seconds: float
    """From its start to the end of the migration, which releases its locks."""


def show(rehearsal: Rehearsal, config: Config, screen: Screen) -> str:
    """*rehearsal* as a table, as JSON, or as Markdown."""
    if config.json:
        return rehearsal_json(rehearsal)
    return rehearsal_markdown(rehearsal) if config.markdown else rehearsal_table(rehearsal, screen)


def rehearsal_table(rehearsal: Rehearsal, screen: Screen = PLAIN) -> str:
    """One line for each statement and table, followed by a summary."""
    if not rehearsal.migrations:
        return _NOTHING
    rows = [cells for line in _lines(rehearsal) for cells in _cells(line)]
    lines: list[Line] = [*table([_HEADINGS, *rows], screen, _KINDS), [""]] if rows else []
    for text in (*_summary(rehearsal), *_remarks(rehearsal)):
        style = "red" if text.startswith("failed: ") else ""
        for line in in_lines(text).split("\n"):
            lines += fitted([Styled(line, style)], screen.width)
    return screen.text(lines)


def rehearsal_markdown(rehearsal: Rehearsal) -> str:
    """A short summary, then the table."""
    if not rehearsal.migrations:
        return _NOTHING
    items = [f"- {prose(each)}" for each in (*_summary(rehearsal), *_remarks(rehearsal))]
    rows = [cells for line in _lines(rehearsal) for cells in _cells(line)]
    lines = ["### Rehearsal of the pending migrations", "", *items]
    if rows:
        rules = ("---",) * len(_HEADINGS)
        lines += ["", row(_HEADINGS), row(rules), *(row(_in_markdown(cells)) for cells in rows)]
    return "\n".join(lines)


def _in_markdown(cells: Sequence[str]) -> list[str]:
    name, took, relation, *words, sql = cells
    return [code(name), prose(took), code(relation), *map(prose, words), code(sql)]


def _lines(rehearsal: Rehearsal) -> Iterator[_Line]:
    for migration in rehearsal.migrations:
        left = sum(statement.seconds for statement in migration.statements)
        for statement in migration.statements:
            yield _Line(f"{migration.id}{_numbers(statement.place)}", statement, left)
            left -= statement.seconds


def _numbers(place: Place) -> str:
    """Line and column; a column 1 is left out."""
    column = f":{place.column}" if place.column > 1 else ""
    return f":{place.line}{column}" if place.line else ""


def _cells(line: _Line) -> Iterator[tuple[str, ...]]:
    """A row for each table; only the statement if it touched no table."""
    name, statement, _ = line
    first = (name, format_duration(statement.seconds))
    sql = _shortened(statement.sql) or "(Python)"
    for impact in statement.tables or (TableImpact(""),):
        yield (*first, *_of_table(impact), sql)
        first, sql = ("", ""), ""


def _of_table(impact: TableImpact) -> tuple[str, ...]:
    return (
        impact.table,
        impact.lock,
        Styled(in_words(impact.blocks), _BLOCK_STYLES.get(impact.blocks, "")),
        Styled("yes", "red") if impact.rewritten else "",
        counted(impact.rows_read, "row") if impact.scanned else "",
        counted(impact.rows_written, "row") if impact.rows_written else "",
    )


def _shortened(sql: str) -> str:
    # mask before shortening, because part of a secret is secret, too
    text = " ".join(mask_sql(sql).split())
    return text if len(text) <= _LONGEST_SQL else f"{text[: _LONGEST_SQL - 1]}…"


def _summary(rehearsal: Rehearsal) -> Iterator[str]:
    lines = tuple(_lines(rehearsal))
    done = [each for each in rehearsal.migrations if _state(each, rehearsal) == "rehearsed"]
    yield (
        f"rehearsed {len(done)} of {counted(rehearsal.planned, 'migration')}"
        " in one transaction, which was rolled back"
    )
    for blocked in (READS_AND_WRITES, WRITES):
        found = [
            f"{line.name} ({', '.join(names)}) for {format_duration(line.lasts_seconds)}"
            for line in lines
            if (names := [each.table for each in line.statement.tables if each.blocks == blocked])
        ]
        yield f"blocks {blocked}: {', '.join(found) or 'none'}"
    rewriting = [
        f"{line.name} ({', '.join(names)})"
        for line in lines
        if (names := [each.table for each in line.statement.tables if each.rewritten])
    ]
    yield f"rewrites a table: {', '.join(rewriting) or 'none'}"
    if lines:
        longest = max(lines, key=lambda line: line.statement.seconds)
        yield f"longest statement: {longest.name}, {format_duration(longest.statement.seconds)}"


def _remarks(rehearsal: Rehearsal) -> Iterator[str]:
    for migration in rehearsal.migrations:
        if migration.not_rehearsed:
            yield f"not rehearsed: {migration.id}: {mask_secrets(migration.not_rehearsed.words)}"
        if migration.note:
            yield f"{migration.id}: {migration.note}"
        held = [
            f"{name} ({mode})"
            for name, mode in migration.locked_before
            if blocked_by(mode) in (READS_AND_WRITES, WRITES)
        ]
        if held and migration.statements:
            yield (
                f"{migration.id}: earlier migrations have locked {', '.join(held)}, so a rehearsal"
                " cannot show whether this migration takes the same locks"
            )
    if rehearsal.failure:
        yield f"failed: {mask_secrets(str(rehearsal.failure))}"


def _state(migration: RehearsedMigration, rehearsal: Rehearsal) -> str:
    if migration.not_rehearsed:
        return "not rehearsed"
    failed = rehearsal.failure and migration is rehearsal.migrations[-1]
    return "failed" if failed else "rehearsed"


def rehearsal_json(rehearsal: Rehearsal) -> str:
    """A JSON document with everything observed about each statement."""
    record = {
        "migrations": [_record(each, rehearsal) for each in rehearsal.migrations],
        "error": mask_secrets(str(rehearsal.failure)) if rehearsal.failure else None,
    }
    return to_json(record, indent=2)


def _record(migration: RehearsedMigration, rehearsal: Rehearsal) -> dict[str, object]:
    return {
        "id": migration.id,
        "path": migration.path,
        "state": _state(migration, rehearsal),
        "reason": migration.not_rehearsed and migration.not_rehearsed.id,
        "why_not": migration.not_rehearsed and mask_secrets(migration.not_rehearsed.words),
        "note": migration.note or None,
        "locked_before": [{"table": name, "lock": mode} for name, mode in migration.locked_before],
        "statements": [_statement_record(each) for each in migration.statements],
    }


def _statement_record(statement: StatementImpact) -> dict[str, object]:
    return {
        "line": statement.place.line or None,
        "column": statement.place.column or None,
        "sql": mask_sql(statement.sql) or None,
        "duration_seconds": round(statement.seconds, 6),
        "tables": [
            {
                "table": impact.table,
                "lock": impact.lock or None,
                "blocks": impact.blocks or None,
                "rewritten": impact.rewritten,
                "scanned": impact.scanned,
                "rows_read": impact.rows_read,
                "rows_written": impact.rows_written,
            }
            for impact in statement.tables
        ],
    }
