"""Finds the folders that `--migrations` names: by path, by pattern, or in a Python package."""

from __future__ import annotations

import os
import sys

from initmig.core.errors import ConfigError, Problem
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HINT = "set --migrations or INITMIG_MIGRATIONS to the folder with the migrations"


def expand(sources: Iterable[str], problems: list[Problem]) -> list[str]:
    """The folders of all *sources*, in order, without duplicates.

    A source that names no folder is added to *problems*.
    """
    found: dict[str, str] = {}
    for source in sources:
        try:
            folders = _folders(source)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        for folder in folders:
            found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def to_write_in(sources: Iterable[str]) -> str:
    """The folder for a new migration: the first path in *sources*, or the only folder they match.

    :raises ConfigError: *sources* name no folder, or several
    """
    sources = tuple(sources)
    for source in sources:
        if _is_path(source):
            return source
    problems: list[Problem] = []
    folders = expand(sources, problems)
    if problems:
        raise ConfigError.of(tuple(problems))
    if len(folders) > 1:
        raise ConfigError(
            "several-folders",
            f"{', '.join(sources)} matches several folders: {', '.join(folders)}",
            hint="name the folder for the new migration: --migrations=FOLDER",
        )
    return folders[0]


def _is_path(source: str) -> bool:
    return not (_in_package(source) or (_is_pattern(source) and not os.path.isdir(source)))


def _is_pattern(source: str) -> bool:
    return any(sign in source for sign in "*?[")


def _folders(source: str) -> list[str]:
    """The folders of *source*.

    :raises ConfigError: *source* is a pattern or a package that names no folder
    """
    if _is_path(source):
        return [source]
    if inside := _in_package(source):
        return _folders_of_package(*inside)
    from glob import glob

    folders = sorted(path for path in glob(source) if os.path.isdir(path))
    if not folders:
        raise _no_folder(f"no folder matches {source}", _HINT)
    return folders


def _in_package(source: str) -> tuple[str, str] | None:
    """The package and the folder of ``package:NAME:FOLDER``, yoyo's syntax; otherwise None."""
    scheme, _, rest = source.partition(":")
    package, colon, folder = rest.partition(":")
    if scheme != "package" or not (package and colon) or "/" in package:
        return None
    return package, folder


def _folders_of_package(package: str, folder: str) -> list[str]:
    """The *folder* in each location of the *package*; a namespace package may have several.

    The package is not imported, because it may be a whole application.
    """
    name, *below = package.split(".")
    places = [os.path.join(place, *below) for place in _places(name)]
    if zipped := [place for place in places if _is_in_file(place)]:
        raise _no_folder(
            f"the package {package} is installed as a file, not as a folder: {zipped[0]}",
            "install it as a folder, for example with `pip install`",
        )
    if not any(map(os.path.isdir, places)):
        raise _no_folder(
            f"the package {package} is not installed in {', '.join(filter(None, sys.path))}",
            f"install it for the Python that runs initmig{_install_hint()}",
        )
    folders = [os.path.join(place, folder) for place in places]
    if not (found := [path for path in folders if os.path.isdir(path)]):
        raise _no_folder(
            f"the package {package} has no folder {folder}: looked for {' and '.join(folders)}",
            "correct the name. If it is correct, add the SQL files to the package's data: it was"
            " installed without them",
        )
    return found


def _places(name: str) -> list[str]:
    """The folders where Python would look for modules of the package *name*; empty if unknown."""
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, None):
            return list(spec.submodule_search_locations or ())
    return []


def _is_in_file(path: str) -> bool:
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.isfile(path)


def _install_hint() -> str:
    if not sys.flags.isolated:
        return ", or add its parent folder to PYTHONPATH"
    return (
        f": copy it to {sys.path[-1]}. This Python (-I) ignores PYTHONPATH and the working"
        " directory"
    )


def _no_folder(message: str, hint: str) -> ConfigError:
    return ConfigError("folder-unreadable", message, hint=hint)
