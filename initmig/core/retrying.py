"""Retries with tenacity, which is imported only after a first attempt has failed.

The import takes as long as a complete run with nothing to do.
"""

from __future__ import annotations

from initmig.core.errors import InitmigError
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from tenacity import RetryCallState, Retrying

    _T = TypeVar("_T")


def retry(
    attempt: Callable[[], _T],
    is_retryable: Callable[[BaseException], bool],
    retrying: Callable[[], Retrying],
) -> _T:
    """Return the result of *attempt*. If it fails with a retryable error, use *retrying*.

    The failed attempt is the first attempt that tenacity counts.
    """
    failures = []
    try:
        return attempt()
    except Exception as error:
        if not is_retryable(error):
            raise
        failures.append(error)

    def failed_or_next_attempt() -> _T:
        if failures:
            raise failures.pop()
        return attempt()

    return retrying()(failed_or_next_attempt)


def error_of(state: RetryCallState) -> InitmigError:
    """The error of an attempt that failed, in a callback of tenacity."""
    error = state.outcome and state.outcome.exception()
    assert isinstance(error, InitmigError)  # noqa: S101 - no other error is retried
    return error
