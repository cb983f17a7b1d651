"""SIGTERM and SIGINT end a run in order, also as process 1, which ignores them by default."""

from __future__ import annotations

import os
from _thread import LockType, allocate_lock, get_ident, start_new_thread
from errno import EMFILE
from select import POLLIN, poll
from time import monotonic

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import CodeType, FrameType, TracebackType
    from typing import Any, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])
else:
    # All but the enums of `signal`, for which enum and functools would be imported: a tenth of a
    # start with nothing to do.
    import _signal as signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_CLEAN_EXIT_SECONDS = 2.5
"""A server that is out of reach can neither cancel nor roll back when asked; it does so unasked."""
_FORCED_EXIT_SECONDS = 3.5
"""For what no exception gets through: a name server that is silent, code that catches them all."""
_LAST_MESSAGE_SECONDS = 0.5
_SPARE_DESCRIPTORS = 16
_CALLBACK_SECONDS = 0.01


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

    If that end takes too long, Stopped is raised again, through whatever it hangs in. If Python
    never gets to raise it, or a migration catches it, the process still ends, after *last_message*.
    """

    def __init__(self, last_message: Callable[[Stopped], object] = lambda _: None) -> None:
        self._last_message = last_message

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, _stop) for number in _SIGNALS}
        self._before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
        self._wakeup_fd_before = -1
        self._pipe: tuple[int, ...] = ()
        _entered.append(self)
        try:
            self._start_watchdog()
        except (OSError, RuntimeError):  # no file descriptor, no thread: Stopped has to be enough
            self._stop_watchdog()

    def _start_watchdog(self) -> None:
        self._pipe = read_end, write_end = os.pipe()
        if write_end + _SPARE_DESCRIPTORS > os.sysconf("SC_OPEN_MAX"):
            raise OSError(EMFILE, "the rest is for connections")
        os.set_blocking(write_end, False)
        self._wakeup_fd_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._watchdog_done = allocate_lock()
        self._watchdog_done.acquire()
        start_new_thread(_enforce_exit, (read_end, self._last_message, self._watchdog_done))
        self._pipe = (write_end,)  # the other end is the thread's

    def _stop_watchdog(self) -> None:
        signal.set_wakeup_fd(self._wakeup_fd_before)
        pipe, self._pipe = self._pipe, ()
        for each in pipe:
            os.close(each)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        watched = bool(self._pipe)
        self.leave()
        if watched:
            # Python takes itself apart next, and may end the process where a thread still runs.
            self._watchdog_done.acquire(timeout=_LAST_MESSAGE_SECONDS)

    def leave(self) -> None:
        """Handle the signals as before."""
        _entered.remove(self)
        _deferred.clear()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._stop_watchdog()


_entered: list[stoppable] = []


def _in_child() -> None:
    """Let a process that a migration forks get signals as it would without initmig."""
    while _entered:
        _entered[-1].leave()


os.register_at_fork(after_in_child=_in_child)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda _, frame: _raise(number, frame))
    _raise(number, frame)


def _raise(number: int, frame: FrameType | None) -> None:
    """:raises Stopped: now, or soon, where *frame* is inside of a callback"""
    if _is_discarded_in(frame):
        _deferred[:] = [number]
        signal.setitimer(signal.ITIMER_REAL, _CALLBACK_SECONDS)
        return
    _deferred.clear()
    signal.setitimer(signal.ITIMER_REAL, _CLEAN_EXIT_SECONDS)
    raise Stopped(number)


# --- callbacks ---

_callbacks: set[CodeType] = set()
_deferred: list[int] = []
"""The signal that came inside of a callback."""


def callback(function: _F) -> _F:
    """Mark *function* as called by C code, which discards exceptions."""
    _callbacks.add(function.__code__)
    return function


def _is_discarded_in(frame: FrameType | None) -> bool:
    """Whether an exception raised in *frame* would be discarded."""
    while frame is not None:
        if frame.f_code in _callbacks or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def raise_deferred_stop() -> None:
    """:raises Stopped: a signal came inside of a callback that has ended since"""
    # other threads are not the ones to stop
    if _deferred and get_ident() == _main_thread:
        _raise(_deferred[0], None)


_main_thread = get_ident()

# --- the hard end ---


def _enforce_exit(read_end: int, last_message: Callable[[Stopped], object], done: LockType) -> None:
    """End the process if that takes too long after a signal, of which *read_end* gets the number.

    *done* is released where there is no need to.
    """
    number = _overdue_signal(read_end)
    if not number:
        os.close(read_end)
        done.release()
        return
    sent = allocate_lock()
    sent.acquire()

    def send() -> None:
        try:
            last_message(Stopped(number))
        finally:
            sent.release()

    # in a thread again, because the log may be what it hangs in
    start_new_thread(send, ())
    sent.acquire(timeout=_LAST_MESSAGE_SECONDS)
    os._exit(128 + number)


def _overdue_signal(read_end: int) -> int:
    """The signal that did not end the process in time; 0 once *read_end* is closed."""
    waiting = poll()
    waiting.register(read_end, POLLIN)
    number, deadline = 0, None
    while waiting.poll(deadline and max(0.0, deadline - monotonic()) * 1000):
        received = os.read(read_end, 1)
        if not received:
            return 0
        if received[0] in _SIGNALS and not number:
            number, deadline = received[0], monotonic() + _FORCED_EXIT_SECONDS
    return number


class stop_takes_precedence:  # noqa: N801 - a context manager
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
