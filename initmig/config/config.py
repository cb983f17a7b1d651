"""Parses arguments and environment into one frozen Config, and reports all problems together."""

from __future__ import annotations

from initmig.config.dsn import mask_secrets, trimmed
from initmig.config.options import (
    ABOUT_ITSELF,
    COMMANDS,
    DEFAULT_COMMAND,
    OPTIONS,
    SETTINGS,
    SHELLS,
    TOPICS,
    Address,
    Secret,
)
from initmig.core.errors import ConfigError, Problem
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from initmig.config.options import Option, Shard


HELP_FLAGS = ("--help", "-h")


class Config(Record):
    """All settings of a command. Durations are in seconds; 0 has the meaning in the help."""

    command: str
    database_url: Secret = Secret()
    password: Secret = Secret()
    migrations: tuple[str, ...] = ("migrations",)
    schema: tuple[str, ...] = ()
    history_schema: str = ""
    history_table: str = ""
    role: str = ""
    wait_timeout: float = 60.0
    queue_timeout: float = 0.0
    lock_timeout: float = 5.0
    lock_retries: int = 10
    statement_timeout: float = 0.0
    transaction: str = "each"
    out_of_order: str = "warn"
    changed: str = "warn"
    foreign: str = "fail"
    allow_empty: bool = False
    log_format: str = "text"
    log_level: str = "info"
    termination_log: str = ""
    color: str = "auto"
    no_color: bool = False
    """Whether NO_COLOR turns colors off; used only if *color* is auto."""
    term: str = ""
    """The type of the terminal, from TERM."""
    columns: int = 0
    """The width from COLUMNS, which overrides the terminal's width; 0 if it is not set."""
    live: bool = False
    """Whether a person watches, so that long statements are reported every few seconds."""
    to: str = ""
    steps: int = 0
    all: bool = False
    irreversible: str = "fail"
    json: bool = False
    markdown: bool = False
    check: bool = False
    wait_for: str = "migrations"
    python: bool = False
    sql: bool = False
    name: str = ""
    argv: tuple[str, ...] = ()
    from_baseline: str = ""
    require_rollback: bool = False
    listen: Address = Address("127.0.0.1", 8080)
    targets: str = ""
    each_schema: str = ""
    parallel: int = 4
    shard: Shard | None = None
    fail_fast: bool = False
    app_role: str = ""


class _Words(Record):
    """The command line, split into its parts, with values that are not parsed yet."""

    command: str
    values: dict[str, str]
    operands: tuple[str, ...]
    rest: tuple[str, ...]


