"""What a long statement is doing, and who blocks it, asked from a second connection."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Self

from initmig.core.durations import format_duration
from initmig.core.errors import InitmigError, Place
from initmig.core.events import NotWatched, StatementRunning
from initmig.core.forks import CONNECT_LOCK
from initmig.core.records import Record
from initmig.core.report_schedule import ReportSchedule
from initmig.locking.queue import describe_wait
from initmig.postgres import checking_answers, quote_literal
from initmig.postgres.search_path import PIN_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from initmig.core.errors import ServerMessage
    from initmig.core.events import Emit
    from initmig.postgres import Session

_SHORTEST_PAUSE_SECONDS = 0.02
_NEW_CONNECTION_SECONDS = 1.0
"""Looks that are closer together share one connection; else each has one of its own."""
_LONGEST_TICK_SECONDS = 0.1
_JOIN_SECONDS = 0.5
"""For a look that is going on at the end: it may hang in a connection that nobody answers."""

_QUERY_SECONDS = 2.0
_QUERY_PREFIX_LENGTH = 600

_DEADLOCK = "40P01"
_MOST_BLOCKERS = 5
_LONGEST_QUERY = 80
_HIDDEN = "<insufficient privilege>"

# Only columns that PostgreSQL 14 to 18 have in common; a process is in one of the views at most.
# https://www.postgresql.org/docs/current/progress-reporting.html
_PROGRESS = """
SELECT coalesce(state, '') NOT LIKE 'idle%', coalesce(wait_event_type || ': ' || wait_event, ''),
    concat_ws(': ', command, phase), round(100.0 * done / nullif(total, 0))::int
FROM pg_stat_activity LEFT JOIN (
    SELECT pid, command,
        concat_ws(', ', phase,
            CASE WHEN partitions_total > 0
                THEN format('partition %s of %s', partitions_done + 1, partitions_total) END,
            CASE WHEN phase LIKE 'waiting for %' AND lockers_total > 0
                THEN format('%s of %s done', lockers_done, lockers_total) END),
        CASE WHEN phase LIKE 'waiting for %' THEN NULL
            WHEN blocks_total > 0 THEN blocks_done ELSE nullif(tuples_done, 0) END,
        CASE WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END
    FROM pg_stat_progress_create_index
    UNION ALL
    SELECT pid, 'VACUUM', phase,
        CASE phase WHEN 'scanning heap' THEN heap_blks_scanned
            WHEN 'vacuuming heap' THEN heap_blks_vacuumed END, heap_blks_total
    FROM pg_stat_progress_vacuum
    UNION ALL
    SELECT pid, command, phase,
        CASE phase WHEN 'seq scanning heap' THEN heap_blks_scanned END, heap_blks_total
    FROM pg_stat_progress_cluster
    UNION ALL
    SELECT pid, 'ANALYZE', phase,
        CASE WHEN phase LIKE 'acquiring %' THEN sample_blks_scanned END, sample_blks_total
    FROM pg_stat_progress_analyze
    UNION ALL
    SELECT pid, command, tuples_processed || ' rows', bytes_processed, bytes_total
    FROM pg_stat_progress_copy
) AS progress (pid, command, phase, done, total) USING (pid)
WHERE pid = {pid}"""

# Who blocks a blocker is in it too: that is the one to end.
_BLOCKERS = """
WITH RECURSIVE them (pid) AS (
    SELECT unnest({pids}) UNION SELECT unnest(pg_blocking_pids(pid)) FROM them)
SELECT pid, activity.pid IS NOT NULL, coalesce(usename, ''), coalesce(application_name, ''),
    coalesce(backend_type, ''), coalesce(state, ''),
    extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(left(query, 1000), ''),
    pg_blocking_pids(pid)
