"""Runs the command that prints the password. Imported only if there is one."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from errno import ENOEXEC
from select import POLLIN, poll
from time import monotonic, sleep
from typing import TYPE_CHECKING

from initmig.config.dsn import is_transmittable, mask_from_now_on
from initmig.core.durations import format_duration
from initmig.core.errors import ConfigError, DatabaseUnavailable
from initmig.core.signals import GROUPS, callback

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_SECONDS = 30.0
_MOST_BYTES = 1 << 16
_TICK_MILLISECONDS = 10
_REAP_SECONDS = 1.0
"""A program with another user's privileges, such as sudo, cannot be killed."""


def password_of(command: Sequence[str], limit: float) -> str:
    """Run *command*, and return the line that it has printed when it exits.

    It has *limit* seconds, but 30 at most. Its stderr is discarded. When it exits, the rest of its
    process group is killed.

    :raises ConfigError: it cannot be started
    :raises DatabaseUnavailable: it failed, took too long, or did not print one line
    """
    seconds = min(limit, _LONGEST_SECONDS)
    try:
        password = _line_of(*_run(command, seconds))
    except TimeoutError:
        raise _failed(command, f"did not end within {format_duration(seconds)}") from None
    except ValueError as error:
        raise _failed(command, str(error)) from None
    mask_from_now_on(password)
    return password


def _failed(command: Sequence[str], problem: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "password-command-failed",
        # its arguments may contain secrets
        f"the password command {command[0]} {problem}",
        hint="run the command yourself, in the environment of initmig, to see its messages",
    )


def _run(command: Sequence[str], seconds: float) -> tuple[bytes, int]:
    """The output of *command* when it exits, and its exit code."""
    child = _start(command)
    try:
        output = _output(child, monotonic() + seconds)
    finally:
        _end(child)
    return output, child.returncode


@callback  # after a signal in here, no code would know the process
def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        problem = f"cannot be started: {error.strerror}"
        if not _is_final(error):
            raise _failed(command, problem) from None
        raise ConfigError(
            "password-command-not-started",
            f"the password command {command[0]} {problem}",
            hint="name a program on PATH, or give its path; a script needs `#!` in its first line,"
            " and initmig's own image has no shell",
        ) from None
    GROUPS.add(child.pid)
    return child


def _is_final(error: OSError) -> bool:
    """Whether *error* is about the program, and not about a lack of processes or memory."""
    about_path = (FileNotFoundError, NotADirectoryError, PermissionError)
    return isinstance(error, about_path) or error.errno == ENOEXEC


def _output(child: subprocess.Popen[bytes], deadline: float) -> bytes:
    """The output of *child* when it exits, up to a little more than the longest password.

    The end of the pipe does not matter, because another process of *child* may keep it open.

    :raises TimeoutError: *child* has not exited at *deadline*
    """
    assert child.stdout  # noqa: S101
    pipe, output = child.stdout.fileno(), b""
    waiting = poll()
    waiting.register(pipe, POLLIN)
    while len(output) <= _MOST_BYTES:
        # checked before the pipe, which then has everything
        has_exited = _has_exited(child)
        if waiting.poll(0 if has_exited else _TICK_MILLISECONDS):
            piece = os.read(pipe, _MOST_BYTES)
            output += piece
            if not piece:
                waiting.unregister(pipe)
        elif has_exited:
            break
        if monotonic() >= deadline:
            raise TimeoutError
    return output


def _has_exited(child: subprocess.Popen[bytes]) -> bool:
    """Whether *child* has exited. It stays a zombie, so its number stays that of its group."""
    try:
        return bool(os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
    except ChildProcessError:  # SIGCHLD is ignored, or a Python migration waits for any child
        return True


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout  # noqa: S101
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    GROUPS.discard(child.pid)
    child.stdout.close()
    deadline = monotonic() + _REAP_SECONDS
    with suppress(subprocess.TimeoutExpired):
        child.wait(_REAP_SECONDS)
    # the processes of *child* are now children of process 1, which initmig may be
    with suppress(ChildProcessError):
        while monotonic() < deadline:
            pid, _ = os.waitpid(-child.pid, os.WNOHANG)
            if not pid:
                sleep(_TICK_MILLISECONDS / 1000)


def _line_of(output: bytes, code: int) -> str:
    """The only line of *output*.

    :raises ValueError: there is another number of lines, or *code* is an error
    """
    text = output.decode(errors="surrogateescape").rstrip("\r\n")
    for wrong, problem in (
        (len(output) > _MOST_BYTES, f"printed more than {_MOST_BYTES} bytes"),
        (code < 0, f"was ended by signal {-code}"),
        (code > 0, f"exited with code {code}"),
        (not text.strip(), "printed nothing"),
        ("\n" in text, "printed more than one line"),
        (not is_transmittable(text), "printed text that is not UTF-8, or contains NUL"),
    ):
        if wrong:
            raise ValueError(problem)
    return text
