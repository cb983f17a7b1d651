"""The rules in dev/words.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from dev.prose.texts import Text

ROOT = Path(__file__).parents[2]


class Finding(NamedTuple):
    """A place whose language breaks a rule, and what to write instead."""

    path: str
    line: int
    what: str
    words: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.words} -> {self.instead}"


class Word(NamedTuple):
    """A forbidden pattern, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str
    where: Literal["everywhere", "code"] = "everywhere"

    def applies_to(self, text: Text) -> bool:
        """Whether the pattern is for texts like *text*."""
        return self.where == "everywhere" or text.kind != "text"


class Excuse(NamedTuple):
    """Why a finding is accepted."""

    path: str
    words: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether this is the excuse of *finding*."""
        same_page = f"/{finding.path}".endswith(f"/{self.path}")
        return same_page and self.words.lower() in finding.words.lower()


class Rules(NamedTuple):
    """The content of dev/words.toml."""

    words: tuple[Word, ...]
    excuses: tuple[Excuse, ...] = ()

    @classmethod
    def read(cls, path: Path = ROOT / "dev" / "words.toml") -> Rules:
        """The rules in the file at *path*."""
        content = tomllib.loads(path.read_text())
        return cls(
            tuple(_word(**each) for each in content["words"]),
            tuple(Excuse(**each) for each in content["exceptions"]),
        )


def _word(**entry: str) -> Word:
    where: Literal["everywhere", "code"] = "code" if entry.get("where") == "code" else "everywhere"
    return Word(_whole_words(entry["not"]), entry["but"], where)


def _whole_words(pattern: str) -> re.Pattern[str]:
    spaced = re.sub(r" (?!\?)", r"\\s+", pattern.replace("[ -]", r"[\s-]"))
    return re.compile(rf"(?<![\w-])(?:{spaced})(?![\w-])", re.IGNORECASE)
