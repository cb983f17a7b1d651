"""Any sequence of runs, kills, edits, images, clock steps and manual rows, against a model."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initmig.cli.main import main
from tests.support.courses import ByHand, Course, Migrate, Rollback, StockYoyo, statuses
from tests.support.forking import Blow, Forking
from tests.support.migrations import write
from tests.support.model import (
    HOOK,
    RAN,
    Failure,
    File,
    Image,
    Kind,
    Piece,
    Policy,
    State,
    observe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.proxy import Proxy
    from tests.support.yoyo import Yoyo

# These tests are for the client, so one version of the server is enough.
pytestmark = pytest.mark.any_version

EMPTY = f"""
DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS beside CASCADE;
CREATE SCHEMA public; CREATE SCHEMA beside; CREATE TABLE {RAN} (n int);
CREATE TABLE beside.gate (n int)"""

# The effect of a stepped clock: the times of existing rows move by the same interval.
STEP = """
UPDATE _yoyo_migration SET applied_at_utc = applied_at_utc + {by};
UPDATE _yoyo_log SET created_at_utc = created_at_utc + {by};
UPDATE yoyo_lock SET ctime = ctime + {by};
UPDATE _initmig_migration SET started_at = started_at + {by}, finished_at = finished_at + {by},
    log_rows_at = log_rows_at + {by};"""

RIGHT_HASH = "encode(sha256(migration_id::bytea), 'hex')"

NOT_NUMBERED = f"""
SELECT FROM _yoyo_migration y LEFT JOIN _initmig_migration i USING (migration_id)
WHERE (i.position IS NULL OR i.finished_at <> y.applied_at_utc AT TIME ZONE 'UTC'
    OR migration_hash <> {RIGHT_HASH})
    AND migration_id NOT LIKE 'post-apply%' AND migration_id NOT LIKE 'rolling back %'"""
"""The rows that no writing run of initmig has seen yet."""


OTHER_APPLICATION = {
    **{f"m_0{n}.sql": f"CREATE TABLE beside.m_0{n} (n int);" for n in range(1, 5)},
    **{f"m_0{n}.rollback.sql": f"DROP TABLE beside.m_0{n};" for n in range(1, 6)},
    "m_05.sql": "-- transactional: false\nCREATE TABLE beside.m_05 (n int);\n"
    "SELECT 1 / count(*) FROM beside.gate;\n",
}
"""It has the same ids. While its gate is closed, its last migration is interrupted."""


class Fault(NamedTuple):
    """What happens to a run at one of its messages, if it sends that many."""

    does: Literal["kill", "cut"]
    at: int
    answered: bool


class New(NamedTuple):
    """A migration that a newer image adds."""

    kind: Kind
    pieces: tuple[Piece, ...]
    early: bool = False
    """Whether its name sorts before the existing ones."""
    depends: int | None = None
    """The image's migration that it depends on, counted from the last."""
    breaking: bool = False
    reversible: bool = True
    fails: Failure | None = None


class Ship(NamedTuple):
    """A newer image, made from the current one."""

    new: tuple[New, ...]


class Hook(NamedTuple):
    """A newer image with a hook, or with a different one."""

    kind: Literal["sql", "piecewise sql"]
    pieces: tuple[Piece, ...]
    fails: Failure | None = None


class GoBack(NamedTuple):
    """An earlier image, counted from the last."""

    to: int


class Edit(NamedTuple):
    """A change of one of the image's files, counted from the last."""

    which: int
    fails: Failure | None = None
    unfit: bool = False


class Up(NamedTuple):
    """`migrate`; *to* is the migration's place, counted from the last of all images."""

    to: int | None = None
    changed: Policy = "warn"
    transaction: Literal["each", "all"] = "each"
    fault: Fault | None = None
    step: int = 0
    """The seconds by which the server's clock is stepped before."""


