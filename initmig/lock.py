"""One migrator at a time: PostgreSQL's advisory lock, and under it the lock row of a stock yoyo.

Both are polled. Whoever blocks in ``pg_advisory_lock`` holds a snapshot meanwhile, for which a
CREATE INDEX CONCURRENTLY of the holder waits: a deadlock. See docs/locking.md.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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

_SECOND_CONNECTION_SECONDS = 30.0
"""For a pooler to find a second server connection: others that wait give theirs back quickly."""

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

_SINCE = "to_char(yoyo_lock.ctime, 'YYYY-MM-DD HH24:MI:SS.US')"

# Fails with connection_exception, because that is what happened: start again from the connection.
_GUARD = """
DO $initmig$ BEGIN
    PERFORM FROM yoyo_lock WHERE {ours} FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the one that held the migration lock; another migrator has taken over'
            USING ERRCODE = 'connection_exception';
    END IF;
END $initmig$;"""


class Facts(NamedTuple):
    """What the server says of itself before anything is written."""

    backend_pid: int
    standby: bool
    read_only: bool
    schema: str | None
    key: int


class Held(NamedTuple):
    """How this process holds the migration lock."""

    pid: int
    """The server process at work; behind a pooler, the one that was at work last."""
    pooled: bool
    guard: str
    """SQL to send with each BEGIN, after the settings; empty where the lock needs none.

    It fails where the lock was lost, and else keeps everybody from taking it until the COMMIT.
    """


@contextmanager
def migration_lock(
    session: Session,
    *,
    timeout: float,
    clock: Clock,
    emit: Emit,
    is_needed: Callable[[], bool],
) -> Iterator[Held | None]:
    """Hold the lock inside; None once *is_needed* says no.

    *timeout* in seconds, 0 for none, is for other migrators to finish.

    :raises QueueTimeout: another migrator was still at it
    :raises DatabaseUnavailable: the server is a standby or read-only: another one may not be
    :raises DatabaseRefused: there is no schema to work in, or a pooler in the way
    """
    facts = _facts(session)
    pooled = facts.backend_pid != session.startup_pid
    if pooled:
        lock: _AdvisoryLock = _TransactionLock(session, facts.key)
        clock = _parting(session, clock)
    else:
        session.settle()
        lock = _SessionLock(session, facts.key, facts.backend_pid)
    queue = _Queue(timeout, clock, emit, is_needed)
    with ExitStack() as stack:
        stack.callback(lock.release)
        if not queue.wait(lock.try_take, lambda: _holder(session, facts.key, queue.waited())):
            yield None
            return
        row = _YoyoRow(session, lock.pid, emit)
        if not queue.wait(row.try_take, lambda: row.holder(queue.waited())):
            yield None
            return
        stack.callback(row.release)
        emit(LockAcquired(queue.waited(), pooled))
        yield Held(lock.worker_pid, pooled, row.guard() if pooled else "")


def _parting(session: Session, clock: Clock) -> Clock:
    """*clock*, whose sleeper has no connection meanwhile.

    Of a pool in session mode a waiter's connection would else be missing to the one at work.
    """

    def sleep(seconds: float) -> None:
        session.close()
        clock.sleep(seconds)
        session.reconnect()

    return clock._replace(sleep=sleep)


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
        " WHERE locked IN (SELECT locked FROM yoyo_lock FOR UPDATE SKIP LOCKED)"
        f" AND (pid > 0 OR pg_try_advisory_xact_lock({_facts(session).key}))"
        " RETURNING abs(pid), ctime::text"
    )
    return [(pid, locked_at) for pid, locked_at in rows]


class _SessionLock:
    """The lock of a direct connection: it ends with the connection at the latest."""

    def __init__(self, session: Session, key: int, pid: int) -> None:
        self.pid = self.worker_pid = pid
        self._session = session
        self._key = key
        self._taken = False

    def try_take(self) -> bool:
        taken = self._session.query(f"SELECT pg_try_advisory_lock({self._key})")[0][0]
        self._taken = bool(taken)
        return self._taken

    def release(self) -> None:
        if self._taken and self._session.usable:
            self._session.query(f"SELECT pg_advisory_unlock({self._key})")


class _TransactionLock:
    """The lock behind a pooler, which gives a server connection for one transaction only.

    The transaction stays open on the session's connection so far, and the session goes on with
    another one; in READ COMMITTED it holds no snapshot while it is idle, so CREATE INDEX
    CONCURRENTLY does not wait for it.
    """

    def __init__(self, session: Session, key: int) -> None:
        self.pid = self.worker_pid = 0
        self._session = session
        self._key = key
        self._keeper: Session | None = None

    def try_take(self) -> bool:
        taken, self.pid = self._begin()
        if not taken:
            self._session.run("ROLLBACK")
            return False
        self._keeper = self._session.hand_over()
        self._session.reconnect()
        self.worker_pid = self._wait_for_second_connection()
        return True

    def _begin(self) -> tuple[bool, int]:
        try:
            [(taken, pid)] = self._session.run(
                "BEGIN ISOLATION LEVEL READ COMMITTED;"
                " SET LOCAL idle_in_transaction_session_timeout = 0;"
                " SELECT set_config(name, '0', true) FROM pg_settings"
                " WHERE name = 'transaction_timeout';"
                f" SELECT pg_try_advisory_xact_lock({self._key}), pg_backend_pid()"
            )
        except DatabaseUnavailable as error:
            if "statement pooling mode" not in str(error):
                raise
            raise DatabaseRefused(
                "the pooler is in statement mode, where no transaction is possible,"
                " and there is something to write",
                hint="set pool_mode=transaction for this database or user, or connect to"
                " PostgreSQL directly",
            ) from error
        return taken, pid

    def _wait_for_second_connection(self) -> int:
        try:
            with self._session.answered_within(_SECOND_CONNECTION_SECONDS):
                [(pid,)] = self._session.query("SELECT pg_backend_pid()")
        except DatabaseUnavailable as error:
            if not any(words in str(error) for words in ("no answer", "query_wait_timeout")):
                raise
            raise DatabaseRefused(
                "the pooler gave no second server connection: one holds the migration lock,"
                " and another one does the work",
                hint="raise default_pool_size (or pool_size of this database), to 2 at least,"
                " or connect to PostgreSQL directly",
            ) from error
        return int(pid)

    def release(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        with suppress(DatabaseUnavailable):  # then the lock is gone with the connection
            keeper.run("ROLLBACK")
        keeper.close()


_AdvisoryLock = _SessionLock | _TransactionLock


class _YoyoRow:
    """The row that keeps a stock ``yoyo apply`` out, and that one leaves while it works.

    Its pid is ours made negative: whoever holds the advisory lock and meets a negative one knows
    that its owner has lost that lock, as no two can hold it. Where such an owner is at work all
    the same, behind a pooler, its transaction has locked the row, which is left to it until then.
    """

    def __init__(self, session: Session, pid: int, emit: Emit) -> None:
        self._session = session
        self._mark = -pid
        self._since = ""
        self._emit = emit
        self._there = False

    def try_take(self) -> bool:
        if not self._there:
            engine.create_lock_table(self._session)
            self._there = True
        taken = self._session.query(
            "INSERT INTO yoyo_lock (locked, ctime, pid)"
            f" VALUES (1, clock_timestamp() AT TIME ZONE 'UTC', {self._mark})"
            f" ON CONFLICT DO NOTHING RETURNING {_SINCE}"
        )
        for (self._since,) in taken:
            return True
        return self._take_over()

    def _take_over(self) -> bool:
        # Not by waiting for the row: whoever waits holds a snapshot, as with the advisory lock.
        stale = self._session.query(
            f"UPDATE yoyo_lock SET pid = {self._mark}, ctime = clock_timestamp() AT TIME ZONE 'UTC'"
            " FROM (SELECT locked, pid AS stale FROM yoyo_lock WHERE pid < 0"
            " FOR NO KEY UPDATE SKIP LOCKED) AS before"
            f" WHERE yoyo_lock.locked = before.locked RETURNING stale, {_SINCE}"
        )
        for pid, self._since in stale:
            self._emit(StaleLockRemoved(-pid))
        return bool(stale)

    def holder(self, waited: float) -> WaitingInQueue | WaitingForYoyo | None:
        for pid, since in self._session.query(_YOYO_ROW):
            if pid > 0:
                return WaitingForYoyo(pid, since, waited)
            words = f"pid {-pid} (an initmig that has lost its lock, and has yet to end), since"
            return WaitingInQueue(f"{words} {since} UTC", -pid, (), waited)
        return None

    def guard(self) -> str:
        return _GUARD.format(ours=self._ours())

    def _ours(self) -> str:
        # with the time, because the pid may be another one's by now
        return f"pid = {self._mark} AND ctime = '{self._since}'"

    def release(self) -> None:
        if self._session.usable:
            self._session.query(f"DELETE FROM yoyo_lock WHERE {self._ours()}")


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
        pause, self._told_at = _FIRST_PAUSE_SECONDS, None
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
