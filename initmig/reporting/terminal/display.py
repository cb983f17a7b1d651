"""Shows the log on a terminal: in colours, in lines that fit, above the progress line."""

from __future__ import annotations

from initmig.core.records import TYPE_CHECKING
from initmig.core.visible import CONTINUATION
from initmig.reporting.terminal.layout import fitted
from initmig.reporting.terminal.screen import Styled, is_a_terminal, obeys, screen_of, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from initmig.config.config import Config
    from initmig.core.events import Event
    from initmig.reporting.terminal.progress import Progress
    from initmig.reporting.terminal.screen import Line, Screen

_STYLES = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red"}
_LABELS = {"next": "cyan", "DETAIL": "dim", "HINT": "dim", "CONTEXT": "dim"}
"""The labels of the lines below an error."""

_HANG = 4
_BEFORE_CARET = f"{'':>6} | "


def display_of(stream: TextIO, config: Config, *, follows: bool) -> Display:
    """The display of the log on *stream*; it *follows* the work only on a real terminal."""
    progress = None
    # an unknown width means a container's terminal, which usually has no viewer
    if (
        follows
        and obeys(config.term)
        and is_a_terminal(stream)
        and width_of(stream, config.columns)
    ):
        from initmig.reporting.terminal.progress import Progress

        progress = Progress(stream, columns=config.columns, colour=screen_of(stream, config).colour)
    return Display(lambda: screen_of(stream, config), progress)


class Display:
    """Shows lines above the *progress*; the width of the *screen* may change."""

    def __init__(self, screen: Callable[[], Screen], progress: Progress | None = None) -> None:
        self.screen = screen
        self.progress = progress

    def note(self, event: Event) -> bool:
        """Show *event* in the progress; return whether it needs no line in the log."""
        return self.progress is not None and self.progress.note(event)

    def write(self, text: str, stream: TextIO) -> None:
        """Write *text* above the progress."""
        if not self.progress:
            stream.write(text)
            stream.flush()
            return
        with self.progress.erased() as erasing:
            stream.write(erasing + text)
            stream.flush()

    def clear(self) -> None:
        """Erase the progress line."""
        if self.progress:
            self.progress.clear()

    def text(self, time: str, level: str, text: str, screen: Screen) -> str:
        """Format the *text* of an event for *screen*; its invisible characters are escaped."""
        first, *others = text.split("\n")
        head = [Styled(time, "dim"), " ", Styled(f"{level:7}", _STYLES[level]), " ", first]
        width = screen.width
        return screen.text(
            [
                *fitted(head, width, _HANG),
                *(line for each in others for line in _below(each, width)),
            ]
        )


def _below(line: str, width: int) -> Iterable[Line]:
    """Wrap a *line* that follows the first one to *width*."""
    if line.startswith(CONTINUATION):
        # mark each line of quoted text
        text = line.removeprefix(CONTINUATION).replace("\t", "    ")
        return [
            [CONTINUATION, *part] for part in fitted([text], width and width - len(CONTINUATION), 0)
        ]
    if line.startswith(_BEFORE_CARET) and line.endswith("^"):
        return [[line[:-1], Styled("^", "red")]]
    label, colon, text = line.partition(": ")
    if colon and (style := _LABELS.get(label.removeprefix("  "))):
        return fitted([Styled(label + colon, style), text.replace("\t", "    ")], width, _HANG)
    return [[line]]
