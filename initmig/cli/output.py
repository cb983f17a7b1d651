"""Writes output: the log to stderr, the result to stdout."""

from __future__ import annotations

import sys

from initmig.core.errors import ConfigError
from initmig.core.records import TYPE_CHECKING
from initmig.core.visible import with_line_breaks
from initmig.reporting.logs import Log, discard

if TYPE_CHECKING:
    from initmig.config.config import Config
    from initmig.reporting.terminal.screen import Screen


def log_for(config: Config, *, target: str = "", follows: bool = False) -> Log:
    """A log on stderr. On a terminal it uses colors, fits the width, and can *follow* the work."""
    level, form = config.log_level, config.log_format
    stream = sys.stderr
    is_terminal = stream is not None and stream.isatty()
    if form != "text" or not (is_terminal or config.color == "always"):
        return Log(level, form, target=target)
    from initmig.reporting.terminal.display import display_of

    # the progress lines of several processes would overwrite each other
    follows = follows and not (config.targets or config.each_schema) and level in ("debug", "info")
    return Log(level, form, target=target, display=display_of(stream, config, follows=follows))


def screen_for(config: Config) -> Screen:
    """The width and colors of stdout."""
    from initmig.reporting.terminal.screen import screen_of

    return screen_of(sys.stdout, config)


def write(text: str) -> ConfigError | None:
    """Write *text* and a line end to stdout, with invisible characters escaped.

    Return the error if that fails. A reader that closed the pipe is not an error.
    """
    try:
        sys.stdout.write(with_line_breaks(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        discard(sys.stdout)
        return ConfigError(
            "output-failed",
            f"cannot write to stdout: {error.strerror}",
            hint="check the file or pipe that stdout is redirected to",
        )
    return None
