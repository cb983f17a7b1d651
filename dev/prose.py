"""A check of the language that users read: words, long sentences, long cells of README's tables.

Without paths it reads everything that users read.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cmarkgfm
from cmarkgfm.cmark import Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
LONGEST_SENTENCE = 30
LONGEST_CELL = 20
CODE = "\N{WHITE SQUARE}x"
"""What stands for code and for values: one word, which no pattern finds."""


class Text(NamedTuple):
    """A piece that a person reads by itself: a paragraph, an item, a cell, a message."""

    line: int
    words: str
    is_cell: bool = False
    is_code: bool = False
    """SQL, a pattern, names: the words count, but it has no sentences."""


class Finding(NamedTuple):
    """Where the language is not as it should be, and what to write instead."""

    path: str
    line: int
    what: str
    words: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.words} -> {self.instead}"


class Word(NamedTuple):
    """A pattern that is not to be found, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


class Excuse(NamedTuple):
    """Why a finding stands."""

    path: str
    words: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether this is the excuse of *finding*."""
        is_there = f"/{finding.path}".endswith(f"/{self.path}")
        return is_there and self.words.lower() in finding.words.lower()


class Rules(NamedTuple):
    """What dev/words.toml says."""

    words: tuple[Word, ...]
    excuses: tuple[Excuse, ...] = ()

    @classmethod
    def read(cls, path: Path = ROOT / "dev" / "words.toml") -> Rules:
        """The rules in the file at *path*."""
        content = tomllib.loads(path.read_text())
        return cls(
            tuple(Word(_whole_words(each["not"]), each["but"]) for each in content["words"]),
            tuple(Excuse(**each) for each in content["exceptions"]),
        )


def _whole_words(pattern: str) -> re.Pattern[str]:
    spaced = re.sub(r" (?!\?)", r"\\s+", pattern.replace("[ -]", r"[\s-]"))
    return re.compile(rf"(?<![\w-])(?:{spaced})(?![\w-])", re.IGNORECASE)


class _Markdown(HTMLParser):
    """Collects the texts of a page, from the HTML that GitHub would make of it."""

    BLOCKS = ("p", "li", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6")

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[Text] = []
        self.open: list[tuple[str, int, list[str]]] = []
        self.in_code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        position = dict(attrs).get("data-sourcepos")
        if tag in ("pre", "code"):
            self.in_code += 1
            if tag == "code":
                self._add(CODE)
        if tag in self.BLOCKS:
            line = int(position.partition(":")[0]) if position else self._line()
            self.open.append((tag, line, []))
        if tag == "img":
            self._add(dict(attrs).get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("pre", "code"):
            self.in_code -= 1
        if tag in self.BLOCKS:
            _, line, parts = self.open.pop()
            words = "".join(parts)
            if words.strip():
                self.texts.append(Text(line, words, is_cell=tag in ("td", "th")))

    def handle_data(self, data: str) -> None:
        if not self.in_code:
            self._add(data)

    def handle_comment(self, data: str) -> None:
        del data  # in the place of HTML, as of <br>
        self._add(" ")

    def _add(self, words: str) -> None:
        if self.open:
            self.open[-1][2].append(words)

    def _line(self) -> int:
        return self.open[-1][1] if self.open else 0


def texts_of_markdown(page: str) -> list[Text]:
    """What a person reads of *page*, without its code."""
    reader = _Markdown()
    options = Options.CMARK_OPT_SOURCEPOS
    reader.feed(cmarkgfm.markdown_to_html_with_extensions(page, options, ["table"]))
    return reader.texts


def unreleased(changelog: str) -> str:
    """*changelog* with only its section "Unreleased", in the same lines."""
    before, heading, rest = changelog.partition("## Unreleased")
    return "\n" * before.count("\n") + heading + rest.split("\n## ")[0]


_COMMON = re.compile(
    r"\b(?:an?|and|are|at|be|by|for|has|in|is|it|its|no|not|of|on|or|that|the|to|was|with)\b"
)
_SQL_START = re.compile(
    r"\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|SET|FROM|WHERE)\b"
)
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b")


def texts_of_python(source: str) -> list[Text]:
    """The strings of *source* that a person may read: all but docstrings and single words."""
    return [
        Text(line, part, is_code=not _is_prose(part))
        for line, literal in _literals(ast.parse(source))
        for part in re.sub(r"`[^`]*`", CODE, literal).split("\n")
        if " " in part.strip()
    ]


def _literals(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Each string below *node* with its line; values in it are one word."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, "".join(_literal(part) for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _literals(part.value)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    for child in ast.iter_child_nodes(node):
        yield from _literals(child)


def _literal(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else CODE


def _is_prose(text: str) -> bool:
    if _SQL_START.match(text) or re.search(r"\(\?|\||::", text):
        return False
    common = len(_COMMON.findall(text))
    is_list_of_names = not common and (count(text) > 12 or ";" in text)
    return not is_list_of_names and len(_CAPITALS.findall(text)) <= max(common, 1)


def texts_of(path: Path) -> list[Text]:
    """What a person reads of the file at *path*."""
    content = path.read_text()
    if path.suffix == ".py" or content.startswith("#!/usr/bin/env python3"):
        return texts_of_python(content)
    return texts_of_markdown(unreleased(content) if path.name == "CHANGELOG.md" else content)


_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[\w\N{WHITE SQUARE}])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf)\.\s+$")


def sentences(words: str) -> Iterator[tuple[int, str]]:
    """Each sentence of *words*, with the number of line ends before it."""
    start = 0
    for match in _SENTENCE_END.finditer(words):
        if not _ABBREVIATION.search(words[start : match.end()]):
            yield words.count("\n", 0, start), words[start : match.start()]
            start = match.end()
    yield words.count("\n", 0, start), words[start:]


def count(words: str) -> int:
    """How many words a person counts."""
    return sum(any(map(str.isalnum, each)) for each in words.split())


class Page(NamedTuple):
    """A file, by the name that findings give it."""

    name: str
    texts: Sequence[Text]

    def findings(self, words: Iterable[Word]) -> Iterator[Finding]:
        """What is wrong in it."""
        patterns = list(words)
        for text in self.texts:
            yield from self._words(text, patterns)
            if not text.is_code:
                yield from self._sentences(text)
            size = count(text.words)
            if text.is_cell and self.name.endswith("README.md") and size > LONGEST_CELL:
                yield self._finding(text.line, "long cell", text.words, f"shorten it: {size} words")

    def _words(self, text: Text, words: Iterable[Word]) -> Iterator[Finding]:
        for word in words:
            for match in word.pattern.finditer(text.words):
                line = text.line + text.words.count("\n", 0, match.start())
                around = _around(text.words, *match.span())
                yield self._finding(line, f"'{match.group()}'", around, word.instead)

    def _sentences(self, text: Text) -> Iterator[Finding]:
        for lines, sentence in sentences(text.words):
            size = count(sentence)
            if size > LONGEST_SENTENCE:
                instead = f"split it: {size} words"
                yield self._finding(text.line + lines, "long sentence", sentence, instead)
            if len(re.findall(r";\s+\S", sentence)) > 1:
                instead = "use a list, or sentences"
                yield self._finding(text.line + lines, "semicolons", sentence, instead)

    def _finding(self, line: int, what: str, words: str, instead: str) -> Finding:
        flat = " ".join(words.split()).replace(CODE, "…")
        flat = flat if len(flat) < 100 else f"{flat[:99]}…"
        return Finding(self.name, line, " ".join(what.split()), flat, instead)


def _around(words: str, start: int, end: int) -> str:
    before = words[:start].split(" ")[-4:]
    after = words[end:].split(" ")[:4]
    return " ".join(before) + words[start:end] + " ".join(after)


class Check:
    """What is found in *paths*, by *rules*."""

    def __init__(self, rules: Rules, paths: Iterable[Path]) -> None:
        self.rules = rules
        self.pages = [Page(_name(path), texts_of(path)) for path in paths]

    @cached_property
    def all(self) -> list[Finding]:
        """Every finding, excused or not."""
        return [each for page in self.pages for each in page.findings(self.rules.words)]

    @property
    def findings(self) -> list[Finding]:
        """What has no excuse."""
        excuses = self.rules.excuses
        return [each for each in self.all if not any(excuse.covers(each) for excuse in excuses)]

    @property
    def needless(self) -> list[Excuse]:
        """Exceptions that excuse nothing in these pages."""
        return [
            excuse
            for excuse in self.rules.excuses
            if any(f"/{page.name}".endswith(f"/{excuse.path}") for page in self.pages)
            and not any(excuse.covers(each) for each in self.all)
        ]


def _name(path: Path) -> str:
    absolute = path.absolute()
    return str(absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else path)


def pages_of(root: Path) -> list[Path]:
    """Every file of the repository at *root* that has text for users."""
    patterns = ("docs/**/*.md", "examples/**/*.md", "initmig/**/*.py")
    top = [root / name for name in ("README.md", "CHANGELOG.md", "swarm/deploy")]
    return [*top, *(page for pattern in patterns for page in sorted(root.glob(pattern)))]


def main(arguments: Sequence[str]) -> int:
    """Print what is found; 1 if that is anything."""
    rules = Rules.read()
    given = [Path(each) for each in arguments]
    folders = [page for each in given if each.is_dir() for page in _below(each)]
    paths = [*(each for each in given if not each.is_dir()), *folders]
    check = Check(rules, paths if arguments else pages_of(ROOT))
    for finding in check.findings:
        print(finding)
    for excuse in check.needless:
        print(f"dev/words.toml: needless exception for {excuse.path}: {excuse.words}")
    return 1 if check.findings or check.needless else 0


def _below(folder: Path) -> list[Path]:
    return sorted([*folder.rglob("*.md"), *folder.rglob("*.py")])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
