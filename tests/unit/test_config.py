from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initmig.config.config import Config, parse_config, parse_reporting
from initmig.config.options import COMMANDS, SETTINGS, Address, Option, Secret, Shard
from initmig.core.errors import ConfigError, Problem
from initmig.core.quoting import join_names, split_names

# A text for each setting, and its parsed value.
GIVEN = {
    "--database-url": ("postgres://h/d", Secret("postgres://h/d")),
    "--password-command": (
        """ get-token --for 'an app' "two words" a\\ b '' """,
        Secret(command=("get-token", "--for", "an app", "two words", "a b", "")),
    ),
    "--migrations": (" a , b,,c ", ("a", "b", "c")),
    "--schema": (' App one , "b,""c"" "', ("App one", 'b,"c" ')),
    "--history-schema": ('"a, b"', "a, b"),
    "--history-table": ("app_migration", "app_migration"),
    "--role": ("owner", "owner"),
    "--wait-timeout": ("500ms", 0.5),
    "--queue-timeout": ("2m", 120.0),
    "--lock-timeout": ("1h", 3600.0),
    "--lock-retries": ("0", 0),
    "--statement-timeout": ("1.5", 1.5),
    "--transaction": ("all", "all"),
    "--out-of-order": ("fail", "fail"),
    "--changed": ("allow", "allow"),
    "--foreign": ("allow", "allow"),
    "--allow-empty": ("yes", True),
    "--log-format": ("json", "json"),
    "--log-level": ("debug", "debug"),
    "--termination-log": ("/tmp/outcome", "/tmp/outcome"),
    "--color": ("never", "never"),
}
WRONG = {
    "--color": "pink",
    "--database-url": "mysql://h/d",
    "--password-command": "get-token 'an app",
    "--migrations": " , ",
    "--schema": "a,,b",
    "--history-schema": "a,b",
    "--history-table": "_yoyo_log",
    "--wait-timeout": "soon",
    "--queue-timeout": "-1",
    "--lock-timeout": "5 minutes",
    "--lock-retries": "1.5",
    "--statement-timeout": "1e3",
    "--transaction": "none",
    "--out-of-order": "FAIL",
    "--changed": "no",
    "--foreign": "warn",
    "--allow-empty": "maybe",
    "--log-format": "yaml",
    "--log-level": "trace",
}
each_setting = pytest.mark.parametrize("option", SETTINGS, ids=lambda option: option.flag)


def problems_of(argv: list[str], environ: dict[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(argv, environ or {})
    return caught.value.problems


def messages_of(argv: list[str], environ: dict[str, str] | None = None) -> list[str]:
    return [problem.message for problem in problems_of(argv, environ)]


def test_no_arguments_mean_migrate_with_every_default() -> None:
    assert parse_config([], {}) == Config("migrate")


def test_every_setting_is_covered() -> None:
    assert GIVEN.keys() == {option.flag for option in SETTINGS}


@each_setting
def test_flag_overrides_variable_and_variable_overrides_default(option: Option) -> None:
    text, value = GIVEN[option.flag]
    default = getattr(Config("migrate"), option.field)
    words = [f"{option.flag}={text}"] if option.implied else [option.flag, text]
    by_flag = parse_config(words, {option.env: WRONG.get(option.flag, "other")})
    assert getattr(by_flag, option.field) == value
    assert getattr(parse_config([], {option.env: text}), option.field) == value
    assert value != default


@each_setting
def test_empty_value_counts_as_unset(option: Option) -> None:
    default = Config("migrate")
    assert parse_config([], {option.env: ""}) == default
    assert parse_config([f"{option.flag}="], {}) == default
    if not option.implied:
        assert parse_config([option.flag, ""], {}) == default


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t\n\n"])
@each_setting
def test_trailing_whitespace_of_a_setting_is_ignored(option: Option, end: str) -> None:
    text, value = GIVEN[option.flag]
    by_variable = parse_config([], {option.env: text + end})
    by_flag = parse_config([f"{option.flag}={text}{end}"], {})
    assert getattr(by_variable, option.field) == getattr(by_flag, option.field) == value
    assert parse_config([], {option.env: end}) == parse_config([], {})


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("INITMIG_TARGETS", "t.toml", "t.toml"),
        ("INITMIG_EACH_SCHEMA", "t%", "t%"),
        ("INITMIG_PARALLEL", "8", 8),
        ("INITMIG_SHARD", "0/2", Shard(0, 2)),
        ("INITMIG_LISTEN", ":80", Address("", 80)),
        ("DATABASE_URL_FILE", "/secret", Secret(path="/secret")),
        ("PGPASSWORD_FILE", "/secret", Secret(path="/secret")),
    ],
)
def test_trailing_line_end_of_a_variable_is_ignored(
    variable: str, text: str, value: object
) -> None:
    argv = ["serve"] if variable == "INITMIG_LISTEN" else []
    assert value in parse_config(argv, {variable: f"{text}\r\n"})


