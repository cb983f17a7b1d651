"""Writes the help from the same tables that are used to parse the arguments."""

from collections.abc import Iterable
from textwrap import fill, wrap

from initmig.config.options import COMMANDS, SETTINGS, Option
from initmig.version import __version__

WIDTH = 80

EXIT_CODES = (
    (0, "success, or nothing to do"),
    (1, "a migration failed, or `verify` found a rollback that restores too little"),
    (2, "usage, configuration or a migration file is wrong"),
    (3, "the database did not answer in time"),
    (4, "the database refused: login, database, TLS or privileges"),
    (5, "the queue timeout passed while another migrator held the lock"),
    (6, "refused to start, for example because an applied migration has changed"),
    (7, "`wait` and `status --check`: migrations are pending"),
    (143, "stopped by SIGTERM (130: by SIGINT)"),
)
RETRY_MAY_HELP = frozenset({3, 5, 7, 143})

_READS = (0, 2, 3, 4, 6)
_RUNS = (0, 1, 2, 3, 4, 5, 6)
ENDS_WITH = {
    "migrate": _RUNS,
    "exec": _RUNS,
    "serve": _RUNS,
    "wait": (*_READS, 7),
    "status": (*_READS, 7),
    "plan": _READS,
    "doctor": _READS,
    "rehearse": _RUNS,
    "new": (0, 2),
    "verify": (0, 1, 2, 3, 4, 6),
    "rollback": _RUNS,
    "baseline": (0, 2, 3, 4, 5, 6),
    "unlock": _READS,
    "completion": (0, 2),
    "help": (0, 2),
    "version": (0, 2),
}
"""The exit codes of each command. Signals, and 1 for an internal error, are left out."""

GROUPS = {
    "Deploy": ("migrate", "exec", "serve", "wait"),
    "Inspect": ("status", "plan", "doctor", "rehearse"),
    "Write": ("new", "verify"),
    "Recover": ("rollback", "baseline", "unlock"),
    "Help": ("completion", "help", "version"),
}

EXAMPLES = {
    "migrate": "initmig migrate --to 0003",
    "exec": "initmig exec -- ./server",
    "serve": "initmig serve --listen :8080",
    "wait": "initmig wait --wait-timeout 5m",
    "status": "initmig status --check",
    "plan": "initmig plan --to 0003",
    "doctor": "initmig doctor --app-role app",
    "rehearse": "initmig rehearse --markdown",
    "new": "initmig new add_email",
    "verify": "initmig verify --require-rollback",
    "rollback": "initmig rollback --steps 1",
    "baseline": "initmig baseline --to 0042",
    "unlock": "initmig unlock",
    "completion": "initmig completion bash",
    "help": "initmig help rollback",
    "version": "initmig version",
}

_IN_GENERAL = ("--database-url", "--migrations", "--log-format", "--log-level")
_COLUMN = 30
_DURATIONS = "Durations are 500ms, 5s, 2m, 1h, or plain seconds."


def help_text(topic: str = "") -> str:
    """The help for *topic*, a command or one of TOPICS; the general help if *topic* is empty."""
    if topic == "settings":
        return _settings_help()
    if topic == "exit-codes":
        return _exit_codes_help()
    return _command_help(topic) if topic else _general_help()


def version_text(_: str) -> str:
    """The name and version of the program."""
    return f"initmig {__version__}"


def usage_line(name: str) -> str:
    """The usage of the command *name*, with placeholders for its options and operands."""
    return " ".join(filter(None, ["initmig", name, "[OPTIONS]", COMMANDS[name].operands]))


def settings_of(name: str) -> tuple[Option, ...]:
    """The settings that affect the command *name*, in the order of their table."""
    return tuple(option for option in SETTINGS if option.flag in COMMANDS[name].settings)


def _general_help() -> str:
    groups = "\n".join(
        f"{group}:\n" + "\n".join(f"  {name:12}{COMMANDS[name].summary}" for name in names)
        for group, names in GROUPS.items()
    )
    shown = [option for option in SETTINGS if option.flag in _IN_GENERAL]
    return (
        "Apply PostgreSQL migrations before the application starts.\n\n"
        "Usage: initmig [COMMAND] [OPTIONS]\n\n"
        f"{groups}\n"
        f"Options:\n{_columns(map(_brief, shown))}\n\n"
        "More:\n"
        "  initmig COMMAND --help   all options of a command, and an example\n"
        "  initmig help settings    all settings, with their variables and defaults\n"
        "  initmig help exit-codes  what each exit code means"
    )


def _brief(option: Option) -> tuple[str, str]:
    return _heading(option), brief(option)


def brief(option: Option) -> str:
    """The first sentence of the help for *option*."""
    return option.help.partition(". ")[0]


def _command_help(name: str) -> str:
    command = COMMANDS[name]
    settings = settings_of(name)
    summary = f"{command.summary[:1].upper()}{command.summary[1:]}."
    parts = [f"Usage: {usage_line(name)}", fill(summary, WIDTH)]
    if command.options:
        parts.append(f"Options:\n{_columns(map(_row, command.options))}")
    if settings:
        parts.append(f"Settings:\n{_columns(map(_row, settings))}")
    parts.append(f"Example:\n  {EXAMPLES[name]}")
    if settings:
        parts.append("For environment variables and details, run `initmig help settings`.")
    return "\n\n".join(parts)


def _settings_help() -> str:
    own = "\n\n".join(
        f"Only for `{name}`:\n{_entries(option for option in command.options if option.env)}"
        for name, command in COMMANDS.items()
        if any(option.env for option in command.options)
    )
    return (
        "A flag wins over its environment variable, which wins over the default.\n"
        "An empty value counts as not set.\n\n"
        f"{_entries(SETTINGS)}\n\n{own}\n\n"
        f"{_DURATIONS}\n"
        "DATABASE_URL_FILE and PGPASSWORD_FILE name a file that holds the value."
    )


def _exit_codes_help() -> str:
    rows = (
        (f"{code:>3}", f"{meaning}{'; a retry may help' if code in RETRY_MAY_HELP else ''}")
        for code, meaning in EXIT_CODES
    )
    return f"Exit codes:\n{_columns(rows, column=7)}"


def _row(option: Option) -> tuple[str, str]:
    is_value = option.default and " " not in option.default and option.default != "none"
    return _heading(option), f"{brief(option)}{f' (default: {option.default})' if is_value else ''}"


def _heading(option: Option) -> str:
    value = f"[={option.metavar}]" if option.implied else f" {option.metavar}"
    return f"{option.flag}{value}".rstrip()


def _columns(rows: Iterable[tuple[str, str]], column: int = _COLUMN) -> str:
    """Format *rows* of a heading and a text, with each text starting in *column*."""
    return "\n".join(_in_columns(heading, text, column) for heading, text in rows)


def _in_columns(heading: str, text: str, column: int) -> str:
    first, *others = wrap(text, WIDTH - column)
    lines = [f"{' ' * column}{line}" for line in others]
    if len(heading) + 4 > column:
        return "\n".join([f"  {heading}", f"{' ' * column}{first}", *lines])
    return "\n".join([f"{f'  {heading}':{column}}{first}", *lines])


def _entries(options: Iterable[Option]) -> str:
    return "\n".join(map(_entry, options))


def _entry(option: Option) -> str:
    default = f" (default: {option.default})" if option.default else ""
    text = fill(option.help, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return f"  {_heading(option)}\n      {option.env}{default}\n{text}"
