"""The README is the specification: its tables say what the code says, its examples run."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_first_screen_shows_the_two_commands() -> None:
    first_screen = README.splitlines()[:24]
    assert any(line.startswith("$ make run") for line in first_screen)
    assert any(line.startswith("$ make test") for line in first_screen)