def test_escaped_trailing_space_is_part_of_the_password() -> None:
    text = "host=h password=a\\ "
    assert parse_config([], {"DATABASE_URL": f"{text}\n"}).database_url == Secret(text)


def test_line_end_alone_is_not_a_value() -> None:
    for argv in (["baseline", "--to=\n"], ["rollback", "--to", "\n"]):
        with pytest.raises(ConfigError, match="needs"):
            parse_config(argv, {})


def test_flag_without_a_value_means_yes() -> None:
    assert parse_config(["--allow-empty"], {}).allow_empty
    assert parse_config(["--allow-empty", "status"], {"INITMIG_ALLOW_EMPTY": "no"}).allow_empty
    assert not parse_config(["--allow-empty=no"], {"INITMIG_ALLOW_EMPTY": "yes"}).allow_empty


def test_zero_does_not_count_as_unset() -> None:
    environ = {
        "INITMIG_WAIT_TIMEOUT": "0",
        "INITMIG_LOCK_RETRIES": "0",
        "INITMIG_LOCK_TIMEOUT": "0",
    }
    config = parse_config([], environ)
    assert (config.wait_timeout, config.lock_retries, config.lock_timeout) == (0, 0, 0)


def test_flag_takes_its_value_after_a_space_or_an_equals_sign() -> None:
    assert parse_config(["--schema", "a=b"], {}).schema == ("a=b",)
    assert parse_config(["--schema=a=b"], {}).schema == ("a=b",)


def test_flags_are_accepted_before_and_after_the_command() -> None:
    config = parse_config(["--schema", "a", "status", "--json", "--check"], {})
    assert (config.command, config.schema, config.json, config.check) == (
        "status",
        ("a",),
        True,
        True,
    )


@pytest.mark.parametrize("flag", WRONG)
def test_invalid_value_is_reported_with_its_flag_or_variable(flag: str) -> None:
    [option] = [option for option in SETTINGS if option.flag == flag]
    [by_flag] = messages_of([f"{flag}={WRONG[flag]}"])
    [by_variable] = messages_of([], {option.env: WRONG[flag]})
    assert by_flag.startswith(f"{flag}: ")
    assert by_variable == by_flag.replace(flag, option.env, 1)


