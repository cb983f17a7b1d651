"""How long initmig waits, measured with a simulated clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from initmig.core.clock import Clock
from initmig.core.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    InitmigError,
    MigrationsPending,
)
from initmig.core.events import Connected, WaitingForDatabase, WaitingForMigrations
from initmig.postgres import LoginRefused
from initmig.postgres.waiting import Outage, with_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from initmig.core.events import Event

CLOSED = DatabaseUnavailable("database-unavailable", "Connection refused")
STARTING = DatabaseUnavailable("database-unavailable", "the database system is starting up")
STANDBY = DatabaseUnavailable("database-unavailable", "the server is a standby")
REFUSED = LoginRefused("login-refused", "password authentication failed")


class Time:
    """A clock that moves only when the code sleeps or the test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep)


class Connection:
    """The part of a connection that a wait uses."""

    closed = False

    def close(self) -> None:
        self.closed = True


class World:
    """A server with a given answer to each attempt, and a record of the wait for it."""

    def __init__(self, answers: Iterable[InitmigError | None], *, takes: float = 0.0) -> None:
        """*answers* has an error, or None for success, per attempt, which *takes* seconds."""
        self.time = Time()
        self.events: list[Event] = []
        self.patience: list[float] = []
        self.connections: list[Connection] = []
        self._answers = iter(answers)
        self._takes = takes

    def connect(self, seconds: float) -> Any:
        self.patience.append(seconds)
        self.time.now += self._takes
        error = next(self._answers)
        if error:
            raise error
        connection = Connection()
        self.connections.append(connection)
        return connection

    def wait(self, timeout: float, work: Callable[[Any], str] = lambda _: "done") -> str:
        outage = Outage(timeout, self.time.clock, self.events.append)
        return with_session(self.connect, work, outage)

    @property
    def reasons(self) -> list[str]:
        kinds = (WaitingForDatabase, WaitingForMigrations)
        return [event.reason for event in self.events if isinstance(event, kinds)]


def forever(error: InitmigError) -> Iterable[InitmigError]:
    while True:
        yield error


def failing_then(results: Iterable[InitmigError | str]) -> Callable[[Any], str]:
    """Work that fails with the errors among *results* and then succeeds."""
    each = iter(results)

    def work(_: Any) -> str:
        result = next(each)
        if isinstance(result, InitmigError):
            raise result
        return result

    return work


def test_does_not_pause_for_a_server_that_answers() -> None:
    world = World([None])
    assert world.wait(60) == "done"
    assert (world.time.slept, world.events) == ([], [])
    assert [connection.closed for connection in world.connections] == [True]


def test_retries_until_the_server_answers_and_reports_the_wait() -> None:
    world = World([CLOSED, CLOSED, STARTING, None])
    assert world.wait(60) == "done"
    assert len(world.time.slept) == 3
    assert world.events == [
        WaitingForDatabase("Connection refused", 60),
        WaitingForDatabase("the database system is starting up", 60),
        Connected(pytest.approx(sum(world.time.slept))),  # type: ignore[arg-type]
    ]


def test_pauses_grow_from_a_fifth_of_a_second_to_three_seconds() -> None:
    longest = [0.0] * 8
    for _ in range(200):
        world = World([CLOSED] * 8 + [None])
        world.wait(600)
        longest = [max(pair) for pair in zip(longest, world.time.slept, strict=True)]
    limits = [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0, 3.0]
    for most, limit in zip(longest, limits, strict=True):
        assert limit * 0.8 < most <= limit


def test_pauses_are_random() -> None:
    pauses = set()
    for _ in range(10):
        world = World([CLOSED, None])
        world.wait(60)
        pauses.update(world.time.slept)
    assert len(pauses) == 10


@pytest.mark.parametrize("timeout", [0.1, 1.0, 60.0, 600.0])
def test_gives_up_exactly_at_the_timeout(timeout: float) -> None:
    world = World(forever(CLOSED))
    with pytest.raises(DatabaseUnavailable) as raised:
        world.wait(timeout)
    assert sum(world.time.slept) == pytest.approx(timeout)
    assert str(raised.value).startswith("Connection refused (waited ")
    assert "--wait-timeout" in raised.value.problems[0].hint
    assert raised.value.exit_code == 3
    assert world.reasons == ["Connection refused"]


def test_error_has_the_last_reason() -> None:
    world = World([CLOSED, *[STARTING] * 100])
    with pytest.raises(DatabaseUnavailable, match=r"is starting up \(waited 2 s\)"):
        world.wait(2)


