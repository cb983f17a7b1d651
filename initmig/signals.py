"""SIGTERM and SIGINT end a run in order, also as process 1, which ignores them by default."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_ORDERLY_END_SECONDS = 3.0
"""A server that is out of reach can neither cancel nor roll back when asked; it does so unasked."""


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
    """Inside, the first signal raises Stopped; later ones do not disturb the orderly end.

    Where that end takes too long, Stopped is raised once more, through whatever it hangs in.
    """

    def stop(number: int, _: FrameType | None) -> None:
        def hurry(*_: object) -> None:
            raise Stopped(number)

        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, hurry)
        signal.setitimer(signal.ITIMER_REAL, _ORDERLY_END_SECONDS)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_wins() -> Iterator[None]:
    """An error that came up only while Stopped was on its way out does not take its place."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, Stopped):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from None


def restore_for_exec() -> None:
    """Give the program that replaces this one the signals as it would have got them."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these for itself
        signal.signal(number, signal.SIG_DFL)
