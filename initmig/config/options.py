"""The tables of all settings and commands. Parsing, help and completion are built from them."""

from __future__ import annotations

import os
from stat import S_ISREG

from initmig.config.dsn import is_transmittable, parse_dsn
from initmig.core.durations import parse_duration
from initmig.core.errors import ConfigError, EmptySecret
from initmig.core.home import table_name_problem
from initmig.core.quoting import split_names
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_read_once: dict[str, str] = {}
"""The contents of pipes, by path, because a pipe can be read only once."""


class Secret(Record):
    """A value, or a file or a command that provides it at each use, because it may change."""

    value: str = ""
    path: str = ""
    command: tuple[str, ...] = ()
    """The program and its arguments."""

    def read(self, limit: float = float("inf")) -> str:
        """The value, without the final line end. A command has *limit* seconds at most.

        :raises EmptySecret: the file is empty, perhaps because it is not filled yet
        :raises ConfigError: the file cannot be read, or the command cannot be started
        :raises DatabaseUnavailable: the command failed
        """
        if self.command:
            from initmig.config.password_command import password_of

            return password_of(self.command, limit)
        if not self.path:
            return self.value
        text = _read_once.get(self.path) or self._read_file()
        if not text.strip():
            raise EmptySecret(
                "empty-secret",
                f"the secret file {self.path} is empty",
                hint="write the secret to this file, or unset the variable that names it",
            )
        return text

    def _read_file(self) -> str:
        try:
            with open(self.path, encoding="utf-8-sig") as file:
                text = file.read().rstrip("\r\n")
                if "\0" in text:
                    raise ValueError("it contains a NUL character")
                if not S_ISREG(os.fstat(file.fileno()).st_mode):
                    _read_once[self.path] = text
                return text
        except (OSError, ValueError) as error:
            is_other = isinstance(error, UnicodeDecodeError)
            reason = "it is not UTF-8" if is_other else getattr(error, "strerror", str(error))
            raise ConfigError(
                "secret-unreadable",
                f"cannot read the secret file {self.path}: {reason}",
                hint="mount the secret at this path, readable by the user that runs initmig",
            ) from None

    def __repr__(self) -> str:
        if self.command:
            return f"Secret(command=({self.command[0]!r}, '***'))"
        return f"Secret(path={self.path!r})" if self.path else "Secret('***')"


class Address(Record):
    """Where to listen; an empty *host* means every address, port 0 any free port."""

    host: str
    port: int


class Shard(Record):
    """Part *number*, counted from 0, of *parts*."""

    number: int
    parts: int


class Option(Record):
    """A flag, its environment variable, and the function that parses its text."""

    flag: str
    field: str
    help: str
    env: str = ""
    default: str = ""
    metavar: str = ""
    """The placeholder for the value in the help; empty for a flag that takes no value."""
    parse: Callable[[str], Any] = str
    implied: str = ""
    """The value of the flag without an argument; empty if the flag needs one."""


class Command(Record):
    """A command: its help, its options, and its functions, as ``module:function`` of initmig.

    The functions are names, because only the module of the command that runs is imported.
    """

    summary: str
    options: tuple[Option, ...] = ()
    operands: str = ""
    """The positional arguments, as the help shows them."""
    settings: tuple[str, ...] = ()
    """The flags of the SETTINGS that affect the command. It accepts the others as well."""
    run: str = ""
    """Does the work: ``(config, emit) -> result``."""
    run_many: str = ""
    """Does the work if ``--targets`` or ``--each-schema`` selects many databases or schemas."""
    show: str = ""
    """Formats the result for stdout: ``(result, config, screen) -> str``."""
    is_for_stdout: bool = True
    """Whether it is an error if the result cannot be written to stdout; otherwise a warning."""
    then: str = ""
    """Runs last, after the outcome is reported: ``(config, environ)``."""
    text: str = ""
    """Returns the output of a command without settings: ``(operand) -> str``."""


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")
        return text

    return parse


