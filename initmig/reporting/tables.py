"""Formats results for stdout: tables, their JSON, and the SQL of a plan."""

from __future__ import annotations

from initmig.core.durations import counted, format_duration
from initmig.core.records import TYPE_CHECKING
from initmig.core.visible import in_one_line, to_json, with_line_breaks
from initmig.reporting.terminal.layout import FIXED, ID, NAME, WORDS, fitted, laid_out
from initmig.reporting.terminal.screen import PLAIN, Styled, like
from initmig.sql.locks import blocked_by, in_words
from initmig.sql.masking import mask_sql
from initmig.sql.not_in_transaction import refused_in_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from initmig.core.model import Migration, MigrationStatus, TargetResult
    from initmig.reporting.terminal.screen import Line, Screen
    from initmig.sql.lock_forecast import Forecast
    from initmig.sql.not_in_transaction import Refused

_HEADINGS = ("migration", "state", "applied (UTC)", "by", "took")
_STATUS_KINDS = (ID, WORDS, FIXED, NAME, FIXED)
_OUTCOME_KINDS = (ID, WORDS, FIXED)

_STATE_STYLES = {"applied": "green", "pending": "yellow", "unknown": "yellow"}
"""All other states are red."""

_COMMENT_WIDTH = len("-- ")


def status_table(rows: Iterable[MigrationStatus], screen: Screen = PLAIN) -> str:
    """A line for each migration, under headings; more lines if *screen* is too narrow."""
    return screen.text(table([_HEADINGS, *map(_cells, rows)], screen, _STATUS_KINDS))


def _cells(row: MigrationStatus) -> tuple[str, ...]:
    applied = row.applied
    if applied is None:
        return (row.id, _styled_state(row), "", "", "")
    seconds = applied.duration_seconds
    return (
        row.id,
        _styled_state(row),
        f"{applied.applied_at:%Y-%m-%d %H:%M:%S}" if applied.applied_at else "",
        applied.applied_by,
        "" if seconds is None else format_duration(seconds),
    )


def _styled_state(row: MigrationStatus) -> str:
    style = "red" if row.behind else _STATE_STYLES.get(row.state, "red")
    return Styled(_state(row), style)


def _state(row: MigrationStatus) -> str:
    if row.unfinished is None:
        return ", ".join([row.state, *_remarks(row)])
    done = row.unfinished.parts_done
    state = "half-applied, rolling back" if row.state == "rolling back" else "half-applied"
    if not row.parts:
        return f"{state}: {counted(done, 'part')} done"
    words = f"{state}: {done} of {counted(len(row.parts), 'part')} done"
    return f"{words}, next {row.parts[done]}" if done < len(row.parts) else words


def _remarks(row: MigrationStatus) -> Iterator[str]:
    if row.state == "unknown" and row.applied and row.applied.breaking:
        yield "breaking"
    if row.behind:
        yield f"out of order (sorts before {row.behind})"


def table(rows: Sequence[tuple[str, ...]], screen: Screen, kinds: Sequence[str]) -> Iterator[Line]:
    """The lines of a table. The first of *rows* has the headings; *kinds* are the columns'."""
    first, *others = rows
    heads = tuple(Styled(each, "dim") for each in first)
    for lines in blocks([heads, *others], screen, kinds, headed=True):
        yield from lines


def blocks(
    rows: Sequence[tuple[str, ...]], screen: Screen, kinds: Sequence[str], *, headed: bool = False
) -> list[list[Line]]:
    """The lines of each row, usually one. Line breaks in cells are escaped."""
    shown = [[like(cell, in_one_line(cell)) for cell in row] for row in rows]
    return laid_out(shown, screen.width, kinds, headed=headed)


def status_json(rows: Iterable[MigrationStatus]) -> str:
    """A JSON document with every migration and its state."""
    return to_json({"migrations": [_record(row) for row in rows]}, indent=2)


def _record(row: MigrationStatus) -> dict[str, object]:
    record: dict[str, object] = {"id": row.id, "state": row.state, "path": row.path or None}
    if row.unfinished:
        done = row.unfinished.parts_done
        following = row.parts[done : done + 1]
        record |= {
            "parts_done": done,
            "parts": len(row.parts) or None,
            "next": str(following[0]) if following else None,
        }
    if row.behind:
        record["behind"] = row.behind
    if row.applied:
        record |= {
            "applied_at": row.applied.applied_at and row.applied.applied_at.isoformat(),
            "applied_by": row.applied.applied_by or None,
            "duration_seconds": row.applied.duration_seconds,
            "breaking": row.applied.breaking,
        }
    return record


