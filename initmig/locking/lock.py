"""The migration lock: PostgreSQL's advisory lock plus the lock row of stock yoyo.

Both are polled. See docs/explanation/locking.md.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from initmig.core.causes import LOCK_LOST
from initmig.core.errors import DatabaseRefused, DatabaseUnavailable, InitmigError
from initmig.core.events import (
    LockAcquired,
    LockNotReleased,
    StaleLockRemoved,
    WaitingForYoyo,
    WaitingInQueue,
)
from initmig.core.home import LOCK
from initmig.core.records import Record
from initmig.history import trust
from initmig.history.location import columns_of, home_of, trusted_home
from initmig.locking.queue import Queue, SessionLock, check_writable, holder_of
from initmig.postgres import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initmig.core.clock import Clock
    from initmig.core.events import Emit
    from initmig.locking.queue import ServerFacts
    from initmig.postgres import Session

    CreateTable = Callable[[Session], None]

_SECOND_CONNECTION_SECONDS = 30.0
"""Time for a pooler to provide a second server connection. Waiting sessions return theirs quickly.
"""

_RELEASE_SECONDS = 5.0

# Try once only: a leftover row blocks nothing except stock yoyo. Do not wait for a synchronous
# standby to confirm the removal.
_RELEASE_SETTINGS = (
    "SET LOCAL lock_timeout = 2000; SET LOCAL statement_timeout = 0;"
    " SET LOCAL synchronous_commit = local;"
)

_LOCKED_AT = "coalesce(ctime::text, 'an unknown time')"

_SINCE = "to_char(l.ctime, 'YYYY-MM-DD HH24:MI:SS.US')"

_GUARD = f"""
BEGIN
    PERFORM FROM {{table}} WHERE {{own_row}} FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'it held the migration lock, and another migrator has taken over'
            USING ERRCODE = '{LOCK_LOST}';
    END IF;
END"""


class HeldLock(Record):
    """How this process holds the migration lock."""

    pid: int
    """The server process that works; behind a pooler, the latest one."""
    pooled: bool
    guard: str
    """SQL to send with each BEGIN, after the settings. Empty if the lock needs no guard.

    It fails if the lock was lost. Otherwise it prevents others from taking the lock until COMMIT.
    """


@contextmanager
def migration_lock(
    session: Session, queue: Queue, create_table: CreateTable
) -> Iterator[HeldLock | None]:
    """Hold the migration lock inside the block; yield None if *queue* finds no work left.

    *create_table* creates yoyo's lock table if it is missing.

    :raises QueueTimeout: another migrator still holds the lock after the queue timeout
    :raises DatabaseUnavailable: the server is a standby or read-only, but another host may accept
        writes
    :raises DatabaseRefused: there is no schema to work in, or a pooler is not usable
    """
    facts = _prepare_session(session, queue)
    lock: _AdvisoryLock = SessionLock(session, facts.key, facts.backend_pid)
    if facts.pooled:
        lock = _PooledLock(session, facts.key)
    with ExitStack() as stack:
        stack.callback(_release, lock.release, queue.emit)
        if not queue.wait(lock.try_take, lambda: holder_of(session, facts.key, queue.waited())):
            yield None
            return
        row = _YoyoRow(session, lock.pid, queue.emit, create_table)
        if not queue.wait(row.try_take, lambda: row.holder(queue.waited())):
            yield None
            return
        stack.callback(_release, row.release, queue.emit)
        queue.emit(LockAcquired(queue.waited(), facts.pooled))
        yield HeldLock(lock.worker_pid, facts.pooled, row.guard() if facts.pooled else "")


def _release(release: Callable[[], None], emit: Emit) -> None:
    """Call *release*. Report a failure but do not raise it: the run's outcome is final."""
    try:
        release()
    except InitmigError as error:
        emit(LockNotReleased(str(error)))


def _prepare_session(session: Session, queue: Queue) -> ServerFacts:
    """Prepare *session* for the wait in *queue*."""
    facts = check_writable(session)
    if facts.pooled:
        session.apply_own_timeouts()
        queue.clock = _disconnected_sleep(session, queue.clock)
    else:
        session.apply_session_settings()
    return facts


def _disconnected_sleep(session: Session, clock: Clock) -> Clock:
    """Return *clock* with a sleep that disconnects *session* while it waits.

    With a pool in session mode, a waiting connection would take a slot that the migrator needs.
    """

    def sleep(seconds: float) -> None:
        session.close()
        clock.sleep(seconds)
        session.reconnect()
        session.apply_own_timeouts()

    return clock._replace(sleep=sleep)


