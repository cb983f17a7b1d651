"""Why a statement or a connection failed: the one table that decides what is tried again."""

from __future__ import annotations

from initmig.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Kind: TypeAlias = Literal[
        "outage",  # connect again and see what is left to do; for a wait timeout at most
        "taken over",  # the same, as one that waits for the other migrator
        "read-only",  # an outage if the server takes no writes, else the statement's own failure
        "others",  # roll back and try again after a pause
        "canceled",  # a migration's own failure; what initmig asks for itself is asked again
        "setting",  # a setting ended the session, and would again: fail, and name it
        "own",  # fail
    ]


class Cause(Record):
    """What kind of failure it is, and its name."""

    kind: Kind
    name: str
    """Of a setting, as PostgreSQL spells it."""


LOCK_LOST = "IM001"
"""What initmig's guard raises where another migrator has taken over."""

DISCONNECTED = Cause("outage", "connection lost")
OWN = Cause("own", "")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
CAUSES = {
    "08": Cause("outage", "connection exception"),
    "57P01": Cause("outage", "shutdown, or ended by an administrator"),
    "57P02": Cause("outage", "crash"),
    "57P03": Cause("outage", "cannot connect now"),
    "57P04": Cause("outage", "database dropped"),
    LOCK_LOST: Cause("taken over", "another migrator has taken over"),
    "25006": Cause("read-only", "read-only transaction"),
    "55P03": Cause("others", "lock timeout"),
    "40P01": Cause("others", "deadlock"),
    "40001": Cause("others", "serialization failure"),
    "57014": Cause("canceled", "cancellation"),
    "25P03": Cause("setting", "idle_in_transaction_session_timeout"),
    "25P04": Cause("setting", "transaction_timeout"),
    "57P05": Cause("setting", "idle_session_timeout"),
}
"""By SQLSTATE, or by its class. What is not listed is the statement's own failure."""


_ENDING = ("outage", "setting")


def cause_of(sqlstate: str, *, closed: bool = False) -> Cause:
    """Why what ended with *sqlstate* (empty if the server gave none) failed.

    A connection that is *closed* afterwards was lost, whatever the server said as it went: a
    standby, for example, ends sessions that conflict with recovery by 40001. If it lives on, the
    statement itself failed: dblink raises 08001 for a connection of its own.
    """
    cause = CAUSES.get(sqlstate) or CAUSES.get(sqlstate[:2]) or OWN
    if closed:
        return cause if cause.kind in _ENDING else DISCONNECTED
    return OWN if cause.kind in _ENDING else cause


def is_spoiled(sqlstate: str) -> bool:
    """Whether others made a transaction fail that succeeds when it is tried again."""
    return cause_of(sqlstate).kind == "others"


def is_canceled(sqlstate: str) -> bool:
    """Whether somebody, or the statement timeout, canceled a statement."""
    return cause_of(sqlstate).kind == "canceled"


CONNECTING = ("00", "53", "55000", "57P")
"""SQLSTATEs of a refused connect that pass: no resources, not yet, not any more. 00 is success."""
