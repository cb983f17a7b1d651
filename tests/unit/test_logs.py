from __future__ import annotations

import json
import os
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.core import events
from initmig.core.errors import Place, Problem, ServerMessage
from initmig.core.events import Failed, NothingPending, ServerNotice
from initmig.core.records import Record
from initmig.reporting.logs import Log, event_text, event_words, problem_text

if TYPE_CHECKING:
    from initmig.core.events import Event

PROBLEM = Problem(
    "migration-failed",
    "0002_x failed: relation missing",
    hint="fix it",
    place=Place("m/0002_x.sql", 12, 8, "SELECT missing;"),
    server=ServerMessage("42P01", "the detail", "the hint", "the context"),
)
SENTENCES: tuple[tuple[Event, str], ...] = (
    (events.NothingPending(3), "nothing to do: 3 migrations, all applied"),
    (
        events.NothingPending(3, later=2),
        "nothing to do up to the requested migration; 2 of 3 migrations pending after it",
    ),
    (events.NothingPending(1), "nothing to do: 1 migration, all applied"),
    (events.NoMigrationsFound(("a", "b")), "no migrations in a, b"),
    (
        events.FilesIgnored(("m/0001_a.SQL", "m/more/")),
        (
            "ignored m/0001_a.SQL, m/more/: migrations must be directly in the folder, with"
            " names that end in .sql or .py"
        ),
    ),
    (
        events.NoStatements("0002_b", "m/0002_b.sql"),
        "m/0002_b.sql has no statements: applying 0002_b only records it",
    ),
    (
        events.NoStatements("helpers", "m/helpers.py"),
        "m/helpers.py has no steps: applying helpers only records it",
    ),
    (
        events.DirectiveIgnored("m/0002_b.sql:2:4", "-- breaking: true"),
        (
            "m/0002_b.sql:2:4: ignored `-- breaking: true`, because yoyo reads no directives"
            " below a /* */ comment; move it to the top of the file"
        ),
    ),
    (
        events.WaitingForDatabase("Connection refused", 60),
        "waiting up to 1 m for the database: Connection refused",
    ),
    (events.Connected(1.5), "connected to the database after 1.5 s"),
    (events.WaitingForMigrations("2 pending", 60), "waiting up to 1 m for migrations: 2 pending"),
    (
        events.WaitingInQueue("pid 7 (app)", 7, (8, 9), 3.4, "app"),
        "waiting for another migrator (3.4 s so far): pid 7 (app)",
    ),
    (
        events.WaitingInQueue(
            "pid 7 (psql, user eve)", 7, (), 3.4, "eve", is_migrator=False, next_step="end it"
        ),
        (
            "waiting for a session that holds the migration lock but is not initmig (3.4 s so"
            " far): pid 7 (psql, user eve); end it"
        ),
    ),
    (
        events.WaitingInQueue("pid 7 (initmig)", 7, (), 3.4, next_step="end it"),
        "waiting for another migrator (3.4 s so far): pid 7 (initmig); end it",
    ),
    (
        events.WaitingForYoyo(42, "2026-01-02 03:04:05", 3.4),
        (
            "waiting for yoyo (3.4 s so far): its process 42 has held the lock since 2026-01-02"
            " 03:04:05 UTC; if that process no longer exists, run `initmig unlock`"
        ),
    ),
    (
        events.LockAcquired(0.1, pooled=True),
        "acquired the migration lock after 0.1 s through a pooler",
    ),
    (events.LockAcquired(0.1, pooled=False), "acquired the migration lock after 0.1 s"),
    (
        events.AppliedElsewhere(2),
        "nothing to do: another migrator applied the pending migrations (waited 2 s)",
    ),
    (events.StaleLockRemoved(7), "removed the lock row of an initmig that has ended (pid 7)"),
    (
        events.YoyoLockRemoved(42, "2026-01-02 03:04:05"),
        "removed the lock row of process 42, held since 2026-01-02 03:04:05 UTC",
    ),
    (events.NotLocked(), "nothing to do: there is no lock row, or a running initmig holds it"),
    (
        events.HistoryRead(1, ("0002_b", "0003_c"), 0),
        "1 applied, 0 unknown, 2 pending: 0002_b, 0003_c",
    ),
    (events.HistoryRead(3, (), 1), "3 applied, 1 unknown, 0 pending"),
    (
        events.OutOfOrder("0001_a", "0002_b"),
        "0001_a is out of order: 0002_b is already applied (--out-of-order=fail refuses this)",
    ),
    (
        events.Changed("0001_a", "m/0001_a.sql"),
        "m/0001_a.sql has changed since 0001_a was applied (--changed=fail refuses this)",
    ),
    (
        events.OtherHistoryFound("the table x is the history of goose", "see the page"),
        "the table x is the history of goose; see the page",
    ),
    (
        events.HistoryShared("0001_a: applied from another file", "use --history-table"),
        "0001_a: applied from another file; use --history-table",
    ),
    (
        events.RowSecurityActive("app._yoyo_migration", "reader", ("see_all",)),
        (
            "row level security on app._yoyo_migration applies to reader (policies: see_all);"
            " applied migrations that it hides look pending"
        ),
    ),
    (
        events.UnknownMigrations(("0003_c", "0004_d")),
        "the database is ahead of these migrations: 0003_c, 0004_d are applied, but unknown here",
    ),
    (
        events.UnknownMigrations(("0003_c",)),
        "the database is ahead of these migrations: 0003_c is applied, but unknown here",
    ),
    (events.MigrationStarted("0001_a", "m/0001_a.sql", 1, 2), "[1/2] 0001_a (m/0001_a.sql)"),
    (
        events.MigrationResumed("0001_a", 2, 5, in_doubt=True),
        "resuming 0001_a: 2 of 5 parts done; checking whether the next one completed",
    ),
    (events.MigrationResumed("0001_a", 1, 1, in_doubt=False), "resuming 0001_a: 1 of 1 part done"),
    (
        events.PartFoundDone("0001_a", 3, 5),
        "0001_a: the catalog shows that part 3 of 5 is already done",
    ),
    (
        events.LeftOverRemoved("0001_a", "the invalid index public.i"),
        "0001_a: removed the invalid index public.i, left behind by an interrupted statement",
    ),
    (events.LargeFileRead("m/0001_a.sql", 1_900_000), "reading m/0001_a.sql (1.9 MB)"),
    (
        events.ParserFellBack("m/0001_a.sql", "line 3: syntax error"),
        (
            "cannot parse m/0001_a.sql (line 3: syntax error); splitting it by simpler rules."
            " The file has a syntax error, or uses syntax that is newer than the parser"
        ),
    ),
    (events.MigrationApplied("0001_a", 0.25), "applied 0001_a in 0.25 s"),
    (events.MigrationRolledBack("0001_a", 0.25), "rolled back 0001_a in 0.25 s"),
    (
        events.RollbackSkipped("0001_a", "0001_a has no rollback", ("m/0001_a.rollback.sql",)),
        (
            "0001_a has no rollback (m/0001_a.rollback.sql); skipping it and removing the record"
            " of 0001_a"
        ),
    ),
    (events.AlreadyApplied(("0001_a",)), "already applied, left unchanged: 0001_a"),
    (
        events.RecordPlanned("0002_b", "m/0002_b.sql"),
        "will record as applied without running it: 0002_b (m/0002_b.sql)",
    ),
    (events.MigrationRecorded("0002_b"), "recorded 0002_b as applied"),
    (events.HookRan("post-apply", 0.25), "ran post-apply in 0.25 s"),
    (
        events.MigrationRetried("0001_a", "lock timeout", "55P03", 1, 10, 0.5, ("pid 7 (app)",)),
        "0001_a: lock timeout; retry 1 of 10 in 0.5 s; blocked by pid 7 (app)",
    ),
    (
        events.MigrationRetried("0001_a", "deadlock", "40P01", 2, 10, 0.5, ()),
        "0001_a: deadlock; retry 2 of 10 in 0.5 s",
    ),
    (
        events.StatementRunning(
            "0001_a", 20, "waiting for Lock", ("pid 7 (app)",), "m/0001_a.sql", 3
        ),
        (
            "0001_a (m/0001_a.sql:3) has been running for 20 s: waiting for Lock;"
            " blocked by pid 7 (app)"
        ),
    ),
    (events.StatementRunning("0001_a", 180, "running", ()), "0001_a has been running for 3 m"),
    (
        events.StatementRunning("0001_a", 20, "running, waiting for Lock: relation", ()),
        "0001_a has been running for 20 s: waiting for Lock: relation",
    ),
    (
        events.OwnStatementWaiting(10, 60, "waiting for Lock: relation", ("pid 7 (app)",)),
        (
            "one of initmig's own statements has been held up for 10 s (limit 1 m): waiting for"
            " Lock: relation; blocked by pid 7 (app)"
        ),
    ),
    (
        events.OwnStatementWaiting(10, 60, "", ()),
        "one of initmig's own statements has been held up for 10 s (limit 1 m)",
    ),
    (
        events.LockNotReleased("canceling statement due to lock timeout"),
        (
            "could not release the migration lock: canceling statement due to lock timeout. The"
            " lock ends with the connection. A row left in yoyo_lock blocks only stock yoyo;"
            " `initmig unlock` or the next run that applies something removes it"
        ),
    ),
    (
        events.SessionNotEmptied("canceling statement due to lock timeout"),
        (
            "could not reset the session after the migration: canceling statement due to lock"
            " timeout. The migration's outcome stands; initmig continues in a new session"
        ),
    ),
    (events.ServerNotice("NOTICE", "table exists"), "NOTICE: table exists"),
    (
        events.ParameterIgnored("passfile", "the password file /run/x is not a regular file"),
        "ignored the connection parameter passfile: the password file /run/x is not a regular file",
    ),
    (
        events.ErrorIgnored("DuplicateTable: t"),
        "ignored an error, because the step has ignore_errors: DuplicateTable: t",
    ),
    (
        events.CommitIgnored("0002_b", "commit()", "m/0002_b.py", 7),
        "m/0002_b.py:7: commit() has no effect: initmig commits 0002_b together with its record",
    ),
    (events.Printed("hello"), "hello"),
    (
        events.Finished("applied", ("0001_a", "0002_b"), 2),
        "applied 2 migrations in 2 s: 0001_a, 0002_b",
    ),
    (
        events.Finished("recorded as applied", ("0001_a",), 2),
        "recorded 1 migration as applied in 2 s: 0001_a",
    ),
    (events.Finished("nothing to roll back", (), 2), "nothing to roll back"),
    (
        events.Finished("nothing to roll back", (), 2, kept="0001_a"),
        "nothing to roll back: nothing was applied after 0001_a, which --to keeps",
    ),
    (
        events.OutputLost("cannot write to stdout: No space left on device"),
        (
            "cannot write to stdout: No space left on device; the result is lost, but the work"
            " continues"
        ),
    ),
    (
        events.FewerProcesses(3, 8, "Too many open files"),
        "migrating with 3 processes instead of 8: Too many open files",
    ),
    (
        events.SettingLeftOut("idle_session_timeout", "permission denied", "it may strike"),
        "could not set idle_session_timeout (permission denied): it may strike",
    ),
    (
        events.NotWatched("can't start new thread"),
        "cannot report long statements and who blocks them: can't start new thread",
    ),
    (
        events.TargetsFinished(5, 2, ("shop",), 1),
        "5 targets: applied migrations to 2, 1 failed (shop), 1 not started",
    ),
    (events.TargetsFinished(1, 1, (), 0), "1 target: applied migrations to 1"),
    (events.NoTargets("targets.toml"), "found no targets in targets.toml"),
    (
        events.SquawkFailed("JSONDecodeError: no JSON"),
        "squawk failed, so its findings are missing: JSONDecodeError: no JSON",
    ),
    (events.FilesCreated(("m/x.sql", "m/x.rollback.sql")), "wrote m/x.sql, m/x.rollback.sql"),
    (
        events.Listening("127.0.0.1:8080"),
        "listening on 127.0.0.1:8080: /healthz, /readyz, /metrics",
    ),
    (events.Ready(3), "ready: 3 migrations, all applied"),
    (
        events.NotReady(("1 pending: 0001_a", "the database is away")),
        "not ready: 1 pending: 0001_a; the database is away",
    ),
    (events.RequestAnswered("GET", "/readyz", 200), "GET /readyz 200"),
    (events.RequestFailed("Traceback: x"), "internal error (please report): Traceback: x"),
    (events.ServingEnded("SIGTERM"), "stopped serving after SIGTERM"),
    (events.MigrationVerified("0001_a", 0.05), "verified 0001_a in 0.05 s"),
    (
        events.Irreversible("0001_a"),
        "0001_a has no rollback: verified only that it applies (--require-rollback refuses this)",
    ),
    (
        events.Irreversible("0001_a", refused=True),
        "0001_a has no rollback: verified only that it applies",
    ),
    (
        events.Finished("verified", ("0001_a",), 0.5, total=3),
        "verified 1 of 3 migrations in 0.5 s: 0001_a",
    ),
    (
        events.Finished("verified", ("0001_a",), 0.5, total=1),
        "verified 1 migration in 0.5 s: 0001_a",
    ),
    (
        events.ScratchDatabaseLeft("initmig_verify_1", "no answer"),
        "could not drop the scratch database initmig_verify_1: no answer",
    ),
    (events.Failed(PROBLEM, 1), "0002_x failed: relation missing"),
    (
        events.StoppedBySignal("SIGTERM", 143),
        "stopped by SIGTERM: uncommitted work was rolled back; run again to continue",
    ),
)
EVENTS = tuple(event for event, _ in SENTENCES)
each_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


