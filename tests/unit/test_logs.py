from __future__ import annotations

import json
import os
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig import events
from initmig.errors import Place, Problem, ServerMessage
from initmig.events import Failed, NothingPending, ServerNotice
from initmig.logs import Log, event_text, problem_text
from initmig.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initmig.events import Event

PROBLEM = Problem(
    "migration-failed",
    "0002_x failed: relation missing",
    hint="mend it",
    place=Place("m/0002_x.sql", 12, 8, "SELECT missing;"),
    server=ServerMessage("42P01", "the detail", "the hint", "the context"),
)
EVENTS = (
    events.NothingPending(3),
    events.NoMigrationsFound(("a", "b")),
    events.FilesIgnored(("m/0001_a.SQL", "m/more/")),
    events.NoStatements("0002_b", "m/0002_b.sql"),
    events.NoStatements("helpers", "m/helpers.py"),
    events.DirectiveIgnored("m/0002_b.sql:2:4", "-- breaking: true"),
    events.WaitingForDatabase("Connection refused", 60),
    events.Connected(1.5),
    events.WaitingForMigrations("2 pending", 60),
    events.WaitingInQueue("pid 7 (app)", 7, (8, 9), 3.4, "app"),
    events.WaitingInQueue(
        "pid 7 (psql, user eve)", 7, (), 3.4, "eve", is_migrator=False, next_step="end it"
    ),
    events.WaitingForYoyo(42, "2026-01-02 03:04:05", 3.4),
    events.LockAcquired(0.1, pooled=True),
    events.AppliedElsewhere(2),
    events.StaleLockRemoved(7),
    events.YoyoLockRemoved(42, "2026-01-02 03:04:05"),
    events.NotLocked(),
    events.HistoryRead(1, ("0002_b", "0003_c"), 0),
    events.OutOfOrder("0001_a", "0002_b"),
    events.Changed("0001_a", "m/0001_a.sql"),
    events.HistoryShared("0001_a: applied from another file", "use --history-table"),
    events.RowSecurityActive("app._yoyo_migration", "reader", ("see_all",)),
    events.UnknownMigrations(("0003_c", "0004_d")),
    events.MigrationStarted("0001_a", "m/0001_a.sql", 1, 2),
    events.MigrationResumed("0001_a", 2, 5, in_doubt=True),
    events.PartFoundDone("0001_a", 3, 5),
    events.LeftOverRemoved("0001_a", "the invalid index public.i"),
    events.LargeFileRead("m/0001_a.sql", 1_900_000),
    events.ParserFellBack("m/0001_a.sql", "line 3: syntax error"),
    events.MigrationApplied("0001_a", 0.25),
    events.MigrationRolledBack("0001_a", 0.25),
    events.RollbackSkipped("0001_a", "0001_a has no rollback", ("m/0001_a.rollback.sql",)),
    events.AlreadyApplied(("0001_a",)),
    events.RecordPlanned("0002_b", "m/0002_b.sql"),
    events.MigrationRecorded("0002_b"),
    events.HookRan("post-apply", 0.25),
    events.MigrationRetried("0001_a", "lock timeout", "55P03", 1, 10, 0.5, ("pid 7 (app)",)),
    events.StatementRunning("0001_a", 20, "waits for Lock", ("pid 7 (app)",)),
    events.OwnStatementWaiting(10, 60, "waits for Lock: relation", ("pid 7 (app)",)),
    events.LockNotReleased("canceling statement due to lock timeout"),
    events.SessionNotEmptied("canceling statement due to lock timeout"),
    events.ServerNotice("NOTICE", "table exists"),
    events.ParameterIgnored("passfile", "the password file /run/x is not a plain file"),
    events.ErrorIgnored("DuplicateTable: t"),
    events.CommitIgnored("0002_b", "commit()", "m/0002_b.py", 7),
    events.Printed("hello"),
    events.Finished("applied", ("0001_a", "0002_b"), 2),
    events.OutputLost("cannot write to stdout: No space left on device"),
    events.FewerProcesses(3, 8, "Too many open files"),
    events.SettingLeftOut("idle_session_timeout", "permission denied", "it may strike"),
    events.NotWatched("can't start new thread"),
    events.TargetsFinished(5, 2, ("shop",), 1),
    events.NoTargets("targets.toml"),
    events.SquawkFailed("JSONDecodeError: no JSON"),
    events.FilesCreated(("m/x.sql", "m/x.rollback.sql")),
    events.Listening("127.0.0.1:8080"),
    events.Ready(3),
    events.NotReady(("1 pending: 0001_a", "the database is away")),
    events.RequestAnswered("GET", "/readyz", 200),
    events.RequestFailed("Traceback: x"),
    events.ServingEnded("SIGTERM"),
    events.MigrationVerified("0001_a", 0.05),
    events.Irreversible("0001_a"),
    events.ScratchDatabaseLeft("initmig_verify_1", "no answer"),
    events.Failed(PROBLEM, 1),
    events.StoppedBySignal("SIGTERM", 143),
)
each_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


