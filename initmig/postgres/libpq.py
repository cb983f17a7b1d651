"""The libpq that psycopg includes, through ctypes, and its connection handles.

Importing psycopg takes several times as long as connecting, one query, and closing. See
docs/explanation/benchmarks.md for the figures.
https://www.postgresql.org/docs/current/libpq-async.html
"""

from __future__ import annotations

import os
import sys
from select import POLLIN, POLLOUT, poll
from time import monotonic

from initmig.core.records import TYPE_CHECKING
from initmig.postgres import native
from initmig.postgres.errors import client_failed, one_line
from initmig.postgres.memory_limit import MemoryLimit
from initmig.postgres.native import Structure, c_char_p, c_int, c_void_p
from initmig.postgres.parameters import RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    from initmig.postgres.notices import Notices

_BAD = 1  # ConnStatusType
_FAILED, _READING, _WRITING = range(3)  # PostgresPollingStatusType
_IDLE, _ACTIVE = 0, 1  # PGTransactionStatusType
_TERSE, USUAL_VERBOSITY, _VERBOSE = range(3)  # PGVerbosity

NO_LIMIT = float("inf")
_CANCEL_MESSAGE_BYTES = 256

_POINTERS = frozenset(
    (
        *("PQconnectStartParams", "PQconninfo", "PQcancelCreate", "PQgetCancel"),
        *("PQgetResult", "PQnotifies"),
    )
)
_TEXTS = frozenset(
    (
        *("PQerrorMessage", "PQgetvalue", "PQparameterStatus", "PQcmdStatus"),
        *("PQresultErrorField", "PQresultErrorMessage", "PQfname"),
        *("PQhost", "PQhostaddr", "PQport"),
    )
)
_LOWEST_GOOD = {
    "PQsetnonblocking": 0,
    "PQsocket": 0,
    "PQsendQuery": 1,
    "PQsetChunkedRowsMode": 1,
    "PQsetSingleRowMode": 1,
    "PQflush": 0,
    "PQputCopyData": 1,  # 0: out of memory, because everything was sent before
    "PQputCopyEnd": 1,
    "PQconsumeInput": 1,
    "PQgetCopyData": -1,
    "PQcancelStart": 1,
    "PQcancelPoll": 1,
    "PQcancelSocket": 0,
    "PQcancel": 1,
}
"""By function: a result below this is a failure."""
_NEVER_NULL = frozenset(("PQconnectStartParams", "PQconninfo", "PQcancelCreate", "PQgetCancel"))
"""Functions that return NULL for a failure."""


OPEN: set[Handle] = set()
"""All open connections. Processes that a migration forks must not use them."""


class _Option(Structure):
    """PQconninfoOption."""

    _fields_ = (
        *((name, c_char_p) for name in ("keyword", "env", "compiled", "value", "label", "show")),
        ("size", c_int),
    )


class Library(native.Library):
    """libpq, whose functions raise ClientFailed if they fail."""

    def __init__(self, path: str) -> None:
        """Load the library, or any library that is linked with it, from *path*."""
        super().__init__(path)
        is_17 = hasattr(self, "PQcancelCreate")
        self.cancel: Callable[[c_void_p, float], None] = (
            self._cancel if is_17 else self._cancel_before_17
        )
        """Cancel the running statement of a connection, within seconds if libpq is new enough."""
        self.receive_in_pieces: Callable[[c_void_p, int], object] = (
            self.PQsetChunkedRowsMode
            if is_17
            else lambda connection, _: self.PQsetSingleRowMode(connection)
        )
        """Receive the rows of the message that was sent last a few at a time."""

    def __getattr__(self, name: str) -> Any:
        """The function *name* of libpq, which is declared when it is first used."""
        function: Any = super().__getattr__(name)
        if name in _POINTERS:
            function.restype = c_void_p
        elif name in _TEXTS:
            function.restype = c_char_p
        if name in _NEVER_NULL:
            function.errcheck = self._checked(name, bool)
        elif name in _LOWEST_GOOD:
            function.errcheck = self._checked(name, _LOWEST_GOOD[name].__le__)
        return function

    def _checked(self, name: str, is_good: Callable[[Any], bool]) -> Callable[..., Any]:
        """The ctypes errcheck for the function *name*.

        It ignores failures on a lost connection, because the next results give the server's reason.
        """

        def check(result: Any, _: Any, arguments: Sequence[Any]) -> Any:
            if is_good(result):
                return result
            if name in _NEVER_NULL or name.startswith("PQcancel"):
                raise client_failed(name, "out of memory")
            connection = arguments[0]
            if self.PQstatus(connection) == _BAD:
                return result
            raise client_failed(name, one_line(as_text(self.PQerrorMessage(connection))))

        return check

    def _cancel(self, connection: c_void_p, seconds: float) -> None:
        cancel = c_void_p(self.PQcancelCreate(connection))
        try:
            self.PQcancelStart(cancel)
            _poll(cancel, self.PQcancelPoll, self.PQcancelSocket, seconds)
        finally:
            self.PQcancelFinish(cancel)

    def _cancel_before_17(self, connection: c_void_p, _: float) -> None:
        from ctypes import create_string_buffer

        cancel = c_void_p(self.PQgetCancel(connection))
        try:
            message = create_string_buffer(_CANCEL_MESSAGE_BYTES)
            self.PQcancel(cancel, message, _CANCEL_MESSAGE_BYTES)
        finally:
            self.PQfreeCancel(cancel)

    def ping(self, params: Mapping[str, str]) -> int:
        """The PGPing result for a server that rejects connections with *params*."""
        return int(self.PQpingParams(as_array(params.keys()), as_array(params.values()), 1))


