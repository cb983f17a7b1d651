"""Neither the order nor an interrupted migration depends on a clock: any clock can be set."""

from __future__ import annotations

import json
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.command import Initmig
from tests.support.half_applied import PARTS, missing, provide, take_done
from tests.support.migrations import write
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.clocks import SteppedClock
    from tests.support.databases import Database
    from tests.support.fork_server import ForkServer
    from tests.support.processes import Processes, Result
    from tests.support.yoyo import Yoyo

# The order and the records are the client's work.
pytestmark = pytest.mark.any_version

STEPS = {
    "back a second": (-1,),
    "back an hour": (-3600,),
    "forward a second": (1,),
    "forward an hour": (3600,),
    "in turn": (-3600, 1, 7200, -1),
}
# Not sorted by name: otherwise the order would be right without any record.
IDS = ("0003_c", "0001_a", "0004_d", "0002_b")

all_steps = pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
both_directions = pytest.mark.parametrize("ahead", [-3600, 3600], ids=["behind", "ahead"])


class Image(NamedTuple):
    """initmig and its files, on the database of a server whose clock a test can step."""

    initmig: Initmig
    database: Database
    folder: Path

    def write(self, id: str, depends: str = "") -> None:
        """Write a migration that creates a table with its name."""
        head = f"-- depends: {depends}\n" if depends else ""
        files = {
            f"{id}.sql": f'{head}CREATE TABLE "{id}" ();',
            f"{id}.rollback.sql": f'DROP TABLE IF EXISTS "{id}";',
        }
        write(self.folder, files)

    def run(self, *arguments: str) -> Result:
        env = {"INITMIG_LOG_FORMAT": "json"}
        return self.initmig(*arguments, url=self.database.url, folder=self.folder, env=env)

    def succeed(self, *arguments: str) -> Result:
        result = self.run(*arguments)
        assert result.code == 0, result.err
        return result

    def roll_back(self, *arguments: str) -> list[str]:
        """The ids that were rolled back, in this order."""
        events = self.succeed("rollback", *arguments).events
        return [event["id"] for event in events if event["event"] == "migration_rolled_back"]

    def states(self) -> dict[str, str]:
        """The state of each migration, in the order of `status`."""
        rows = json.loads(self.succeed("status", "--json").out)["migrations"]
        return {row["id"]: row["state"] for row in rows}

    def applied(self) -> set[str]:
        return {id for (id,) in self.database.query("SELECT migration_id FROM _yoyo_migration")}


@pytest.fixture
def image(clocked: Database, processes: Processes, fork: ForkServer, folder: Path) -> Image:
    return Image(Initmig(processes, fork), clocked, folder)


def apply_one_by_one(image: Image, clock: SteppedClock, steps: Sequence[int]) -> None:
    for id, step in zip(IDS, cycle(steps), strict=False):
        image.write(id)
        image.succeed("migrate")
        clock.step(step)


# --- the order ---


@all_steps
@pytest.mark.parametrize(
    ("arguments", "undone"),
    [(["--steps", "1"], 1), (["--steps", "2"], 2), (["--to", IDS[0]], 3), (["--all"], 4)],
    ids=["one", "two", "to", "all"],
)
def test_rollback_undoes_the_last_applied_migrations(
    image: Image, clock: SteppedClock, steps: Sequence[int], arguments: list[str], undone: int
) -> None:
    apply_one_by_one(image, clock, steps)
    assert image.roll_back(*arguments) == list(reversed(IDS))[:undone]
    assert image.database.tables() & {*IDS} == image.applied() == {*IDS[: 4 - undone]}


@all_steps
def test_unknown_migrations_are_listed_in_the_order_applied(
    image: Image, clock: SteppedClock, steps: Sequence[int], tmp_path: Path
) -> None:
    apply_one_by_one(image, clock, steps)
    other = image._replace(folder=tmp_path / "other")
    other.write("9999_other")
    assert [id for id, state in other.states().items() if state == "unknown"] == [*IDS]


@all_steps
@pytest.mark.parametrize("transaction", ["each", "all"])
def test_setting_the_clock_during_a_run_does_not_change_the_order(
    image: Image, clock: SteppedClock, steps: Sequence[int], transaction: str
) -> None:
    for id in ("0001_a", "0002_b", "0003_c"):
        image.write(id)
    # not by pg_sleep, which sleeps until a time of the clock
    write(image.folder, {"0002_b.sql": 'SELECT pg_advisory_xact_lock(7); CREATE TABLE "0002_b" ()'})
    with image.database.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(7)")
        argv = ["migrate", f"--transaction={transaction}", "--lock-timeout=0"]
        running = image.initmig.start(*argv, url=image.database.url, folder=image.folder)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: image.database.value(waiting) == 1)
        clock.step(steps[0])
    assert running.result().code == 0, running.err
    assert image.roll_back("--all") == ["0003_c", "0002_b", "0001_a"]