def _name(text: str) -> str:
    """*text*, if it can be sent to the server."""
    if not is_transmittable(text):
        raise ValueError(f"{text!r} is not UTF-8, or contains a NUL character")
    return text


def _schemas(text: str) -> tuple[str, ...]:
    return split_names(_name(text))


def _schema(text: str) -> str:
    first, *others = _schemas(text)
    if others:
        raise ValueError(f"{text!r} is more than one name: put a name with commas in double quotes")
    return first


def _history_table(text: str) -> str:
    if problem := table_name_problem(_name(text)):
        raise ValueError(problem)
    return text


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _shard(text: str) -> Shard:
    index, slash, count = text.partition("/")
    if not (slash and all(each.isascii() and each.isdigit() for each in (index, count))):
        raise ValueError(f"{text!r} is not a shard: write I/N, such as 0/4, 1/4, 2/4 and 3/4")
    if int(index) >= int(count):
        raise ValueError(f"{text!r} is not a shard: I starts at 0 and is less than N")
    return Shard(int(index), int(count))


def _folders(text: str) -> tuple[str, ...]:
    folders = tuple(folder for folder in (part.strip() for part in text.split(",")) if folder)
    if not folders:
        raise ValueError(f"{text!r} names no folder: separate the folders with commas")
    return folders


_LONGEST_SERVER_TIMEOUT_SECONDS = (2**31 - 1) / 1000
"""PostgreSQL stores its timeouts in milliseconds, as 32-bit signed integers."""


def _server_timeout(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > _LONGEST_SERVER_TIMEOUT_SECONDS:
        raise ValueError(f"{text!r} is too long: PostgreSQL allows up to 596h")
    return seconds


def _database_url(text: str) -> Secret:
    parse_dsn(text)
    return Secret(text)


def _password_command(text: str) -> Secret:
    """Split *text* into words as a shell does. Errors do not repeat it: it may contain secrets."""
    import shlex

    if not is_transmittable(text):
        raise ValueError("the command is not UTF-8, or contains a NUL character")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot split the command into words: {error}") from None
    if not words or not words[0]:
        raise ValueError("the command has no program")
    if "=" in words[0]:
        raise ValueError(
            "the command begins with a variable, and no shell runs it: write env NAME=value PROGRAM"
        )
    return Secret(command=tuple(words))


def _address(text: str) -> Address:
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed) or any(c in host for c in "/@ "):
        raise ValueError(f"{text!r} is not an address to listen on: {_ADDRESSES}")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"{text!r} has no port from 0 to 65535: {_ADDRESSES}")
    return Address(host[1:-1] if bracketed else host, int(port))


_ADDRESSES = "write 127.0.0.1:8080, [::1]:8080, 0.0.0.0:8080, or :8080 for every address"

_POLICIES = ("fail", "warn", "allow")