def test_all_invalid_settings_are_reported_together() -> None:
    flags = [f"{flag}={text}" for flag, text in WRONG.items()]
    messages = messages_of(["status", "--nonsense=1", *flags])
    reported = {message.partition(": ")[0] for message in messages}
    assert reported == {*WRONG, "unknown flag --nonsense"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ("a",)),
        ("A b", ("A b",)),
        ("a , b", ("a", "b")),
        ('"a"', ("a",)),
        ('"a,b"', ("a,b",)),
        ('"a,b" , c', ("a,b", "c")),
        ('" a "', (" a ",)),
        ('"a""b"', ('a"b',)),
        ('""""', ('"',)),
        ('a"b', ('a"b',)),
        ('a "b"', ('a "b"',)),
        ('"$user", public', ("$user", "public")),
        ("a\\", ("a\\",)),
        ("a.b", ("a.b",)),
        ('"a\nb"', ("a\nb",)),
        ("🐘", ("🐘",)),
        ("é" * 31 + "x", ("é" * 31 + "x",)),
    ],
)
def test_schemas_are_a_comma_separated_list_with_optional_quotes(
    text: str, names: tuple[str, ...]
) -> None:
    assert parse_config(["--schema", text], {}).schema == names
    assert parse_config([], {"INITMIG_SCHEMA": f"{text}\n"}).schema == names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (",", "contains an empty name"),
        ("a,", "contains an empty name"),
        (",a", "contains an empty name"),
        ("a, ,b", "contains an empty name"),
        ('""', "contains an empty name"),
        ('a, ""', "contains an empty name"),
        ('"', "contains a double quote that is not closed"),
        ('"a', "contains a double quote that is not closed"),
        ('"a""', "contains a double quote that is not closed"),
        ('"a""""', "contains a double quote that is not closed"),
        ('"a"b', "needs a comma after each name in quotes"),
        ('"a" "b"', "needs a comma after each name in quotes"),
        ("x" * 64, "is longer than the 63 bytes that PostgreSQL allows"),
        ("é" * 32, "is longer than the 63 bytes that PostgreSQL allows"),
    ],
)
def test_invalid_list_of_schemas_is_refused(text: str, reason: str) -> None:
    for flag in ("--schema", "--history-schema"):
        [message] = messages_of([flag, text])
        assert message.startswith(f"{flag}: ")
        assert message.endswith(reason)


@given(st.lists(st.text(min_size=1, max_size=15), min_size=1))
def test_joined_names_are_split_into_the_same_names(names: list[str]) -> None:
    assert split_names(join_names(names)) == tuple(names)


@pytest.mark.parametrize("name", ["lock", "statement"])
def test_timeout_too_long_for_postgresql_is_refused(name: str) -> None:
    assert parse_config([f"--{name}-timeout", "596h"], {})
    [message] = messages_of([f"--{name}-timeout", "597h"])
    assert message == f"--{name}-timeout: '597h' is too long: PostgreSQL allows up to 596h"


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["migrat"], "unknown command migrat", "did you mean migrate?"),
        (["xyzzy"], "unknown command xyzzy", "run `initmig --help` for a list of commands"),
        (["--lock-timout", "5s"], "unknown flag --lock-timout", "did you mean --lock-timeout?"),
        (["--lock-timout=5s"], "unknown flag --lock-timout", "did you mean --lock-timeout?"),
        (["--foo"], "unknown flag --foo", "run `initmig migrate --help` for a list of options"),
        (["rollback", "--step", "1"], "unknown flag --step", "did you mean --steps?"),
        (["--xyzzy"], "unknown flag --xyzzy", "run `initmig migrate --help` for a list of options"),
        (["-v", "status"], "unknown flag -v", "use --log-level=debug"),
        (["new", "--pyton", "x"], "unknown flag --pyton", "did you mean --python?"),
        (["--schema"], "--schema needs a value", "write --schema=NAMES"),
        (["status", "--schema", "--json"], "--schema needs a value", "write --schema=NAMES"),
        (["status", "--check=1"], "--check takes no value", "write only --check"),
        (["migrate", "again"], "unexpected argument again", "remove it, or see initmig --help"),
        (["migrate", "--", "x"], "unexpected argument x", "remove it, or see initmig --help"),
        (
            ["wait", "--json"],
            "`wait` does not take --json",
            "remove it, or use it with migrate, status, plan, doctor, rehearse, verify",
        ),
        (
            ["wait", "--to", "x"],
            "`wait` does not take --to",
            "remove it, or use it with migrate, plan, rehearse, rollback, baseline",
        ),
        (["wait", "--for", "x"], "--for: 'x' is not one of database, migrations", ""),
        (
            ["rollback"],
            "`rollback` needs exactly one of --to ID, --steps N and --all",
            "see the ids, in the order applied, with `initmig status`",
        ),
        (
            ["rollback", "--to=", "--steps="],
            "`rollback` needs exactly one of --to ID, --steps N and --all",
            "see the ids, in the order applied, with `initmig status`",
        ),
        (
            ["rollback", "--all", "--steps", "2"],
            "`rollback` needs exactly one of --to ID, --steps N and --all",
            "see the ids, in the order applied, with `initmig status`",
        ),
        (
            ["rollback", "--steps", "0"],
            "--steps: '0' is not a whole number of at least 1",
            "",
        ),
        (
            ["rollback", "--steps", "-1"],
            "--steps: '-1' is not a whole number of at least 1",
            "",
        ),
        (["new"], "`new` needs a name", "write, for example, initmig new add_email"),
        (["new", "add", "email"], "unexpected argument email", "remove it, or see initmig --help"),
        (
            ["new", "x", "--sql", "--python"],
            "--sql and --python cannot be used together",
            "keep one of them",
        ),
        (["exec"], "`exec` needs a command", "write initmig exec -- CMD [ARG ...]"),
        (["exec", "--"], "`exec` needs a command", "write initmig exec -- CMD [ARG ...]"),
        (["exec", "ls", "--", "ls"], "unexpected argument ls", "remove it, or see initmig --help"),
    ],
    ids=str,
)
def test_each_mistake_is_one_problem_with_a_next_step(
    argv: list[str], message: str, hint: str
) -> None:
    [problem] = problems_of(argv)
    assert (problem.message, problem.hint) == (message, hint)