# --- several tools, each with its own clock ---


class Stock(NamedTuple):
    """A stock yoyo with the files and the database of *image*, and its own clock."""

    yoyo: Yoyo
    image: Image
    clock: SteppedClock

    def __call__(self, *arguments: str) -> None:
        database, folder = self.image.database, self.image.folder
        env = self.clock.environment
        result = self.yoyo(*arguments, database=database, folder=folder, env=env)
        assert result.code == 0, result.err


@pytest.fixture
def stock(yoyo: Yoyo, image: Image, third_clock: SteppedClock) -> Stock:
    return Stock(yoyo, image, third_clock)


@pytest.fixture
def old(image: Image, first_release: Initmig) -> Image:
    """0.1.0 with the same files and on the same database."""
    return image._replace(initmig=first_release)


def record(image: Image, stock: Stock, tool: str, id: str) -> None:
    """Record *id*, the only pending migration, with yoyo, `baseline` or `migrate`."""
    image.write(id)
    if tool == "y":
        stock("apply")
    elif tool == "b":
        image.succeed("baseline", "--to", id)
    else:
        image.succeed("migrate")
    assert id in image.applied()


@both_directions
@pytest.mark.parametrize("step", [-1, 1], ids=["back", "forward"])
@pytest.mark.parametrize("tools", ["ymym", "mymy", "yymm", "mmyy", "bymb"])
def test_order_is_kept_when_yoyo_applies_some_on_another_clock(
    stock: Stock, clock: SteppedClock, tools: str, step: int, ahead: int
) -> None:
    image = stock.image
    stock.clock.set_to(ahead)
    for tool, id in zip(tools, IDS, strict=True):
        record(image, stock, tool, id)
        clock.step(step)
    assert image.roll_back("--steps", "1") == [IDS[3]]
    assert image.roll_back("--all") == [IDS[2], IDS[1], IDS[0]]


@pytest.mark.parametrize("step", [-1, 1], ids=["back", "forward"])
@pytest.mark.parametrize("tools", ["omom", "momo", "omym", "ymom"])
def test_order_is_kept_when_0_1_0_applies_some(
    stock: Stock, old: Image, clock: SteppedClock, tools: str, step: int
) -> None:
    image = stock.image
    stock.clock.set_to(-3600 * step)
    for tool, id in zip(tools, IDS, strict=True):
        record(old if tool == "o" else image, stock, tool, id)
        clock.step(step)
    assert image.roll_back("--steps", "1") == [IDS[3]]
    assert image.roll_back("--all") == [IDS[2], IDS[1], IDS[0]]


@both_directions
def test_migration_that_yoyo_reapplied_is_rolled_back_first(stock: Stock, ahead: int) -> None:
    image = stock.image
    for id in IDS:
        image.write(id)
        image.succeed("migrate")
    stock.clock.set_to(ahead)
    stock("rollback", "--revision", IDS[1])
    assert image.applied() == {*IDS} - {IDS[1]}
    stock("apply")
    assert image.roll_back("--all") == [IDS[1], IDS[3], IDS[2], IDS[0]]


# --- dependencies ---

# Each depends on the previous one, the third also on the first; sorted by name, the first is last.
CHAIN = {
    "0004_table": "",
    "0003_view": "0004_table",
    "0001_both": "0003_view 0004_table",
    "0002_python": "0001_both",
}


def write_chain(image: Image) -> None:
    *sql, (id, depends) = CHAIN.items()
    for each in sql:
        image.write(*each)
    step = f"step('CREATE TABLE \"{id}\" ()', 'DROP TABLE \"{id}\"')"
    text = f"from yoyo import step\n__depends__ = {{'{depends}'}}\n{step}\n"
    write(image.folder, {f"{id}.py": text})


TIMES = {
    "the same": "'2026-01-01'",
    "the other way round": "'2026-01-01'::timestamp - (applied_at_utc - '2026-01-01'::timestamp)",
    "as they were": "applied_at_utc",
}


@pytest.mark.parametrize("by", ["yoyo", "initmig"])
@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("undone", [1, 2, 3, 4])
def test_rollback_never_leaves_a_migration_without_its_dependency(
    stock: Stock, by: str, times: str, undone: int
) -> None:
    image = stock.image
    write_chain(image)
    if by == "yoyo":
        stock("apply")
    else:
        image.succeed("migrate")
    image.database.execute(f"UPDATE _yoyo_migration SET applied_at_utc = {times}")
    assert image.roll_back("--steps", str(undone)) == [*reversed(CHAIN)][:undone]
    assert image.applied() == {*[*CHAIN][: 4 - undone]}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_rollback_to_a_migration_keeps_its_dependency(stock: Stock, times: str) -> None:
    write_chain(stock.image)
    stock("apply")
    stock.image.database.execute(f"UPDATE _yoyo_migration SET applied_at_utc = {times}")
    assert stock.image.roll_back("--to", "0003_view") == ["0002_python", "0001_both"]


