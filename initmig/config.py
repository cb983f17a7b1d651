"""Arguments and environment to one frozen Config, with every problem reported together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from initmig.dsn import mask_secrets, parse_dsn
from initmig.durations import parse_duration
from initmig.errors import ConfigError, Problem


class Secret(NamedTuple):
    """A value, or the file that holds it: read again at each use, as it may be rotated."""

    value: str = ""
    path: str = ""

    def read(self) -> str:
        """The value, without the line end of its file; :raises ConfigError: it cannot be read."""
        if not self.path:
            return self.value
        try:
            with open(self.path, encoding="utf-8-sig") as file:
                return file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(
                f"cannot read the secret file {self.path}: {reason}",
                hint="mount the secret there, readable for the user of this process",
            ) from None

    def __repr__(self) -> str:
        return f"Secret(path={self.path!r})" if self.path else "Secret('***')"


class Address(NamedTuple):
    """Where to listen; an empty *host* is every address, port 0 any that is free."""

    host: str
    port: int


class Config(NamedTuple):
    """Everything a use case may ask for; durations in seconds, 0 as the setting's help says."""

    command: str
    database_url: Secret = Secret()
    password: Secret = Secret()
    migrations: tuple[str, ...] = ("migrations",)
    schema: str = ""
    role: str = ""
    wait_timeout: float = 60.0
    queue_timeout: float = 0.0
    lock_timeout: float = 5.0
    lock_retries: int = 10
    statement_timeout: float = 0.0
    transaction: str = "each"
    out_of_order: str = "warn"
    changed: str = "warn"
    log_format: str = "text"
    log_level: str = "info"
    termination_log: str = ""
    to: str = ""
    steps: int = 0
    all: bool = False
    json: bool = False
    check: bool = False
    wait_for: str = "migrations"
    python: bool = False
    sql: bool = False
    name: str = ""
    argv: tuple[str, ...] = ()
    listen: Address = Address("127.0.0.1", 8080)


class Option(NamedTuple):
    """A flag, the variable that stands for it, and how its text becomes a value."""

    flag: str
    field: str
    help: str
    env: str = ""
    default: str = ""
    metavar: str = ""
    """Empty for a flag that takes no value."""
    parse: Callable[[str], Any] = str


class Command(NamedTuple):
    """What can be asked for; *operands* is how its positional arguments are shown in the help."""

    summary: str
    options: tuple[Option, ...] = ()
    operands: str = ""


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")
        return text

    return parse


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _folders(text: str) -> tuple[str, ...]:
    folders = tuple(folder for folder in (part.strip() for part in text.split(",")) if folder)
    if not folders:
        raise ValueError(f"{text!r} names no folder")
    return folders


_LONGEST_SERVER_TIMEOUT_SECONDS = (2**31 - 1) / 1000
"""PostgreSQL keeps its timeouts as milliseconds in 31 bits."""


def _server_timeout(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > _LONGEST_SERVER_TIMEOUT_SECONDS:
        raise ValueError(f"{text!r} is longer than PostgreSQL allows, 596h")
    return seconds


def _database_url(text: str) -> Secret:
    parse_dsn(text)
    return Secret(text)


def _address(text: str) -> Address:
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed) or any(c in host for c in "/@ "):
        raise ValueError(f"{text!r} is no address to listen on: {_ADDRESSES}")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"{text!r} names no port from 0 to 65535: {_ADDRESSES}")
    return Address(host[1:-1] if bracketed else host, int(port))


_ADDRESSES = "write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:8080, or :8080 for every address"

_POLICIES = ("fail", "warn", "allow")

