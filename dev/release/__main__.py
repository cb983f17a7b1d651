"""The commands of `make release-check` and of the release workflow."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from dev.release.builds import BuildError
from dev.release.check import Refused, build_all_platforms, check, checksums
from dev.release.notes import NotesError
from dev.release.publish import PublishError, Registry, publish
from initmig.version import __version__

REPOSITORY: Final = Path(__file__).parents[2]
FOLDER: Final = REPOSITORY / "dist/release"


def parser() -> argparse.ArgumentParser:
    """The commands and their options. Values of a workflow come from the environment."""
    parsed = argparse.ArgumentParser(prog="python -m dev.release")
    commands = parsed.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="build and check everything")
    checking.add_argument("--tag", **_from_environment("TAG", required=False))
    building = commands.add_parser("image", help="build the image of all platforms")
    for command in (checking, building):
        command.add_argument("--source-url", **_from_environment("SOURCE_URL"))
    publishing = commands.add_parser("publish", help="publish and sign what is built")
    publishing.add_argument("--registry", **_from_environment("REGISTRY"))
    publishing.add_argument("--folder", type=Path, default=FOLDER)
    publishing.add_argument("--key", help="a key of cosign, for a test")
    publishing.add_argument("--plain-http", action="store_true", help="for a test")
    return parsed


def _from_environment(name: str, *, required: bool = True) -> dict[str, Any]:
    """The settings of an option whose default is a variable."""
    value = os.environ.get(name) or None
    return {"default": value, "required": required and value is None, "help": f"default: ${name}"}


def main(arguments: argparse.Namespace) -> None:
    """Run a command."""
    match arguments.command:
        case "check":
            check(REPOSITORY, FOLDER, arguments.tag, arguments.source_url)
            for name, digest in checksums(FOLDER).items():
                print(f"{digest}  {name}")
        case "image":
            build_all_platforms(REPOSITORY, FOLDER, arguments.source_url)
        case "publish":
            registry = Registry(arguments.registry, arguments.key, not arguments.plain_http)
            print(publish(arguments.folder, __version__, registry))


if __name__ == "__main__":
    try:
        main(parser().parse_args())
    except (BuildError, NotesError, PublishError, Refused) as error:
        sys.exit(str(error))
