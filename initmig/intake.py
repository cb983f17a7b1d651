"""What is refused before it runs because it was not meant to; docs/errors.md has each case.

A start with nothing to do comes here only if it has no migrations at all.
"""

from __future__ import annotations

from initmig.errors import ConfigError, PlanError, Problem
from initmig.events import FilesIgnored, NoStatements
from initmig.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from initmig.config import Config
    from initmig.errors import Place
    from initmig.events import Emit
    from initmig.model import Listing, Migration, MigrationFile
    from initmig.postgres import Session

_SHOWN = 5
"""So many names are enough to recognize a folder."""


def refuse_empty(config: Config) -> None:
    """For folders without any migration.

    :raises ConfigError: they are another tool's, or nobody has allowed them to be empty
    """
    from initmig.files import look_beside
    from initmig.foreign import tool_of_folder

    beside = look_beside(config.migrations)
    tool, names = tool_of_folder(beside.names)
    if tool and config.foreign == "fail":
        raise ConfigError.of((_foreign(tool, names),))
    if not config.allow_empty:
        ignored = f" (ignored: {_some(beside.ignored)})" if beside.ignored else ""
        raise ConfigError(
            "no-migrations",
            f"no migrations in {', '.join(config.migrations)}{ignored}",
            hint="set --migrations or INITMIG_MIGRATIONS to the folder that holds them;"
            " if there are none yet, pass --allow-empty",
        )


def refuse_other_history(session: Session, config: Config, applied: Collection[str]) -> None:
    """For a database with pending migrations; one query, only if nothing is *applied*.

    :raises PlanError: the schema holds the history of another tool
    """
    if applied or config.foreign == "allow":
        return
    from initmig import history
    from initmig.foreign import HISTORY_TABLES, tool_of_table

    for name, columns in history.other_histories(session, HISTORY_TABLES).items():
        if tool := tool_of_table(name, columns):
            raise PlanError(
                "foreign-history",
                f"{name} is the history of {tool}, and initmig has not applied anything here",
                hint="record what the database already has with `initmig baseline --to ID`;"
                " to apply every migration, pass --foreign=allow",
            )


def refuse_unintended(
    pending: Sequence[MigrationFile], applied: Iterable[str], listing: Listing, config: Config
) -> None:
    """Refuse *pending* files that were written for another tool, or not written at all.

    :raises ConfigError: with every problem of that kind
    """
    texts = {file.id: _text(file) for file in pending}
    problems = (
        *_foreign_files(pending, texts, frozenset(applied), listing, config),
        *(problem for file in pending if (problem := _unwritten(file, texts[file.id]))),
    )
    if problems:
        raise ConfigError.of(problems)


def warn(plan: Iterable[Migration], config: Config, emit: Emit) -> None:
    """Emit what is unusual about the files of a *plan*, and what lies unused beside them."""
    from initmig.files import look_beside
    from initmig.sql.scanner import split

    if ignored := look_beside(config.migrations).ignored:
        emit(FilesIgnored(ignored))
    for migration in plan:
        if migration.file.is_sql and not any(split(step.apply) for step in migration.steps):
            emit(NoStatements(migration.id, migration.file.path))


def _foreign_files(
    pending: Sequence[MigrationFile],
    texts: Mapping[str, str],
    applied: Collection[str],
    listing: Listing,
    config: Config,
) -> Iterator[Problem]:
    """A problem for each other tool, unless files of the same shape are applied already."""
    if config.foreign == "allow":
        return
    from initmig.files import look_beside
    from initmig.foreign import tool_of_folder

    files = [file for file in pending if file.is_sql]
    named = _grouped((_tool_of_id(file.id), file) for file in files)
    for tool in named.keys() - {_tool_of_id(id) for id in applied}:
        yield _foreign(tool, [file.path for file in named[tool]])
    done = [file for file in listing.migrations if file.is_sql and file.id in applied]
    marked = _grouped((_tool_of_text(texts[file.id]), file) for file in files)
    for tool in marked.keys() - named.keys():
        if all(_tool_of_text(_text(file)) != tool for file in done):
            [first, *_] = marked[tool]
            place = _place_of_marker(first, texts[first.id])
            yield _foreign(tool, [file.path for file in marked[tool]], place)
    if files and not (named or marked or done):
        names = look_beside(config.migrations).names
        tool, _ = tool_of_folder([name for name in names if "/" not in name])
        if tool:
            yield _foreign(tool, [file.path for file in files])


def _grouped(found: Iterable[tuple[str, MigrationFile]]) -> dict[str, list[MigrationFile]]:
    """The files by their tool, without those that have none."""
    groups: dict[str, list[MigrationFile]] = {}
    for tool, file in found:
        if tool:
            groups.setdefault(tool, []).append(file)
    return groups


def _tool_of_id(id: str) -> str:
    from initmig.foreign import tool_of_name

    return tool_of_name(f"{id}.sql")


def _tool_of_text(text: str) -> str:
    from initmig.foreign import marker_in

    marker = marker_in(text)
    return marker.tool if marker else ""


def _place_of_marker(file: MigrationFile, text: str) -> Place | None:
    from initmig.foreign import marker_in
    from initmig.sql.source import place_at

    marker = marker_in(text)
    return place_at(file.path, text, marker.offset) if marker else None


def _text(file: MigrationFile) -> str:
    """What is wrong with the encoding is for the loader to report."""
    from initmig.files import read_bytes

    return read_bytes(file.path).decode("utf-8-sig", errors="replace")


def _unwritten(file: MigrationFile, text: str) -> Problem | None:
    """Why nobody can have meant *file*, with this *text*, to be applied."""
    from initmig.errors import Place
    from initmig.scaffold import is_template

    if is_template(text):
        what = "is still the template that `initmig new` wrote"
    elif file.is_sql and not text.strip():
        what = "is empty"
    else:
        return None
    return Problem(
        "empty-migration",
        f"{file.id} {what}",
        hint="write the migration, or delete the file; if it is meant to do nothing, let it hold"
        " a comment that says why",
        place=Place(file.path),
    )


def _foreign(tool: str, paths: Sequence[str], place: Place | None = None) -> Problem:
    files = "" if place and len(paths) == 1 else f": {_some(paths)}"
    return Problem(
        "foreign-folder",
        f"written for {tool}, not for initmig{files}",
        hint="initmig would run the part that undoes a migration, too; convert the files, or pass"
        " --foreign=allow if they are right as they are",
        place=place,
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    left = len(names) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown
