"""Which texts contain the time or the id of a transaction."""

from __future__ import annotations

import re

import pytest

from initmig.commands.rehearse.shared_transaction import transaction_pattern

# 2026-11-30 20:41:37.129650+00 in transaction 754
PATTERN = transaction_pattern("37", "129650", "1796071297", "754")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-30 20:41:37.12965+00",
        "2026-12-01 02:11:37.12965",
        "at 2026-11-30 20:41:37.129650 UTC",
        '["2026-11-30 20:41:37.12965+00","2026-11-30 20:41:37.12965+00"]',
        "2026-11-30 20:41:37.13+00",
        "2026-11-30 20:41:37.129+00",
        "log_20261130204137129650",
        "log_20261130204137129",
        "log_20261130_204137_129650",
        "1796071297.129650",
        "1796071297129650",
        "1796071297129",
        "754",
        "1, 754",
    ],
)
def test_transaction_time_and_id_are_found(text: str) -> None:
    assert re.search(PATTERN, text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-30 20:41:37+00",
        "2026-11-30 20:41:37.5+00",
        "2026-11-30 20:40:47.12965+00",
        "2026-11-30 20:41:37.129651+00",
        "log_20261130204137",
        "log_20261130204137129651",
        "1796071297",
        "7540",
        "1754",
        "7",
        "",
    ],
)
def test_other_times_and_whole_seconds_are_not_found(text: str) -> None:
    assert not re.search(PATTERN, text)


def test_time_without_fraction_is_found_only_with_its_zeros() -> None:
    pattern = transaction_pattern("37", "000000", "1796071297", "754")
    assert re.search(pattern, "log_20261130204137000000")
    assert not re.search(pattern, "2026-11-30 20:41:37+00")
