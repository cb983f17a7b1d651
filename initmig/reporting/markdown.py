"""Writes untrusted text in Markdown (GFM) so that it is rendered only as text.

GitHub and GitLab link mentions (``@name``), issues (``#1``, ``GH-1``, ``!1``), commits and labels.
They search the rendered text, so escapes in the source do not prevent it. They skip code spans, and
in these no link, image or HTML works either. Everything except plain words and small numbers is
therefore written as a code span.

- https://github.github.com/gfm/#code-spans, and for the bar in a table #example-200
- https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls
- https://docs.gitlab.com/user/markdown/#gitlab-specific-references
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from initmig.core.visible import in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_LETTERS = r"[^\W\d_]+(?:[-'][^\W\d_]+)*"
_WORD = re.compile(rf"\(?{_LETTERS}\)?[.,:;]?")
_NUMBER = re.compile(
    r"\d{1,6}(?:\.\d{1,6})?(?:ms|[smh])?[,:;]?"
)  # no dot or bracket: `1.` is a list
_COMMIT = re.compile(r"[0-9a-f]{7,}", re.IGNORECASE)


def prose(text: str) -> str:
    """*text* in one line, with everything except plain words and small numbers as code."""
    runs = groupby(_one_line(text).split(" "), _is_plain)
    return " ".join(" ".join(run) if plain else _quoted(" ".join(run)) for plain, run in runs)


def _quoted(run: str) -> str:
    """*run* as code, followed by its final punctuation, if any."""
    text = run.removesuffix(",").removesuffix(":").removesuffix(";")
    if not text or text.endswith(" "):  # `code` would drop the space
        return code(run)
    return code(text) + run[len(text) :]


def code(text: str) -> str:
    """*text* in one line, as code; empty if *text* is empty. Backticks become apostrophes."""
    shown = _one_line(text).replace("`", "'")
    return f"`{shown}`" if shown else ""


def row(cells: Iterable[str]) -> str:
    """A row of a table; each of *cells* is the result of `prose` or `code`."""
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(markdown: str) -> str:
    # a bar ends the cell, even in code, unless a backslash comes before it
    return markdown.replace("|", r"\|")


def _one_line(text: str) -> str:
    return in_one_line(" ".join(text.split()))


def _is_plain(word: str) -> bool:
    if _COMMIT.search(word):
        return False
    return bool(_WORD.fullmatch(word) or _NUMBER.fullmatch(word))