def targets_table(outcomes: Iterable[TargetResult], screen: Screen = PLAIN) -> str:
    """A line for each target, by name, under headings; more lines if *screen* is too narrow."""
    rows = [
        (each.target, _outcome(each), format_duration(each.duration_seconds))
        for each in sorted(outcomes)
    ]
    return screen.text(table([("target", "outcome", "took"), *rows], screen, _OUTCOME_KINDS))


def _outcome(outcome: TargetResult) -> str:
    if outcome.exit_code:
        words = f"exit {outcome.exit_code}: {outcome.message.splitlines()[0]}"
        return Styled(words, "red")
    number = len(outcome.applied)
    return Styled(f"applied {number}", "green") if number else "nothing to do"


def target_json(outcome: TargetResult) -> str:
    """The outcome as one line of JSON."""
    return to_json({**outcome._asdict(), "message": outcome.message or None})


def plan_sql(
    migrations: Sequence[Migration],
    expected: Mapping[str, Sequence[Forecast]],
    screen: Screen = PLAIN,
) -> str:
    """The SQL that runs, in order. Comments above each migration state its properties and locks.

    The SQL is never wrapped, because it may be copied.
    """
    if not migrations:
        return "-- nothing is pending"
    lines: list[Line] = []
    for each in migrations:
        lines += [[""]] if lines else []
        lines += _comments(each, expected.get(each.id, ()), screen.width)
        lines += [[with_line_breaks(sql)] for sql in _sql(each)]
    return screen.text(lines)


def _comments(
    migration: Migration, expected: Iterable[Forecast], width: int
) -> Iterator[Sequence[str]]:
    # a line break would end the comment, and the rest would be SQL
    for style, lines in (
        ("cyan", _facts(migration)),
        ("red", _refused(migration)),
        ("dim", _expected(expected)),
    ):
        for line in lines:
            room = width and width - _COMMENT_WIDTH
            for part in fitted([in_one_line(line)], room, _indent(line) + 2):
                yield [Styled(f"-- {''.join(part)}", style)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _facts(migration: Migration) -> Iterator[str]:
    facts = [migration.file.path]
    if not migration.transactional:
        facts.append("not transactional")
    if migration.breaking:
        facts.append("breaking")
    if migration.depends:
        facts.append(f"depends on {', '.join(sorted(migration.depends))}")
    yield f"{migration.id} ({'; '.join(facts)})"


def _refused(migration: Migration) -> Iterator[str]:
    for each in refused_in_transaction([migration]):
        yield f"{each.place}: {each.fact}"
        yield f"  {each.next_step}"


def _expected(forecasts: Iterable[Forecast]) -> Iterator[str]:
    for each in forecasts:
        for lock in each.locks:
            blocked = in_words(blocked_by(lock.mode))
            yield f"{_at(each)}: takes {lock.mode} on {lock.table}, which blocks {blocked}"
        for what in each.not_analysed:
            yield f"{_at(each)}: not analysed: {what}"
        for advice in each.advice:
            yield f"  {advice}"


def _at(forecast: Forecast) -> str:
    return str(forecast.place._replace(path="")).lstrip(":") or "in the file"


def _sql(migration: Migration) -> list[str]:
    return [mask_sql(step.apply.strip("\ufeff\r\n")) for step in migration.steps]


def plan_json(migrations: Sequence[Migration], expected: Mapping[str, Sequence[Forecast]]) -> str:
    """A JSON document with the migrations of a plan, in order."""
    records = [
        {
            "id": each.id,
            "path": each.file.path,
            "transactional": each.transactional,
            "breaking": each.breaking,
            "depends": sorted(each.depends),
            "sql": _sql(each),
            "statements": [*map(_statement, expected.get(each.id, ()))],
            "refused": [*map(_refusal, refused_in_transaction([each]))],
        }
        for each in migrations
    ]
    return to_json({"migrations": records}, indent=2)


def _refusal(refused: Refused) -> dict[str, object]:
    return {
        "direction": refused.direction,
        "path": refused.place.path,
        "line": refused.place.line,
        "column": refused.place.column,
        "message": refused.fact,
        "next": refused.next_step,
    }


def _statement(forecast: Forecast) -> dict[str, object]:
    return {
        "line": forecast.place.line or None,
        "column": forecast.place.column or None,
        "locks": [
            {"table": lock.table, "lock": lock.mode, "blocks": blocked_by(lock.mode)}
            for lock in forecast.locks
        ],
        "advice": forecast.advice,
        "not_analysed": forecast.not_analysed,
    }