def logged(event: Event, form: str, level: str = "debug") -> str:
    stream = StringIO()
    Log(level, form, stream)(event)
    return stream.getvalue()


def logged_json(event: Event) -> dict[str, Any]:
    [line] = logged(event, "json").splitlines()
    record: dict[str, Any] = json.loads(line)
    return record


def test_every_event_is_covered() -> None:
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


@pytest.mark.parametrize(
    ("event", "sentence"), SENTENCES, ids=[type(event).__name__ for event in EVENTS]
)
def test_every_event_has_its_sentence(event: Event, sentence: str) -> None:
    assert event_words(event) == sentence


@each_event
def test_text_of_each_event_is_one_log_line(event: Event) -> None:
    assert f" {event_text(event)}\n" in logged(event, "text")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_shows_itself_and_higher_levels(level: str, shown: list[str]) -> None:
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
def test_notice_has_the_level_of_its_severity(severity: str, level: str) -> None:
    assert logged_json(ServerNotice(severity, "x"))["level"] == level


def test_times_are_utc_with_milliseconds() -> None:
    assert logged(NothingPending(1), "text")[:24].endswith("Z")
    assert len(logged_json(NothingPending(1))["time"]) == len("2026-11-22T21:06:00.000Z")


def test_failure_shows_location_source_caret_server_message_and_next_step() -> None:
    assert problem_text(PROBLEM).splitlines() == [
        "m/0002_x.sql:12:8: 0002_x failed: relation missing (42P01) [migration-failed]",
        "    12 | SELECT missing;",
        "       |        ^",
        "  DETAIL: the detail",
        "  HINT: the hint",
        "  CONTEXT: the context",
        "  next: fix it",
    ]


