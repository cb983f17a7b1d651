"""Fixtures for tests of the installed command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.command import Initmig

if TYPE_CHECKING:
    from tests.support.processes import Processes


@pytest.fixture
def initmig(processes: Processes) -> Initmig:
    """Runs the installed command, never a fork."""
    return Initmig(processes)
