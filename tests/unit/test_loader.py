from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from initmig.core.errors import ConfigError
from initmig.core.events import LargeFileRead
from initmig.core.model import MigrationFile
from initmig.engine import load

if TYPE_CHECKING:
    from pathlib import Path

    from initmig.core.events import Event

SQL = "SELECT 1"
ALONE = f"-- transactional: false\n{SQL}"


def ignore(_: Event) -> None:
    pass


def file_of(folder: Path, id: str, text: str) -> MigrationFile:
    path = folder / "x.sql"
    path.write_text(text)
    return MigrationFile(id, str(path), "", str(folder))


@pytest.mark.parametrize(
    ("id", "text", "longest"),
    [
        ("x" * 256, SQL, 255),
        ("é" * 256, SQL, 255),
        ("x" * 243, ALONE, 242),
        ("🐘" * 243, ALONE, 242),
        ("post-apply".ljust(256, "x"), ALONE, 255),
    ],
    ids=["ascii", "letters", "alone", "elephants", "hook"],
)
def test_id_too_long_to_record_is_refused(tmp_path: Path, id: str, text: str, longest: int) -> None:
    with pytest.raises(ConfigError) as caught:
        load([file_of(tmp_path, id, text)], known=(), emit=ignore)
    [problem] = caught.value.problems
    assert problem.id == "id-too-long"
    assert f"has {len(id)} characters" in problem.message
    assert problem.message.endswith(f" {longest}")
    fits = file_of(tmp_path, id[:longest], text)
    assert [each.id for each in load([fits], known=(), emit=ignore)] == [fits.id]


@pytest.mark.parametrize("is_large", [True, False])
def test_reading_a_large_file_is_announced(tmp_path: Path, *, is_large: bool) -> None:
    emitted: list[Event] = []
    file = file_of(tmp_path, "a", f"{ALONE};".ljust(1_000_000 - (not is_large)))

    load([file], known=(), emit=emitted.append)

    assert emitted == ([LargeFileRead(file.path, 1_000_000)] if is_large else [])
