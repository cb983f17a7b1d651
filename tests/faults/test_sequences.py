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
from tests.support.fork_server import Interruption, KillableRuns
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
from tests.support.model_runs import (
    ManualChange,
    Migrate,
    ModelRun,
    Rollback,
    YoyoRun,
    expected_statuses,
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
DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS other_app CASCADE;
CREATE SCHEMA public; CREATE SCHEMA other_app; CREATE TABLE {RAN} (n int);
CREATE TABLE other_app.gate (n int)"""

# The effect of a stepped clock: the times of existing rows move by the same interval.
STEP = """
UPDATE _yoyo_migration SET applied_at_utc = applied_at_utc + {by};
UPDATE _yoyo_log SET created_at_utc = created_at_utc + {by};
UPDATE yoyo_lock SET ctime = ctime + {by};
UPDATE _initmig_migration SET started_at = started_at + {by}, finished_at = finished_at + {by},
    log_rows_at = log_rows_at + {by};"""

RIGHT_HASH = "encode(sha256(migration_id::bytea), 'hex')"

UNNUMBERED = f"""
SELECT FROM _yoyo_migration y LEFT JOIN _initmig_migration i USING (migration_id)
WHERE (i.position IS NULL OR i.finished_at <> y.applied_at_utc AT TIME ZONE 'UTC'
    OR migration_hash <> {RIGHT_HASH})
    AND migration_id NOT LIKE 'post-apply%' AND migration_id NOT LIKE 'rolling back %'"""
"""The rows that no writing run of initmig has seen yet."""


OTHER_APPLICATION = {
    **{f"m_0{n}.sql": f"CREATE TABLE other_app.m_0{n} (n int);" for n in range(1, 5)},
    **{f"m_0{n}.rollback.sql": f"DROP TABLE other_app.m_0{n};" for n in range(1, 6)},
    "m_05.sql": "-- transactional: false\nCREATE TABLE other_app.m_05 (n int);\n"
    "SELECT 1 / count(*) FROM other_app.gate;\n",
}
"""It has the same ids. While its gate is closed, its last migration is interrupted."""


class Fault(NamedTuple):
    """A fault of a run at one of its messages, if it sends that many."""

    does: Literal["kill", "cut"]
    at: int
    answered: bool


class NewMigration(NamedTuple):
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


class ShipImage(NamedTuple):
    """A newer image, made from the current one."""

    new: tuple[NewMigration, ...]


class Hook(NamedTuple):
    """A newer image with a hook, or with a different one."""

    kind: Literal["sql", "non-transactional sql"]
    pieces: tuple[Piece, ...]
    fails: Failure | None = None


class UseOldImage(NamedTuple):
    """An earlier image, counted from the last."""

    to: int


class Edit(NamedTuple):
    """A change of one of the image's files, counted from the last."""

    which: int
    fails: Failure | None = None
    invalid: bool = False


class Apply(NamedTuple):
    """`migrate`; *to* is the migration's place, counted from the last of all images."""

    to: int | None = None
    changed: Policy = "warn"
    transaction: Literal["each", "all"] = "each"
    fault: Fault | None = None
    step: int = 0
    """The seconds by which the server's clock is stepped before."""


class RollBack(NamedTuple):
    """`rollback`: a number of steps, or to a migration as in `Apply`, or everything."""

    steps: int = 0
    to: int | None = None
    changed: Policy = "warn"
    fault: Fault | None = None
    step: int = 0


class RunYoyo(NamedTuple):
    """A stock yoyo applies or rolls back everything."""

    direction: Literal["apply", "rollback"]


class EditRows(NamedTuple):
    """A person inserts or deletes a row of the history, and makes the same change by hand."""

    does: Literal["apply", "remove", "again"]
    """`again`: a second row of an applied migration, with another hash."""
    which: int


class OtherApplication(NamedTuple):
    """Another application with the same ids starts; if it exists, it migrates and rolls back.

    It has its own schema, or its own history table in our schema.
    """

    where: Literal["schema", "table"]


Action = (
    ShipImage | Hook | UseOldImage | Edit | Apply | RollBack | RunYoyo | EditRows | OtherApplication
)

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


new_migrations = st.builds(
    NewMigration,
    kind=st.sampled_from(
        [
            "sql",
            "non-transactional sql",
            "python",
            "non-transactional sql",
            "non-transactional python",
        ]
    ),
    pieces=pieces("row", "index", "rows", "vacuum", "function", "leftover"),
    early=rarely,
    depends=st.none() | few,
    breaking=rarely,
    reversible=rarely.map(lambda no: not no),
    fails=st.one_of(st.none(), st.none(), st.none(), failures),
)
shipped_images = st.builds(ShipImage, st.lists(new_migrations, min_size=1, max_size=3).map(tuple))
hooks = st.builds(
    Hook,
    st.sampled_from(["sql", "non-transactional sql"]),
    pieces("row", "vacuum", most=3),
    st.none() | st.builds(Failure, st.just("apply"), st.integers(1, 3)),
)
applies = st.builds(
    Apply,
    to=st.one_of(st.none(), st.none(), few),
    changed=policies,
    transaction=st.sampled_from(["each", "each", "each", "all"]),
    fault=faults,
    step=steps,
)
rollbacks = st.builds(
    RollBack,
    steps=st.integers(0, 3),
    to=st.none() | few,
    changed=policies,
    fault=faults,
    step=steps,
)
edits = st.builds(Edit, few, fails=st.none() | failures, invalid=rarely)
actions = st.one_of(
    shipped_images,
    applies,
    applies,
    applies,
    rollbacks,
    rollbacks,
    edits,
    st.builds(UseOldImage, few),
    hooks,
    st.builds(EditRows, st.sampled_from(["apply", "remove", "again"]), few),
    st.builds(OtherApplication, st.sampled_from(["schema", "table"])),
)
yoyo_runs = st.builds(RunYoyo, st.sampled_from(["apply", "rollback"]))


class World:
    """A database with its images, and the model of both."""

    def __init__(
        self,
        database: Database,
        proxy: Proxy,
        killable_runs: KillableRuns,
        yoyo: Yoyo,
        folder: Path,
    ) -> None:
        self._database = database
        self._proxy = proxy
        self._runs = killable_runs
        self._yoyo = yoyo
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        self._database.execute(EMPTY)
        self._images = [Image()]
        self._ids: list[str] = []
        self._state = State()
        self._depends: dict[str, str] = {}
        self._manual_changes: Counter[str] = Counter()
        self._other_rows: dict[str, object] = {}
        self._edit_number = 0
        self._write_files()

    def play(self, actions: Sequence[Action]) -> None:
        """Do *actions* on an empty database and check it after each; finally apply the rest."""
        self._begin()
        for number, action in enumerate((*actions, Apply()), 1):
            try:
                self._do(action)
                self._check_status()
            except AssertionError as error:
                error.add_note(f"at action {number}: {action}")
                raise

    def _do(self, action: Action) -> None:
        match action:
            case ShipImage(new):
                self._ship_image(new)
            case Hook(kind, pieces, fails):
                self._put(
                    File(HOOK, kind, pieces, fails=fails, edit_number=self._next_edit_number())
                )
            case UseOldImage(to):
                self._images.append(self._images[-1 - to % len(self._images)])
            case Edit(which, fails, invalid):
                files = [*self._image.files.values()]
                if files:
                    file = files[-1 - which % len(files)]
                    fails = fails if not file.is_hook else None
                    edit_number = self._next_edit_number()
                    self._put(file._replace(fails=fails, invalid=invalid, edit_number=edit_number))
            case Apply():
                self._migrate(action)
            case RollBack():
                self._roll_back(action)
            case RunYoyo(direction):
                self._run_yoyo(direction)
            case EditRows() | OtherApplication():
                self._act_outside(action)
        self._write_files()

    # --- images ---

    @property
    def _image(self) -> Image:
        return self._images[-1]

    def _put(self, file: File) -> None:
        self._images.append(self._image.having(file))

    def _next_edit_number(self) -> int:
        self._edit_number += 1
        return self._edit_number

    def _ship_image(self, additions: Sequence[NewMigration]) -> None:
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

    def _write_files(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        write(self._folder, self._image.texts)

    def _id(self, place: int | None) -> str:
        return self._ids[-1 - place % len(self._ids)] if place is not None and self._ids else ""

    # --- runs ---

    def _migrate(self, apply: Apply) -> None:
        to = self._id(apply.to)
        argv = ["migrate", f"--changed={apply.changed}", f"--transaction={apply.transaction}"]
        self._step(apply.step)
        last_known = self._last_known()
        self._run(
            [*argv, *([f"--to={to}"] if to else [])],
            lambda state: Migrate(
                state,
                self._image,
                to=to,
                changed=apply.changed,
                transaction=apply.transaction,
                last_known=last_known,
            ),
            apply.fault,
        )

    def _last_known(self) -> str:
        if not (self._image.migrations and "_initmig_migration" in self._database.tables()):
            return ""
        rows = self._database.query(
            "SELECT checksum FROM _initmig_migration WHERE migration_id = %s AND state = 'applied'",
            [self._image.migrations[-1].id],
        )
        return rows[0][0] if rows else ""

    def _roll_back(self, rollback: RollBack) -> None:
        self._step(rollback.step)
        to = "" if rollback.steps else self._id(rollback.to)
        how = f"--steps={rollback.steps}" if rollback.steps else f"--to={to}" if to else "--all"
        self._run(
            ["rollback", how, f"--changed={rollback.changed}"],
            lambda state: Rollback(
                state, self._image, steps=rollback.steps, to=to, changed=rollback.changed
            ),
            rollback.fault,
        )

    def _run(
        self, argv: Sequence[str], model: Callable[[State], ModelRun], fault: Fault | None
    ) -> None:
        model_run = model(self._state)
        if model_run.is_noop:
            # a read-only session refuses even an empty transaction that writes
            assert self._call(argv, _read_only(self._database.url))[0] == model_run.code
        elif fault is None:
            code, output = self._call(argv, self._database.url)
            assert code == model_run.code, output
        elif self._call_with(fault, argv, model_run) == -signal.SIGKILL:
            found = observe(self._database)
            assert found in model_run.states, (found, model_run.states)
            self._state = found
            return
        self._state = model_run.now
        self._check()

    def _call(self, argv: Sequence[str], url: str) -> tuple[int, str]:
        # on a slow machine, the blocker query would add messages to the count
        patient = ["--lock-timeout=1m", "--wait-timeout=20s", "--log-level=error"]
        # the first image has no migrations
        patient.append("--allow-empty")
        done = self._runs.run(*argv, *patient, url=url, folder=self._folder)
        return done.code, done.err

    def _call_with(self, fault: Fault, argv: Sequence[str], model_run: ModelRun) -> int:
        interruption = Interruption(self._proxy, fault.at)
        match fault.does, fault.answered:
            case "kill", False:
                interruption.kill_before(self._runs)
            case "kill", True:
                interruption.kill_after(self._runs)
            case "cut", False:
                interruption.cut_before()
            case "cut", True:
                interruption.cut_after()
        interrupt = self._proxy.before
        # the client does not wait for a farewell, and may already have exited
        self._proxy.before = lambda message: (
            "forward" if message.type == "X" else interrupt(message)
        )
        code, output = self._call(argv, self._proxy.url(self._database.name))
        self._proxy.before, self._proxy.after = lambda _: "forward", lambda _: None
        killed = interruption.happened and fault.does == "kill"
        assert code == (-signal.SIGKILL if killed else model_run.code), output
        return code

    def _run_yoyo(self, direction: Literal["apply", "rollback"]) -> None:
        image, state = self._image, self._state
        touched = [
            file
            for file in (*image.migrations, *image.hooks)
            if file.is_hook or state.has(file.id) == (direction == "rollback")
        ]
        # a stock yoyo ignores half-applied migrations, does not undo the parts of failed ones, and
        # identifies migrations by their hashes
        if (
            state.half_applied
            or self._has_odd_hashes()
            or any(file.invalid for file in image.files.values())
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
        self._state = YoyoRun(state, image, direction).now
        self._check()

    def _has_odd_hashes(self) -> bool:
        odd = f"SELECT FROM _yoyo_migration WHERE migration_hash <> {RIGHT_HASH}"
        return self._has_history() and self._database.query(odd) != []

    def _has_history(self) -> bool:
        return "_initmig_migration" in self._database.tables()

    # --- changes outside of initmig ---

    def _act_outside(self, action: EditRows | OtherApplication) -> None:
        if not self._has_history():
            return
        match action:
            case EditRows(does, which):
                self._edit_rows(does, which)
            case OtherApplication(where):
                self._run_other_application(where)
        self._check()

    def _edit_rows(self, does: Literal["apply", "remove", "again"], which: int) -> None:
        fit = [file for file in self._image.migrations if self._can_edit_rows(does, file)]
        if not fit:
            return
        file = fit[-1 - which % len(fit)]
        insert = f"INSERT INTO _yoyo_migration VALUES ('{self._next_edit_number()}', '{file.id}', "
        if does == "again":
            self._database.execute(f"{insert}'2000-01-01')")
        elif does == "apply":
            for part in file.parts("apply"):
                self._database.execute(part.sql)
            self._database.execute(f"{insert}clock_timestamp() AT TIME ZONE 'UTC')")
            self._manual_changes[file.id] += 1
            self._state = ManualChange(self._state, file, "apply").now
        else:
            delete = f"DELETE FROM _yoyo_migration WHERE migration_id = '{file.id}'"
            self._database.execute(f"DROP TABLE {file.id}; {delete}")
            self._manual_changes[file.id] -= 1
            self._state = ManualChange(self._state, file, "rollback").now

    def _can_edit_rows(self, does: Literal["apply", "remove", "again"], file: File) -> bool:
        """Whether a person who knows the state and the dependencies would do it."""
        applied = [record.id for record in self._state.applied]
        if file.id in self._state.half_applied or (does == "apply") == (file.id in applied):
            return False
        if does == "apply":
            fails = file.invalid or (file.fails and file.fails.direction == "apply")
            return not fails and file.depends in ("", *applied)
        return does == "again" or file.id not in [self._depends[id] for id in applied]

    def _step(self, seconds: int) -> None:
        # rows without a position are ordered by the clock, as with yoyo
        if seconds and self._has_history() and self._database.query(UNNUMBERED) == []:
            # when the clock is set back, the existing rows get newer
            self._database.execute(STEP.format(by=f"interval '{-seconds} seconds'"))

    def _run_other_application(self, where: Literal["schema", "table"]) -> None:
        if not self._other_rows:
            write(self._folder.with_name("other_app"), OTHER_APPLICATION)
            self._other_flags = ["--schema=other_app"]
            if where == "table":
                self._other_flags = ["--history-table=app_b", "--history-schema=public"]
        else:
            self._database.execute("INSERT INTO other_app.gate VALUES (1)")
            self._run_other("migrate", code=0)
            self._run_other("rollback", "--all", code=0)
            self._database.execute("TRUNCATE other_app.gate")
        self._run_other("migrate", code=1)
        self._other_rows = self._read_other_rows()

    def _run_other(self, *argv: str, code: int) -> None:
        flags = [*self._other_flags, "--lock-timeout=1m", "--wait-timeout=20s"]
        folder = self._folder.with_name("other_app")
        done = self._runs.run(*argv, *flags, url=self._database.url, folder=folder)
        assert done.code == code, done.err

    def _read_other_rows(self) -> dict[str, object]:
        """All rows of the other application's tables."""
        tables = [f"other_app.{name}" for name in self._database.tables("other_app")]
        tables += [f"public.app_b{end}" for end in ("", "_initmig")]
        existing = [
            name for name in tables if self._database.value("SELECT to_regclass(%s)", [name])
        ]
        return {
            name: self._database.query(f"SELECT t::text FROM {name} t ORDER BY 1")
            for name in existing
        }

    # --- invariants ---

    def _check(self) -> None:
        found = observe(self._database)
        assert found == self._state
        applied = [record.id for record in found.applied]
        half_rolled_back = [
            id for id, progress in found.half_applied.items() if progress.direction == "rollback"
        ]
        if "_yoyo_migration" in self._database.tables():
            assert self._database.query(_HALF_ROLLED_BACK) == [
                (id,) for id in sorted(half_rolled_back)
            ]
        for id in self._ids:
            operations = [operation for operation, each in found.log if each == id]
            balance = operations.count("apply") - operations.count("rollback")
            assert balance + self._manual_changes[id] == applied.count(id)
        assert not self._other_rows or self._read_other_rows() == self._other_rows
        for place, id in enumerate(applied):
            if depends := self._depends[id]:
                assert depends in applied[:place]
        if "yoyo_lock" in self._database.tables():
            assert self._database.query("SELECT pid FROM yoyo_lock WHERE pid > 0") == []

    def _check_status(self) -> None:
        output = StringIO()
        environ = {
            "DATABASE_URL": _read_only(self._database.url),
            "INITMIG_MIGRATIONS": str(self._folder),
        }
        with redirect_stdout(output), redirect_stderr(output):
            argv = ["status", "--json", "--log-level=error", "--allow-empty"]
            assert main(argv, environ) == 0, output.getvalue()
        rows = json.loads(output.getvalue())["migrations"]
        found = {row["id"]: (row["state"], row.get("parts_done")) for row in rows}
        assert found == expected_statuses(self._state, self._image)


_HALF_ROLLED_BACK = """
SELECT replace(migration_id, 'rolling back ', '') FROM _yoyo_migration
WHERE migration_id LIKE 'rolling back %' ORDER BY 1"""


def _read_only(url: str) -> str:
    """*url* with the option that makes the server refuse writes."""
    return f"{url}{'&' if '?' in url else '?'}options=-c%20default_transaction_read_only%3Don"


@pytest.fixture
def world(
    database: Database, proxy: Proxy, killable_runs: KillableRuns, yoyo: Yoyo, folder: Path
) -> World:
    return World(database, proxy, killable_runs, yoyo, folder)


@pytest.mark.parametrize("part", range(1, 9))
def test_any_sequence_of_runs_leaves_every_migration_whole_and_recorded_once(
    world: World, part: int
) -> None:
    del part  # each part draws different examples

    @settings(settings.get_profile("faults"))
    @given(shipped_images, st.lists(actions, min_size=6, max_size=12))
    def play(first: ShipImage, others: list[Action]) -> None:
        world.play([first, *others])

    play()


def test_any_sequence_with_a_stock_yoyo_leaves_every_migration_whole_and_recorded_once(
    world: World,
) -> None:
    @settings(settings.get_profile("beside yoyo"))
    @given(shipped_images, st.lists(st.one_of(actions, yoyo_runs), min_size=6, max_size=12))
    def play(first: ShipImage, others: list[Action]) -> None:
        world.play([first, *others])

    play()


# --- regressions ---

THREE_MIGRATIONS = ShipImage((NewMigration("sql", ("row",)),) * 3)


@pytest.mark.parametrize("answered", [False, True])
def test_rollback_of_one_step_undoes_only_one_migration_when_the_connection_is_cut(
    world: World, answered: bool
) -> None:
    for at in range(16, 24):
        world.play([THREE_MIGRATIONS, Apply(), RollBack(steps=1, fault=Fault("cut", at, answered))])


def test_migrate_to_an_applied_migration_skips_those_with_pending_dependencies(
    world: World,
) -> None:
    dependent = NewMigration("sql", ("row",), early=True, depends=0)
    world.play(
        [THREE_MIGRATIONS, ShipImage((dependent,)), Apply(to=2), Apply(to=2), Apply(to=2), Apply()]
    )


def test_changed_half_applied_migration_that_was_allowed_is_resumed_after_a_kill(
    world: World,
) -> None:
    new = NewMigration("non-transactional sql", ("index", "row"), fails=Failure("apply", 2))
    for at in range(22, 38):
        world.play(
            [
                ShipImage((new,)),
                Apply(),
                Edit(0),
                Apply(changed="allow", fault=Fault("kill", at, answered=True)),
                Apply(changed="allow"),
            ]
        )


@pytest.mark.parametrize("step", [-3600, -1, 1, 3600])
def test_rollback_undoes_the_last_migration_after_the_clock_was_stepped(
    world: World, step: int
) -> None:
    more = ShipImage((NewMigration("sql", ("row",)),))
    world.play(
        [
            THREE_MIGRATIONS,
            Apply(),
            more,
            Apply(step=step),
            RollBack(steps=1),
            Apply(step=-step),
            RollBack(steps=2),
        ]
    )


@pytest.mark.parametrize("where", ["schema", "table"])
def test_migration_stays_half_applied_while_another_application_applies_the_same_id(
    world: World, where: Literal["schema", "table"]
) -> None:
    new = NewMigration("non-transactional sql", ("row", "row"), fails=Failure("apply", 3))
    resume: list[Action] = [Edit(0), Apply(changed="allow"), RollBack(steps=1)]
    world.play(
        [
            THREE_MIGRATIONS,
            Apply(to=2),
            ShipImage((new,)),
            Apply(),
            OtherApplication(where),
            OtherApplication(where),
            *resume,
        ]
    )


@pytest.mark.parametrize(
    "kind", ["sql", "non-transactional sql", "python", "non-transactional python"]
)
def test_leftovers_of_a_migration_in_the_session_do_not_affect_the_next(
    world: World, kind: Kind
) -> None:
    leaving, using = (
        NewMigration(kind, ("leftover", "leftover")),
        NewMigration(kind, ("leftover", "rows")),
    )
    world.play([ShipImage((leaving, using)), Apply(), RollBack(), Apply()])


def test_manual_rows_are_treated_like_rows_of_initmig(world: World) -> None:
    twice, back = EditRows("again", 0), RollBack(steps=1)
    by_hand: list[Action] = [twice, back, EditRows("apply", 0), twice, back, Apply()]
    world.play(
        [
            THREE_MIGRATIONS,
            Apply(),
            *by_hand,
            EditRows("remove", 0),
            Apply(),
            EditRows("remove", 1),
            RollBack(),
        ]
    )
