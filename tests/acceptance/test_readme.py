"""The README's examples, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.support.command import Initmig
    from tests.support.databases import Database

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, beginning: str) -> str:
    """The only code block in *language* that begins with *beginning*."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (found,) = [each for each in blocks if each.startswith(beginning)]
    return str(found)


def without_times(lines: str) -> list[str]:
    return [re.sub(r"^\d{4}-\S+Z ", "", line).rstrip() for line in lines.splitlines()]


def test_the_migrations_of_the_readme_apply_and_the_python_one_rolls_back(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_users.sql": block("sql", "-- Users sign in"),
            "0002_lower.py": block("python", "from yoyo import step"),
        },
    )
    assert initmig(url=database.url, folder=folder).code == 0
    assert database.tables() >= {"users"}
    assert initmig("rollback", "--steps", "1", url=database.url, folder=folder).code == 0
    assert database.query("SELECT attname FROM pg_attribute WHERE attname = 'note'") == []


def test_the_functions_of_the_readme_do_what_they_say(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": "DROP TABLE a"}
    write(tmp_path / "migrations", files)
    monkeypatch.chdir(tmp_path)
    functions: dict[str, Callable[[str], object]] = {}
    exec(block("python", "import initmig"), functions)
    assert functions["fresh_database"](database.url) == ("0001_a",)
    functions["empty_again"](database.url)
    assert "a" not in database.tables()


def test_what_verify_shows_is_what_it_says(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    write(
        tmp_path / "migrations",
        {
            "0001_users.sql": block("sql", "-- Users sign in"),
            "0002_phone.sql": "ALTER TABLE users ADD phone text;"
            " CREATE INDEX users_phone ON users (phone)",
            "0002_phone.rollback.sql": "SELECT 1",
            "0003_note.sql": "ALTER TABLE users ADD note text",
            "0003_note.rollback.sql": "ALTER TABLE users DROP note",
        },
    )
    result = initmig("verify", url=database.url, cwd=tmp_path)
    shown = block("console", "$ pip install 'initmig[verify]'").splitlines()
    assert shown[1] == "$ initmig verify"
    assert result.out.splitlines() == shown[2:]


def test_a_failing_migration_says_what_the_readme_shows(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    write(
        tmp_path / "migrations",
        {
            "0001_users.sql": block("sql", "-- Users sign in"),
            "0005_phone.sql": "ALTER TABLE users ADD COLUMN phone text;\n"
            "-- Until they tell us another one.\nUPDATE users SET phone = emial;\n",
        },
    )
    result = initmig(url=database.url, cwd=tmp_path)
    shown = block("console", "$ initmig\n").splitlines()
    assert shown[-2:] == ["$ echo $?", str(result.code)]
    assert without_times(result.err)[1:] == without_times("\n".join(shown[1:-2]))
