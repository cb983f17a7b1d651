"""`unlock`: removes the lock row of a stock yoyo, or of an initmig that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initmig.commands.context import finished, with_session, without_files
from initmig.commands.result import Result
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.events import NotLocked, YoyoLockRemoved
from initmig.locking.lock import remove_yoyo_row

if TYPE_CHECKING:
    from initmig.config.config import Config
    from initmig.core.clock import Clock
    from initmig.core.events import Emit


def unlock(config: Config, emit: Emit, clock: Clock = SYSTEM_CLOCK) -> Result:
    """Remove the lock row of a stock yoyo, or of an initmig that has ended.

    The row of a running initmig is not removed.

    :raises InitmigError: the database cannot be read or written
    """
    run = without_files(config, emit, clock)

    def remove() -> Result:
        removed = [YoyoLockRemoved(*row) for row in with_session(run, remove_yoyo_row)]
        if not removed:
            return Result("not locked", (), run.seconds(), NotLocked())
        *others, last = removed
        for event in others:
            run.emit(event)
        return Result("unlocked", (), run.seconds(), last)

    return finished(run, remove)
