"""A rehearsal for stdout: as a table, as JSON, and as Markdown for a pull request."""

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

    from initmig.commands.rehearse.impact import Rehearsal, Rehearsed, StatementImpact
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
    """A statement, and what names it: its migration and its line."""

    name: str
    statement: StatementImpact
    lasts_seconds: float
    """From its beginning to the end of the migration, which is when its locks go."""


def rehearsal_table(rehearsal: Rehearsal, screen: Screen = PLAIN) -> str:
    """One line for each statement and table, and below them what is to be known of it."""
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
    said = [f"- {prose(each)}" for each in (*_summary(rehearsal), *_remarks(rehearsal))]
    rows = [cells for line in _lines(rehearsal) for cells in _cells(line)]
    lines = ["### Rehearsal of the pending migrations", "", *said]
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
    """Line and column, unless that is the first."""
    column = f":{place.column}" if place.column > 1 else ""
    return f":{place.line}{column}" if place.line else ""


def _cells(line: _Line) -> Iterator[tuple[str, ...]]:
    """A row for each table; one with the statement alone where it touched none."""
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
    # masked before it is cut: half a secret is one, too
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
        if migration.why_not:
            yield f"not rehearsed: {migration.id}: {mask_secrets(migration.why_not.words)}"
        if migration.note:
            yield f"{migration.id}: {migration.note}"
        held = [
            f"{name} ({mode})"
            for name, mode in migration.held
            if blocked_by(mode) in (READS_AND_WRITES, WRITES)
        ]
        if held and migration.statements:
            yield (
                f"{migration.id}: earlier migrations have locked {', '.join(held)}, so a rehearsal"
                " cannot show whether this migration takes the same locks"
            )
    if rehearsal.failure:
        yield f"failed: {mask_secrets(str(rehearsal.failure))}"


def _state(migration: Rehearsed, rehearsal: Rehearsal) -> str:
    if migration.why_not:
        return "not rehearsed"
    failed = rehearsal.failure and migration is rehearsal.migrations[-1]
    return "failed" if failed else "rehearsed"


def rehearsal_json(rehearsal: Rehearsal) -> str:
    """A JSON document with all that is known of each statement."""
    record = {
        "migrations": [_record(each, rehearsal) for each in rehearsal.migrations],
        "error": mask_secrets(str(rehearsal.failure)) if rehearsal.failure else None,
    }
    return to_json(record, indent=2)


def _record(migration: Rehearsed, rehearsal: Rehearsal) -> dict[str, object]:
    return {
        "id": migration.id,
        "path": migration.path,
        "state": _state(migration, rehearsal),
        "reason": migration.why_not and migration.why_not.id,
        "why_not": migration.why_not and mask_secrets(migration.why_not.words),
        "note": migration.note or None,
        "locked_before": [{"table": name, "lock": mode} for name, mode in migration.held],
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
