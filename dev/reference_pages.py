"""`python -m dev.reference_pages` writes the tables of commands, settings and exit codes.

The tables are between comments in docs/reference/commands.md, settings.md and exit-codes.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dev.programs import REPOSITORY
from initmig.cli.help import (
    ENDS_WITH,
    EXAMPLES,
    EXIT_CODES,
    GROUPS,
    RETRY_MAY_HELP,
    settings_of,
    usage_line,
)
from initmig.config.options import COMMANDS, SETTINGS, Option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER: Final = REPOSITORY / "docs" / "reference"
PAGES: Final = tuple(FOLDER / f"{name}.md" for name in ("commands", "settings", "exit-codes"))


def with_tables(page: str) -> str:
    """The text of *page*, with each of its blocks as it must be."""
    blocks = _blocks()

    def written(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{blocks[match[2]]}\n\n{match[4]}"

    return re.sub(
        r"(<!-- begin ([\w-]+)[^>]*-->)(.*?)(<!-- end -->)", written, page, flags=re.DOTALL
    )


def _blocks() -> dict[str, str]:
    own = [option for command in COMMANDS.values() for option in command.options if option.env]
    return {
        "commands": _table("| | command | does |", _commands()),
        "settings": _table(_SETTINGS_HEAD, map(_setting, SETTINGS)),
        "own-settings": _table(_SETTINGS_HEAD, map(_setting, own)),
        "exit-codes": _table("| code | meaning | does a retry help? |", _exit_codes()),
        **{name: _command(name) for name in COMMANDS},
    }


_SETTINGS_HEAD: Final = "| flag | variable | default | what it does |"


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])


def _commands() -> Iterator[str]:
    for group, names in GROUPS.items():
        for name in names:
            summary = _sentence(COMMANDS[name].summary)
            yield f"| {group if name == names[0] else ''} | [`{name}`](#{name}) | {summary} |"


def _setting(option: Option) -> str:
    default = f"`{option.default}`" if _is_value(option) else option.default
    return f"| `{option.flag}` | `{option.env}` | {default} | {_what(option)} |"


def _is_value(option: Option) -> bool:
    return bool(option.default) and " " not in option.default and option.default != "none"


def _what(option: Option) -> str:
    choices = option.metavar.split("|")
    names = f" Values: {', '.join(f'`{name}`' for name in choices)}." if len(choices) > 1 else ""
    return f"{_sentence(option.help)}.{names}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].islower() else text


def _exit_codes() -> Iterator[str]:
    for code, meaning in EXIT_CODES:
        retry = "yes" if code in RETRY_MAY_HELP else "no" if code else ""
        yield f"| {code} | {_sentence(meaning)} | {retry} |"


def _command(name: str) -> str:
    command = COMMANDS[name]
    parts = [f"```console\n$ {EXAMPLES[name]}\n```"]
    if usage_line(name) not in (f"initmig {name} [OPTIONS]", EXAMPLES[name]):
        parts.insert(0, f"Usage: `{usage_line(name)}`")
    if command.options:
        parts.append(_table("| option | default | what it does |", map(_option, command.options)))
    if settings := settings_of(name):
        parts.append(f"[Settings](settings.md): {_settings(settings)}")
    parts.append(f"[Exit codes](exit-codes.md): {', '.join(map(str, ENDS_WITH[name]))}")
    return "\n\n".join(parts)


def _settings(settings: tuple[Option, ...]) -> str:
    if len(settings) == len(SETTINGS):
        return "all"
    return ", ".join(f"`{option.flag}`" for option in settings)


def _option(option: Option) -> str:
    value = "" if "|" in option.metavar or not option.metavar else f" {option.metavar}"
    variable = f" Variable: `{option.env}`." if option.env else ""
    default = f"`{option.default}`" if option.default else ""
    return f"| `{option.flag}{value}` | {default} | {_what(option)}{variable} |"


def main() -> None:
    """Write the tables into the pages."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    main()
