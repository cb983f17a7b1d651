"""A connection in autocommit mode, over a handle of libpq that initmig or psycopg has opened."""

from __future__ import annotations

from _thread import allocate_lock

from initmig.core.errors import InitmigError
from initmig.core.records import TYPE_CHECKING
from initmig.core.signals import callback
from initmig.postgres.errors import (
    AfterCommit,
    ClientFailed,
    StatementFailed,
    UnexpectedAnswer,
    client_failed,
    connection_lost,
    discard_unsent,
    disconnect_error,
    not_committed,
    one_line,
    out_of_memory,
    outcome_unknown,
    says_out_of_memory,
)
from initmig.postgres.exchange import Exchange
from initmig.postgres.libpq import OPEN, Handle, as_array, as_text
from initmig.postgres.native import c_void_p

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from initmig.postgres.exchange import Answer
    from initmig.postgres.libpq import Library
    from initmig.postgres.notices import Notices, OnNotice

    Copies = Iterable[Iterable[bytes]]
    """The data for each COPY FROM STDIN, in chunks."""

_BRIEF_CANCEL_SECONDS = 1.0


class Connection(Handle):
    """Sends messages, and returns rows or raises initmig's errors."""

    dbapi: Any = None
    """psycopg's connection for Python steps; None for a connection without psycopg."""

    _ended: InitmigError | None = None
    """The error that closed the connection. Later messages, such as ROLLBACK, raise it again."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held during an exchange."""
        raise NotImplementedError

    def set_notice_handler(self, on_notice: OnNotice) -> None:
        """Call *on_notice* for each notice from the server."""
        from initmig.postgres.notices import Notices

        self.notices = Notices(on_notice)
        self.collect_notices(self.notices)

    def collect_notices(self, notices: Notices) -> None:
        """Let libpq add each notice to *notices*."""
        raise NotImplementedError

    def exchange(
        self,
        message: bytes,
        timeout: float,
        copies: Iterator[Iterable[bytes]],
        *,
        commits: bool = False,
        discards: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Send *message*, and return the rows of its last statement within *timeout* seconds.

        With *discards*, rows are dropped as they arrive and none are returned, so a result of any
        size needs the memory of a few rows.

        Each COPY FROM STDIN in *message* gets the next of *copies*, and fails without one.
        With *commits*, the message ends with COMMIT or with `parameters.commit_then`, and the
        server must confirm the COMMIT.

        A closed connection raises the error that closed it.

        :raises AfterCommit: the COMMIT is confirmed, but a later statement failed
        :raises StatementFailed: the server rejected a statement; earlier ones are counted in
            `completed`
        :raises DatabaseUnavailable: the connection was lost, or the answer took too long
        :raises OutcomeUnknown: the client failed after it had sent a COMMIT
        :raises ClientFailed: the client failed before that; the connection is closed
        """
        on_piece = _drop if discards else None
        return self._exchange(message, timeout, copies, commits=commits, on_piece=on_piece)

    def _exchange(
        self,
        message: bytes,
        timeout: float,
        copies: Iterator[Iterable[bytes]],
        *,
        commits: bool = False,
        on_piece: Callable[[c_void_p], object] | None = None,
    ) -> list[tuple[Any, ...]]:
        """As `exchange`; with *on_piece*, it is called with a few rows of the answer at a time."""
        if self._ended:
            raise self._ended
        with self.lock:
            exchange = Exchange(self, timeout)
            try:
                exchange.send(message, in_pieces=on_piece is not None)
                answer = exchange.receive(copies, on_piece or _drop)
                return self._rows(answer, commits=commits)
            except KeyboardInterrupt:
                self._cancel(exchange)
                raise
            except TimeoutError:
                raise self._timed_out(timeout) from None
            except UnexpectedAnswer as odd:
                self._end(odd)
                raise
            except ClientFailed as failed:
                if not (exchange.sent and commits):
                    self._give_up(failed)
                    raise
                raise self._give_up(outcome_unknown(failed)) from failed
            except MemoryError as error:
                memory = out_of_memory("could not use the connection to the server")
                is_unknown = exchange.sent and commits
                raise self._give_up(outcome_unknown(memory) if is_unknown else memory) from error

    def _rows(self, answer: Answer, *, commits: bool) -> list[tuple[Any, ...]]:
        """The rows of *answer*, after checks for errors and for the COMMIT."""
        tag = answer.ended or answer.tag
        try:
            self._check_connected(answer.failed)
            # after a COMMIT, libpq only lacked memory for the rows
            if answer.failed and not (
                isinstance(answer.failed, ClientFailed) and commits and tag == "COMMIT"
            ):
                raise answer.failed
            if commits and tag != "COMMIT":
                raise not_committed(tag, completed=answer.completed - 1)
            return answer.rows()
        except InitmigError as error:
            if answer.ended == "COMMIT":
                raise AfterCommit.of(error.problems) from error
            raise
        finally:
            answer.clear()

    def _check_connected(self, failed: StatementFailed | ClientFailed | None) -> None:
        """Check that the connection is usable after *failed*.

        :raises InitmigError: the connection was closed
        """
        refused = failed if isinstance(failed, StatementFailed) else None
        words = str(failed or "") or (one_line(self.error_message) if self.closed else "")
        ended = disconnect_error(refused, words, closed=self.closed)
        if ended is None:
            return
        if says_out_of_memory(words) and not (refused and refused.sqlstate):
            raise client_failed("PQconsumeInput", words)  # libpq itself closed it
        self._ended = ended
        raise ended

    def _cancel(self, exchange: Exchange) -> None:
        """Cancel the statement of *exchange*, or close the connection if that fails."""
        try:
            exchange.cancel()
        except (KeyboardInterrupt, TimeoutError, InitmigError, MemoryError):
            self.close()  # the statement may still run, but the user will not wait

    def _timed_out(self, seconds: float) -> InitmigError:
        """Cancel the statement, which would still wait for a lock, and close the connection."""
        from contextlib import suppress

        with suppress(ClientFailed, TimeoutError):
            self.libpq.cancel(self.pointer, _BRIEF_CANCEL_SECONDS)
        # the answer may still arrive, and be taken for the next one
        return self._end(connection_lost(f"no answer in {seconds:g} s"))

    def _give_up(self, error: InitmigError) -> InitmigError:
        """Close the connection, whose state is unknown, with *error*."""
        if not self.closed:
            discard_unsent(self.fileno())
        return self._end(error)

    def _end(self, error: InitmigError) -> InitmigError:
        """Close the connection with *error*, and return it."""
        self._ended = error
        self.close()
        return error


class LibpqConnection(Connection):
    """A connection that initmig has opened itself, which is enough for SQL."""

    def __init__(self, libpq: Library, params: Mapping[str, str]) -> None:
        """Start to connect, with the *params* of PQconnectStartParams."""
        keywords, values = as_array(params.keys()), as_array(params.values())
        self._pointer = c_void_p(libpq.PQconnectStartParams(keywords, values, 1))
        self._lock = allocate_lock()
        super().__init__(libpq)
        # Called with NULL for each notice, which has no effect: nothing reads notices yet.
        libpq.PQsetNoticeProcessor(self._pointer, libpq.PQfreemem, None)

    @property
    def pointer(self) -> c_void_p:
        """As in `libpq.Handle`."""
        return self._pointer

    @property
    def lock(self) -> AbstractContextManager[object]:
        """As in `Connection`."""
        return self._lock

    def collect_notices(self, notices: Notices) -> None:
        """As in `Connection`."""
        from ctypes import CFUNCTYPE

        field = self.libpq.PQresultErrorField

        @callback
        def receive(_: None, notice: int) -> None:
            severity, message = (field(c_void_p(notice), ord(each)) for each in "VM")
            notices.add(as_text(severity), as_text(message))

        # keep a reference for as long as libpq may call it
        self._receiver = CFUNCTYPE(None, c_void_p, c_void_p)(receive)
        self.libpq.PQsetNoticeReceiver(self._pointer, self._receiver, None)

    def take_notifications(self) -> None:
        """Discard the notifications, which no SQL can read."""
        while notification := self.libpq.PQnotifies(self._pointer):
            self.libpq.PQfreemem(c_void_p(notification))

    def close(self) -> None:
        """As in `libpq.Handle`."""
        OPEN.discard(self)
        # In this order, because a signal may interrupt this, and close() may be called again.
        pointer, self._pointer = self._pointer, c_void_p()
        self.libpq.PQfinish(pointer)


def _drop(_: c_void_p) -> None:
    """Do nothing with a result."""
