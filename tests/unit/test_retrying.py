"""Retries use tenacity, but an attempt that succeeds or fails for good does not import it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from initmig.core.errors import ConfigError, DatabaseUnavailable, InitmigError
from initmig.core.retrying import error_of, retry

if TYPE_CHECKING:
    from collections.abc import Callable

IMPORTED = """
import sys
from initmig.core.errors import InitmigError
from initmig.core.retrying import retry

def attempt():
    if {fails}:
        raise InitmigError("an-id", "a message")

def retrying():
    from tenacity import Retrying, stop_after_attempt
    return Retrying(stop=stop_after_attempt(1), reraise=True)

try:
    retry(attempt, lambda _: {retryable}, retrying)
except InitmigError:
    pass
print("tenacity" in sys.modules)
"""


@pytest.mark.parametrize(
    ("fails", "retryable", "imported"),
    [(False, True, False), (True, False, False), (True, True, True)],
)
def test_tenacity_is_imported_only_after_a_failure_that_is_worth_a_retry(
    *, fails: bool, retryable: bool, imported: bool
) -> None:
    script = IMPORTED.format(fails=fails, retryable=retryable)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == str(imported)


class Attempts:
    """Attempts that fail with *errors*, one after the other, and then succeed."""

    def __init__(self, *errors: InitmigError) -> None:
        self.count = 0
        self.reported: list[tuple[int, InitmigError]] = []
        self._errors = iter(errors)

    def __call__(self) -> int:
        self.count += 1
        if error := next(self._errors, None):
            raise error
        return self.count

    def retrying(self, most: int) -> Callable[[], Retrying]:
        """The policy: at most *most* attempts, each failure reported, no pause."""
        return lambda: Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            stop=stop_after_attempt(most),
            before_sleep=lambda state: self.reported.append(
                (state.attempt_number, error_of(state))
            ),
            reraise=True,
        )


def is_unavailable(error: BaseException) -> bool:
    return isinstance(error, DatabaseUnavailable)


DOWN = DatabaseUnavailable("down", "down")
STILL_DOWN = DatabaseUnavailable("still-down", "still down")
WRONG = ConfigError("wrong", "wrong")


def test_first_failure_is_the_first_attempt_of_tenacity() -> None:
    attempts = Attempts(DOWN, STILL_DOWN)
    assert retry(attempts, is_unavailable, attempts.retrying(3)) == 3
    assert attempts.reported == [(1, DOWN), (2, STILL_DOWN)]


def test_last_error_is_raised_after_the_last_attempt() -> None:
    attempts = Attempts(DOWN, STILL_DOWN)
    with pytest.raises(DatabaseUnavailable) as raised:
        retry(attempts, is_unavailable, attempts.retrying(2))
    assert raised.value is STILL_DOWN
    assert attempts.count == 2
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


@pytest.mark.parametrize("before", [(), (DOWN,)])
def test_other_errors_end_the_retries(before: tuple[InitmigError, ...]) -> None:
    attempts = Attempts(*before, WRONG)
    with pytest.raises(ConfigError):
        retry(attempts, is_unavailable, attempts.retrying(9))
    assert attempts.count == len(before) + 1