SETTINGS = (
    Option(
        "--database-url",
        "database_url",
        "where to connect: a postgresql:// URL or a libpq key=value string; better given by"
        " DATABASE_URL or the file that DATABASE_URL_FILE names, because `ps` shows flags;"
        " PGPASSWORD_FILE names a file with the password alone",
        env="DATABASE_URL",
        default="the PG* variables",
        metavar="URL",
        parse=_database_url,
    ),
    Option(
        "--migrations",
        "migrations",
        "the folders of the migrations, comma separated",
        env="INITMIG_MIGRATIONS",
        default="migrations",
        metavar="DIRS",
        parse=_folders,
    ),
    Option(
        "--schema",
        "schema",
        "search_path for everything that initmig does",
        env="INITMIG_SCHEMA",
        default="the server's",
        metavar="NAME",
    ),
    Option(
        "--role",
        "role",
        "SET ROLE for everything that initmig does",
        env="INITMIG_ROLE",
        default="none",
        metavar="NAME",
    ),
    Option(
        "--wait-timeout",
        "wait_timeout",
        "how long to wait for the database to answer; 0 tries once",
        env="INITMIG_WAIT_TIMEOUT",
        default="60s",
        metavar="DURATION",
        parse=parse_duration,
    ),
    Option(
        "--queue-timeout",
        "queue_timeout",
        "how long to wait for another migrator to finish; 0 is no limit",
        env="INITMIG_QUEUE_TIMEOUT",
        default="0",
        metavar="DURATION",
        parse=parse_duration,
    ),
    Option(
        "--lock-timeout",
        "lock_timeout",
        "PostgreSQL's lock_timeout in migrations; 0 is no limit",
        env="INITMIG_LOCK_TIMEOUT",
        default="5s",
        metavar="DURATION",
        parse=_server_timeout,
    ),
    Option(
        "--lock-retries",
        "lock_retries",
        "how often a migration is tried again after a lock timeout, deadlock or serialization"
        " failure",
        env="INITMIG_LOCK_RETRIES",
        default="10",
        metavar="COUNT",
        parse=_count,
    ),
    Option(
        "--statement-timeout",
        "statement_timeout",
        "PostgreSQL's statement_timeout in migrations; 0 is no limit",
        env="INITMIG_STATEMENT_TIMEOUT",
        default="0",
        metavar="DURATION",
        parse=_server_timeout,
    ),
    Option(
        "--transaction",
        "transaction",
        "each: every migration in its own; all: everything pending in one, all or nothing",
        env="INITMIG_TRANSACTION",
        default="each",
        metavar="each|all",
        parse=_choice("each", "all"),
    ),
    Option(
        "--out-of-order",
        "out_of_order",
        "when a pending migration sorts before an applied one",
        env="INITMIG_OUT_OF_ORDER",
        default="warn",
        metavar="|".join(_POLICIES),
        parse=_choice(*_POLICIES),
    ),
    Option(
        "--changed",
        "changed",
        "when the file of an applied migration has changed",
        env="INITMIG_CHANGED",
        default="warn",
        metavar="|".join(_POLICIES),
        parse=_choice(*_POLICIES),
    ),
    Option(
        "--log-format",
        "log_format",
        "text, or json: one object a line",
        env="INITMIG_LOG_FORMAT",
        default="text",
        metavar="text|json",
        parse=_choice("text", "json"),
    ),
    Option(
        "--log-level",
        "log_level",
        "the least important events to show",
        env="INITMIG_LOG_LEVEL",
        default="info",
        metavar="debug|info|warning|error",
        parse=_choice("debug", "info", "warning", "error"),
    ),
    Option(
        "--termination-log",
        "termination_log",
        "the file that gets the outcome in at most 4,096 bytes",
        env="INITMIG_TERMINATION_LOG",
        default="/dev/termination-log if it exists",
        metavar="FILE",
    ),
)

_TO = Option("--to", "to", "stop after this id, or the one that starts so", metavar="ID")
_JSON = Option("--json", "json", "as one JSON document")

