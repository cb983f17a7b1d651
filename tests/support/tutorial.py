"""Follows a tutorial as its reader does: writes each file and runs each command, in one shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DOCS = Path(__file__).resolve().parents[2] / "docs"

_FILE_OR_COMMANDS = re.compile(
    r"^`(?P<file>[\w./-]+)`[^\n`]*:\n\n```\w+\n(?P<content>.*?)^```"
    r"|^```console\n(?P<commands>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_IDS = re.compile(r"\b\d{4}_[a-z]+\b|\[[a-z]+(?:-[a-z]+)+\]")
"""The parts of a shown output that a real one must have: ids of migrations and of errors."""


@dataclass(frozen=True)
class Step:
    """One command of a tutorial."""

    command: str
    exit_code: int
    """From the comment after the command, otherwise 0."""
    shown: str
    """The output that the page shows."""

    def ids(self) -> set[str]:
        """The ids in the output that the page shows."""
        return set(_IDS.findall(self.shown))


@dataclass(frozen=True)
class Done:
    """The result of a step."""

    step: Step
    exit_code: int
    output: str


def steps_of(page: str) -> list[Step | tuple[str, str]]:
    """The steps of *page*, such as `tutorial/compose.md`: commands, and files to write."""
    found: list[Step | tuple[str, str]] = []
    for match in _FILE_OR_COMMANDS.finditer((DOCS / page).read_text()):
        if match["file"]:
            found.append((match["file"], match["content"]))
        else:
            found += _commands(match["commands"])
    return found


def _commands(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command = f"{command[:-1]} {more}"
        code = re.search(r"# exits (\d+)", command)
        yield Step(command, int(code[1]) if code else 0, shown)


def follow(
    steps: list[Step | tuple[str, str]],
    folder: Path,
    *,
    env: Mapping[str, str],
    after: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> list[Done]:
    """Run all *steps* in one shell that starts in *folder*. It stops at the first difference.

    *after* maps the beginning of a command to a shell command that runs after it.
    """
    logs = folder / "logs"
    logs.mkdir()
    lines = []
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            file, content = step
            lines.append(f"printf %s {shlex.quote(content)} > {shlex.quote(file)} || exit 99")
            continue
        log = logs / f"{number:03}"
        lines.append(f"{{ {step.command}\n}} >{log} 2>&1 </dev/null")
        lines.append(f"code=$?; echo $code >{log}.code; [ $code = {step.exit_code} ] || exit 98")
        lines += [
            f"{{ {command}\n}} >{log}.after 2>&1 || exit 97"
            for beginning, command in (after or {}).items()
            if step.command.startswith(beginning)
        ]
    script = folder / "script"
    script.write_text("\n".join(lines))
    subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env={**os.environ, **env},
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return list(_done(steps, logs))


def _done(steps: list[Step | tuple[str, str]], logs: Path) -> Iterator[Done]:
    for number, step in enumerate(steps):
        code = logs / f"{number:03}.code"
        if isinstance(step, Step):
            output = logs / f"{number:03}"
            text = output.read_text() if output.exists() else "(not reached)"
            yield Done(step, int(code.read_text()) if code.exists() else -1, text)


def assert_done(done: list[Done]) -> None:
    """Assert that every command exited as the page says, and printed the ids that it shows."""
    for each in done:
        assert each.exit_code == each.step.exit_code, f"{each.step.command}\n{each.output}"
        missing = each.step.ids() - set(_IDS.findall(each.output))
        assert not missing, f"{each.step.command}: no {missing} in\n{each.output}"
