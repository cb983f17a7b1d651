import re
import shlex

import pytest

from initmig.cli.help import (
    ENDS_WITH,
    EXAMPLES,
    EXIT_CODES,
    GROUPS,
    RETRY_MAY_HELP,
    help_text,
    settings_of,
    usage_line,
)
from initmig.config.config import Config, parse_config
from initmig.config.options import ABOUT_ITSELF, COMMANDS, SETTINGS, TOPICS, Option, Secret
from initmig.core import errors
from tests.unit.test_config import GIVEN

each_setting = pytest.mark.parametrize("option", SETTINGS, ids=lambda option: option.flag)
each_command = pytest.mark.parametrize("name", COMMANDS)


def flags_in(text: str) -> list[str]:
    """The flags that begin a line of the help, in order."""
    return re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)


def test_general_help_fits_a_screen() -> None:
    lines = help_text().splitlines()
    assert len(lines) <= 40
    assert lines[0] == "Apply PostgreSQL migrations before the application starts."


@pytest.mark.parametrize("topic", ["", *COMMANDS, *TOPICS])
def test_help_lines_have_at_most_80_characters(topic: str) -> None:
    lines = help_text(topic).splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]


def test_general_help_lists_each_command_once_in_its_group() -> None:
    text = help_text()
    assert [name for names in GROUPS.values() for name in names] == list(COMMANDS)
    for group, names in GROUPS.items():
        section = text.partition(f"\n{group}:\n")[2]
        for name, line in zip(names, section.splitlines(), strict=False):
            assert line == f"  {name:12}{COMMANDS[name].summary}"


def test_general_help_names_the_other_help_topics() -> None:
    for more in ("initmig COMMAND --help", *(f"initmig help {topic}" for topic in TOPICS)):
        assert f"\n  {more} " in help_text()


@each_command
def test_help_of_a_command_has_its_usage_summary_options_and_example(name: str) -> None:
    command = COMMANDS[name]
    text = help_text(name)
    assert text.startswith(f"Usage: {usage_line(name)}\n\n")
    assert command.summary[1:] in text
    assert f"\n\nExample:\n  {EXAMPLES[name]}" in text
    options = (*command.options, *settings_of(name))
    assert flags_in(text) == [option.flag for option in options]


@each_command
def test_example_of_a_command_is_parsed_as_that_command(name: str) -> None:
    program, *argv = shlex.split(EXAMPLES[name])
    assert program == "initmig"
    assert parse_config(argv, {}).command == name


def test_each_setting_exists_and_is_used_by_a_command() -> None:
    named = {flag for command in COMMANDS.values() for flag in command.settings}
    assert named == {option.flag for option in SETTINGS}


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("wait", {"--lock-retries", "--lock-timeout", "--queue-timeout", "--transaction"}),
        ("status", {"--statement-timeout", "--queue-timeout", "--transaction"}),
        ("rehearse", {"--lock-retries"}),
        ("rollback", {"--transaction", "--out-of-order"}),
        ("new", {"--database-url", "--schema", "--wait-timeout", "--changed"}),
        ("unlock", {"--migrations", "--lock-retries", "--changed"}),
        ("version", {"--log-level"}),
    ],
)
def test_help_of_a_command_omits_settings_without_effect(command: str, without: set[str]) -> None:
    assert without & set(flags_in(help_text(command))) == set()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ABOUT_ITSELF])
@each_setting
def test_setting_without_effect_is_accepted(option: Option, name: str) -> None:
    text, _ = GIVEN[option.flag]
    _, _, *words = shlex.split(EXAMPLES[name])
    assert parse_config([name, f"{option.flag}={text}", *words], {}).command == name


@each_setting
def test_settings_help_lists_each_setting_with_variable_and_default(option: Option) -> None:
    text = help_text("settings")
    value = f"[={option.metavar}]" if option.implied else f" {option.metavar}"
    heading = f"  {option.flag}{value}\n      {option.env} (default: {option.default})\n"
    assert text.count(heading) == 1
    assert option.env
    assert option.default


def test_settings_help_lists_variables_of_single_commands() -> None:
    lines = [line.split()[0] for line in help_text("settings").splitlines() if line.strip()]
    own = [option for command in COMMANDS.values() for option in command.options if option.env]
    assert len(own) > 4
    for option in own:
        assert lines.count(option.flag) == lines.count(option.env) == 1


@each_setting
def test_default_in_the_help_is_the_actual_default(option: Option) -> None:
    default = getattr(Config("migrate"), option.field)
    if default in ("", (), Secret()):  # the help describes an empty default in words
        assert " " in option.default or option.default in ("none", "_yoyo_migration")
    else:
        assert option.parse(option.default) == default


def test_exit_codes_are_listed_only_in_their_topic() -> None:
    for code, meaning in EXIT_CODES:
        assert f"\n{code:>5}  {meaning[:50]}" in help_text("exit-codes")
    for topic in ("", *COMMANDS, "settings"):
        assert "Exit codes:" not in help_text(topic)


def test_exit_codes_in_the_help_match_the_errors() -> None:
    raised = {error.exit_code for error in subclasses(errors.InitmigError)}
    listed = {code for code, _ in EXIT_CODES}
    assert listed == raised | {0, 143}
    assert listed >= RETRY_MAY_HELP
    assert ENDS_WITH.keys() == COMMANDS.keys()
    assert {code for codes in ENDS_WITH.values() for code in codes} == raised | {0}


def subclasses(kind: type[errors.InitmigError]) -> list[type[errors.InitmigError]]:
    return [one for child in kind.__subclasses__() for one in (child, *subclasses(child))]