def test_dependency_added_later_takes_precedence_over_the_order_applied(image: Image) -> None:
    for id in IDS:
        image.write(id)
        image.succeed("migrate")
    image.write(IDS[0], depends=IDS[3])
    assert image.roll_back("--steps", "1") == [IDS[0]]
    assert image.roll_back("--steps", "1") == [IDS[3]]


# --- the journal ---

APPLIED, UNDONE = [1, 2, 3], [-1, -2, -3]
EARLIER_RUNS = {
    "no earlier": [],
    "rolled back before": ["migrate", "rollback --all"],
    "rolled back twice": ["migrate", "rollback --all"] * 2,
}

with_earlier_runs = pytest.mark.parametrize("earlier", EARLIER_RUNS.values(), ids=EARLIER_RUNS)


class HalfApplied(NamedTuple):
    """A migration in parts that stops at its third part if the table `needed` is missing."""

    image: Image
    clock: SteppedClock

    def stop(self, command: str) -> None:
        """Run *command*, which fails at the third part."""
        with missing(self.image.database):
            assert self.image.run(*command.split()).code == 1

    def done(self) -> list[int]:
        """The values that the parts have written since the last call, in the order written."""
        return take_done(self.image.database)


@pytest.fixture
def half_applied(image: Image, clock: SteppedClock) -> HalfApplied:
    write(image.folder, PARTS)
    provide(image.database)
    return HalfApplied(image, clock)


@all_steps
@with_earlier_runs
@pytest.mark.parametrize("command", ["migrate", "rollback --all"])
def test_no_part_runs_twice_after_the_clock_was_set(
    half_applied: HalfApplied, steps: Sequence[int], earlier: list[str], command: str
) -> None:
    image = half_applied.image
    for each in [*earlier, *(["migrate"] if command != "migrate" else [])]:
        image.succeed(*each.split())
    if image.database.tables() & {"done"}:
        half_applied.done()
    every = cycle(steps)
    half_applied.clock.step(next(every))
    half_applied.stop(command)
    half_applied.clock.step(next(every))
    state = "applying" if command == "migrate" else "rolling back"
    assert image.states() == {"0001_a": state}
    image.succeed(*command.split())
    assert half_applied.done() == (APPLIED if command == "migrate" else UNDONE)
    assert image.states() == {"0001_a": "applied" if command == "migrate" else "pending"}


@both_directions
@with_earlier_runs
def test_migration_that_yoyo_applied_or_rolled_back_is_not_half_applied(
    half_applied: HalfApplied, stock: Stock, earlier: list[str], ahead: int
) -> None:
    image = half_applied.image
    stock.clock.set_to(ahead)
    for command in earlier:
        image.succeed(*command.split())
    half_applied.stop("migrate")
    stock("apply")
    half_applied.done()
    assert image.states() == {"0001_a": "applied"}
    image.succeed("migrate")
    assert half_applied.done() == []
    half_applied.stop("rollback --all")
    assert half_applied.done() == UNDONE[:1]
    stock("rollback")
    half_applied.done()
    assert image.states() == {"0001_a": "pending"}
    image.succeed("migrate")
    assert half_applied.done() == APPLIED


@both_directions
def test_migration_that_yoyo_applied_and_rolled_back_starts_again(
    half_applied: HalfApplied, stock: Stock, ahead: int
) -> None:
    image = half_applied.image
    stock.clock.set_to(ahead)
    half_applied.stop("migrate")
    stock("apply")
    stock("rollback")
    half_applied.done()
    assert image.states() == {"0001_a": "pending"}
    image.succeed("migrate")
    assert half_applied.done() == APPLIED


@pytest.mark.parametrize("command", ["migrate", "rollback --all"])
def test_no_part_runs_twice_after_the_log_was_emptied(
    half_applied: HalfApplied, command: str
) -> None:
    image = half_applied.image
    for each in ["migrate", "rollback --all", *(["migrate"] if command != "migrate" else [])]:
        image.succeed(*each.split())
    half_applied.done()
    half_applied.stop(command)
    image.database.execute("TRUNCATE _yoyo_log")
    image.succeed(*command.split())
    assert half_applied.done() == (APPLIED if command == "migrate" else UNDONE)


@all_steps
def test_no_part_of_a_hook_runs_twice_after_the_clock_was_set(
    half_applied: HalfApplied, steps: Sequence[int]
) -> None:
    image = half_applied.image
    hook = PARTS["0001_a.sql"]
    write(image.folder, {"0001_a.sql": "SELECT 1", "post-apply.sql": hook})
    image.succeed("migrate")
    half_applied.done()
    image.write("0002_b")
    every = cycle(steps)
    half_applied.clock.step(next(every))
    half_applied.stop("migrate")
    half_applied.clock.step(next(every))
    image.succeed("migrate")
    assert half_applied.done() == APPLIED