_loaded: list[Library] = []
"""The result of `find_libpq`, which is the same for every connection of the process."""


def find_libpq() -> Library:
    """The library of psycopg's binary package. Without that package, psycopg's own."""
    if not _loaded:
        _loaded.append(_load_libpq())
    return _loaded[0]


def _load_libpq() -> Library:
    for folder in (os.path.join(each, "psycopg_binary.libs") for each in sys.path):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith("libpq-"):
                return Library(os.path.join(folder, name))
    return libpq_of_psycopg()


def libpq_of_psycopg() -> Library:
    """Load the library that psycopg uses. A handle of one libpq is garbage to another one."""
    from psycopg import pq

    module: Any = sys.modules[pq.PGconn.__module__]
    # its Python implementation has loaded libpq, the other ones are linked with it
    path = module.impl.libname if pq.__impl__ == "python" else module.__file__
    return Library(path)


class ConnectFailed(Exception):
    """A failed attempt to connect, with libpq's message."""

    sqlstates: Sequence[str]
    """The servers' SQLSTATEs; empty if no server sent one."""

    def __init__(self, words: str) -> None:
        import re

        self.sqlstates = re.findall(r":  ([0-9A-Z]{5}): ", words)
        # parts that only PQERRORS_VERBOSE adds
        brief = re.sub(r"(?m):  [0-9A-Z]{5}(?=: )|^LOCATION: .*", "", words)
        super().__init__(one_line(brief))

    @classmethod
    def of(cls, failures: Sequence[ConnectFailed]) -> ConnectFailed:
        """Combine the failures at several addresses into one error."""
        failed = cls("\n".join(str(each) for each in failures))
        failed.sqlstates = [state for each in failures for state in each.sqlstates]
        return failed


class ConnectTimedOut(ConnectFailed):
    """No answer in time from the numeric *address*, which may be empty."""

    def __init__(self, host: str, address: str, port: str) -> None:
        where = f" ({address})" if address not in ("", host) else ""
        super().__init__(
            f'connection to server at "{host}"{where}, port {port} failed: timeout expired'
        )
        self.address = address


