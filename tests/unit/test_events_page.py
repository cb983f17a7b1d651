"""docs/reference/events.md lists exactly the events, with levels, fields and their types."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from initmig.core import events
from initmig.core.events import ServerNotice
from initmig.core.records import Record
from tests.unit.test_logs import EVENTS, logged_json

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "events.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
FIELD = re.compile(r"`(\w+)` \((text|number|boolean|list of text|list of numbers)\)")
COMMON = ("time", "level", "event", "message")
TYPES = {
    str: "text",
    int: "number",
    float: "number",
    bool: "boolean",
    tuple[str, ...]: "list of text",
    tuple[int, ...]: "list of numbers",
}
SEVERITIES = ("WARNING", "NOTICE", "INFO", "LOG", "DEBUG")
RECORDS = {each for each in vars(events).values() if hasattr(each, "_fields")} - {Record}


def by_name(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def fields_of(kind: Any) -> dict[str, str]:
    """Each field and its type, in the words of the page."""
    if kind is events.Failed:
        [event] = [event for event in EVENTS if isinstance(event, kind)]
        return {
            name: TYPES[type(v)] for name, v in logged_json(event).items() if name not in COMMON
        }
    hints = get_type_hints(kind)
    return {name: TYPES[hints[name]] for name in kind._fields}


def levels_of(kind: type) -> set[str]:
    notices = [ServerNotice(severity, "x") for severity in SEVERITIES]
    found = notices if kind is ServerNotice else [each for each in EVENTS if type(each) is kind]
    return {logged_json(event)["level"] for event in found}


def examples() -> Iterator[dict[str, Any]]:
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        yield from map(json.loads, block.splitlines())


def test_page_lists_exactly_the_events_with_levels_and_fields() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == len(RECORDS) > 60
    documented = {
        event: (set(re.findall(r"\w+", level)) - {"or"}, dict(FIELD.findall(fields)))
        for event, level, _, fields in rows
    }
    assert documented == {by_name(kind): (levels_of(kind), fields_of(kind)) for kind in RECORDS}


def test_each_field_is_listed_once_with_its_type() -> None:
    for event, _, _, fields in ROW.findall(PAGE):
        names = [name for name, _ in FIELD.findall(fields)]
        assert len(names) == len(set(names)), event
        assert fields == "none" or names


def test_examples_match_the_log() -> None:
    """An example has the event's fields in the same order, and the message for its values."""
    kinds = {by_name(kind): kind for kind in RECORDS}
    shown = list(examples())
    assert len(shown) > 6
    for example in shown:
        kind: Any = kinds[example["event"]]
        if kind is events.Failed:
            [event] = [event for event in EVENTS if isinstance(event, kind)]
            assert list(example) == list(logged_json(event))
            continue
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in example.items()
            if name in kind._fields
        }
        assert logged_json(kind(**values)) | {"time": example["time"]} == example


def test_common_fields_are_in_every_event() -> None:
    section = PAGE.partition("## Fields of every event")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert named == ["time", "level", "target", "event", "message"]
    for event in EVENTS:
        assert [*COMMON] == [*logged_json(event)][: len(COMMON)]
