"""What the server says beside its answers, on its way from libpq's callback to the log."""

from __future__ import annotations

from initmig.records import TYPE_CHECKING
from initmig.signals import raise_deferred

if TYPE_CHECKING:
    from initmig.postgres.connection import OnNotice


class Notices:
    """Keeps what a callback gets until *on_notice* can have it.

    Not in the callback itself: writing to the log may take for ever there, and a signal be lost.
    """

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._kept: list[tuple[str, str]] = []

    def keep(self, severity: str, text: str) -> None:
        """Keep *severity* and *text* of a notice, in a callback."""
        self._kept.append((severity, text))

    def tell(self) -> None:
        """Hand on what was kept.

        :raises Stopped: a signal came inside of a callback
        """
        raise_deferred()
        kept, self._kept = self._kept, []
        for severity, text in kept:
            self._on_notice(severity, text)
