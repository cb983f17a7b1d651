"""Finds the width and colours of a stream, and formats coloured text for it."""

from __future__ import annotations

import os

from initmig.core.records import TYPE_CHECKING, Record
from initmig.core.visible import SafeText, with_line_breaks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self, TextIO

    from initmig.config.config import Config

    Line = Sequence[str]
    """The pieces of a line; some of them may be `Styled`."""

_NARROWEST = 20
_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
"""https://en.wikipedia.org/wiki/ANSI_escape_code#SGR"""

_RESET = "\x1b[0m"


class Styled(str):
    """A piece of text with a style: the name of a colour, bold or dim."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Self:
        """Create *text* with *style*."""
        piece = super().__new__(cls, text)
        piece.style = style
        return piece


class Screen(Record):
    """The width of a stream in cells, 0 for no limit, and whether it shows colours."""

    width: int = 0
    colour: bool = False

    def text(self, lines: Iterable[Line]) -> str:
        """*lines* as one text, with colours if the screen shows them."""
        if not self.colour:
            return "\n".join("".join(line) for line in lines)
        return SafeText("\n".join("".join(map(_painted, line)) for line in lines))


PLAIN = Screen()


def _painted(piece: str) -> str:
    text = with_line_breaks(piece)
    if not isinstance(piece, Styled) or not piece.style or not text:
        return text
    return f"\x1b[{_CODES[piece.style]}m{text}{_RESET}"


def like(piece: str, text: str) -> str:
    """*text* in the style of *piece*."""
    return Styled(text, piece.style) if isinstance(piece, Styled) else text


def screen_of(stream: TextIO, config: Config) -> Screen:
    """The width and colours of *stream*, by its terminal and the settings."""
    is_terminal = is_a_terminal(stream)
    return Screen(
        width_of(stream, config.columns) if is_terminal else 0,
        config.color == "always"
        or (config.color == "auto" and is_terminal and not config.no_color and obeys(config.term)),
    )


def is_a_terminal(stream: TextIO) -> bool:
    """Whether *stream* is a terminal."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def obeys(term: str) -> bool:
    """Whether a terminal of the type *term*, from TERM, supports escape sequences."""
    return term not in ("", "dumb")


def width_of(stream: TextIO, columns: int) -> int:
    """The width of *stream* in cells; 0 if it is unknown, as on a container's terminal.

    COLUMNS has priority over the terminal, as in `shutil.get_terminal_size`.
    """
    width = columns
    if not width:
        try:
            width = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            width = 0
    return max(width, _NARROWEST) if width else 0
