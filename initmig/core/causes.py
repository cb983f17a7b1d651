"""Causes of failed statements and connections. This table decides what initmig retries."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Kind: TypeAlias = Literal[
        "outage",  # reconnect and read the state again, until the wait timeout
        "lock lost",  # the same, but wait for the other migrator
        # an outage if the server accepts no writes, otherwise the migration's own failure
        "read-only",
        "contention",  # roll back, pause, and retry
        "canceled",  # a failure of the migration; initmig's own statements are retried
        "setting",  # a retry would fail again: fail, and name the setting
        "error",  # fail
    ]


class Cause(Record):
    """The kind and the name of a failure."""

    kind: Kind
    name: str
    """A readable name; for a setting, its name in PostgreSQL."""


LOCK_LOST = "IM001"
"""SQLSTATE raised by initmig's guard after another migrator has taken over."""

DISCONNECTED = Cause("outage", "connection lost")
"""Any closed connection, except for the settings below."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
DISCONNECT_CAUSES = {
    "25P03": Cause("setting", "idle_in_transaction_session_timeout"),
    "25P04": Cause("setting", "transaction_timeout"),
    "57P05": Cause("setting", "idle_session_timeout"),
}
"""Causes by the SQLSTATE with which the server closed a connection. Any other is an outage."""

STATEMENT_CAUSES = {
    LOCK_LOST: Cause("lock lost", "another migrator has taken over"),
    "25006": Cause("read-only", "read-only transaction"),
    "55P03": Cause("contention", "lock timeout"),
    "40P01": Cause("contention", "deadlock"),
    "40001": Cause("contention", "serialization failure"),
    "57014": Cause("canceled", "cancellation"),
}
"""Causes by the SQLSTATE of a statement that left the connection open. Any other is an error."""

STATEMENT_ERROR = Cause("error", "")


def cause_of(sqlstate: str, *, closed: bool = False) -> Cause:
    """The cause of a failure with *sqlstate*, which is empty if the server gave none.

    *closed* means that the connection was lost, which says more than the SQLSTATE. A standby
    closes sessions that conflict with recovery with 40001, and a statement that uses dblink fails
    with 08001 although only dblink's own connection is lost.
    """
    if closed:
        return DISCONNECT_CAUSES.get(sqlstate, DISCONNECTED)
    return STATEMENT_CAUSES.get(sqlstate, STATEMENT_ERROR)


def is_contention(sqlstate: str) -> bool:
    """Whether other sessions made a transaction fail, so that a retry can succeed."""
    return cause_of(sqlstate).kind == "contention"


def is_cancellation(sqlstate: str) -> bool:
    """Whether a statement was canceled, by a person or by the statement timeout."""
    return cause_of(sqlstate).kind == "canceled"


TRANSIENT_SQLSTATES = ("00", "53", "55000", "57P")
"""SQLSTATEs of temporary failures to connect: resources, startup and shutdown. 00 is success."""