def test_arguments_of_the_exec_program_are_not_parsed() -> None:
    config = parse_config(["exec", "--schema=a", "--", "app", "--help", "--", "--nonsense"], {})
    assert config.argv == ("app", "--help", "--", "--nonsense")


@pytest.mark.parametrize("variable", ["DATABASE_URL", "PGPASSWORD"])
def test_secret_given_twice_is_refused(variable: str) -> None:
    environ = {variable: "host=secret", f"{variable}_FILE": "/run/secrets/x"}
    [message] = messages_of([], environ)
    assert message == f"both {variable} and {variable}_FILE are set"


@pytest.mark.parametrize("variable", ["PGPASSWORD", "PGPASSWORD_FILE"])
def test_password_command_and_password_are_refused(variable: str) -> None:
    environ = {variable: "secret", "INITMIG_PASSWORD_COMMAND": "get-token"}
    [by_variable] = messages_of([], environ)
    assert by_variable == f"both INITMIG_PASSWORD_COMMAND and {variable} are set"
    [by_flag] = messages_of(["--password-command=other"], environ)
    assert by_flag == f"both --password-command and {variable} are set"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("get 'secret", "cannot split the command into words: No closing quotation"),
        ("get secret\\", "cannot split the command into words: No escaped character"),
        ("'' secret", "the command has no program"),
        ("TOKEN=secret get", "the command begins with a variable, and no shell runs it"),
        ("get secret\udcff", "the command is not UTF-8, or contains a NUL character"),
        ("get secret\0", "the command is not UTF-8, or contains a NUL character"),
    ],
)
def test_wrong_password_command_is_refused_and_not_repeated(text: str, reason: str) -> None:
    [message] = messages_of([], {"INITMIG_PASSWORD_COMMAND": text})
    assert message.startswith(f"INITMIG_PASSWORD_COMMAND: {reason}")
    assert "secret" not in message
    assert "secret" not in repr(Secret(command=("get", "secret")))


