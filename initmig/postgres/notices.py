"""What the server says beside its answers, on its way from libpq's callback to the log."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING
from initmig.core.signals import raise_deferred_stop

if TYPE_CHECKING:
    from initmig.postgres.connection import OnNotice

MAX_NOTICES = 1000
"""So many notices of one message are told, and the rest is counted."""

MAX_LENGTH = 10_000
"""So many characters of a notice are told."""


class Notices:
    """Keeps what a callback gets until *on_notice* can have it.

    Not in the callback itself: writing to the log may take for ever there, and a signal be lost.
    """

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._pending: list[tuple[str, str]] = []
        self._count = 0
        """Of those that came with the answer to the message at work."""

    def add(self, severity: str, text: str) -> None:
        """Keep *severity* and *text* of a notice, in a callback."""
        self._count += 1
        if self._count <= MAX_NOTICES:
            more = (
                f"... ({len(text) - MAX_LENGTH} more characters)" if len(text) > MAX_LENGTH else ""
            )
            self._pending.append((severity, text[:MAX_LENGTH] + more))

    def deliver(self) -> None:
        """Hand on what was pending.

        :raises Stopped: a signal came inside of a callback
        """
        raise_deferred_stop()
        pending, self._pending = self._pending, []
        for severity, text in pending:
            self._on_notice(severity, text)

    def finish(self) -> None:
        """Hand on the rest, and how many are left out: the answer is complete.

        :raises Stopped: as from `tell`
        """
        self.deliver()
        left_out, self._count = self._count - MAX_NOTICES, 0
        if left_out > 0:
            self._on_notice(
                "NOTICE", f"{left_out} more notices left out, after the first {MAX_NOTICES}"
            )
