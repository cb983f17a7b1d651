"""The examples in the README and in the pages for newcomers run unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.support.migrations import write

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.support.command import Initmig
    from tests.support.databases import Database

ROOT = Path(__file__).parents[2]
WRITE = "docs/how-to/write-migrations.md"


def block(page: str, language: str, beginning: str) -> str:
    """The only code block of *page* in *language* that begins with *beginning*."""
    text = (ROOT / page).read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    (block,) = [b for b in (dedent(lines) for _, lines in found) if b.startswith(beginning)]
    return block


def without_times(lines: str) -> list[str]:
    return [re.sub(r"^\d{4}-\S+Z ", "", line).rstrip() for line in lines.splitlines()]


def test_documented_migrations_apply_and_roll_back(
    initmig: Initmig, database: Database, folder: Path
) -> None:
    write(
        folder,
        {
            "0001_users.sql": block(WRITE, "sql", "-- Users sign in"),
            "0001_users.rollback.sql": block(WRITE, "sql", "DROP TABLE users"),
            "0002_lower.py": block(WRITE, "python", "from yoyo import step"),
        },
    )
    assert initmig(url=database.url, folder=folder).code == 0
    assert database.tables() >= {"users"}
    assert initmig("rollback", "--steps", "1", url=database.url, folder=folder).code == 0
    assert database.query("SELECT attname FROM pg_attribute WHERE attname = 'note'") == []
    assert initmig("rollback", "--all", url=database.url, folder=folder).code == 0
    assert "users" not in database.tables()


def test_verify_accepts_the_documented_migrations(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    write(
        tmp_path / "migrations",
        {
            "0001_users.sql": block(WRITE, "sql", "-- Users sign in"),
            "0001_users.rollback.sql": block(WRITE, "sql", "DROP TABLE users"),
            "0002_lower.py": block(WRITE, "python", "from yoyo import step"),
        },
    )
    result = initmig("verify", url=database.url, cwd=tmp_path)
    shown = [
        line
        for line in block(WRITE, "console", "$ initmig plan").splitlines()
        if not line.startswith("$ ")
    ]
    assert len(shown) == len(result.out.splitlines()) == 3
    for line, expected in zip(result.out.splitlines(), shown, strict=True):
        assert line.split()[-1] == expected.split()[-1] == "ok"
        assert line.split()[0].startswith(expected.split(",")[0].split()[0])


def test_verify_prints_the_output_on_its_page(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    write(
        tmp_path / "migrations",
        {
            "0001_users.sql": block(WRITE, "sql", "-- Users sign in"),
            "0002_phone.sql": "ALTER TABLE users ADD phone text;"
            " CREATE INDEX users_phone ON users (phone)",
            "0002_phone.rollback.sql": "SELECT 1",
            "0003_note.sql": "ALTER TABLE users ADD note text",
            "0003_note.rollback.sql": "ALTER TABLE users DROP note",
        },
    )
    shown = block("docs/how-to/verify.md", "console", "$ initmig verify\n").splitlines()
    command = shown[0].removeprefix("$ initmig ").split()
    assert initmig(*command, url=database.url, cwd=tmp_path).out.splitlines() == shown[1:]


def test_documented_library_functions_migrate_and_roll_back(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"0001_a.sql": "CREATE TABLE a ()", "0001_a.rollback.sql": "DROP TABLE a"}
    write(tmp_path / "migrations", files)
    monkeypatch.chdir(tmp_path)
    functions: dict[str, Callable[[str], object]] = {}
    exec(block("docs/reference/library.md", "python", "import initmig"), functions)
    assert functions["fresh_database"](database.url) == ("0001_a",)
    functions["empty_again"](database.url)
    assert "a" not in database.tables()


def test_quickstart_is_five_commands_that_work(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    shown = block("README.md", "console", "$ export DATABASE_URL=").splitlines()
    commands = [line.removeprefix("$ ").split("#")[0].split() for line in shown]
    assert len(commands) == 5
    assert [words[0] for words in commands] == [
        "export",
        "initmig",
        "${EDITOR:-vi}",
        *["initmig"] * 2,
    ]
    for _, *arguments in [words for words in commands if words[0] == "initmig"]:
        result = initmig(*arguments, url=database.url, cwd=tmp_path)
        assert result.code == 0, result.err
        if arguments[:1] == ["new"]:  # the next command is the editor
            down, up = re.findall(r"(?:CREATE|DROP) TABLE users[^;]*;", shown[2])
            for file in (tmp_path / "migrations").iterdir():
                file.write_text(down if "rollback" in file.name else up.replace("…", "id int"))
    assert "users" in database.tables()
    assert initmig("rollback", "--steps", "1", url=database.url, cwd=tmp_path).code == 0
    assert "users" not in database.tables()


def test_failing_migration_prints_the_output_on_the_page(
    initmig: Initmig, database: Database, tmp_path: Path
) -> None:
    write(
        tmp_path / "migrations",
        {
            "0001_users.sql": block(WRITE, "sql", "-- Users sign in"),
            "0005_phone.sql": "ALTER TABLE users ADD COLUMN phone text;\n"
            "-- Until they tell us another one.\nUPDATE users SET phone = emial;\n",
        },
    )
    result = initmig(url=database.url, cwd=tmp_path)
    shown = block(WRITE, "console", "$ initmig\n").splitlines()
    assert shown[-2:] == ["$ echo $?", str(result.code)]
    logged, expected = without_times(result.err)[1:], without_times("\n".join(shown[1:-2]))
    assert logged[:-1] == expected[:-1]
    assert logged[-1].startswith("  next: ") and expected[-1].startswith("  next: ")  # noqa: PT018
