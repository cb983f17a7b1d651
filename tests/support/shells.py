"""Completion in real shells on a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_DEADLINE_SECONDS = 30

# Replaces the real command: it prints its arguments, which are the words of the completed line.
_ECHO = r"""initmig() { printf '\n@%s' "$@"; printf '\n@@\n'; }"""
# Both bind a key to "insert every completion into the line".
_SETUP = {
    "bash": rf"""
PS1='ready> '
bind 'set enable-bracketed-paste off'
bind '"\C-t": insert-completions'
source "$SCRIPT"
{_ECHO}
""",
    "zsh": rf"""
PS1='ready> '
autoload -U compinit && compinit -u -D
_insert_all() {{ _main_complete; compstate[insert]=all; compstate[list]= }}
zle -C insert-all complete-word _insert_all
bindkey '^T' insert-all
setopt no_beep
source "$SCRIPT"
{_ECHO}
""",
}
_COMMANDS = {
    "bash": ["bash", "--noprofile", "--rcfile", "{rc}", "-i"],
    "zsh": ["zsh", "-d", "-f", "-i"],
}


def complete_in_fish(script: Path, line: str, *, cwd: Path) -> list[str]:
    """The words that fish offers to complete *line*."""
    code = 'source $argv[1]; complete -C "$argv[2]"'
    result = subprocess.run(
        ["fish", "--no-config", "-c", code, str(script), line],
        capture_output=True,
        check=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"},
        text=True,
        timeout=_DEADLINE_SECONDS,
    )
    assert result.stderr == ""
    return [offered.partition("\t")[0] for offered in result.stdout.splitlines()]


@contextmanager
def completing_shell(name: str, script: Path, *, cwd: Path) -> Iterator[Callable[[str], list[str]]]:
    """Yield a function that completes a line in an interactive bash or zsh.

    It returns the words that the shell inserts in place of the last word.

    The words before it are left out.
    """
    rc = cwd / f".{name}rc"
    rc.write_text(_SETUP[name])
    argv = [word.format(rc=rc) for word in _COMMANDS[name]]
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "SCRIPT": str(script), "TERM": "vt100"}
    terminal, other_end = pty.openpty()
    # no fork of this process, which has threads; setsid makes the terminal the shell's own
    shell = subprocess.Popen(
        ["setsid", "--ctty", *argv],
        cwd=cwd,
        env=env | {"LANG": "C.UTF-8", "COLUMNS": "2000"},
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
    )
    os.close(other_end)
    try:
        if name == "zsh":
            os.write(terminal, f"source {rc}\r".encode())
        _read(terminal, "ready> ")

        def complete(line: str) -> list[str]:
            os.write(terminal, f"{line}\x14\r".encode())
            shown = _read(terminal, "@@\r\n", "ready> ")
            words = [each[1:] for each in shown.splitlines() if each.startswith("@")]
            before = len(line.split()) - 1 - (not line.endswith(" "))
            return words[before:-1]

        yield complete
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def _read(terminal: int, *marks: str) -> str:
    """The output of the shell until all *marks* have appeared, in this order."""
    text = ""
    position = 0
    deadline = time.monotonic() + _DEADLINE_SECONDS
    for mark in marks:
        while mark not in text[position:]:
            ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
            assert ready, text
            text += os.read(terminal, 65536).decode(errors="replace")
        position = text.index(mark, position) + len(mark)
    return text