class Down(NamedTuple):
    """`rollback`: a number of steps, or to a migration as in `Up`, or everything."""

    steps: int = 0
    to: int | None = None
    changed: Policy = "warn"
    fault: Fault | None = None
    step: int = 0


class Yoyos(NamedTuple):
    """A stock yoyo applies or rolls back everything."""

    direction: Literal["apply", "rollback"]


class ByHands(NamedTuple):
    """A person inserts or deletes a row of the history, and makes the same change by hand."""

    does: Literal["apply", "remove", "again"]
    """`again`: a second row of an applied migration, with another hash."""
    which: int


class Beside(NamedTuple):
    """Another application with the same ids starts; if it exists, it migrates and rolls back.

    It has its own schema, or its own history table in our schema.
    """

    where: Literal["schema", "table"]


Action = Ship | Hook | GoBack | Edit | Up | Down | Yoyos | ByHands | Beside

few = st.integers(0, 5)
policies = st.sampled_from(["warn", "warn", "allow", "fail"])
faults = st.none() | st.builds(
    Fault, st.sampled_from(["kill", "kill", "kill", "cut"]), st.integers(1, 60), st.booleans()
)
failures = st.none() | st.builds(
    Failure, st.sampled_from(["apply", "apply", "rollback"]), st.integers(1, 5)
)
steps = st.sampled_from([0, 0, 1, -1, 3600, -3600])
rarely = st.sampled_from([False] * 7 + [True])


def pieces(*kinds: Piece, most: int = 4) -> st.SearchStrategy[tuple[Piece, ...]]:
    return st.lists(st.sampled_from(kinds), min_size=1, max_size=most).map(tuple)


news = st.builds(
    New,
    kind=st.sampled_from(["sql", "piecewise sql", "python", "piecewise sql", "piecewise python"]),
    pieces=pieces("row", "index", "rows", "vacuum", "function", "leftover"),
    early=rarely,
    depends=st.none() | few,
    breaking=rarely,
    reversible=rarely.map(lambda no: not no),
    fails=st.one_of(st.none(), st.none(), st.none(), failures),
)
ships = st.builds(Ship, st.lists(news, min_size=1, max_size=3).map(tuple))
hooks = st.builds(
    Hook,
    st.sampled_from(["sql", "piecewise sql"]),
    pieces("row", "vacuum", most=3),
    st.none() | st.builds(Failure, st.just("apply"), st.integers(1, 3)),
)
ups = st.builds(
    Up,
    to=st.one_of(st.none(), st.none(), few),
    changed=policies,
    transaction=st.sampled_from(["each", "each", "each", "all"]),
    fault=faults,
    step=steps,
)
downs = st.builds(
    Down,
    steps=st.integers(0, 3),
    to=st.none() | few,
    changed=policies,
    fault=faults,
    step=steps,
)
edits = st.builds(Edit, few, fails=st.none() | failures, unfit=rarely)
actions = st.one_of(
    ships,
    ups,
    ups,
    ups,
    downs,
    downs,
    edits,
    st.builds(GoBack, few),
    hooks,
    st.builds(ByHands, st.sampled_from(["apply", "remove", "again"]), few),
    st.builds(Beside, st.sampled_from(["schema", "table"])),
)
yoyos = st.builds(Yoyos, st.sampled_from(["apply", "rollback"]))


