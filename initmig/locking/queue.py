"""The queue for the migration lock: polls, and reports the holder.

A session that blocks in ``pg_advisory_lock`` holds a snapshot. A CREATE INDEX CONCURRENTLY of the
holder waits for that snapshot, which is a deadlock. See docs/explanation/locking.md.
"""

from __future__ import annotations

from initmig.core.durations import format_duration
from initmig.core.errors import DatabaseRefused, DatabaseUnavailable, QueueTimeout
from initmig.core.events import WaitingForYoyo, WaitingInQueue
from initmig.core.home import LOCK
from initmig.core.records import TYPE_CHECKING, Record
from initmig.history.location import columns_of, home_of
from initmig.postgres import NAME_PRIMARY, TAKES_WRITES, StatementFailed, quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from initmig.core.clock import Clock
    from initmig.core.events import Emit, Event
    from initmig.postgres import Session

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_REPORT_SECONDS = 10.0
_CHECK_SECONDS = 1.0

# The key depends on the schema of the history, so two schemas of one database can be migrated in
# parallel. All histories in a schema share it, as they share yoyo's lock. The seed is an arbitrary
# constant that avoids the key of another tool that hashes the schema name.
_FACTS = """
SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
    coalesce(has_schema_privilege((SELECT oid FROM pg_namespace WHERE nspname = {schema}), 'USAGE'),
             false),
    hashtextextended(quote_ident({schema}), 20261122)"""

# Any role that can connect can take the key, shared or exclusively, and can leave it in a prepared
# transaction, which has no process. A session with the same application name as this one counts as
# an initmig. A waiting initmig briefly holds the key in shared mode, so initmigs sort last.
_HOLDERS = """
SELECT coalesce(l.pid, 0), coalesce(a.usename, p.owner, ''), coalesce(a.application_name, ''),
    coalesce(host(a.client_addr), ''),
    extract(epoch FROM clock_timestamp() - coalesce(a.backend_start, p.prepared))::float8,
    coalesce(a.state, ''), coalesce(pg_blocking_pids(a.pid), '{{}}'),
    CASE WHEN NOT starts_with(a.state, 'idle')
        THEN concat_ws(': ', a.wait_event_type, a.wait_event) ELSE '' END,
    coalesce(p.gid, ''), coalesce(a.application_name = ANY (
        ARRAY['initmig', current_setting('application_name')]), false)
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.granted
    AND t.virtualtransaction = l.virtualtransaction AND t.locktype = 'transactionid'
LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::int8 << 32 | l.objid::int8) = {key}
ORDER BY l.mode = 'ExclusiveLock' DESC, 10, 1"""

# Try only briefly: the result only improves a message.
_HAS_ROW = """
SET LOCAL lock_timeout = 100;
SELECT 1 FROM {lock} WHERE pid OPERATOR(pg_catalog.=) -{pid}"""

_SHOWN_HOLDERS = 3


class ServerFacts(Record):
    """State of the server, read before anything is written."""

    pooled: bool
    """Whether a pooler has assigned another server connection since startup."""
    backend_pid: int
    standby: bool
    read_only: bool
    has_schema: bool
    """Whether the schema of the history exists and the role has USAGE on it."""
    key: int


def server_facts(session: Session) -> ServerFacts:
    """Read the state of the server.

    :raises InitmigError: the query fails
    """
    schema = quote_literal(home_of(session).schema)
    pid, *facts = session.query(_FACTS.format(schema=schema))[0]
    return ServerFacts(pid != session.startup_pid, pid, *facts)


def check_writable(session: Session) -> ServerFacts:
    """Read the state of the server, and check that it accepts writes.

    :raises DatabaseUnavailable: the server is a standby or read-only
    :raises DatabaseRefused: the schema does not exist, or the role lacks the USAGE privilege on it
    :raises InitmigError: the query fails
    """
    facts = server_facts(session)
    if facts.standby:
        raise DatabaseUnavailable(
            "standby",
            "the server is a standby, which accepts no writes",
            hint=NAME_PRIMARY,
        )
    if facts.read_only:
        raise DatabaseUnavailable(
            "read-only",
            "the server is read-only (default_transaction_read_only is on)",
            hint=TAKES_WRITES,
        )
    if not facts.has_schema:
        schema = home_of(session).schema
        raise DatabaseRefused(
            "no-schema",
            f"the schema {schema} does not exist, or the role lacks the USAGE privilege on it"
            if schema
            else "no schema in the search path exists, or the role lacks the USAGE privilege on it",
            hint="create the schema and grant USAGE and CREATE on it to the role,"
            " or correct --schema",
        )
    return facts


