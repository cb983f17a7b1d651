"""Two applications that keep one history, which each of them takes for its own."""

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


LOOKING = (("wait", "--wait-timeout=0"), ("status", "--check"))
COMMANDS = (("migrate",), *LOOKING)


def errors_of(result: Result) -> list[str]:
    return [event["error"] for event in result.events if event["event"] == "failed"]


def files(of: str, *ids: str) -> dict[str, str]:
    return {f"{id}.sql": f"CREATE TABLE {of}_{id} ();\n" for id in ids}


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
    ids=["the same ids", "two of three", "one of two", "one more", "some each"],
)
def test_an_id_that_is_used_twice_is_told_by_its_checksum(
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
    apart = "--history-table=ours"
    succeeded(run("migrate", apart, folder=folder))
    succeeded(run(*command, apart, folder=folder))
    assert {f"ours_{id}" for id in ours} <= database.tables()
    succeeded(run(*command, folder=other))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_single_id_may_also_be_an_edited_file(
    initmig: Initmig, database: Database, folder: Path, theirs: Path, command: tuple[str, ...]
) -> None:
    succeeded(initmig(url=database.url, folder=write(theirs, files("theirs", "m1"))))
    write(folder, files("ours", "m1"))
    result = succeeded(initmig(*command, url=database.url, folder=folder, env=JSON))
    told = [event["id"] for event in result.events if event["event"] == "changed"]
    if command[0] == "status":
        assert "changed" in result.out
    else:
        assert told == ["m1"]
    refused = initmig(*command, "--changed=fail", url=database.url, folder=folder, env=JSON)
    assert (refused.code, errors_of(refused)) == (6, ["changed"])


def test_status_shows_the_ids_and_says_what_they_mean(
    initmig: Initmig, database: Database, folder: Path, theirs: Path
) -> None:
    succeeded(initmig(url=database.url, folder=write(theirs, files("theirs", "m1", "m2"))))
    write(folder, files("ours", "m1", "m2"))
    result = succeeded(initmig("status", url=database.url, folder=folder, env=JSON))
    [told] = result.events
    assert told["event"] == "history_shared"
    assert "m1, m2" in told["reason"]
    assert "--history-table" in told["next_step"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_line_ends_of_another_system_are_no_other_application(
    initmig: Initmig, database: Database, folder: Path, command: tuple[str, ...]
) -> None:
    succeeded(initmig(url=database.url, folder=write(folder, files("ours", "m1", "m2"))))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    succeeded(initmig(*command, url=database.url, folder=folder))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_files_that_were_all_edited_can_be_allowed(
    initmig: Initmig, database: Database, folder: Path, command: tuple[str, ...]
) -> None:
    succeeded(initmig(url=database.url, folder=write(folder, files("ours", "m1", "m2"))))
    write(folder, files("edited", "m1", "m2"))
    assert initmig(*command, url=database.url, folder=folder).code == 6
    succeeded(initmig(*command, "--changed=allow", url=database.url, folder=folder))