class World:
    """A database with its images, and the model of both."""

    def __init__(
        self,
        database: Database,
        proxy: Proxy,
        forking: Forking,
        yoyo: Yoyo,
        folder: Path,
    ) -> None:
        self._database = database
        self._proxy = proxy
        self._forking = forking
        self._yoyo = yoyo
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        self._database.execute(EMPTY)
        self._images = [Image()]
        self._ids: list[str] = []
        self._state = State()
        self._depends: dict[str, str] = {}
        self._by_hand: Counter[str] = Counter()
        self._beside: dict[str, object] = {}
        self._revision = 0
        self._lay_out()

    def play(self, actions: Sequence[Action]) -> None:
        """Do *actions* on an empty database and check it after each; finally apply the rest."""
        self._begin()
        for number, action in enumerate((*actions, Up()), 1):
            try:
                self._do(action)
                self._check_status()
            except AssertionError as error:
                error.add_note(f"at action {number}: {action}")
                raise

    def _do(self, action: Action) -> None:
        match action:
            case Ship(new):
                self._ship(new)
            case Hook(kind, pieces, fails):
                self._put(File(HOOK, kind, pieces, fails=fails, revision=self._next_revision()))
            case GoBack(to):
                self._images.append(self._images[-1 - to % len(self._images)])
            case Edit(which, fails, unfit):
                files = [*self._image.files.values()]
                if files:
                    file = files[-1 - which % len(files)]
                    fails = fails if not file.is_hook else None
                    revision = self._next_revision()
                    self._put(file._replace(fails=fails, unfit=unfit, revision=revision))
            case Up():
                self._migrate(action)
            case Down():
                self._roll_back(action)
            case Yoyos(direction):
                self._let_yoyo(direction)
            case ByHands() | Beside():
                self._let_others(action)
        self._lay_out()

    # --- images ---

    @property
    def _image(self) -> Image:
        return self._images[-1]

    def _put(self, file: File) -> None:
        self._images.append(self._image.having(file))

    def _next_revision(self) -> int:
        self._revision += 1
        return self._revision

    def _ship(self, additions: Sequence[New]) -> None:
        for new in additions:
            id = f"{'early' if new.early else 'm'}_{len(self._ids) + 1:02}"
            known = [file.id for file in self._image.migrations]
            depends = ""
            if new.depends is not None and known:
                depends = known[-1 - new.depends % len(known)]
            self._ids.append(id)
            self._depends[id] = depends
            self._put(
                File(id, new.kind, new.pieces, depends, new.breaking, new.reversible, new.fails)
            )

    def _lay_out(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        write(self._folder, self._image.texts)

    def _id(self, place: int | None) -> str:
        return self._ids[-1 - place % len(self._ids)] if place is not None and self._ids else ""

    # --- runs ---

    def _migrate(self, up: Up) -> None:
        to = self._id(up.to)
        argv = ["migrate", f"--changed={up.changed}", f"--transaction={up.transaction}"]
        self._step(up.step)
        last_known = self._last_known()
        self._run(
            [*argv, *([f"--to={to}"] if to else [])],
            lambda state: Migrate(
                state,
                self._image,
                to=to,
                changed=up.changed,
                transaction=up.transaction,
                last_known=last_known,
            ),
            up.fault,
        )

    def _last_known(self) -> str:
        if not (self._image.migrations and "_initmig_migration" in self._database.tables()):
            return ""
        rows = self._database.query(
            "SELECT checksum FROM _initmig_migration WHERE migration_id = %s AND state = 'applied'",
            [self._image.migrations[-1].id],
        )
        return rows[0][0] if rows else ""

    def _roll_back(self, down: Down) -> None:
        self._step(down.step)
        to = "" if down.steps else self._id(down.to)
        how = f"--steps={down.steps}" if down.steps else f"--to={to}" if to else "--all"
        self._run(
            ["rollback", how, f"--changed={down.changed}"],
            lambda state: Rollback(
                state, self._image, steps=down.steps, to=to, changed=down.changed
            ),
            down.fault,
        )

    def _run(
        self, argv: Sequence[str], model: Callable[[State], Course], fault: Fault | None
    ) -> None:
        course = model(self._state)
        if course.is_noop:
            # a read-only session refuses even an empty transaction that writes
            assert self._call(argv, _read_only(self._database.url))[0] == course.code
        elif fault is None:
            code, said = self._call(argv, self._database.url)
            assert code == course.code, said
        elif self._call_with(fault, argv, course) == -signal.SIGKILL:
            found = observe(self._database)
            assert found in course.states, (found, course.states)
            self._state = found
            return
        self._state = course.now
        self._check()

    def _call(self, argv: Sequence[str], url: str) -> tuple[int, str]:
        # on a slow machine, the blocker query would add messages to the count
        patient = ["--lock-timeout=1m", "--wait-timeout=20s", "--log-level=error"]
        # the first image has no migrations
        patient.append("--allow-empty")
        done = self._forking.run(*argv, *patient, url=url, folder=self._folder)
        return done.code, done.err

    def _call_with(self, fault: Fault, argv: Sequence[str], course: Course) -> int:
        blow = Blow(self._proxy, fault.at)
        match fault.does, fault.answered:
            case "kill", False:
                blow.kill_before(self._forking)
            case "kill", True:
                blow.kill_after(self._forking)
            case "cut", False:
                blow.cut_before()
            case "cut", True:
                blow.cut_after()
        strike = self._proxy.before
        # the client does not wait for a farewell, and may already have exited
        self._proxy.before = lambda message: "forward" if message.type == "X" else strike(message)
        code, said = self._call(argv, self._proxy.url(self._database.name))
        self._proxy.before, self._proxy.after = lambda _: "forward", lambda _: None
        killed = blow.struck and fault.does == "kill"
        assert code == (-signal.SIGKILL if killed else course.code), said
        return code

    def _let_yoyo(self, direction: Literal["apply", "rollback"]) -> None:
        image, state = self._image, self._state
        touched = [
            file
            for file in (*image.migrations, *image.hooks)
            if file.is_hook or state.has(file.id) == (direction == "rollback")
        ]
        # a stock yoyo ignores half-applied migrations, leaves failed ones half done, and identifies
        # migrations by their hashes
        if (
            state.half_way
            or self._has_odd_hashes()
            or any(file.unfit for file in image.files.values())
            or any(file.fails for file in touched)
            or (
                direction == "rollback"
                and not all(
                    record.id in image.files and image.files[record.id].reversible
                    for record in state.applied
                )
            )
        ):
            return
        # the lock row of a killed run blocks only a stock yoyo
        assert self._call(["unlock"], self._database.url)[0] == 0
        argv = [direction] if direction == "apply" else [direction, "--all"]
        done = self._yoyo(*argv, database=self._database, folder=self._folder)
        assert done.code == 0, done.err
        self._state = StockYoyo(state, image, direction).now
        self._check()

    def _has_odd_hashes(self) -> bool:
        odd = f"SELECT FROM _yoyo_migration WHERE migration_hash <> {RIGHT_HASH}"
        return self._has_history() and self._database.query(odd) != []

    def _has_history(self) -> bool:
        return "_initmig_migration" in self._database.tables()

    # --- what others do ---

    def _let_others(self, action: ByHands | Beside) -> None:
        if not self._has_history():
            return
        match action:
            case ByHands(does, which):
                self._write_by_hand(does, which)
            case Beside(where):
                self._let_another_work(where)
        self._check()

    def _write_by_hand(self, does: Literal["apply", "remove", "again"], which: int) -> None:
        fit = [file for file in self._image.migrations if self._can_be_done_by_hand(does, file)]
        if not fit:
            return
        file = fit[-1 - which % len(fit)]
        insert = f"INSERT INTO _yoyo_migration VALUES ('{self._next_revision()}', '{file.id}', "
        if does == "again":
            self._database.execute(f"{insert}'2000-01-01')")
        elif does == "apply":
            for part in file.parts("apply"):
                self._database.execute(part.sql)
            self._database.execute(f"{insert}clock_timestamp() AT TIME ZONE 'UTC')")
            self._by_hand[file.id] += 1
            self._state = ByHand(self._state, file, "apply").now
        else:
            delete = f"DELETE FROM _yoyo_migration WHERE migration_id = '{file.id}'"
            self._database.execute(f"DROP TABLE {file.id}; {delete}")
            self._by_hand[file.id] -= 1
            self._state = ByHand(self._state, file, "rollback").now

    def _can_be_done_by_hand(self, does: Literal["apply", "remove", "again"], file: File) -> bool:
        """Whether a person who knows the state and the dependencies would do it."""
        applied = [record.id for record in self._state.applied]
        if file.id in self._state.half_way or (does == "apply") == (file.id in applied):
            return False
        if does == "apply":
            fails = file.unfit or (file.fails and file.fails.direction == "apply")
            return not fails and file.depends in ("", *applied)
        return does == "again" or file.id not in [self._depends[id] for id in applied]

    def _step(self, seconds: int) -> None:
        # rows without a position are ordered by the clock, as with yoyo
        if seconds and self._has_history() and self._database.query(NOT_NUMBERED) == []:
            # when the clock is set back, the existing rows get newer
            self._database.execute(STEP.format(by=f"interval '{-seconds} seconds'"))

    def _let_another_work(self, where: Literal["schema", "table"]) -> None:
        if not self._beside:
            write(self._folder.with_name("beside"), OTHER_APPLICATION)
            self._flags_beside = ["--schema=beside"]
            if where == "table":
                self._flags_beside = ["--history-table=app_b", "--history-schema=public"]
        else:
            self._database.execute("INSERT INTO beside.gate VALUES (1)")
            self._work_beside("migrate", code=0)
            self._work_beside("rollback", "--all", code=0)
            self._database.execute("TRUNCATE beside.gate")
        self._work_beside("migrate", code=1)
        self._beside = self._look_beside()

    def _work_beside(self, *argv: str, code: int) -> None:
        flags = [*self._flags_beside, "--lock-timeout=1m", "--wait-timeout=20s"]
        folder = self._folder.with_name("beside")
        done = self._forking.run(*argv, *flags, url=self._database.url, folder=folder)
        assert done.code == code, done.err

    def _look_beside(self) -> dict[str, object]:
        """All rows of the other application's tables."""
        tables = [f"beside.{name}" for name in self._database.tables("beside")]
        tables += [f"public.app_b{end}" for end in ("", "_initmig")]
        there = [name for name in tables if self._database.value("SELECT to_regclass(%s)", [name])]
        return {
            name: self._database.query(f"SELECT t::text FROM {name} t ORDER BY 1") for name in there
        }

    # --- invariants ---

    def _check(self) -> None:
        found = observe(self._database)
        assert found == self._state
        applied = [record.id for record in found.applied]
        half_undone = [id for id, half in found.half_way.items() if half.direction == "rollback"]
        if "_yoyo_migration" in self._database.tables():
            assert self._database.query(_HALF_UNDONE) == [(id,) for id in sorted(half_undone)]
        for id in self._ids:
            operations = [operation for operation, each in found.log if each == id]
            balance = operations.count("apply") - operations.count("rollback")
            assert balance + self._by_hand[id] == applied.count(id)
        assert not self._beside or self._look_beside() == self._beside
        for place, id in enumerate(applied):
            if depends := self._depends[id]:
                assert depends in applied[:place]
        if "yoyo_lock" in self._database.tables():
            assert self._database.query("SELECT pid FROM yoyo_lock WHERE pid > 0") == []

    def _check_status(self) -> None:
        said = StringIO()
        environ = {
            "DATABASE_URL": _read_only(self._database.url),
            "INITMIG_MIGRATIONS": str(self._folder),
        }
        with redirect_stdout(said), redirect_stderr(said):
            argv = ["status", "--json", "--log-level=error", "--allow-empty"]
            assert main(argv, environ) == 0, said.getvalue()
        rows = json.loads(said.getvalue())["migrations"]
        found = {row["id"]: (row["state"], row.get("parts_done")) for row in rows}
        assert found == statuses(self._state, self._image)


_HALF_UNDONE = """
SELECT replace(migration_id, 'rolling back ', '') FROM _yoyo_migration
WHERE migration_id LIKE 'rolling back %' ORDER BY 1"""


def _read_only(url: str) -> str:
    """*url* with the option that makes the server refuse writes."""
    return f"{url}{'&' if '?' in url else '?'}options=-c%20default_transaction_read_only%3Don"


@pytest.fixture
def world(database: Database, proxy: Proxy, forking: Forking, yoyo: Yoyo, folder: Path) -> World:
    return World(database, proxy, forking, yoyo, folder)


@pytest.mark.parametrize(
    "part", [1, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (2, 3, 4))]
)
def test_any_sequence_of_runs_leaves_every_migration_whole_and_recorded_once(
    world: World, part: int
) -> None:
    del part  # each part draws different examples

    @settings(settings.get_profile("faults"))
    @given(ships, st.lists(actions, min_size=6, max_size=12))
    def play(first: Ship, others: list[Action]) -> None:
        world.play([first, *others])

    play()