COMMANDS = {
    "migrate": Command("wait, lock and apply everything that is pending (the default)", (_TO,)),
    "rollback": Command(
        "undo migrations, newest first, in the reverse of the order applied",
        (
            Option("--to", "to", "undo what was applied after this id", metavar="ID"),
            Option("--steps", "steps", "undo the last N", metavar="N", parse=_positive),
            Option("--all", "all", "undo everything"),
        ),
    ),
    "status": Command(
        "show every migration: applied, pending, changed or unknown",
        (_JSON, Option("--check", "check", "exit 7 if any is pending")),
    ),
    "plan": Command("show what `migrate` would run, in order, with its SQL; reads only", (_TO,)),
    "wait": Command(
        "return once every migration of this image is applied; needs only SELECT",
        (
            Option(
                "--for",
                "wait_for",
                "what to wait for",
                default="migrations",
                metavar="database|migrations",
                parse=_choice("database", "migrations"),
            ),
        ),
    ),
    "new": Command(
        "write a new migration",
        (
            Option("--sql", "sql", "as SQL with a rollback file (the default)"),
            Option("--python", "python", "as Python"),
        ),
        operands="NAME",
    ),
    "serve": Command(
        "migrate, then stay and answer /healthz, /readyz and /metrics",
        (
            Option(
                "--listen",
                "listen",
                "where to answer, from before it migrates; :8080 is every address, port 0 picks"
                " one and logs it; once it only serves, SIGTERM and SIGINT end it with 0",
                env="INITMIG_LISTEN",
                default="127.0.0.1:8080",
                metavar="ADDRESS",
                parse=_address,
            ),
        ),
    ),
    "exec": Command("migrate, then become CMD", (), operands="-- CMD [ARG ...]"),
    "unlock": Command("remove a lock row that a stock `yoyo` left behind"),
}
DEFAULT_COMMAND = "migrate"


class _Words(NamedTuple):
    """The command line, taken apart but not yet understood."""

    command: str
    values: dict[str, str]
    operands: tuple[str, ...]
    rest: tuple[str, ...]


