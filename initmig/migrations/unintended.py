"""Refuses files that were not written for initmig; docs/reference/errors.md lists the cases.

A run with nothing to do imports this module only if the folders contain no migrations.
"""

from __future__ import annotations

from initmig.core.errors import ConfigError, Place, Problem
from initmig.core.events import DirectiveIgnored, FilesIgnored, NoStatements
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from initmig.config.config import Config
    from initmig.core.events import Event
    from initmig.core.model import Listing, Migration, MigrationFile
    from initmig.migrations.files import Contents
    from initmig.migrations.foreign import Marker

_SHOWN_NAMES = 5
"""Enough names to recognize a folder."""

_LONGEST_BLANK = 4096
"""In bytes; a longer file is not blank."""


def refuse_empty(config: Config) -> None:
    """Refuse folders without any migration.

    :raises ConfigError: they belong to another tool, or ``--allow-empty`` is missing
    """
    from initmig.migrations.files import list_other_entries
    from initmig.migrations.foreign import tool_of_folder

    others = list_other_entries(config.migrations)
    tool, names = tool_of_folder(others.names)
    if tool and config.foreign == "fail":
        raise ConfigError.of((_foreign(tool, names),))
    if not config.allow_empty:
        ignored = f" (ignored: {_some(others.ignored)})" if others.ignored else ""
        raise ConfigError(
            "no-migrations",
            f"no migrations in {', '.join(config.migrations)}{ignored}",
            hint="set --migrations or INITMIG_MIGRATIONS to the folder with the migrations."
            " If there are none yet, write the first with `initmig new NAME`, or pass"
            " --allow-empty",
        )


def refuse_unintended(
    pending: Iterable[MigrationFile], applied: Iterable[str], listing: Listing, config: Config
) -> None:
    """Refuse *pending* files without loading them, for commands that only read.

    :raises ConfigError: there are `objections` to the files, or one cannot be read
    """
    from initmig.migrations.files import read_all

    contents, problems = read_all(pending)
    if found := (*objections(contents, applied, listing, config), *problems):
        raise ConfigError.of(found)


def objections(
    pending: Sequence[Contents], applied: Iterable[str], listing: Listing, config: Config
) -> tuple[Problem, ...]:
    """Why *pending* files must not run: another tool's format, no content, or a duplicate name.

    :raises ConfigError: an applied file that is needed for comparison cannot be read
    """
    done = frozenset(applied)
    return (
        *_other_spellings([each.file for each in pending], done, listing),
        *_foreign_files(pending, done, listing, config),
        *(problem for each in pending if (problem := _unwritten(each))),
    )


def objections_to_undo(
    chosen: Iterable[Contents], applied: Iterable[str], listing: Listing, config: Config
) -> tuple[Problem, ...]:
    """Why the rollback files of the *chosen* migrations must not run: another tool's format.

    :raises ConfigError: an applied file that is needed for comparison cannot be read
    """
    rollbacks = [
        each._replace(
            file=each.file._replace(path=each.file.rollback_path), sources=each.sources[1:]
        )
        for each in chosen
        if each.file.rollback_path
    ]
    return tuple(_foreign_files(rollbacks, frozenset(applied), listing, config))


def warnings(plan: Iterable[Migration], config: Config) -> Iterator[Event]:
    """Warn of unusual facts about the files of a *plan*, and of ignored files in the folders."""
    yield from ignored(config)
    for migration in plan:
        for place in migration.ignored:
            yield DirectiveIgnored(str(place), place.source.strip())
        # initmig cannot see what a Python step does, so it counts as a statement
        if not (migration.steps and migration.has_statements):
            yield NoStatements(migration.id, migration.file.path)


def ignored(config: Config) -> Iterator[Event]:
    """Warn of files in the folders that look like migrations but are not used."""
    from initmig.migrations.files import list_other_entries

    if paths := list_other_entries(config.migrations).ignored:
        yield FilesIgnored(paths)


def _other_spellings(
    pending: Iterable[MigrationFile], applied: Collection[str], listing: Listing
) -> Iterator[Problem]:
    """A problem for each name that also exists, or is applied, in another Unicode spelling.

    https://unicode.org/reports/tr15/ defines which spellings are equivalent.
    """
    files = [file for file in (*pending, *listing.hooks) if not file.id.isascii()]
    if not files:
        return
    from unicodedata import normalize

    paths = {file.id: file.path for file in (*listing.migrations, *listing.hooks)}
    spellings: dict[str, list[str]] = {}
    for id in {**paths, **dict.fromkeys(applied)}:
        spellings.setdefault(normalize("NFC", id), []).append(id)
    reported: set[str] = set()
    for file in files:
        others = [id for id in spellings[normalize("NFC", file.id)] if id != file.id]
        if others and file.id not in reported:
            reported.update(others)
            yield _other_spelling(file, others[0], paths.get(others[0], ""))


