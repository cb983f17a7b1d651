"""Migrates many databases or schemas in one run, in several worker processes.

It uses processes and not threads, because each needs its own signals and its own yoyo, and because
Python migrations may change the state of their process.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from contextlib import contextmanager, suppress
from json import dumps, loads
from selectors import EVENT_READ, PollSelector
from typing import TYPE_CHECKING

from initmig.commands.context import finished, with_session, without_files
from initmig.commands.migrate import migrate
from initmig.config.dsn import mask_secrets
from initmig.config.targets import Target, of_shard, read_targets
from initmig.core.clock import SYSTEM_CLOCK
from initmig.core.errors import ConfigError, InitmigError, TargetsFailed, committed_before
from initmig.core.events import (
    Failed,
    FewerProcesses,
    NoTargets,
    StoppedBySignal,
    TargetsFinished,
)
from initmig.core.forks import close_in_children
from initmig.core.model import TargetResult
from initmig.core.quoting import USER_SCHEMA
from initmig.core.records import Record
from initmig.core.signals import Stopped, stoppable
from initmig.postgres import internal_error, quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from initmig.config.config import Config
    from initmig.core.events import Emit
    from initmig.postgres import Session

_WORST_FIRST = (143, 130, 1, 6, 4, 2, 5, 3)
"""Exit codes: stopped by a signal, then errors that a retry does not fix, then the others."""

_SPARE_DESCRIPTORS = 8

_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname LIKE {pattern} AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY nspname"""


class Migrated(Record):
    """The outcome of `migrate` for many targets."""

    outcome: str
    ids: tuple[str, ...]
    """The names of the targets to which migrations were applied."""
    seconds: float
    targets: tuple[TargetResult, ...]
    """In the order in which they ended, without the targets that were not started."""
    summary: TargetsFinished
    failure: TargetsFailed | None = None
    """Set if a target failed; its exit code is the first of their codes in `_WORST_FIRST`."""


def migrate_many(
    config: Config,
    emit: Emit,
    *,
    emit_for: Callable[[str], Emit],
    report: Callable[[TargetResult], None],
) -> Migrated:
    """Migrate every target in one of ``config.parallel`` processes.

    *emit_for* returns, for the name of a target, the function that gets its events in the worker
    process. *report* gets each result in this process, as soon as the target ends.

    :raises InitmigError: the targets cannot be listed
    """
    run = without_files(config, emit, SYSTEM_CLOCK)

    def migrate_all() -> Migrated:
        targets = _targets(config, emit)
        results = []
        for result in _run_workers(targets, config, emit, emit_for):
            report(result)
            results.append(result)
        return _migrated(targets, results, run.seconds())

    return finished(run, migrate_all)


def _targets(config: Config, emit: Emit) -> tuple[Target, ...]:
    listed = _list_targets(config, emit)
    targets = of_shard(listed, config.shard)
    if not targets:
        source = config.targets or f"schemas LIKE '{config.each_schema}'"
        if listed and (shard := config.shard):
            source = f"shard {shard.number}/{shard.parts} of the {len(listed)} in {source}"
        emit(NoTargets(source))
    return targets


def _migrated(
    targets: Sequence[Target], results: Sequence[TargetResult], seconds: float
) -> Migrated:
    failed = [result for result in results if result.exit_code]
    applied = tuple(result.target for result in results if result.applied)
    names = tuple(result.target for result in failed)
    not_begun = len(targets) - len(results)
    failure = None
    if failed:
        codes = {result.exit_code for result in failed}
        worst = next((code for code in _WORST_FIRST if code in codes), 1)
        failure = TargetsFailed(names, of=len(targets), not_begun=not_begun, exit_code=worst)
    summary = TargetsFinished(len(targets), len(applied), names, not_begun)
    outcome = "applied" if applied else "nothing pending"
    return Migrated(outcome, applied, seconds, tuple(results), summary, failure)


def _list_targets(config: Config, emit: Emit) -> tuple[Target, ...]:
    if config.targets:
        return read_targets(config, os.environ)
    query = _SCHEMAS.format(pattern=quote_literal(config.each_schema))
    run = without_files(config, emit, SYSTEM_CLOCK)

    def ask(session: Session) -> list[str]:
        return [name for (name,) in session.query(query)]

    names = with_session(run, ask)
    return tuple(Target(name, config._replace(schema=(name,))) for name in names)


def _refuse_user_schema(schema: str) -> None:
    """Refuse the schema whose name has another meaning in a search path.

    The other name with such a meaning, pg_temp, is never listed.

    :raises ConfigError: *schema* is that schema
    """
    if schema == USER_SCHEMA:
        raise ConfigError(
            "invalid-schema-name",
            f"cannot migrate the schema {schema}: in a search path, this name means the schema"
            " that is named after the role",
            hint="rename the schema, or use a pattern that does not match it",
        )


# --- the main process, which assigns targets to workers ---


