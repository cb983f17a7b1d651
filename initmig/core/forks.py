"""Processes that a migration in Python forks: what they must neither keep nor do.

A child that kept the connection would keep the migration lock and the transaction alive after its
parent was killed. Programs that are executed keep nothing anyway: their sockets close on exec.
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
"""Which signals were blocked before a fork that is going on."""
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
"""What initmig handles, and its children do not (signals.py)."""

CONNECT_LOCK = Lock()
"""HeldLock by a thread that connects: a socket that is not known yet could not be withheld."""


def close_in_children(descriptors: Collection[_Descriptor]) -> None:
    """Let no child have what *descriptors* contains when it is forked."""
    _not_inherited.append(descriptors)


@contextmanager
def exiting_in_child() -> Iterator[None]:
    """A child that is forked inside ends where it would leave: the rest is its parent's to do.

    It exits as a program would, with the code of SystemExit, or with 1 after any other exception.
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
    if any(_not_inherited):  # else it is a process of our own
        CONNECT_LOCK.acquire()
        # a child that is told to end at once is to end as any program
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
            with suppress(Exception):  # it is closed, or has not got one yet
                _replace(each.fileno())


def _replace(number: int) -> None:
    """Let *number* be a connection that nobody answers, so that nobody else gets the number."""
    import socket

    try:
        ours, theirs = socket.socketpair()
    except OSError:  # there are no more of them
        os.close(number)
        return
    theirs.close()
    os.dup2(ours.fileno(), number, inheritable=False)
    ours.close()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
