"""Arguments in, exit code out; the one place where errors become text."""

from __future__ import annotations

import gc
import os
import sys
import time

from initmig.config.config import HELP_FLAGS, parse_config, parse_help, parse_reporting
from initmig.config.dsn import trimmed
from initmig.config.options import ABOUT_ITSELF
from initmig.core.errors import (
    ConfigError,
    InitmigError,
    MigrationFailed,
)
from initmig.core.events import Failed, FilesCreated, OutputLost, StoppedBySignal
from initmig.core.records import TYPE_CHECKING
from initmig.core.signals import Stopped, restore_for_exec, stoppable
from initmig.core.visible import in_one_line, with_line_breaks
from initmig.reporting.logs import Log, discard, event_text
from initmig.reporting.termination import write_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from initmig.commands.rehearse.impact import Rehearsal
    from initmig.commands.verify.comparison import Verdict
    from initmig.config.config import Config
    from initmig.core.events import Emit, Event
    from initmig.core.model import Outcome
    from initmig.reporting.terminal.screen import Screen


_SHOWING = ("status", "plan", "doctor", "rehearse", "verify")
"""The commands that are for their result on stdout."""


def run() -> None:
    """The installed command."""
    # What modules and lists of files are made of is no garbage: to search it every 700 objects took
    # a twentieth of a start.
    gc.set_threshold(100_000)
    if not _is_usual():
        from initmig.cli import streams

        streams.use_utf8()
        streams.make_usable()
    environ = os.environ.copy()
    _strip_libpqs(environ)
    code = main(sys.argv[1:], environ)
    if code > 128 or "initmig.engine.python_migration" not in sys.modules:
        # No code but ours was here, and what it wrote is out: nothing has to be taken apart, which
        # takes as long as to ask the database. After a signal, nobody waits for what is left.
        os._exit(code)
    from initmig.cli.streams import flush

    flush()
    sys.exit(code)


def _is_usual() -> bool:
    """Whether all streams are open, and everything is UTF-8."""
    open_ones = [stream for stream in (sys.stdin, sys.stdout, sys.stderr) if stream]
    return (
        len(open_ones) == 3
        and {stream.encoding for stream in open_ones} == {"utf-8"}
        and sys.getfilesystemencoding() == "utf-8"
    )


def _strip_libpqs(environ: Mapping[str, str]) -> None:
    """Let libpq, which reads its variables itself, find them without line ends behind them."""
    for name, value in environ.items():
        if name.startswith("PG") and value[-1:].isspace():
            # a password may end in a space
            os.environ[name] = value.rstrip("\r\n") if name == "PGPASSWORD" else trimmed(value)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what *argv* says; the exit code, as docs/reference/exit-codes.md lists them."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    try:
        if "--version" in words:
            config = parse_config(["version"], {})
        elif set(HELP_FLAGS) & set(words):
            config = parse_help(words)
        else:
            config = parse_config(argv, environ)
        if config.command in ABOUT_ITSELF:
            _print(_about_itself(config))
            return 0
    except ConfigError as error:
        asked = parse_reporting(argv, environ)
        return _fail(error, _log(asked), asked.termination_log)
    return _run(config, environ)


def _about_itself(config: Config) -> str:
    if config.command == "help":
        from initmig.cli.help import help_text

        return help_text(config.name)
    if config.command == "completion":
        from initmig.cli.completion import script

        return script(config.name)
    from initmig.version import __version__

    return f"initmig {__version__}"


def _log(config: Config, *, target: str = "", follows: bool = False) -> Log:
    """A log on stderr; on a terminal it has colours and fits, and *follows* what goes on."""
    level, form = config.log_level, config.log_format
    stream = sys.stderr
    is_terminal = stream is not None and stream.isatty()
    if form != "text" or not (is_terminal or config.color == "always"):
        return Log(level, form, target=target)
    from initmig.reporting.terminal.display import display_of

    return Log(level, form, target=target, display=display_of(stream, config, follows=follows))


def _run(config: Config, environ: Mapping[str, str]) -> int:
    # several processes would draw over each other
    is_one = not (config.targets or config.each_schema)
    shown = _log(config, follows=is_one and config.log_level in ("debug", "info"))
    log = _Outcome(shown)
    try:
        return _stoppable(config._replace(live=shown.follows), environ, log)
    finally:
        log.rest()


