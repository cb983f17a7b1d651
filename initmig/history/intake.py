"""What is refused because nobody meant to run it; docs/reference/errors.md has each case.

A start with nothing to do comes here only if it has no migrations at all.
"""

from __future__ import annotations

from initmig.core.errors import ConfigError, Place, PlanError, Problem
from initmig.core.events import DirectiveIgnored, FilesIgnored, NoStatements
from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from initmig.config.config import Config
    from initmig.core.events import Emit
    from initmig.core.model import Listing, Migration, MigrationFile
    from initmig.migrations.files import Contents
    from initmig.migrations.foreign import Marker
    from initmig.postgres import Session

_SHOWN = 5
"""So many names are enough to recognize a folder."""

_SHORT = 4096


def refuse_empty(config: Config) -> None:
    """For folders without any migration.

    :raises ConfigError: they are another tool's, or nobody has allowed them to be empty
    """
    from initmig.migrations.files import look_beside
    from initmig.migrations.foreign import tool_of_folder

    beside = look_beside(config.migrations)
    tool, names = tool_of_folder(beside.names)
    if tool and config.foreign == "fail":
        raise ConfigError.of((_foreign(tool, names),))
    if not config.allow_empty:
        ignored = f" (ignored: {_some(beside.ignored)})" if beside.ignored else ""
        raise ConfigError(
            "no-migrations",
            f"no migrations in {', '.join(config.migrations)}{ignored}",
            hint="set --migrations or INITMIG_MIGRATIONS to the folder with the migrations."
            " If there are none yet, write the first with `initmig new NAME`, or pass"
            " --allow-empty",
        )


def refuse_other_histories(
    session: Session, config: Config, applied: Collection[str], known: Collection[str]
) -> None:
    """For a database with pending migrations; asks only if nothing is *applied*.

    :raises PlanError: the history of this image's migrations, by their *known* ids, is in another
        schema or table, or the schema holds the history of another tool
    """
    refuse_other_place(session, config, applied, known)
    if not applied and config.foreign != "allow":
        _refuse_other_tool(session)


def refuse_other_place(
    session: Session, config: Config, applied: Collection[str], known: Collection[str]
) -> None:
    """The first half of `refuse_other_histories`, which holds where another tool's is adopted.

    :raises PlanError: the history of this image's migrations is in another schema or table
    """
    if applied:
        return
    from initmig.core.home import LOG
    from initmig.history import location

    home = location.home_of(session)
    there = location.columns_of(session, home, (home.table, LOG))
    if home.table in there:
        return
    if LOG in there and not config.history_table:
        names = location.history_tables(session, home)
        found = f"its history is in {', '.join(names)}" if names else "it has no other history"
        raise PlanError(
            "other-history-table",
            f"the schema {home.schema} contains yoyo's {LOG} but no {home.table}: {found}",
            hint="name the history table that yoyo used: --history-table=NAME. To begin a new"
            f" history in this schema, pass --history-table={home.table}",
        )
    if config.schema or config.history_schema or location.search_path_is_from_client(session):
        return
    if schemas := location.schemas_with_history(session, home, known):
        raise PlanError(
            "history-elsewhere",
            f"these migrations already have a history in the schema {', '.join(schemas)}, but the"
            f" search path leads to {home.schema or 'no schema'}, where this run would begin a new"
            " one",
            hint=f"pass --schema={schemas[0]} to continue that history, or"
            f" --schema={home.schema or 'NAME'} to begin a new one. With --history-schema"
            " instead, the search path does not change",
        )


def _refuse_other_tool(session: Session) -> None:
    from initmig.history import location
    from initmig.migrations.foreign import HISTORY_TABLES, guide, tool_of_table

    home = location.home_of(session)
    for name, columns in location.columns_of(session, home, HISTORY_TABLES).items():
        if tool := tool_of_table(name, columns):
            raise PlanError(
                "foreign-history",
                f"the table {name} is the history of {tool}, and there is no history of initmig",
                hint="record what the database already has with `initmig baseline --to ID`, as"
                f" {guide(tool)} explains. To apply all migrations anyway, pass --foreign=allow",
            )