def test_failure_in_json_has_each_part_as_a_field() -> None:
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
        "next": "fix it",
        "exit_code": 1,
    }


def test_unknown_parts_of_a_problem_are_left_out() -> None:
    assert problem_text(Problem("x", "no")) == "no [x]"
    assert problem_text(Problem("x", "no", place=Place("a.py"))) == "a.py: no [x]"
    at_line = Problem("x", "no", place=Place("a.py", 3, 0, "x = 1"))
    assert problem_text(at_line).splitlines() == ["a.py:3: no [x]", "     3 | x = 1"]


SOURCES = st.text("abc \t;漢", min_size=1, max_size=400)


@given(source=SOURCES, data=st.data())
def test_caret_is_under_its_character(source: str, data: st.DataObject) -> None:
    column = data.draw(st.integers(1, len(source)))
    text = problem_text(Problem("x", "no", place=Place("x.sql", 7, column, source)))
    _, shown, caret = text.split("\n")
    prefix = "     7 | "
    assert shown.startswith(prefix)
    assert len(shown) <= len(prefix) + 160
    assert shown[len(caret) - 1] == source[column - 1]
    # tabs in the same columns make both lines equally wide
    assert [n for n, c in enumerate(caret) if c == "\t"] == [
        n for n, c in enumerate(shown[: len(caret) - 1]) if c == "\t"
    ]


def test_caret_can_be_after_the_end_of_the_line() -> None:
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


def test_masking_a_field_keeps_the_others() -> None:
    record = logged_json(Failed(Problem("x", SECRETS[2], hint="next"), 2))
    assert (record["next"], record["exit_code"]) == ("next", 2)


def test_log_without_a_reader_raises_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = TextIOWrapper(os.fdopen(writing, "wb", buffering=0), write_through=True)
    log = Log("info", "text", stream)
    log(NothingPending(1))
    log(NothingPending(1))
    stream.close()
