"""The table of commands names functions that exist, and one way to run each command."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from initmig.config.options import COMMANDS

FUNCTIONS = [
    (name, field, getattr(command, field))
    for name, command in COMMANDS.items()
    for field in ("run", "run_many", "show", "then", "text")
    if getattr(command, field)
]
PARAMETERS = {
    "run": 2,  # (config, emit)
    "run_many": 2,
    "show": 3,  # (result, config, screen)
    "then": 2,  # (config, environ)
    "text": 1,  # (operand)
}


@pytest.mark.parametrize(
    ("name", "field", "function"),
    FUNCTIONS,
    ids=[f"{name}-{field}" for name, field, _ in FUNCTIONS],
)
def test_named_function_exists_and_accepts_its_arguments(
    name: str, field: str, function: str
) -> None:
    del name
    module, _, attribute = function.partition(":")
    signature = inspect.signature(getattr(import_module(f"initmig.{module}"), attribute))
    signature.bind(*[None] * PARAMETERS[field])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_run_or_prints_a_text(name: str) -> None:
    command = COMMANDS[name]
    assert bool(command.run) != bool(command.text)