def _stoppable(config: Config, environ: Mapping[str, str], log: _Outcome) -> int:

    def say(stopped: Stopped) -> None:
        event = StoppedBySignal(str(stopped), stopped.exit_code)
        log(event)
        write_outcome(config.termination_log, event_text(event))

    try:
        with stoppable(say):
            try:
                return _done(config, environ, log)
            except Stopped as stopped:
                return _end(stopped, say)
    except Stopped as stopped:  # on the way in, or out
        return _end(stopped, say)


def _end(stopped: Stopped, say: Callable[[Stopped], object]) -> int:
    try:
        say(stopped)
    except Stopped as again:  # nobody reads the log
        return again.exit_code
    return stopped.exit_code


def _done(config: Config, environ: Mapping[str, str], log: _Outcome) -> int:
    try:
        _do(config, log)
    except InitmigError as error:
        return _fail(error, log, config.termination_log)
    except Exception as error:  # noqa: BLE001 - also then: one event, an outcome, and no secrets
        from initmig.postgres import internal_error

        return _fail(internal_error(error), log, config.termination_log)
    write_outcome(config.termination_log, log.text)
    log.rest()
    if config.command == "exec":
        return _become(config, environ, log)
    return 0


class _Outcome:
    """Passes events on and remembers the last one."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: Event | None = None
        self.rest = log.rest

    def __call__(self, event: Event) -> None:
        self._last = event
        self._log(event)

    @property
    def text(self) -> str:
        return event_text(self._last) if self._last else ""


def _fail(error: InitmigError, log: Emit, termination_log: str) -> int:
    failures = [Failed(problem, error.exit_code) for problem in error.problems]
    for failure in failures:
        log(failure)
    write_outcome(termination_log, "\n".join(map(event_text, failures)))
    return error.exit_code


def _print(text: str, judge: Callable[[], object] = lambda: None) -> None:
    """Write what the command is for, then let *judge* raise what is wrong with it.

    :raises ConfigError: nothing is wrong with it, but it could not be written
    """
    failure = _write(text)
    judge()
    if failure:
        raise failure


def _write(text: str) -> ConfigError | None:
    """Write *text* and a line end to stdout, made visible; why that is impossible."""
    try:
        sys.stdout.write(with_line_breaks(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)  # the reader has what it wanted
    except OSError as error:
        discard(sys.stdout)
        return ConfigError(
            "output-failed",
            f"cannot write to stdout: {error.strerror}",
            hint="check the file or pipe that stdout is redirected to",
        )
    return None


def _do(config: Config, emit: _Outcome) -> None:
    if config.command == "new":
        _create(config, emit)
        return
    if config.command == "exec":
        _refuse_missing(config.argv[0])
    from initmig.commands import runner

    without_result = {
        "migrate": _migrate_many if config.targets or config.each_schema else runner.migrate,
        "rollback": runner.rollback,
        "wait": runner.wait,
        "baseline": runner.baseline,
        "exec": runner.migrate,
        "unlock": runner.unlock,
    }
    if config.command in _SHOWING or config.targets or config.each_schema:
        from initmig.cli.streams import reserve_stdout

        reserve_stdout()
    match config.command:
        case command if command in _SHOWING:
            _show(config, emit)
        case "serve":
            from initmig.commands.serve import serve

            serve.serve(config, emit)
        case name:
            without_result[name](config, emit)


def _migrate_many(config: Config, emit: Emit) -> None:
    from initmig.commands.many import many
    from initmig.reporting.tables import outcome_json, outcomes_table

    outcomes: list[Outcome] = []

    def write(text: str) -> None:
        if failure := _write(text):
            # not by `emit`, of which the last event is the outcome
            _log(config)(OutputLost(str(failure)))

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if config.json:
            write(outcome_json(outcome))

    def emit_for(name: str) -> Emit:
        return _log(config, target=name)

    try:
        many.migrate(config, emit, emit_for=emit_for, tell=tell)
    finally:
        if outcomes and not config.json:
            write(outcomes_table(outcomes, _screen(config)))


def _screen(config: Config) -> Screen:
    """What stdout can show."""
    from initmig.reporting.terminal.screen import screen_of

    return screen_of(sys.stdout, config)


def _show(config: Config, emit: _Outcome) -> None:
    from initmig.commands import runner

    match config.command:
        case "status":
            _show_status(config, emit)
        case "plan":
            _show_plan(config, emit)
        case "doctor":
            _show_checks(config, emit)
        case "rehearse":
            _show_rehearsal(config, emit, runner.rehearse(config, emit))
        case "verify":
            from initmig.commands.verify.verify import verify

            _show_verdicts(config, emit, verify(config, emit))


def _show_plan(config: Config, emit: _Outcome) -> None:
    from initmig.commands import runner
    from initmig.reporting.tables import plan_json, plan_sql
    from initmig.sql.lock_forecast import forecast_of
    from initmig.sql.squawk import ask_squawk

    plan = runner.plan(config, emit)
    paths = [each.file.path for each in plan.migrations if each.file.is_sql]
    forecast = forecast_of(plan.migrations, plan.inventory, ask_squawk(paths, emit))
    emit.rest()
    if config.json:
        _print(plan_json(plan.migrations, forecast))
    else:
        _print(plan_sql(plan.migrations, forecast, _screen(config)))


def _show_status(config: Config, emit: _Outcome) -> None:
    from initmig.commands import runner
    from initmig.reporting.tables import status_json, status_table

    rows = runner.status(config, emit)

    def judge() -> None:
        if config.check:
            runner.check(config, rows, emit)

    emit.rest()
    _print(status_json(rows) if config.json else status_table(rows, _screen(config)), judge)


def _show_checks(config: Config, emit: _Outcome) -> None:
    from initmig.commands.doctor.doctor import doctor, raise_if_failed
    from initmig.commands.doctor.report import checks_json, checks_text

    checks = doctor(config, emit)
    text = checks_json(checks) if config.json else checks_text(checks, _screen(config))
    emit.rest()
    _print(text, lambda: raise_if_failed(checks))


def _show_rehearsal(config: Config, emit: _Outcome, rehearsal: Rehearsal) -> None:
    from initmig.commands.rehearse.report import rehearsal_json, rehearsal_markdown, rehearsal_table

    if config.json:
        text = rehearsal_json(rehearsal)
    elif config.markdown:
        text = rehearsal_markdown(rehearsal)
    else:
        text = rehearsal_table(rehearsal, _screen(config))

    def judge() -> None:
        if rehearsal.failure:
            raise rehearsal.failure

    emit.rest()
    _print(text, judge)


def _show_verdicts(config: Config, emit: _Outcome, verdicts: Sequence[Verdict]) -> None:
    from initmig.commands.verify.report import verdicts_json, verdicts_text

    problems = tuple(problem for verdict in verdicts for problem in verdict.problems)

    def judge() -> None:
        if problems:
            raise MigrationFailed.of(problems)

    if config.json:
        text = verdicts_json(verdicts)
    else:
        text = verdicts_text(verdicts, _screen(config), baseline=config.from_baseline)
    emit.rest()
    _print(text, judge)


def _create(config: Config, emit: Emit) -> None:
    from initmig.migrations.scaffold import write_migration
    from initmig.migrations.sources import to_write_in

    folder = to_write_in(config.migrations)
    paths = write_migration(folder, config.name, python=config.python, now=time.time())
    if failure := _write("\n".join(map(in_one_line, paths))):
        emit(OutputLost(str(failure)))
    emit(FilesCreated(paths))


def _refuse_missing(program: str) -> None:
    from shutil import which

    if not which(program):
        raise ConfigError(
            "command-not-found",
            f"cannot run {program}: command not found",
            hint="name a program on PATH, or give its path; nothing was applied",
        )


def _become(config: Config, environ: Mapping[str, str], log: Emit) -> int:
    program = config.argv[0]
    restore_for_exec()
    try:
        os.execvpe(program, config.argv, environ)
    except OSError as error:
        failure = ConfigError(
            "command-not-found",
            f"cannot run {program}: {error.strerror}",
            hint="check the program; a script needs `#!` in its first line."
            " The migrations are applied",
        )
        return _fail(failure, log, config.termination_log)