SETTINGS = (
    Option(
        "--database-url",
        "database_url",
        "where to connect: a postgresql:// URL or a libpq key=value string. Prefer the variable,"
        " or DATABASE_URL_FILE, because `ps` shows flags",
        env="DATABASE_URL",
        default="the PG* variables",
        metavar="URL",
        parse=_database_url,
    ),
    Option(
        "--password-command",
        "password",
        "run this command at each attempt to connect, and use the line that it prints as the"
        " password. No shell runs it",
        env="INITMIG_PASSWORD_COMMAND",
        default="none",
        metavar="COMMAND",
        parse=_password_command,
    ),
    Option(
        "--migrations",
        "migrations",
        "folders of the migrations, separated by commas. A pattern (apps/*/migrations) or"
        " package:NAME:FOLDER is also accepted",
        env="INITMIG_MIGRATIONS",
        default="migrations",
        metavar="DIRS",
        parse=_folders,
    ),
    Option(
        "--schema",
        "schema",
        "schemas for the search_path, separated by commas. The first one holds the history",
        env="INITMIG_SCHEMA",
        default="the server's search_path",
        metavar="NAMES",
        parse=_schemas,
    ),
    Option(
        "--history-schema",
        "history_schema",
        "schema of the history tables, if different",
        env="INITMIG_HISTORY_SCHEMA",
        default="the first of --schema",
        metavar="NAME",
        parse=_schema,
    ),
    Option(
        "--history-table",
        "history_table",
        "name of the history table, as in yoyo's --migration-table. Applications that share a"
        " schema each need their own",
        env="INITMIG_HISTORY_TABLE",
        default="_yoyo_migration",
        metavar="NAME",
        parse=_history_table,
    ),
    Option(
        "--role",
        "role",
        "do everything as this role (SET ROLE)",
        env="INITMIG_ROLE",
        default="none",
        metavar="NAME",
        parse=_name,
    ),
    Option(
        "--wait-timeout",
        "wait_timeout",
        "how long to wait for the database; 0 tries once. If the server refuses the login, initmig"
        " waits 10s at most",
        env="INITMIG_WAIT_TIMEOUT",
        default="60s",
        metavar="DURATION",
        parse=parse_duration,
    ),
    Option(
        "--queue-timeout",
        "queue_timeout",
        "how long to wait for another migrator; 0 means no limit",
        env="INITMIG_QUEUE_TIMEOUT",
        default="0",
        metavar="DURATION",
        parse=parse_duration,
    ),
    Option(
        "--lock-timeout",
        "lock_timeout",
        "PostgreSQL's lock_timeout in migrations; 0 means no limit",
        env="INITMIG_LOCK_TIMEOUT",
        default="5s",
        metavar="DURATION",
        parse=_server_timeout,
    ),
    Option(
        "--lock-retries",
        "lock_retries",
        "how often to retry a migration after a lock timeout, deadlock or serialization failure",
        env="INITMIG_LOCK_RETRIES",
        default="10",
        metavar="COUNT",
        parse=_count,
    ),
    Option(
        "--statement-timeout",
        "statement_timeout",
        "PostgreSQL's statement_timeout in migrations; 0 means no limit",
        env="INITMIG_STATEMENT_TIMEOUT",
        default="0",
        metavar="DURATION",
        parse=_server_timeout,
    ),
    Option(
        "--transaction",
        "transaction",
        "one transaction for each migration, or one for all pending migrations",
        env="INITMIG_TRANSACTION",
        default="each",
        metavar="each|all",
        parse=_choice("each", "all"),
    ),
    Option(
        "--out-of-order",
        "out_of_order",
        "what to do if a pending migration sorts before an applied one",
        env="INITMIG_OUT_OF_ORDER",
        default="warn",
        metavar="|".join(_POLICIES),
        parse=_choice(*_POLICIES),
    ),
    Option(
        "--changed",
        "changed",
        "what to do if the file of an applied migration has changed",
        env="INITMIG_CHANGED",
        default="warn",
        metavar="|".join(_POLICIES),
        parse=_choice(*_POLICIES),
    ),
    Option(
        "--foreign",
        "foreign",
        "what to do if a file or the history belongs to another migration tool",
        env="INITMIG_FOREIGN",
        default="fail",
        metavar="fail|allow",
        parse=_choice("fail", "allow"),
    ),
    Option(
        "--allow-empty",
        "allow_empty",
        "accept folders without any migration",
        env="INITMIG_ALLOW_EMPTY",
        default="no",
        metavar="yes|no",
        parse=_yes_or_no,
        implied="yes",
    ),
    Option(
        "--log-format",
        "log_format",
        "log as text, or as JSON with one object per line",
        env="INITMIG_LOG_FORMAT",
        default="text",
        metavar="text|json",
        parse=_choice("text", "json"),
    ),
    Option(
        "--log-level",
        "log_level",
        "minimum log level",
        env="INITMIG_LOG_LEVEL",
        default="info",
        metavar="debug|info|warning|error",
        parse=_choice("debug", "info", "warning", "error"),
    ),
    Option(
        "--termination-log",
        "termination_log",
        "file that gets the outcome, in at most 4,096 bytes",
        env="INITMIG_TERMINATION_LOG",
        default="/dev/termination-log if it exists",
        metavar="FILE",
    ),
    Option(
        "--color",
        "color",
        "when to use colors; auto: on a terminal, unless NO_COLOR is set",
        env="INITMIG_COLOR",
        default="auto",
        metavar="auto|always|never",
        parse=_choice("auto", "always", "never"),
    ),
)

