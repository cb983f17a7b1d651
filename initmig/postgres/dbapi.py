"""A connection of psycopg's, which steps in Python are given, as yoyo promises them."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import error_from_result
from psycopg.generators import fetch
from psycopg.waiting import Ready, Wait

from initmig.dsn import parse_dsn
from initmig.errors import ConfigError, ServerMessage
from initmig.postgres.errors import (
    NO_COPY_DATA,
    StatementFailed,
    connection_lost,
    is_lost,
    one_line,
)
from initmig.postgres.parameters import IMPOSED, Settings, defaults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg.abc import PQGen

    from initmig.errors import InitmigError
    from initmig.postgres.connection import OnNotice

# What psycopg warns of is told by the error that follows, and its lines are none of our format.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class _Guarded(psycopg.Connection[tuple[Any, ...]]):
    """Refuses to end a transaction that is not its user's to end."""

    guarded = False

    def commit(self) -> None:
        """Commit, unless that is initmig's to do."""
        self._refuse("commit")
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless that is initmig's to do."""
        self._refuse("rollback")
        super().rollback()

    def _refuse(self, method: str) -> None:
        if self.guarded:
            raise psycopg.ProgrammingError(
                f"{method}() would end the transaction that initmig opened for this migration"
            )


class PsycopgConnection:
    """A `connection.Connection` that is psycopg's."""

    def __init__(self, connection: _Guarded) -> None:
        self.dbapi = connection
        self._last_words = ""
        """Why it was lost; what fails on it afterwards, a ROLLBACK, has nothing to say."""

    @property
    def startup_pid(self) -> int:
        """As in `connection.Connection`."""
        return self.dbapi.info.backend_pid

    @property
    def closed(self) -> bool:
        """As in `connection.Connection`."""
        return self.dbapi.closed

    @property
    def in_transaction(self) -> bool:
        """As in `connection.Connection`."""
        return self.dbapi.info.transaction_status != pq.TransactionStatus.IDLE

    @property
    def encoding(self) -> str:
        """As in `connection.Connection`."""
        return self.dbapi.info.parameter_status("client_encoding") or ""

    def tell_notices(self, on_notice: OnNotice) -> None:
        """As in `connection.Connection`."""
        self.dbapi.add_notice_handler(
            lambda said: on_notice(said.severity_nonlocalized or "", said.message_primary or "")
        )

    def exchange(
        self, message: str, timeout: float, copies: Iterator[Iterable[bytes]]
    ) -> list[tuple[Any, ...]]:
        """As in `connection.Connection`.

        Not by a cursor: it does not tell how many statements had been completed before the one
        that failed, and keeps every row of every statement.
        """
        with self.translating_errors(), self.dbapi.lock:
            result, before = self._send(message, timeout, copies)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            error = error_from_result(result, encoding="utf-8")
            raise self._translate(error, completed=before) from error
        return self._rows(result)

    def _send(
        self, message: str, timeout: float, copies: Iterator[Iterable[bytes]]
    ) -> tuple[pq.abc.PGresult, int]:
        """As `_last_result`."""
        pgconn = self.dbapi.pgconn
        pgconn.send_query(message.encode())
        try:
            limit = None if timeout == float("inf") else timeout
            result, before = self.dbapi.wait(_last_result(pgconn, copies), timeout=limit)
        except psycopg.OperationalError as error:
            if self.dbapi.broken:
                raise
            self.close()  # the answer may still come, when another is waited for
            raise psycopg.OperationalError(f"no answer in {timeout:g} s") from error
        return result, before

    def _rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        if not result.ntuples:
            return []
        transformer = psycopg.adapt.Transformer(self.dbapi)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """What psycopg raises inside becomes StatementFailed or DatabaseUnavailable."""
        try:
            yield
        except psycopg.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: psycopg.Error, *, completed: int = 0) -> InitmigError:
        if self.closed or is_lost(error.sqlstate):
            self._last_words = self._last_words or one_line(str(error))
            return connection_lost(self._last_words)
        return _statement_failed(error, completed=completed)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Inside, a migration that gets the connection can neither commit nor roll back."""
        self.dbapi.guarded = True
        try:
            yield
        finally:
            self.dbapi.guarded = False

    def close(self) -> None:
        """As in `connection.Connection`."""
        self.dbapi.close()


def open_by_psycopg(settings: Settings, timeout: float) -> PsycopgConnection:
    """A connection in autocommit; *timeout* and what is raised are those of `session.connect`."""
    params = _parameters(settings, timeout)
    try:
        connection = _Guarded.connect(**params, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        from initmig.postgres.refusals import connect_error

        raise connect_error(one_line(str(error)), None, params) from error
    return PsycopgConnection(connection)


def _parameters(settings: Settings, timeout: float) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(parse_dsn(settings.conninfo).conninfo)
    except (psycopg.Error, ValueError) as error:
        reason = str(error)
        if isinstance(error, psycopg.Error) and not _quotes_a_parameter(reason, settings.conninfo):
            # libpq quotes the part that it did not understand, and that may be of the password
            reason = re.sub(r'"[^"]*"', '"***"', reason)
        raise ConfigError(
            "malformed-url",
            f"the database URL is malformed: {reason.strip()}",
            hint="give only parameters that libpq knows; in user name and password, write"
            " @ : / ? # % as %40 %3A %2F %3F %23 %25",
        ) from None
    return {**defaults(settings, timeout), **given, **IMPOSED}


def _quotes_a_parameter(reason: str, conninfo: str) -> bool:
    """Whether libpq names an unknown parameter of a URL, and not what is behind a `?` in it."""
    return (
        reason.startswith("invalid URI query parameter") and "@" not in conninfo.partition("?")[2]
    )


def _last_result(
    pgconn: pq.abc.PGconn, copies: Iterator[Iterable[bytes]]
) -> PQGen[tuple[pq.abc.PGresult, int]]:
    """The result of the last statement, or of the one that failed, and how many came before it."""
    yield from _flush(pgconn)
    last, before = (yield from _next_result(pgconn, copies)), 0
    assert last is not None  # noqa: S101 - to everything sent there is an answer
    while True:
        try:
            following = yield from _next_result(pgconn, copies)
        except psycopg.DatabaseError:
            if last.status != pq.ExecStatus.FATAL_ERROR:
                raise
            following = None  # the server has said why before it went
        if following is None:
            return last, before
        last, before = following, before + 1


def _next_result(
    pgconn: pq.abc.PGconn, copies: Iterator[Iterable[bytes]]
) -> PQGen[pq.abc.PGresult | None]:
    """The next one, None behind the last one; before it a COPY is served."""
    while True:
        result: pq.abc.PGresult | None = yield from fetch(pgconn)
        match result and result.status:
            case pq.ExecStatus.COPY_IN:
                transfer = _copy(pgconn, next(copies, None))
            case pq.ExecStatus.COPY_OUT:
                transfer = _discard(pgconn)
            case _:
                return result
        with suppress(psycopg.OperationalError):  # the result tells why better
            yield from transfer


def _copy(pgconn: pq.abc.PGconn, pieces: Iterable[bytes] | None) -> PQGen[None]:
    """Send the data that the server asks for, or that there is none."""
    for piece in pieces or ():
        pgconn.put_copy_data(piece)
        yield from _flush(pgconn)
    pgconn.put_copy_end(NO_COPY_DATA if pieces is None else None)
    yield from _flush(pgconn)


def _discard(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Read the data that the server sends, as what a SELECT returns: nobody wants it."""
    while (length := pgconn.get_copy_data(1)[0]) >= 0:
        if not length:
            yield Wait.R
            pgconn.consume_input()


def _flush(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Send what is queued, and read what the server says meanwhile, for which it may wait.

    As psycopg's own, which does not outlive an interruption: it is sent nothing to begin anew.
    """
    while pgconn.flush():
        ready = yield Wait.RW
        if ready and ready & Ready.R:
            pgconn.consume_input()


def _statement_failed(error: psycopg.Error, *, completed: int) -> StatementFailed:
    """*error* of a statement, *completed* ones of the same message before it."""
    said = error.diag
    beside = (error.sqlstate, said.message_detail, said.message_hint, said.context)
    failed = StatementFailed(
        "migration-failed",
        said.message_primary or str(error),
        server=ServerMessage(*(text or "" for text in beside)),
    )
    failed.position = int(said.statement_position or 0)
    failed.completed = completed
    return failed