@contextmanager
def lock_for_rehearsal(
    session: Session, queue: Queue, create_table: CreateTable
) -> Iterator[HeldLock | None]:
    """Hold the lock in a transaction that is rolled back; yield None as `migration_lock` does.

    The transaction also contains yoyo's lock row. Others cannot see the row, and a yoyo waits for
    the end of the transaction. The arguments and errors are those of `migration_lock`.
    """
    facts = _prepare_session(session, queue)
    lock = _RehearsalLock(session, facts.key, create_table)
    try:
        if not queue.wait(lock.try_take, lambda: lock.holder(queue.waited())):
            yield None
            return
        queue.emit(LockAcquired(queue.waited(), facts.pooled))
        yield HeldLock(lock.pid, facts.pooled, "")
    finally:
        if session.in_transaction:
            with suppress(DatabaseUnavailable):  # the server rolls back
                session.run_own("ROLLBACK")


class _RehearsalLock:
    """Both locks in the transaction that needs them. It begins only if both are free."""

    def __init__(self, session: Session, key: int, create_table: CreateTable) -> None:
        self.pid = 0
        self._session = session
        self._key = key
        self._create_table = create_table

    def try_take(self) -> bool:
        return self._session.with_retries(self._try)

    def _try(self) -> bool:
        taken, self.pid = _begin_with_lock(self._session, self._key)
        try:
            taken = taken and self._row().try_take()
        except DatabaseRefused:
            self._session.run_own("ROLLBACK")
            raise
        if not taken:
            self._session.run_own("ROLLBACK")
        return taken

    def holder(self, waited: float) -> WaitingInQueue | WaitingForYoyo | None:
        return holder_of(self._session, self._key, waited) or self._row().holder(waited)

    def _row(self) -> _YoyoRow:
        # the rollback keeps the stale row of a dead initmig, so do not report its removal
        return _YoyoRow(self._session, self.pid, lambda _: None, self._create_table)


def remove_yoyo_row(session: Session) -> list[tuple[int, str]]:
    """Remove the row from ``yoyo_lock``. Return its process id and its time (UTC).

    A negative process id marks a row of initmig. It is removed only if no initmig is working.
    """
    home = trusted_home(session)
    if not columns_of(session, home, (LOCK,)):
        return []
    key = check_writable(session).key
    # locks for this statement only, which also works behind a pooler
    rows = session.query(
        f"{trust.write_guard(session, home.lock)}DELETE FROM {home.lock}"
        f" WHERE locked IN (SELECT locked FROM {home.lock} FOR UPDATE SKIP LOCKED)"
        f" AND (pid > 0 OR pg_try_advisory_xact_lock({key}))"
        f" RETURNING abs(pid::bigint), {_LOCKED_AT}"
    )
    return [(pid, locked_at) for pid, locked_at in rows]


def _begin_with_lock(session: Session, key: int) -> tuple[bool, int]:
    """Begin a transaction and try to take the lock. Return the result and the server process id."""
    [(taken, pid)] = open_transaction(
        session,
        f"BEGIN ISOLATION LEVEL READ COMMITTED; {session.transaction_settings}"
        f" SELECT pg_catalog.pg_try_advisory_xact_lock({key}), pg_catalog.pg_backend_pid()",
    )
    return taken, pid


def open_transaction(session: Session, script: str) -> list[tuple[Any, ...]]:
    """Run *script*, which starts with BEGIN, and return its rows.

    :raises DatabaseRefused: the pooler is in statement mode
    """
    try:
        return session.run_own(script)
    except DatabaseUnavailable as error:
        if "statement pooling mode" not in str(error):
            raise
        raise DatabaseRefused(
            "pooler-statement-mode",
            "the pooler is in statement mode, which allows no transactions",
            hint="set pool_mode=transaction for this database or user, or connect to"
            " PostgreSQL directly",
        ) from error


