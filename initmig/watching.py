"""What a long statement is doing, asked from a second, short-lived connection."""

import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from initmig.dsn import mask_secrets
from initmig.durations import format_duration
from initmig.errors import InitmigError
from initmig.events import Emit, StatementRunning
from initmig.postgres import Session

_TELL_EVERY_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.5
_TICK_SECONDS = 0.1
_LAST_LOOK_SECONDS = 0.5
"""For a look that is going on at the end: it may hang in a connection that nobody answers."""

_DOING = """
SELECT coalesce(a.wait_event_type || ': ' || a.wait_event, ''), coalesce(p.phase, ''),
    round(100.0 * p.blocks_done / nullif(p.blocks_total, 0))::int
FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p USING (pid) WHERE a.pid = {pid}"""

_BLOCKERS = """
SELECT pid, coalesce(usename, ''), application_name, coalesce(state, 'state unknown'),
    extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(left(query, 80), '')
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids({pid})) ORDER BY xact_start"""


class _Work(NamedTuple):
    id: str
    begun: float


class Watch:
    """Tells what the migration at work is doing, and remembers who stood in its way.

    It tells every *tell_every* seconds, and looks more often than that, every *look_every*:
    PostgreSQL does not say who caused a lock timeout, so that has to be seen before it strikes.
    """

    def __init__(
        self,
        session: Session,
        *,
        pid: int,
        look_every: float,
        emit: Emit,
        tell_every: float = _TELL_EVERY_SECONDS,
    ) -> None:
        self.blockers: tuple[str, ...] = ()
        self._session = session
        self._pid = pid
        self._look_every = min(look_every, tell_every)
        self._tell_every = tell_every
        self._emit = emit
        self._work: _Work | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join(_LAST_LOOK_SECONDS)

    def works_on(self, id: str) -> None:
        """The migration *id* starts, or starts again, now."""
        self.blockers = ()
        self._work = _Work(id, time.monotonic())

    def rests(self) -> None:
        """Nothing is at work."""
        self._work = None

    def _run(self) -> None:
        watched, next_look, next_tale = None, 0.0, 0.0
        while not self._done.wait(_TICK_SECONDS):
            work = self._work
            if work is None:
                continue
            if work is not watched:
                watched, next_look, next_tale = work, self._look_every, self._tell_every
            elapsed = time.monotonic() - work.begun
            if elapsed < min(next_look, next_tale):
                continue
            self._look(work, elapsed, tell=elapsed >= next_tale)
            next_look = elapsed + max(self._look_every, _SHORTEST_PAUSE_SECONDS)
            if elapsed >= next_tale:
                next_tale = (elapsed // self._tell_every + 1) * self._tell_every

    def _look(self, work: _Work, elapsed: float, *, tell: bool) -> None:
        try:
            with self._session.sibling() as other:
                rows = other.query(_DOING.format(pid=self._pid))
                blockers = tuple(map(_words, other.query(_BLOCKERS.format(pid=self._pid))))
        except InitmigError:
            return  # no slot, no right: the statement goes on all the same
        self.blockers = blockers
        if rows and tell:
            self._emit(StatementRunning(work.id, elapsed, _doing(*rows[0]), blockers))


def _doing(waits_for: str, phase: str, percent: int | None) -> str:
    words = [phase or "running"]
    if percent is not None:
        words.append(f"{percent} %")
    if waits_for:
        words.append(f"waits for {waits_for}")
    return ", ".join(words)


def _words(row: tuple[int, str, str, str, float | None, str]) -> str:
    pid, user, application, state, age, query = row
    open_for = f", transaction open for {format_duration(age)}" if age is not None else ""
    return (
        f"pid {pid} ({application or 'no application name'}, user {user or 'unknown'}, {state}"
        f"{open_for}): {mask_secrets(' '.join(query.split()))}"
    )