def _other_spelling(file: MigrationFile, other: str, path: str) -> Problem:
    here, there = map(_code_points, (file.id, other))
    if path:
        message = (
            f"{file.id} has the same name as {path}, spelled with other characters:"
            f" {here} here, {there} there"
        )
        hint = "delete one of the files, or rename the one that is not applied"
    else:
        message = (
            f"{file.id} is applied under a name spelled with other characters:"
            f" {there} is applied, the file is {here}"
        )
        hint = "rename the file to the applied spelling, or give it a different name"
    return Problem("other-spelling", message, hint=hint, place=Place(file.path))


def _code_points(id: str) -> str:
    return "".join(c if c.isascii() else f"<U+{ord(c):04X}>" for c in id)


def _foreign_files(
    pending: Sequence[Contents], applied: Collection[str], listing: Listing, config: Config
) -> Iterator[Problem]:
    """A problem for each other tool, unless files in its format are already applied."""
    if config.foreign == "allow":
        return
    from initmig.migrations.files import list_other_entries, read
    from initmig.migrations.foreign import tool_of_folder

    files = [each for each in pending if each.file.is_sql]
    done = [file for file in listing.migrations if file.is_sql and file.id in applied]
    named = _grouped((_tool_of_id(each.file.id), each) for each in files)
    for tool in named.keys() - {_tool_of_id(id) for id in applied}:
        yield _foreign(tool, _paths(named[tool]))
    marked = _grouped((_tool_of_text(each), each) for each in files)
    for tool in marked.keys() - named.keys():
        if all(_tool_of_text(read(file)) != tool for file in done):
            yield _foreign(tool, _paths(marked[tool]), _place_of_marker(marked[tool][0]))
    if files and not (named or marked or done):
        names = list_other_entries(config.migrations).names
        tool, _ = tool_of_folder([name for name in names if "/" not in name])
        if tool:
            yield _foreign(tool, _paths(files))


def _grouped(found: Iterable[tuple[str, Contents]]) -> dict[str, list[Contents]]:
    """The files by their tool; files without a tool are left out."""
    groups: dict[str, list[Contents]] = {}
    for tool, each in found:
        if tool:
            groups.setdefault(tool, []).append(each)
    return groups


def _paths(contents: Iterable[Contents]) -> list[str]:
    return [each.file.path for each in contents]


def _tool_of_id(id: str) -> str:
    from initmig.migrations.foreign import tool_of_name

    return tool_of_name(f"{id}.sql")


def _tool_of_text(contents: Contents) -> str:
    marker = _marker_in(contents)
    return marker.tool if marker else ""


def _place_of_marker(contents: Contents) -> Place | None:
    marker = _marker_in(contents)
    return contents.sources[0].place_at(marker.offset) if marker else None


def _marker_in(contents: Contents) -> Marker | None:
    from initmig.migrations.foreign import marker_in

    return marker_in(contents.sources[0])


def _unwritten(contents: Contents) -> Problem | None:
    """The problem that the file is empty or an unedited template; None if it is neither."""
    from initmig.migrations.scaffold import is_template

    file = contents.file
    if is_template(contents.data):
        what = "is the unedited template from `initmig new`"
    elif file.is_sql and _is_blank(contents.data):
        what = "is empty"
    else:
        return None
    return Problem(
        "empty-migration",
        f"{file.id} {what}",
        hint="write the migration, or delete the file. If it is meant to do nothing, add a"
        " comment that says why",
        place=Place(file.path),
    )


def _is_blank(data: bytes) -> bool:
    from initmig.sql.source import without_mark

    left = data.strip()  # before the mark is removed: each step copies a large file
    if len(left) >= _LONGEST_BLANK:
        return False
    return not without_mark(left).decode(errors="replace").strip()


def _foreign(tool: str, paths: Sequence[str], place: Place | None = None) -> Problem:
    from initmig.migrations.foreign import guide

    files = "" if place and len(paths) == 1 else f": {_some(paths)}"
    which = "these files were" if files else "this file was"
    return Problem(
        "foreign-folder",
        f"{which} written for {tool}, not for initmig{files}",
        hint="convert the SQL, because initmig would also run the part that undoes a migration:"
        f" see {guide(tool)}. If all of it is meant for initmig, pass --foreign=allow",
        place=place,
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    left = len(names) - _SHOWN_NAMES
    return f"{shown} and {left} more" if left > 0 else shown