def test_timeout_of_zero_tries_once() -> None:
    for error in (CLOSED, REFUSED, MigrationsPending("migrations-pending", "1 pending: a")):
        world = World([error])
        with pytest.raises(type(error)):
            world.wait(0)
        assert (world.time.slept, world.events) == ([], [])


def test_refused_login_is_retried_for_ten_seconds() -> None:
    world = World(forever(REFUSED))
    with pytest.raises(LoginRefused) as raised:
        world.wait(60)
    assert raised.value.exit_code == 4
    assert sum(world.time.slept) == pytest.approx(10)
    assert world.events == [WaitingForDatabase("password authentication failed", 10)]


def test_refused_login_is_not_retried_beyond_a_shorter_timeout() -> None:
    world = World(forever(REFUSED))
    with pytest.raises(LoginRefused):
        world.wait(3)
    assert sum(world.time.slept) == pytest.approx(3)


def test_login_refused_after_a_long_wait_is_retried() -> None:
    starting = [CLOSED] * 40
    world = World([*starting, *[REFUSED] * 3, None])
    assert world.wait(600) == "done"
    assert world.reasons == ["Connection refused", "password authentication failed"]


def test_permission_denied_is_not_retried() -> None:
    world = World([None])
    with pytest.raises(DatabaseRefused):
        world.wait(
            60,
            failing_then([DatabaseRefused("missing-privilege", "permission denied for table x")]),
        )
    assert world.time.slept == []
    assert world.connections[0].closed


def test_attempt_may_take_the_rest_of_the_wait_timeout() -> None:
    world = World(forever(CLOSED), takes=4)
    with pytest.raises(DatabaseUnavailable):
        world.wait(9)
    assert world.patience[0] == 9
    assert world.patience[1] <= 5
    assert world.patience == sorted(world.patience, reverse=True)
    assert world.time.now - 1000 <= 9 + 4


def test_work_that_loses_its_connection_is_repeated_on_a_new_one() -> None:
    lost = DatabaseUnavailable("database-unavailable", "the connection was lost")
    world = World([None, CLOSED, None])
    assert world.wait(60, failing_then([lost, "finally done"])) == "finally done"
    assert [type(event) for event in world.events] == [
        WaitingForDatabase,
        WaitingForDatabase,
        Connected,
    ]
    assert [connection.closed for connection in world.connections] == [True, True]


def test_time_spent_working_does_not_count_as_waiting() -> None:
    world = World([None, CLOSED, CLOSED, None])
    lost = DatabaseUnavailable("database-unavailable", "the connection was lost")

    def work(_: Any) -> str:
        world.time.now += 1000
        if len(world.connections) == 1:
            raise lost
        return "done"

    assert world.wait(30, work) == "done"


def test_wait_for_a_server_that_keeps_crashing_times_out() -> None:
    world = World(iter(lambda: None, 0))
    lost = DatabaseUnavailable("database-unavailable", "the connection was lost")
    with pytest.raises(DatabaseUnavailable, match=r"lost \(waited 30 s\)"):
        world.wait(30, failing_then(forever(lost)))
    assert sum(world.time.slept) == pytest.approx(30)


def test_standby_is_reported_once() -> None:
    world = World([None] * 6)
    assert world.wait(60, failing_then([*[STANDBY] * 5, "done"])) == "done"
    assert world.reasons == [str(STANDBY)]


def test_reason_is_reported_again_after_a_reconnection() -> None:
    lost = DatabaseUnavailable("database-unavailable", "the connection was lost")
    world = World([CLOSED, None, CLOSED, CLOSED, None])
    assert world.wait(60, failing_then([lost, "done"])) == "done"
    assert world.reasons == [str(CLOSED), str(lost), str(CLOSED)]
    assert [type(event) for event in world.events].count(Connected) == 2


def test_pending_migrations_are_reported_whenever_they_change() -> None:
    texts = ("2: a, b", "2: a, b", "1: b", "1: b")
    pending = [MigrationsPending("migrations-pending", text) for text in texts]
    world = World([None] * 5)
    assert world.wait(60, failing_then([*pending, "done"])) == "done"
    assert world.events == [
        WaitingForMigrations("2: a, b", 60),
        WaitingForMigrations("1: b", 60),
    ]


def test_wait_that_times_out_reports_the_pending_migrations() -> None:
    world = World(iter(lambda: None, 0))
    with pytest.raises(MigrationsPending, match="1 pending: a") as raised:
        world.wait(
            5, failing_then(forever(MigrationsPending("migrations-pending", "1 pending: a")))
        )
    assert raised.value.exit_code == 7
    assert sum(world.time.slept) == pytest.approx(5)
