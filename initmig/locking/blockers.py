"""Report progress and blockers of a long statement, using a second connection."""

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
"""If queries come at shorter intervals, they share one connection. Otherwise each opens a new one,
unless a command provides the password.
"""
_LONGEST_TICK_SECONDS = 0.1
_JOIN_SECONDS = 0.5
"""Limit for a query that is running at the end: it may hang while connecting."""

_QUERY_SECONDS = 2.0
_QUERY_PREFIX_LENGTH = 600

_DEADLOCK = "40P01"
_MOST_BLOCKERS = 5
_LONGEST_QUERY = 80
_HIDDEN = "<insufficient privilege>"

# Uses only columns that PostgreSQL 14 to 18 share. A process is in at most one of the views.
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

# Includes the blockers of blockers, because the first one in the chain is the one to end.
_BLOCKERS = """
WITH RECURSIVE them (pid) AS (
    SELECT unnest({pids}) UNION SELECT unnest(pg_blocking_pids(pid)) FROM them)
SELECT pid, activity.pid IS NOT NULL, coalesce(usename, ''), coalesce(application_name, ''),
    coalesce(backend_type, ''), coalesce(state, ''),
    extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(left(query, 1000), ''),
    pg_blocking_pids(pid)
FROM them LEFT JOIN pg_stat_activity AS activity USING (pid)
WHERE pid <> {own} ORDER BY xact_start"""

# pg_blocking_pids() returns 0 for every prepared transaction. They differ by the lock that each
# holds on its own transaction id.
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
    """The migration that is running."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.begun = time.monotonic()
        self.blockers: tuple[str, ...] = ()
        self.at: Callable[[], Place] | None = None
        """Returns the place of the statement that is running."""
        self.found: tuple[Callable[[], Place] | None, Place] = (None, Place(""))
        """The last result of *at*, which is slow for a large file."""


class _Blocker(Record):
    """A blocking process, as pg_stat_activity shows it to this role."""

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
    """Reports the progress of the running migration and remembers its blockers.

    Reports follow *schedule*. The monitor queries more often, every *look_every* seconds, because
    PostgreSQL does not report who caused a lock timeout: the blockers must be seen before it
    strikes.

    *pid* is the server process that runs the migration. Behind a pooler it changes with each
    transaction. `mark` is then SQL that starts each transaction and identifies its process.
    Otherwise `mark` is empty.
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
        # not pg_backend_pid(): after a query, the isolation level can no longer be set
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
        except RuntimeError as error:  # the limit of threads for this user
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
        """Record that the migration *id* starts, or starts again."""
        self._session.is_monitored = True
        self._work = self._latest = _RunningMigration(id)

    def set_place(self, place: Callable[[], Place]) -> None:
        """Record where the next statement begins. The monitor's thread calls *place* if needed."""
        if self._work:
            self._work.at = place

    def stop(self) -> None:
        """Record that no migration is running."""
        self._session.is_monitored = False
        self._work = None

    @property
    def blockers(self) -> tuple[str, ...]:
        """Descriptions of the processes that last blocked the latest migration."""
        return self._latest.blockers

    def blockers_of(self, server: ServerMessage) -> tuple[str, ...]:
        """Descriptions of the processes that made the latest migration fail with *server*.

        For a deadlock the server's message names them. Otherwise they are the last ones that were
        seen.
        """
        pids = deadlocked_with(server.detail) if server.sqlstate == _DEADLOCK else []
        if not pids:
            return self.blockers
        try:
            if self._session.usable:
                # after a failure, the session's own connection is idle
                with checking_answers():
                    return _describe_blockers(self._session, f"ARRAY{pids}", own=0)
        except InitmigError:
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
                    # a server without a free slot logs each attempt, so make few
                    not_before = elapsed + schedule.first

    def _report(self, work: _RunningMigration, elapsed: float, schedule: ReportSchedule) -> bool:
        """Query and report. Return whether the query succeeded."""
        try:
            with self._second_connection() as other, checking_answers():
                activity = _activity(other, self._backend_pid(other))
        except (InitmigError, OSError):
            # no slot, privilege or file descriptor, or an unexpected answer: the statement still
            # runs
            return False
        if activity.busy:  # otherwise the timeout has struck, and the blockers are already lost
            work.blockers = activity.blockers
        if work is self._work and schedule.should_report(elapsed, activity.report_key):
            path, line = _file_and_line(work)
            self._emit(
                StatementRunning(work.id, elapsed, activity.doing, activity.blockers, path, line)
            )
            schedule.reported(elapsed, activity.report_key)
        return True

    def _backend_pid(self, other: Session) -> int:
        """The server process, or 0 if it is unknown: behind a pooler, between transactions."""
        if not self._name:
            return self._pid
        rows = other.query(
            f"SELECT pid FROM pg_stat_activity WHERE application_name = '{self._name}'"
        )
        return int(rows[0][0]) if rows else 0

    @contextmanager
    def _second_connection(self) -> Iterator[Session]:
        if self._look_every >= _NEW_CONNECTION_SECONDS and not self._session.logs_in_by_command:
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
    """File and line of the running statement."""
    at, place = work.at, work.found[1]
    if at and at is not work.found[0]:
        place = at()
        work.found = (at, place)
    return place.path, place.line


class Activity(Record):
    """The state of a server process."""

    busy: bool
    doing: str
    blockers: tuple[str, ...]
    phase: str = ""

    @property
    def report_key(self) -> object:
        """The phase and the blockers without their numbers. A new key is worth a report."""
        return re.sub(r"\d+", "", self.phase), tuple(each.split(" (")[0] for each in self.blockers)


def activity_of(session: Session, sql: str) -> Activity:
    """The state of the server process that runs *sql* for *session*, read on a second connection.

    :raises InitmigError: the query fails
    """
    with closing(session.sibling(limit=_QUERY_SECONDS)) as other, checking_answers():
        other.answer_timeout = _QUERY_SECONDS
        if session.is_dedicated:
            return _activity(other, session.startup_pid)
        # behind a pooler, the process is not the one from startup
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
    """The other processes of a deadlock, parsed from the server's *detail* in any language."""
    # each line reads: process A waits for lock B, blocked by process C; A of the first line is ours
    lines = [[int(number) for number in re.findall(r"\d+", line)] for line in detail.splitlines()]
    if not all(lines) or {line[0] for line in lines} != {line[-1] for line in lines}:
        return []
    return [line[0] for line in lines[1:]]


def _describe_blockers(session: Session, pids: str, *, own: int) -> tuple[str, ...]:
    """Descriptions of the processes *pids* and of their blockers, without *own*."""
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

    # Mask before truncating, because half a secret is still a secret. Mask before joining lines,
    # because a comment ends with its line.
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
