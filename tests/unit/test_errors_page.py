"""docs/reference/errors.md lists exactly the ids that the code can raise, and every exit code."""

from __future__ import annotations

import ast
import io
import json
import re
from pathlib import Path

import pytest

from initmig.cli.help import EXIT_CODES
from initmig.core.errors import Place, Problem
from initmig.core.events import Failed
from initmig.reporting.logs import Log

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "reference" / "errors.md").read_text()
TAKE_AN_ID = {
    *("ClientFailed", "ConfigError", "DatabaseRefused", "DatabaseUnavailable", "Finding"),
    *("LoginRefused", "NoAnswer", "UnexpectedAnswer", "OutcomeUnknown"),
    *("MigrationFailed", "MigrationsPending", "PlanError", "Problem", "QueueTimeout", "Refused"),
    *("StatementFailed", "EmptySecret", "kind", "_unknown", "__init__", "cls"),
}


def ids_in_code() -> set[str]:
    found: set[str] = set()
    for path in (PROJECT / "initmig").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in TAKE_AN_ID:
                found |= {
                    each.value
                    for argument in node.args[:1]
                    for each in ast.walk(argument)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
            if isinstance(node, ast.Assign | ast.AnnAssign) and _assigns_id(node):
                found |= {
                    each.value
                    for each in ast.walk(node.value or node)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return {text for text in found if re.fullmatch("[a-z]+(-[a-z0-9]+)+|changed|standby", text)}


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _assigns_id(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = {
        each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
    }
    return any(name == "id" or name.endswith("_ID") for name in names)


def ids_in_page() -> list[str]:
    first_cells = re.findall(r"^\| (`[^|]+) \|", PAGE, re.MULTILINE)
    return [id for cell in first_cells for id in re.findall(r"`([^`]+)`", cell)]


def test_page_lists_exactly_the_error_ids_in_the_code() -> None:
    assert len(ids_in_code()) > 60
    assert set(ids_in_page()) == ids_in_code()


def test_id_has_at_most_one_row_per_exit_code() -> None:
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
        ids = [id for cell in cells for id in re.findall(r"`([^`]+)`", cell)]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("code", [code for code, _ in EXIT_CODES if code])
def test_exit_code_has_a_section(code: int) -> None:
    assert re.search(rf"^## Exit codes? (\d+ and )?{code}\b", PAGE, re.MULTILINE)


def test_each_explanation_is_linked_from_the_row_of_its_id() -> None:
    explained = re.findall(r"^### ([a-z-]+)$", PAGE, re.MULTILINE)
    assert len(explained) > 10
    assert set(explained) == set(re.findall(r"\]\(#([a-z-]+)\)", PAGE))
    for row in re.findall(r"^\| `.*", PAGE, re.MULTILINE):
        for linked in re.findall(r"\]\(#([a-z-]+)\)", row):
            assert f"`{linked}`" in row.split(" | ")[0]


def test_table_cells_have_at_most_40_words() -> None:
    cells = [cell for row in re.findall(r"^\| .*", PAGE, re.MULTILINE) for cell in row.split(" | ")]
    assert [cell for cell in cells if len(cell.split()) > 40] == []


def test_json_example_has_the_fields_of_an_error() -> None:
    [example] = re.findall(r"^```json\n(.*)\n```$", PAGE, re.MULTILINE)
    stream = io.StringIO()
    Log("info", "json", stream)(Failed(Problem("id", "message", "hint", Place("path")), 1))
    assert json.loads(example).keys() == json.loads(stream.getvalue()).keys()
    explained = PAGE.partition("```json")[2].partition("## Exit code 1")[0]
    for field in json.loads(example).keys() - {"time", "level", "event"}:
        assert f"`{field}`" in explained
