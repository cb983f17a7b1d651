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
_TICK_SECONDS = 0.25

_DOING = """
SELECT coalesce(a.wait_event_type || ': ' || a.wait_event, ''), coalesce(p.phase, ''),
    round(100.0 * p.blocks_done / nullif(p.blocks_total, 0))::int
FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p USING (pid) WHERE a.pid = {pid}"""

_BLOCKERS = """
SELECT pid, coalesce(usename, ''), application_name, coalesce(state, 'state unknown'),
    extract(epoch FROM clock_timestamp() - xact_start)::float8, left(query, 80)
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids({pid})) ORDER BY xact_start"""


class _Work(NamedTuple):
    id: str
    begun: float


class Watch:
    """Tells every 10 s what the migration at work is doing, and remembers who stood in its way.

    *first_look* in seconds: PostgreSQL does not say who caused a lock timeout, so the blockers
    have to be seen before it strikes.
    """

    def __init__(self, session: Session, *, pid: int, first_look: float, emit: Emit) -> None:
        self.blockers: tuple[str, ...] = ()
        self._session = session
        self._pid = pid
        self._first_look = first_look
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
        self._thread.join()

    def works_on(self, id: str) -> None:
        """The migration *id* starts, or starts again, now."""
        self.blockers = ()
        self._work = _Work(id, time.monotonic())

    def rests(self) -> None:
        """Nothing is at work."""
        self._work = None

    def _run(self) -> None:
        watched, next_look = None, 0.0
        while not self._done.wait(_TICK_SECONDS):
            work = self._work
            if work is None:
                continue
            if work is not watched:
                watched, next_look = work, min(self._first_look, _TELL_EVERY_SECONDS)
            elapsed = time.monotonic() - work.begun
            if elapsed >= next_look:
                self._look(work, elapsed)
                next_look = (elapsed // _TELL_EVERY_SECONDS + 1) * _TELL_EVERY_SECONDS

    def _look(self, work: _Work, elapsed: float) -> None:
        try:
            with self._session.sibling() as other:
                rows = other.query(_DOING.format(pid=self._pid))
                blockers = tuple(map(_words, other.query(_BLOCKERS.format(pid=self._pid))))
        except InitmigError:
            return  # no slot, no right: the statement goes on all the same
        self.blockers = blockers
        if rows and elapsed >= _TELL_EVERY_SECONDS:
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
