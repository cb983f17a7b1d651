"""Out of order, changed and unknown migrations are refused, logged or allowed, as configured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.command import JSON
from tests.support.migrations import write
from tests.support.processes import succeeded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result
    from tests.support.yoyo import Yoyo


def ids_of(result: Result, kind: str) -> list[str]:
    """The migration ids in events of this *kind*."""
    return [event["id"] for event in result.events if event["event"] == kind]


class Image:
    """initmig with a folder of migrations and one database."""

    def __init__(self, initmig: Initmig, database: Database, folder: Path) -> None:
        self._initmig = initmig
        self.database = database
        self.folder = folder

    def __call__(self, *arguments: str) -> Result:
        return self._initmig(*arguments, url=self.database.url, folder=self.folder, env=JSON)

    def add(self, *ids: str) -> None:
        """Write migrations that do nothing."""
        write(self.folder, {f"{id}.sql": "SELECT 1" for id in ids})

    def remove(self, *ids: str) -> None:
        for id in ids:
            (self.folder / f"{id}.sql").unlink()

    @property
    def applied(self) -> list[str]:
        rows = self.database.query(
            "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc"
        )
        return [id for (id,) in rows]

    def states(self) -> dict[str, str]:
        rows = json.loads(succeeded(self("status", "--json")).out)["migrations"]
        return {row["id"]: row["state"] for row in rows}


@pytest.fixture
def image(initmig: Initmig, database: Database, folder: Path) -> Image:
    return Image(initmig, database, folder)


# --- out of order ---


@pytest.fixture
def out_of_order(image: Image) -> Image:
    """0002 and 0004 are applied; 0001, 0003 and 0005 are pending."""
    image.add("0002", "0004")
    succeeded(image())
    image.add("0001", "0003", "0005")
    return image


def test_out_of_order_is_refused_before_anything_is_applied(out_of_order: Image) -> None:
    result = out_of_order("--out-of-order", "fail")
    assert result.code == 6
    failed = [event for event in result.events if event["event"] == "failed"]
    assert [event["message"] for event in failed] == [
        "0001 would be applied after 0004, which is already applied",
        "0003 would be applied after 0004, which is already applied",
    ]
    assert [event["error"] for event in failed] == ["out-of-order"] * 2
    assert "--out-of-order=allow" in failed[0]["next"]
    assert out_of_order.applied == ["0002", "0004"]


def test_out_of_order_is_applied_with_a_warning_by_default(out_of_order: Image) -> None:
    result = succeeded(out_of_order())
    assert ids_of(result, "out_of_order") == ["0001", "0003"]
    assert out_of_order.applied == ["0002", "0004", "0001", "0003", "0005"]


def test_out_of_order_can_be_allowed_without_a_warning(out_of_order: Image) -> None:
    result = succeeded(out_of_order("--out-of-order", "allow"))
    assert ids_of(result, "out_of_order") == []
    assert out_of_order.applied == ["0002", "0004", "0001", "0003", "0005"]


def test_order_is_checked_within_each_folder(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    app = write(tmp_path / "app", {"0009_app.sql": "SELECT 1"})
    base = write(tmp_path / "base", {})
    folders = f"{app},{base}"
    succeeded(initmig(url=database.url, folder=folders))
    write(base, {"0001_base.sql": "SELECT 1"})
    succeeded(initmig("--out-of-order", "fail", url=database.url, folder=folders))
    recorded = database.query("SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc")
    assert recorded == [("0009_app",), ("0001_base",)]


def test_migration_that_depends_on_an_applied_one_is_not_out_of_order(image: Image) -> None:
    write(
        image.folder,
        {
            "0001.sql": "-- depends: 0002\nSELECT 1",
            "0002.sql": "-- depends: 0003\nSELECT 1",
            "0003.sql": "SELECT 1",
        },
    )
    succeeded(image("--to", "0003", "--out-of-order", "fail"))
    assert image.applied == ["0003"]
    succeeded(image("--out-of-order", "fail"))
    assert image.applied == ["0003", "0002", "0001"]


def test_rerun_after_a_failure_is_not_out_of_order(image: Image) -> None:
    write(image.folder, {"0001.sql": "-- depends: 0002\nSELECT 1/0", "0002.sql": "SELECT 1"})
    assert image("--out-of-order", "fail").code == 1
    assert image.applied == ["0002"]
    write(image.folder, {"0001.sql": "-- depends: 0002\nSELECT 1/1"})
    succeeded(image("--out-of-order", "fail"))
    assert image.applied == ["0002", "0001"]


# --- changed ---


@pytest.fixture
def changed(image: Image) -> Image:
    """0001 and 0002 are applied, 0001 has changed since then, and 0003 is pending."""
    image.add("0001", "0002")
    succeeded(image())
    write(image.folder, {"0001.sql": "SELECT 2", "0003.sql": "SELECT 3"})
    return image


def test_changed_is_refused_before_anything_is_applied(changed: Image) -> None:
    result = changed("--changed", "fail")
    assert result.code == 6
    [failed] = [event for event in result.events if event["event"] == "failed"]
    assert failed["error"] == "changed"
    assert failed["message"] == f"0001 is applied, but {changed.folder}/0001.sql has changed since"
    assert "--changed=allow" in failed["next"]
    assert changed.applied == ["0001", "0002"]


def test_changed_is_refused_even_when_nothing_is_pending(changed: Image) -> None:
    changed.remove("0003")
    assert changed("--changed", "fail").code == 6
    assert succeeded(changed()).code == 0


def test_changed_is_a_warning_by_default(changed: Image) -> None:
    result = succeeded(changed())
    assert ids_of(result, "changed") == ["0001"]
    assert changed.applied == ["0001", "0002", "0003"]
    assert changed.states() == {"0001": "changed", "0002": "applied", "0003": "applied"}


def test_changed_can_be_allowed_without_a_warning(changed: Image) -> None:
    assert ids_of(succeeded(changed("--changed", "allow")), "changed") == []
    assert changed.applied == ["0001", "0002", "0003"]


def test_restored_file_no_longer_counts_as_changed(changed: Image) -> None:
    changed.add("0001")
    assert changed.states()["0001"] == "applied"
    succeeded(changed("--changed", "fail"))


def test_changed_rollback_file_does_not_count_as_changed(image: Image) -> None:
    image.add("0001")
    succeeded(image())
    write(image.folder, {"0001.rollback.sql": "SELECT 1"})
    assert image.states() == {"0001": "applied"}


def test_migration_applied_by_stock_yoyo_does_not_count_as_changed(
    image: Image, yoyo: Yoyo
) -> None:
    image.add("0001", "0002")
    succeeded(yoyo("apply", database=image.database, folder=image.folder))
    write(image.folder, {"0001.sql": "SELECT 2", "0003.sql": "SELECT 3"})
    assert ids_of(succeeded(image("--changed", "fail")), "changed") == []


def test_all_refused_migrations_are_named_together(changed: Image) -> None:
    write(changed.folder, {"0002.sql": "SELECT 22"})
    result = changed("--changed", "fail")
    failed = [event for event in result.events if event["event"] == "failed"]
    assert [event["error"] for event in failed] == ["id-used-twice", "changed", "changed"]
    assert "(0001, 0002)" in failed[0]["message"]
    assert [event["message"].split()[0] for event in failed[1:]] == ["0001", "0002"]


def test_wait_and_status_check_refuse_the_same_migrations_as_migrate(out_of_order: Image) -> None:
    (out_of_order.folder / "0004.sql").write_text("SELECT 2")
    expected = {
        "--out-of-order=fail": [
            "0001 would be applied after 0004, which is already applied",
            "0003 would be applied after 0004, which is already applied",
        ],
        "--changed=fail": [
            f"0004 is applied, but {out_of_order.folder}/0004.sql has changed since"
        ],
    }
    for flag, messages in expected.items():
        for command in (("migrate",), ("wait",), ("status", "--check")):
            result = out_of_order(*command, flag)
            assert result.code == 6, (command, flag)
            failed = [event for event in result.events if event["event"] == "failed"]
            assert [event["message"] for event in failed] == messages
    for policy in ("warn", "allow"):
        flags = (f"--out-of-order={policy}", f"--changed={policy}")
        assert out_of_order("wait", "--wait-timeout=0", *flags).code == 7
        assert out_of_order("status", "--check", *flags).code == 7


def test_status_marks_migrations_that_are_out_of_order(out_of_order: Image) -> None:
    table = succeeded(out_of_order("status")).out
    assert [line for line in table.splitlines() if "out of order" in line] == [
        "0001       pending, out of order (sorts before 0004)",
        "0003       pending, out of order (sorts before 0004)",
    ]
    rows = json.loads(succeeded(out_of_order("status", "--json")).out)["migrations"]
    assert {row["id"]: row["behind"] for row in rows if "behind" in row} == {
        "0001": "0004",
        "0003": "0004",
    }


def test_migration_with_a_dependency_on_a_later_id_is_not_out_of_order(image: Image) -> None:
    image.add("0002")
    succeeded(image())
    write(image.folder, {"0001.sql": "-- depends: 0002\nSELECT 1"})
    assert image("wait", "--wait-timeout=0", "--out-of-order=fail").code == 7
    assert image("status", "--check", "--out-of-order=fail").code == 7
    assert "out of order" not in succeeded(image("status")).out
    succeeded(image("--out-of-order=fail"))


def test_status_shows_out_of_order_files_that_cannot_be_read(out_of_order: Image) -> None:
    write(out_of_order.folder, {"0003.sql": "-- transactionel: false\nSELECT 1"})
    assert "(sorts before 0004)" in succeeded(out_of_order("status")).out
    assert out_of_order("wait", "--out-of-order=fail").code == 2


# --- an old image ---


def test_older_image_runs_on_a_newer_database_with_a_warning(image: Image) -> None:
    image.add("0001", "0002", "0003")
    succeeded(image())
    image.remove("0002", "0003")
    for command in ("migrate", "wait"):
        result = succeeded(image(command))
        [warning] = [event for event in result.events if event["event"] == "unknown_migrations"]
        assert (warning["ids"], warning["level"]) == (["0002", "0003"], "warning")
    assert image.states() == {"0001": "applied", "0002": "unknown", "0003": "unknown"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0002.sql", "-- breaking: true\nSELECT 1"),
        ("0002.py", "__breaking__ = True\nstep('SELECT 1')"),
        ("0002.sql", "-- transactional: false\n-- breaking: TRUE\nVACUUM _yoyo_log"),
    ],
    ids=["sql", "python", "not transactional"],
)
def test_image_without_an_applied_breaking_migration_is_refused(
    image: Image, name: str, text: str
) -> None:
    image.add("0001", "0003")
    write(image.folder, {name: text})
    succeeded(image())
    (image.folder / name).unlink()
    image.remove("0003")
    for command in (("migrate",), ("wait",), ("status", "--check")):
        result = image(*command)
        assert result.code == 6
        [failed] = [event for event in result.events if event["event"] == "failed"]
        assert failed["error"] == "image-too-old"
        assert failed["message"].endswith(": 0002")
    assert "0002       unknown, breaking  " in succeeded(image("status")).out
    image.add("0004")
    assert image().code == 6
    assert image.applied == ["0001", "0002", "0003"]


def test_rolled_back_breaking_migration_does_not_stop_an_older_image(image: Image) -> None:
    image.add("0001")
    write(
        image.folder, {"0002.sql": "-- breaking: true\nSELECT 1", "0002.rollback.sql": "SELECT 1"}
    )
    succeeded(image())
    succeeded(image("rollback", "--steps", "1"))
    image.remove("0002")
    (image.folder / "0002.rollback.sql").unlink()
    assert [event["event"] for event in succeeded(image()).events] == ["nothing_pending"]


def test_breaking_migration_of_this_image_causes_no_refusal(image: Image) -> None:
    write(image.folder, {"0001.sql": "-- breaking: true\nSELECT 1"})
    succeeded(image())
    assert [event["event"] for event in succeeded(image()).events] == ["nothing_pending"]


def test_older_image_runs_if_stock_yoyo_applied_the_breaking_migration(
    image: Image, yoyo: Yoyo
) -> None:
    image.add("0001")
    write(image.folder, {"0002.sql": "-- breaking: true\nSELECT 1"})
    succeeded(yoyo("apply", database=image.database, folder=image.folder))
    image.remove("0002")
    kinds = [event["event"] for event in succeeded(image()).events]
    assert kinds == ["unknown_migrations", "nothing_pending"]


# --- every policy, every command ---

RUNNING = {
    "migrate": ("migrate",),
    "plan": ("plan",),
    "rehearse": ("rehearse",),
    "baseline": ("baseline", "--to=0003"),
    "rollback": ("rollback", "--steps=1"),
}
READING = {"wait": ("wait", "--wait-timeout=0"), "status --check": ("status", "--check")}
COMMANDS = RUNNING | READING
ORDERING = ("migrate", "plan", "rehearse")
"""The commands that check the order. A baseline and a rollback apply nothing."""


def code_of(command: str) -> int:
    """The exit code if no policy refuses and migrations are pending."""
    return 7 if command in READING else 0


def errors_of(result: Result) -> list[str]:
    return [event["error"] for event in result.events if event["event"] == "failed"]


@pytest.fixture
def everything(image: Image) -> Image:
    """0001 (changed since then), 0002 and 0004 are applied; 0003 and 0005 are pending."""
    image.add("0001", "0002", "0004")
    write(image.folder, {f"000{n}.rollback.sql": "SELECT 1" for n in (1, 2, 4)})
    succeeded(image())
    write(image.folder, {"0001.sql": "SELECT 2", "0003.sql": "SELECT 3", "0005.sql": "SELECT 5"})
    return image


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_checks_for_changed_files(everything: Image, command: str) -> None:
    refused = everything(*COMMANDS[command], "--changed=fail")
    assert (refused.code, errors_of(refused)) == (6, ["changed"])
    assert everything.applied == ["0001", "0002", "0004"]
    warned = everything(*COMMANDS[command], "--changed=warn")
    assert warned.code == code_of(command)
    assert ids_of(warned, "changed") == (["0001"] if command in RUNNING else [])


@pytest.mark.parametrize("command", COMMANDS)
def test_changed_file_can_be_allowed_in_each_command(everything: Image, command: str) -> None:
    result = everything(*COMMANDS[command], "--changed=allow")
    assert (result.code, ids_of(result, "changed")) == (code_of(command), [])


@pytest.mark.parametrize(
    "command",
    [
        *(("migrate",), ("plan",), ("rehearse",), ("wait",), ("status", "--check")),
        ("baseline", "--to=0002"),
        ("rollback", "--to=0002"),
    ],
    ids=" ".join,
)
def test_changed_file_is_refused_if_there_is_nothing_to_do(
    changed: Image, command: tuple[str, ...]
) -> None:
    changed.remove("0003")
    refused = changed(*command, "--changed=fail")
    assert (refused.code, errors_of(refused)) == (6, ["changed"])
    for policy in ("warn", "allow"):
        result = succeeded(changed(*command, f"--changed={policy}"))
        assert ids_of(result, "changed") == []


@pytest.mark.parametrize("command", RUNNING)
def test_every_command_refuses_the_history_of_another_application(
    everything: Image, command: str
) -> None:
    write(everything.folder, {"0002.sql": "SELECT 22", "0004.sql": "SELECT 44"})
    result = everything(*COMMANDS[command])
    assert (result.code, errors_of(result)) == (6, ["id-used-twice"])
    assert everything.applied == ["0001", "0002", "0004"]
    succeeded(everything(*COMMANDS[command], "--changed=allow"))


@pytest.mark.parametrize("command", COMMANDS)
def test_order_is_checked_by_commands_that_apply_or_wait(everything: Image, command: str) -> None:
    result = everything(*COMMANDS[command], "--out-of-order=fail")
    if command in ORDERING or command in READING:
        assert (result.code, errors_of(result)) == (6, ["out-of-order"])
        warned = everything(*COMMANDS[command], "--out-of-order=warn")
        assert ids_of(warned, "out_of_order") == (["0003"] if command in ORDERING else [])
    else:
        assert (result.code, ids_of(result, "out_of_order")) == (0, [])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_an_image_that_is_too_old(everything: Image, command: str) -> None:
    everything.database.execute(
        "UPDATE _initmig_migration SET breaking = true WHERE migration_id = '0002'"
    )
    everything.remove("0002")
    (everything.folder / "0002.rollback.sql").unlink()
    result = everything(*COMMANDS[command])
    assert (result.code, errors_of(result)) == (6, ["image-too-old"])
    assert everything.applied == ["0001", "0002", "0004"]
    everything.database.execute("UPDATE _initmig_migration SET breaking = false")
    result = everything(*COMMANDS[command])
    assert result.code == code_of(command)
    unknown = [event["ids"] for event in result.events if event["event"] == "unknown_migrations"]
    assert unknown == ([["0002"]] if command in RUNNING else [])


def test_rollback_of_a_breaking_migration_needs_the_image_that_has_it(
    image: Image,
) -> None:
    image.add("0001")
    write(
        image.folder, {"0001.rollback.sql": "SELECT 1", "0002.sql": "-- breaking: true\nSELECT 1"}
    )
    succeeded(image())
    image.remove("0002")
    result = image("rollback", "--all")
    assert (result.code, errors_of(result)) == (6, ["unknown-migration"])
    assert image.applied == ["0001", "0002"]


@pytest.mark.parametrize("policy", ["fail", "warn", "allow"])
def test_rollback_follows_the_changed_policy(image: Image, policy: str) -> None:
    write(
        image.folder,
        {
            "0001_a.sql": "CREATE TABLE a ()",
            "0001_a.rollback.sql": "DROP TABLE a",
            "0002_b.py": "step('CREATE TABLE b ()', 'DROP TABLE b')",
        },
    )
    succeeded(image())
    write(image.folder, {"0002_b.py": "step('CREATE TABLE b (i int)', 'DROP TABLE b')"})
    result = image("rollback", "--all", f"--changed={policy}")
    if policy == "fail":
        assert (result.code, errors_of(result)) == (6, ["changed"])
        assert image.database.tables() >= {"a", "b"}
        assert image.applied == ["0001_a", "0002_b"]
    else:
        succeeded(result)
        assert ids_of(result, "changed") == (["0002_b"] if policy == "warn" else [])
        assert image.database.tables() & {"a", "b"} == set()


GOOSE = "-- +goose Up\nSELECT 1;\n-- +goose Down\nDROP TABLE a;\n"


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"0001_a.rollback.sql": GOOSE}, False),
        ({"0001_a.rollback.sql": GOOSE, "0002_b.rollback.sql": "-- +goose Down\nSELECT 1"}, False),
        ({"0001_a.rollback.sql": GOOSE, "0003_c.sql": "-- +goose Up\nSELECT 3"}, True),
    ],
    ids=["one", "two", "as applied"],
)
def test_rollback_file_of_another_tool_is_refused(
    image: Image, files: dict[str, str], allowed: bool
) -> None:
    write(
        image.folder,
        {
            "0001_a.sql": "CREATE TABLE a ()",
            "0002_b.sql": "SELECT 1",
            "0002_b.rollback.sql": "SELECT 1",
            "0003_c.sql": "SELECT 1",
            "0003_c.rollback.sql": "SELECT 1",
            **files,
        },
    )
    succeeded(image("--foreign=allow"))
    result = image("rollback", "--all")
    if not allowed:
        assert (result.code, errors_of(result)) == (2, ["foreign-folder"])
        assert f"{image.folder}/0001_a.rollback.sql" in result.err
        assert len(image.applied) == 3
        result = image("rollback", "--all", "--foreign=allow")
    succeeded(result)
    assert image.applied == []


def test_rollback_warns_of_ignored_files(image: Image) -> None:
    image.add("0001", "0002")
    write(image.folder, {"0002.rollback.sql": "SELECT 1", "0001.rollback.SQL": "SELECT 1"})
    succeeded(image())
    result = succeeded(image("rollback", "--steps=1"))
    [ignored] = [event["paths"] for event in result.events if event["event"] == "files_ignored"]
    assert ignored == [f"{image.folder}/0001.rollback.SQL"]