def test_so_does_one_with_a_stock_yoyo_in_between(world: World) -> None:
    @settings(settings.get_profile("beside yoyo"))
    @given(ships, st.lists(st.one_of(actions, yoyos), min_size=6, max_size=12))
    def play(first: Ship, others: list[Action]) -> None:
        world.play([first, *others])

    play()


# --- regressions ---

THREE = Ship((New("sql", ("row",)),) * 3)


@pytest.mark.parametrize("answered", [False, True])
def test_rollback_of_one_step_undoes_no_other_one_when_the_connection_is_cut(
    world: World, answered: bool
) -> None:
    for at in range(16, 24):
        world.play([THREE, Up(), Down(steps=1, fault=Fault("cut", at, answered))])


def test_up_to_an_applied_one_applies_nothing_whose_dependencies_are_pending(
    world: World,
) -> None:
    dependent = New("sql", ("row",), early=True, depends=0)
    world.play([THREE, Ship((dependent,)), Up(to=2), Up(to=2), Up(to=2), Up()])


def test_file_changed_half_way_and_allowed_is_gone_on_with_after_a_kill(world: World) -> None:
    new = New("piecewise sql", ("index", "row"), fails=Failure("apply", 2))
    for at in range(22, 38):
        world.play(
            [
                Ship((new,)),
                Up(),
                Edit(0),
                Up(changed="allow", fault=Fault("kill", at, answered=True)),
                Up(changed="allow"),
            ]
        )