class SessionLock:
    """The lock of a direct connection. It ends with the connection at the latest."""

    def __init__(self, session: Session, key: int, pid: int) -> None:
        self.pid = self.worker_pid = pid
        self._session = session
        self._key = key
        self._taken = False

    def try_take(self) -> bool:
        """Try to take the lock. Return whether this session holds it now."""
        taken = self._session.query(f"SELECT pg_try_advisory_lock({self._key})")[0][0]
        self._taken = bool(taken)
        if self._taken:
            self._session.preserve_lock(self._key)
        return self._taken

    def release(self) -> None:
        """Release the lock if it was taken and the connection still works."""
        if self._taken and self._session.usable:
            # releases all: `wait_for_turn` and the migration each took the lock
            self._session.query("SELECT pg_advisory_unlock_all()")


def wait_for_turn(
    session: Session,
    *,
    timeout: float,
    clock: Clock,
    emit: Emit,
    is_needed: Callable[[], bool],
) -> bool:
    """Return True once no other migrator is working, or False once *is_needed* returns False.

    On True, the advisory lock is held, but not yoyo's row, which requires importing yoyo: of many
    copies that start together, only one prepares for work. Behind a pooler, where a connection
    cannot keep a lock, it returns True immediately.

    :raises QueueTimeout: another migrator still holds the lock after *timeout* seconds (0: no
        timeout)
    :raises InitmigError: as `check_writable`
    """
    facts = check_writable(session)
    if facts.pooled:
        return True
    session.apply_session_settings()
    turn = _TurnLock(session, facts, clock, is_needed)
    queue = Queue(timeout, clock, emit, turn.is_needed)
    return queue.wait(turn.try_take, lambda: holder_of(session, facts.key, queue.waited()))


class _TurnLock(SessionLock):
    """The same lock, polled cheaply, because hundreds of copies may wait."""

    def __init__(
        self, session: Session, facts: ServerFacts, clock: Clock, is_needed: Callable[[], bool]
    ) -> None:
        super().__init__(session, facts.key, facts.backend_pid)
        self._clock = clock
        self._check_needed = is_needed
        self._checked_at = clock.now()
        self._free = True

    def try_take(self) -> bool:
        return self._free and super().try_take()

    def is_needed(self) -> bool:
        """Return whether to continue. Checks at most once a second while the lock is taken."""
        # shared, and for this statement only, so that other waiting sessions can do the same
        look = f"SELECT pg_try_advisory_xact_lock_shared({self._key})"
        self._free = self._session.query(look)[0][0]
        if not self._free and self._clock.now() - self._checked_at < _CHECK_SECONDS:
            return True
        self._checked_at = self._clock.now()
        return self._check_needed()


class Queue:
    """Waits for other migrators: polls with growing, jittered pauses, and reports the holder."""

    def __init__(
        self, timeout: float, clock: Clock, emit: Emit, is_needed: Callable[[], bool]
    ) -> None:
        self._timeout = timeout
        self.clock = clock
        self.emit = emit
        self._is_needed = is_needed
        self._started = clock.now()
        self._reported_at: float | None = None

    def waited(self) -> float:
        """Seconds waited so far."""
        return self.clock.now() - self._started

    def wait(
        self,
        try_take: Callable[[], bool],
        holder: Callable[[], WaitingInQueue | WaitingForYoyo | None],
    ) -> bool:
        """Return True once *try_take* succeeds, or False once the work is no longer needed."""
        self._reported_at = None
        while not try_take():
            self._report(holder)
            self.clock.sleep(self._pause())
            # check first: the lock is free once the leader has finished the work
            if not self._is_needed():
                return False
        return True

    def _pause(self) -> float:
        # an eighth of the wait so far, which keeps the extra delay proportional
        longest = min(max(_FIRST_PAUSE_SECONDS, self.waited() / 8), _LONGEST_PAUSE_SECONDS)
        return longest * (1 + self.clock.jitter()) / 2

    def _report(self, holder: Callable[[], WaitingInQueue | WaitingForYoyo | None]) -> None:
        over = 0 < self._timeout <= self.waited()
        due = self._reported_at is None or self.waited() - self._reported_at >= _REPORT_SECONDS
        if not (over or due):
            return
        event = holder()
        if over:
            raise _queue_timeout(event, self._timeout)
        if event:
            self._reported_at = self.waited()
            self.emit(event)


