"""Stop cleanly on SIGTERM and SIGINT, also as process 1, which ignores them by default."""

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
    # The full `signal` module imports enum and functools for its enums, which takes a tenth of a
    # run with nothing to do.
    import _signal as signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_CLEAN_EXIT_SECONDS = 2.5
"""After this time, Stopped is raised again.

An unreachable server cannot cancel or roll back on request. It rolls back when it detects the lost
connection.
"""
_FORCED_EXIT_SECONDS = 3.5
"""After this time, the process exits even if exceptions have no effect.

Examples are a silent name server and code that catches all exceptions.
"""
_LAST_MESSAGE_SECONDS = 0.5
_SPARE_DESCRIPTORS = 16
_CALLBACK_SECONDS = 0.01


GROUPS: set[int] = set()
"""Process groups that are killed before Stopped is raised, which other threads do not notice."""


class Stopped(KeyboardInterrupt):
    """The first signal arrived.

    It is a KeyboardInterrupt because that makes psycopg cancel the running statement:
    https://www.psycopg.org/psycopg3/docs/api/connections.html
    """

    def __init__(self, number: int) -> None:
        from signal import Signals

        super().__init__(Signals(number).name)
        self.exit_code = 128 + number


class stoppable:  # noqa: N801 - a context manager
    """Inside the block, the first signal raises Stopped. Later signals are ignored.

    If the clean exit takes too long, Stopped is raised again, to interrupt a call that hangs. If
    Python cannot raise it, or a migration catches it, the process calls *last_message* and exits.
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
        except (OSError, RuntimeError):  # no file descriptor or no thread: Stopped must be enough
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
        self._pipe = (write_end,)  # the thread closes the other end

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
            # The interpreter shuts down next, and may crash while a thread still runs.
            self._watchdog_done.acquire(timeout=_LAST_MESSAGE_SECONDS)

    def leave(self) -> None:
        """Restore the previous signal handlers."""
        _entered.remove(self)
        _deferred.clear()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._stop_watchdog()


_entered: list[stoppable] = []


def _in_child() -> None:
    """Restore the default signal handling in a process that a migration forks."""
    while _entered:
        _entered[-1].leave()


os.register_at_fork(after_in_child=_in_child)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda _, frame: _raise(number, frame))
    _raise(number, frame)


def _raise(number: int, frame: FrameType | None) -> None:
    """Raise Stopped now, or after a short delay if *frame* is in a callback.

    :raises Stopped: *frame* is not in a callback
    """
    if _is_discarded_in(frame):
        _deferred[:] = [number]
        signal.setitimer(signal.ITIMER_REAL, _CALLBACK_SECONDS)
        return
    _deferred.clear()
    signal.setitimer(signal.ITIMER_REAL, _CLEAN_EXIT_SECONDS)
    _kill_groups()
    raise Stopped(number)


def _kill_groups() -> None:
    if not GROUPS:
        return
    from contextlib import suppress

    for group in tuple(GROUPS):
        with suppress(OSError):  # it has just ended
            os.killpg(group, signal.SIGKILL)


# --- callbacks ---

_callbacks: set[CodeType] = set()
_deferred: list[int] = []
"""The signal that arrived during a callback."""


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
    """Raise the exception of a signal that arrived during a callback.

    :raises Stopped: such a signal arrived
    """
    # only the main thread is stopped
    if _deferred and get_ident() == _main_thread:
        _raise(_deferred[0], None)


_main_thread = get_ident()

# --- forced exit ---


def _enforce_exit(read_end: int, last_message: Callable[[Stopped], object], done: LockType) -> None:
    """Exit the process if the clean exit takes too long. *read_end* receives the signal numbers.

    *done* is released if the clean exit was fast enough.
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

    _kill_groups()
    # in a separate thread, because the log may be what hangs
    start_new_thread(send, ())
    sent.acquire(timeout=_LAST_MESSAGE_SECONDS)
    os._exit(128 + number)


def _overdue_signal(read_end: int) -> int:
    """Return the signal whose clean exit took too long, or 0 once the pipe is closed."""
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
    """Re-raise Stopped if another error was raised while it was propagating."""

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
    """Restore the default signal handling for a program that replaces this process."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them by default
        signal.signal(number, signal.SIG_DFL)