@pytest.mark.parametrize("step", [-3600, -1, 1, 3600])
def test_rollback_undoes_the_last_one_whatever_the_clock_has_said_since(
    world: World, step: int
) -> None:
    more = Ship((New("sql", ("row",)),))
    world.play([THREE, Up(), more, Up(step=step), Down(steps=1), Up(step=-step), Down(steps=2)])


@pytest.mark.parametrize("where", ["schema", "table"])
def test_half_way_stays_half_way_while_another_application_applies_the_same_id(
    world: World, where: Literal["schema", "table"]
) -> None:
    new = New("piecewise sql", ("row", "row"), fails=Failure("apply", 3))
    go_on: list[Action] = [Edit(0), Up(changed="allow"), Down(steps=1)]
    world.play([THREE, Up(to=2), Ship((new,)), Up(), Beside(where), Beside(where), *go_on])


@pytest.mark.parametrize("kind", ["sql", "piecewise sql", "python", "piecewise python"])
def test_next_one_meets_nothing_of_what_the_one_before_left_in_the_session(
    world: World, kind: Kind
) -> None:
    leaving, using = New(kind, ("leftover", "leftover")), New(kind, ("leftover", "rows"))
    world.play([Ship((leaving, using)), Up(), Down(), Up()])


def test_rows_by_hand_are_as_good_as_any(world: World) -> None:
    twice, back = ByHands("again", 0), Down(steps=1)
    by_hand: list[Action] = [twice, back, ByHands("apply", 0), twice, back, Up()]
    world.play([THREE, Up(), *by_hand, ByHands("remove", 0), Up(), ByHands("remove", 1), Down()])
