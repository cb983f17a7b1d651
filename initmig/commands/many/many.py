"""Many databases or schemas in one run: processes that each migrate one after the other.

Processes and not threads: each has its own signals, its own yoyo, and what its migrations in
Python do to a process.
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
"""Exit codes: stopped, then those that a retry does not help."""

_SPARE_DESCRIPTORS = 8

_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname LIKE {pattern} AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY nspname"""


class Migrated(Record):
    """What `migrate` did to many targets."""

    outcome: str
    ids: tuple[str, ...]
    """The names of the targets to which something was applied."""
    seconds: float
    targets: tuple[TargetResult, ...]
    """As they ended; those that were not started are missing."""
    summary: TargetsFinished
    failure: TargetsFailed | None = None
    """If not all were migrated; its exit code is the worst of theirs."""


def migrate_many(
    config: Config,
    emit: Emit,
    *,
    emit_for: Callable[[str], Emit],
    report: Callable[[TargetResult], None],
) -> Migrated:
    """Migrate every target in one of ``config.parallel`` processes.

    The events of a target go to what *emit_for* returns for its name, in that process. *report*
    gets each result as it comes, in this one.

    :raises InitmigError: the targets cannot be listed
    """
    run = without_files(config, emit, SYSTEM_CLOCK)

    def work_off() -> Migrated:
        targets = _targets(config, emit)
        results = []
        for result in _work_off(targets, config, emit, emit_for):
            report(result)
            results.append(result)
        return _migrated(targets, results, run.seconds())

    return finished(run, work_off)


def _targets(config: Config, emit: Emit) -> tuple[Target, ...]:
    listed = _listed(config, emit)
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


def _listed(config: Config, emit: Emit) -> tuple[Target, ...]:
    if config.targets:
        return read_targets(config, os.environ)
    query = _SCHEMAS.format(pattern=quote_literal(config.each_schema))
    run = without_files(config, emit, SYSTEM_CLOCK)

    def ask(session: Session) -> list[str]:
        return [name for (name,) in session.query(query)]

    names = with_session(run, ask)
    return tuple(Target(name, config._replace(schema=(name,))) for name in names)


def _refuse_user(schema: str) -> None:
    """:raises ConfigError: the *schema* is the one that no search path can name.

    The other such name, pg_temp, is never listed.
    """
    if schema == USER_SCHEMA:
        raise ConfigError(
            "invalid-schema-name",
            f"cannot migrate the schema {schema}: in a search path, this name means the schema"
            " that is named after the role",
            hint="rename the schema, or use a pattern that does not match it",
        )


# --- the process that deals the targets out ---


class _Worker(Record):
    """A process that migrates what it is given, and answers with the outcome."""

    pid: int
    channel: socket.socket

    def give(self, number: int) -> None:
        self.channel.sendall(number.to_bytes(4, "big"))

    def take(self) -> TargetResult | None:
        """The outcome of what it was given; None if it has ended without one."""
        with self.channel.makefile("rb") as lines:
            line = lines.readline()
        return TargetResult(*loads(line)) if line else None


def _work_off(
    targets: Sequence[Target], config: Config, emit: Emit, emit_for: Callable[[str], Emit]
) -> Iterator[TargetResult]:
    """The outcomes as they come; those not begun are left out where one failed and that is asked.

    Whoever has finished one gets the next: some take longer than others.
    """
    waiting = deque(range(len(targets)))
    size = min(config.parallel, len(targets))
    # a selector that takes no file descriptor: the workers may have got the last ones
    with _workers(size, targets, emit, emit_for) as workers, PollSelector() as busy:

        def deal(worker: _Worker) -> None:
            if waiting:
                number = waiting.popleft()
                worker.give(number)
                busy.register(worker.channel, EVENT_READ, (worker, targets[number].name))

        for worker in workers:
            deal(worker)
        while busy.get_map():
            for key, _ in busy.select():
                busy.unregister(key.fileobj)
                worker, name = key.data
                outcome = worker.take()
                if config.fail_fast and (outcome is None or outcome.exit_code):
                    waiting.clear()
                if outcome:
                    deal(worker)
                yield outcome or TargetResult(name, 1, message="its process was killed")


@contextmanager
def _workers(
    size: int, targets: Sequence[Target], emit: Emit, emit_for: Callable[[str], Emit]
) -> Iterator[list[_Worker]]:
    """*size* processes, or as many as can be had, but one at least.

    Where it ends before they do, they are stopped as this one was.

    :raises ConfigError: not even one can be had
    """
    workers: list[_Worker] = []
    try:
        reason = _recruit(workers, size, lambda inherited: _start(inherited, targets, emit_for))
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
            worker.channel.close()  # which ends those that have nothing to do
        for worker in workers:
            os.waitpid(worker.pid, 0)


def _recruit(workers: list[_Worker], size: int, start: Callable[[Sequence[int]], _Worker]) -> str:
    """Let *start* add to *workers* until there are *size*; why there are fewer, else empty.

    It gets the file descriptors that are not meant for the new process.
    """
    spare: list[int] = []
    try:
        # for what is opened later: modules, the termination log
        spare.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_DESCRIPTORS))
        while len(workers) < size:
            workers.append(start([*spare, *(worker.channel.fileno() for worker in workers)]))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for each in spare:
            os.close(each)
    return ""


def _start(
    inherited: Sequence[int], targets: Sequence[Target], emit_for: Callable[[str], Emit]
) -> _Worker:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return _Worker(pid, ours)
    try:
        for each in (ours.fileno(), *inherited):
            os.close(each)  # else it would not notice when the one that deals is gone
        _serve(theirs, targets, emit_for)
    except Stopped:
        pass
    finally:
        os._exit(0)


# --- the processes that migrate ---


def _serve(
    channel: socket.socket, targets: Sequence[Target], emit_for: Callable[[str], Emit]
) -> None:
    # else the one that deals would not notice when this process is gone
    close_in_children([channel])
    while number := channel.recv(4):
        target = targets[int.from_bytes(number, "big")]
        outcome = _attempt(target, emit_for(target.name))
        channel.sendall(dumps(outcome).encode() + b"\n")


def _attempt(target: Target, emit: Emit) -> TargetResult:
    begun = SYSTEM_CLOCK.now()

    def ended(exit_code: int, applied: Sequence[str], message: str = "") -> TargetResult:
        return TargetResult(target.name, exit_code, applied, message, SYSTEM_CLOCK.now() - begun)

    def say(stopped: Stopped) -> None:
        emit(StoppedBySignal(str(stopped), stopped.exit_code))

    try:
        with stoppable(say):
            if target.config.each_schema:
                _refuse_user(target.name)
            result = migrate(target.config, emit)
    except Stopped as stopped:
        say(stopped)
        return ended(stopped.exit_code, committed_before(stopped), f"stopped by {stopped}")
    except Exception as error:  # noqa: BLE001 - the other targets must not suffer from it
        failure = error if isinstance(error, InitmigError) else internal_error(error)
        for problem in failure.problems:
            emit(Failed(problem, failure.exit_code))
        return ended(failure.exit_code, committed_before(error), mask_secrets(str(failure)))
    return ended(0, result.ids)