def test_database_url_flag_overrides_database_url_file() -> None:
    environ = {"DATABASE_URL_FILE": "/run/secrets/url"}
    assert parse_config([], environ).database_url == Secret(path="/run/secrets/url")
    assert parse_config(["--database-url", "host=h"], environ).database_url == Secret("host=h")


def test_secret_file_is_read_on_each_use(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = Secret(path=str(file))
    file.write_bytes(b"\xef\xbb\xbfhost=one \r\n")
    assert secret.read() == "host=one "
    file.write_text("host=two")
    assert secret.read() == "host=two"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"\xff", "not UTF-8"), (b"a\0b", "a NUL character")],
)
def test_unreadable_secret_file_is_named_in_the_error(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file}: .*{reason}"):
        Secret(path=str(file)).read()


def test_secret_is_not_shown_in_the_text_of_the_config() -> None:
    config = parse_config([], {"DATABASE_URL": "postgres://u:hunter2@h/d"})
    assert "hunter2" not in f"{config} {config!r} {config.database_url}"
    assert config.database_url.read() == "postgres://u:hunter2@h/d"


@pytest.mark.parametrize(
    "argv",
    [
        ["--database-url", "postgres://u:hunter2@h:x/d"],
        ["--database-url", "password=hunter2 x"],
        ["postgres://u:hunter2@h/d"],
        ["migrate", "postgres://u:hunter2@h/d"],
        ["migrate", "password=hunter2"],
        ["--pasword", "hunter2"],
        ["--pasword=hunter2"],
        ["--database-ur", "postgres://u:hunter2@h/d"],
        ["--database-url", "--postgres://u:hunter2@h/d"],
    ],
    ids=str,
)
def test_misplaced_secret_is_not_repeated_in_the_error(argv: list[str]) -> None:
    assert "hunter2" not in str(problems_of(argv))


def test_logging_settings_are_parsed_despite_other_errors() -> None:
    argv = ["--nonsense", "--log-format", "json", "--lock-timeout=x", "--log-level=loud"]
    reporting = parse_reporting(argv, {"INITMIG_TERMINATION_LOG": "/tmp/outcome"})
    assert reporting == Config("migrate", log_format="json", termination_log="/tmp/outcome")


WORDS = st.one_of(
    st.sampled_from([*COMMANDS, "--", "--to", "--json", "--all", "--steps", "--schema", "5s"]),
    st.sampled_from([option.flag for option in SETTINGS]),
    st.text(max_size=8),
)


@given(st.lists(WORDS, max_size=8))
def test_any_command_line_is_parsed_or_refused_with_a_reason(argv: list[str]) -> None:
    try:
        outcome = [parse_config(argv, {}).command]
    except ConfigError as error:
        outcome = [problem.message for problem in error.problems]
    assert all(outcome)
    assert outcome
    assert parse_reporting(argv, {}).command == "migrate"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:8080", Address("::1", 8080)),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535)),
        ("localhost:0", Address("localhost", 0)),
        (" :8080 ", Address("", 8080)),
    ],
)
def test_listen_address_is_host_and_port(text: str, address: Address) -> None:
    assert parse_config(["serve", "--listen", text], {}).listen == address
    assert parse_config(["serve"], {"INITMIG_LISTEN": text}).listen == address


def test_serve_listens_on_localhost_by_default() -> None:
    assert parse_config(["serve"], {}).listen == Address("127.0.0.1", 8080)


@pytest.mark.parametrize(
    "text",
    ["8080", "localhost", ":", ":65536", ":-1", ":http", "::1:80", "http://h:80", "a b:80", ":٨"],
)
def test_invalid_listen_address_is_reported_with_the_other_problems(text: str) -> None:
    messages = messages_of(["serve", "--listen", text, "--lock-retries=x"])
    assert len(messages) == 2
    [message] = [message for message in messages if message.startswith("--listen: ")]
    assert message.startswith(f"--listen: {text!r} ")
    assert message.endswith("127.0.0.1:8080, [::1]:8080, 0.0.0.0:8080, or :8080 for every address")