_LOGGING = ("--log-format", "--log-level", "--termination-log", "--color")
_CONNECTING = (
    *("--database-url", "--password-command", "--schema", "--history-schema", "--history-table"),
    *("--role", "--wait-timeout", *_LOGGING),
)
_READING = (*_CONNECTING, "--migrations", "--foreign", "--allow-empty")
_RUNNING = (*_READING, "--lock-timeout", "--lock-retries", "--statement-timeout")
_POLICED = ("--out-of-order", "--changed")
_MIGRATING = (*_RUNNING, *_POLICED, "--queue-timeout", "--transaction")

_TO = Option("--to", "to", "stop after this migration (a unique prefix is enough)", metavar="ID")
_JSON = Option("--json", "json", "print the result as one JSON document")

_MANY = (
    Option(
        "--targets",
        "targets",
        "migrate every database that this TOML file lists",
        env="INITMIG_TARGETS",
        metavar="FILE",
    ),
    Option(
        "--each-schema",
        "each_schema",
        "migrate every schema whose name is LIKE this pattern",
        env="INITMIG_EACH_SCHEMA",
        metavar="PATTERN",
        parse=_name,
    ),
    Option(
        "--parallel",
        "parallel",
        "how many targets to migrate at a time",
        env="INITMIG_PARALLEL",
        default="4",
        metavar="N",
        parse=_positive,
    ),
    Option(
        "--shard",
        "shard",
        "migrate only part I of N parts of the targets, counted from 0",
        env="INITMIG_SHARD",
        metavar="I/N",
        parse=_shard,
    ),
    Option("--fail-fast", "fail_fast", "start no more targets after one has failed"),
    Option("--json", "json", "print one JSON line for each target"),
)

