"""Parses the arguments, runs the command, shows its result or error, and returns the exit code."""

from __future__ import annotations

from initmig.cli.output import log_for, screen_for, write
from initmig.config.config import HELP_FLAGS, parse_config, parse_help, parse_reporting
from initmig.config.options import COMMANDS
from initmig.core.errors import InitmigError
from initmig.core.records import TYPE_CHECKING
from initmig.core.run_events import Failed, OutputLost, StoppedBySignal
from initmig.core.signals import Stopped, stoppable
from initmig.reporting.logs import event_text
from initmig.reporting.termination import write_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from initmig.commands.result import AnyResult
    from initmig.config.config import Config
    from initmig.core.events import Emit
    from initmig.reporting.logs import Log


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command in *argv*; return an exit code from docs/reference/exit-codes.md."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    try:
        if "--version" in words:
            config = parse_config(["version"], {})
        elif set(HELP_FLAGS) & set(words):
            config = parse_help(words)
        else:
            config = parse_config(argv, environ)
        if text := COMMANDS[config.command].text:
            _print(_load(text)(config.name))
            return 0
    except InitmigError as error:
        reporting = parse_reporting(argv, environ)
        return _fail(error, log_for(reporting), reporting.termination_log)
    log = log_for(config, follows=True)
    try:
        return _stoppable(config._replace(live=log.follows), environ, log)
    finally:
        log.clear()


def _load(name: str) -> Callable[..., Any]:
    """Import the function that a table names as ``module:function``."""
    module, _, function = name.partition(":")
    # importlib would be one more module for a run with nothing to do
    found: Callable[..., Any] = getattr(__import__(f"initmig.{module}", fromlist=[""]), function)
    return found


def _stoppable(config: Config, environ: Mapping[str, str], log: Log) -> int:
    def report(stopped: Stopped) -> None:
        event = StoppedBySignal(str(stopped), stopped.exit_code)
        log(event)
        write_outcome(config.termination_log, event_text(event))

    try:
        with stoppable(report):
            try:
                return _done(config, environ, log)
            except Stopped as stopped:
                return _end(stopped, report)
    except Stopped as stopped:  # the signal came before or after the block inside
        return _end(stopped, report)


def _end(stopped: Stopped, report: Callable[[Stopped], object]) -> int:
    try:
        report(stopped)
    except Stopped as again:  # the log is a pipe that no process reads
        return again.exit_code
    return stopped.exit_code


def _done(config: Config, environ: Mapping[str, str], log: Log) -> int:
    command = COMMANDS[config.command]
    try:
        result = _result(config, log)
        write_outcome(config.termination_log, _summary(result))
        log.clear()
        if command.then:
            _load(command.then)(config, environ)
    except InitmigError as error:
        return _fail(error, log, config.termination_log)
    except Exception as error:  # noqa: BLE001 - report it as one event, and without secrets
        from initmig.postgres import internal_error

        return _fail(internal_error(error), log, config.termination_log)
    return 0


def _summary(result: AnyResult) -> str:
    return "" if result.summary is None else event_text(result.summary)


def _result(config: Config, log: Log) -> AnyResult:
    """Run the command, show its result, and return it.

    :raises InitmigError: the command failed, or its result could not be written
    """
    command = COMMANDS[config.command]
    work = command.run_many if config.targets or config.each_schema else command.run
    if command.show or work == command.run_many:
        from initmig.cli.streams import reserve_stdout

        reserve_stdout()
    result: AnyResult = _load(work)(config, log)
    lost = None
    if command.show:
        log.clear()
        lost = write(_load(command.show)(result, config, screen_for(config)))
    if result.failure:
        raise result.failure
    if lost and command.is_for_stdout:
        raise lost
    if lost:
        log(OutputLost(str(lost)))
    return result


def _fail(error: InitmigError, log: Emit, termination_log: str) -> int:
    failures = [Failed(problem, error.exit_code) for problem in error.problems]
    for failure in failures:
        log(failure)
    write_outcome(termination_log, "\n".join(map(event_text, failures)))
    return error.exit_code


def _print(text: str) -> None:
    """:raises ConfigError: *text* cannot be written to stdout"""
    if lost := write(text):
        raise lost
