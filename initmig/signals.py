"""SIGTERM and SIGINT end a run in order, also as process 1, which ignores them by default."""

from __future__ import annotations

from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from types import FrameType, TracebackType
else:
    # All but the enums of `signal`, for which enum and functools would be imported: a tenth of a
    # start with nothing to do.
    import _signal as signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_ORDERLY_END_SECONDS = 3.0
"""A server that is out of reach can neither cancel nor roll back when asked; it does so unasked."""


class Stopped(KeyboardInterrupt):
    """The first signal came in.

    A KeyboardInterrupt, because that is what makes psycopg cancel the running statement before
    it lets go: https://www.psycopg.org/psycopg3/docs/api/connections.html
    """

    def __init__(self, number: int) -> None:
        from signal import Signals

        super().__init__(Signals(number).name)
        self.exit_code = 128 + number


class stoppable:  # noqa: N801 - a context manager
    """Inside, the first signal raises Stopped; later ones do not disturb the orderly end.

    Where that end takes too long, Stopped is raised once more, through whatever it hangs in.
    """

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, _stop) for number in _SIGNALS}
        self._before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    def hurry(*_: object) -> None:
        raise Stopped(number)

    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, hurry)
    signal.setitimer(signal.ITIMER_REAL, _ORDERLY_END_SECONDS)
    raise Stopped(number)


class stop_wins:  # noqa: N801 - a context manager
    """An error that came up only while Stopped was on its way out does not take its place."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        cause = None if isinstance(error, KeyboardInterrupt) else error
        while cause is not None and not isinstance(cause, Stopped):
            cause = cause.__context__
        if cause is not None:
            raise cause from None


def restore_for_exec() -> None:
    """Give the program that replaces this one the signals as it would have got them."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these for itself
        signal.signal(number, signal.SIG_DFL)
