"""Writes completion scripts for bash, zsh and fish from the tables of commands and options.

After `exec --`, the scripts leave completion to the shell, because another command follows.
"""

from __future__ import annotations

from pathlib import Path

from initmig.cli.help import brief, settings_of
from initmig.config.options import COMMANDS, DEFAULT_COMMAND, SHELLS, TOPICS
from initmig.core.records import TYPE_CHECKING, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initmig.config.options import Option


def script(shell: str) -> str:
    """The script that adds completion for `initmig` to *shell*."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


class _Flag(Record):
    """A flag, with the facts that a shell needs to complete it."""

    name: str
    help: str
    takes_value: bool = False
    optional: bool = False
    """Whether the value can be left out; if present, it follows an equals sign."""
    choices: tuple[str, ...] = ()
    place: str = ""
    """``file`` or ``folder`` if the value is a path to one."""


_EVERYWHERE = (_Flag("--help", "show help"),)
_WITHOUT_COMMAND = (_Flag("--version", "show the version"),)
_PLACES = {"FILE": "file", "DIRS": "folder"}


def _flag(option: Option) -> _Flag:
    metavar = option.metavar
    return _Flag(
        option.flag,
        brief(option),
        takes_value=bool(metavar),
        optional=bool(option.implied),
        choices=tuple(metavar.split("|")) if "|" in metavar else (),
        place=_PLACES.get(metavar, ""),
    )


def _flags(command: str) -> tuple[_Flag, ...]:
    """The flags in the help of *command*; if it is empty, the flags that can come before one."""
    name = command or DEFAULT_COMMAND
    options = (*COMMANDS[name].options, *settings_of(name))
    return (*map(_flag, options), *_EVERYWHERE, *(() if command else _WITHOUT_COMMAND))


def _operands(command: str) -> tuple[str, ...]:
    """The words that can follow *command*."""
    return {"help": (*COMMANDS, *TOPICS), "completion": SHELLS}.get(command, ())


def _all_flags() -> Iterator[_Flag]:
    """Each flag once, because it takes the same values with every command."""
    seen = set()
    for flag in (each for name in ("", *COMMANDS) for each in _flags(name)):
        if flag.name not in seen:
            seen.add(flag.name)
            yield flag


def _taking_next(flags: Iterable[_Flag]) -> list[str]:
    """The names of the *flags* whose value can be the next word."""
    return [flag.name for flag in flags if flag.takes_value and not flag.optional]


def _bash() -> str:
    flags = {name: " ".join(flag.name for flag in _flags(name)) for name in ("", *COMMANDS)}
    values = [f"        {flag.name}) {_bash_values(flag)} ;;" for flag in _with_values()]
    operands = [
        f'            {name}) _initmig_words "{" ".join(words)}" ;;'
        for name in COMMANDS
        if (words := _operands(name))
    ]
    return _filled(
        "bash",
        COMMANDS=" ".join(COMMANDS),
        TAKING=" | ".join(_taking_next(_all_flags())),
        OPERANDS="\n".join(operands),
        FLAGS="\n".join(f"        '{name}') echo '{text}' ;;" for name, text in flags.items()),
        VALUES="\n".join(values),
    )


def _with_values() -> Iterator[_Flag]:
    return (flag for flag in _all_flags() if flag.choices or flag.place)


def _bash_values(flag: _Flag) -> str:
    if flag.choices:
        return f'_initmig_words "{" ".join(flag.choices)}"'
    return f"_initmig_paths {'-f' if flag.place == 'file' else '-d'}"


def _filled(shell: str, **parts: str) -> str:
    """The template for *shell*; each ``@NAME@`` is replaced by the part with that name."""
    template = Path(__file__).with_name(f"initmig.{shell}").read_text("utf-8")
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template.rstrip("\n")


def _zsh() -> str:
    commands = [
        " " * 8 + _quoted(f"{name}:{_escaped(command.summary)}")
        for name, command in COMMANDS.items()
    ]
    flags = [
        f"        ({_quoted(name)}) flags=(\n{_zsh_flags(name)}\n        ) ;;"
        for name in ("", *COMMANDS)
    ]
    operands = [
        f"        ({name}) operands=('1:command:_initmig_commands'"
        f" '2:{name}:({' '.join(words)})') ;;"
        for name in COMMANDS
        if (words := _operands(name))
    ]
    return _filled(
        "zsh",
        COMMANDS="\n".join(commands),
        TAKING="|".join(_taking_next(_all_flags())),
        FLAGS="\n".join(flags),
        OPERANDS="\n".join(operands),
    )


def _zsh_flags(command: str) -> str:
    return "\n".join(f"            {_quoted(_zsh_flag(flag))}" for flag in _flags(command))


def _zsh_flag(flag: _Flag) -> str:
    help = _escaped(flag.help)
    if not flag.takes_value:
        return f"{flag.name}[{help}]"
    action = f"({' '.join(flag.choices)})" if flag.choices else _ZSH_PLACES.get(flag.place, " ")
    name = f"{flag.name}=-" if flag.optional else f"{flag.name}="
    return f"{name}[{help}]:{':' if flag.optional else ''}value:{action}"


def _escaped(text: str) -> str:
    return "".join(f"\\{each}" if each in "[]:\\" else each for each in text)


_ZSH_PLACES = {"file": "_files", "folder": "_files -/"}


def _fish() -> str:
    commands = [
        f"complete -c initmig -n \"__initmig_command ''\" -a {name} -d {_quoted(command.summary)}"
        for name, command in COMMANDS.items()
    ]
    operands = [
        f"complete -c initmig -n '__initmig_after {name}' -a '{' '.join(words)}'"
        for name in COMMANDS
        if (words := _operands(name))
    ]
    takers: dict[_Flag, list[str]] = {}
    for name in ("", *COMMANDS):
        for flag in _flags(name):
            takers.setdefault(flag, []).append(name or "''")
    return _filled(
        "fish",
        TAKING=" ".join(_taking_next(_all_flags())),
        COMMANDS="\n".join([*commands, *operands]),
        FLAGS="\n".join(_fish_flag(flag, names) for flag, names in takers.items()),
    )


def _fish_flag(flag: _Flag, commands: Iterable[str]) -> str:
    condition = f'"__initmig_command {" ".join(commands)}"'
    line = f"complete -c initmig -n {condition} -l {flag.name.removeprefix('--')}"
    if flag.takes_value and not flag.optional:
        line += " -r" if flag.place == "file" else " -x"
    if flag.choices:
        line += f" -a '{' '.join(flag.choices)}'"
    elif flag.place:
        line += " -F" if flag.place == "file" else " -a '(__fish_complete_directories)'"
    return f"{line} -d {_quoted(flag.help)}"


def _quoted(text: str) -> str:
    """*text* in single quotes, which all three shells take literally."""
    return "'" + text.replace("'", "'\\''") + "'"