class Handle:
    """A connection of libpq (PGconn), which initmig or psycopg has opened."""

    verbosity = _TERSE
    """With more, an error that has a position needs eight bytes for each byte of the message."""

    silence_seconds = NO_LIMIT
    """`on_silence` is called each time the server has sent nothing for this long."""

    def __init__(self, libpq: Library) -> None:
        """Begin to use `pointer`, which a function of *libpq* has returned."""
        self.libpq = libpq
        self.on_silence: Callable[[], None] = lambda: None
        self.notices: Notices | None = None
        self._connect_messages = ""
        """libpq's messages about connecting, which it forgets."""
        OPEN.add(self)
        libpq.PQsetErrorVerbosity(self.pointer, _VERBOSE)

    @property
    def pointer(self) -> c_void_p:
        """The pointer to libpq's structure; NULL if the connection was closed."""
        raise NotImplementedError

    def take_notifications(self) -> None:
        """Take the notifications (NOTIFY) that were received from libpq, which would keep them."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection. The server rolls back an open transaction."""
        raise NotImplementedError

    def options(self) -> dict[bytes, bytes | None]:
        """The resolved parameters, with libpq's variables, files and defaults."""
        options = self.libpq.PQconninfo(self.pointer)
        found, address = {}, options
        while (option := _Option.from_address(address)).keyword is not None:
            found[option.keyword] = option.value
            address += native.sizeof(_Option)
        self.libpq.PQconninfoFree(c_void_p(options))
        return found

    def finish_connecting(self, seconds: float) -> None:
        """Finish connecting within *seconds*.

        :raises ConnectFailed: the server or libpq refused, or the time is over
        :raises UnexpectedAnswer: the server's answer is too large
        """
        libpq, pointer = self.libpq, self.pointer
        if self.closed:
            raise ConnectFailed(self.error_message)
        # In blocking mode, libpq keeps reading while it cannot send, without a limit. Switching to
        # nonblocking mode clears the prefix of libpq's later error messages, so keep it.
        self._connect_messages = as_text(libpq.PQerrorMessage(pointer))
        libpq.PQsetnonblocking(pointer, 1)
        memory_limit = MemoryLimit()

        def advance(pointer: c_void_p) -> int:
            memory_limit.check()
            return int(libpq.PQconnectPoll(pointer))

        try:
            status = _poll(pointer, advance, libpq.PQsocket, seconds)
        except TimeoutError:
            getters = (libpq.PQhost, libpq.PQhostaddr, libpq.PQport)
            raise ConnectTimedOut(*(as_text(each(pointer)) for each in getters)) from None
        if status == _FAILED:
            raise ConnectFailed(self.error_message)
        self._connect_messages = ""
        libpq.PQsetErrorVerbosity(pointer, self.verbosity)

    @property
    def startup_pid(self) -> int:
        """The server process id from startup. Behind a pooler, another process does the work."""
        return int(self.libpq.PQbackendPID(self.pointer))

    @property
    def server_version(self) -> int:
        """As ``server_version_num``: 150004 is 15.4."""
        return int(self.libpq.PQserverVersion(self.pointer))

    @property
    def closed(self) -> bool:
        """Whether the connection was closed or lost."""
        return bool(self.libpq.PQstatus(self.pointer) == _BAD)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, including a failed one."""
        return bool(self.libpq.PQtransactionStatus(self.pointer) != _IDLE)

    @property
    def is_answering(self) -> bool:
        """Whether the answer to a message is not complete yet."""
        return bool(self.libpq.PQtransactionStatus(self.pointer) == _ACTIVE)

    @property
    def encoding(self) -> str:
        """The client encoding as the server reports it."""
        return as_text(self.libpq.PQparameterStatus(self.pointer, b"client_encoding"))

    @property
    def error_message(self) -> str:
        """libpq's message for the last failure."""
        return self._connect_messages + as_text(self.libpq.PQerrorMessage(self.pointer))

    def fileno(self) -> int:
        """The file descriptor of the socket; -1 if the connection is closed."""
        return int(self.libpq.PQsocket(self.pointer))


def _poll(
    connection: c_void_p,
    advance: Callable[[c_void_p], int],
    socket: Callable[[c_void_p], int],
    seconds: float,
) -> int:
    """Call *advance* until it is done, and return its last status.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PQCONNECTSTARTPARAMS

    :raises TimeoutError: it was not done within *seconds*
    """
    deadline = monotonic() + seconds
    status = _WRITING
    while status in (_READING, _WRITING):
        wait(socket(connection), POLLIN if status == _READING else POLLOUT, deadline)
        status = advance(connection)
    return status


def wait(socket: int, events: int, deadline: float) -> int:
    """Wait for *events*, and return the ones that occurred. Signals can interrupt the wait.

    :raises TimeoutError: no event before the *deadline*
    """
    left = deadline - monotonic()
    if left <= 0:  # needed if events occur all the time
        raise TimeoutError
    waiting = poll()
    waiting.register(socket, events)
    came = waiting.poll(None if left == NO_LIMIT else left * 1000)
    if not came:
        raise TimeoutError
    return came[0][1]


def as_text(text: bytes | None) -> str:
    """Decode *text* from libpq; NULL is empty."""
    return (text or b"").decode(errors="replace")


def as_array(texts: Collection[str]) -> Any:
    """*texts* as an array of C strings, with NULL at the end."""
    return (c_char_p * (len(texts) + 1))(*(text.encode(errors=RAW) for text in texts))
