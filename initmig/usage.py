"""The text of --help, made from the same tables that the arguments are read with."""

from collections.abc import Iterable, Sequence
from textwrap import fill

from initmig.settings import COMMANDS, DEFAULT_COMMAND, SETTINGS, Option

EXIT_CODES = (
    (0, "done, or nothing to do"),
    (1, "a migration failed; `verify`: or a rollback does not restore what it found"),
    (2, "usage, configuration or a migration file is wrong"),
    (3, "the database did not answer in time (a retry may help)"),
    (4, "the database answered and refused: login, database, TLS, rights"),
    (5, "another migrator was still at it after the queue timeout (a retry may help)"),
    (
        6,
        "refused to start: changed, out of order, irreversible, unknown id, image too old, foreign",
    ),
    (7, "`wait` and `status --check`: migrations are pending (a retry may help)"),
    (143, "stopped by SIGTERM (a retry may help); 130 by SIGINT"),
)


def help_text(words: Sequence[str]) -> str:
    """The help for the command among *words*, or for all of them."""
    names = [word for word in words if word in COMMANDS]
    return _command_help(names[0]) if names else _general_help()


_DURATIONS = "Durations are 500ms, 5s, 2m, 1h, or plain seconds."


def _general_help() -> str:
    commands = "\n".join(
        f"  {f'{name} {command.operands}'.strip():22} {command.summary}"
        for name, command in COMMANDS.items()
    )
    return (
        "initmig [COMMAND] [OPTIONS]\n\n"
        "Apply PostgreSQL migrations before the application starts.\n\n"
        f"Commands (without one: {DEFAULT_COMMAND}); initmig COMMAND --help says more:\n"
        f"{commands}\n\n"
        "Settings (flag, then environment, then default):\n"
        f"{_options(SETTINGS)}\n\n"
        f"{_DURATIONS}\n\n"
        f"{_exit_codes()}\n\n"
        "  -h, --help   this text\n"
        "  --version    the version"
    )


def _command_help(name: str) -> str:
    command = COMMANDS[name]
    operands = f" {command.operands}" if command.operands else ""
    own = f"\n\nOptions:\n{_options(command.options)}" if command.options else ""
    settings = f"\n\nSettings (flag, then environment, then default):\n{_options(SETTINGS)}"
    summary = command.summary[:1].upper() + command.summary[1:]
    return (
        f"initmig {name} [OPTIONS]{operands}\n\n{summary}.{own}{settings}\n\n"
        f"{_DURATIONS}\n\n{_exit_codes()}"
    )


def _exit_codes() -> str:
    codes = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)
    return f"Exit codes:\n{codes}"


def _options(options: Iterable[Option]) -> str:
    return "\n".join(map(_option, options))


def _option(option: Option) -> str:
    value = f"[={option.metavar}]" if option.implied else f" {option.metavar}"
    heading = f"  {option.flag}{value}".rstrip()
    if option.env:
        heading += f"  [{option.env}]"
    if option.default:
        heading += f"  (default: {option.default})"
    text = fill(option.help, 92, initial_indent="      ", subsequent_indent="      ")
    return f"{heading}\n{text}"
