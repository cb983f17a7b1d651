"""SIGTERM and SIGINT end a run in order, also as process 1, which ignores them by default."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """The first signal came in.

    A KeyboardInterrupt, because that is what makes psycopg cancel the running statement before
    it lets go: https://www.psycopg.org/psycopg3/docs/api/connections.html
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the first signal raises Stopped; later ones do not disturb the orderly end."""

    def stop(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restore_for_exec() -> None:
    """Give the program that replaces this one the signals as it would have got them."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these for itself
        signal.signal(number, signal.SIG_DFL)