def refuse_unintended(
    pending: Iterable[MigrationFile], applied: Iterable[str], listing: Listing, config: Config
) -> None:
    """For those who read only; who loads the files takes `objections` to what was loaded.

    :raises ConfigError: there are objections to *pending* files, or one cannot be read
    """
    from initmig.migrations.files import read_all

    contents, problems = read_all(pending)
    if found := (*objections(contents, applied, listing, config), *problems):
        raise ConfigError.of(found)


def objections(
    pending: Sequence[Contents], applied: Iterable[str], listing: Listing, config: Config
) -> tuple[Problem, ...]:
    """Why *pending* files must not run: another tool's, not written yet, or there under two names.

    :raises ConfigError: an applied file, which one is compared with, cannot be read
    """
    done = frozenset(applied)
    return (
        *_spelled_otherwise([each.file for each in pending], done, listing),
        *_foreign_files(pending, done, listing, config),
        *(problem for each in pending if (problem := _unwritten(each))),
    )


def objections_to_undo(
    chosen: Iterable[Contents], applied: Iterable[str], listing: Listing, config: Config
) -> tuple[Problem, ...]:
    """Why what rolls back *chosen* migrations must not run: it is another tool's.

    :raises ConfigError: an applied file, which it is compared with, cannot be read
    """
    rollbacks = [
        each._replace(
            file=each.file._replace(path=each.file.rollback_path), sources=each.sources[1:]
        )
        for each in chosen
        if each.file.rollback_path
    ]
    return tuple(_foreign_files(rollbacks, frozenset(applied), listing, config))


def warn(plan: Iterable[Migration], config: Config, emit: Emit) -> None:
    """Emit what is unusual about the files of a *plan*, and what lies unused beside them."""
    warn_of_ignored(config, emit)
    for migration in plan:
        for place in migration.ignored:
            emit(DirectiveIgnored(str(place), place.source.strip()))
        # a step in Python cannot be looked into, so it counts as work
        if not (migration.steps and migration.has_statements):
            emit(NoStatements(migration.id, migration.file.path))


def warn_of_ignored(config: Config, emit: Emit) -> None:
    """Emit what lies unused in the folders."""
    from initmig.migrations.files import look_beside

    if ignored := look_beside(config.migrations).ignored:
        emit(FilesIgnored(ignored))


def _spelled_otherwise(
    pending: Iterable[MigrationFile], applied: Collection[str], listing: Listing
) -> Iterator[Problem]:
    """A problem for each name that stands there, or is applied, in another Unicode spelling.

    https://unicode.org/reports/tr15/ has what is one text in several spellings.
    """
    files = [file for file in (*pending, *listing.hooks) if not file.id.isascii()]
    if not files:
        return
    from unicodedata import normalize

    paths = {file.id: file.path for file in (*listing.migrations, *listing.hooks)}
    spellings: dict[str, list[str]] = {}
    for id in {**paths, **dict.fromkeys(applied)}:
        spellings.setdefault(normalize("NFC", id), []).append(id)
    told: set[str] = set()
    for file in files:
        others = [id for id in spellings[normalize("NFC", file.id)] if id != file.id]
        if others and file.id not in told:
            told.update(others)
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
    """A problem for each other tool, unless files of the same shape are applied already."""
    if config.foreign == "allow":
        return
    from initmig.migrations.files import look_beside, read
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
        names = look_beside(config.migrations).names
        tool, _ = tool_of_folder([name for name in names if "/" not in name])
        if tool:
            yield _foreign(tool, _paths(files))


def _grouped(found: Iterable[tuple[str, Contents]]) -> dict[str, list[Contents]]:
    """The files by their tool, without those that have none."""
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
    """Why the file cannot be meant to run; None if it can."""
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

    left = without_mark(data).strip()
    # a file of exotic blanks alone is short
    return len(left) < _SHORT and not left.decode(errors="replace").strip()


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
    shown = ", ".join(names[:_SHOWN])
    left = len(names) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown
