from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from initmig.commands.result import Result
from initmig.commands.serve.serve import State, after, answer, ended, exposition, reasons_not_ready
from initmig.core.events import (
    Connected,
    HistoryRead,
    LockAcquired,
    MigrationApplied,
    MigrationStarted,
    StatementRunning,
    WaitingForDatabase,
    WaitingForYoyo,
    WaitingInQueue,
)

if TYPE_CHECKING:
    from initmig.core.events import Event

BEGUN = State(started=100.0)
RUNNING = "the run has not finished"
TWO_PENDING = HistoryRead(applied=1, pending=("0002_b", "0003_c"), unknown=0)
NONE_PENDING = HistoryRead(applied=3, pending=(), unknown=0)


def state_after(*events: Event, until: float | None = None) -> State:
    state = BEGUN
    for event in events:
        state = after(state, event)
    return state._replace(ended=until)


def values(state: State, now: float = 100.0) -> dict[str, float]:
    """The samples by name and, if they have a label, by its value."""
    families = text_string_to_metric_families(exposition(state, now).decode())
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_not_ready_before_the_database_has_answered() -> None:
    assert reasons_not_ready(BEGUN) == ("the database has not answered yet", RUNNING)


def test_pending_migrations_decrease_with_each_applied_one() -> None:
    begun = state_after(TWO_PENDING, MigrationStarted("0002_b", "m/0002_b.sql", 1, 2))
    assert reasons_not_ready(begun) == ("[1/2] 0002_b (m/0002_b.sql)", "2 pending: 0002_b, 0003_c")
    later = after(begun, MigrationApplied("0002_b", 0.1))
    assert reasons_not_ready(later)[-1] == "1 pending: 0003_c"
    assert later.history == HistoryRead(applied=2, pending=("0003_c",), unknown=0)


def test_answer_names_20_pending_migrations() -> None:
    many = tuple(f"{number:04}_x" for number in range(1, 1001))
    reason = reasons_not_ready(state_after(HistoryRead(applied=0, pending=many, unknown=0)))[-1]
    assert reason.startswith("1000 pending: 0001_x, 0002_x, ")
    assert reason.endswith(", 0020_x and 980 more")


def test_not_ready_until_the_run_has_ended() -> None:
    running = state_after(NONE_PENDING)
    assert reasons_not_ready(running) == (RUNNING,)
    assert reasons_not_ready(running._replace(ended=101.0)) == ()


def test_not_ready_after_a_migration_is_rolled_back_elsewhere() -> None:
    assert reasons_not_ready(state_after(NONE_PENDING, TWO_PENDING, until=101.0)) == (
        "2 pending: 0002_b, 0003_c",
    )


def test_unknown_migrations_do_not_affect_readiness() -> None:
    ahead = HistoryRead(applied=3, pending=(), unknown=2)
    assert reasons_not_ready(state_after(ahead, until=101.0)) == ()


def test_ready_again_after_the_database_returns() -> None:
    away = state_after(NONE_PENDING, WaitingForDatabase("Connection refused", 60), until=101.0)
    assert reasons_not_ready(away) == ("waiting up to 1 m for the database: Connection refused",)
    assert reasons_not_ready(after(away, Connected(3.0))) == ()
    assert reasons_not_ready(after(away, NONE_PENDING)) == ()


def test_lock_holder_is_named_until_the_lock_is_acquired() -> None:
    waiting = state_after(TWO_PENDING, WaitingInQueue("pid 7 (app)", 7, (), 3.0))
    assert "pid 7 (app)" in reasons_not_ready(waiting)[0]
    assert reasons_not_ready(after(waiting, LockAcquired(4.0, pooled=False))) == (
        RUNNING,
        "2 pending: 0002_b, 0003_c",
    )
    assert (
        "process 42"
        in reasons_not_ready(state_after(TWO_PENDING, WaitingForYoyo(42, "2026", 0)))[0]
    )


def test_statement_of_another_session_is_in_no_answer() -> None:
    running = StatementRunning("0002_b", 20.0, "Lock", ("pid 7: UPDATE t SET card = '4111'",))
    state = state_after(TWO_PENDING, running)
    for path in ("/readyz", "/metrics"):
        assert b"4111" not in answer(path, state, 200.0).body


def test_reason_with_line_ends_and_control_characters_is_one_indented_reason() -> None:
    reason = "server: x\nready\r\x1b[2J\u202e\udcff"
    for state in (
        BEGUN._replace(database_problem=reason),
        state_after(WaitingForDatabase(reason, 1)),
    ):
        body = answer("/readyz", state, 200.0).body.decode()
        first, second, third, *_ = body.split("\n")
        assert (first, third) == ("not ready", "    | ready\\r\\x1b[2J\\u202e\\udcff")
        assert second.endswith("server: x")


def test_unknown_counts_are_not_exported() -> None:
    names = {name for name in values(BEGUN) if name.startswith("initmig_migrations")}
    assert names == set()


def test_counts_are_kept_while_the_database_is_unreachable() -> None:
    away = state_after(TWO_PENDING)._replace(database_problem="Connection refused")
    assert values(away)["initmig_migrations_pending"] == 2
    assert values(away)["initmig_database_up"] == 0


def test_run_duration_grows_until_the_run_ends() -> None:
    name = "initmig_last_run_duration_seconds"
    assert values(BEGUN, now=103.5)[name] == 3.5
    assert values(BEGUN._replace(ended=102.0), now=109.0)[name] == 2.0


def test_outcome_is_running_until_the_run_ends() -> None:
    assert outcome_of(BEGUN) == ["running"]
    for result, outcome in (
        (Result("nothing pending"), "nothing_pending"),
        (Result("applied elsewhere"), "applied_elsewhere"),
        (Result("applied", ("0002_b",), 1.0), "applied"),
    ):
        assert outcome_of(ended(BEGUN, result, 101.0)) == [outcome]


def outcome_of(state: State) -> list[str]:
    name = "initmig_last_run_outcome/"
    return [
        key.removeprefix(name)
        for key, value in values(state).items()
        if key.startswith(name) and value
    ]


def test_waits_for_the_database_and_for_migrators_are_separate() -> None:
    waited = values(
        state_after(
            Connected(3.0), WaitingInQueue("x", 7, (), 0.0), LockAcquired(4.0, pooled=False)
        )
    )
    assert waited["initmig_waited_seconds/database"] == 3.0
    assert waited["initmig_waited_seconds/migrator"] == 4.0


def test_wait_that_ends_with_everything_applied_elsewhere_counts_once() -> None:
    result = Result("applied elsewhere", seconds=5.0)
    waited = values(ended(state_after(Connected(3.0)), result, 101.0))
    assert waited["initmig_waited_seconds/database"] == 3.0
    assert waited["initmig_waited_seconds/migrator"] == 2.0