def logged(event: Event, form: str, level: str = "debug") -> str:
    stream = StringIO()
    Log(level, form, stream)(event)
    return stream.getvalue()


def logged_json(event: Event) -> dict[str, Any]:
    [line] = logged(event, "json").splitlines()
    record: dict[str, Any] = json.loads(line)
    return record


def leaves(value: Any) -> Iterator[Any]:
    """The plain values in *value*."""
    if isinstance(value, tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_every_event_is_tried_here() -> None:
    records = {each for each in vars(events).values() if hasattr(each, "_fields")}
    assert {type(event) for event in EVENTS} == records - {Problem, Record}


@each_event
def test_every_event_is_one_line_of_json_with_its_values_as_fields(event: Event) -> None:
    record = logged_json(event)
    name = type(event).__name__
    assert record["event"].replace("_", "") == name.lower()
    assert record["level"] in ("debug", "info", "warning", "error")
    assert record["message"]
    if not isinstance(event, Failed):
        given = {key: [*v] if isinstance(v, tuple) else v for key, v in event._asdict().items()}
        assert given.items() <= record.items()


@each_event
def test_every_text_says_what_can_be_said_in_words(event: Event) -> None:
    text = event_text(event)
    assert f" {text}\n" in logged(event, "text")
    for value in leaves(tuple(event)):
        if isinstance(value, str) and not isinstance(event, events.MigrationRetried):
            assert value in text


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_shows_itself_and_what_is_more_important(level: str, shown: list[str]) -> None:
    one_of_each = (
        events.MigrationStarted("0001_a", "m/0001_a.sql", 1, 2),
        events.MigrationApplied("0001_a", 0.25),
        events.OutOfOrder("0001_a", "0002_b"),
        events.Failed(PROBLEM, 1),
    )
    stream = StringIO()
    log = Log(level, "json", stream)
    for event in one_of_each:
        log(event)
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == shown


@pytest.mark.parametrize(
    ("severity", "level"),
    [("WARNING", "warning"), ("NOTICE", "info"), ("INFO", "info"), ("DEBUG", "debug")],
)
def test_a_notice_is_as_important_as_the_server_says(severity: str, level: str) -> None:
    assert logged_json(ServerNotice(severity, "x"))["level"] == level


def test_times_are_utc_with_milliseconds() -> None:
    assert logged(NothingPending(1), "text")[:24].endswith("Z")
    assert len(logged_json(NothingPending(1))["time"]) == len("2026-11-22T21:06:00.000Z")


def test_one_migration_is_not_many() -> None:
    assert event_text(NothingPending(1)) == "nothing to do: 1 migration, all applied"
    assert event_text(NothingPending(2)) == "nothing to do: 2 migrations, all applied"


def test_a_failure_names_place_line_caret_server_and_next_step() -> None:
    assert problem_text(PROBLEM).splitlines() == [
        "m/0002_x.sql:12:8: 0002_x failed: relation missing (42P01) [migration-failed]",
        "    12 | SELECT missing;",
        "       |        ^",
        "  DETAIL: the detail",
        "  HINT: the hint",
        "  CONTEXT: the context",
        "  next: mend it",
    ]


def test_a_failure_in_json_has_each_part_as_a_field() -> None:
    record = logged_json(Failed(PROBLEM, 1))
    del record["time"]
    assert record == {
        "level": "error",
        "event": "failed",
        "error": "migration-failed",
        "message": "0002_x failed: relation missing",
        "path": "m/0002_x.sql",
        "line": 12,
        "column": 8,
        "source": "SELECT missing;",
        "sqlstate": "42P01",
        "detail": "the detail",
        "hint": "the hint",
        "context": "the context",
        "schema": "",
        "table": "",
        "constraint": "",
        "next": "mend it",
        "exit_code": 1,
    }


def test_what_is_not_known_is_not_shown() -> None:
    assert problem_text(Problem("x", "no")) == "no [x]"
    assert problem_text(Problem("x", "no", place=Place("a.py"))) == "a.py: no [x]"
    at_line = Problem("x", "no", place=Place("a.py", 3, 0, "x = 1"))
    assert problem_text(at_line).splitlines() == ["a.py:3: no [x]", "     3 | x = 1"]


SOURCES = st.text("abc \t;漢", min_size=1, max_size=400)


@given(source=SOURCES, data=st.data())
def test_the_caret_stands_under_its_character_whatever_stands_before(
    source: str, data: st.DataObject
) -> None:
    column = data.draw(st.integers(1, len(source)))
    text = problem_text(Problem("x", "no", place=Place("x.sql", 7, column, source)))
    _, shown, caret = text.split("\n")
    prefix = "     7 | "
    assert shown.startswith(prefix)
    assert len(shown) <= len(prefix) + 160
    assert shown[len(caret) - 1] == source[column - 1]
    # tabs in the same places, so that they are equally wide
    assert [n for n, c in enumerate(caret) if c == "\t"] == [
        n for n, c in enumerate(shown[: len(caret) - 1]) if c == "\t"
    ]


def test_the_caret_can_stand_behind_the_end_of_the_line() -> None:
    _, shown, caret = problem_text(Problem("x", "no", place=Place("x", 1, 4, "abc"))).split("\n")
    assert (len(shown), caret.index("^")) == (len("     1 | abc"), len("     1 | abc"))


SECRETS = (
    "postgres://u:hunter2@h/d",
    "postgres://u:a:b/hunter2?x#@h/d",
    "postgresql://h/d?user=u&password=hunter2",
    "host=h password=hunter2 user=u",
    "password = 'hun ter2 hunter2'",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_field_of_any_event_shows_a_password(secret: str, form: str) -> None:
    for event in (
        Failed(
            Problem("x", secret, secret, Place(secret, 1, 1, secret), ServerMessage(*[secret] * 4)),
            1,
        ),
        ServerNotice("NOTICE", secret),
        events.UnknownMigrations((secret, secret)),
        events.WaitingForDatabase(f"first\n{secret}\nlast", 1),
    ):
        line = logged(event, form)
        assert "***" in line
        assert "hunter2" not in line
        if form == "json":
            assert json.loads(line)["level"]


def test_a_mask_hides_nothing_of_the_other_fields() -> None:
    record = logged_json(Failed(Problem("x", SECRETS[2], hint="next"), 2))
    assert (record["next"], record["exit_code"]) == ("next", 2)


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = TextIOWrapper(os.fdopen(writing, "wb", buffering=0), write_through=True)
    log = Log("info", "text", stream)
    log(NothingPending(1))
    log(NothingPending(1))
    stream.close()
