"""Keep forked children of a Python migration from using initmig's connections.

A child that inherits the connection would keep the migration lock and the transaction alive after
its parent is killed. An executed program inherits nothing, because the sockets close on exec.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class _Descriptor(Protocol):
    def fileno(self) -> int: ...


_not_inherited: list[Collection[_Descriptor]] = []
_masks: list[set[int]] = []
"""The signals that were blocked before the current fork."""
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
"""Signals that initmig handles and its children do not (signals.py)."""

CONNECT_LOCK = Lock()
"""Held while a thread connects, because a socket that is not registered yet cannot be replaced."""


def close_in_children(descriptors: Collection[_Descriptor]) -> None:
    """Replace the file descriptors in *descriptors* in every forked child."""
    _not_inherited.append(descriptors)


@contextmanager
def exiting_in_child() -> Iterator[None]:
    """A child that is forked inside the block exits when the block ends.

    The child exits as a program would: with the code of SystemExit, or with 1 after another
    exception.
    """
    parent = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != parent:
            os._exit(_exit_code(error))
        raise
    if os.getpid() != parent:
        os._exit(0)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
    else:
        from traceback import print_exception

        print_exception(error)
    return 1


def _before() -> None:
    if any(_not_inherited):  # otherwise this process has no connections
        CONNECT_LOCK.acquire()
        # block signals until the child handles them as any program does
        _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED))


def _after() -> None:
    if _masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())
        CONNECT_LOCK.release()


def _in_child() -> None:
    if _masks:
        _replace_inherited()
    _after()


def _replace_inherited() -> None:
    for descriptors in _not_inherited:
        for each in list(descriptors):
            with suppress(Exception):  # closed, or not connected yet
                _replace(each.fileno())


def _replace(number: int) -> None:
    """Replace *number* with a dead socket, so that no later file gets the same number."""
    import socket

    try:
        ours, theirs = socket.socketpair()
    except OSError:  # no more file descriptors
        os.close(number)
        return
    theirs.close()
    os.dup2(ours.fileno(), number, inheritable=False)
    ours.close()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
