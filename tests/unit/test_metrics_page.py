"""docs/reference/metrics.md lists exactly the metrics, labels and paths of `serve`."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from initmig.commands.serve.serve import State, after, answer, exposition
from initmig.core.events import HistoryRead

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
TEXT = PAGE.read_text()
READ = after(State(started=0.0), HistoryRead(applied=1, pending=(), unknown=0))
SAMPLES = [
    sample
    for family in text_string_to_metric_families(exposition(READ, 1.0).decode())
    for sample in family.samples
]


def first_cells(heading: str) -> list[str]:
    """The code in the first cell of each row below *heading*."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_page_has_each_metric_with_its_labels() -> None:
    documented = {re.sub(r'="[^"]*"', "", cell) for cell in first_cells("Metrics")}
    names = {
        sample.name + (f"{{{','.join(sample.labels)}}}" if sample.labels else "")
        for sample in SAMPLES
    }
    assert {cell for cell in documented if cell.startswith("initmig_")} == names


def test_page_has_each_value_of_a_label() -> None:
    values = {value for sample in SAMPLES for value in sample.labels.values()}
    assert len(values) > 5
    cells = first_cells("Metrics")
    assert {each for each in values if each not in cells and f'"{each}"' not in TEXT} == set()


def test_expressions_use_existing_metrics() -> None:
    used = {re.split(r"[{ ]", cell)[0] for cell in first_cells("Expressions")}
    assert used
    assert used <= {sample.name for sample in SAMPLES}


def test_page_has_each_path() -> None:
    paths = {*first_cells("Endpoints")}
    assert len(paths) == 3
    for path in paths:
        assert answer(path, READ, 1.0).status != HTTPStatus.NOT_FOUND
        assert path in answer("/", READ, 1.0).body.decode()
