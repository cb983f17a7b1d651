"""Two applications that use the same history by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.command import JSON
from tests.support.migrations import write
from tests.support.processes import succeeded

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    from tests.support.command import Initmig
    from tests.support.databases import Database
    from tests.support.processes import Result

    class Run(Protocol):
        def __call__(self, *command: str, folder: Path) -> Result: ...


pytestmark = pytest.mark.any_version

READING = (("wait", "--wait-timeout=0"), ("status", "--check"))
COMMANDS = (("migrate",), *READING)


def errors_of(result: Result) -> list[str]:
    return [event["error"] for event in result.events if event["event"] == "failed"]


def files(application: str, *ids: str) -> dict[str, str]:
    return {f"{id}.sql": f"CREATE TABLE {application}_{id} ();\n" for id in ids}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return tmp_path / "theirs"


@pytest.fixture
def run(initmig: Initmig, database: Database) -> Run:
    return lambda *command, folder: initmig(*command, url=database.url, folder=folder, env=JSON)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "ids",
    [
        ("m1 m2", "m1 m2"),
        ("m1 m2 m3", "m1 m2"),
        ("m1 m2", "m1"),
        ("m1 m2", "m1 m2 m3"),
        ("m1 m3", "m1 m2"),
    ],
    ids=["the same ids", "two of three", "one of two", "one more", "one common id"],
)
def test_ids_used_by_both_applications_are_detected_by_checksum(
    run: Run, database: Database, tmp_path: Path, ids: tuple[str, str], command: tuple[str, ...]
) -> None:
    theirs, ours = (each.split() for each in ids)
    other = write(tmp_path / "theirs", files("theirs", *theirs))
    folder = write(tmp_path / "ours", files("ours", *ours))
    succeeded(run("migrate", folder=other))
    before = database.tables()
    result = run(*command, folder=folder)
    assert (result.code, errors_of(result)) == (6, ["id-used-twice"])
    assert database.tables() == before
    separate = "--history-table=ours"
    succeeded(run("migrate", separate, folder=folder))
    succeeded(run(*command, separate, folder=folder))
    assert {f"ours_{id}" for id in ours} <= database.tables()
    succeeded(run(*command, folder=other))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_single_common_id_counts_as_a_changed_file(
    initmig: Initmig, database: Database, folder: Path, theirs: Path, command: tuple[str, ...]
) -> None:
    succeeded(initmig(url=database.url, folder=write(theirs, files("theirs", "m1"))))
    write(folder, files("ours", "m1"))
    result = succeeded(initmig(*command, url=database.url, folder=folder, env=JSON))
    changed = [event["id"] for event in result.events if event["event"] == "changed"]
    if command[0] == "status":
        assert "changed" in result.out
    else:
        assert changed == ["m1"]
    refused = initmig(*command, "--changed=fail", url=database.url, folder=folder, env=JSON)
    assert (refused.code, errors_of(refused)) == (6, ["changed"])


def test_status_warns_of_a_shared_history_and_names_the_ids(
    initmig: Initmig, database: Database, folder: Path, theirs: Path
) -> None:
    succeeded(initmig(url=database.url, folder=write(theirs, files("theirs", "m1", "m2"))))
    write(folder, files("ours", "m1", "m2"))
    result = succeeded(initmig("status", url=database.url, folder=folder, env=JSON))
    [warning] = result.events
    assert warning["event"] == "history_shared"
    assert "m1, m2" in warning["reason"]
    assert "--history-table" in warning["next_step"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_different_line_endings_do_not_count_as_another_application(
    initmig: Initmig, database: Database, folder: Path, command: tuple[str, ...]
) -> None:
    succeeded(initmig(url=database.url, folder=write(folder, files("ours", "m1", "m2"))))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    succeeded(initmig(*command, url=database.url, folder=folder))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_changes_to_all_files_can_be_allowed(
    initmig: Initmig, database: Database, folder: Path, command: tuple[str, ...]
) -> None:
    succeeded(initmig(url=database.url, folder=write(folder, files("ours", "m1", "m2"))))
    write(folder, files("edited", "m1", "m2"))
    assert initmig(*command, url=database.url, folder=folder).code == 6
    succeeded(initmig(*command, "--changed=allow", url=database.url, folder=folder))
