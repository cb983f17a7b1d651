"""Why a statement or a connection failed: the one table that decides what is tried again."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Kind: TypeAlias = Literal[
        "outage",  # connect again, and see what is left to do, until the wait timeout is over
        "lock lost",  # the same, as one that waits for the other migrator
        "read-only",  # an outage if the server takes no writes, else the migration's own failure
        "contention",  # roll back, and try again after a pause
        "canceled",  # a migration's own failure; one of initmig's own statements is tried again
        "setting",  # it would happen again: fail, and name the setting
        "error",  # fail
    ]


class Cause(Record):
    """What kind of failure it is, and its name."""

    kind: Kind
    name: str
    """Of a setting, as PostgreSQL spells it."""


LOCK_LOST = "IM001"
"""What initmig's guard raises where another migrator has taken over."""

DISCONNECTED = Cause("outage", "connection lost")
"""Of any connection that has ended, but for a setting below."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
DISCONNECT_CAUSES = {
    "25P03": Cause("setting", "idle_in_transaction_session_timeout"),
    "25P04": Cause("setting", "transaction_timeout"),
    "57P05": Cause("setting", "idle_session_timeout"),
}
"""By the SQLSTATE with which the server ended a connection. Else that is an outage."""

STATEMENT_CAUSES = {
    LOCK_LOST: Cause("lock lost", "another migrator has taken over"),
    "25006": Cause("read-only", "read-only transaction"),
    "55P03": Cause("contention", "lock timeout"),
    "40P01": Cause("contention", "deadlock"),
    "40001": Cause("contention", "serialization failure"),
    "57014": Cause("canceled", "cancellation"),
}
"""By the SQLSTATE of a statement whose connection lives on. Else it is the statement's own."""

STATEMENT_ERROR = Cause("error", "")


def cause_of(sqlstate: str, *, closed: bool = False) -> Cause:
    """Why what ended with *sqlstate* (empty if the server gave none) failed.

    Whether the connection is *closed* afterwards says more than the SQLSTATE: a standby ends
    sessions that conflict with recovery by 40001, and a statement that uses dblink fails with 08001
    though only a connection of its own is lost.
    """
    if closed:
        return DISCONNECT_CAUSES.get(sqlstate, DISCONNECTED)
    return STATEMENT_CAUSES.get(sqlstate, STATEMENT_ERROR)


def is_contention(sqlstate: str) -> bool:
    """Whether others made a transaction fail that succeeds when it is tried again."""
    return cause_of(sqlstate).kind == "contention"


def is_cancellation(sqlstate: str) -> bool:
    """Whether somebody, or the statement timeout, canceled a statement."""
    return cause_of(sqlstate).kind == "canceled"


TRANSIENT_SQLSTATES = ("00", "53", "55000", "57P")
"""SQLSTATEs of a refused connect that pass: no resources, not yet, not any more. 00 is success."""
