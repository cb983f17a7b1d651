"""One migrator at a time: PostgreSQL's advisory lock, and under it the lock row of a stock yoyo.

Both are polled. Whoever blocks in ``pg_advisory_lock`` holds a snapshot meanwhile, for which a
CREATE INDEX CONCURRENTLY of the holder waits: a deadlock. See docs/locking.md.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from initmig import engine, history
from initmig.clock import Clock
from initmig.durations import format_duration
from initmig.errors import DatabaseRefused, DatabaseUnavailable, QueueTimeout
from initmig.events import (
    Emit,
    Event,
    LockAcquired,
    StaleLockRemoved,
    WaitingForYoyo,
    WaitingInQueue,
)
from initmig.postgres import Session

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_TELL_AGAIN_SECONDS = 10.0

# The key is of the schema that has, or will get, the history tables: two schemas of one database
# can be migrated side by side. The seed is an arbitrary constant, so that no other tool's hash of
# a schema name is the same key.
_FACTS = """
SELECT pg_backend_pid(), pg_is_in_recovery(),
    current_setting('transaction_read_only')::bool, home, hashtextextended(home, 20261122)
FROM (SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class
                       WHERE oid = to_regclass('_yoyo_migration')),
                      quote_ident(current_schema())) AS home) AS schema"""

_HOLDER = """
SELECT a.pid, coalesce(a.usename, ''), a.application_name, coalesce(host(a.client_addr), ''),
    extract(epoch FROM clock_timestamp() - a.backend_start)::float8,
    coalesce(a.state, ''), pg_blocking_pids(a.pid)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = {key}"""

_YOYO_ROW = "SELECT pid, ctime::text FROM yoyo_lock"


class Facts(NamedTuple):
    """What the server says of itself before anything is written."""

    backend_pid: int
    standby: bool
    read_only: bool
    schema: str | None
    key: int


@contextmanager
def migration_lock(
    session: Session,
    *,
    timeout: float,
    clock: Clock,
    emit: Emit,
    is_needed: Callable[[], bool],
) -> Iterator[int | None]:
    """Hold the lock inside; the server process id at work, or None once *is_needed* says no.

    *timeout* in seconds, 0 for none, is for other migrators to finish.

    :raises QueueTimeout: another migrator was still at it
    :raises DatabaseUnavailable: the server is a standby or read-only: another one may not be
    :raises DatabaseRefused: there is no schema to work in
    """
    facts = _facts(session)
    pooled = facts.backend_pid != session.startup_pid
    queue = _Queue(timeout, clock, emit, is_needed)
    with ExitStack() as stack:
        if pooled:
            keeper = stack.enter_context(session.sibling())
            lock: _AdvisoryLock = _TransactionLock(keeper, facts.key)
        else:
            session.settle()
            lock = _SessionLock(session, facts.key)
        if not queue.wait(lock.try_take, lambda: _holder(session, facts.key, queue.waited())):
            yield None
            return
        stack.callback(lock.release)
        row = _YoyoRow(session, facts.backend_pid, emit)
        if not queue.wait(row.try_take, lambda: row.holder(queue.waited())):
            yield None
            return
        stack.callback(row.release)
        emit(LockAcquired(queue.waited(), pooled))
        yield facts.backend_pid


def _facts(session: Session) -> Facts:
    facts = Facts(*session.query(_FACTS)[0])
    if facts.standby:
        raise DatabaseUnavailable("the server is a standby, and there is something to write")
    if facts.read_only:
        raise DatabaseUnavailable(
            "the server is read-only (default_transaction_read_only),"
            " and there is something to write"
        )
    if facts.schema is None:
        raise DatabaseRefused(
            "no schema of the search path exists, or the role may not use it",
            hint="CREATE SCHEMA, GRANT USAGE and CREATE on it to the role, or correct --schema",
        )
    return facts


def remove_yoyo_row(session: Session) -> list[tuple[int, str]]:
    """Remove the row of ``yoyo_lock``; its process id and since when (UTC) it stood there.

    A negative one, an initmig's, only where no initmig is at work.
    """
    if not history.have_tables(session, ("yoyo_lock",))[0]:
        return []
    # for the length of this statement: behind a pooler, too
    rows = session.query(
        "DELETE FROM yoyo_lock"
        f" WHERE pid > 0 OR pg_try_advisory_xact_lock({_facts(session).key})"
        " RETURNING abs(pid), ctime::text"
    )
    return [(pid, locked_at) for pid, locked_at in rows]


class _SessionLock:
    """The lock of a direct connection: it ends with the connection at the latest."""

    def __init__(self, session: Session, key: int) -> None:
        self._session = session
        self._key = key

    def try_take(self) -> bool:
        return bool(self._session.query(f"SELECT pg_try_advisory_lock({self._key})")[0][0])

    def release(self) -> None:
        if self._session.usable:
            self._session.query(f"SELECT pg_advisory_unlock({self._key})")


class _TransactionLock:
    """The lock behind a pooler, which gives a server connection for one transaction only.

    The transaction stays open on a connection of its own; in READ COMMITTED it holds no snapshot
    while it is idle, so CREATE INDEX CONCURRENTLY does not wait for it.
    """

    def __init__(self, keeper: Session, key: int) -> None:
        self._keeper = keeper
        self._key = key

    def try_take(self) -> bool:
        taken = self._keeper.run(
            "BEGIN ISOLATION LEVEL READ COMMITTED;"
            " SET LOCAL idle_in_transaction_session_timeout = 0;"
            " SELECT set_config(name, '0', true) FROM pg_settings"
            " WHERE name = 'transaction_timeout';"
            f" SELECT pg_try_advisory_xact_lock({self._key})"
        )[0][0]
        if not taken:
            self.release()
        return bool(taken)

    def release(self) -> None:
        if self._keeper.in_transaction:
            self._keeper.run("ROLLBACK")


_AdvisoryLock = _SessionLock | _TransactionLock


class _YoyoRow:
    """The row that keeps a stock ``yoyo apply`` out, and that one leaves while it works.

    Its pid is ours made negative: whoever holds the advisory lock and meets a negative one knows
    that its owner is dead, as no two can hold that lock.
    """

    def __init__(self, session: Session, pid: int, emit: Emit) -> None:
        self._session = session
        self._mark = -pid
        self._emit = emit
        self._there = False

    def try_take(self) -> bool:
        if not self._there:
            engine.create_lock_table(self._session)
            self._there = True
        taken = self._session.query(
            "INSERT INTO yoyo_lock (locked, ctime, pid)"
            f" VALUES (1, clock_timestamp() AT TIME ZONE 'UTC', {self._mark})"
            " ON CONFLICT DO NOTHING RETURNING pid"
        )
        return bool(taken) or self._take_over()

    def _take_over(self) -> bool:
        stale = self._session.query(
            f"UPDATE yoyo_lock SET pid = {self._mark}, ctime = clock_timestamp() AT TIME ZONE 'UTC'"
            " FROM (SELECT pid AS stale FROM yoyo_lock) AS before WHERE pid < 0 RETURNING stale"
        )
        for (pid,) in stale:
            self._emit(StaleLockRemoved(-pid))
        return bool(stale)

    def holder(self, waited: float) -> WaitingForYoyo | None:
        rows = self._session.query(_YOYO_ROW)
        return WaitingForYoyo(rows[0][0], rows[0][1], waited) if rows else None

    def release(self) -> None:
        if self._session.usable:
            self._session.query(f"DELETE FROM yoyo_lock WHERE pid = {self._mark}")


class _Queue:
    """The wait for other migrators: polls with growing, jittered pauses, and says for whom."""

    def __init__(
        self, timeout: float, clock: Clock, emit: Emit, is_needed: Callable[[], bool]
    ) -> None:
        self._timeout = timeout
        self._clock = clock
        self._emit = emit
        self._is_needed = is_needed
        self._begun = clock.now()
        self._told_at: float | None = None

    def waited(self) -> float:
        return self._clock.now() - self._begun

    def wait(
        self,
        try_take: Callable[[], bool],
        holder: Callable[[], WaitingInQueue | WaitingForYoyo | None],
    ) -> bool:
        """True once *try_take* is; False as soon as there is no need any more."""
        pause = _FIRST_PAUSE_SECONDS
        while not try_take():
            self._tell(holder)
            self._clock.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, no secret
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
            # before the lock, which is free once the leader has finished
            if not self._is_needed():
                return False
        return True

    def _tell(self, holder: Callable[[], WaitingInQueue | WaitingForYoyo | None]) -> None:
        over = 0 < self._timeout <= self.waited()
        due = self._told_at is None or self.waited() - self._told_at >= _TELL_AGAIN_SECONDS
        if not (over or due):
            return
        event = holder()
        if over:
            raise _queue_timeout(event, self._timeout)
        if event:
            self._told_at = self.waited()
            self._emit(event)


def _queue_timeout(event: Event | None, timeout: float) -> QueueTimeout:
    waited = f"another migrator was still at it after {format_duration(timeout)}"
    if isinstance(event, WaitingForYoyo):
        return QueueTimeout(
            f"{waited}: a yoyo with process id {event.pid}, since {event.locked_at_utc} UTC",
            hint="if that yoyo is no more, remove its lock row with `initmig unlock`",
        )
    if isinstance(event, WaitingInQueue):
        waited += f": {event.holder}"
    return QueueTimeout(waited, hint="let it finish, or raise --queue-timeout")


def _holder(session: Session, key: int, waited: float) -> WaitingInQueue | None:
    rows = session.query(_HOLDER.format(key=key))
    if not rows:
        return None
    pid, user, application, address, seconds, state, blocked_by = rows[0]
    words = f"pid {pid} ({application or 'no application name'}, user {user or 'unknown'}"
    words += f", from {address})" if address else ")"
    if seconds is not None:  # else the role may not see that of another
        words += f", connected {format_duration(seconds)}"
    words += f", {state or 'state unknown'}"
    if blocked_by:
        words += f", itself blocked by pid {', '.join(map(str, blocked_by))}"
    return WaitingInQueue(words, pid, tuple(blocked_by), waited)