def _queue_timeout(event: Event | None, timeout: float) -> QueueTimeout:
    whom, hint = "another migrator", "let it finish, or raise --queue-timeout"
    if isinstance(event, WaitingForYoyo):
        whom = f"yoyo: its process {event.pid} has held the lock since {event.locked_at_utc} UTC"
        hint = "if that process no longer exists, remove its lock row with `initmig unlock`"
    if isinstance(event, WaitingInQueue):
        if not event.is_migrator:
            whom = "a session that holds the migration lock but is not initmig"
        whom += f": {event.holder}"
        hint += f"; {event.next_step}" if event.next_step else ""
    message = f"timed out after {format_duration(timeout)} waiting for {whom}"
    return QueueTimeout("queue-timeout", message, hint=hint)


class _Holder(Record):
    """A session, or a prepared transaction, that holds the lock."""

    pid: int
    """Server process id; 0 for a prepared transaction."""
    role: str
    """The login role."""
    application: str
    address: str
    seconds: float | None
    """Since the session connected or the transaction was prepared; None if hidden from the role."""
    state: str
    blocked_by: Sequence[int]
    waits_for: str
    gid: str
    """The id of a prepared transaction; empty for a session."""
    is_migrator: bool

    @property
    def description(self) -> str:
        """Its identity, its age, and its activity."""
        role = f"user {self.role or 'unknown'}"
        since = "" if self.seconds is None else format_duration(self.seconds)
        if not self.pid:
            return f"prepared transaction {quote_literal(self.gid)} ({role}), prepared {since} ago"
        words = f"pid {self.pid} ({self.application or 'no application name'}, {role}"
        words += f", from {self.address})" if self.address else ")"
        words += f", connected for {since}" if since else ""
        words += f", {self.state or 'state unknown'}"
        words += f", {describe_wait(self.waits_for)}" if self.waits_for else ""
        if self.blocked_by:
            words += f", itself blocked by pid {', '.join(map(str, self.blocked_by))}"
        return words

    @property
    def is_idle(self) -> bool:
        """Whether it is not known to run anything, so it might have been forgotten."""
        return not self.pid or self.state.startswith("idle")

    @property
    def end_statement(self) -> str:
        """The statement that stops it, which releases the lock."""
        if self.pid:
            return f"SELECT pg_terminate_backend({self.pid});"
        return f"ROLLBACK PREPARED {quote_literal(self.gid)};"


def holder_of(session: Session, key: int, waited: float) -> WaitingInQueue | None:
    """The holder of the lock *key*, for a process that has waited *waited* seconds."""
    rows = [_Holder(*row) for row in session.query(_HOLDERS.format(key=key))]
    # a session may hold the lock twice, exclusively and shared
    holders = list({(row.pid, row.gid): row for row in rows}.values())
    if not holders:
        return None
    first = holders[0]
    is_migrator = first.is_migrator or _has_row(session, first.pid)
    shown, more = holders[:_SHOWN_HOLDERS], len(holders) - _SHOWN_HOLDERS
    words = "; ".join(each.description for each in shown) + (
        f"; and {more} more" if more > 0 else ""
    )
    next_step = ""
    if first.is_idle or not is_migrator:
        ending = " ".join(each.end_statement for each in shown)
        unwanted = "was left open by mistake" if is_migrator else "should not hold the lock"
        next_step = f"if it {unwanted}, end it: {ending}"
    blocked_by = tuple(first.blocked_by)
    return WaitingInQueue(words, first.pid, blocked_by, waited, first.role, is_migrator, next_step)


def _has_row(session: Session, pid: int) -> bool:
    """Whether the row of ``yoyo_lock`` belongs to the server process *pid*."""
    home = home_of(session)
    if not (pid and columns_of(session, home, (LOCK,))):
        return False
    try:
        return bool(session.run(session.preamble + _HAS_ROW.format(lock=home.lock, pid=pid)))
    except StatementFailed:  # no privilege, or the table is locked
        return False


def describe_wait(event: str) -> str:
    """Describe the wait *event*, such as ``IPC: SyncRep``, with a next step if there is one."""
    # https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-IPC-TABLE
    if event == "IPC: SyncRep":
        event += (
            " (no synchronous standby has confirmed the commit; start one or change"
            " synchronous_standby_names)"
        )
    return f"waiting for {event}"