def parse_config(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The settings by flag, then environment, then default.

    :raises ConfigError: with every problem found, not only the first
    """
    problems: list[Problem] = []
    words = _take_apart(argv, problems)
    command = COMMANDS.get(words.command, COMMANDS[DEFAULT_COMMAND])
    values: dict[str, Any] = {"command": words.command}
    for option in (*SETTINGS, *command.options):
        values.update(_value(option, words.values, environ, problems))
    values.update(_secret_files(words.values, environ, problems))
    values.update(_operands(words, problems))
    _check_together(words.command, words.values, problems)
    if problems:
        raise ConfigError.of(tuple(problems))
    return Config(**values)


def parse_reporting(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Only how to log and where to leave the outcome: what an error of the rest is told by."""
    flags = _take_apart(argv, []).values
    values: dict[str, Any] = {}
    for option in SETTINGS:
        if option.field in ("log_format", "log_level", "termination_log"):
            values.update(_value(option, flags, environ, []))
    return Config(DEFAULT_COMMAND, **values)


def _take_apart(argv: Sequence[str], problems: list[Problem]) -> _Words:
    before, rest = _split_at_dashes(argv)
    values: dict[str, str] = {}
    operands: list[str] = []
    words = list(before)
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            _take_flag(word, words, values, problems)
        else:
            operands.append(word)
    command = operands.pop(0) if operands else DEFAULT_COMMAND
    if command not in COMMANDS:
        problems.append(_unknown("command", command, COMMANDS))
    else:
        problems.extend(_misplaced(command, values))
    return _Words(command, values, tuple(operands), rest)


def _split_at_dashes(argv: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    if "--" not in argv:
        return argv, ()
    index = list(argv).index("--")
    return argv[:index], tuple(argv[index + 1 :])


def _take_flag(
    word: str, words: list[str], values: dict[str, str], problems: list[Problem]
) -> None:
    """Put the flag *word* into *values*, with its value, which may be the first of *words*."""
    flag, equals, value = word.partition("=")
    option = _OPTIONS.get(flag)
    if option is None:
        problems.append(_unknown("flag", flag, _OPTIONS))
        if not equals:
            _skip_value(flag, words)
        return
    if not option.metavar:
        if equals:
            problems.append(Problem(f"{flag} takes no value"))
        values[flag] = "yes"
        return
    if not equals:
        if not words or words[0].startswith("--"):
            problems.append(Problem(f"{flag} needs a value: {option.metavar}"))
            return
        value = words.pop(0)
    values[flag] = value


def _skip_value(flag: str, words: list[str]) -> None:
    """Drop what is probably the value of an unknown *flag*: it would be told of as a command."""
    meant = _OPTIONS.get(_nearest(flag, _OPTIONS))
    takes_value = meant is None or meant.metavar
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
        yield Problem(f"`{command}` has no {flag}", hint=f"{flag} belongs to {', '.join(homes)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, n=1)), "")


def _unknown(kind: str, word: str, known: Iterable[str]) -> Problem:
    nearest = _nearest(word, known)
    hint = f"did you mean {nearest}?" if nearest else "see initmig --help"
    return Problem(f"unknown {kind} {mask_secrets(word)}", hint=hint)


def _value(
    option: Option,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> dict[str, Any]:
    """The field of *option* and its value; nothing where Config's own default stands."""
    text, source = flags.get(option.flag, ""), option.flag
    if not text and option.env:
        text, source = environ.get(option.env, ""), option.env
    if not text:
        return {}
    if not option.metavar:
        return {option.field: True}
    try:
        return {option.field: option.parse(text)}
    except ValueError as error:
        problems.append(Problem(f"{source}: {error}"))
        return {}


def _secret_files(
    flags: Mapping[str, str], environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Secret]:
    found = {}
    for field, variable in (("database_url", "DATABASE_URL"), ("password", "PGPASSWORD")):
        path = environ.get(f"{variable}_FILE", "")
        if not path or (field == "database_url" and flags.get("--database-url")):
            continue
        if environ.get(variable):
            problems.append(
                Problem(
                    f"both {variable} and {variable}_FILE are set",
                    hint="keep one of them; the file is read again at each connection attempt",
                )
            )
        found[field] = Secret(path=path)
    return found


def _operands(words: _Words, problems: list[Problem]) -> dict[str, Any]:
    """The positional arguments as fields."""
    operands, rest = words.operands, words.rest
    if words.command == "exec":
        if not rest:
            problems.append(Problem("`exec` needs a command", hint="initmig exec -- CMD [ARG ...]"))
        problems.extend(_superfluous(operands))
        return {"argv": rest}
    problems.extend(_superfluous(rest))
    if words.command == "new":
        if not operands:
            problems.append(Problem("`new` needs a name", hint="initmig new add_email"))
        problems.extend(_superfluous(operands[1:]))
        return {"name": " ".join(operands[:1])}
    problems.extend(_superfluous(operands))
    return {}


def _superfluous(words: Iterable[str]) -> Iterator[Problem]:
    for word in words:
        yield Problem(f"unexpected argument {mask_secrets(word)}", hint="see initmig --help")


def _check_together(command: str, flags: Mapping[str, str], problems: list[Problem]) -> None:
    if command == "rollback":
        given = [flag for flag in ("--to", "--steps", "--all") if flags.get(flag)]
        if len(given) != 1:
            problems.append(
                Problem(
                    "`rollback` needs one of --to ID, --steps N and --all",
                    hint="`initmig status` lists the ids in the order applied",
                )
            )
    if command == "new" and {"--sql", "--python"} <= flags.keys():
        problems.append(Problem("--sql and --python exclude each other"))


_OPTIONS = {
    option.flag: option
    for option in (*SETTINGS, *(o for command in COMMANDS.values() for o in command.options))
}
