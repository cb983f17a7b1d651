"""Pass the server's notices from libpq's callback to the log."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING
from initmig.core.signals import raise_deferred_stop

if TYPE_CHECKING:
    from collections.abc import Callable

    OnNotice = Callable[[str, str], None]
    """Called with the severity and the text of a notice."""

MAX_NOTICES = 1000
"""Limit for the notices of one message. The rest are counted."""

MAX_LENGTH = 10_000
"""In characters, for one notice."""


class Notices:
    """Collects notices in a callback, and passes them to *on_notice* later.

    The callback itself must not log: writing may block without a limit, and a signal would be lost.
    """

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._pending: list[tuple[str, str]] = []
        self._count = 0
        """Number of notices for the current message."""

    def add(self, severity: str, text: str) -> None:
        """Collect a notice inside the callback."""
        self._count += 1
        if self._count <= MAX_NOTICES:
            more = (
                f"... ({len(text) - MAX_LENGTH} more characters)" if len(text) > MAX_LENGTH else ""
            )
            self._pending.append((severity, text[:MAX_LENGTH] + more))

    def deliver(self) -> None:
        """Pass the collected notices to *on_notice*.

        :raises Stopped: a signal arrived during a callback
        """
        raise_deferred_stop()
        pending, self._pending = self._pending, []
        for severity, text in pending:
            self._on_notice(severity, text)

    def finish(self) -> None:
        """Pass on the rest and the number of omitted notices, because the answer is complete.

        :raises Stopped: as `deliver`
        """
        self.deliver()
        left_out, self._count = self._count - MAX_NOTICES, 0
        if left_out > 0:
            self._on_notice(
                "NOTICE", f"{left_out} more notices left out, after the first {MAX_NOTICES}"
            )