FROM them LEFT JOIN pg_stat_activity AS activity USING (pid)
WHERE pid <> {own} ORDER BY xact_start"""

# To pg_blocking_pids each is process 0; what they have of their own is the lock of their number.
_PREPARED = """
SELECT DISTINCT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_locks wanted
JOIN pg_locks held ON held.pid IS NULL AND held.granted
    AND (held.locktype, held.database, held.relation, held.page, held.tuple, held.virtualxid,
        held.transactionid, held.classid, held.objid, held.objsubid)
    IS NOT DISTINCT FROM (wanted.locktype, wanted.database, wanted.relation, wanted.page,
        wanted.tuple, wanted.virtualxid, wanted.transactionid, wanted.classid, wanted.objid,
        wanted.objsubid)
JOIN pg_locks own ON own.pid IS NULL AND own.locktype = 'transactionid'
    AND own.virtualtransaction = held.virtualtransaction
JOIN pg_prepared_xacts ON transaction = own.transactionid
WHERE NOT wanted.granted AND wanted.pid = ANY (ARRAY{pids})"""


class _RunningMigration:
    """A migration at work."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.begun = time.monotonic()
        self.blockers: tuple[str, ...] = ()
        self.at: Callable[[], Place] | None = None
        """Where what runs now begins."""
        self.found: tuple[Callable[[], Place] | None, Place] = (None, Place(""))
        """What *at* has said: in a large file that takes its time."""


class _Blocker(Record):
    """A process that is in the way, as pg_stat_activity shows it to this role."""

    pid: int
    exists: bool
    user: str
    application: str
    kind: str
    state: str
    age_seconds: float | None
    query: str
    blocked_by: list[int]


