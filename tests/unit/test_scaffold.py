from pathlib import Path

import pytest

from initmig.core.errors import ConfigError
from initmig.migrations.files import list_files
from initmig.migrations.scaffold import write_migration
from tests.support.migrations import write

NOON = 1_700_000_000.0
"""2023-11-14 22:13:20 UTC"""


def test_new_sql_migration_has_a_utc_timestamp_and_a_rollback_file(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    paths = write_migration(str(folder), "Add E-Mail!", python=False, now=NOON)
    stem = f"{folder}/20231114221320_add_e_mail"
    assert paths == (f"{stem}.sql", f"{stem}.rollback.sql")
    [file] = list_files([str(folder)]).migrations
    assert (file.path, file.rollback_path) == paths


def test_new_python_migration_is_one_file(tmp_path: Path) -> None:
    [path] = write_migration(str(tmp_path), "x", python=True, now=NOON)
    assert path == f"{tmp_path}/20231114221320_x.py"
    compile(Path(path).read_text(), path, "exec")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "..", "a\nb", "x.rollback", "é a", "%s"]
)
def test_name_cannot_escape_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "migrations"
    try:
        write_migration(str(folder), name, python=False, now=NOON)
    except ConfigError:
        assert not folder.exists()
    else:
        assert len(list_files([str(folder)]).migrations) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"migrations"}


@pytest.mark.parametrize("name", ["", " ", "-", "///", "漢"])
def test_name_without_letters_or_digits_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no ASCII letter or digit") as caught:
        write_migration(str(tmp_path), name, python=False, now=NOON)
    assert caught.value.id == "invalid-name"
    assert "initmig new add_email" in caught.value.problems[0].hint
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path, {"20231114221320_x.sql": "SELECT 1"})
    with pytest.raises(ConfigError, match=r"cannot write .*_x\.sql: File exists"):
        write_migration(str(tmp_path), "x", python=False, now=NOON)
    assert (tmp_path / "20231114221320_x.sql").read_text() == "SELECT 1"
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_be_created_is_named_in_the_error(tmp_path: Path) -> None:
    write(tmp_path, {"file": ""})
    with pytest.raises(ConfigError, match=r"cannot write .*file.*: (Not a directory|File exists)"):
        write_migration(str(tmp_path / "file" / "x"), "x", python=False, now=NOON)


def test_name_that_is_too_long_is_refused_and_creates_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="File name too long"):
        # only the name of the rollback file is too long
        write_migration(str(tmp_path), "x" * 230, python=False, now=NOON)
    assert list(tmp_path.iterdir()) == []
