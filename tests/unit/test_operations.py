"""docs/operations.md speaks of every error that the code can raise, and of every exit code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from initmig.usage import EXIT_CODES

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "operations.md").read_text()
ERRORS = {
    *("Bug", "ConfigError", "DatabaseRefused", "DatabaseUnavailable", "Finding", "LoginRefused"),
    *("MigrationFailed", "MigrationsPending", "PlanError", "Problem", "QueueTimeout"),
}


def words(node: ast.expr) -> str:
    """The text that *node* makes, with … for what differs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return "…"


def messages() -> list[str]:
    """What errors say, of all files; those that only pass on another one's words are left out."""
    found = {
        words(argument)
        for path in (PROJECT / "initmig").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS
        # a Finding of sql.py has its offset first
        for argument in node.args[1 if node.func.id == "Finding" else 0 :][:1]
    }
    return sorted(text for text in found if re.search("[a-z]", text))


def test_the_messages_are_found() -> None:
    assert len(messages()) > 60
    assert "… would release the migration lock" in messages()


@pytest.mark.parametrize("message", messages())
def test_each_message_stands_in_the_page(message: str) -> None:
    assert f"`{message}`" in PAGE or f"`` {message} ``" in PAGE


@pytest.mark.parametrize("code", [code for code, _ in EXIT_CODES if code])
def test_each_exit_code_has_a_section(code: int) -> None:
    assert re.search(rf"^### {code}\b", PAGE, re.MULTILINE)