class _Worker(Record):
    """A process that migrates the targets assigned to it, and sends back the outcomes."""

    pid: int
    channel: socket.socket

    def assign(self, number: int) -> None:
        """Send the index of a target."""
        self.channel.sendall(number.to_bytes(4, "big"))

    def receive(self) -> TargetResult | None:
        """Receive the outcome of the assigned target; None if the process died without one."""
        with self.channel.makefile("rb") as lines:
            line = lines.readline()
        return TargetResult(*loads(line)) if line else None


def _run_workers(
    targets: Sequence[Target], config: Config, emit: Emit, emit_for: Callable[[str], Emit]
) -> Iterator[TargetResult]:
    """Yield the outcome of each target when it ends.

    With ``--fail-fast``, no further target is started after a failure. A worker gets its next
    target when it has finished one, because some targets take longer than others.
    """
    waiting = deque(range(len(targets)))
    size = min(config.parallel, len(targets))
    # PollSelector needs no file descriptor: the workers may have taken the last ones
    with _workers(size, targets, emit, emit_for) as workers, PollSelector() as busy:

        def assign_next(worker: _Worker) -> None:
            if waiting:
                number = waiting.popleft()
                worker.assign(number)
                busy.register(worker.channel, EVENT_READ, (worker, targets[number].name))

        for worker in workers:
            assign_next(worker)
        while busy.get_map():
            for key, _ in busy.select():
                busy.unregister(key.fileobj)
                worker, name = key.data
                outcome = worker.receive()
                if config.fail_fast and (outcome is None or outcome.exit_code):
                    waiting.clear()
                if outcome:
                    assign_next(worker)
                yield outcome or TargetResult(name, 1, message="its process was killed")


@contextmanager
def _workers(
    size: int, targets: Sequence[Target], emit: Emit, emit_for: Callable[[str], Emit]
) -> Iterator[list[_Worker]]:
    """Start *size* processes, or as many as the system allows, but at least one.

    If an error or a signal stops this process, the workers get SIGTERM.

    :raises ConfigError: the system allows no process
    """
    workers: list[_Worker] = []
    try:
        reason = _start_workers(
            workers, size, lambda inherited: _start_worker(inherited, targets, emit_for)
        )
        if size and not workers:
            raise ConfigError(
                "no-process",
                f"cannot start a process for the targets: {reason}; nothing was applied",
                hint="raise the limit on processes or open files, and run again",
            )
        if len(workers) < size:
            emit(FewerProcesses(len(workers), size, reason))
        yield workers
    except BaseException:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGTERM)
        raise
    finally:
        for worker in workers:
            worker.channel.close()  # an idle worker then exits
        for worker in workers:
            os.waitpid(worker.pid, 0)


def _start_workers(
    workers: list[_Worker], size: int, start: Callable[[Sequence[int]], _Worker]
) -> str:
    """Add processes from *start* to *workers* until there are *size*.

    Return the reason if there are fewer, otherwise an empty string. *start* gets the file
    descriptors that the new process must close.
    """
    spare: list[int] = []
    try:
        # reserve descriptors for files that are opened later: modules, the termination log
        spare.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_DESCRIPTORS))
        while len(workers) < size:
            workers.append(start([*spare, *(worker.channel.fileno() for worker in workers)]))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for each in spare:
            os.close(each)
    return ""


def _start_worker(
    inherited: Sequence[int], targets: Sequence[Target], emit_for: Callable[[str], Emit]
) -> _Worker:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return _Worker(pid, ours)
    try:
        for each in (ours.fileno(), *inherited):
            os.close(each)  # with these open, it would not notice that the main process has died
        _migrate_assigned(theirs, targets, emit_for)
    except Stopped:
        pass
    finally:
        os._exit(0)


# --- the worker processes ---


def _migrate_assigned(
    channel: socket.socket, targets: Sequence[Target], emit_for: Callable[[str], Emit]
) -> None:
    # open in a child, it would hide from the main process that this process has died
    close_in_children([channel])
    while number := channel.recv(4):
        target = targets[int.from_bytes(number, "big")]
        outcome = _migrate_target(target, emit_for(target.name))
        channel.sendall(dumps(outcome).encode() + b"\n")


def _migrate_target(target: Target, emit: Emit) -> TargetResult:
    begun = SYSTEM_CLOCK.now()

    def ended(exit_code: int, applied: Sequence[str], message: str = "") -> TargetResult:
        return TargetResult(target.name, exit_code, applied, message, SYSTEM_CLOCK.now() - begun)

    def report_stop(stopped: Stopped) -> None:
        emit(StoppedBySignal(str(stopped), stopped.exit_code))

    try:
        with stoppable(report_stop):
            if target.config.each_schema:
                _refuse_user_schema(target.name)
            result = migrate(target.config, emit)
    except Stopped as stopped:
        report_stop(stopped)
        return ended(stopped.exit_code, committed_before(stopped), f"stopped by {stopped}")
    except Exception as error:  # noqa: BLE001 - continue with the other targets
        failure = error if isinstance(error, InitmigError) else internal_error(error)
        for problem in failure.problems:
            emit(Failed(problem, failure.exit_code))
        return ended(failure.exit_code, committed_before(error), mask_secrets(str(failure)))
    return ended(0, result.ids)