class StatementMonitor:
    """Tells what the migration at work is doing, and remembers who stood in its way.

    It tells in a *schedule*, and looks more often than that, every *look_every* seconds:
    PostgreSQL does not say who caused a lock timeout, so that has to be activity before it strikes.

    *pid* is the server process at work. Behind a pooler that changes with each transaction, and
    `mark`, SQL for the beginning of each, lets it be found; empty where it is not needed.
    """

    def __init__(
        self,
        session: Session,
        *,
        pid: int,
        look_every: float,
        emit: Emit,
        schedule: Callable[[], ReportSchedule] = ReportSchedule,
    ) -> None:
        self._session = session
        self._pid = pid
        self._name = f"initmig {os.urandom(8).hex()}" if pid != session.startup_pid else ""
        # not by pg_backend_pid(): after a query the isolation level cannot be set any more
        self.mark = f"SET LOCAL application_name = '{self._name}';" if self._name else ""
        self._look_every = min(max(look_every, _SHORTEST_PAUSE_SECONDS), schedule().first)
        self._schedule = schedule
        self._emit = emit
        self._work: _RunningMigration | None = None
        self._latest = _RunningMigration("")
        self._shared: Session | None = None
        self._shared_stack = ExitStack()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:  # as many threads as this user may have
            self._emit(NotWatched(str(error)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def start(self, id: str) -> None:
        """The migration *id* starts, or starts again, now."""
        self._session.is_monitored = True
        self._work = self._latest = _RunningMigration(id)

    def set_place(self, place: Callable[[], Place]) -> None:
        """What runs next begins at *place*, which another thread asks if it takes long."""
        if self._work:
            self._work.at = place

    def stop(self) -> None:
        """Nothing is at work."""
        self._session.is_monitored = False
        self._work = None

    @property
    def blockers(self) -> tuple[str, ...]:
        """Who stood in the way of the latest work when it was last looked at, in words."""
        return self._latest.blockers

    def blockers_of(self, server: ServerMessage) -> tuple[str, ...]:
        """Who made the latest work fail with *server*: as it was activity, or as it says itself."""
        pids = deadlocked_with(server.detail) if server.sqlstate == _DEADLOCK else []
        if not pids:
            return self.blockers
        try:
            if self._session.usable:
                # the session's own connection has nothing else to do after a failure
                with checking_answers():
                    return _describe_blockers(self._session, f"ARRAY{pids}", own=0)
        except (InitmigError, UnicodeError):  # psycopg reads no name that is not UTF-8
            pass
        return tuple(f"pid {pid}" for pid in pids)

    def _run(self) -> None:
        dense = self._look_every < _NEW_CONNECTION_SECONDS
        tick = min(_LONGEST_TICK_SECONDS, self._look_every / 4)
        watched, next_look, schedule = None, 0.0, self._schedule()
        not_before = 0.0
        with self._shared_stack:
            while not self._done.wait(tick):
                work = self._work
                if work is None:
                    continue
                if work is not watched:
                    watched, schedule, not_before = work, self._schedule(), 0.0
                    next_look = 0.0 if dense else self._look_every
                elapsed = time.monotonic() - work.begun
                if elapsed < max(not_before, min(next_look, schedule.due)):
                    continue
                if self._report(work, elapsed, schedule):
                    next_look, not_before = elapsed + self._look_every, 0.0
                else:
                    # a server without a slot left logs each attempt: no more than needed
                    not_before = elapsed + schedule.first

    def _report(self, work: _RunningMigration, elapsed: float, schedule: ReportSchedule) -> bool:
        """Whether it could be asked."""
        try:
            with self._second_connection() as other, checking_answers():
                activity = _activity(other, self._backend_pid(other))
        except (InitmigError, OSError):
            # no slot, no right, no file descriptor, an odd answer: the statement still goes on
            return False
        if (
            activity.busy
        ):  # else the timeout has struck, and who caused it is not waited for any more
            work.blockers = activity.blockers
        if work is self._work and schedule.is_due(elapsed, activity.report_key):
            path, line = _file_and_line(work)
            self._emit(
                StatementRunning(work.id, elapsed, activity.doing, activity.blockers, path, line)
            )
            schedule.reported(elapsed, activity.report_key)
        return True

    def _backend_pid(self, other: Session) -> int:
        """The server process; 0 where it cannot be found: behind a pooler, in no transaction."""
        if not self._name:
            return self._pid
        rows = other.query(
            f"SELECT pid FROM pg_stat_activity WHERE application_name = '{self._name}'"
        )
        return int(rows[0][0]) if rows else 0

    @contextmanager
    def _second_connection(self) -> Iterator[Session]:
        if self._look_every >= _NEW_CONNECTION_SECONDS:
            with closing(self._connect()) as other:
                yield other
            return
        if self._shared is None:
            self._shared = self._shared_stack.enter_context(closing(self._connect()))
        try:
            yield self._shared
        except InitmigError:
            self._shared = None
            self._shared_stack.close()
            raise

    def _connect(self) -> Session:
        with CONNECT_LOCK:
            return self._session.sibling()


def _file_and_line(work: _RunningMigration) -> tuple[str, int]:
    """File and line of what *work* has sent."""
    at, place = work.at, work.found[1]
    if at and at is not work.found[0]:
        place = at()
        work.found = (at, place)
    return place.path, place.line


class Activity(Record):
    """What a server process was doing."""

    busy: bool
    doing: str
    blockers: tuple[str, ...]
    phase: str = ""

    @property
    def report_key(self) -> object:
        """What is news when it changes: the phase and the blockers, but no numbers of either."""
        return re.sub(r"\d+", "", self.phase), tuple(each.split(" (")[0] for each in self.blockers)


def activity_of(session: Session, sql: str) -> Activity:
    """What the server process that runs *sql* for *session* is doing, from a second connection.

    :raises InitmigError: it cannot be asked
    """
    with closing(session.sibling(limit=_QUERY_SECONDS)) as other, checking_answers():
        other.answer_timeout = _QUERY_SECONDS
        if session.is_dedicated:
            return _activity(other, session.startup_pid)
        # behind a pooler, the process is another one than at start-up
        beginning = quote_literal(sql[:_QUERY_PREFIX_LENGTH])
        rows = other.query(
            "SELECT coalesce(min(pid), 0) FROM pg_stat_activity WHERE state = 'active'"
            f" AND left(query, {_QUERY_PREFIX_LENGTH}) = {beginning} AND pid <> pg_backend_pid()"
        )
        return _activity(other, int(rows[0][0]))


def _activity(other: Session, pid: int) -> Activity:
    rows = other.query(_PROGRESS.replace("{pid}", str(pid)))
    blockers = _describe_blockers(other, f"pg_blocking_pids({pid})", own=pid)
    busy, *doing = rows[0] if rows else (False, "", "", None)
    return Activity(busy, _describe_activity(*doing), blockers, doing[1])


def deadlocked_with(detail: str) -> list[int]:
    """The other processes of the deadlock of which the server says *detail*, in its language."""
    # each line: this process waits for that lock, blocked by that process; the first is ours
    lines = [[int(number) for number in re.findall(r"\d+", line)] for line in detail.splitlines()]
    if not all(lines) or {line[0] for line in lines} != {line[-1] for line in lines}:
        return []
    return [line[0] for line in lines[1:]]


def _describe_blockers(session: Session, pids: str, *, own: int) -> tuple[str, ...]:
    """The processes *pids*, and who blocks these in turn, without *own*."""
    rows = session.query(_BLOCKERS.format(pids=pids, own=own))
    blockers = [_Blocker(*row) for row in rows]
    words = [_describe_blocker(each) for each in blockers if each.pid]
    if len(words) < len(blockers):
        waiting = [own, *(each.pid for each in blockers if each.pid)]
        prepared = session.query(_PREPARED.format(pids=waiting))
        words = (
            [_describe_prepared(*row) for row in prepared] or ["a prepared transaction"]
        ) + words
    more = len(words) - _MOST_BLOCKERS
    return tuple(words[:_MOST_BLOCKERS] + ([f"and {more} more"] if more > 0 else []))


def _describe_activity(waits_for: str, phase: str, percent: int | None) -> str:
    words = [phase or "running"]
    if percent is not None:
        words.append(f"{min(max(percent, 0), 100)} %")
    if waits_for:
        words.append(describe_wait(waits_for))
    return ", ".join(words)


def _describe_blocker(blocker: _Blocker) -> str:
    if not blocker.exists:
        return f"pid {blocker.pid} (already ended)"
    facts = ", ".join(_facts(blocker))
    if blocker.query == _HIDDEN:
        return f"pid {blocker.pid} ({facts})"
    from initmig.sql.masking import mask_sql

    # masked before it is cut: half a secret is one, too; and as it is: a comment ends with its line
    query = " ".join(mask_sql(blocker.query.replace(PIN_PATH, "")).split())
    return f"pid {blocker.pid} ({facts}): {query[:_LONGEST_QUERY]}"


def _facts(blocker: _Blocker) -> Iterator[str]:
    if blocker.kind in ("client backend", ""):
        yield blocker.application or "no application name"
        yield f"user {blocker.user or 'unknown'}"
    else:
        yield blocker.kind
    if blocker.query == _HIDDEN:
        yield "details hidden from this role: grant it pg_read_all_stats to see them"
    else:
        yield blocker.state or "state unknown"
    if blocker.age_seconds is not None:
        yield f"transaction open for {format_duration(blocker.age_seconds)}"
    if blocker.blocked_by:
        by = (f"pid {pid}" if pid else "a prepared transaction" for pid in blocker.blocked_by)
        yield f"itself blocked by {', '.join(by)}"


def _describe_prepared(gid: str, owner: str, age_seconds: float) -> str:
    return (
        f"prepared transaction {gid!r} (user {owner}, prepared {format_duration(age_seconds)} ago,"
        " only COMMIT PREPARED or ROLLBACK PREPARED ends it)"
    )
