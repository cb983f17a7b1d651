import pytest

from initmig import errors
from initmig.config import Config
from initmig.settings import COMMANDS, SETTINGS, Option, Secret
from initmig.usage import EXIT_CODES, help_text

each_setting = pytest.mark.parametrize("option", SETTINGS, ids=lambda option: option.flag)
each_help = pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=str)


def heading_of(option: Option, text: str) -> str:
    starts = (f"  {option.flag} ", f"  {option.flag}[")
    [heading] = [line for line in text.splitlines() if line.startswith(starts)]
    return heading


@each_help
@each_setting
def test_every_help_shows_a_settings_flag_variable_and_default(
    option: Option, words: list[str]
) -> None:
    heading = heading_of(option, help_text(words))
    value = f"[={option.metavar}]" if option.implied else f" {option.metavar}"
    expected = f"  {option.flag}{value}  [{option.env}]  (default: {option.default})"
    assert heading == expected
    assert option.env
    assert option.default


@each_setting
def test_the_default_that_the_help_shows_is_the_one_that_holds(option: Option) -> None:
    default = getattr(Config("migrate"), option.field)
    if default in ("", (), Secret()):  # of these the help says in words what nothing means
        assert " " in option.default or option.default == "none"
    else:
        assert option.parse(option.default) == default


@each_help
def test_every_help_shows_every_exit_code(words: list[str]) -> None:
    lines = help_text(words).splitlines()
    for code, meaning in EXIT_CODES:
        assert f"  {code:>3}  {meaning}" in lines


def test_the_exit_codes_of_the_help_are_those_of_the_errors() -> None:
    raised = {error.exit_code for error in subclasses(errors.InitmigError)}
    assert {code for code, _ in EXIT_CODES} == raised | {0, 143}


def subclasses(kind: type[errors.InitmigError]) -> list[type[errors.InitmigError]]:
    return [one for child in kind.__subclasses__() for one in (child, *subclasses(child))]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_general_help_lists_each_command_with_its_summary(name: str) -> None:
    command = COMMANDS[name]
    heading = f"{name} {command.operands}".strip()
    [line] = [line for line in help_text([]).splitlines() if line.startswith(f"  {heading} ")]
    assert line.endswith(command.summary)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_its_own_options_and_words_as_written(name: str) -> None:
    command = COMMANDS[name]
    text = help_text(["--schema", name])
    assert text.startswith(f"initmig {name} ")
    assert command.summary[1:] in text
    for option in command.options:
        assert f"\n  {option.flag}" in text


def test_lines_of_the_help_fit_a_terminal() -> None:
    for words in ([], *([name] for name in COMMANDS)):
        assert max(map(len, help_text(words).splitlines())) <= 100