class _PooledLock:
    """The lock behind a pooler, which lends a server connection for one transaction only.

    The transaction stays open on the current connection, and the session continues with a new one.
    In READ COMMITTED, an idle transaction holds no snapshot, so CREATE INDEX CONCURRENTLY does not
    wait for it.
    """

    def __init__(self, session: Session, key: int) -> None:
        self.pid = self.worker_pid = 0
        self._session = session
        self._key = key
        self._lock_session: Session | None = None

    def try_take(self) -> bool:
        taken, self.pid = _begin_with_lock(self._session, self._key)
        if not taken:
            self._session.run_own("ROLLBACK")
            return False
        self._lock_session = self._session.detach()
        self._session.reconnect()
        self._session.apply_own_timeouts()
        self.worker_pid = self._wait_for_second_connection()
        return True

    def _wait_for_second_connection(self) -> int:
        try:
            self._session.answer_timeout = _SECOND_CONNECTION_SECONDS
            [(pid,)] = self._session.query("SELECT pg_backend_pid()")
        except DatabaseUnavailable as error:
            if not any(words in str(error) for words in ("no answer", "query_wait_timeout")):
                raise
            raise DatabaseRefused(
                "pooler-too-small",
                "the pooler provided no second server connection: initmig needs one to hold the"
                " migration lock and one to migrate",
                hint="set default_pool_size (or this database's pool_size) to at least 2,"
                " or connect to PostgreSQL directly",
            ) from error
        finally:
            del self._session.answer_timeout
        return int(pid)

    def release(self) -> None:
        lock_session, self._lock_session = self._lock_session, None
        if lock_session is None:
            return
        with suppress(DatabaseUnavailable):  # the lock ended with the connection
            lock_session.run_own("ROLLBACK")
        lock_session.close()


_AdvisoryLock = SessionLock | _PooledLock


def yoyo_holder(session: Session, waited: float) -> WaitingInQueue | WaitingForYoyo | None:
    """The owner of the row in ``yoyo_lock``, for a process that has waited *waited* seconds."""
    query = f"SELECT pid, {_LOCKED_AT} FROM {trusted_home(session).lock}"
    for pid, since in session.query(query):
        if pid > 0:
            return WaitingForYoyo(pid, since, waited)
        words = f"pid {-pid} (an initmig that lost its lock and is still ending), since {since} UTC"
        return WaitingInQueue(words, -pid, (), waited)
    return None


class _YoyoRow:
    """The lock row: it keeps a stock ``yoyo apply`` out, and yoyo inserts one while it works.

    initmig writes its server process id as a negative number. A process that holds the advisory
    lock and finds a negative id knows that the owner has lost the lock, because two processes
    cannot hold it. If that owner is still working behind a pooler, its transaction has locked the
    row, and the row is left alone until the transaction ends.
    """

    def __init__(self, session: Session, pid: int, emit: Emit, create_table: CreateTable) -> None:
        self._session = session
        self._create_table = create_table
        self._table = home_of(session).lock
        self._row_pid = -pid
        self._since = ""
        self._emit = emit
        self._table_ready = False

    def try_take(self) -> bool:
        if not self._table_ready:
            self._create_table(self._session)
            trust.require_trusted(self._session, home_of(self._session))
            self._table_ready = True
        taken = self._session.query(
            f"{trust.write_guard(self._session, self._table)}"
            f"INSERT INTO {self._table} AS l (locked, ctime, pid)"
            f" VALUES (1, clock_timestamp() AT TIME ZONE 'UTC', {self._row_pid})"
            f" ON CONFLICT DO NOTHING RETURNING {_SINCE}"
        )
        for (self._since,) in taken:
            return True
        return self._take_over()

    def _take_over(self) -> bool:
        # Do not wait for the row: a waiting session holds a snapshot, as with the advisory lock.
        stale = self._session.query(
            f"{trust.write_guard(self._session, self._table)}UPDATE {self._table} AS l"
            f" SET pid = {self._row_pid}, ctime = clock_timestamp() AT TIME ZONE 'UTC'"
            f" FROM (SELECT locked, pid AS stale FROM {self._table} WHERE pid < 0"
            " FOR NO KEY UPDATE SKIP LOCKED) AS before"
            f" WHERE l.locked = before.locked RETURNING stale, {_SINCE}"
        )
        for pid, self._since in stale:
            self._emit(StaleLockRemoved(-pid))
        return bool(stale)

    def holder(self, waited: float) -> WaitingInQueue | WaitingForYoyo | None:
        return yoyo_holder(self._session, waited)

    def guard(self) -> str:
        block = _GUARD.format(table=self._table, own_row=self._own_row())
        return f"DO {quote_literal(block)};"

    def _own_row(self) -> str:
        # compares the time, too, because another process may have the same pid by now
        return (
            f"pid OPERATOR(pg_catalog.=) {self._row_pid}"
            f" AND ctime OPERATOR(pg_catalog.=) '{self._since}'"
        )

    def release(self) -> None:
        if self._session.usable:
            self._session.answer_timeout = _RELEASE_SECONDS
            try:
                writing = trust.write_guard(self._session, self._table)
                self._session.run(
                    f"{self._session.preamble}{_RELEASE_SETTINGS}{writing}"
                    f"DELETE FROM {self._table} WHERE {self._own_row()}"
                )
            finally:
                del self._session.answer_timeout