def parse_config(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Read each setting from its flag, its environment variable, or its default, in this order.

    :raises ConfigError: with all problems, not only the first
    """
    problems: list[Problem] = []
    words = _parse_words(argv, problems)
    command = COMMANDS.get(words.command, COMMANDS[DEFAULT_COMMAND])
    values: dict[str, Any] = {"command": words.command}
    if words.command in ABOUT_ITSELF:
        values.update(_operands(words, problems))
        if problems:
            raise ConfigError.of(tuple(problems))
        return Config(**values)
    for option in (*SETTINGS, *command.options):
        values.update(_value(option, words.values, environ, problems))
    values.update(_terminal_settings(environ))
    problems.extend(_password_problems(words.values, environ, values))
    values.update(_secret_files(words.values, environ, problems))
    values.update(_operands(words, problems))
    _check_combinations(words.command, words.values, problems)
    problems.extend(_many_problems(words.values, values))
    if problems:
        raise ConfigError.of(tuple(problems))
    return Config(**values)


def parse_help(argv: Sequence[str]) -> Config:
    """The `help` command for an *argv* that contains --help or -h.

    :raises ConfigError: its first word is not a command
    """
    words, _ = _split_at_dashes(argv)
    [operands, _, _] = _sort_words([word for word in words if word not in HELP_FLAGS], [])
    return parse_config(["help", *operands[:1]], {})


def parse_reporting(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Only the settings that are needed to report an error in the other settings."""
    flags = _parse_words(argv, []).values
    values: dict[str, Any] = {}
    for option in SETTINGS:
        if option.field in ("log_format", "log_level", "termination_log", "color"):
            values.update(_value(option, flags, environ, []))
    values.update(_terminal_settings(environ))
    return Config(DEFAULT_COMMAND, **values)


def _parse_words(argv: Sequence[str], problems: list[Problem]) -> _Words:
    before, rest = _split_at_dashes(argv)
    operands, values, unknown_flags = _sort_words(before, problems)
    command = operands.pop(0) if operands else DEFAULT_COMMAND
    problems[:0] = [_unknown_flag(flag, command) for flag in unknown_flags]
    if command not in COMMANDS:
        problems.append(_unknown_command(command, COMMANDS))
    else:
        problems.extend(_misplaced(command, values))
    return _Words(command, values, tuple(operands), rest)


def _sort_words(
    words: Sequence[str], problems: list[Problem]
) -> tuple[list[str], dict[str, str], list[str]]:
    """The operands, the flags with their values, and the unknown flags."""
    operands: list[str] = []
    values: dict[str, str] = {}
    unknown: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            operands.append(word)
        elif (flag := word.partition("=")[0]) in OPTIONS:
            _add_flag(word, left, values, problems)
        else:
            unknown.append(flag)
            if flag == word:
                _skip_value(flag, left)
    return operands, values, unknown


def _split_at_dashes(argv: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    if "--" not in argv:
        return argv, ()
    index = list(argv).index("--")
    return argv[:index], tuple(argv[index + 1 :])


def _add_flag(word: str, words: list[str], values: dict[str, str], problems: list[Problem]) -> None:
    """Add the flag *word* to *values*; its value may be the next word, the first of *words*."""
    flag, equals, value = word.partition("=")
    option = OPTIONS[flag]
    if not option.metavar:
        if equals:
            problems.append(
                Problem("invalid-flag", f"{flag} takes no value", hint=f"write only {flag}")
            )
        values[flag] = "yes"
        return
    if not equals and option.implied:
        value = option.implied
    elif not equals:
        if not words or words[0].startswith("--"):
            hint = f"write {flag}={option.metavar}"
            problems.append(Problem("invalid-flag", f"{flag} needs a value", hint=hint))
            return
        value = words.pop(0)
    values[flag] = trimmed(value)


def _skip_value(flag: str, words: list[str]) -> None:
    """Drop the probable value of an unknown *flag*, so that it is not taken for a command."""
    from initmig.config.suggestions import FLAGS_ELSEWHERE, elsewhere, nearest

    if other := elsewhere(flag, FLAGS_ELSEWHERE):
        takes_value = other.takes_value
    else:
        similar = nearest(flag, OPTIONS)
        takes_value = not similar or bool(OPTIONS[similar[0]].metavar)
    if takes_value and words and words[0] not in COMMANDS and not words[0].startswith("-"):
        del words[0]


def _misplaced(command: str, values: Mapping[str, str]) -> Iterator[Problem]:
    own = {option.flag for option in (*SETTINGS, *COMMANDS[command].options)}
    for flag in sorted(values.keys() - own):
        homes = [
            name
            for name, other in COMMANDS.items()
            if any(option.flag == flag for option in other.options)
        ]
        yield Problem(
            "misplaced-flag",
            f"`{command}` does not take {flag}",
            hint=f"remove it, or use it with {', '.join(homes)}",
        )


def _unknown_command(word: str, known: Iterable[str]) -> Problem:
    from initmig.config.suggestions import COMMANDS_ELSEWHERE, elsewhere, nearest

    if other := elsewhere(word, COMMANDS_ELSEWHERE):
        hint = other.hint
    else:
        hint = _did_you_mean(nearest(word, known)) or "run `initmig --help` for a list of commands"
    return Problem("unknown-command", f"unknown command {mask_secrets(word)}", hint=hint)


_LONGEST_SHORT_FLAG = len("--step")


def _unknown_flag(flag: str, command: str) -> Problem:
    """The problem of an unknown *flag*. Suggests flags of *command* before other flags."""
    from initmig.config.suggestions import FLAGS_ELSEWHERE, elsewhere, nearest

    if other := elsewhere(flag, FLAGS_ELSEWHERE):
        hint = other.hint
    else:
        options = COMMANDS[command].options if command in COMMANDS else ()
        own = [option.flag for option in (*options, *SETTINGS)]
        found = nearest(flag, (*own, "--help", "--version"))
        # a short flag resembles the flags of other commands only by chance
        if not found and len(flag) > _LONGEST_SHORT_FLAG:
            found = nearest(flag, OPTIONS)
        name = command if command in COMMANDS else "COMMAND"
        hint = _did_you_mean(found) or f"run `initmig {name} --help` for a list of options"
    return Problem("unknown-flag", f"unknown flag {mask_secrets(flag)}", hint=hint)


def _did_you_mean(words: Sequence[str]) -> str:
    """A question that suggests *words*; empty if there are no words."""
    *others, last = words or ("",)
    return last and f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _value(
    option: Option,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> dict[str, Any]:
    """The field of *option* and its value; empty if Config's default applies."""
    text, source = flags.get(option.flag, ""), option.flag
    if not text and option.env:
        text, source = trimmed(environ.get(option.env, "")), option.env
    if not text:
        return {}
    if not option.metavar:
        return {option.field: True}
    try:
        return {option.field: option.parse(text)}
    except ValueError as error:
        problems.append(Problem("invalid-value", f"{source}: {error}"))
        return {}


def _terminal_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the terminal in the environment, by common conventions."""
    columns = environ.get("COLUMNS", "")[:5]
    return {
        "no_color": bool(environ.get("NO_COLOR")),  # https://no-color.org
        "term": environ.get("TERM", ""),
        "columns": int(columns) if columns.isascii() and columns.isdigit() else 0,
    }


def _secret_files(
    flags: Mapping[str, str], environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Secret]:
    found = {}
    for field, variable in (("database_url", "DATABASE_URL"), ("password", "PGPASSWORD")):
        path = trimmed(environ.get(f"{variable}_FILE", ""))
        if not path or (field == "database_url" and flags.get("--database-url")):
            continue
        if trimmed(environ.get(variable, "")):
            problems.append(
                Problem(
                    "secret-given-twice",
                    f"both {variable} and {variable}_FILE are set",
                    hint="unset one of them; the file is read again at each connection attempt",
                )
            )
        found[field] = Secret(path=path)
    return found


def _password_problems(
    flags: Mapping[str, str], environ: Mapping[str, str], values: Mapping[str, Any]
) -> Iterator[Problem]:
    """The variables with a password, if there is a password command as well."""
    if "password" not in values:
        return
    flag = "--password-command"
    source = flag if flags.get(flag) else OPTIONS[flag].env
    for variable in ("PGPASSWORD", "PGPASSWORD_FILE"):
        if trimmed(environ.get(variable, "")):
            yield Problem(
                "secret-given-twice",
                f"both {source} and {variable} are set",
                hint="unset one of them; the command is run again at each connection attempt",
            )


def _operands(words: _Words, problems: list[Problem]) -> dict[str, Any]:
    """The fields for the positional arguments."""
    operands, rest = words.operands, words.rest
    if words.command == "exec":
        if not rest:
            problems.append(
                Problem(
                    "missing-argument",
                    "`exec` needs a command",
                    hint="write initmig exec -- CMD [ARG ...]",
                )
            )
        problems.extend(_unexpected_arguments(operands))
        return {"argv": rest}
    if words.command not in COMMANDS:
        return {}
    problems.extend(_unexpected_arguments(rest))
    if words.command in ABOUT_ITSELF:
        return _topic(words, problems)
    if words.command == "new":
        if not operands:
            problems.append(
                Problem(
                    "missing-argument",
                    "`new` needs a name",
                    hint="write, for example, initmig new add_email",
                )
            )
        problems.extend(_unexpected_arguments(operands[1:]))
        return {"name": " ".join(operands[:1])}
    problems.extend(_unexpected_arguments(operands, words.command))
    return {}


def _topic(words: _Words, problems: list[Problem]) -> dict[str, Any]:
    """The topic of `help`, or the shell of `completion`."""
    allowed = {"help": (*COMMANDS, *TOPICS), "completion": SHELLS}.get(words.command, ())
    name = "".join(words.operands[:1]) if allowed else ""
    problems.extend(_unexpected_arguments(words.operands[1:] if allowed else words.operands))
    if words.command == "completion" and name not in SHELLS:
        message = f"`completion` needs a shell: {', '.join(SHELLS)}"
        problems.append(Problem("missing-argument", message, hint="write initmig completion bash"))
    elif name and name not in allowed:
        problems.append(_unknown_command(name, allowed))
    return {"name": name}


def _unexpected_arguments(words: Iterable[str], command: str = "") -> Iterator[Problem]:
    for word in words:
        yield Problem(
            "unexpected-argument",
            f"unexpected argument {mask_secrets(word)}",
            hint=(_migrate_hint(word) if command == "migrate" else "")
            or "remove it, or see initmig --help",
        )


def _migrate_hint(word: str) -> str:
    """Suggest what to run instead of `migrate` *word*; empty if *word* is not a command.

    In some tools, `migrate` is a group of commands, or the name of the program.
    """
    from initmig.config.suggestions import COMMANDS_ELSEWHERE, elsewhere

    if word in COMMANDS:
        return f"use `initmig {word}`"
    other = elsewhere(word, COMMANDS_ELSEWHERE)
    return other.hint if other else ""


def _check_combinations(command: str, flags: Mapping[str, str], problems: list[Problem]) -> None:
    # a missing flag may be a misspelled one, which is reported as unknown
    if command == "rollback" and not any(problem.id == "unknown-flag" for problem in problems):
        given = [flag for flag in ("--to", "--steps", "--all") if flags.get(flag)]
        if len(given) != 1:
            problems.append(
                Problem(
                    "missing-argument",
                    "`rollback` needs exactly one of --to ID, --steps N and --all",
                    hint="see the ids, in the order applied, with `initmig status`",
                )
            )
    if command == "baseline" and not flags.get("--to"):
        problems.append(
            Problem(
                "missing-argument",
                "`baseline` needs --to ID",
                hint="name the last migration whose schema this database already has",
            )
        )
    if command == "new" and {"--sql", "--python"} <= flags.keys():
        problems.append(_conflicting("--sql", "--python"))
    if {"--json", "--markdown"} <= flags.keys():
        problems.append(_conflicting("--json", "--markdown"))


def _conflicting(flag: str, other: str) -> Problem:
    return Problem(
        "conflicting-flags",
        f"{flag} and {other} cannot be used together",
        hint="keep one of them",
    )


def _many_problems(flags: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[Problem]:
    many = {"targets", "each_schema"} & values.keys()
    if len(many) > 1:
        yield _conflicting("--targets", "--each-schema")
    if {"each_schema", "history_schema"} <= values.keys():
        yield Problem(
            "conflicting-flags",
            "--each-schema and --history-schema cannot be used together: all schemas would share"
            " one history",
            hint="remove --history-schema: each schema then has its own history",
        )
    if not many and values["command"] == "migrate":
        for flag in ("--fail-fast", "--json", "--parallel", "--shard"):
            if flag in flags:
                yield Problem(
                    "misplaced-flag",
                    f"{flag} needs --targets or --each-schema",
                    hint=f"remove {flag}, or select many databases or schemas with one of these",
                )