COMMANDS = {
    "migrate": Command(
        "apply all pending migrations (the default command)",
        (_TO, *_MANY),
        settings=_MIGRATING,
        run="commands.migrate:migrate",
        run_many="cli.many:migrate_many",
    ),
    "exec": Command(
        "migrate, then run CMD in place of initmig",
        operands="-- CMD [ARG ...]",
        settings=_MIGRATING,
        run="commands.exec:migrate_first",
        then="commands.exec:become",
    ),
    "serve": Command(
        "migrate, then answer /healthz, /readyz and /metrics",
        (
            Option(
                "--listen",
                "listen",
                "address to listen on; :8080 means all addresses, port 0 any free port",
                env="INITMIG_LISTEN",
                default="127.0.0.1:8080",
                metavar="ADDRESS",
                parse=_address,
            ),
        ),
        settings=_MIGRATING,
        run="commands.serve.serve:serve",
    ),
    "wait": Command(
        "wait until all migrations of this image are applied",
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
        settings=(*_READING, *_POLICED),
        run="commands.wait:wait",
    ),
    "status": Command(
        "show every migration and its state",
        (
            _JSON,
            Option("--check", "check", "exit 7 if any is pending, 6 if `migrate` would refuse"),
        ),
        settings=(*_READING, *_POLICED),
        run="commands.status:status",
        show="commands.status:show",
    ),
    "plan": Command(
        "show what `migrate` would run, with its SQL and locks",
        (_TO, _JSON),
        settings=(*_READING, *_POLICED, "--transaction"),
        run="commands.plan:plan",
        show="commands.plan:show",
    ),
    "doctor": Command(
        "check privileges and server settings; changes nothing",
        (
            Option(
                "--app-role",
                "app_role",
                "also check that your application, which logs in as this role, can use the tables"
                " and sequences",
                env="INITMIG_APP_ROLE",
                metavar="ROLE",
                parse=_name,
            ),
            _JSON,
        ),
        settings=(*_READING, *_POLICED, "--transaction"),
        run="commands.doctor.doctor:doctor",
        show="commands.doctor.report:show",
    ),
    "rehearse": Command(
        "run pending migrations, roll them back, and show times and locks",
        (
            _TO,
            _JSON,
            Option("--markdown", "markdown", "print Markdown, for a pull request"),
        ),
        settings=tuple(flag for flag in _MIGRATING if flag != "--lock-retries"),
        run="commands.rehearse.rehearse:rehearse",
        show="commands.rehearse.report:show",
    ),
    "new": Command(
        "write a new migration",
        (
            Option("--sql", "sql", "as SQL with a rollback file (the default)"),
            Option("--python", "python", "as Python"),
        ),
        operands="NAME",
        settings=("--migrations", *_LOGGING),
        run="commands.new:new",
        show="commands.new:show",
        is_for_stdout=False,
    ),
    "verify": Command(
        "check on a scratch database that rollbacks restore the schema",
        (
            Option(
                "--require-rollback",
                "require_rollback",
                "fail if a migration has no rollback, instead of a warning",
            ),
            Option(
                "--from-baseline",
                "from_baseline",
                "load this dump first (plain SQL from pg_dump; needs psql)",
                metavar="FILE",
            ),
            _JSON,
        ),
        settings=_RUNNING,
        run="commands.verify.verify:verify",
        show="commands.verify.report:show",
    ),
    "rollback": Command(
        "roll back migrations, newest first",
        (
            Option("--to", "to", "roll back what was applied after this one", metavar="ID"),
            Option("--steps", "steps", "roll back the last N", metavar="N", parse=_positive),
            Option("--all", "all", "roll back all migrations"),
            Option(
                "--irreversible",
                "irreversible",
                "what to do if a migration has no rollback; skip only removes its record",
                env="INITMIG_IRREVERSIBLE",
                default="fail",
                metavar="fail|skip",
                parse=_choice("fail", "skip"),
            ),
        ),
        settings=(*_RUNNING, "--changed", "--queue-timeout"),
        run="commands.rollback:rollback",
    ),
    "baseline": Command(
        "record migrations as applied without running them",
        (
            Option(
                "--to",
                "to",
                "last migration to record (a unique prefix is enough)",
                metavar="ID",
            ),
        ),
        settings=(*_READING, "--changed", "--queue-timeout", "--lock-timeout"),
        run="commands.baseline:baseline",
    ),
    "unlock": Command(
        "remove a lock row that stock yoyo left behind",
        settings=(*_CONNECTING, "--lock-timeout"),
        run="commands.unlock:unlock",
    ),
    "completion": Command(
        "print a completion script for your shell",
        operands="bash|zsh|fish",
        text="cli.completion:script",
    ),
    "help": Command(
        "show help for a command, settings or exit-codes",
        operands="[TOPIC]",
        text="cli.help:help_text",
    ),
    "version": Command(
        "show the version",
        text="cli.help:version_text",
    ),
}
DEFAULT_COMMAND = "migrate"
ABOUT_ITSELF = tuple(name for name, command in COMMANDS.items() if command.text)
"""The commands that read no settings and no variables, so their output is always the same."""
TOPICS = ("settings", "exit-codes")
"""The topics of `help` in addition to the commands."""
SHELLS = ("bash", "zsh", "fish")

OPTIONS = {
    option.flag: option
    for option in (*SETTINGS, *(o for command in COMMANDS.values() for o in command.options))
}
